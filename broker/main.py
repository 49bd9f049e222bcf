"""The composition root: opens everything in order, runs the loops, closes everything in order."""

import asyncio
import contextlib
import fcntl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog

from broker import registry
from broker.acknowledging import Acknowledging
from broker.answers import Answers
from broker.auth import Authority
from broker.calls import Calls
from broker.correcting import Correcting
from broker.current_directory import CurrentDirectory
from broker.dispatch import Dispatch
from broker.doorbell import Doorbell
from broker.errors import BrokerError
from broker.intake import Intake
from broker.moving import Moving
from broker.outbound import Http
from broker.retracting import Retracting
from broker.safety import Safety
from broker.settings import Settings
from broker.store import clients, schema
from broker.store import ring as ring_store
from broker.store.claims import Slots
from broker.store.store import DELIVERIES, LEDGER, Store
from broker.vault import FileKeyRing, RingProblem, Vault
from broker.worker import Worker

DRAIN_SECONDS: Final = 6.0
SHORTEST_PAUSE: Final = 0.02
log = structlog.get_logger()


class AlreadyServing(BrokerError):
    """Another process serves from this data folder."""


class Broker:
    """Everything that serves, wired together. Made by `open_broker`."""

    def __init__(self, settings: Settings, store: Store, ring: FileKeyRing) -> None:
        found = registry.load()
        self.settings = settings
        self.store = store
        self.vault = Vault(ring)
        self.adapters = found.adapters
        self.directory = CurrentDirectory(store)
        self.authority = Authority(store, ring, settings)
        self.outlet = Http(settings, self._webhook_secrets)
        source = settings.source
        self.answers = Answers(store, self.vault)
        self.intake = Intake(store, self.vault, self.directory, self.answers, source=source)
        self.moving = Moving(store, self.vault, self.directory, self.answers, source=source)
        self.correcting = Correcting(store, self.vault, self.directory, self.answers, source=source)
        self.retracting = Retracting(store, self.vault, self.directory, self.answers, source=source)
        self.calls = Calls(store, self.vault, self.answers)
        self.acknowledging = Acknowledging(store, self.vault, self.directory, source=source)
        self.dispatch = Dispatch(store, self.vault, tuple(found.consumers.values()), self.directory)
        self.worker = Worker(
            store,
            self.vault,
            found.consumers,
            self.directory,
            self.outlet,
            slots=Slots(settings.slots, settings.slots_per_destination),
            source=source,
        )
        self.safety = Safety(store, self.vault, self.directory, source=source)
        self._stopping = asyncio.Event()
        self._wakes = {LEDGER: asyncio.Event(), DELIVERIES: asyncio.Event()}
        self._deadlines = asyncio.Event()

    async def _webhook_secrets(self, ods: str) -> list[bytes]:
        rows = await self.store.read(lambda c: clients.secrets(c, ods))
        return [self.vault.open_secret(row.kek_id, row.sealed, row.id) for row in rows]

    @property
    def is_stopping(self) -> bool:
        return self._stopping.is_set()

    def wake(self) -> None:
        """Look at the database now: something may have changed that nobody told us of."""
        for event in (*self._wakes.values(), self._deadlines):
            event.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run dispatch, worker and deadlines; on leaving, let running attempts end."""
        loop = asyncio.get_running_loop()

        def committed(topics: set[str]) -> None:
            loop.call_soon_threadsafe(self._woken, topics)

        self.store.listen(committed)
        bell = Doorbell(self.settings.data_dir, self.wake)
        if self.settings.is_embedded:
            await self.worker.take_over()
            bell.hang()
        try:
            async with asyncio.TaskGroup() as group:
                for name, event, work, next_due in (
                    ("dispatch", self._wakes[LEDGER], self.dispatch.run_once, None),
                    ("worker", self._wakes[DELIVERIES], self.worker.run_once, self.worker.next_due),
                    ("deadlines", self._deadlines, self.safety.run_once, self.safety.next_due),
                ):
                    group.create_task(self._loop(name, event, work, next_due), name=name)
                yield
                self._stopping.set()
                self.wake()
            await self.worker.drain(DRAIN_SECONDS)
        finally:
            if self.settings.is_embedded:
                bell.take_down()
            await self.outlet.aclose()

    def _woken(self, topics: set[str]) -> None:
        for topic in topics & self._wakes.keys():
            self._wakes[topic].set()
        if LEDGER in topics:
            self._deadlines.set()

    async def _loop(
        self,
        name: str,
        wake: asyncio.Event,
        work: Callable[[], Awaitable[int]],
        next_due: Callable[[], Awaitable[datetime | None]] | None,
    ) -> None:
        """Work while there is something to do, then sleep until woken, due, or the next poll."""
        while not self._stopping.is_set():
            wake.clear()
            pause = self.settings.poll_seconds
            try:
                if await work():
                    continue
                due = await next_due() if next_due is not None else None
                if due is not None:
                    pause = min(
                        pause, max(SHORTEST_PAUSE, (due - datetime.now(UTC)).total_seconds())
                    )
            except Exception as error:  # kept in the database: the next round tries it again
                log.error(f"{name}.failed", error=type(error).__name__, cause=str(error)[:200])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), pause)


@asynccontextmanager
async def open_broker(settings: Settings) -> AsyncIterator[Broker]:
    """Open the store, the key ring and everything on top; refuse what is unsafe; close it all."""
    with serving_lock(settings), open_store(settings, migrate=settings.is_embedded) as store:
        ring = open_ring(settings, store)
        yield Broker(settings, store, ring)


@contextlib.contextmanager
def serving_lock(settings: Settings) -> Any:
    """Hold the data folder for one serving process. Raises AlreadyServing."""
    if not settings.is_embedded:
        yield
        return
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with (settings.data_dir / "serving.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AlreadyServing(
                f"Another broker serves from {settings.data_dir}. Stop it, or give this one "
                "another BROKER_DATA_DIR. For several processes use PostgreSQL."
            ) from None
        yield


@contextlib.contextmanager
def open_store(settings: Settings, *, migrate: bool = False) -> Any:
    """Open the store on a schema that fits; an embedded one that serves is brought up to date."""
    if settings.is_embedded:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    store = Store(settings.store_url)
    try:
        if migrate:
            _migrate_embedded(settings, store)
        schema.check(store.writer)
        yield store
    finally:
        store.close()


def migrate_store(settings: Settings) -> list[str]:
    """Bring the database up to this release, an embedded one after a backup; safe to repeat.

    Returns the revisions that were applied.
    """
    if settings.is_embedded:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    store = Store(settings.store_url)
    try:
        return (
            _migrate_embedded(settings, store)
            if settings.is_embedded
            else schema.migrate(store.writer)
        )
    finally:
        store.close()


def _migrate_embedded(settings: Settings, store: Store) -> list[str]:
    found = schema.current(store.writer)
    if found == schema.revisions()[-1]:
        return []
    if found is not None and not schema.is_empty(store.writer):
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        backup = settings.data_dir / f"before-upgrade-{found}-{stamp}.db"
        schema.back_up(store.writer, backup)
        log.info("schema.backed-up", path=str(backup))
    applied = schema.migrate(store.writer)
    log.info("schema.migrated", revisions=applied)
    return applied


def open_ring(settings: Settings, store: Store) -> FileKeyRing:
    """Return the key ring, proved to be the one that the data was sealed with.

    Made only in embedded mode on an empty database; elsewhere it must be given. Raises RingProblem.
    """
    checks = ring_checks(store)
    path: Path = settings.ring_path
    if not path.exists() and settings.is_embedded and not checks:
        ring = FileKeyRing.create(path)
        log.info("ring.created", path=str(path))
    else:
        ring = prove_ring(path, checks)
    held = ring.checks()
    fresh = {key_id: held[key_id] for key_id in held if key_id not in checks}
    if fresh:
        store.write_now(lambda tx: ring_store.put_checks(tx, fresh))
    return ring


def ring_checks(store: Store) -> dict[str, str]:
    """Return what proves each key that the data was sealed with, by key id."""
    return store.read_now(ring_store.checks)


def prove_ring(path: Path, checks: Mapping[str, str]) -> FileKeyRing:
    """Return the key ring of a file if it holds every key that is checked. Raises RingProblem."""
    ring = FileKeyRing.load(path)
    held = ring.checks()
    for key_id, value in checks.items():
        if key_id not in held or held[key_id][1] != value:
            raise RingProblem(
                f"The key ring at {path} lacks the key {key_id} that the database was sealed "
                "with. Restore the ring that has it; starting without it could lose messages."
            )
    return ring
