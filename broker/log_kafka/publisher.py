"""Publishing to Kafka: an idempotent producer that knows what it does not know."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from broker import cloudevents
from broker.log import Quarantined, Record, Unknown
from broker.log_kafka.connection import REQUEST_MS, Connection, let_go, started
from broker.topics import LARGEST_RECORD, TOPIC_OF

# After so long without a word a write is unknown: aiokafka never gives an idempotent one up.
PUBLISH_SECONDS: Final = 15.0
BATCH_BYTES: Final = 262_144


class Publisher:
    """Publishes to the topic of each record's type. One per process, made on its running loop."""

    def __init__(
        self,
        connection: Connection,
        topic: Callable[[str], str] = TOPIC_OF.__getitem__,
        check: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`check` is asked before anything is published, and again after every failure."""
        self._connection = connection
        self._topic = topic
        self._check = check
        self._producer: Any = None

    async def publish(self, records: Sequence[Record]) -> Sequence[Quarantined]:
        refused: list[Quarantined] = []
        try:
            async with asyncio.timeout(PUBLISH_SECONDS):
                if self._producer is None:
                    if self._check is not None:
                        await self._check()
                    self._producer = await started(self._made)
                # Never two records of one key at once: under back-pressure they change places.
                for together in _in_turns(records):
                    sent = [await self._send(record, refused) for record in together]
                    await asyncio.gather(*filter(None, sent))
        except (TimeoutError, KafkaError, OSError) as error:
            # A producer that has failed once may fail for ever (OutOfOrderSequenceNumber).
            await self.close()
            raise Unknown(f"Kafka: {type(error).__name__}") from error
        return refused

    async def _send(self, record: Record, refused: list[Quarantined]) -> asyncio.Future[Any] | None:
        try:
            written: asyncio.Future[Any] = await self._producer.send(
                self._topic(record.type),
                record.data,
                cloudevents.key(record),
                headers=cloudevents.headers(record),
            )
        except MessageSizeTooLargeError:  # said before anything was sent
            refused.append(Quarantined(record.id, "too-large"))
            return None
        return written

    def _made(self) -> Any:
        return AIOKafkaProducer(
            **self._connection,
            enable_idempotence=True,
            acks="all",
            max_request_size=LARGEST_RECORD,
            max_batch_size=BATCH_BYTES,
            request_timeout_ms=REQUEST_MS,
        )

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await let_go(producer)


def _in_turns(records: Sequence[Record]) -> list[list[Record]]:
    """Return the first record of each subject, then the second of each, and so on."""
    turns: list[list[Record]] = []
    seen: dict[str, int] = {}
    for record in records:
        turn = seen.get(record.subject, 0)
        seen[record.subject] = turn + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(record)
    return turns
