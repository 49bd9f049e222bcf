"""The relay: publishes the ledger, in the order of each subject, each event at least once.

The ledger's own reader: it keeps its place by position, which has no gap. What it does not know to
be written it publishes again under the same id; what can never be written is put on the work-list,
and the rest goes on. While nothing can be published, nothing is lost and nothing else waits.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog

from broker import publishing
from broker.core import Core
from broker.crashpoints import crashpoint
from broker.errors import Unavailable
from broker.events import uuid7
from broker.log import Publisher, Quarantined
from broker.log_sql import Reader
from broker.store import leases, ledger, work
from broker.store.tx import Tx

GROUP: Final = "relay"
BATCH: Final = 256
LEASE: Final = timedelta(seconds=6)
NOT_PUBLISHED: Final = "not-published"

log = structlog.get_logger()


class Relay:
    """Publishes what stands after its cursor. Any number may run: one does, and another takes over
    within LEASE of its end. Two at once, which a pause can bring about, only repeat."""

    def __init__(self, core: Core, publisher: Publisher) -> None:
        self._core = core
        self._publisher = publisher
        self._reader = Reader(core.store, GROUP, batch=BATCH)
        self._holder = uuid7()
        self._is_held = False
        self._asks_at = 0.0

    async def run_once(self) -> int:
        """Publish the next batch; return how many events it was. The cursor moves only once they
        are durable where they were published. Raises Unknown, and then it is published again."""
        if not await self._holds():
            return 0
        batch = await self._reader.read()
        if not batch:
            return 0
        crashpoint("relay.read")
        records, unfit = await publishing.sealed(self._core, batch.records)
        crashpoint("relay.before-publish")
        unfit += await self._publisher.publish(records)
        crashpoint("relay.published")
        if unfit:
            await self._core.store.write(lambda tx: quarantine(tx, unfit))
        await batch.commit()
        crashpoint("relay.committed")
        return len(batch.records)

    async def close(self) -> None:
        """Let another take over at once."""
        await self._publisher.close()
        with contextlib.suppress(Unavailable):  # then it takes over when the lease has ended
            await self._core.store.write(lambda tx: leases.give_back(tx, GROUP, self._holder))

    async def _holds(self) -> bool:
        """Whether this relay is the one; asked anew well before its lease would end."""
        now = asyncio.get_running_loop().time()
        if now >= self._asks_at:
            self._is_held = await self._core.store.write(
                lambda tx: leases.take(tx, GROUP, self._holder, LEASE)
            )
            self._asks_at = now + LEASE.total_seconds() / 3
        return self._is_held


def quarantine(tx: Tx, unfit: Sequence[Quarantined]) -> None:
    """Put events that can never be published on the work-list, once each."""
    for one in unfit:
        event = ledger.event(tx.connection, one.place)
        if event is None:
            continue
        log.error("relay.not-published", event_id=event.id, position=event.position, code=one.code)
        work.put_item(
            tx,
            NOT_PUBLISHED,
            event.id,
            message_id=event.message_id,
            organisation=None,
            priority=event.priority.value,
        )
