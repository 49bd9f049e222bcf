"""Redirection: the same referral goes on to another place, with everything that was said of it.

Its receiver sends it on: the referral's identity, its clocks and its sender stay; the new place
gets a version of its own, and so do those with a copy. The old place sees no more than it had.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from broker import move_clocks, routing
from broker.composition import POSTED, Composing, compose
from broker.deadlines import CLINICAL, DeadlineKind
from broker.directory import Directory
from broker.errors import Gone, Problem, Refused
from broker.events import (
    REFERRAL_REDIRECTED,
    Destination,
    Kind,
    Priority,
    Recorded,
    Role,
    Route,
    uuid7,
)
from broker.moves import Found, Mover, Redirection
from broker.ports import Clinical, Endpoint, FieldPaths, Seek, Want
from broker.preparing import CHOSEN_BY, PATIENT
from broker.store import attachments, ledger, messages, work
from broker.store.attachments import ContentKey
from broker.store.tx import Connection
from broker.vault import Vault
from fhir_profiles import redirection
from fhir_profiles.documents import names_ours
from fhir_profiles.message import Site
from fhir_profiles.pathways.catalogue import catalogue, service_words

MOVE: Final = "redirect"
_FIELD: Final = "destination"
_PATHS: Final = FieldPaths(named=_FIELD, practice=_FIELD)


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of the version that stood: where it went, what was posted, and its clocks."""

    event: Recorded
    posted: bytes | None
    deadlines: Sequence[Any]
    attachments: Sequence[ContentKey]


def read(connection: Connection, vault: Vault, found: Found) -> Kept:
    """Read what goes over to the next version of a referral."""
    message = found.about.message
    posted = messages.payload(connection, vault, message.id, POSTED)
    event = ledger.event(connection, message.event_id)
    assert event is not None  # noqa: S101 - a message that stands has its event
    return Kept(
        event,
        posted.body if posted is not None else None,
        work.deadlines_of(connection, [message.id]),
        attachments.carried(connection, vault, message.id)
        if names_ours(found.about.content or b"")
        else (),
    )


def redirected(
    mover: Mover, found: Found, kept: Kept, content: Mapping[str, Any], client: str
) -> Redirection:
    """Draw up what the new place gets. Raises Refused where it may not go there."""
    directory, now = mover.directory, mover.now
    row, old = found.row, found.about.message
    place, receiver_type, agreement = _place(content[_FIELD], found, directory, now)
    _check_choice(kept, place, row.receiver, content)
    body = found.about.content
    if body is None:
        raise Gone("This referral has been erased under the retention rules.")
    message_id = uuid7()
    here = directory.party(Destination(row.receiver, row.receiver_service))
    party = directory.party(place)
    made = redirection.redirected(
        body,
        kept.event.facts["focus"],
        old_message=old.id,
        message=message_id,
        performer=Site(party.ods, party.name),
        performer_type=service_words(receiver_type),
        priority=row.priority,
        said=f"Redirected by {here.name} ({here.ods}): {content['advice']}",
    )
    clocks = _clocks(kept.deadlines, now)
    composing = Composing(
        id=message_id,
        kind=Kind.REFERRAL,
        subject=row.subject_id,
        event_type=REFERRAL_REDIRECTED,
        event_id=uuid7(),
        source=mover.source,
        sender=old.sender,
        client=client,
        door=old.door,
        correlation_id=old.correlation_id,
        conversation=old.conversation,
        content=made.body,
        focus=made.focus,
        routes=(
            Route(place, Role.ACTING, f"{here.name} redirected it there."),
            *_copies(kept.event, place, directory),
        ),
        priority=Priority(old.priority),
        happened=old.clinical_at,
        now=now,
        causation_id=row.last_event_id,
        replaces=old.id,
        version=old.version + 1,
        pathway=old.pathway,
        pathway_version=old.pathway_version,
        reference_hmac=old.reference_hmac,
        body_hmac=old.body_hmac,
        posted=kept.posted,
        patient=(old.pseudonym_key, old.patient_pseudonym) if old.patient_pseudonym else None,
        practice=old.practice,
        identity_verified=old.identity_verified,
        label=old.label,
        consent=old.consent,
        agreement=agreement,
        purpose=old.purpose,
        warnings=old.warnings,
        clocks=clocks,
        unclocked=_unclocked(kept.deadlines, clocks),
        attachments=kept.attachments,
        facts={"reason": "update", "about": old.id}
        | {name: said for name, said in kept.event.facts.items() if name == CHOSEN_BY},
    )
    return Redirection(
        compose(mover.vault, composing), place, old, tuple(_calls(old, place, directory, now))
    )


def _calls(old: Any, place: Destination, directory: Directory, now: datetime) -> Iterator[str]:
    """Yield whom to telephone about what must be seen to today."""
    if old.priority == Priority.STAT:
        yield (
            "A message alone is not enough for something that must be seen to today. "
            f"{directory.whom_to_telephone(place, now)}"
        )


def _place(
    named: str, found: Found, directory: Directory, now: datetime
) -> tuple[Destination, str, str | None]:
    """Return the place, as which type of service it takes this, and the agreement in force for it.
    Raises Refused."""
    row, purpose = found.row, found.about.message.purpose
    ods, _, service = named.strip().partition("/")
    place = Destination(ods.strip(), service.strip())
    entry = catalogue().entries[row.pathway]  # the state machine has seen to that
    if place.ods == row.sender:
        raise _refused("is-the-sender", "That is who referred.", "Reject it, with advice.")
    problems: tuple[Problem, ...] = ()
    for receiver in catalogue().takers(entry):
        want = Want(
            key=MOVE,
            kind=Kind.REFERRAL,
            pathway=row.pathway,
            pathway_version=found.about.message.pathway_version,
            priority=Priority(row.priority),
            seeks=(
                Seek(
                    role=Role.ACTING,
                    receiver_type=receiver,
                    named=place,
                    words=f"referrals to the {service_words(receiver)} ({entry.name})",
                ),
            ),
            happened=now,
        )
        routed = routing.route(want, row.sender, directory, now, purpose=purpose, paths=_PATHS)
        if routed.routes:
            to = routed.routes[0].destination
            if to == Destination(row.receiver, row.receiver_service):
                raise _refused("is-here", "That is where it is.", "Name another place.")
            return to, receiver, routed.agreement or None
        problems = problems or routed.problems
    raise Refused.all_of(list(problems))


def _check_choice(
    kept: Kept, place: Destination, receiver: str, content: Mapping[str, Any]
) -> None:
    """What the patient chose is left only with the patient's word."""
    was_chosen = kept.event.facts.get(CHOSEN_BY) == PATIENT
    if was_chosen and place.ods != receiver and content.get("patient_agrees") != "yes":
        problem = Problem(
            "patient_agrees",
            "chosen-by-patient",
            "The patient chose this provider.",
            "Speak with the patient; send `yes` if they agree to the other one, else reject it.",
        )
        raise Refused.all_of([problem])


def _copies(event: Recorded, place: Destination, directory: Directory) -> Sequence[Route]:
    """Return those who had a copy and can be reached: they learn where the patient is to go."""
    return [
        route
        for route in event.routes
        if route.role is Role.COPY
        and route.destination.ods != place.ods
        and isinstance(routing.recheck(route.destination, Kind.UPDATE, directory), Endpoint)
    ]


def _clocks(rows: Sequence[Any], now: datetime) -> tuple[Clinical, ...]:
    """Return what ran for the patient, as it ran: nobody's redirection buys time. A decision's
    clock that waits for an answer goes on, with as much as it had left."""
    return tuple(
        Clinical(
            row.kind,
            now + (row.due_at - row.cleared_at) if row.lapsed == move_clocks.WAITS else row.due_at,
            row.source,
        )
        for row in rows
        if row.kind in CLINICAL and row.lapsed in {None, move_clocks.WAITS}
    )


def _unclocked(rows: Sequence[Any], clocks: Sequence[Clinical]) -> frozenset[DeadlineKind]:
    """Return which clocks do not begin: what the patient does not wait for, and a call of the
    sender's that was made."""
    called = {
        DeadlineKind.TELEPHONE
        for row in rows
        if row.kind == DeadlineKind.TELEPHONE and row.cleared_at is not None and row.lapsed is None
    }
    return (CLINICAL - {one.kind for one in clocks}) | called


def _refused(code: str, detail: str, todo: str) -> Refused:
    return Refused.all_of([Problem(_FIELD, code, detail, todo)])
