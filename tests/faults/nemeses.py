"""What breaks a broker: each nemesis does harm while it lasts, mends it, and shows that it acted.

A nemesis that hurts nobody proves nothing, so each says at any time what it has done so far, by
what somebody else saw: the kernel, the proxy, the shim, a receiver.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from sandbox.ledger import until
from sandbox.partner import Partner
from sandbox.process import BrokerProcess
from sandbox.sentinels import TABLE
from tests.faults.proxying import AFTER, BEFORE, BROKEN_OFF, TURNED_AWAY, WITHHELD, FaultProxy
from tests.faults.staging import Stage
from tests.kafka import Kafka

Acted = Callable[[], Counter[str]]
Acting = AbstractAsyncContextManager[Acted]


@dataclass(frozen=True, slots=True)
class Nemesis:
    """One kind of harm: what it is called, what it does in words, for how many seconds in a short
    run and in a long one, on which stages it can act, and what proves that it did."""

    name: str
    words: str
    seconds: tuple[float, float]
    acts: Callable[[Stage], Acting]
    proof: tuple[str, ...]
    fits: Callable[[Stage], bool] = lambda _: True


# -- processes -----------------------------------------------------------------------------------


@asynccontextmanager
async def frozen(stage: Stage) -> AsyncIterator[Acted]:
    """SIGSTOP, then SIGCONT: it goes on as if no time had passed."""
    process = stage.process()
    stage.held.add(process)
    try:
        process.freeze()
        stopped = Counter({"processes frozen": bool(await until(lambda: process.is_frozen))})
        yield lambda: stopped
    finally:
        process.thaw()
        stage.held.discard(process)


@asynccontextmanager
async def killed(stage: Stage) -> AsyncIterator[Acted]:
    """SIGKILL, then a start on what it left."""
    process = await stage.kill_one()
    assert process is not None
    try:
        yield lambda: Counter({"processes killed": 1})
    finally:
        await stage.start(process)


@asynccontextmanager
async def storming(stage: Stage) -> AsyncIterator[Acted]:
    """Dispatchers come and go without pause: their group rebalances again and again."""
    members = [one for one in stage.world.processes if one.role == "dispatch"]
    done: Counter[str] = Counter()

    async def storm(member: BrokerProcess) -> None:
        while True:
            stage.held.add(member)
            await (member.kill() if stage.chance.random() < 0.5 else member.stop())
            done["members that left a group"] += 1
            await stage.start(member)

    blowing = [asyncio.create_task(storm(one)) for one in members]
    try:
        yield lambda: done
    finally:
        for task in blowing:
            task.cancel()
        await asyncio.gather(*blowing, return_exceptions=True)
        for member in members:
            stage.held.add(member)
            if member.pid is not None:
                await member.kill()  # it may not be ready yet
            await stage.start(member)


# -- the machine of a process --------------------------------------------------------------------


@asynccontextmanager
async def full_disk(stage: Stage) -> AsyncIterator[Acted]:
    """No room for the database of an embedded broker: every write to it fails."""
    control = stage.controls[stage.world.broker]
    before = control.refused
    control.set(is_full=True)
    try:
        yield lambda: Counter({"writes refused by a full disk": control.refused - before})
    finally:
        control.set()


def clock_off(*seconds: float) -> Callable[[Stage], Acting]:
    """Set the wall clock of a process wrong by one of these, then right again."""

    @asynccontextmanager
    async def off(stage: Stage) -> AsyncIterator[Acted]:
        control = stage.controls[stage.process()]
        before = control.misread
        control.set(seconds=stage.chance.choice(seconds))
        try:
            yield lambda: Counter({"wrong times read": control.misread - before})
        finally:
            control.set()

    return off


# -- the database and the way to it --------------------------------------------------------------


@asynccontextmanager
async def database_crashed(stage: Stage) -> AsyncIterator[Acted]:
    """PostgreSQL ends at once (SIGQUIT), and recovers from its log."""
    assert stage.postgresql is not None
    await asyncio.to_thread(stage.postgresql.crash)
    try:
        yield lambda: Counter({"database crashes": 1})
    finally:
        await asyncio.to_thread(stage.postgresql.start)


def the_network(harm: Callable[[FaultProxy], None]) -> Callable[[Stage], Acting]:
    """Do this harm to the way to PostgreSQL."""

    @asynccontextmanager
    async def harmed(stage: Stage) -> AsyncIterator[Acted]:
        proxy = stage.proxy
        assert proxy is not None
        before = Counter(proxy.acted)
        harm(proxy)
        try:
            yield lambda: proxy.acted - before
        finally:
            proxy.heal()

    return harmed


# -- Kafka ---------------------------------------------------------------------------------------


@asynccontextmanager
async def leader_killed(stage: Stage) -> AsyncIterator[Acted]:
    """The node that leads a partition of the busiest topic is killed, and started again."""
    kafka = _kafka(stage)
    prefix = stage.world.broker.settings["BROKER_KAFKA_PREFIX"]
    leader = await kafka.leader_of(f"{prefix}fhir.Communication.v1")
    kafka.kill(leader)
    try:
        yield lambda: Counter({"Kafka leaders killed": 1})
    finally:
        await kafka.restart(leader)


@asynccontextmanager
async def node_frozen(stage: Stage) -> AsyncIterator[Acted]:
    """A node of Kafka answers nobody, and its connections stay open."""
    kafka = _kafka(stage)
    node = stage.chance.choice(kafka.nodes).id
    kafka.pause(node)
    try:
        yield lambda: Counter({"Kafka nodes frozen": 1})
    finally:
        kafka.resume(node)
        await kafka.ready()


@asynccontextmanager
async def kafka_down(stage: Stage) -> AsyncIterator[Acted]:
    """Every node of Kafka is killed, all at once."""
    kafka = _kafka(stage)
    kafka.kill_all()
    try:
        yield lambda: Counter({"times that all of Kafka was down": 1})
    finally:
        await kafka.start_all()


def _kafka(stage: Stage) -> Kafka:
    assert stage.kafka is not None
    return stage.kafka


# -- receivers -----------------------------------------------------------------------------------


def receivers_are(*behaviours: str) -> Callable[[Stage], Acting]:
    """Let the practice that is called treat everything so, whatever it is."""

    @asynccontextmanager
    async def so(stage: Stage) -> AsyncIterator[Acted]:
        practice = stage.world.webhook_practice
        before = _count("misbehaved", practice)
        practice.mood = TABLE[f"XXTEST-{stage.chance.choice(behaviours)}"]
        try:
            yield lambda: Counter({"calls treated badly": _count("misbehaved", practice) - before})
        finally:
            practice.mood = None

    return so


@asynccontextmanager
async def lying(stage: Stage) -> AsyncIterator[Acted]:
    """Receivers confirm in another's name, or other bytes, or another delivery, or not at all."""
    practices = (stage.world.practice, stage.world.webhook_practice)
    before = _count("lied", *practices)
    stage.family = f"XXTEST-LIE-{stage.chance.choice(('DIGEST', 'ODS', 'DELIVERY'))}"
    try:
        yield lambda: Counter({"false receipts": _count("lied", *practices) - before})
    finally:
        stage.family = ""


def _count(what: str, *partners: Partner) -> int:
    return sum(len(one.ledger.entries(what)) for one in partners)


# -- the table -----------------------------------------------------------------------------------


def _on_postgresql(stage: Stage) -> bool:
    return stage.postgresql is not None


def _on_kafka(stage: Stage) -> bool:
    return stage.kafka is not None


NEMESES: Final[tuple[Nemesis, ...]] = (
    Nemesis(
        "a process stands still",
        "a process is stopped by SIGSTOP, in whatever it does, and goes on later",
        (4.0, 70.0),  # the longer, than any lease of a delivery
        frozen,
        ("processes frozen",),
    ),
    Nemesis(
        "a process is killed",
        "a process ends by SIGKILL, in whatever it does, and is started again",
        (1.0, 5.0),
        killed,
        ("processes killed",),
    ),
    Nemesis(
        "a receiver fails",
        "the practice that is called answers 500, never answers, or breaks the connection off",
        (4.0, 20.0),
        receivers_are("FAIL", "SILENT", "RESET"),
        ("calls treated badly",),
    ),
    Nemesis(
        "a receiver is slow",
        "the practice that is called stores what it gets, and answers late or too late",
        (4.0, 20.0),
        receivers_are("SLOW", "LATE"),
        ("calls treated badly",),
    ),
    Nemesis(
        "receivers lie",
        "receivers give receipts that name another delivery, other bytes or another organisation",
        (3.0, 10.0),
        lying,
        ("false receipts",),
    ),
    Nemesis(
        "a clock jumps ahead",
        "the wall clock of a process is set forward by a minute or an hour, later right again",
        (4.0, 20.0),
        clock_off(60.0, 3600.0),
        ("wrong times read",),
        lambda stage: stage.can_shim,
    ),
    Nemesis(
        "a clock jumps back",
        "the wall clock of a process is set back by a minute or an hour, later right again",
        (4.0, 20.0),
        clock_off(-60.0, -3600.0),
        ("wrong times read",),
        lambda stage: stage.can_shim,
    ),
    Nemesis(
        "the disk is full",
        "every write to the database of an embedded broker fails for want of room",
        (4.0, 20.0),
        full_disk,
        ("writes refused by a full disk",),
        lambda stage: stage.can_shim and not _on_postgresql(stage),
    ),
    Nemesis(
        "the database crashes",
        "PostgreSQL ends at once without shutting down, is started again and recovers",
        (1.0, 5.0),
        database_crashed,
        ("database crashes",),
        _on_postgresql,
    ),
    Nemesis(
        "connections are cut at COMMIT",
        "of every five COMMITs one is cut: before PostgreSQL hears it, or instead of its answer",
        (5.0, 20.0),
        the_network(FaultProxy.cut_at_commit),
        (BEFORE, AFTER),
        _on_postgresql,
    ),
    Nemesis(
        "the network to the database hangs",
        "nothing is passed on between the broker and PostgreSQL, and no connection ends",
        (4.0, 20.0),
        the_network(FaultProxy.hang),
        (WITHHELD,),
        _on_postgresql,
    ),
    Nemesis(
        "the network to the database is cut",
        "every connection to PostgreSQL is broken off, and none can be had",
        (3.0, 20.0),
        the_network(FaultProxy.shut),
        (BROKEN_OFF, TURNED_AWAY),
        _on_postgresql,
    ),
    Nemesis(
        "Kafka's leader is killed",
        "the node that leads a busy topic ends by SIGKILL, and is started again",
        (3.0, 15.0),
        leader_killed,
        ("Kafka leaders killed",),
        _on_kafka,
    ),
    Nemesis(
        "a node of Kafka stands still",
        "a node of Kafka is stopped by SIGSTOP for longer than its peers wait for it",
        (6.0, 15.0),
        node_frozen,
        ("Kafka nodes frozen",),
        _on_kafka,
    ),
    Nemesis(
        "all of Kafka is down",
        "every node of Kafka ends by SIGKILL at once; they are started again later",
        (12.0, 60.0),
        kafka_down,
        ("times that all of Kafka was down",),
        _on_kafka,
    ),
    Nemesis(
        "groups rebalance in a storm",
        "every dispatcher is killed or stopped, and started again, without pause",
        (10.0, 40.0),
        storming,
        ("members that left a group",),
        _on_kafka,
    ),
)
