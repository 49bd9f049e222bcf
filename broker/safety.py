"""Deadlines that pass: each is raised once, to the sender by a notice and to people by the list.

Nothing stays open in silence: an undelivered message stays collectable, and somebody knows.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from broker import deadlines, notices, telling
from broker.audit import Entry
from broker.core import Core
from broker.crashpoints import crashpoint
from broker.deadlines import DeadlineKind
from broker.events import Destination, Kind, Role
from broker.store import deliveries, messages, work
from broker.store.messages import NewMessage
from broker.store.tx import Connection, Tx
from broker.telling import About, Teller
from broker.vault import Tampered

BATCH: Final = 50
# Whose telephone duty it is knows it from the answer; the list is enough.
UNTOLD: Final = frozenset({DeadlineKind.TELEPHONE.value})
STILL_THERE: Final = "It is still there to be collected."
NOT_READY: Final = "The broker could not make it ready for anybody: it cannot be collected."

log = structlog.get_logger()


class Safety:
    """Watches the deadlines. Any number may run: a deadline is raised by whoever marks it first."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def run_once(self) -> int:
        """Raise what has passed; return how many deadlines were looked at."""
        now = datetime.now(UTC)
        due = await self._core.store.read(lambda c: self._due(c, now))
        if not due:
            return 0
        directory = await self._core.directory.current()
        teller = Teller(self._core.vault, directory, self._core.source, now)
        prepared = [
            (row, about, self._told(teller, row, about, directory.name_now, has_gone=has_gone))
            for row, about, has_gone in due
        ]
        await self._core.store.write(lambda tx: _raise(tx, prepared))
        crashpoint("deadlines.raised")
        return len(due)

    async def next_due(self) -> datetime | None:
        """Return when the next open deadline passes, or None."""
        return await self._core.store.read(work.next_deadline)

    def _due(self, connection: Connection, now: datetime) -> list[tuple[Any, About, bool]]:
        """Return what has passed, with its message and whether that can be had by whom it names."""
        return [
            (row, about, _has_gone(connection, row))
            for row in work.due_deadlines(connection, now, BATCH)
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

    def _told(
        self, teller: Teller, row: Any, about: About, name: Any, *, has_gone: bool
    ) -> Sequence[NewMessage] | None:
        """Draw up the notices; None where that fails: the deadline is raised all the same."""
        try:
            return self._notices(teller, row, about, name, has_gone=has_gone)
        except Exception as error:  # kept on the work-list, and holds up no other deadline
            log.error(
                "deadlines.not-composed",
                message_id=row.message_id,
                kind=row.kind,
                error=type(error).__name__,
            )
            return None

    def _notices(
        self, teller: Teller, row: Any, about: About, name: Any, *, has_gone: bool
    ) -> list[NewMessage]:
        """Tell the sender; but never send a notice about a notice."""
        message = about.message
        if message.kind == Kind.NOTICE or row.kind in UNTOLD:
            return []
        who = name(Destination(row.owner))
        said = [f"{_not_done(row.kind)} {deadlines.in_words(row.due_at)} by {who}."]
        if row.kind in deadlines.RECEIPT_CLOCKS.values():  # others may pass when it is taken
            said.append(STILL_THERE if has_gone else NOT_READY)
        said.append("Please make sure that the patient is seen to.")
        return teller.notices(
            about,
            cause=row.id,
            topic="deadline-passed",
            text=" ".join(said),
            by=row.owner,
            to=[(Destination(message.sender), "sent the message whose deadline passed")],
        )


def _has_gone(connection: Connection, row: Any) -> bool:
    """Whether there is a delivery whose receipt this deadline waits for."""
    made = deliveries.of_message(connection, row.message_id)
    return any(deadlines.RECEIPT_CLOCKS[Role(one.role)] == row.kind for one in made)


def _not_done(kind: str) -> str:
    words: dict[str, str] = {
        DeadlineKind.RECEIVED: "Your message was not confirmed as stored",
        DeadlineKind.COPY_RECEIVED: "The copy of your referral was not confirmed as stored",
        DeadlineKind.DECIDED: "Your referral was not decided on",
        DeadlineKind.ANSWERED: "The question about your referral was not answered",
        DeadlineKind.FILED: "Your update was neither filed nor rejected",
    }
    return words.get(kind) or f"Nothing says yet that the patient was {kind}"


def _raise(tx: Tx, prepared: Sequence[tuple[Any, About, Sequence[NewMessage] | None]]) -> None:
    for row, about, told in prepared:
        if not work.raise_deadline(tx, row.id):
            continue
        message = about.message
        work.put_item(
            tx,
            f"{row.kind}-overdue",
            row.id,
            message_id=message.id,
            organisation=message.sender if message.kind != Kind.NOTICE else None,
            priority=message.priority,
            due_at=row.due_at,
        )
        tx.audit(
            Entry(
                "deadline.raised",
                "broker",
                message.sender,
                "message",
                message.id,
                {"kind": row.kind},
            )
        )
        if told is None:
            work.put_item(
                tx,
                "not-composed",
                row.id,
                message_id=message.id,
                organisation=None,
                priority=message.priority,
            )
        notices.put(tx, told or ())
        log.warning("deadline.raised", message_id=message.id, kind=row.kind)
