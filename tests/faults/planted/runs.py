"""The fault runs that find planted bugs: load, what goes wrong meanwhile, and the judge's word.

Each runs on a sound broker too, goes all the way, and finds nothing. Three set-ups, each where its
bugs show: one process on SQLite, three on PostgreSQL, four on PostgreSQL with Kafka.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
from aiokafka import AIOKafkaProducer

from broker.directory_file import parse
from broker.opening import open_store
from broker.settings import Settings
from broker.store import directory
from broker.topics import COMMUNICATION
from sandbox import arrival
from sandbox.client import Reply
from sandbox.ledger import Ledger, until
from sandbox.world import INBOX_PRACTICE, WEBHOOK_PRACTICE, World
from tests.faults import checker, judged
from tests.faults.housed import Answering, Call, Rude
from tests.faults.planted.planting import NOT_SETTLED

SETTLES_WITHIN: Final = 20.0
STEP_SECONDS: Final = 35.0  # longer than a destination that failed too often has to wait
EVERY: Final = 0.4
MOST_AT_ONCE: Final = 4
STRANGER: Final = "G99003"
_LOOKS: Final = 5

Post = Callable[[World], Awaitable[Reply]]


@dataclass
class Found:
    """What a run showed: the judge's word, what had not settled, and which of its own steps did
    not come about: on a sound broker all of them do."""

    verdict: checker.Verdict
    left: str
    missed: list[str] = field(default_factory=list)

    @property
    def by(self) -> set[str]:
        """The invariants that were broken, and NOT_SETTLED."""
        return self.verdict.invariants | ({NOT_SETTLED} if self.left else set())

    def __str__(self) -> str:
        return "\n".join([*self.missed, self.left, str(self.verdict)])


class Load:
    """Posts without pause, a few at once; each until it is answered."""

    def __init__(self, world: World, *posts: Post) -> None:
        self._world = world
        self._posts = itertools.cycle(posts)
        self._posted: list[asyncio.Future[Reply]] = []

    def post(self, one: Post) -> None:
        """Begin to post one more."""
        self._posted.append(asyncio.ensure_future(one(self._world)))

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        """Post while it lasts; on leaving, each post has been answered with 202."""
        running = asyncio.create_task(self._run())
        try:
            yield self
            running.cancel()
            replies = await asyncio.gather(*self._posted)
            assert {reply.status for reply in replies} == {202}, [one.json for one in replies]
        finally:
            for task in (running, *self._posted):
                task.cancel()
            await asyncio.gather(running, *self._posted, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            if sum(not one.done() for one in self._posted) < MOST_AT_ONCE:
                self.post(next(self._posts))
            await asyncio.sleep(EVERY)


def update(practice: str, family: str = "") -> Post:
    """An update for a practice."""
    return lambda world: world.pharmacy.submit(
        world.pharmacy.consultation(practice=practice, family=family)
    )


def referral(family: str = "") -> Post:
    """A referral that the hospital accepts at once, with a copy to the practice."""
    return lambda world: world.optometrist.submit(
        world.optometrist.referral(practice=INBOX_PRACTICE, family=family)
    )


async def urgent(world: World) -> Reply:
    """A task for the same day, to the practice that is called."""
    return await world.pharmacy.submit(world.pharmacy.crisis(practice=WEBHOOK_PRACTICE))


async def _judged(world: World, missed: list[str], *ledgers: Path) -> Found:
    """Ask the judge once the world has settled, or when the time for that is over.

    A partner may decide between the two, so what is found has to be found again.
    """
    for _ in range(_LOOKS):
        left = ""
        try:
            await judged.settled(world, seconds=SETTLES_WITHIN)
        except AssertionError as error:
            left = str(error)
        found = Found(judged.judge(world, ledgers=ledgers), left, missed)
        if left or not found.by:
            break
    return found


class _Steps:
    """Waits for one step after the other. One that does not come about is written down, and the
    run goes on: what that means is for the judge to say."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.missed: list[str] = []

    async def until(self, what: str, look: Callable[[], Any]) -> None:
        if not await until(look, STEP_SECONDS):
            self.missed.append(f"never: {what}")

    async def asked(self, what: str, question: str) -> None:
        """Wait until a question to the database has an answer."""
        await self.until(what, lambda: judged.ask(self._world, question))

    async def died(self, point: str) -> None:
        """Wait until the broker has died at a crash point."""
        try:
            await self._world.broker.died(STEP_SECONDS)
        except TimeoutError:
            self.missed.append(f"never: {point}")
            await self._world.broker.kill()


# -- one process on SQLite -----------------------------------------------------------------------

_NOTHING_DUE: Final = """
SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM delivery WHERE ods = 'G99002' AND state = 'due')
"""
_WAS_NOWHERE: Final = "SELECT 1 FROM attempt WHERE http_status = 404"
# The first that dispatch ever reads: a message, about which nothing else is recorded before.
FIRST_DEATH: Final = {"CRASHPOINT": "dispatch.composed:1"}


async def on_sqlite(world: World) -> Found:
    """It dies with events half dispatched (FIRST_DEATH is among its settings). A receiver breaks
    off, lies, is nowhere for a while, and moves; somebody else gets its old address."""
    practice, steps = world.webhook_practice, _Steps(world)
    stored = practice.ledger.entries
    world.broker.settings = {
        name: value for name, value in world.broker.settings.items() if name not in FIRST_DEATH
    }
    to_inbox = (update(INBOX_PRACTICE), referral("XXTEST-COMPLETE"))
    async with Load(world, *to_inbox).running() as load:
        async with Load(world, update(WEBHOOK_PRACTICE)).running():
            await steps.died("dispatch.composed")
            await world.broker.start()
        # One thing after the other: a destination that fails five times on end has to wait.
        await steps.asked("all is sent after the death", _NOTHING_DUE)
        load.post(update(WEBHOOK_PRACTICE, "XXTEST-RESET"))
        await steps.until("one is broken off", lambda: practice.ledger.first(how="reset"))
        load.post(update(INBOX_PRACTICE, "XXTEST-LIE-DIGEST"))
        load.post(update(WEBHOOK_PRACTICE, "XXTEST-LIE-DIGEST"))
        await steps.until("one is lied about", lambda: practice.ledger.first("lied"))
        practice.is_nowhere = True
        load.post(update(WEBHOOK_PRACTICE))
        await steps.asked("one is answered 404", _WAS_NOWHERE)
        old = await _moved(world)
        with closing(Ledger(world.folder / "stranger.jsonl", STRANGER)) as stranger:
            async with Rude(old, _keeping_in(stranger)).running() as there:
                wanted = len(stored("received")) + 2
                load.post(update(WEBHOOK_PRACTICE))
                load.post(update(WEBHOOK_PRACTICE))
                await steps.until(
                    "two come after the move",
                    lambda: there.calls or len(stored("received")) >= wanted,
                )
    return await _judged(world, steps.missed, stranger.path)


async def _moved(world: World) -> str:
    """Let the practice that is called move, and return where it was once the directory has it."""
    practice, old = world.webhook_practice, world.webhook_practice.url
    await practice.idle()
    await practice.move()
    practice.is_nowhere = False
    text = (world.folder / "directory.yaml").read_text().replace(old, practice.url)
    await asyncio.to_thread(_put_in_force, world.folder, text)
    return old


def _put_in_force(folder: Path, text: str) -> None:
    """Replace the directory beside the broker that serves by it. Quicker than a command: what is
    sent meanwhile fails."""
    settings = Settings(data_dir=folder / "data", keys_dir=folder / "keys")
    with open_store(settings, migrate=False) as store:
        store.write_now(lambda tx: directory.replace(tx, parse(text)))


def _keeping_in(ledger: Ledger) -> Answering:
    """Answer as whoever has the address now: it keeps what it is sent, and says only 200."""

    async def answer(call: Call, writer: asyncio.StreamWriter) -> None:
        kind = call.headers["referral-broker-kind"]
        found = arrival.read(call.delivery, kind, "webhook", call.body)
        ledger.write("received", **found.facts())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    return answer


# -- three processes on PostgreSQL ---------------------------------------------------------------

ROLES_ON_POSTGRESQL: Final = ("api", "dispatch", "worker")
CUTS: Final = 5
LOCKS: Final = 2  # after one, dispatch may be woken by something else
# The commit of what was posted waits before it has happened, as it does for a slow disk.
_SLOW: Final = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END';
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON event
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.causation_id IS NULL)
EXECUTE FUNCTION slow();
"""
_QUICK: Final = "DROP TRIGGER slow ON event; DROP FUNCTION slow;"
_CUT: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND query = 'COMMIT' AND wait_event = 'PgSleep'
"""


async def on_postgresql(world: World) -> Found:
    """Commits are slow, and connections end in the middle of some, as where the server fails over.
    Later somebody locks a table, twice, for longer than dispatch waits for it."""
    steps = _Steps(world)
    with psycopg.connect(str(judged.database(world)), autocommit=True) as nemesis:
        # Once it has settled nobody decides anything any more: that would wake dispatch.
        posts = (update(INBOX_PRACTICE), update(WEBHOOK_PRACTICE), referral())
        async with Load(world, *posts).running():
            nemesis.execute(_SLOW)
            for number in range(CUTS):
                await steps.until(
                    f"commit {number} is cut off", lambda: nemesis.execute(_CUT).fetchall()
                )
                await asyncio.sleep(EVERY)
            nemesis.execute(_QUICK)
        for _ in range(LOCKS):
            try:
                await judged.settled(world, seconds=SETTLES_WITHIN)
            except AssertionError as error:
                steps.missed.append(str(error))
                break
            with nemesis.transaction():
                await _found_locked(world, nemesis, steps)
    return await _judged(world, steps.missed)


async def _found_locked(world: World, nemesis: psycopg.Connection, steps: _Steps) -> None:
    """Lock a table for the rest of a transaction; post, and wait until dispatch gives up on it."""

    def failures() -> int:
        return world.processes[1].log_path.read_text().count("dispatch.failed")

    nemesis.execute("LOCK TABLE delivery IN EXCLUSIVE MODE")
    before = failures()
    async with Load(world).running() as load:
        load.post(update(WEBHOOK_PRACTICE))
    await steps.until("dispatch finds the table locked", lambda: failures() > before)


# -- four processes on PostgreSQL and Kafka ------------------------------------------------------

ROLES_ON_KAFKA: Final = ("api", "relay", "dispatch", "worker")
URGENT: Final = 4
# Twice as long as what is urgent may wait.
SLOW_POLL: Final = {"BROKER_POLL_SECONDS": "10"}
_JUST_POLLED: Final = """
SELECT 1 FROM cursor c JOIN ledger_head h ON h.position = c.position WHERE c.name = 'dispatch'
"""


async def on_kafka(world: World) -> Found:
    """Records that nobody can read stand among good ones, and dispatch gets them in one batch."""
    steps = _Steps(world)
    settings = world.broker.settings
    topic = settings["BROKER_KAFKA_PREFIX"] + COMMUNICATION
    with closing(Ledger(world.folder / "schedule.jsonl", "nemesis")) as schedule:
        schedule.write("fault", fault="starting")
        await _is_read_at_once(world, steps)
        await steps.asked("the ledger is polled", _JUST_POLLED)
        schedule.write("healed", fault="starting")
        async with (
            AIOKafkaProducer(bootstrap_servers=settings["BROKER_KAFKA_SERVERS"]) as kafka,
            Load(world).running() as load,
        ):
            # Not written down as a fault: for a second's pause nothing may be late.
            dispatch = world.processes[2]
            dispatch.freeze()
            for _ in range(URGENT):
                load.post(urgent)
                await asyncio.sleep(0.2)
                for partition in range(int(settings["BROKER_KAFKA_PARTITIONS"])):
                    await kafka.send_and_wait(topic, b"poison", partition=partition)
            dispatch.thaw()
    return await _judged(world, steps.missed, schedule.path)


async def _is_read_at_once(world: World, steps: _Steps) -> None:
    """Wait until dispatch reads Kafka: what is posted comes long before the ledger is polled."""

    async def look() -> bool:
        sent = await urgent(world)
        return bool(await world.received(sent, world.webhook_practice, seconds=2.0))

    for _ in range(20):
        if await look() and await look():
            return
    steps.missed.append("never: dispatch reads Kafka")
