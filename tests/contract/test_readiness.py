"""Readiness: what is behind degrades a process, and what cannot store is unavailable."""

from datetime import UTC, datetime, timedelta

import pytest

from broker.errors import Unavailable
from broker.events import uuid7
from broker.readiness import BEHIND_SECONDS, Readiness, readers, readiness
from broker.settings import Settings
from broker.store import ledger
from broker.store.store import Store
from tests.samples import record

ON_KAFKA = Settings(database_url="postgresql://broker@db/broker", kafka_servers="kafka:9092")
EMBEDDED = Settings()


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


async def test_a_broker_that_has_nothing_to_do_is_ready(store: Store) -> None:
    assert await readiness(EMBEDDED, store) is Readiness.READY
    assert Readiness.READY.status == Readiness.DEGRADED.status == 200
    assert Readiness.UNAVAILABLE.status == 503


async def test_what_was_taken_just_now_does_not_degrade_and_what_waits_for_a_minute_does(
    store: Store,
) -> None:
    store.write_now(lambda tx: record(tx, uuid7(), time=ago(1)))
    assert await readiness(EMBEDDED, store) is Readiness.READY
    store.write_now(lambda tx: ledger.move_cursor(tx, "dispatch", 1))
    store.write_now(lambda tx: record(tx, uuid7(), time=ago(BEHIND_SECONDS + 1)))
    assert await readiness(EMBEDDED, store) is Readiness.DEGRADED


async def test_a_relay_that_is_behind_degrades_only_where_there_is_kafka(store: Store) -> None:
    store.write_now(lambda tx: record(tx, uuid7(), time=ago(BEHIND_SECONDS + 1)))
    store.write_now(lambda tx: ledger.move_cursor(tx, "dispatch", 1))
    assert await readiness(EMBEDDED, store) is Readiness.READY
    assert readers(ON_KAFKA) == ("dispatch", "relay")
    assert await readiness(ON_KAFKA, store) is Readiness.DEGRADED


async def test_a_database_that_does_not_answer_is_unavailable(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: object) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(store, "read", away)
    assert await readiness(EMBEDDED, store) is Readiness.UNAVAILABLE
