"""From an understood request to all that one transaction will store and its sender will be told.

Routes each wanted message, translates, composes. Reads nothing but what it is given.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from broker import choosing, deadlines, routing
from broker.attachments.enclosing import NONE_ENCLOSED, Enclosures
from broker.choosing import Candidate
from broker.composition import Composing, compose
from broker.deadlines import DeadlineKind
from broker.directory import Directory
from broker.errors import Problem
from broker.events import (
    REFERRAL_SUBMITTED,
    UPDATE_SUBMITTED,
    Destination,
    Kind,
    Priority,
    Role,
    Route,
    SubjectKind,
    uuid7,
)
from broker.ports import Clinical, Context, Draft, Needs, Translator, Want
from broker.reading import refusal
from broker.referral import State
from broker.store.messages import NewMessage
from broker.vault import Vault
from fhir_profiles import redirection

ABOUT: Final = "referral"
"""What an update's event says of the referral whose loop it closes: its id."""
TALK: Final = "communication"
"""What the event of a clinical message says of it: its kind."""
COMMUNICATIONS: Final = "communications"
"""The door of clinical messages: several of them share a subject, their thread."""
CONCERNS: Final = "concerns"
"""What the event of a clinical message says of the message that it is about: its id, or nothing."""
WANT: Final = "want"
"""What a referral's event says of what it was asked for as, beside others of one post."""
CANDIDATES: Final = "candidates"
"""What an event says of those among whom its acting receiver was chosen (`broker.choosing`)."""
CHOSEN_BY: Final = "chosen-by"
PATIENT: Final = "patient"
"""What a referral's event says where the patient chose the place."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a wanted message belongs: its own new subject, or the one it amends.

    `unclocked` are the clocks that do not run for it: what they wait for has happened.
    """

    subject: str
    subject_kind: SubjectKind | None
    event_type: str
    replaces: str | None = None
    version: int = 1
    facts: Mapping[str, str] = field(default_factory=dict)
    unclocked: frozenset[DeadlineKind] = frozenset()


@dataclass(frozen=True, slots=True)
class Planned:
    """A wanted message with where it goes.

    `candidates` are those among whom its acting receiver was chosen. `asked` is the sender's own
    priority, where the referral that it amends is taken otherwise.
    """

    want: Want
    routes: tuple[Route, ...]
    agreement: str | None
    candidates: tuple[Candidate, ...] = ()
    asked: Priority | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request comes to, before it is translated: what goes where, and what must be said."""

    needs: Needs
    planned: tuple[Planned, ...]
    warnings: tuple[Problem, ...]
    read_first: tuple[str, ...]
    aside: tuple[Problem, ...] = ()
    """What the sender alone is told: it stands in no content."""

    @property
    def routes(self) -> Iterator[Route]:
        """Every route of every message."""
        return (route for one in self.planned for route in one.routes)


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that one transaction will store, and what draws up a native door's answer."""

    messages: tuple[NewMessage, ...]
    referrals: tuple[dict[str, Any], ...]
    answer: Callable[[], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Origin:
    """By whom, through which door and under which correlation a request came.

    `posted` is what was posted, where the content is not that itself. `conversation` is what its
    sender calls the whole case.
    """

    organisation: str
    client: str
    door: str
    correlation_id: str
    source: str
    reference_hmac: str | None
    body_hmac: str
    posted: bytes | None = field(repr=False)
    conversation: str | None = None
    patient: tuple[str, str] | None = None
    traceparent: str | None = None


def plan(
    translator: Translator,
    raw: Mapping[str, Any],
    needs: Needs,
    directory: Directory,
    now: datetime,
    under_way: Collection[Destination] = routing.NOWHERE,
) -> Plan:
    """Decide where every message goes. Raises Refused where an acting receiver cannot be had.

    Of a correction, `under_way` is where its referrals are already.
    """
    planned: list[Planned] = []
    warnings = list(needs.warnings)
    problems: list[Problem] = []
    left_out: list[str] = []
    telephone = ""
    unasked = False
    for want in needs.wants:
        routed = routing.route(
            want,
            needs.organisation,
            directory,
            now,
            purpose=needs.purpose,
            paths=translator.paths,
            under_way=under_way,
        )
        problems += routed.problems
        telephone = telephone or routed.telephone
        warnings += routed.warnings
        if routed.left_out:
            left_out.append(routed.left_out)
            unasked = unasked or want.priority is Priority.STAT
        elif routed.routes:
            planned.append(
                Planned(want, routed.routes, routed.agreement or None, routed.candidates)
            )
    if problems:
        raise refusal(translator, raw, problems, telephone)
    if unasked:
        # What still goes is the only word of it, so it is itself same-day and the call a duty.
        planned = [replace(one, want=replace(one.want, priority=Priority.STAT)) for one in planned]
    return Plan(needs, tuple(planned), tuple(warnings), (*left_out, *needs.advice))


def prepare(
    translator: Translator,
    request: Any,
    plan: Plan,
    slots: Mapping[str, Slot],
    origin: Origin,
    directory: Directory,
    vault: Vault,
    now: datetime,
    enclosures: Enclosures = NONE_ENCLOSED,
) -> Prepared:
    """Translate and compose every planned message."""
    ids = {one.want.key: uuid7() for one in plan.planned}
    context = replace(_context(plan, ids, origin, directory, now), attachments=enclosures.attached)
    drafts = {draft.key: draft for draft in translator.translate(request, context)}
    made: list[NewMessage] = []
    opened: list[dict[str, Any]] = []
    for number, one in enumerate(plan.planned):
        key = one.want.key
        slot, draft = slots[key], drafts[key]
        if one.asked is not None:
            priority = one.want.priority.value
            draft = replace(
                draft, content=redirection.taken_as(draft.content, draft.focus, priority)
            )
        composing = _composing(one, slot, draft, plan, origin, ids[key], now)
        if one.want.kind is Kind.REFERRAL:
            composing = replace(composing, clocks=(*_unseen(one, directory, now), *one.want.clocks))
        facts = {**composing.facts, **_named(one.want, plan.needs, origin, vault)}
        composing = replace(composing, facts=facts)
        if number > 0:  # a reference belongs to what was posted: the first message carries it
            composing = replace(composing, reference_hmac=None)
        keys = [enclosures.keys[named] for named in draft.attachments]
        composing = replace(composing, attachments=keys)
        made.append(compose(vault, composing))
        if one.want.kind is Kind.REFERRAL and slot.subject_kind is not None:
            opened.append(_referral(one, slot, ids[key], plan.needs))
    return Prepared(
        tuple(made),
        tuple(opened),
        partial(answer, plan, made, directory, origin.correlation_id, now),
    )


def pseudonym_of(vault: Vault, needs: Needs) -> tuple[str, str] | None:
    """Return (key id, keyed pseudonym) of the patient: as given, or of what is spoken about."""
    if needs.nhs_number:
        return vault.pseudonym(needs.nhs_number)
    return needs.talks.patient if needs.talks is not None else None


def asked_as(vault: Vault, correlation_id: str, key: str) -> str:
    """Return what a referral's event says of its want's key, which may be a sender's own words."""
    return vault.mac(f"want|{correlation_id}", key.encode())


def _named(want: Want, needs: Needs, origin: Origin, vault: Vault) -> dict[str, str]:
    if want.kind is Kind.REFERRAL:
        return {WANT: asked_as(vault, origin.correlation_id, want.key)}
    if needs.talks is not None:
        about = {CONCERNS: needs.talks.message} if needs.talks.message else {}
        return {TALK: needs.talks.kind, **about}
    return {ABOUT: needs.closes.referral} if needs.closes is not None else {}


def _context(
    plan: Plan, ids: Mapping[str, str], origin: Origin, directory: Directory, now: datetime
) -> Context:
    needs = plan.needs
    return Context(
        message_ids=ids,
        sender=directory.party(Destination(needs.organisation)),
        practice=directory.party(Destination(needs.practice)) if needs.practice else None,
        destinations={
            one.want.key: tuple(
                (directory.party(route.destination), route.role) for route in one.routes
            )
            for one in plan.planned
        },
        correlation_id=origin.correlation_id,
        now=now,
        warnings=plan.warnings,
        priorities={one.want.key: one.want.priority for one in plan.planned},
        referral=needs.closes.referral if needs.closes is not None else None,
        talks=needs.talks,
        based_on=needs.based_on,
        said_before=needs.said_before,
    )


def _composing(
    one: Planned,
    slot: Slot,
    draft: Draft,
    plan: Plan,
    origin: Origin,
    message_id: str,
    now: datetime,
) -> Composing:
    want, needs = one.want, plan.needs
    return Composing(
        id=message_id,
        kind=want.kind,
        subject=slot.subject,
        subject_kind=slot.subject_kind,
        event_type=slot.event_type,
        event_id=uuid7(),
        source=origin.source,
        sender=needs.organisation,
        client=origin.client,
        door=origin.door,
        correlation_id=origin.correlation_id,
        conversation=origin.conversation,
        content=draft.content,
        checked=draft.checked,
        focus=draft.focus,
        routes=one.routes,
        priority=want.priority,
        happened=want.happened,
        now=now,
        traceparent=origin.traceparent,
        replaces=slot.replaces,
        version=slot.version,
        pathway=want.pathway,
        pathway_version=want.pathway_version,
        reason=want.reason_code,
        reference_hmac=origin.reference_hmac,
        body_hmac=origin.body_hmac,
        posted=origin.posted,
        patient=origin.patient,
        practice=needs.practice,
        identity_verified=needs.identity_verified,
        label=needs.label,
        consent=needs.consent,
        agreement=one.agreement,
        purpose=needs.purpose,
        warnings=[
            {"code": warning.code, "field": warning.field}
            for warning in (*plan.warnings, *plan.aside)
        ],
        clocks=want.clocks,
        unclocked=slot.unclocked,
        facts={
            **slot.facts,
            **({CHOSEN_BY: PATIENT} if want.chosen_by_patient else {}),
            **({CANDIDATES: choosing.written(one.candidates)} if one.candidates else {}),
        },
    )


def _unseen(one: Planned, directory: Directory, now: datetime) -> tuple[Clinical, ...]:
    """Return when whoever gets a referral is reminded of it, and when it closes unseen."""
    acting = next(route.destination for route in one.routes if route.role is Role.ACTING)
    return deadlines.unseen(
        one.want.pathway,
        now,
        directory.closes_after(acting, now),
        closes_alone=one.want.closes_alone,
    )


def new_slot(
    want: Want, subject_kind: SubjectKind, facts: Mapping[str, str] = MappingProxyType({})
) -> Slot:
    """Return a place of its own for a message: a referral is always a subject to itself.

    `facts` is what the event says beside that it is new.
    """
    said = {"reason": "new", **facts}
    if want.kind is Kind.REFERRAL:
        return Slot(uuid7(), SubjectKind.REFERRAL, REFERRAL_SUBMITTED, facts=said)
    return Slot(uuid7(), subject_kind, UPDATE_SUBMITTED, facts=said)


def _referral(one: Planned, slot: Slot, message_id: str, needs: Needs) -> dict[str, Any]:
    acting = next(route for route in one.routes if route.role is Role.ACTING)
    return {
        "subject_id": slot.subject,
        "message_id": message_id,
        "state": State.REQUESTED.value,
        "sender": needs.organisation,
        "receiver": acting.destination.ods,
        "receiver_service": acting.destination.service,
        "practice": needs.practice,
        "pathway": one.want.pathway,
        "priority": one.want.priority.value,
        "state_before": None,
        "last_move": None,
        "last_move_by": None,
        "last_move_at": None,
        "last_move_hmac": None,
        "last_event_id": None,
        "redirected_to": None,
    }


def answer(
    plan: Plan,
    made: Sequence[NewMessage],
    directory: Directory,
    correlation_id: str,
    now: datetime,
) -> dict[str, Any]:
    """Return what the sender is told: what was made, where each goes and why, and by when.

    To be read first is what to do now, then whom to telephone, then what is overdue already.
    """
    said = [
        *plan.read_first,
        *(call for message in made for call in _calls(message, directory, now)),
        *(duty for message in made for duty in _overdue(message, directory, now)),
    ]
    return {
        "read_first": list(dict.fromkeys(said)),
        "messages": [told(message, directory, now) for message in made],
        "correlation_id": correlation_id,
        "accepted_at": now.isoformat(),
        "warnings": [one.as_json() for one in (*plan.warnings, *plan.aside)],
    }


def _calls(message: NewMessage, directory: Directory, now: datetime) -> Iterator[str]:
    """Yield whom to telephone about a message that must be seen to today."""
    if message.row["priority"] != Priority.STAT:
        return
    if all(one["kind"] != DeadlineKind.TELEPHONE for one in message.deadlines):
        yield (
            "It is known there already that this is for today. If what has changed cannot wait, "
            "telephone again."
        )
        return
    acting = next(r.destination for r in message.event.routes if r.role is Role.ACTING)
    yield (
        "A message alone is not enough for something that must be seen to today. "
        f"{directory.whom_to_telephone(acting, now)} Then record the call with "
        f"POST /messages/{message.row['id']}/telephone-calls."
    )


def _overdue(message: NewMessage, directory: Directory, now: datetime) -> Iterator[str]:
    for one in message.deadlines:
        if deadlines.is_overdue(one["due_at"], now):
            owner = directory.name(Destination(one["owner"]))
            yield f"Overdue already: {deadlines.duty(one['kind'], owner, one['due_at'])}"


def told(message: NewMessage, directory: Directory, now: datetime) -> dict[str, Any]:
    """Return what a sender is told of one message."""
    row = message.row
    told = {
        "id": row["id"],
        "kind": row["kind"],
        "url": f"/messages/{row['id']}",
        "priority": row["priority"],
        "priority_in_words": Priority(row["priority"]).words,
        "destinations": [
            {
                "organisation": route.destination.ods,
                "service": route.destination.service or None,
                "name": directory.name(route.destination),
                "role": route.role.value,
                "reason": route.reason,
            }
            for route in message.event.routes
        ],
        "deadlines": [
            {
                "kind": one["kind"],
                "by": one["due_at"].isoformat(),
                "in_words": deadlines.in_words(one["due_at"]),
                "whose_turn": one["owner"],
                "rule": one["source"],
                "overdue": deadlines.is_overdue(one["due_at"], now),
            }
            for one in sorted(message.deadlines, key=lambda one: str(one["due_at"]))
        ],
        "candidates": candidates(message.event.facts, directory),
    }
    if row["door"] == COMMUNICATIONS:
        told["thread"] = f"/communications/{row['id']}/thread"
    if row["kind"] == Kind.REFERRAL:
        told["referral"] = f"/referrals/{row['subject_id']}"
    return told


def candidates(facts: Mapping[str, str], directory: Directory) -> list[dict[str, Any]]:
    """Return, as its sender reads it, among whom a message's acting receiver was chosen."""
    return choosing.told(choosing.read(facts.get(CANDIDATES, "")), directory)
