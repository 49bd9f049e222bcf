"""The ledger as a log: what dispatch reads where there is no Kafka, and what the relay reads where
there is. Its publisher is the transaction that records an event.
"""

from typing import Final

from broker.events import Recorded
from broker.log import Batch, Record
from broker.store import ledger
from broker.store.store import Store
from broker.store.tx import Connection

BATCH: Final = 64


class Reader:
    """Reads the ledger by position, which has no gap, as one group. Its records hold no data.

    Raises LedgerGap where a position is missing, and goes no further.
    """

    def __init__(self, store: Store, group: str, *, batch: int = BATCH) -> None:
        self._store = store
        self._group = group
        self._batch = batch

    async def read(self) -> Batch:
        began, found = await self._store.look_up(self._next)
        last = found[-1].position if found else began

        async def commit() -> None:
            if found:
                await self._store.write(
                    lambda tx: ledger.advance_cursor(tx, self._group, began, last)
                )

        return Batch([Record.of(event) for event in found], (), commit)

    def _next(self, connection: Connection) -> tuple[int, list[Recorded]]:
        began = ledger.cursor(connection, self._group)
        return began, ledger.after(connection, began, self._batch)

    async def lag(self) -> int:
        return await self._store.look_up(lambda c: ledger.head(c) - ledger.cursor(c, self._group))

    async def close(self) -> None:
        return
