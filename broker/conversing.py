"""Clinical messages: what one party says to another about a patient, a referral or a message.

Who is no party of what is spoken about is told that there is no such thing. All that follows from
one message is a thread: a subject of its own, so that each party has it in order. A question has a
clock that its answer meets.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from broker import referral
from broker.access import UNRESTRICTED, Caller, readable
from broker.composition import CONTENT
from broker.core import Core
from broker.deadlines import DeadlineKind
from broker.directory import Directory
from broker.errors import Conflict, Gone, NotFound, Problem, Refused
from broker.events import Destination, Kind, Recorded
from broker.ports import Needs, Seek, Talks
from broker.preparing import CONCERNS, TALK, Slot
from broker.referral import RELATIONS, Relation, State
from broker.store import attachments, ledger, messages, referrals, threads, work
from broker.store.tx import Connection, Tx

QUESTION: Final = "question"
_MET: Final = (DeadlineKind.ANSWERED, DeadlineKind.FILED)


@dataclass(frozen=True, slots=True)
class _Case:
    """What is spoken about: its newest message, the event of that, and each who is a party of it,
    the closest relations first. `row` is the referral's, where it is one."""

    message: Any
    event: Recorded
    places: tuple[tuple[Relation, Destination], ...]
    row: Any = None

    def relation(self, own: Collection[str]) -> Relation:
        """Return what who answers for these ODS codes is to it, as far as it may know of it."""
        found = next((one for one, place in self.places if place.ods in own), Relation.NONE)
        anybody, restricted = readable()
        may = anybody if self.message.label in UNRESTRICTED else restricted
        return found if found in may else Relation.NONE

    def of(self, relation: Relation | None) -> Destination | None:
        return next((place for one, place in self.places if one is relation), None)


class Conversing:
    """Finds what clinical messages belong to, and shows their threads."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def about(self, needs: Needs, caller: Caller, directory: Directory) -> Needs:
        """Return the needs with whose patient it is, whom it goes to and the thread it belongs to.

        Raises Refused where what is named is nothing to the caller, or whom it is for no party.
        """
        talks = needs.talks
        if talks is None or not (talks.about or talks.in_reply_to):
            return needs
        own = directory.stands_for(caller.organisation)
        return await self._core.store.read(
            lambda c: self._about(c, needs, talks, own, directory),
        )

    def _about(
        self,
        connection: Connection,
        needs: Needs,
        talks: Talks,
        own: Collection[str],
        directory: Directory,
    ) -> Needs:
        field = "in_reply_to" if talks.in_reply_to else "about"
        case = _case(connection, talks.in_reply_to or talks.about, directory)
        relation = case.relation(own) if case is not None else Relation.NONE
        is_said = case is not None and TALK in case.event.facts
        if case is None or relation is Relation.NONE or (talks.in_reply_to and not is_said):
            raise _refused(field, f"unknown-{'message' if talks.in_reply_to else 'case'}", *_NONE)
        self._check_patient(needs, case)
        concerns: _Case | None = case
        if talks.in_reply_to:
            if case.message.status != "sent":
                raise _refused(field, "over", f"That message was {case.message.status}.", _ANEW)
            named = case.event.facts.get(CONCERNS)
            concerns = _case(connection, named, directory) if named else None
        place = _whom(needs, talks, case, concerns, relation, own, directory)
        content = messages.payload(connection, self._core.vault, case.event.id, CONTENT)
        if content is None:
            raise Gone("What this is about has been erased under the retention rules.")
        message = case.message
        is_met = talks.is_answer and relation is Relation.ACTING
        is_question = case.event.facts.get(TALK) == QUESTION
        found = replace(
            talks,
            message=concerns.message.id if concerns is not None else "",
            message_kind=Kind(concerns.message.kind) if concerns is not None else None,
            referral=concerns.row.subject_id if concerns is not None and concerns.row else "",
            about_subject=concerns.message.subject_id if concerns is not None else "",
            content=content.body,
            patient=(message.pseudonym_key, message.patient_pseudonym)
            if message.patient_pseudonym
            else None,
            thread=message.subject_id if talks.in_reply_to else "",
            meets=message.id if talks.in_reply_to and is_met and is_question else "",
        )
        return replace(
            needs,
            wants=tuple(
                replace(one, seeks=tuple(_to(seek, place) for seek in one.seeks))
                for one in needs.wants
            ),
            label=message.label if message.label not in UNRESTRICTED else needs.label,
            practice=needs.practice or message.practice,
            identity_verified=message.identity_verified,
            talks=found,
        )

    def _check_patient(self, needs: Needs, case: _Case) -> None:
        message = case.message
        if needs.nhs_number is None or message.patient_pseudonym is None:
            return
        if message.patient_pseudonym not in self._core.vault.pseudonyms(needs.nhs_number):
            raise _refused(
                "patient.nhs_number",
                "another-patient",
                "What it is about is about another patient.",
                "Leave `patient` out: it is known; or give the id of what you mean.",
            )

    # -- threads ---------------------------------------------------------------------------------

    async def relation(self, message_id: str, organisation: str) -> tuple[Relation, str]:
        """Return what an organisation is to a message of a thread, and its label."""
        directory = await self._core.directory.current()
        own = directory.stands_for(organisation)
        case = await self._core.store.read(lambda c: _case(c, message_id, directory))
        if case is None or TALK not in case.event.facts:
            return Relation.NONE, "N"
        return next((one for one, place in case.places if place.ods in own), Relation.NONE), (
            case.message.label
        )

    async def thread(self, message_id: str, organisation: str) -> dict[str, Any]:
        """Return what was said in a message's thread, oldest first, as far as it was said by or to
        this organisation. Raises NotFound."""
        directory = await self._core.directory.current()
        own = directory.stands_for(organisation)

        def read(connection: Connection) -> dict[str, Any]:
            case = _case(connection, message_id, directory)
            if case is None or TALK not in case.event.facts:
                raise NotFound("There is no such thread.")
            said = [
                event
                for event in ledger.events_of(connection, case.message.subject_id)
                if TALK in event.facts and event.message_id is not None
            ]
            rows = messages.by_id(connection, [one.message_id for one in said if one.message_id])
            return {
                "thread": case.message.subject_id,
                "about": case.event.facts.get(CONCERNS),
                "messages": [
                    self._said(connection, event, rows[event.message_id], directory)
                    for event in said
                    if event.message_id in rows
                    and (
                        rows[event.message_id].sender in own
                        or any(route.destination.ods in own for route in event.routes)
                    )
                ],
            }

        return await self._core.store.read(read)

    def _said(
        self, connection: Connection, event: Recorded, row: Any, directory: Directory
    ) -> dict[str, Any]:
        opened = messages.payload(connection, self._core.vault, event.id, CONTENT)
        told = words(opened.body) if opened is not None else {"subject": None, "text": None}
        clocks = {one.kind: one for one in work.deadlines_of(connection, [row.id])}
        answered = clocks.get(DeadlineKind.ANSWERED)
        return {
            "id": row.id,
            "kind": event.facts[TALK],
            "status": row.status,
            "from": row.sender,
            "from_name": directory.name(Destination(row.sender)),
            "to": [
                {
                    "organisation": route.destination.ods,
                    "service": route.destination.service or None,
                    "name": directory.name(route.destination),
                }
                for route in event.routes
            ],
            "sent_at": row.accepted_at.isoformat(),
            **told,
            "attachments": [
                f"/attachments/{key.attachment}"
                for key in attachments.carried(connection, self._core.vault, row.id)
            ],
            "answer_by": answered.due_at.isoformat() if answered is not None else None,
            "answered_at": answered.cleared_at.isoformat()
            if answered is not None and answered.cleared_at and answered.lapsed is None
            else None,
        }


def slot(slot: Slot, talks: Talks | None) -> Slot:
    """Return where a clinical message belongs: the thread that it goes on, or one of its own."""
    if talks is None or not talks.thread:
        return slot
    return replace(slot, subject=talks.thread, subject_kind=None)


def write(tx: Tx, talks: Talks | None, subject: str) -> None:
    """Write what a new thread is about, and meet the clocks of the question that a message answers:
    it needs no filing besides. `subject` is the thread."""
    if talks is None:
        return
    if talks.meets:
        work.clear(tx, talks.meets, *_MET)
    if talks.about_subject and not talks.thread:
        threads.put(tx, subject, talks.about_subject)


def check_same_thread(needs: Needs, subject: str) -> None:
    """Raise Conflict where a correction would go on another thread than what it corrects."""
    talks = needs.talks
    if talks is not None and talks.thread not in {"", subject}:
        raise Conflict("A correction stays in its thread: withdraw this message and send another.")


_NONE: Final = (
    "There is no such thing that your organisation is a party of.",
    "Give the id of a referral or message that you sent or that was sent to you.",
)
_ANEW: Final = "Begin anew: leave out `in_reply_to`, and say what it is about."


def _refused(field: str, code: str, detail: str, todo: str) -> Refused:
    return Refused.all_of([Problem(field, code, detail, todo)])


def _case(connection: Connection, named: str, directory: Directory) -> _Case | None:
    """Read what an id names: a referral stands for its newest message."""
    message = messages.get(connection, named)
    subject = message.subject_id if message is not None else named
    row = referrals.get(connection, subject) if subject is not None else None
    if row is not None and (message is None or message.kind == Kind.REFERRAL):
        message = messages.get(connection, row.message_id)
    else:
        row = None
    if message is None or message.event_id is None or message.kind == Kind.NOTICE:
        return None
    event = ledger.event(connection, message.event_id)
    if event is None:
        return None
    places = [(Relation.SENDER, Destination(message.sender))]
    if row is not None:
        places.append((Relation.ACTING, Destination(row.receiver, row.receiver_service)))
        practice = directory.practice(row.practice)
        if practice is not None:
            places.append((Relation.COPY, Destination(practice.ods)))
    else:
        routes = sorted(event.routes, key=lambda one: list(RELATIONS).index(one.role))
        places += [(RELATIONS[one.role], one.destination) for one in routes]
    return _Case(message, event, tuple((one, _now(at, directory)) for one, at in places), row)


def _now(place: Destination, directory: Directory) -> Destination:
    """Return a place, or who has succeeded it."""
    successor = directory.resolve_successor(place.ods)
    if successor is None or successor.ods == place.ods:
        return place
    return Destination(successor.ods)


def _whom(
    needs: Needs,
    talks: Talks,
    case: _Case,
    concerns: _Case | None,
    relation: Relation,
    own: Collection[str],
    directory: Directory,
) -> Destination:
    """Return whom it goes to: the party that is named, else whose turn it is or the other one."""
    parties = {place.ods: place for _, place in reversed(case.places)}
    if concerns is not None and concerns.relation(own) is not Relation.NONE:
        parties |= {place.ods: place for _, place in reversed(concerns.places)}
    others = {ods: place for ods, place in parties.items() if ods not in own}
    named = needs.wants[0].seeks[0].named
    if named is not None:
        if named.ods not in others:
            raise _not_a_party(f"{named.ods} is no party of it.", others, directory)
        return named if named.service else others[named.ods]
    if talks.is_chase and case.row is not None:
        turn = case.of(referral.STAGES[State(case.row.state)].waits_for)
        if turn is None or turn.ods in own:
            whose = "nobody's" if turn is None else "your own"
            raise _not_a_party(f"It is {whose} turn.", others, directory)
        return turn
    other = case.of(Relation.ACTING if relation is Relation.SENDER else Relation.SENDER)
    if other is None or other.ods in own:
        raise _not_a_party("It is not plain whom it is for.", others, directory)
    return parties[other.ods]


def _not_a_party(detail: str, others: Mapping[str, Destination], directory: Directory) -> Refused:
    names = "; ".join(f"{directory.name(place)} ({place.ods})" for place in others.values())
    return _refused("to.ods", "not-a-party", detail, f"Name one of its parties: {names}.")


def _to(seek: Seek, place: Destination) -> Seek:
    because = "" if seek.named is not None else "It is a party of what this is about."
    return replace(seek, named=place, because=because)


def words(content: bytes) -> dict[str, Any]:
    """Return what a Communication says: its subject and its text."""
    entries: Sequence[Any] = json.loads(content)["entry"]
    found = next(
        one["resource"] for one in entries if one["resource"]["resourceType"] == "Communication"
    )
    said = [one["contentString"] for one in found.get("payload", ()) if "contentString" in one]
    return {"subject": found.get("topic", {}).get("text"), "text": "\n".join(said)}
