"""The composition root: opens everything in order, runs the loops, closes everything in order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import structlog

from broker import profile_packages, registry
from broker.acknowledging import Acknowledging
from broker.answers import Answers
from broker.auth import Authority
from broker.bars.receiving import Bars
from broker.calls import Calls
from broker.core import Core
from broker.correcting import Correcting
from broker.creating import Creating
from broker.current_directory import CurrentDirectory
from broker.dispatch import Dispatch
from broker.doorbell import Doorbell
from broker.finding import Finding
from broker.intake import Intake
from broker.moving import Moving
from broker.opening import open_ring, open_store, serving_lock
from broker.outbound import Http
from broker.retracting import Retracting
from broker.safety import Safety
from broker.settings import Settings
from broker.store import clients, work
from broker.store.claims import Slots
from broker.store.store import Store
from broker.store.tx import DEADLINES, DELIVERIES, LEDGER
from broker.telemetry import what_and_where
from broker.vault import FileKeyRing, Tampered, Vault
from broker.worker import Worker
from fhir_profiles.bars.incoming import Target

DRAIN_SECONDS: Final = 6.0
SHORTEST_PAUSE: Final = 0.02
log = structlog.get_logger()


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
        self.outlet = Http(settings, self._webhook_secrets, key=ring.token_keys[-1])
        answers = Answers(store, self.vault)
        self.core = core = Core(store, self.vault, self.directory, answers, settings.source)
        self.intake = Intake(core)
        self.profiles = profile_packages.profiles(settings.data_dir)
        self.bars = Bars(core, self.intake, self.profiles, Target.read(settings.bars_target))
        self.moving = Moving(core)
        self.correcting = Correcting(core)
        self.retracting = Retracting(core)
        self.calls = Calls(core)
        self.acknowledging = Acknowledging(core)
        self.finding = Finding(core)
        self.creating = Creating(core, self.intake, self.finding, self.profiles)
        self.dispatch = Dispatch(core, tuple(found.consumers.values()))
        self.worker = Worker(
            core,
            found.consumers,
            self.outlet,
            slots=Slots(settings.slots, settings.slots_per_destination),
        )
        self.safety = Safety(core)
        self._stopping = asyncio.Event()
        self._wakes = {topic: asyncio.Event() for topic in (LEDGER, DELIVERIES, DEADLINES)}

    async def _webhook_secrets(self, ods: str) -> list[bytes]:
        """Return the secrets that open. With none of them the place is not connected: what is to
        be sent there is whole, and waits for a secret that can be used."""
        opened = []
        for row in await self.store.read(lambda c: clients.secrets(c, ods)):
            try:
                opened.append(self.vault.open_secret(row.kek_id, row.sealed, row.id))
            except Tampered:
                log.error("webhook-secret.tampered", organisation=ods)
        return opened

    def wake(self) -> None:
        """Look at the database now: something may have changed that nobody told us of."""
        for event in self._wakes.values():
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
                for name, topic, run_once, next_due in (
                    ("dispatch", LEDGER, self.dispatch.run_once, None),
                    ("worker", DELIVERIES, self.worker.run_once, self.worker.next_due),
                    ("deadlines", DEADLINES, self.safety.run_once, self.safety.next_due),
                ):
                    task = self._loop(name, self._wakes[topic], run_once, next_due)
                    group.create_task(task, name=name)
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

    async def _loop(
        self,
        name: str,
        wake: asyncio.Event,
        run_once: Callable[[], Awaitable[int]],
        next_due: Callable[[], Awaitable[datetime | None]] | None,
    ) -> None:
        """Work while there is something to do, then sleep until woken, due, or the next poll."""
        while not self._stopping.is_set():
            wake.clear()
            pause = min(self.settings.poll_seconds, work.SOON.total_seconds())
            try:
                if await run_once():
                    continue
                due = await next_due() if next_due is not None else None
                if due is not None:
                    pause = min(
                        pause, max(SHORTEST_PAUSE, (due - datetime.now(UTC)).total_seconds())
                    )
            except Exception as error:  # kept in the database: the next round tries it again
                # What it says may be a patient's; what it is and where it was raised is not.
                log.error(f"{name}.failed", **what_and_where(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), pause)


@asynccontextmanager
async def open_broker(settings: Settings) -> AsyncIterator[Broker]:
    """Open the store, the key ring and everything on top; refuse what is unsafe; close it all.

    Rules of loaded definitions that were not compiled are logged, each by its name.
    """
    with serving_lock(settings), open_store(settings, migrate=settings.is_embedded) as store:
        ring = open_ring(settings, store)
        broker = Broker(settings, store, ring)
        for rule in broker.profiles.left_out:
            log.warning("profiles.rule-left-out", rule=rule)
        for rule in broker.profiles.slow:
            log.warning("profiles.rule-slow", rule=rule)
        yield broker
