"""Referrals whose patient makes contact, and of which nothing is heard: their receiver is reminded
on the day, and at the end of the time that their pathway gives them they close.

They close to their sender and to the practice as without contact. A later consultation that names
one still completes it; a child's, or one of somebody at risk, never closes so (see `safety`).
"""

import contextlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import structlog

from broker import deadlines, moves, notices
from broker.audit import Entry
from broker.core import Core
from broker.deadlines import DeadlineKind
from broker.errors import Stale
from broker.events import Destination, Kind
from broker.moves import BROKER, Mover
from broker.ports import Endpoint
from broker.referral import MOVES
from broker.routing import recheck
from broker.store import work
from broker.store.tx import Tx
from broker.telling import About, Teller

KINDS: Final = frozenset({DeadlineKind.REMINDED.value, DeadlineKind.CLOSED.value})

log = structlog.get_logger()


class Unseen:
    """Sees to the clocks of what nobody has seen yet. Any number may run."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def see_to(self, due: Sequence[tuple[Any, About]], now: datetime) -> None:
        """Remind and close; whatever was moved meanwhile is left as it is."""
        directory = await self._core.directory.current()
        teller = Teller(self._core.vault, directory, self._core.source, now)
        mover = Mover(self._core.vault, directory, self._core.source, now)
        for row, about in due:
            with contextlib.suppress(Stale):
                if row.kind == DeadlineKind.REMINDED:
                    await self._remind(row, about, teller)
                else:
                    await self._close(row, about, mover)

    async def _remind(self, row: Any, about: About, teller: Teller) -> None:
        place = Destination(row.owner)
        told = []
        if isinstance(recheck(place, Kind.NOTICE, teller.directory), Endpoint):
            told = teller.notices(
                about,
                cause=row.id,
                topic="reminder",
                text=f"Nothing is heard yet of this patient. {await self._what_follows(row)}",
                by=about.message.sender,
                to=[(place, "was asked to see the patient")],
            )

        def write(tx: Tx) -> None:
            if work.raise_deadline(tx, row.id):
                work.lapse(tx, row.message_id, "reminded", DeadlineKind.REMINDED)
                notices.put(tx, told)
                facts = {"kind": row.kind}
                tx.audit(
                    Entry("receiver.reminded", BROKER, row.owner, "message", row.message_id, facts)
                )

        await self._core.store.write(write)

    async def _what_follows(self, row: Any) -> str:
        rows = await self._core.store.read(lambda c: work.deadlines_of(c, [row.message_id]))
        for one in rows:
            if one.kind == DeadlineKind.CLOSED and one.cleared_at is None:
                when = deadlines.in_words(one.due_at)
                return f"Record the consultation {when}, else the referral closes without contact."
        return "Record the consultation, or what came of it: it does not close by itself."

    async def _close(self, row: Any, about: About, mover: Mover) -> None:
        found = await self._core.store.read(
            lambda c: moves.find(c, mover.vault, about.message.subject_id)
        )
        expire = MOVES["expire"]
        if found is None or found.row.state not in expire.sources:
            await self._core.store.write(
                lambda tx: work.lapse(tx, row.message_id, "unclosed", DeadlineKind.CLOSED)
            )
            return
        note = f"No contact with the patient was recorded {deadlines.in_words(row.due_at)}."
        ready = mover.ready(found, expire, {"note": note}, BROKER, BROKER)
        await self._core.store.write(ready.write)
        log.warning("referral.closed-unseen", message_id=row.message_id)
