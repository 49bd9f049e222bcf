"""Waits a little for what a service says of a referral, so that its sender hears it at once."""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from broker import answered
from broker.answered import Answered
from broker.core import Core
from broker.errors import DeliveryCode
from broker.events import Role
from broker.store import deliveries
from broker.store.tx import DELIVERIES, Connection

NOT_OFFERED: Final[DeliveryCode] = "not-offered"
# Two commits in a row are looked at once.
_GATHER: Final = 0.005
# Another process's commit wakes nobody here.
_POLL: Final = 0.25


@dataclass(frozen=True, slots=True)
class Word:
    """What is known of a referral's delivery: the service's answer, if it gave one.

    `is_refused`: a BaRS receiver refused it, or does not offer to take it. `is_given_up`: nobody
    tries any more. Of what is none of these, more is to be heard.
    """

    delivery: Any
    is_taken: bool = False
    is_refused: bool = False
    is_given_up: bool = False
    answer: Answered | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing more will be said."""
        return self.is_taken or self.is_refused or self.is_given_up

    def is_put_off(self, seconds: float) -> bool:
        """Whether an attempt has failed, and the next one is later than so many seconds from now:
        nothing more will be said by then."""
        row = self.delivery
        if row is None or row.state != "due" or not row.attempt or row.lease_until is not None:
            return False
        return bool(row.due_at > datetime.now(UTC) + timedelta(seconds=seconds))


class Waiting:
    """Tells what became of deliveries, as soon as it is written. One per process."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._changed = asyncio.Event()
        core.store.listen(self._committed)
        self._loop: asyncio.AbstractEventLoop | None = None

    def _committed(self, topics: set[str]) -> None:
        if DELIVERIES in topics and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        waited, self._changed = self._changed, asyncio.Event()
        waited.set()

    async def word(self, message_id: str, ends: float) -> Word:
        """Return what the service says of a referral, or that it has said nothing by then, which is
        a time of the loop's clock. It is looked at once, however late it is."""
        self._loop = asyncio.get_running_loop()
        while True:
            changed = self._changed
            found = await self._core.store.look_up(lambda c: self._look(c, message_id))
            left = ends - self._loop.time()
            if found.is_last or left <= 0 or found.is_put_off(left):
                return found
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), min(left, _POLL))
            await asyncio.sleep(_GATHER)

    def _look(self, connection: Connection, message_id: str) -> Word:
        rows = deliveries.of_message(connection, message_id)
        row = next((one for one in rows if one.role == Role.ACTING), None)
        if row is None:
            return Word(None)
        is_taken, is_given_up = row.received_at is not None, row.done_reason == deliveries.GIVEN_UP
        if not (is_taken or is_given_up or row.state == "dead"):
            return Word(row)
        answer = answered.of_delivery(connection, self._core.vault, row.id)
        if is_taken:
            return Word(row, is_taken=True, answer=answer)
        # What failed for any other reason than a refusal is for its operators to see to.
        is_refused = row.code == NOT_OFFERED or (
            answer is not None and answer.is_refusal and answer.attempt == row.attempt
        )
        return Word(row, is_refused=is_refused, is_given_up=is_given_up, answer=answer)
