"""Rounds: done as soon as there is something to do, and never given up for an error."""

import asyncio
from datetime import UTC, datetime

import pytest

from broker.errors import Fatal, Unavailable
from broker.rounds import Round, Rounds


async def test_a_round_is_done_again_while_there_is_something() -> None:
    left, rounds = [3, 2, 1, 0], Rounds()

    async def once() -> int:
        if not left[1:]:
            rounds.stop()
        return left.pop(0)

    await rounds.run(Round("dispatch", once))
    assert left == []


@pytest.mark.parametrize(
    ("woken", "times"), [("ledger", 2), ("deliveries", 1), (None, 2)], ids=["it", "another", "all"]
)
async def test_a_round_is_woken_by_its_own_topic_and_by_no_other(
    woken: str | None, times: int
) -> None:
    rounds, done = Rounds(), 0

    async def once() -> int:
        nonlocal done
        done += 1
        return 0

    task = asyncio.create_task(rounds.run(Round("dispatch", once, "ledger")))
    for _ in range(3):
        await asyncio.sleep(0)
    rounds.wake(None if woken is None else {woken})
    for _ in range(5):
        await asyncio.sleep(0)
    assert done == times
    rounds.stop()
    await task


async def test_two_rounds_of_one_topic_are_both_woken() -> None:
    rounds, done = Rounds(), {"relay": 0, "dispatch": 0}

    def counting(name: str) -> Round:
        async def once() -> int:
            done[name] += 1
            return 0

        return Round(name, once, "ledger")

    tasks = [asyncio.create_task(rounds.run(counting(name))) for name in done]
    for _ in range(3):
        await asyncio.sleep(0)
    rounds.wake({"ledger"})
    for _ in range(5):
        await asyncio.sleep(0)
    assert done == {"relay": 2, "dispatch": 2}
    rounds.stop()
    await asyncio.gather(*tasks)


async def test_what_fails_is_tried_again_at_the_next_wake_up() -> None:
    rounds, done = Rounds(), 0

    async def once() -> int:
        nonlocal done
        done += 1
        if done == 1:
            raise Unavailable("away")
        rounds.stop()
        return 0

    task = asyncio.create_task(rounds.run(Round("dispatch", once, "ledger")))
    for _ in range(3):
        await asyncio.sleep(0)
    rounds.wake()
    await task
    assert done == 2


async def test_what_is_fatal_ends_it() -> None:
    async def once() -> int:
        raise Fatal("it stands still")

    with pytest.raises(Fatal):
        await Rounds().run(Round("watchdog", once))


async def test_what_is_due_is_not_waited_for_until_the_next_poll() -> None:
    rounds, done = Rounds(), 0

    async def once() -> int:
        nonlocal done
        done += 1
        if done == 2:
            rounds.stop()
        return 0

    async def due() -> datetime:
        return datetime.now(UTC)

    async with asyncio.timeout(30):  # it would be an hour
        await rounds.run(Round("worker", once, next_due=due, poll=3_600.0))
