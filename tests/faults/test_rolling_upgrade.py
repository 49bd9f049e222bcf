"""An upgrade while messages come and go: nobody waits for more than a moment, and nothing is lost.

The processes of this release start on the schema of the one before, then `migrate` runs beside
them, then each is started again. Meanwhile two senders post without pause.
"""

import asyncio
import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest
from aiokafka import AIOKafkaConsumer

from broker.events import uuid7
from broker.store import schema
from broker.topics import TOPICS
from sandbox.client import Reply
from sandbox.ledger import until
from sandbox.senders import Sender
from sandbox.world import World
from tests.databases import PostgreSQL, migrate_to
from tests.kafka import MARKS, Kafka

pytestmark = [*MARKS, pytest.mark.postgres]

ROLES: Final = ("api", "relay", "relay", "dispatch", "worker", "worker")
PAUSE: Final = 0.3  # between the posts of one sender
A_MOMENT: Final = 10.0
SETTLES_WITHIN: Final = 120.0
PATIENCE: Final = 180.0

_UNFINISHED = """
SELECT count(*) FROM delivery
WHERE state = 'due' OR (state = 'held' AND held_reason IN ('receipt', 'predecessor'))
"""
_UNDISPATCHED = """
SELECT h.position - coalesce(c.position, 0)
FROM ledger_head h LEFT JOIN cursor c ON c.name = %s
"""


@dataclass
class Stream:
    """Posts one body after another until told to stop, each until it is answered."""

    sender: Sender
    stopping: asyncio.Event
    references: list[str] = field(default_factory=list)
    slowest: float = 0.0

    async def run(self, draw_up: Any) -> None:
        loop = asyncio.get_running_loop()
        while not self.stopping.is_set():
            body = draw_up()
            self.references.append(body["reference"])
            began = loop.time()
            reply = await self.sender.submit(body)
            assert reply.status == 202, reply.body
            self.slowest = max(self.slowest, loop.time() - began)
            await asyncio.sleep(PAUSE)


async def test_an_upgrade_under_load_on_postgresql_and_kafka_loses_and_reorders_nothing(
    tmp_path: Path, postgresql: PostgreSQL, kafka: Kafka
) -> None:
    loop = asyncio.get_running_loop()
    before, after = schema.revisions()[-2:]
    database = postgresql.create("template0")
    url = postgresql.url(database)
    migrate_to(url, before)
    settings = {
        "BROKER_DATABASE_URL": url,
        **kafka.topics_of_its_own(),
    }
    async with World(
        tmp_path, settings=settings, roles=ROLES, patience=PATIENCE, migrates=False
    ) as world:
        stopping = asyncio.Event()
        pharmacy, optometrist = (
            Stream(sender, stopping) for sender in (world.pharmacy, world.optometrist)
        )
        practices = itertools.cycle(("G99001", "G99002"))
        async with asyncio.TaskGroup() as group:
            group.create_task(
                pharmacy.run(lambda: world.pharmacy.consultation(practice=next(practices)))
            )
            group.create_task(
                optometrist.run(
                    lambda: world.optometrist.referral(family="XXTEST-COMPLETE", practice="G99002")
                )
            )
            await delivered(world, [pharmacy, optometrist], more=5)
            assert asked(url, "SELECT version_num FROM alembic_version") == before
            await published(url, more=10)
            # What the schema before has no place for waits, and nothing else does.
            image = group.create_task(upload(world))
            await delivered(world, [pharmacy, optometrist], more=2)
            assert not image.done()
            assert await world.cli("migrate") == (0, f"Applied: {after}.\n")
            assert (await image).status == 201
            away = []
            for process in world.processes:
                began = loop.time()
                assert await process.stop() == 0
                await process.start()
                away.append(loop.time() - began)
                await delivered(world, [pharmacy, optometrist], more=2)
            stopping.set()
        await settled(world, url)
        found = world.compare([*pharmacy.references, *optometrist.references])
        assert found.is_whole, found
        # Nobody waits for longer than the one process is away that answers.
        assert max(pharmacy.slowest, optometrist.slowest) < max(away) + A_MOMENT
        lanes_are_in_order(world, url)
        await each_event_is_published_in_order(world, url, kafka)
    demand_quiet_logs(world)
    postgresql.drop(database)


def asked(url: str, question: str, *values: Any) -> Any:
    """Return the one value that answers a question to the database."""
    with psycopg.connect(url) as connection:
        row = connection.execute(question, values).fetchone()
    assert row is not None
    return row[0]


async def delivered(world: World, streams: list[Stream], more: int) -> None:
    """Wait until so many more messages of each sender are posted, and all of them are received."""
    wanted = [len(stream.references) + more for stream in streams]

    def posted() -> bool:
        return all(len(one.references) > most for one, most in zip(streams, wanted, strict=True))

    assert await until(posted, SETTLES_WITHIN)
    references = [
        one
        for stream, most in zip(streams, wanted, strict=True)
        for one in stream.references[:most]
    ]
    assert await until(lambda: world.compare(references).is_whole, SETTLES_WITHIN)


async def upload(world: World) -> Reply:
    """Upload an image, asking again until it is taken."""
    image = b"\xff\xd8\xff\xe0" + bytes(1_000)
    return await world.optometrist.client.call("POST", "/attachments", image, key=uuid7())


async def published(url: str, more: int) -> None:
    """Wait until the relays have published so many events more."""
    question = "SELECT coalesce(max(position), 0) FROM cursor WHERE name = 'relay'"
    wanted = asked(url, question) + more
    assert await until(lambda: asked(url, question) >= wanted, SETTLES_WITHIN)


async def settled(world: World, url: str) -> None:
    """Wait until nothing is under way any more, in the broker or at its partners."""

    def quiet() -> bool:
        left = [asked(url, _UNFINISHED)]
        left += [asked(url, _UNDISPATCHED, reader) for reader in ("dispatch", "relay")]
        completed = world.hospital.ledger.entries("ok", does="decide", outcome="complete")
        return not any(left) and len(completed) == len(
            world.hospital.ledger.entries("received", kind="referral")
        )

    assert await until(quiet, SETTLES_WITHIN)


def lanes_are_in_order(world: World, url: str) -> None:
    """What the practice was called with about one subject came in that subject's order."""
    with psycopg.connect(url) as connection:
        lane_of = {
            str(delivery): (str(subject), seq)
            for delivery, subject, seq in connection.execute(
                "SELECT id, subject_id, subject_seq FROM delivery"
            )
        }
    lanes: dict[str, list[int]] = {}
    for entry in world.webhook_practice.ledger.entries("received"):
        subject, seq = lane_of[entry["delivery"]]
        lanes.setdefault(subject, []).append(seq)
    assert max(len(lane) for lane in lanes.values()) > 1, "no lane has two deliveries"
    assert [lane for lane in lanes.values() if lane != sorted(lane)] == []


async def each_event_is_published_in_order(world: World, url: str, kafka: Kafka) -> None:
    """All that the ledger holds stands in Kafka, the first time each in its subject's order."""
    prefix = world.broker.settings["BROKER_KAFKA_PREFIX"]
    events = asked(url, "SELECT count(*) FROM event")
    seen: dict[str, dict[int, None]] = {}
    async with AIOKafkaConsumer(
        *(prefix + topic.name for topic in TOPICS),
        bootstrap_servers=kafka.bootstrap,
        auto_offset_reset="earliest",
    ) as consumer:
        async with asyncio.timeout(SETTLES_WITHIN):
            while sum(map(len, seen.values())) < events:
                for rows in (await consumer.getmany(timeout_ms=500)).values():
                    for row in rows:
                        headers = dict(row.headers)
                        place = f"{row.topic} {row.key.decode()}"
                        seen.setdefault(place, {})[int(headers["ce_sequence"])] = None
    assert [place for place, found in seen.items() if list(found) != sorted(found)] == []


def demand_quiet_logs(world: World) -> None:
    """No process found anything wrong."""
    for process in world.processes:
        lines = [line for line in process.log_path.read_text().splitlines() if line[:1] == "{"]
        for line in map(json.loads, lines):
            # Kafka's own client complains while it connects.
            if not line["event"].startswith("library.aiokafka"):
                assert line["level"] not in {"error", "critical"}, line
