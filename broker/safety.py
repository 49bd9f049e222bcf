"""Deadlines that pass: each is raised once, to the sender by a notice and to people by the list.

What is still not met then is told to others too, step by step, as the catalogue's chain says.
Nothing stays open in silence: an undelivered message stays collectable, and somebody knows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from broker import deadlines, notices, telling, unseen
from broker.audit import Entry
from broker.core import Core
from broker.crashpoints import crashpoint
from broker.deadlines import DeadlineKind
from broker.directory import Directory
from broker.events import Destination, Kind, Priority, Role, caused_id
from broker.ports import Endpoint
from broker.referral import Audience
from broker.routing import recheck
from broker.store import deliveries, escalations, ledger, messages, referrals, work
from broker.store.messages import NewMessage
from broker.store.tx import Connection, Tx
from broker.telling import About, Teller
from broker.unseen import Unseen
from broker.vault import Tampered
from fhir_profiles.pathways.catalogue import catalogue
from fhir_profiles.pathways.parts import Escalation

BATCH: Final = 50
# Whose telephone duty it is knows it from the answer; the list is enough.
UNTOLD: Final = frozenset({DeadlineKind.TELEPHONE.value})
# Nobody else can do anything about these.
UNESCALATED: Final = UNTOLD | {DeadlineKind.COPY_RECEIVED, DeadlineKind.NOTICE_RECEIVED}
STILL_THERE: Final = "It is still there to be collected."
ON_ITS_WAY: Final = "It is on its way."
NOT_READY: Final = "The broker could not make it ready for anybody: it cannot be collected."

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Passed:
    """A deadline that passed, and the message that it is of.

    `step` 0 is when it is raised; `acting` is the place that a referral is at; `lies` says where a
    message is of which nobody has said that it is stored.
    """

    row: Any
    about: About
    step: int
    acting: Destination | None
    lies: str

    @property
    def chain(self) -> Sequence[Escalation]:
        """Who else hears of it, the sooner first."""
        message = self.about.message
        if message.kind == Kind.NOTICE or self.row.kind in UNESCALATED:
            return ()
        return catalogue().escalation(message.pathway, Priority(message.priority).value)


@dataclass(frozen=True, slots=True)
class _Ready:
    passed: Passed
    told: Sequence[NewMessage] | None


class Safety:
    """Watches the deadlines. Any number may run: a deadline is raised by whoever marks it first."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._unseen = Unseen(core)

    async def run_once(self) -> int:
        """Raise what has passed; return how many deadlines were looked at."""
        now = datetime.now(UTC)
        due = await self._core.store.read(lambda c: self._due(c, now))
        if not due:
            return 0
        waiting = [one for one in due if one.row.kind in unseen.KINDS]
        await self._unseen.see_to([(one.row, one.about) for one in waiting], now)
        directory = await self._core.directory.current()
        teller = Teller(self._core.vault, directory, self._core.source, now)
        prepared = [_Ready(one, self._told(teller, one)) for one in due if one not in waiting]
        await self._core.store.write(lambda tx: _raise(tx, prepared))
        crashpoint("deadlines.raised")
        return len(due)

    async def next_due(self) -> datetime | None:
        """Return when the next open deadline passes or is escalated, or None."""

        def read(connection: Connection) -> datetime | None:
            found = work.next_deadline(connection), escalations.next_due(connection)
            return min((one for one in found if one is not None), default=None)

        return await self._core.store.read(read)

    def _due(self, connection: Connection, now: datetime) -> list[Passed]:
        """Return what has passed, and what is still not met a step later."""
        rows = [(row, 0) for row in work.due_deadlines(connection, now, BATCH)]
        rows += [(row, row.step) for row in escalations.due(connection, now, BATCH)]
        return [
            Passed(row, about, step, _acting(connection, about), _lies(connection, row, about))
            for row, step in rows
            for about in [self._about(connection, row.message_id)]
            if about is not None
        ]

    def _about(self, connection: Connection, message_id: str) -> About | None:
        """Open the message; one that cannot be opened has its deadlines watched all the same."""
        try:
            return telling.about(connection, self._core.vault, message_id)
        except Tampered:
            log.error("deadlines.tampered", message_id=message_id)
            return About(messages.get(connection, message_id), None)

    def _told(self, teller: Teller, passed: Passed) -> Sequence[NewMessage] | None:
        """Draw up the notices; None where that fails: the deadline is raised all the same."""
        try:
            return _escalated(teller, passed) if passed.step else _passed(teller, passed)
        except Exception as error:  # kept on the work-list, and holds up no other deadline
            log.error(
                "deadlines.not-composed",
                message_id=passed.row.message_id,
                kind=passed.row.kind,
                error=type(error).__name__,
            )
            return None


def _acting(connection: Connection, about: About) -> Destination | None:
    """Return the place that a referral is at; of an update its deadline says it."""
    if about.message.kind != Kind.REFERRAL:
        return None
    row = referrals.get(connection, about.message.subject_id)
    return Destination(row.receiver, row.receiver_service) if row is not None else None


def _lies(connection: Connection, row: Any, about: About) -> str:
    """Say where a message is, of which nobody has said that it is stored."""
    made = deliveries.of_message(connection, row.message_id)
    if any(deadlines.RECEIPT_CLOCKS[Role(one.role)] == row.kind for one in made):
        return STILL_THERE
    event = ledger.event(connection, about.message.event_id)
    subject = ledger.subject(connection, about.message.subject_id)
    is_fanned_out = event is None or subject.dispatched_seq >= event.subject_seq
    return NOT_READY if is_fanned_out else ON_ITS_WAY


# -- what is told --------------------------------------------------------------------------------


def _passed(teller: Teller, passed: Passed) -> list[NewMessage]:
    """Tell the sender; but never send a notice about a notice."""
    row, message = passed.row, passed.about.message
    if message.kind == Kind.NOTICE or row.kind in UNTOLD:
        return []
    who = teller.directory.name_now(Destination(row.owner))
    said = [f"{_not_done(row.kind, message.kind)} {deadlines.in_words(row.due_at)} by {who}."]
    if row.kind in deadlines.RECEIPT_CLOCKS.values():  # others may pass when it is taken
        said.append(passed.lies)
    said.append("Please make sure that the patient is seen to.")
    return teller.notices(
        passed.about,
        cause=row.id,
        topic="deadline-passed",
        text=" ".join(said),
        by=row.owner,
        to=[(Destination(message.sender), "sent the message whose deadline passed")],
    )


def _escalated(teller: Teller, passed: Passed) -> list[NewMessage]:
    """Tell whom the chain names for this step."""
    row = passed.row
    who = teller.directory.name_now(Destination(row.owner))
    return teller.notices(
        passed.about,
        cause=caused_id(row.id, "safety", row.message_id, "escalated", passed.step),
        topic="deadline-escalated",
        text=(
            f"Overdue, and still nobody has acted: {deadlines.duty(row.kind, who, row.due_at)} "
            "Please make sure that the patient is seen to."
        ),
        by=passed.about.message.sender,
        to=list(dict.fromkeys(_places(teller.directory, passed))),
    )


def _places(directory: Directory, passed: Passed) -> Iterable[tuple[Destination, str]]:
    """Yield each whom this step names and who can be told, with why."""
    row, message = passed.row, passed.about.message
    practice = directory.practice(message.practice)
    places: dict[Audience, tuple[Destination | None, str]] = {
        Audience.SENDER: (Destination(message.sender), "sent it"),
        Audience.RECEIVER: (passed.acting or Destination(row.owner), "was asked to act"),
        Audience.PRACTICE: (
            Destination(practice.ods) if practice is not None else None,
            "keeps the patient's record",
        ),
    }
    for party in passed.chain[passed.step - 1].tell:
        place, why = places[Audience(party)]
        if place is not None and isinstance(recheck(place, Kind.NOTICE, directory), Endpoint):
            yield place, why


def _not_done(kind: str, of: str) -> str:
    if kind == DeadlineKind.ANSWERED and of == Kind.UPDATE:
        return "Your question was not answered"
    words: dict[str, str] = {
        DeadlineKind.RECEIVED: "Your message was not confirmed as stored",
        DeadlineKind.COPY_RECEIVED: "A copy of your message was not confirmed as stored",
        DeadlineKind.DECIDED: "Your referral was not decided on",
        DeadlineKind.ANSWERED: "The question about your referral was not answered",
        DeadlineKind.FILED: "Your update was neither filed nor rejected",
        DeadlineKind.ARRANGED: "Nothing says yet that the patient was booked or seen",
        DeadlineKind.ATTENDED: "Nothing says yet whether the patient came to the appointment",
        DeadlineKind.FOLLOWED_UP: "The patient was not followed up, nor the referral ended",
        DeadlineKind.CONCLUDED: "Nothing says yet what came of your referral",
        DeadlineKind.RESOLVED: "Nothing says yet what is done for the patient instead",
        DeadlineKind.DONE: "Nothing says yet that what you asked for was done",
    }
    return words.get(kind) or f"Nothing says yet that the patient was {kind}"


# -- what is written -----------------------------------------------------------------------------


def _raise(tx: Tx, prepared: Sequence[_Ready]) -> None:
    for ready in prepared:
        passed, row, message = ready.passed, ready.passed.row, ready.passed.about.message
        if not _is_first(tx, passed):
            continue
        work.put_item(
            tx,
            f"{row.kind}-escalated" if passed.step else f"{row.kind}-overdue",
            row.id,
            message_id=message.id,
            organisation=message.sender if message.kind != Kind.NOTICE else None,
            priority=message.priority,
            due_at=row.due_at,
        )
        if len(passed.chain) > passed.step:
            due = passed.chain[passed.step].after.due(row.raised_at or tx.now)
            escalations.put(tx, row.id, passed.step + 1, due)
        action = "deadline.escalated" if passed.step else "deadline.raised"
        tx.audit(Entry(action, "broker", message.sender, "message", message.id, {"kind": row.kind}))
        if ready.told is None:
            work.put_item(
                tx,
                "not-composed",
                row.id,
                message_id=message.id,
                organisation=None,
                priority=message.priority,
            )
        notices.put(tx, ready.told or ())
        log.warning(action, message_id=message.id, kind=row.kind)


def _is_first(tx: Tx, passed: Passed) -> bool:
    """Mark it; False where another process was first, or it was met meanwhile."""
    if passed.step:
        return escalations.told(tx, passed.row.id, passed.step)
    return work.raise_deadline(tx, passed.row.id)
