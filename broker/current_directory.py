"""The directory in force, kept in memory and read again as soon as its version changes."""

from broker.directory import Directory
from broker.errors import BrokerError
from broker.store import directory as stored
from broker.store.store import Store
from broker.store.tx import Tx


class StaleDirectory(BrokerError):
    """The directory changed between reading it and committing by it: do it again."""


class CurrentDirectory:
    """A snapshot of the directory, checked against the database whenever it counts."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._version = -1
        self._snapshot = Directory()

    @property
    def version(self) -> int:
        return self._version

    async def current(self) -> Directory:
        """Return the directory that is in force at this moment."""
        if await self._store.look_up(stored.version) != self._version:
            self._version, self._snapshot = await self._store.read(stored.load)
        return self._snapshot

    def check(self, tx: Tx, version: int) -> None:
        """Raise StaleDirectory unless what was decided by is still in force in this transaction."""
        if stored.version(tx.connection) != version:
            raise StaleDirectory
