"""SIGKILL at every named point once, on PostgreSQL and Kafka.

One process does everything, so each point is passed in it; what several processes do to each other
is in test_rolling_upgrade.py and tests/integration/test_whole_on_kafka.py.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.databases import PostgreSQL
from tests.faults import sweeping
from tests.faults.sweeping import ON_KAFKA, Case, OnKafka, Worlds, together
from tests.kafka import MARKS, Kafka

pytestmark = [*MARKS, pytest.mark.postgres, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worlds(
    tmp_path_factory: pytest.TempPathFactory, postgresql: PostgreSQL, kafka: Kafka
) -> AsyncIterator[Worlds]:
    on_kafka = OnKafka(postgresql, kafka)
    made = Worlds(tmp_path_factory.mktemp("worlds"), on_kafka)
    yield made
    await made.aclose()
    on_kafka.drop()


@pytest.mark.parametrize("cases", together(ON_KAFKA), ids=lambda cases: str(cases[0]))
async def test_who_dies_at_each_point_on_kafka_loses_nothing_and_doubles_nothing(
    worlds: Worlds, cases: list[Case]
) -> None:
    await sweeping.sweep(worlds, cases, sweeping.seed())
