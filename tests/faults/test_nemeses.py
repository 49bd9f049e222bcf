"""Whatever breaks and heals: nothing is lost, misdirected, doubled, out of order, late in silence.

One run for each set-up, in which every nemesis that fits acts once, in an order by chance, under
load. BROKER_TEST_SEED repeats the chances of a run (not its timing); the long one is
`scripts/bench faults`.
"""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

from broker.errors import Unavailable
from broker.store import tables as t
from broker.store.store import Store
from broker.store.tx import Tx
from tests.databases import OWNER, TEMPLATE, PostgreSQL
from tests.faults import cutting, storm
from tests.faults.nemeses import NEMESES
from tests.faults.proxying import AFTER, BEFORE, BROKEN_OFF, TURNED_AWAY, WITHHELD, FaultProxy
from tests.kafka import MARKS, Kafka

SEED: Final = os.environ.get("BROKER_TEST_SEED") or str(random.SystemRandom().getrandbits(32))
COMMITS: Final = 20


def on_kafka(test: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a test that needs Kafka, and PostgreSQL with it."""
    for mark in (*MARKS, pytest.mark.postgres):
        test = mark(test)
    return test


def put(tx: Tx, name: str) -> None:
    """Write one row."""
    tx.execute(t.into(t.cursor), {"name": name, "position": 0})


async def under_every_nemesis(
    set_up: str,
    folder: Path,
    *,
    senders: int,
    postgresql: PostgreSQL | None = None,
    kafka: Kafka | None = None,
) -> None:
    """Let everything that fits break a broker once, and demand that the judge finds nothing."""
    sys.stdout.write(f"BROKER_TEST_SEED={SEED}\n")
    chance = random.Random(SEED)  # noqa: S311
    shim = cutting.shim_for_tests(folder, "harm")
    async with storm.stage(
        set_up, folder, chance, postgresql=postgresql, kafka=kafka, shim=shim
    ) as stage:
        nemeses = storm.that_fit(stage, chance)
        outcome = await storm.run(stage, nemeses, senders=senders)
    sys.stdout.write(f"{outcome.as_record()}\n")
    assert not outcome.verdict.violations, str(outcome.verdict)
    assert "I13" not in outcome.verdict.in_part
    assert outcome.faulted > 0
    # A dispatcher that gets nothing from Kafka ends itself; nobody else may.
    assert [name for name in outcome.ended if not name.startswith("dispatch")] == []


@pytest.mark.slow
async def test_an_embedded_broker_loses_and_doubles_nothing_under_every_nemesis(
    tmp_path: Path,
) -> None:
    await under_every_nemesis(storm.SQLITE, tmp_path, senders=6)


@pytest.mark.slow
@pytest.mark.postgres
async def test_a_broker_on_postgresql_loses_and_doubles_nothing_under_every_nemesis(
    tmp_path: Path, postgresql: PostgreSQL
) -> None:
    await under_every_nemesis(storm.ON_POSTGRESQL, tmp_path, senders=6, postgresql=postgresql)


@on_kafka
async def test_a_broker_on_postgresql_and_kafka_loses_and_doubles_nothing_under_every_nemesis(
    tmp_path: Path, postgresql: PostgreSQL, kafka_cluster: Kafka
) -> None:
    await under_every_nemesis(
        storm.ON_KAFKA, tmp_path, senders=3, postgresql=postgresql, kafka=kafka_cluster
    )


async def test_every_nemesis_has_a_name_of_its_own_and_says_what_proves_it() -> None:
    assert len({one.name for one in NEMESES}) == len(NEMESES)
    assert all(one.proof and one.words for one in NEMESES)


# -- the proxy itself ----------------------------------------------------------------------------


@pytest.fixture
async def proxy(postgresql: PostgreSQL) -> AsyncIterator[FaultProxy]:
    made = FaultProxy(postgresql.socket, random.Random(SEED))  # noqa: S311
    async with made.running():
        yield made


@pytest.mark.postgres
@pytest.mark.parametrize(("way", "kept"), [(BEFORE, 0), (AFTER, COMMITS)])
async def test_a_commit_that_the_proxy_cuts_is_there_only_where_the_server_heard_it(
    postgresql: PostgreSQL, proxy: FaultProxy, way: str, kept: int
) -> None:
    database = postgresql.create("template0")
    with psycopg.connect(postgresql.url(database)) as direct:
        direct.execute("CREATE TABLE written (number integer)")
    proxy.ways, proxy.cut_share = (way,), 1.0

    def write(number: int) -> None:
        with closing(psycopg.connect(proxy.url(database, OWNER))) as connection:
            connection.execute("SELECT 1")
            connection.commit()  # wrote nothing: it is let pass
            connection.execute("INSERT INTO written VALUES (%s)", [number])
            with pytest.raises(psycopg.OperationalError):
                connection.commit()

    for number in range(COMMITS):
        await asyncio.to_thread(write, number)
    assert proxy.acted == {way: COMMITS}
    with psycopg.connect(postgresql.url(database)) as direct:
        assert direct.execute("SELECT count(*) FROM written").fetchone() == (kept,)
    postgresql.drop(database)


@pytest.mark.postgres
@pytest.mark.parametrize(("way", "kept"), [(BEFORE, False), (AFTER, True)])
async def test_a_store_whose_commit_is_cut_says_that_it_does_not_know_either_way(
    postgresql: PostgreSQL, proxy: FaultProxy, way: str, kept: bool
) -> None:
    database = postgresql.create(TEMPLATE)
    store = await asyncio.to_thread(Store, proxy.url(database, OWNER))
    try:
        proxy.ways, proxy.cut_share = (way,), 1.0
        with pytest.raises(Unavailable, match="not known whether this was stored"):
            await store.write(lambda tx: put(tx, "cut"))
        proxy.heal()
        await store.write(lambda tx: put(tx, "after"))
    finally:
        await asyncio.to_thread(store.close)
    with psycopg.connect(postgresql.url(database)) as direct:
        found = {name for (name,) in direct.execute("SELECT name FROM cursor")}
    assert found == ({"cut", "after"} if kept else {"after"})
    postgresql.drop(database)


@pytest.mark.postgres
async def test_what_hangs_goes_on_and_what_is_shut_is_turned_away(
    postgresql: PostgreSQL, proxy: FaultProxy
) -> None:
    url = proxy.url("postgres", OWNER)

    def ask() -> int:
        with closing(psycopg.connect(url)) as connection:
            row = connection.execute("SELECT 42").fetchone()
            assert row is not None
            return int(row[0])

    proxy.hang()
    asking = asyncio.create_task(asyncio.to_thread(ask))
    await asyncio.wait({asking}, timeout=0.5)
    assert not asking.done()
    assert proxy.acted[WITHHELD] > 0
    proxy.heal()
    assert await asking == 42
    with closing(await asyncio.to_thread(psycopg.connect, url)) as connection:
        proxy.shut()
        assert proxy.acted[BROKEN_OFF] == 1
        with pytest.raises(psycopg.OperationalError):
            await asyncio.to_thread(connection.execute, "SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        await asyncio.to_thread(ask)
    assert proxy.acted[TURNED_AWAY] == 1
    proxy.heal()
    assert await asyncio.to_thread(ask) == 42
