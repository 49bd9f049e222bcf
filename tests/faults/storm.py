"""A fault run: senders post without pause while nemeses act; then all heals, settles and is judged.

Everything by chance comes of one seed. What is broken when stands in a ledger of its own, which the
judge reads as any other.
"""

import asyncio
import random
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from sandbox.client import NeverAnswered, NotSignedIn, Reply
from sandbox.ledger import Ledger, until
from sandbox.senders import Body, Sender
from sandbox.world import INBOX_PRACTICE, WEBHOOK_PRACTICE, World
from tests.databases import OWNER, PostgreSQL
from tests.faults import checker, judged
from tests.faults.nemeses import NEMESES, Nemesis
from tests.faults.proxying import FaultProxy
from tests.faults.staging import Control, Stage
from tests.kafka import Kafka

SQLITE: Final = "SQLite"
ON_POSTGRESQL: Final = "PostgreSQL"
ON_KAFKA: Final = "PostgreSQL and Kafka"
ROLES: Final = {
    SQLITE: ("all",),
    ON_POSTGRESQL: ("all", "all"),
    ON_KAFKA: ("api", "relay", "relay", "dispatch", "dispatch", "worker", "worker"),
}
SCHEDULE: Final = "schedule.jsonl"
PAUSE: Final = 0.4  # between the posts of one sender, in the mean
QUIET: Final = 1.0  # between two nemeses
CALM: Final = 10.0  # after the last: what is urgent must be tried within 5 s again
ACTS_WITHIN: Final = 60.0
SETTLES_WITHIN: Final = 180.0
PATIENCE: Final = 120.0
SEND_TIMEOUT: Final = 2.0
_SETTINGS: Final = {"BROKER_POLL_SECONDS": "1"}


# -- the load ------------------------------------------------------------------------------------


class Load:
    """Senders who post one thing after another, in every way that a client can.

    Each body is sent until it is taken, under its own key. Some are sent twice, some twice at once,
    some are given up before they are answered and sent again, some come once more long after.
    """

    def __init__(self, stage: Stage, senders: int, pause: float) -> None:
        self._stage = stage
        self._chance = random.Random(stage.chance.random())  # noqa: S311
        self._pause = pause
        self._senders = senders
        self._stopping = asyncio.Event()
        self._taken: list[tuple[Sender, Body, str]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.ways: Counter[str] = Counter()

    def start(self) -> None:
        """Begin to post."""
        self._tasks = [asyncio.create_task(self._post()) for _ in range(self._senders)]

    async def finish(self, seconds: float) -> None:
        """Post nothing new; return once everything is taken. Raises TimeoutError."""
        self._stopping.set()
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*self._tasks)
        finally:
            await self.cancel()

    async def cancel(self) -> None:
        """Stop where it is."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _post(self) -> None:
        ways = (
            (60, self._once),
            (10, self._twice),
            (10, self._at_once),
            (12, self._given_up),
            (5, self._old_one),
            (3, self._withdrawn),
        )
        while not self._stopping.is_set():
            [way] = self._chance.choices([way for _, way in ways], [share for share, _ in ways])
            self.ways[way.__name__.strip("_")] += 1
            sender, body = self._draw_up()
            await way(sender, body, str(uuid4()))
            with suppress(TimeoutError):
                await asyncio.wait_for(
                    self._stopping.wait(), self._chance.expovariate(1 / self._pause)
                )

    def _draw_up(self) -> tuple[Sender, Body]:
        world, chance = self._stage.world, self._chance
        practice = chance.choice((INBOX_PRACTICE, WEBHOOK_PRACTICE))
        kind = chance.random()
        if self._stage.family and kind < 0.5:
            lied_to = world.pharmacy.consultation(practice=practice, family=self._stage.family)
            return world.pharmacy, lied_to
        if kind < 0.15:
            return world.pharmacy, world.pharmacy.crisis(practice=practice)
        if kind < 0.35:
            example = chance.choice(("cataract", "raised-pressure", "suspected-wet-amd"))
            family = chance.choice(("XXTEST-COMPLETE", "XXTEST-REJECT-CRITERIA-NOT-MET", ""))
            referral = world.optometrist.referral(example, practice=practice, family=family)
            return world.optometrist, referral
        if kind < 0.38:
            refused = world.pharmacy.consultation(practice=practice, consent_to_inform_gp=False)
            return world.pharmacy, refused
        return world.pharmacy, world.pharmacy.consultation(practice=practice)

    # -- ways to post ----------------------------------------------------------------------------

    async def _once(self, sender: Sender, body: Body, key: str) -> None:
        await self._until_taken(sender, body, key)

    async def _twice(self, sender: Sender, body: Body, key: str) -> None:
        first = await self._until_taken(sender, body, key)
        again = await self._until_taken(sender, body, key)
        assert (first.status, first.body) == (again.status, again.body), "another answer"

    async def _at_once(self, sender: Sender, body: Body, key: str) -> None:
        await asyncio.gather(*(self._until_taken(sender, body, key) for _ in range(2)))

    async def _given_up(self, sender: Sender, body: Body, key: str) -> None:
        """The client goes away before it is answered, and comes back later."""
        with suppress(TimeoutError, NeverAnswered, NotSignedIn):
            async with asyncio.timeout(self._chance.uniform(0.0, 0.05)):
                await sender.submit(body, key=key)
        await asyncio.sleep(self._chance.uniform(0.0, 1.0))
        await self._until_taken(sender, body, key)

    async def _old_one(self, sender: Sender, body: Body, key: str) -> None:
        """What was taken before comes once more, behind what came after it."""
        await self._until_taken(sender, body, key)
        await self._until_taken(*self._chance.choice(self._taken))

    async def _withdrawn(self, sender: Sender, body: Body, key: str) -> None:
        """A consultation that was entered in error is taken back."""
        reply = await self._until_taken(sender, body, key)
        [message, *others] = reply.json["messages"]
        if not others and message["kind"] == "update" and message.get("status") != "withheld":
            with suppress(NeverAnswered, NotSignedIn):
                await sender.withdraw(message["id"])

    async def _until_taken(self, sender: Sender, body: Body, key: str) -> Reply:
        while True:
            with suppress(NeverAnswered, NotSignedIn):
                reply = await sender.submit(body, key=key)
                if not _is_of_a_clock_set_back(reply):
                    assert reply.status == 202, (reply.status, reply.json)
                    self._taken.append((sender, body, key))
                    return reply
            await asyncio.sleep(0.5)


def _is_of_a_clock_set_back(reply: Reply) -> bool:
    """Whether it is a process whose clock is wrong that lets nobody in, or takes what has just
    happened for the future: a sender tries again once somebody has seen to it."""
    if reply.status != 422:
        return reply.status == 401
    return {one["code"] for one in reply.json["problems"]} == {"in-the-future"}


# -- the run -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did, and what the judge found. A delivery is faulted that was under way while
    something was broken; one that saw two things broken counts for both in `faulted_by`."""

    seconds: float
    settled_in: float
    posts: Counter[str]
    acted: Counter[str]
    ended: Sequence[str]
    deliveries: int
    faulted: int
    faulted_by: Counter[str]
    verdict: checker.Verdict

    def as_record(self) -> dict[str, Any]:
        """Return it as JSON can have it."""
        return {
            "seconds": round(self.seconds, 1),
            "settled_in": round(self.settled_in, 1),
            "posts": dict(self.posts),
            "acted": dict(self.acted),
            "ended": list(self.ended),
            "deliveries": self.deliveries,
            "faulted": self.faulted,
            "faulted_by": dict(self.faulted_by),
            "counts": dict(self.verdict.counts),
            "not_judged": self.verdict.not_judged,
            "violations": [[one.invariant, str(one)] for one in self.verdict.violations],
        }


@asynccontextmanager
async def stage(
    set_up: str,
    folder: Path,
    chance: random.Random,
    *,
    postgresql: PostgreSQL | None = None,
    kafka: Kafka | None = None,
    shim: Path | None = None,
) -> AsyncIterator[Stage]:
    """A world of processes under load to come, every way to harm it at hand."""
    settings = dict(_SETTINGS)
    async with AsyncExitStack() as stack:
        proxy = None
        if postgresql is not None:
            database = postgresql.create("template0")
            stack.callback(postgresql.drop, database)
            settings["BROKER_DATABASE_URL"] = postgresql.url(database)
            drawn = random.Random(chance.random())  # noqa: S311
            proxy = FaultProxy(postgresql.socket, drawn)
            await stack.enter_async_context(proxy.running())
        if kafka is not None:
            await stack.enter_async_context(kafka.harmed())
            settings |= kafka.topics_of_its_own()
        world = World(
            folder,
            settings=settings,
            roles=ROLES[set_up],
            send_timeout=SEND_TIMEOUT,
            patience=PATIENCE,
        )
        made = Stage(world, chance, proxy, postgresql, kafka)
        await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
        for number, process in enumerate(world.processes):
            if proxy is not None:
                process.settings["BROKER_DATABASE_URL"] = proxy.url(database, OWNER)
            if shim is not None:
                made.controls[process] = Control(folder / f"control-{number}")
                process.settings["LD_PRELOAD"] = str(shim)
                process.settings["HARM_CONTROL"] = str(made.controls[process].path)
        await stack.enter_async_context(world)
        for partner in world.partners:
            partner.decides_within = PATIENCE
        yield made


async def run(
    stage: Stage,
    nemeses: Sequence[Nemesis],
    *,
    is_long: bool = False,
    senders: int = 4,
    kills: float = 0.0,
) -> Outcome:
    """Let each nemesis act once, one after the other, and judge what came of it.

    During a share of them, `kills`, a process is killed as well. Raises AssertionError where
    something does not settle, or where a nemesis did nothing.
    """
    began = time.monotonic()
    load = Load(stage, senders, PAUSE)
    supervising = asyncio.create_task(stage.supervise())
    with closing(Ledger(stage.world.folder / SCHEDULE, "nemesis")) as schedule:
        try:
            schedule.write("schedule")
            load.start()
            for nemesis in nemeses:
                await asyncio.sleep(QUIET)
                is_killing = stage.chance.random() < kills
                seconds = nemesis.seconds[is_long]
                await _let_act(stage, nemesis, schedule, seconds, is_killing=is_killing)
            healed = time.monotonic()
            await asyncio.sleep(CALM)
            await load.finish(SETTLES_WITHIN)
            verdict = await _judged(stage, schedule.path)
        finally:
            await load.cancel()
            supervising.cancel()
            await asyncio.gather(supervising, return_exceptions=True)
    faulted_by, faulted, deliveries = _faulted(stage.world)
    now = time.monotonic()
    stage.acted["processes that ended by themselves"] = len(stage.ended)
    return Outcome(
        seconds=now - began,
        settled_in=now - healed,
        posts=load.ways,
        acted=stage.acted,
        ended=stage.ended,
        deliveries=deliveries,
        faulted=faulted,
        faulted_by=faulted_by,
        verdict=verdict,
    )


async def _let_act(
    stage: Stage, nemesis: Nemesis, schedule: Ledger, seconds: float, *, is_killing: bool
) -> None:
    """Do harm for so long, or until it has acted at all; mend it, and wait until all is ready."""
    schedule.write("fault", fault=nemesis.name)
    async with nemesis.acts(stage) as done:
        await asyncio.sleep(seconds / 2)
        killed = await stage.kill_one() if is_killing else None
        starting = asyncio.create_task(stage.start(killed)) if killed is not None else None
        await asyncio.sleep(seconds / 2)
        await until(lambda: all(done()[what] for what in nemesis.proof), ACTS_WITHIN)
        acted = Counter(done())
    if starting is not None:  # it may not have started again before all was mended
        await starting
        stage.acted["processes killed meanwhile"] += 1
    await stage.all_ready()
    schedule.write("healed", fault=nemesis.name)
    judged.publish_head(stage.world)
    missing = [what for what in nemesis.proof if not acted[what]]
    assert not missing, f"{nemesis.name} did nothing: {missing}"
    stage.acted += acted


async def _judged(stage: Stage, schedule: Path) -> checker.Verdict:
    """Wait until all is settled, and judge; a partner may decide between the two, so what is found
    has to be found again."""
    for _ in range(3):
        await judged.settled(stage.world, seconds=SETTLES_WITHIN, excused=("lied",))
        verdict = judged.judge(stage.world, ledgers=[schedule])
        if not verdict.violations:
            break
    return verdict


def _faulted(world: World) -> tuple[Counter[str], int, int]:
    """Count the deliveries that were under way while each nemesis acted, while any did, and all."""
    schedule = Ledger(world.folder / SCHEDULE, "nemesis")
    with closing(schedule):
        faults = list(_windows(schedule))
    stored: dict[str, datetime] = {}
    for partner in world.partners:
        for entry in partner.ledger.entries("received"):
            stored.setdefault(entry["delivery"], datetime.fromisoformat(entry["at"]))
    with closing(sqlite3.connect(world.folder / "judged.db")) as copy:
        made = dict(copy.execute("SELECT id, created_at FROM delivery").fetchall())
    found: Counter[str] = Counter()
    at_all = 0
    for delivery, created in made.items():
        end = stored.get(delivery, datetime.max.replace(tzinfo=UTC))
        begin = min(datetime.fromisoformat(created), end)  # by a clock that may have been wrong
        under = {name for name, since, to in faults if begin <= to and since <= end}
        found.update(under)
        at_all += bool(under)
    return found, at_all, len(made)


def _windows(schedule: Ledger) -> Iterator[tuple[str, datetime, datetime]]:
    for fault, healed in zip(schedule.entries("fault"), schedule.entries("healed"), strict=True):
        since, to = (datetime.fromisoformat(one["at"]) for one in (fault, healed))
        yield fault["fault"], since, to


def that_fit(stage: Stage, chance: random.Random) -> list[Nemesis]:
    """Return every nemesis that can act on a stage, in an order by chance."""
    found: list[Any] = [one for one in NEMESES if one.fits(stage)]
    chance.shuffle(found)
    return found
