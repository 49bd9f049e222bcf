"""The topics in Kafka: made with what they need to lose nothing, and checked before they are used.

Nothing is changed that is there: what differs is said, with what must be done about it.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.metadata import MetadataRequest

from broker.errors import BrokerError
from broker.log_kafka.connection import ANSWER_SECONDS, REQUEST_MS, Connection
from broker.log_kafka.trouble import explained
from broker.settings import Settings
from broker.topics import DAY, LARGEST_RECORD, TOPICS, Topic

_PAUSE: Final = 0.2
_THERE: Final = 36  # TopicAlreadyExists
_ROOM: Final = 65_536  # bytes of a batch beside its record


class UnsafeTopics(BrokerError):
    """A topic is not there, or could lose what was published. The message says how to mend it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How topics are to be: `replicas` copies of each of `partitions`, `in_sync` of them written
    before a record counts as published. The number of partitions never changes: a subject would
    change places. `prefix` is what their names begin with."""

    partitions: int
    replicas: int
    prefix: str = ""

    @property
    def topics(self) -> list[Topic]:
        """Every topic by the name that it has in this Kafka."""
        return [replace(topic, name=self.prefix + topic.name) for topic in TOPICS]

    @property
    def in_sync(self) -> int:
        return 2 if self.replicas > 2 else 1

    def settings(self, topic: Topic) -> dict[str, str]:
        """Return the settings of a topic, as Kafka names them."""
        return {
            "cleanup.policy": "delete",
            "max.message.bytes": str(LARGEST_RECORD + _ROOM),
            "min.insync.replicas": str(self.in_sync),
            "retention.ms": str(topic.days * DAY * 1_000),
            "unclean.leader.election.enable": "false",
        }


def wanted(settings: Settings) -> Wanted:
    """Return how the settings say that topics are to be."""
    return Wanted(settings.kafka_partitions, settings.kafka_replicas, settings.kafka_prefix)


async def create(connection: Connection, wanted: Wanted) -> list[str]:
    """Make the topics that are not there; return their names. Raises UnsafeTopics, Unavailable.

    What one node has made another hears of a moment later: where topics were made, all of them can
    be seen on return, and are as they should be.
    """
    async with _admin(connection) as admin:
        answer = await admin.create_topics(
            [
                NewTopic(
                    topic.name, wanted.partitions, wanted.replicas, None, wanted.settings(topic)
                )
                for topic in wanted.topics
            ]
        )
    made = []
    for name, code, *_ in answer.topic_errors:  # it does not raise
        if code == 0:
            made.append(name)
        elif code != _THERE:
            raise UnsafeTopics(f"{name} cannot be made: {for_code(code).__name__}.")
    gives_up = asyncio.get_running_loop().time() + ANSWER_SECONDS
    while made:
        try:
            await check(connection, wanted)
            break
        except UnsafeTopics:
            if asyncio.get_running_loop().time() > gives_up:
                raise
        await asyncio.sleep(_PAUSE)
    return made


async def check(connection: Connection, wanted: Wanted) -> None:
    """Raise UnsafeTopics with all that differs from what is wanted, or Unavailable.

    A topic is there once every node that answers knows it. Nothing is made by asking for it.
    """
    async with _admin(connection) as admin:
        found = await _partitions(connection, [topic.name for topic in wanted.topics])
        settings = await _settings(admin, wanted)
    wrong = [
        said
        for topic in wanted.topics
        for said in _wrong(topic, wanted, found.get(topic.name), settings.get(topic.name, {}))
    ]
    if wrong:
        raise UnsafeTopics(" ".join(wrong))


def _wrong(
    topic: Topic,
    wanted: Wanted,
    partitions: Sequence[Mapping[str, Any]] | None,
    settings: Mapping[str, str],
) -> list[str]:
    if partitions is None:
        return [f"There is no topic {topic.name}: run referral-broker topics create."]
    said = []
    if len(partitions) != wanted.partitions:
        said.append(
            f"{topic.name} has {len(partitions)} partitions, and BROKER_KAFKA_PARTITIONS says "
            f"{wanted.partitions}: set it to what is there."
        )
    fewest = min(len(one["replicas"]) for one in partitions)
    if fewest < wanted.replicas:
        said.append(
            f"{topic.name} has {fewest} replicas, and BROKER_KAFKA_REPLICAS says "
            f"{wanted.replicas}: give it more, or set it to what you can stand to lose."
        )
    if settings.get("unclean.leader.election.enable") != "false":
        said.append(f"{topic.name} must have unclean.leader.election.enable=false.")
    for name in ("min.insync.replicas", "max.message.bytes"):
        least = int(wanted.settings(topic)[name])
        if int(settings.get(name, 0)) < least:
            said.append(f"{topic.name} must have {name}={least}; it has {settings.get(name)}.")
    return said


async def _partitions(connection: Connection, names: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the partitions of each topic that every node knows, of those that answer."""
    client = AIOKafkaClient(**connection, request_timeout_ms=REQUEST_MS)
    try:
        await client.bootstrap()
        # The admin client asks one node by chance, and has Kafka make what is not there.
        asked = MetadataRequest(names, allow_auto_topic_creation=False)
        answers = await asyncio.gather(
            *(client.send(node.nodeId, asked) for node in client.cluster.brokers()),
            return_exceptions=True,
        )
    finally:
        await client.close()
    said = [one.to_object()["topics"] for one in answers if not isinstance(one, BaseException)]
    if not said:
        raise next(one for one in answers if isinstance(one, BaseException))
    known = [{one["topic"]: one for one in node if not one["error_code"]} for node in said]
    return {
        name: known[0][name]["partitions"] for name in names if all(name in one for one in known)
    }


async def _settings(admin: Any, wanted: Wanted) -> dict[str, dict[str, str]]:
    """Return the settings of every topic that is there."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, topic.name) for topic in wanted.topics]
    found = {}
    for answer in await admin.describe_configs(asked):
        for code, _, _, name, entries in answer.resources:
            if code == 0:
                found[name] = {entry[0]: entry[1] for entry in entries}
    return found


@asynccontextmanager
async def _admin(connection: Connection) -> AsyncIterator[Any]:
    client = AIOKafkaAdminClient(**connection, request_timeout_ms=REQUEST_MS)
    try:
        async with asyncio.timeout(ANSWER_SECONDS * 2):
            await client.start()
            yield client
    except (TimeoutError, KafkaError) as error:
        raise await explained(connection, error) from error
    finally:
        async with asyncio.timeout(ANSWER_SECONDS):
            await client.close()
