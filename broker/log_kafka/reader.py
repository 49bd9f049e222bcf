"""Reading Kafka as one of a group, so that nothing is passed over."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from broker import cloudevents
from broker.cloudevents import Undecodable
from broker.errors import Unavailable
from broker.log import Batch, Quarantined, Record
from broker.log_kafka.connection import (
    ANSWER_SECONDS,
    Connection,
    let_go,
    started,
    unavailable,
)
from broker.topics import LARGEST_RECORD

# A reader that was killed is given up after so long; the ledger is polled meanwhile.
SESSION_MS: Final = 10_000
JOIN_SECONDS: Final = 2.0
MOST: Final = 256

log = structlog.get_logger()


class Reader:
    """Reads topics as one of a group. One per process, made on its running loop.

    A batch that was not committed is given out again, also after it failed; one whose partitions
    went to another reader is that reader's. A group that is new begins at the beginning, and one
    whose place is gone at the oldest record that there is.
    """

    def __init__(
        self, connection: Connection, group: str, topics: Iterable[str], *, wait: float = 1.0
    ) -> None:
        self._connection = connection
        self._group = group
        self._topics = list(topics)
        self._wait = wait
        self._consumer: Any = None
        self._open: Batch | None = None
        self._is_handled = False

    async def read(self) -> Batch:
        if self._open is not None:
            self._is_handled = False
            return self._open
        try:
            if self._consumer is None:
                async with asyncio.timeout(ANSWER_SECONDS):
                    self._consumer = await started(self._made)
                # Not before: starting would wait until the group has taken us in, and one that is
                # broken off in that leaves a member behind, for which the next would wait as long.
                self._consumer.subscribe(self._topics)
            found = await self._fetched()
        except (TimeoutError, KafkaError) as error:
            raise unavailable(error) from error
        if not found:
            return Batch((), (), _nothing)
        ends = {place: rows[-1].offset + 1 for place, rows in found.items()}
        read = [_read(row) for rows in found.values() for row in rows]
        self._open = Batch(
            [one for one in read if isinstance(one, Record)],
            [one for one in read if isinstance(one, Quarantined)],
            lambda: self._commit(ends),
        )
        self._is_handled = False
        return self._open

    async def _fetched(self) -> Mapping[TopicPartition, Sequence[Any]]:
        """Return what has come. Nothing does while the group shares out the partitions anew, which
        takes until a member that was killed is given up: that is waited for in small pieces."""
        milliseconds = round(self._wait * 1_000)
        try:
            async with asyncio.timeout(self._wait + JOIN_SECONDS):
                found: Mapping[TopicPartition, Sequence[Any]] = await self._consumer.getmany(
                    timeout_ms=milliseconds, max_records=MOST
                )
        except TimeoutError:
            return {}
        return found

    async def _commit(self, ends: Mapping[TopicPartition, int]) -> None:
        """Commit these places, and never more than these: aiokafka's own would also commit what
        was handed out and failed. Raises Unavailable; then the batch is read again."""
        self._is_handled = True
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._consumer.commit(dict(ends))
        except (CommitFailedError, IllegalStateError):
            # Another reader has these partitions now, and reads them from the last place.
            log.info("kafka.not-ours-any-more", group=self._group)
        except (TimeoutError, KafkaError) as error:
            raise unavailable(error) from error
        self._open = None

    @property
    def is_waited_for(self) -> bool:
        """Whether a batch was given out and nobody has asked yet to commit it. One that is to be
        committed, and cannot be, waits for Kafka and not for us."""
        return self._open is not None and not self._is_handled

    async def places(self) -> dict[str, tuple[int, int]]:
        """Return for each partition of the topics how far the group has committed and where it
        ends. Raises Unavailable."""
        if self._consumer is None:
            raise Unavailable("Kafka has not been reached yet.")
        every = [
            TopicPartition(topic, number)
            for topic in self._topics
            for number in sorted(self._partitions(topic))
        ]
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                ends = await self._consumer.end_offsets(every)
                begins = await self._consumer.beginning_offsets(every)
                done = {place: await self._consumer.committed(place) for place in every}
        except (TimeoutError, KafkaError) as error:
            raise unavailable(error) from error
        return {
            f"{place.topic}-{place.partition}": (
                max(done[place] or 0, begins[place]),
                ends[place],
            )
            for place in every
        }

    def _partitions(self, topic: str) -> Collection[int]:
        found: Collection[int] | None = self._consumer.partitions_for_topic(topic)
        if not found:  # not known is not nothing: who asks for the lag must not think it is none
            raise Unavailable(f"Kafka has not said yet what partitions {topic} has.")
        return found

    async def lag(self) -> int:
        return sum(max(0, end - done) for done, end in (await self.places()).values())

    def _made(self) -> Any:
        return AIOKafkaConsumer(
            **self._connection,
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=SESSION_MS // 10,
            # A request to join is answered once dead members are given up.
            request_timeout_ms=SESSION_MS + 5_000,
            max_partition_fetch_bytes=LARGEST_RECORD,
        )

    async def close(self) -> None:
        consumer, self._consumer, self._open = self._consumer, None, None
        if consumer is not None:
            await let_go(consumer)


def _read(row: Any) -> Record | Quarantined:
    try:
        return cloudevents.read(row.key, row.headers, row.value)
    except Undecodable as error:
        return Quarantined(f"{row.topic}-{row.partition}-{row.offset}", error.code)


async def _nothing() -> None:
    return
