"""Kafka between the ledger and dispatch: the relay, what dispatch reads, and who watches it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Final

import structlog

from broker.core import Core
from broker.dispatch import GROUP, Dispatch
from broker.errors import Unavailable
from broker.events import uuid7
from broker.hints import Hints, Watchdog
from broker.log_kafka import topics
from broker.log_kafka.connection import connection
from broker.log_kafka.publisher import Publisher
from broker.log_kafka.reader import Reader
from broker.parts import Part
from broker.relay import LEASE, Relay
from broker.rounds import Round
from broker.settings import Settings
from broker.store.tx import LEDGER
from broker.topics import TOPIC_OF

WATCH_SECONDS: Final = 10.0
# After Kafka failed us it is tried again this soon.
RETRY_SECONDS: Final = 1.0
log = structlog.get_logger()


@asynccontextmanager
async def transport(
    settings: Settings, core: Core, dispatch: Dispatch, parts: Collection[Part]
) -> AsyncIterator[list[Round]]:
    """Give what these parts do with Kafka; it is let go of on leaving.

    Raises UnsafeTopics. Where Kafka does not answer, that is found out as soon as it does.
    """
    reach, prefix = connection(settings), settings.kafka_prefix
    try:
        await topics.check(reach, topics.wanted(settings))
    except Unavailable as error:
        log.warning("kafka.unavailable", cause=str(error))
    rounds: list[Round] = []
    async with AsyncExitStack() as stack:
        if Part.RELAY in parts:
            relay = Relay(core, publisher(settings))
            stack.push_async_callback(relay.close)
            rounds.append(
                Round(
                    "relay",
                    relay.run_once,
                    LEDGER,
                    poll=LEASE.total_seconds() / 3,
                    breaks_off=True,
                )
            )
        if Part.DISPATCH in parts:
            wanted = {prefix + TOPIC_OF[kind] for kind in dispatch.types}
            reader = Reader(reach, f"{prefix}referral-broker.{GROUP}", sorted(wanted))
            stack.push_async_callback(reader.close)
            hints = Hints(core, dispatch, reader)
            rounds.append(
                Round("hints", hints.run_once, next_due=_now, poll=RETRY_SECONDS, breaks_off=True)
            )
            rounds.append(Round("watchdog", partial(_watch, Watchdog(reader)), poll=WATCH_SECONDS))
        yield rounds


def publisher(settings: Settings) -> Publisher:
    """Return what publishes to this broker's topics, checked before anything is."""
    reach = connection(settings)
    check = partial(topics.check, reach, topics.wanted(settings))
    return Publisher(reach, lambda kind: settings.kafka_prefix + TOPIC_OF[kind], check)


def reader_of_all(settings: Settings) -> Reader:
    """Return a reader of every topic of this broker's, from its beginning."""
    wanted = topics.wanted(settings)
    group = f"{wanted.prefix}{settings.source}.restore.{uuid7()}"
    return Reader(connection(settings), group, [topic.name for topic in wanted.topics])


async def _now() -> datetime:
    """Return when to read again: reading itself waits for what comes."""
    return datetime.now(UTC)


async def _watch(watchdog: Watchdog) -> int:
    with contextlib.suppress(Unavailable):  # `hints` says so, and tries again
        await watchdog.look(asyncio.get_running_loop().time())
    return 0
