"""Whether a process can do its part: ready, degraded or unavailable."""

import asyncio
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from broker.dispatch import GROUP as DISPATCH
from broker.errors import Unavailable
from broker.relay import GROUP as RELAY
from broker.settings import Settings
from broker.store import gauges
from broker.store.store import Store

READY_SECONDS: Final = 1.0
BEHIND_SECONDS: Final = 60.0


class Readiness(StrEnum):
    """READY: messages are taken and go on. DEGRADED: they are taken, and wait inside. UNAVAILABLE:
    they cannot be taken."""

    READY = "ready"
    DEGRADED = "degraded"
    UNAVAILABLE = "unavailable"

    @property
    def status(self) -> int:
        """The HTTP status that says it: what is degraded still takes messages."""
        return 503 if self is Readiness.UNAVAILABLE else 200


def readers(settings: Settings) -> tuple[str, ...]:
    """Return the readers of the ledger that there are with these settings."""
    return (DISPATCH, RELAY) if settings.has_kafka else (DISPATCH,)


async def readiness(settings: Settings, store: Store) -> Readiness:
    """Return how it stands. Asks by writing only after a write was refused, so it is cheap.

    A database that gives no answer within READY_SECONDS cannot take messages; a reader of the
    ledger that is BEHIND_SECONDS behind (Kafka is away, or nobody dispatches) degrades.
    """
    now = datetime.now(UTC)
    try:
        async with asyncio.timeout(READY_SECONDS):
            behind = await store.read(lambda c: gauges.behind(c, readers(settings), now))
            await store.prove()
    except (Unavailable, TimeoutError):
        return Readiness.UNAVAILABLE
    late = any(one.seconds > BEHIND_SECONDS for one in behind.values())
    return Readiness.DEGRADED if late else Readiness.READY
