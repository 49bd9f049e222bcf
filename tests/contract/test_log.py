"""The contract of a log, kept in memory, by the ledger on both databases, and by Kafka."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer

from broker import cloudevents, log_memory, log_sql
from broker.events import ALL_TYPES, UPDATE_SUBMITTED, uuid7
from broker.log import Batch, Publisher, Quarantined, Reader, Record
from broker.log_kafka.publisher import Publisher as KafkaPublisher
from broker.log_kafka.reader import Reader as KafkaReader
from broker.log_kafka.topics import Wanted
from broker.topics import LARGEST_RECORD, Topic
from tests.databases import Database
from tests.kafka import MARKS, Kafka
from tests.samples import AT, record

SOURCE = "urn:test"


@dataclass
class Log:
    """One log for one test. `spoil` puts something into it that is no record; what a log has not
    is None."""

    reader: Callable[[str], Reader]
    write: Callable[[Sequence[Record]], Awaitable[Sequence[Quarantined]]]
    publisher: Publisher | None = None
    spoil: Callable[[], Awaitable[None]] | None = None


def a_record(subject: str, sequence: int = 1, **changes: Any) -> Record:
    """A record as the relay publishes it."""
    made = Record(
        id=uuid7(),
        type=UPDATE_SUBMITTED,
        source=SOURCE,
        subject=subject,
        sequence=sequence,
        time=AT,
        dataschema="https://example.org/profile|1.0.0",
        correlation_id=uuid7(),
        data=b"sealed",
    )
    return replace(made, **changes)


def some(subjects: int, of_each: int) -> list[Record]:
    """Records of several subjects, by turns."""
    names = [uuid7() for _ in range(subjects)]
    return [a_record(name, place + 1) for place in range(of_each) for name in names]


# -- the implementations -------------------------------------------------------------------------


@pytest.fixture
def memory() -> Log:
    kept = log_memory.Memory()
    publisher = log_memory.Publisher(kept, largest=LARGEST_RECORD)

    async def spoil() -> None:
        kept.entries.append(Quarantined("memory-0", "not-a-cloudevent"))

    return Log(lambda group: log_memory.Reader(kept, group), publisher.publish, publisher, spoil)


def ledger_of(database: Database) -> Log:
    store = database.open()

    async def write(records: Sequence[Record]) -> Sequence[Quarantined]:
        for one in records:
            await store.write(
                lambda tx, one=one: record(  # type: ignore[misc]
                    tx,
                    one.subject,
                    id=one.id,
                    source=one.source,
                    correlation_id=one.correlation_id,
                )
            )
        return ()

    return Log(lambda group: log_sql.Reader(store, group), write)


@pytest.fixture
def sqlite(sqlite_database: Database) -> Log:
    return ledger_of(sqlite_database)


@pytest.fixture
def postgresql_ledger(postgresql_database: Database) -> Log:
    return ledger_of(postgresql_database)


@pytest_asyncio.fixture
async def kafka_log(kafka: Kafka) -> AsyncIterator[Log]:
    topic = f"test-{uuid7()}"
    wanted = Wanted(partitions=3, replicas=1)
    await kafka.create(topic, wanted.partitions, wanted.settings(Topic(topic, "for this test")))
    connection = {"bootstrap_servers": kafka.bootstrap}
    publisher = KafkaPublisher(connection, lambda _: topic)
    readers: list[KafkaReader] = []

    def reader(group: str) -> Reader:
        readers.append(KafkaReader(connection, f"{topic}-{group}", [topic], wait=0.5))
        return readers[-1]

    async def spoil() -> None:
        async with AIOKafkaProducer(**connection) as stranger:
            await stranger.send_and_wait(topic, b"no record of ours", b"key")

    yield Log(reader, publisher.publish, publisher, spoil)
    for one in readers:
        await one.close()
    await publisher.close()


KAFKA = pytest.param("kafka_log", marks=MARKS)
EVERY = ["memory", "sqlite", pytest.param("postgresql_ledger", marks=pytest.mark.postgres), KAFKA]
# What is written into by a publisher, with data, repeats, and perhaps things that are no records.
PUBLISHED = pytest.mark.parametrize("log", ["memory", KAFKA], indirect=True)


@pytest.fixture(params=EVERY)
def log(request: pytest.FixtureRequest) -> Log:
    made: Log = request.getfixturevalue(request.param)
    return made


async def read(reader: Reader, count: int, *, commits: bool = True) -> list[Record]:
    """Return so many records, in the order in which they come."""
    found: list[Record] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            await asyncio.sleep(0)  # not every log has to wait for something
            batch = await reader.read()
            found += batch.records
            if commits:
                await batch.commit()
    return found


def ids(records: Sequence[Record]) -> set[str]:
    return {one.id for one in records}


# -- the contract --------------------------------------------------------------------------------


async def test_what_is_written_is_read_by_every_group_in_the_order_of_each_subject(
    log: Log,
) -> None:
    written = some(subjects=5, of_each=8)
    assert not await log.write(written)
    for group in ("one", "other"):
        found = await read(log.reader(group), len(written))
        assert ids(found) == ids(written)
        for subject in {one.subject for one in written}:
            order = [one.sequence for one in found if one.subject == subject]
            assert order == list(range(1, 9))


async def test_a_record_comes_out_as_it_went_in(log: Log) -> None:
    given = a_record(uuid7())
    await log.write([given])
    (found,) = await read(log.reader("one"), 1)
    if log.publisher is None:  # of the ledger's own, the data stands elsewhere
        given = replace(given, data=b"")
    assert found == given


async def test_what_was_not_committed_is_read_again(log: Log) -> None:
    written = some(subjects=3, of_each=2)
    await log.write(written)
    reader = log.reader("one")
    first = await read(reader, 1, commits=False)
    assert ids(await read(reader, 1, commits=False)) == ids(first)
    await reader.close()
    assert ids(await read(log.reader("one"), 6)) == ids(written)


async def test_what_was_committed_is_not_read_again_by_whoever_comes_after(log: Log) -> None:
    await log.write(some(subjects=3, of_each=2))
    reader = log.reader("one")
    await read(reader, 6)
    await reader.close()
    fresh = a_record(uuid7())
    await log.write([fresh])
    assert ids(await read(log.reader("one"), 1)) == {fresh.id}


async def test_a_batch_that_failed_is_not_passed_over_by_the_one_that_follows(log: Log) -> None:
    """Kafka's own position moves as it hands out; a commit of it would lose what failed."""
    first = a_record(uuid7())
    await log.write([first])
    reader = log.reader("one")
    await read(reader, 1, commits=False)  # its handler raised
    second = a_record(first.subject, 2)
    await log.write([second])
    assert [one.id for one in await read(reader, 2)] == [first.id, second.id]


async def test_the_lag_is_what_is_not_committed(log: Log) -> None:
    written = some(subjects=4, of_each=2)
    await log.write(written)
    reader = log.reader("one")
    await read(reader, 1, commits=False)
    assert await reader.lag() == 8
    await read(reader, 8)
    assert await reader.lag() == 0


@PUBLISHED
async def test_what_cannot_be_read_is_quarantined_in_its_place_and_the_rest_goes_on(
    log: Log,
) -> None:
    before, after = a_record(uuid7()), a_record(uuid7())
    await log.write([before])
    assert log.spoil is not None
    await log.spoil()
    await log.write([after])
    reader = log.reader("one")
    records: list[Record] = []
    strange: list[Quarantined] = []
    async with asyncio.timeout(30):
        while len(records) + len(strange) < 3:
            await asyncio.sleep(0)  # not every log has to wait for something
            batch = await reader.read()
            records += batch.records
            strange += batch.quarantined
            await batch.commit()
    assert ids(records) == {before.id, after.id}
    assert [one.code for one in strange] == ["not-a-cloudevent"]
    assert await reader.lag() == 0


@PUBLISHED
async def test_what_is_too_large_is_said_and_the_rest_is_written(log: Log) -> None:
    written = [a_record(uuid7()) for _ in range(3)]
    huge = a_record(written[0].subject, 2, data=b"x" * (LARGEST_RECORD + 1))
    assert await log.write([written[0], huge, *written[1:]]) == [Quarantined(huge.id, "too-large")]
    assert ids(await read(log.reader("one"), 3)) == ids(written)


@PUBLISHED
async def test_the_largest_record_there_may_be_is_read_whole(log: Log) -> None:
    large = a_record(uuid7(), data=b"x" * (LARGEST_RECORD - 4_096))
    assert not await log.write([large])
    (found,) = await read(log.reader("one"), 1)
    assert found.data == large.data


async def test_where_there_is_nothing_an_empty_batch_comes(log: Log) -> None:
    reader = log.reader("one")
    async with asyncio.timeout(30):
        batch: Batch = await reader.read()
    assert not batch
    await batch.commit()


@PUBLISHED
async def test_a_published_repeat_is_the_same_record(log: Log) -> None:
    given = a_record(uuid7())
    await log.write([given])
    await log.write([given])
    assert await read(log.reader("one"), 2) == [given, given]


def test_every_type_of_event_has_its_topic() -> None:
    from broker.topics import TOPIC_OF, TOPICS

    assert set(TOPIC_OF) == set(ALL_TYPES)
    assert set(TOPIC_OF.values()) == {topic.name for topic in TOPICS}


def test_no_header_is_sent_but_those_that_are_allowed() -> None:
    names = [name for name, _ in cloudevents.headers(a_record(uuid7(), traceparent="00-1"))]
    assert set(names) <= cloudevents.HEADERS
    assert len(names) == len(set(names))
