"""Kill -9 at any point loses nothing that was accepted and delivers nothing twice in effect.

A real process kills itself at each named point in turn, is started again on the same files, and the
partners go on as if nothing had been: the senders repeat with the same key. A command that dies is
typed again. Then the judge compares everybody's ledger with the broker's database.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from broker.crashpoints import POINTS
from sandbox.ledger import until
from sandbox.world import INBOX_PRACTICE, WEBHOOK_PRACTICE
from tests.faults import sweeping
from tests.faults.dying import all_taken, dies, everything, to_webhook
from tests.faults.judged import found_right
from tests.faults.sweeping import CASES, ON_KAFKA, PATIENCE, SQLITE, Case, Worlds, together

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worlds(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Worlds]:
    made = Worlds(tmp_path_factory.mktemp("worlds"))
    yield made
    await made.aclose()


async def test_every_named_point_is_swept_and_stands_in_the_code() -> None:
    assert {case.point for case in CASES} == set(POINTS)
    assert len(POINTS) >= 30
    room = Path(__file__).parents[2] / "broker"
    code = "".join(path.read_text() for path in room.rglob("*.py"))
    for point in POINTS:
        assert f'crashpoint("{point}")' in code


async def test_a_point_is_swept_once_on_each_set_up_on_which_it_is_passed() -> None:
    for set_up in (SQLITE, ON_KAFKA):
        swept = [case.point for cases in together(set_up) for case in cases]
        assert len(set(swept)) == len(swept) >= 25


async def test_the_seed_chooses_when_and_one_seed_always_the_same() -> None:
    case = Case("store.committed", CASES[0].story, 40)
    chosen = [case.nth(f"{number}") for number in range(200)]
    assert chosen == [case.nth(f"{number}") for number in range(200)]
    assert min(chosen) == 1 and max(chosen) == 40


@pytest.mark.parametrize("cases", together(SQLITE), ids=lambda cases: str(cases[0]))
async def test_who_dies_at_each_point_loses_nothing_and_doubles_nothing(
    worlds: Worlds, cases: list[Case]
) -> None:
    await sweeping.sweep(worlds, cases, sweeping.seed())


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
            answered = world.pharmacy.ledger.entries("ok", status=202)
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
    await dies(world, f"{point}:1")
    await world.broker.start()
    await all_taken([asyncio.create_task(one) for one in to_webhook(world)])
    await found_right(world)
    worlds.give_back(world)


async def test_a_broker_killed_while_it_starts_with_work_left_over_starts_again(
    worlds: Worlds,
) -> None:
    world = await worlds.take()
    posting = [asyncio.create_task(one) for one in everything(world)]
    await dies(world, "worker.before-send:1")
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
