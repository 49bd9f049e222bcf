"""What Kafka does under faults, and that nothing is lost or passed over by it.

The numbers are rows of the table of what aiokafka does badly (docs/adr/0013).
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio

from broker.errors import Unavailable
from broker.events import uuid7
from broker.log import Batch, Record, Unknown
from broker.log_kafka import publisher as publishing
from broker.log_kafka import reader as reading
from broker.log_kafka import topics
from broker.log_kafka.publisher import Publisher
from broker.log_kafka.reader import Reader
from broker.log_kafka.topics import UnsafeTopics, Wanted
from broker.topics import TOPICS, Topic
from tests.contract.test_log import a_record, ids, read, some
from tests.kafka import MARKS, Kafka

pytestmark = MARKS
PARTITIONS = 3


@dataclass
class Place:
    """One topic of one cluster, and whoever writes to it or reads it."""

    kafka: Kafka
    topic: str
    opened: list[Publisher | Reader]

    @property
    def connection(self) -> dict[str, Any]:
        return {"bootstrap_servers": self.kafka.bootstrap}

    def publisher(self) -> Publisher:
        self.opened.append(made := Publisher(self.connection, lambda _: self.topic))
        return made

    def reader(self, group: str = "one") -> Reader:
        made = Reader(self.connection, f"{self.topic}-{group}", [self.topic], wait=0.3)
        self.opened.append(made)
        return made


async def made(kafka: Kafka) -> AsyncIterator[Place]:
    topic = f"test-{uuid7()}"
    wanted = Wanted(PARTITIONS, len(kafka.nodes))
    await kafka.create(topic, PARTITIONS, wanted.settings(Topic(topic, "")))
    place = Place(kafka, topic, [])
    async with kafka.harmed():
        yield place
    for one in place.opened:
        await one.close()


@pytest_asyncio.fixture
async def one_node(kafka: Kafka) -> AsyncIterator[Place]:
    async for place in made(kafka):
        yield place


@pytest_asyncio.fixture
async def three_nodes(kafka_cluster: Kafka) -> AsyncIterator[Place]:
    async for place in made(kafka_cluster):
        yield place


async def until(do: Callable[[], Awaitable[object]], *errors: type[Exception]) -> None:
    """Do it again until it succeeds, as the relay and dispatch do."""
    async with asyncio.timeout(90):
        while True:
            try:
                await do()
            except errors:
                await asyncio.sleep(0.2)
            else:
                return


async def read_all(reader: Reader, wanted: set[str]) -> list[Record]:
    """Read until everything wanted was seen; what Kafka does meanwhile is waited out."""
    found: list[Record] = []

    async def more() -> None:
        while not wanted <= ids(found):
            batch = await reader.read()
            found.extend(batch.records)
            await batch.commit()

    await until(more, Unavailable)
    return found


async def first_of(reader: Reader) -> Batch:
    """Return what a reader gets first, uncommitted."""
    async with asyncio.timeout(60):
        while not (batch := await reader.read()):
            pass
    return batch


# -- publishing ----------------------------------------------------------------------------------


async def test_while_kafka_is_away_publishing_is_unknown_in_time_and_goes_on_after(
    one_node: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows 2, 5, 7: idempotent sends never give up, nor does stopping; starting fails at once."""
    monkeypatch.setattr(publishing, "PUBLISH_SECONDS", 2.0)
    publisher = one_node.publisher()
    await publisher.publish([first := a_record(uuid7())])
    one_node.kafka.kill_all()
    second = a_record(first.subject, 2)
    async with asyncio.timeout(30):
        for _ in range(2):  # with the producer that there was, and with one that cannot start
            with pytest.raises(Unknown):
                await publisher.publish([second])
    await one_node.kafka.start_all()
    await until(lambda: publisher.publish([second]), Unknown)
    found = await read_all(one_node.reader(), {first.id, second.id})
    assert [one.sequence for one in found if one.sequence == 1] == [1]


async def test_a_kafka_that_is_frozen_is_unknown_and_what_was_sent_again_is_one_record_or_two(
    one_node: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows 2, 3: a time-out is no failure: it may have been written, and is written again."""
    monkeypatch.setattr(publishing, "PUBLISH_SECONDS", 2.0)
    publisher = one_node.publisher()
    await publisher.publish([a_record(uuid7())])
    given = a_record(uuid7())
    (node,) = one_node.kafka.nodes
    one_node.kafka.pause(node.id)
    async with asyncio.timeout(30):
        with pytest.raises(Unknown):
            await publisher.publish([given])
    one_node.kafka.resume(node.id)
    await until(lambda: publisher.publish([given]), Unknown)
    found = await read_all(one_node.reader(), {given.id})
    assert 1 <= sum(one == given for one in found) <= 2


async def test_a_producer_that_can_never_write_again_is_replaced(
    three_nodes: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 1: a partition without a leader for longer than a request may take leaves aiokafka's
    producer out of order for ever, though Kafka is whole again."""
    monkeypatch.setattr(publishing, "REQUEST_MS", 1_000)
    publisher = three_nodes.publisher()
    written = some(subjects=9, of_each=1)
    await publisher.publish(written)
    three_nodes.kafka.kill_all()
    more = [replace(one, id=uuid7(), sequence=2) for one in written]
    with pytest.raises(Unknown):
        await publisher.publish(more)
    await three_nodes.kafka.start_all()
    await until(lambda: publisher.publish(more), Unknown)
    last = [replace(one, id=uuid7(), sequence=3) for one in written]
    await publisher.publish(last)
    found = await read_all(three_nodes.reader(), ids([*written, *more, *last]))
    for subject in {one.subject for one in written}:
        order = list(dict.fromkeys(one.sequence for one in found if one.subject == subject))
        assert order == [1, 2, 3]


async def test_a_killed_leader_loses_nothing_and_changes_no_order(three_nodes: Place) -> None:
    publisher = three_nodes.publisher()
    written = some(subjects=6, of_each=60)
    step = 36

    async def publish_all() -> None:
        for place in range(0, len(written), step):
            if place == 3 * step:
                three_nodes.kafka.kill(await three_nodes.kafka.leader_of(three_nodes.topic))
            part = written[place : place + step]
            await until(lambda part=part: publisher.publish(part), Unknown)  # type: ignore[misc]

    await publish_all()
    found = await read_all(three_nodes.reader(), ids(written))
    for subject in {one.subject for one in written}:
        highest, order = 0, []
        for one in found:  # as every reader does: what is not above the last is dropped
            if one.subject == subject and one.sequence > highest:
                highest = one.sequence
                order.append(one.sequence)
        assert order == list(range(1, 61))


async def test_the_order_of_a_subject_holds_under_back_pressure(
    one_node: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 4: concurrent sends of one key change places once the buffer is full."""
    monkeypatch.setattr(publishing, "BATCH_BYTES", 16_384)
    written = [replace(one, data=b"x" * 12_000) for one in some(subjects=4, of_each=25)]
    publisher = one_node.publisher()
    await publisher.publish(written)
    found = await read_all(one_node.reader(), ids(written))
    for subject in {one.subject for one in written}:
        assert [one.sequence for one in found if one.subject == subject] == list(range(1, 26))


# -- reading -------------------------------------------------------------------------------------


async def test_what_is_handled_during_a_rebalance_is_neither_lost_nor_passed_over(
    one_node: Place,
) -> None:
    """Row 10: the commit after a rebalance fails, and the records come to another."""
    written = some(subjects=12, of_each=4)
    await one_node.publisher().publish(written)
    first, second = one_node.reader(), one_node.reader()
    batch = await first_of(first)
    joining = asyncio.create_task(second.read())
    await asyncio.wait({joining}, timeout=1.0)  # the group shares out anew, or has just done so
    handled = ids(batch.records)
    await batch.commit()  # perhaps too late: then they are another's, and no error
    found = ids((await joining).records)

    async def share(reader: Reader) -> None:
        async with asyncio.timeout(30):
            while not ids(written) <= handled | found:
                batch = await reader.read()
                found.update(ids(batch.records))
                await batch.commit()

    await asyncio.gather(share(first), share(second))
    assert handled | found == ids(written)


async def test_a_reader_joins_beside_killed_ones_without_giving_up(one_node: Place) -> None:
    """Row 11: to start waits for a place in the group, so one that is broken off in it leaves a
    member behind, and the next waits for that one."""
    await one_node.publisher().publish(written := some(subjects=6, of_each=1))
    for _ in range(2):
        async with a_process_reading(one_node) as process:
            process.kill()
    reader, found = one_node.reader(), set[str]()
    async with asyncio.timeout(60):
        while not ids(written) <= found:
            batch = await reader.read()  # raises where it gives up
            found |= ids(batch.records)
            await batch.commit()  # else it is given out again, at once and for ever


READS = """
import asyncio, sys
from broker.log_kafka.reader import Reader

async def main(servers, group, topic):
    reader = Reader({"bootstrap_servers": servers}, group, [topic], wait=0.3)
    while not await reader.read():
        print("joining", flush=True)
    print("reads", flush=True)
    await asyncio.sleep(3600)

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def a_process_reading(place: Place) -> AsyncIterator[asyncio.subprocess.Process]:
    """Give a process that reads the topic or is about to join its group; killed at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", READS, place.kafka.bootstrap, f"{place.topic}-one", place.topic),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            assert await process.stdout.readline() in (b"joining\n", b"reads\n")
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_a_reader_that_is_busy_for_long_keeps_its_place(one_node: Place) -> None:
    """Row 16: a loop that is blocked sends no heartbeats."""
    publisher, reader = one_node.publisher(), one_node.reader()
    await publisher.publish(written := some(subjects=6, of_each=1))
    batch = await first_of(reader)
    time.sleep(8.0)  # noqa: ASYNC251 - that it blocks is the point
    await batch.commit()
    found = ids(batch.records) | ids(await read_all(reader, ids(written) - ids(batch.records)))
    assert found == ids(written)
    await publisher.publish(more := some(subjects=6, of_each=1))
    assert ids(await read_all(reader, ids(more))) == ids(more), "something came twice"


async def test_a_reader_outlives_a_kafka_that_was_away(one_node: Place) -> None:
    publisher, reader = one_node.publisher(), one_node.reader()
    await publisher.publish([before := a_record(uuid7())])
    await read_all(reader, {before.id})
    one_node.kafka.kill_all()
    async with asyncio.timeout(40):
        for _ in range(3):
            try:
                assert not await reader.read()
            except Unavailable:
                break
    await one_node.kafka.start_all()
    after = a_record(uuid7())
    await until(lambda: publisher.publish([after]), Unknown)
    assert after.id in ids(await read_all(reader, {after.id}))


async def test_a_reader_waits_for_whoever_handles_a_batch_and_not_for_one_that_commits_it(
    one_node: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 15: a consumer may commit no more for ever, and the watchdog must see that it stands."""
    monkeypatch.setattr(reading, "ANSWER_SECONDS", 2.0)
    publisher, reader = one_node.publisher(), one_node.reader()
    assert not reader.is_waited_for
    await publisher.publish([a_record(uuid7())])
    batch = await first_of(reader)
    assert reader.is_waited_for
    one_node.kafka.kill_all()
    with pytest.raises(Unavailable):
        await batch.commit()
    assert not reader.is_waited_for
    assert await reader.read() == batch
    assert reader.is_waited_for
    await reader.close()
    assert not reader.is_waited_for


async def test_letting_go_never_hangs(one_node: Place) -> None:
    """Rows 5 and 6: stopping hangs or breaks off as if cancelled while Kafka is away."""
    publisher, reader = one_node.publisher(), one_node.reader()
    await publisher.publish([a_record(uuid7())])
    await read(reader, 1)
    one_node.kafka.kill_all()
    async with asyncio.timeout(20):
        await publisher.close()
        await reader.close()


async def test_a_place_that_is_gone_begins_at_the_oldest_record_and_not_at_the_end(
    one_node: Place,
) -> None:
    """Row 12: aiokafka's default would pass over what came while nobody read."""
    publisher, reader = one_node.publisher(), one_node.reader()
    await publisher.publish(early := some(subjects=9, of_each=1))
    await read_all(reader, ids(early))
    await reader.close()
    await publisher.publish(deleted := some(subjects=9, of_each=1))
    await one_node.kafka.delete_all(one_node.topic)
    await publisher.publish(left := some(subjects=9, of_each=1))
    found = ids(await read_all(one_node.reader(), ids(left)))
    assert found == ids(left)
    assert not found & ids(deleted)


async def test_what_partitions_there_are_is_not_known_is_not_that_nothing_is_left(
    one_node: Place,
) -> None:
    reader = Reader(one_node.connection, "one", [f"{one_node.topic}-unknown"], wait=0.3)
    one_node.opened.append(reader)
    assert not await reader.read()
    with pytest.raises(Unavailable, match="has not said yet"):
        await reader.lag()


# -- topics --------------------------------------------------------------------------------------


async def test_kafkas_topics_are_made_once_and_are_as_they_should_be(kafka: Kafka) -> None:
    connection, wanted = {"bootstrap_servers": kafka.bootstrap}, Wanted(PARTITIONS, 1)
    made = await topics.create(connection, wanted)
    assert made == [topic.name for topic in TOPICS]
    assert await topics.create(connection, wanted) == []
    await topics.check(connection, wanted)
    with pytest.raises(UnsafeTopics, match="has 3 partitions, and BROKER_KAFKA_PARTITIONS says 4"):
        await topics.check(connection, Wanted(4, 1))
    with pytest.raises(UnsafeTopics, match=r"has 1 replicas, and .* min\.insync\.replicas=2"):
        await topics.check(connection, Wanted(PARTITIONS, 3))
    async with kafka.admin() as admin:
        await admin.delete_topics([topic.name for topic in TOPICS])


async def test_what_was_just_made_is_known_to_every_node(kafka_cluster: Kafka) -> None:
    """What one node of several makes, the others hear of later."""
    connection = {"bootstrap_servers": kafka_cluster.bootstrap}
    for _ in range(3):
        wanted = Wanted(PARTITIONS, 3, f"{uuid7()}.")
        assert len(await topics.create(connection, wanted)) == len(TOPICS)
        await topics.check(connection, wanted)


async def test_a_kafka_without_the_topics_says_how_they_are_made(kafka_cluster: Kafka) -> None:
    connection = {"bootstrap_servers": kafka_cluster.bootstrap}
    with pytest.raises(UnsafeTopics, match=r"no topic fhir\.Task\.v1: run referral-broker topics"):
        await topics.check(connection, Wanted(PARTITIONS, 3))


async def test_a_kafka_that_is_not_there_is_unavailable() -> None:
    async with asyncio.timeout(30):
        with pytest.raises(Unavailable):
            await topics.check({"bootstrap_servers": "127.0.0.1:9"}, Wanted(PARTITIONS, 1))
