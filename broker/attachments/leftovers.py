"""What nobody needs any more: uploads that no message named, and files that are nobody's."""

import asyncio
import time
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from broker.attachments.folder import Folder
from broker.audit import Entry
from broker.store import attachments, restorations
from broker.store.store import Store
from broker.store.tx import Connection, Tx

LEFTOVERS_SECONDS: Final = 600.0
"""How often it is looked."""
# No upload takes as long, from its last byte to its row: what is older is left over.
_LONGEST: Final = 3_600.0
_BATCH: Final = 100
# The longest that an upload may wait for its message, and a day: what was removed may be as old.
_OLDEST: Final = timedelta(days=31)

log = structlog.get_logger()


class Leftovers:
    """Removes what is left over, rows before files. Safe to repeat, in any number of processes."""

    def __init__(self, store: Store, folder: Folder, *, is_alone: bool) -> None:
        self._store, self._folder = store, folder
        # Nobody but this process writes there: whatever was there before it is of one that ended.
        self._began = time.time() if is_alone else 0.0

    async def run_once(self) -> int:
        """Remove the next uploads that lapsed, then what no row names. Returns how many lapsed.

        Nothing where a restored database waits for word: it does not know of all that is there.
        """
        if not await self._store.read(_may_judge):
            return 0
        lapsed = await self._lapse()
        if lapsed < _BATCH:
            await self._remove_files()
        return lapsed if lapsed == _BATCH else 0

    async def _lapse(self) -> int:
        ids = await self._store.read(lambda c: attachments.unclaimed(c, datetime.now(UTC), _BATCH))
        if not ids:
            return 0

        def write(tx: Tx) -> list[str]:
            gone = attachments.forget(tx, ids)
            for one in gone:
                tx.audit(Entry("attachment.expired", "broker", "", "attachment", one, {}))
            return gone

        for one in await self._store.write(write):
            await asyncio.to_thread(self._folder.remove, one)
            log.info("attachment.expired", item=one)
        return len(ids)

    async def _remove_files(self) -> None:
        since = (datetime.now(UTC) - _OLDEST).date()
        before = max(time.time() - _LONGEST, self._began)
        removed = await asyncio.to_thread(self._folder.remove_leftovers, before, since, self._known)
        if removed:
            log.warning("attachments.left-over", count=removed)

    def _known(self, ids: Collection[str]) -> set[str]:
        return self._store.read_now(lambda c: attachments.known(c, ids))


def _may_judge(connection: Connection) -> bool:
    return attachments.is_there(connection) and restorations.current(connection) is None
