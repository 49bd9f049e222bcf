"""Whatever its sender changes and whatever fails on the way, a receiver never goes back in time.

A referral is amended, taken on and cancelled while its receivers store what they get, refuse it, or
store it and are not heard; what nobody has fanned out yet waits. What each stored is read in the
order in which it stored it.
"""

import json
import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import delete, update

from broker import registry
from broker.correcting import Correction
from broker.errors import Conflict
from broker.outbound_memory import Answered, Memory, stored
from broker.ports import Delivery
from broker.referral import State
from broker.store import tables as t
from broker.store.claims import Slots
from broker.store.tx import Tx
from broker.worker import Worker
from sandbox import arrival
from tests.integration.driven import ADAPTERS, Driven, driven
from tests.shell import DIRECTORY

pytestmark = pytest.mark.slow

ADAPTER: Final = ADAPTERS["secondary-care.referrals"]
EXAMPLE: Final = ADAPTER.examples["specialty-referral"]
SENDER, RECEIVER, PRACTICE = "RXZ01", "RXX01", "G99001"
SEEDS: Final = 30
STEPS: Final = 16
SECONDS: Final = 10.0
MOODS: Final = ("well", "refuses", "is not heard")
PULLED: Final = {
    "{organisation: RXX01, service: RXX01-OUTPATIENTS, channel: inbox,",
    "{organisation: G99001, channel: inbox,",
}


def places() -> str:
    """Return the example directory, with both receivers' systems called instead of asked."""
    known = DIRECTORY.read_text(encoding="utf-8")
    for old in PULLED:
        assert known.count(old) == 1
        new = old.replace("channel: inbox,", "channel: webhook, url: http://127.0.0.1:9/inbound,")
        known = known.replace(old, new)
    return known


@dataclass(frozen=True)
class Stored:
    """What a receiver keeps of a delivery that it gets for the first time."""

    seq: int
    told: str  # what a message tells of the referral; "" is a version of it
    version: int


@dataclass
class Receivers:
    """Systems in any mood, and what each has stored of whatever it got."""

    chance: random.Random
    stored: dict[str, list[Stored]] = field(default_factory=lambda: defaultdict(list))
    known: set[str] = field(default_factory=set)
    are_well: bool = False

    def told(self, ods: str) -> list[str]:
        return [one.told for one in self.stored[ods]]

    def answer(self, delivery: Delivery) -> Answered:
        mood = "well" if self.are_well else self.chance.choice(MOODS)
        if mood == "refuses":
            return Answered(503)
        if delivery.id not in self.known:
            self.known.add(delivery.id)
            self.stored[delivery.destination.ods].append(read(delivery))
        return stored(delivery) if mood == "well" else Answered(503)


def read(delivery: Delivery) -> Stored:
    found = arrival.read(delivery.id, delivery.kind, "webhook", delivery.body)
    (version,) = re.findall(rb"Version (\d+)\.", delivery.body) or [b"1"]
    return Stored(delivery.event.subject_seq, found.topic or "", int(version))


@dataclass
class Story:
    """One referral, and all that can happen to it and to what is sent of it."""

    world: Driven
    worker: Worker
    subject: str
    reference: str
    version: int = 1
    did: Counter[str] = field(default_factory=Counter)

    async def amend(self) -> None:
        row = await self.world.row(self.subject)
        new = body(self.reference, self.version + 1)
        asked = Correction(self.world.by(SENDER), ADAPTER, row.message_id, row.version, new)
        await self.world.broker.correcting.correct(asked)
        self.version += 1

    async def take_on(self) -> None:
        await self.world.move(self.subject, "accept")

    async def cancel(self) -> None:
        await self.world.move(self.subject, "cancel")

    async def fan_out(self) -> None:
        await self.world.broker.dispatch.run_once()

    async def attempt(self) -> None:
        """Let whatever is owed be tried once, however long it would have waited."""
        await self.world.broker.store.write(let_be_due)
        while await self.worker.run_once():
            await self.worker.drain(SECONDS)

    async def settle(self) -> None:
        """Let everything come to its end, now that all are well."""
        await self.world.deliver()
        for _ in range(STEPS):
            await self.attempt()
            await self.world.deliver()


def let_be_due(tx: Tx) -> None:
    long_ago = tx.now - timedelta(days=1)
    tx.connection.execute(update(t.delivery).values(due_at=long_ago))
    tx.connection.execute(delete(t.endpoint_state))


def body(reference: str, version: int) -> bytes:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    history = {"history": f"Version {version}."}
    said = {**EXAMPLE, **history, "reference": reference, "assessed_at": now}
    return json.dumps(said).encode()


async def lived(world: Driven, seed: int) -> tuple[Story, Receivers]:
    """Let anything happen to a referral in any order, and then all be well."""
    chance = random.Random(seed)  # noqa: S311 - what happens is drawn
    receivers = Receivers(chance)
    outlet = Memory(dict.fromkeys((RECEIVER, PRACTICE), receivers.answer))
    worker = Worker(world.broker.core, registry.load().consumers, outlet, slots=Slots())
    reference = f"order-{seed}"
    sent = await world.refer(ADAPTER.name, EXAMPLE["pathway"], reference)
    story = Story(world, worker, sent.subject, reference)
    steps = [story.fan_out, story.attempt, story.amend, story.take_on, story.cancel]
    for step in chance.choices(steps, weights=[4, 4, 3, 3, 1], k=STEPS):
        try:
            await step()
        except Conflict:
            continue
        story.did[step.__name__] += 1
    receivers.are_well = True
    await story.settle()
    return story, receivers


async def test_a_receiver_stores_no_older_version_after_a_newer_one_and_nothing_after_the_end(
    tmp_path: Path,
) -> None:
    did: Counter[str] = Counter()
    async with driven(tmp_path, places()) as world:
        for seed in range(SEEDS):
            story, receivers = await lived(world, seed)
            did += story.did
            is_cancelled = (await world.row(story.subject)).state == State.CANCELLED
            did["overtaken"] += is_cancelled and "" not in receivers.told(RECEIVER)
            assert set(receivers.stored) == {RECEIVER, PRACTICE}
            for ods, stored in receivers.stored.items():
                assert [one.seq for one in stored] == sorted({one.seq for one in stored})
                versions = [one.version for one in stored if not one.told]
                assert versions == sorted(set(versions))
                if is_cancelled:
                    assert receivers.told(ods).index("cancelled") == len(stored) - 1
                else:
                    assert versions[-1] == story.version
    assert all(did[what] > SEEDS / 10 for what in ("amend", "take_on", "cancel", "overtaken"))
