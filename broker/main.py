"""The composition root: opens everything in order, runs the loops, closes everything in order."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import structlog

from broker import profile_packages, registry
from broker.acknowledging import Acknowledging
from broker.answers import Answers
from broker.attachments.enclosing import Enclosing
from broker.attachments.fetching import Fetching
from broker.attachments.folder import Folder
from broker.attachments.leftovers import LEFTOVERS_SECONDS, Leftovers
from broker.attachments.uploading import Uploading
from broker.auth import Authority
from broker.bars.receiving import Bars
from broker.calls import Calls
from broker.conversing import Conversing
from broker.converting import Converting
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
from broker.parts import Part
from broker.retracting import Retracting
from broker.rounds import Round, Rounds
from broker.safety import Safety
from broker.settings import Settings
from broker.store import clients
from broker.store.claims import RENEWED_AFTER, Slots
from broker.store.store import Store
from broker.store.tx import DEADLINES, DELIVERIES, LEDGER
from broker.vault import FileKeyRing, Tampered, Vault
from broker.worker import Worker
from fhir_profiles.bars.incoming import Target

DRAIN_SECONDS: Final = 6.0
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
        folder = Folder.within(settings.data_dir)
        enclosing = Enclosing(store, self.vault, folder, settings.base_url)
        self.conversing = Conversing(core)
        self.intake = Intake(core, enclosing, self.conversing)
        self.converting = Converting(core, self.intake, self.adapters)
        self.profiles = profile_packages.profiles(settings.data_dir)
        self.bars = Bars(core, self.intake, self.profiles, Target.read(settings.bars_target))
        self.moving = Moving(core)
        self.correcting = Correcting(core, enclosing, self.conversing)
        self.uploading = Uploading(core, folder, timedelta(hours=settings.attachment_hours))
        self.fetching = Fetching(core, folder)
        self.leftovers = Leftovers(store, folder, is_alone=settings.is_embedded)
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
        self._rounds = Rounds()

    async def _webhook_secrets(self, ods: str) -> list[bytes]:
        """Return the secrets that open. With none of them the place is not connected: what is to
        be sent there is whole, and waits for a secret that can be used."""
        opened = []
        for row in await self.store.look_up(lambda c: clients.secrets(c, ods)):
            try:
                opened.append(self.vault.open_secret(row.kek_id, row.sealed, row.id))
            except Tampered:
                log.error("webhook-secret.tampered", organisation=ods)
        return opened

    def wake(self) -> None:
        """Look at the database now: something may have changed that nobody told us of."""
        self._rounds.wake()

    @asynccontextmanager
    async def running(self, parts: Collection[Part]) -> AsyncIterator[None]:
        """Do what these parts do; on leaving, let running attempts end.

        Raises Standstill where a reader of Kafka gets nothing any more.
        """
        loop = asyncio.get_running_loop()

        def committed(topics: set[str]) -> None:
            loop.call_soon_threadsafe(self._rounds.wake, topics)

        self.store.listen(committed)
        bell = Doorbell(self.settings.data_dir, self.wake)
        if self.settings.is_embedded:
            await self.worker.take_over()
            bell.hang()
        try:
            async with self._rounds_of(parts) as rounds, asyncio.TaskGroup() as group:
                running = [
                    (one, group.create_task(self._rounds.run(one), name=one.name)) for one in rounds
                ]
                yield
                self._rounds.stop()
                for one, task in running:
                    if one.breaks_off:
                        task.cancel()
            await self.worker.drain(DRAIN_SECONDS)
        finally:
            if self.settings.is_embedded:
                bell.take_down()
            await self.outlet.aclose()

    @asynccontextmanager
    async def _rounds_of(self, parts: Collection[Part]) -> AsyncIterator[list[Round]]:
        poll, has_kafka = self.settings.poll_seconds, self.settings.has_kafka
        rounds: list[Round] = []
        if Part.DISPATCH in parts:
            # With Kafka this is the safety net: what Kafka brings is fanned out at once.
            topic = None if has_kafka else LEDGER
            rounds.append(Round("dispatch", self.dispatch.run_once, topic, poll=poll))
        if Part.API in parts:
            rounds.append(Round("attachments", self.leftovers.run_once, poll=LEFTOVERS_SECONDS))
        if Part.WORKER in parts:
            worker, safety = self.worker, self.safety
            rounds.append(Round("worker", worker.run_once, DELIVERIES, worker.next_due, poll))
            rounds.append(Round("leases", worker.keep_leases, poll=RENEWED_AFTER.total_seconds()))
            rounds.append(Round("clock", worker.mind_the_clock))
            rounds.append(Round("deadlines", safety.run_once, DEADLINES, safety.next_due, poll))
        if not has_kafka:
            yield rounds
            return
        from broker.transport import transport  # what it imports is heavy

        async with transport(self.settings, self.core, self.dispatch, parts) as more:
            yield [*rounds, *more]


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
