"""`referral-broker endpoints pause | drain | resume`, as an operator uses them."""

import asyncio
import json
import time
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from broker.events import uuid7
from broker.main import open_broker
from broker.store import claims, deliveries
from broker.store import tables as t
from broker.store.claims import Slots
from tests.shell import PRACTICE, Place, consultation

pytestmark = pytest.mark.slow

WIDE = Slots(pool=1_000, destination=100)


def rows(place: Place, message: str) -> list[Any]:
    return list(place.read(lambda c: deliveries.of_message(c, message)))


def test_a_pause_is_shown_wherever_an_operator_looks_until_it_is_resumed(operated: Place) -> None:
    operated.post(consultation("RP-1"))
    said = operated.run("endpoints", "pause", PRACTICE.lower())
    assert said == f"{PRACTICE} is paused. 1 delivery waits there, none of them urgent.\n"
    assert "already" in operated.run("endpoints", "pause", PRACTICE)
    (item,) = json.loads(operated.run("overdue", "--json"))
    assert (item["code"], item["destination"]) == ("destination-paused", PRACTICE)
    assert f"Paused: {PRACTICE}. 1 delivery waits there" in operated.run("overdue")
    assert operated.write(lambda tx: claims.claim(tx, uuid7(), WIDE, 9)) == []
    assert operated.run("endpoints", "resume", PRACTICE) == f"{PRACTICE} is resumed: 1 waited.\n"
    assert json.loads(operated.run("overdue", "--json")) == []
    assert len(operated.write(lambda tx: claims.claim(tx, uuid7(), WIDE, 9))) == 1


def test_check_names_what_is_paused_and_how_to_resume_it(operated: Place) -> None:
    operated.run("endpoints", "pause", PRACTICE)
    with pytest.raises(AssertionError):  # a webhook without a secret: it exits with 1
        operated.run("check", "--json")
    from broker.commands import checking

    with pytest.MonkeyPatch.context() as patch:
        for name, value in operated.variables.items():
            patch.setenv(name, value)
        (found,) = (one for one in checking.check() if one.check == "paused")
    assert found.found.startswith(f"Nothing is attempted at {PRACTICE}, since ")
    assert found.mend == f"referral-broker endpoints resume {PRACTICE}"


@pytest.mark.parametrize("place", ["G99", "G99002/NOTHING", "RXX01/NOTHING"])
def test_a_place_that_was_mistyped_is_refused_for_it_would_go_on_being_called(
    operated: Place, place: str
) -> None:
    with pytest.raises(AssertionError, match=r"There is no .* in the directory"):
        operated.run("endpoints", "pause", place)


def test_draining_waits_until_nothing_is_under_way(operated: Place) -> None:
    (message,) = operated.post(consultation("RP-1"))
    (row,) = operated.write(lambda tx: claims.claim(tx, uuid7(), WIDE, 9))
    with pytest.raises(AssertionError, match=r"1 under way at G99002 after 0 s. It stays paused"):
        operated.run("endpoints", "drain", PRACTICE, "--seconds", "0")

    async def end_it() -> None:
        def end(tx: Any) -> None:
            found = deliveries.lock(tx, row.id)
            assert found is not None
            claims.try_again(tx, found, tx.now + timedelta(seconds=1), "timed-out")

        async with asyncio.TaskGroup() as group:
            draining = group.create_task(
                asyncio.to_thread(operated.run, "endpoints", "drain", PRACTICE)
            )
            await asyncio.sleep(1)
            assert not draining.done()
            await asyncio.to_thread(operated.write, end)
        assert "is paused and nothing to it is under way. 1 delivery waits" in draining.result()

    began = time.monotonic()
    asyncio.run(end_it())
    assert time.monotonic() - began < 30
    assert rows(operated, message)[0].state == "due"


def test_what_waits_at_a_paused_place_is_raised_at_its_deadline_as_ever(operated: Place) -> None:
    (message, *_) = operated.post(consultation("RP-1"))
    operated.run("endpoints", "pause", PRACTICE)
    late = update(t.deadline).where(t.deadline.c.message_id == message)
    operated.write(lambda tx: tx.execute(late.values(due_at=tx.now - timedelta(hours=1))))

    async def watch() -> None:
        async with open_broker(operated.settings) as broker:
            while await broker.safety.run_once():
                pass

    asyncio.run(watch())
    found = json.loads(operated.run("overdue", "--json"))
    assert {"destination-paused"} < {one["code"] for one in found}
    assert message in {one["message"] for one in found}


def test_a_broker_that_serves_sends_nothing_there_and_then_everything(operated: Place) -> None:
    """The worker itself, for the claim is where a pause must hold."""
    (message,) = operated.post(consultation("RP-1"))
    operated.run("endpoints", "pause", PRACTICE)

    async def work() -> int:
        async with open_broker(operated.settings) as broker:
            claimed = await broker.worker.run_once()
            await broker.worker.drain(5)
            return claimed

    assert asyncio.run(work()) == 0
    assert rows(operated, message)[0].attempt == 0
    operated.run("endpoints", "resume", PRACTICE)
    assert asyncio.run(work()) == 1
    assert rows(operated, message)[0].attempt == 1
