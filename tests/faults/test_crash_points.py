"""Kill -9 at any point loses nothing that was accepted and delivers nothing twice in effect.

A real process kills itself at each named point in turn, is started again on the same files, and the
partners go on as if nothing had been: the senders repeat with the same key. Then the judge compares
everybody's ledger with the broker's database.
"""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from broker.crashpoints import POINTS
from sandbox.client import Reply
from sandbox.ledger import until
from sandbox.process import NotServing
from sandbox.world import INBOX_PRACTICE, WEBHOOK_PRACTICE, World
from tests.faults.judged import found_right

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

LONG_AGO: Final = "2026-01-05T10:00:00+00:00"
DIES_WITHIN: Final = 60.0
PATIENCE: Final = 180.0

Sending = Callable[[World], list[Any]]


def everything(world: World) -> list[Any]:
    """An update to each practice, a referral that is accepted and completed, a same-day task."""
    return [*to_inbox(world), *to_webhook(world), *to_hospital(world), *overdue(world)]


def to_inbox(world: World) -> list[Any]:
    """An update to the practice that collects."""
    return [world.pharmacy.submit(world.pharmacy.consultation(practice=INBOX_PRACTICE))]


def to_webhook(world: World) -> list[Any]:
    """An update to the practice that is called."""
    return [world.pharmacy.submit(world.pharmacy.consultation(practice=WEBHOOK_PRACTICE))]


def to_hospital(world: World) -> list[Any]:
    """A referral that the hospital accepts and completes, of a patient without a practice."""
    body = world.optometrist.referral(family="XXTEST-COMPLETE", practice=WEBHOOK_PRACTICE)
    body.pop("practice")
    return [world.optometrist.submit(body)]


def overdue(world: World) -> list[Any]:
    """A task for the same day, of a day long past: its deadlines are raised at once."""
    return [world.pharmacy.submit(world.pharmacy.crisis(clinical_time=LONG_AGO))]


# The store's points are passed by every transaction: which one, the number chooses. What a process
# writes while it starts is less than six of them.
CASES: Final[tuple[tuple[str, int, Sending], ...]] = (
    ("intake.parsed", 1, everything),
    ("intake.sealed", 2, everything),
    ("intake.before-answer", 1, everything),
    ("intake.before-answer", 3, everything),
    ("store.recorded", 7, everything),
    ("store.recorded", 16, everything),
    ("store.before-commit", 8, everything),
    ("store.before-commit", 12, everything),
    ("store.committed", 9, everything),
    ("store.committed", 14, everything),
    ("dispatch.read", 1, everything),
    ("dispatch.composed", 1, everything),
    ("dispatch.fanned-out", 1, everything),
    ("dispatch.fanned-out", 3, everything),
    ("worker.claimed", 1, to_webhook),
    ("worker.before-send", 1, to_webhook),
    ("worker.sent", 1, to_webhook),
    ("worker.settled", 1, to_webhook),
    ("receipt.before-write", 1, to_inbox),
    ("receipt.before-write", 1, to_webhook),
    ("receipt.written", 1, to_inbox),
    ("receipt.written", 1, to_webhook),
    ("decision.written", 1, to_inbox),
    ("decision.written", 1, to_hospital),
    ("decision.written", 2, to_hospital),
    ("deadlines.raised", 1, overdue),
)


class Worlds:
    """One world for many cases, whose history grows; after a failure, a new one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = AsyncExitStack()
        self._world: World | None = None
        self._made = 0

    async def take(self) -> World:
        """Return a world in which nothing is wrong and whose broker does not run."""
        if self._world is None:
            await self._stack.aclose()
            self._made += 1
            made = World(self._folder / f"world-{self._made}", patience=PATIENCE)
            world = await self._stack.enter_async_context(made)
        else:
            world, self._world = self._world, None
        if world.broker.pid is not None:
            await world.broker.kill()
        return world

    def give_back(self, world: World) -> None:
        """Say that nothing is wrong in it."""
        self._world = world

    async def aclose(self) -> None:
        await self._stack.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worlds(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worlds]:
    made = Worlds(tmp_path_factory.mktemp("worlds"))
    yield made
    await made.aclose()


async def test_every_named_point_is_swept_and_stands_in_the_code() -> None:
    assert {point for point, *_ in CASES} == set(POINTS)
    room = Path(__file__).parents[2] / "broker"
    code = "".join(path.read_text() for path in room.rglob("*.py"))
    for point in POINTS:
        assert f'crashpoint("{point}")' in code


@pytest.mark.parametrize(
    ("point", "nth", "sending"),
    CASES,
    ids=[f"{point}-{nth}-{sending.__name__}" for point, nth, sending in CASES],
)
async def test_a_broker_that_dies_at_a_point_loses_nothing_and_doubles_nothing(
    worlds: Worlds, point: str, nth: int, sending: Sending
) -> None:
    world = await worlds.take()
    await world.broker.start(crashpoint=f"{point}:{nth}")
    assert world.broker.pid is not None
    posting = [asyncio.create_task(one) for one in sending(world)]
    try:
        try:
            code = await world.broker.died(DIES_WITHIN)
        except TimeoutError:
            pytest.fail(f"{point} was not reached {nth} times")
        assert code == -signal.SIGKILL
        await world.broker.start()
        await all_taken(posting)
    finally:
        for task in posting:
            task.cancel()
        await asyncio.gather(*posting, return_exceptions=True)
    await found_right(world)
    worlds.give_back(world)


async def test_a_broker_killed_at_random_moments_under_load_loses_and_doubles_nothing(
    worlds: Worlds,
) -> None:
    world = await worlds.take()
    await world.broker.start()
    chance = random.SystemRandom()
    kills = []
    for _ in range(3):
        bodies = [
            world.pharmacy.consultation(practice=(INBOX_PRACTICE, WEBHOOK_PRACTICE)[number % 2])
            for number in range(60)
        ]
        references = {body["reference"] for body in bodies}
        posting = [asyncio.create_task(world.pharmacy.submit(body)) for body in bodies]
        wanted = chance.randrange(60)
        kills.append(wanted)

        def is_time(references: set[str] = references, wanted: int = wanted) -> bool:
            answered = world.pharmacy.ledger.entries("answered", status=202)
            return sum(entry.get("reference") in references for entry in answered) >= wanted

        assert await until(is_time, PATIENCE), f"killed after {kills}"
        await world.broker.kill()
        await world.broker.start()
        await all_taken(posting)
    await found_right(world, said=f"killed after {kills} answers")
    worlds.give_back(world)


@pytest.mark.parametrize("point", ["store.recorded", "store.before-commit", "store.committed"])
async def test_a_broker_that_dies_in_its_first_transaction_starts_again(
    worlds: Worlds, point: str
) -> None:
    world = await worlds.take()
    try:
        await world.broker.start(crashpoint=f"{point}:1")
        code = await world.broker.died(DIES_WITHIN)
    except NotServing:
        code = await world.broker.died(DIES_WITHIN)
    assert code == -signal.SIGKILL
    await world.broker.start()
    await all_taken([asyncio.create_task(one) for one in to_webhook(world)])
    await found_right(world)
    worlds.give_back(world)


async def test_a_broker_killed_while_it_starts_with_work_left_over_starts_again(
    worlds: Worlds,
) -> None:
    world = await worlds.take()
    await world.broker.start(crashpoint="worker.before-send:1")
    posting = [asyncio.create_task(one) for one in everything(world)]
    assert await world.broker.died(DIES_WITHIN) == -signal.SIGKILL
    chance = random.SystemRandom()
    for _ in range(4):
        starting = asyncio.create_task(world.broker.start())
        await until(lambda: world.broker.pid is not None, 10.0)
        await asyncio.wait({starting}, timeout=chance.uniform(0.1, 2.5))
        await world.broker.kill()
        await asyncio.gather(starting, return_exceptions=True)
    await world.broker.start()
    await all_taken(posting)
    await found_right(world)
    worlds.give_back(world)


async def test_keys_that_were_used_before_a_kill_are_known_after_it(worlds: Worlds) -> None:
    world = await worlds.take()
    await world.broker.start()
    body, key = world.pharmacy.consultation(practice=INBOX_PRACTICE), "kept-over-a-kill"
    first = await world.pharmacy.submit(body, key=key)
    await world.broker.kill()
    await world.broker.start()
    again = await world.pharmacy.submit(body, key=key)
    assert (again.status, again.body) == (first.status, first.body) == (202, first.body)
    other = await world.pharmacy.submit({**body, "advice": "Something else."}, key=key)
    assert other.status == 409
    await found_right(world)
    worlds.give_back(world)


async def all_taken(posting: list[asyncio.Task[Reply]]) -> None:
    """Wait until every post was answered with 202, however often it had to be repeated."""
    replies = await asyncio.gather(*posting)
    assert {reply.status for reply in replies} == {202}, [reply.json for reply in replies]
