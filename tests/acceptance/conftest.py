"""One running broker for each module of acceptance tests: every test uses patients of its own.

It is embedded; with BROKER_TEST_ON=kafka it stands on PostgreSQL and dispatches from Kafka.
"""

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from tests import composed
from tests.acceptance.place import Caller, Place
from tests.databases import TEMPLATE, PostgreSQL
from tests.kafka import Kafka

IS_EMBEDDED = os.environ.get("BROKER_TEST_ON", "") != "kafka"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On Kafka leave out what is no different there: what has no broker of `place`, and what looks
    into SQLite's own files."""
    if IS_EMBEDDED:
        return
    left = [
        item
        for item in items
        if "backing" not in getattr(item, "fixturenames", ()) or item.get_closest_marker("embedded")
    ]
    items[:] = [item for item in items if item not in left]
    config.hook.pytest_deselected(items=left)


@pytest.fixture(scope="module")
def backing(request: pytest.FixtureRequest) -> Iterator[Mapping[str, Any]]:
    """The settings by which a broker finds a database, and perhaps a Kafka, of its own."""
    if IS_EMBEDDED:
        yield {}
        return
    postgresql: PostgreSQL = request.getfixturevalue("postgresql")
    kafka: Kafka = request.getfixturevalue("kafka")
    name = postgresql.create(TEMPLATE)
    yield {
        "database_url": postgresql.url(name),
        "kafka_servers": kafka.bootstrap,
        "kafka_security": "PLAINTEXT",
        "kafka_prefix": f"{uuid4()}.",
        "kafka_partitions": 2,
        "kafka_replicas": 1,
        "poll_seconds": 0.5,
    }
    postgresql.drop(name)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(
    tmp_path_factory: pytest.TempPathFactory, backing: Mapping[str, Any]
) -> AsyncIterator[Place]:
    """A running broker, with the example directory and every organisation of it as a caller.

    All that it composed is FHIR as our profiles say.
    """
    made = Place(tmp_path_factory.mktemp("place"), backing=backing)
    await made.start()
    yield made
    await made.stop()
    assert composed.faults_in(made.folder) == []


@pytest.fixture
def pharmacy(place: Place) -> Caller:
    """Riverside Pharmacy, which sends consultations."""
    return place.of("FPH01")


@pytest.fixture
def optometrist(place: Place) -> Caller:
    """Clearview Opticians, which sends referrals."""
    return place.of("TPX01")


@pytest.fixture
def practice(place: Place) -> Caller:
    """Riverside Medical Practice, which collects from its inbox."""
    return place.of("G99001")


@pytest.fixture
def hospital(place: Place) -> Caller:
    """Northfield Hospital: single point of access, eye casualty and macular service."""
    return place.of("RXX01")
