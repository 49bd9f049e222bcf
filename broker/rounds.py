"""Rounds: what the broker does again and again, as soon as there is something to do."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import structlog

from broker.errors import Fatal
from broker.telemetry import what_and_where

SHORTEST_PAUSE: Final = 0.02
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Round:
    """One thing to do: `once` does what there is to do now and returns how much that was.

    It is done again while there was something, and after that once it is woken (`topic` of the
    store's wake-ups, None for never), once `next_due` has come, and every `poll` seconds. One that
    `breaks_off` may be cancelled wherever it is: what it did not finish is done again.
    """

    name: str
    once: Callable[[], Awaitable[int]]
    topic: str | None = None
    next_due: Callable[[], Awaitable[datetime | None]] | None = None
    poll: float = 60.0
    breaks_off: bool = False


class Rounds:
    """Does rounds until it is stopped. What one raises is logged, and it is tried again."""

    def __init__(self) -> None:
        self._woken: list[tuple[str | None, asyncio.Event]] = []
        self._is_stopping = False

    def wake(self, topics: Collection[str] | None = None) -> None:
        """Look again: something may have changed, of these topics or of any."""
        for topic, woken in self._woken:
            if topics is None or topic in topics:
                woken.set()

    def stop(self) -> None:
        """End every round after what it does now."""
        self._is_stopping = True
        self.wake()

    async def run(self, one: Round) -> None:
        """Do a round until it is stopped."""
        woken = asyncio.Event()
        self._woken.append((one.topic, woken))
        while not self._is_stopping:
            woken.clear()
            pause = one.poll
            try:
                if await one.once():
                    continue
                due = await one.next_due() if one.next_due is not None else None
                if due is not None:
                    left = (due - datetime.now(UTC)).total_seconds()
                    pause = min(pause, max(SHORTEST_PAUSE, left))
            except Fatal:
                raise
            except Exception as error:  # kept in the database: the next round tries it again
                # What it says may be a patient's; what it is and where it was raised is not.
                log.error(f"{one.name}.failed", **what_and_where(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(woken.wait(), pause)
