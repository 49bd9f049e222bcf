"""What a worker makes of failures that are the broker's own."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import select

from broker.errors import Unavailable
from broker.main import open_broker
from broker.ports import Delivery, Outcome, Outlet
from broker.store import deliveries
from broker.store import tables as t
from broker.store.claims import BREAKER_AFTER, Slots
from broker.worker import Worker
from tests.shell import Place, consultation

pytestmark = pytest.mark.slow


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
