"""What a worker makes of failures that are the broker's own, and how it keeps what it works on."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import select, update

from broker.errors import Unavailable
from broker.main import open_broker
from broker.ports import Delivery, Outcome, Outlet
from broker.store import deliveries
from broker.store import tables as t
from broker.store.claims import BREAKER_AFTER, LEASE, RENEWED_AFTER, Slots
from broker.worker import Worker
from tests.shell import Place, consultation

pytestmark = pytest.mark.slow


class Hanging:
    """A consumer that takes for ever."""

    async def handle(self, delivery: Delivery, outlet: Outlet) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError


class WithoutDatabase:
    """A consumer whose secrets cannot be read just now."""

    async def handle(self, delivery: Delivery, outlet: Outlet) -> Outcome:
        raise Unavailable("The database does not answer.")


def test_what_the_broker_itself_failed_in_is_tried_again_and_not_held_against_its_destination(
    operated: Place,
) -> None:
    bodies = [consultation(f"RP-{number}") for number in range(BREAKER_AFTER + 1)]
    messages = operated.post(*bodies)

    async def work() -> int:
        async with open_broker(operated.settings) as broker:
            broken: Any = {"record_update": WithoutDatabase()}
            worker = Worker(broker.core, broken, broker.outlet, slots=Slots())
            claimed = await worker.run_once()
            await worker.drain(5)
            return claimed

    assert asyncio.run(work()) == len(messages)
    for message in messages:
        [row] = operated.read(lambda c, message=message: list(deliveries.of_message(c, message)))  # type: ignore[misc]
        assert (row.state, row.code, row.attempt) == ("due", "handler-failed", 1)
    states = operated.read(lambda c: c.execute(select(t.endpoint_state)).all())
    assert [row.failures for row in states if row.failures] == []


def test_a_worker_keeps_the_lease_of_what_takes_long_and_never_takes_it_a_second_time(
    operated: Place,
) -> None:
    operated.post(consultation("RP-1"))
    leased = select(t.delivery.c.lease_until).where(t.delivery.c.lease_by.is_not(None))

    async def work() -> None:
        async with open_broker(operated.settings) as broker:
            hanging: Any = {"record_update": Hanging()}
            worker = Worker(broker.core, hanging, broker.outlet, slots=Slots())
            read, write = broker.store.read_now, broker.store.write_now
            assert await worker.run_once() == 1
            begun = read(lambda c: c.execute(leased).scalar_one())
            await worker.keep_leases()
            assert read(lambda c: c.execute(leased).scalar_one()) == begun
            await asyncio.sleep(RENEWED_AFTER.total_seconds())
            await worker.keep_leases()
            assert read(lambda c: c.execute(leased).scalar_one()) > begun
            write(lambda tx: tx.execute(update(t.delivery).values(lease_until=tx.now - LEASE)))
            assert await worker.run_once() == 0
            assert read(lambda c: c.execute(leased).scalar_one()) > begun
            await worker.drain(0)

    asyncio.run(work())
    [(state, attempt)] = operated.read(
        lambda c: c.execute(select(t.delivery.c.state, t.delivery.c.attempt)).all()
    )
    assert (state, attempt) == ("due", 1)
