"""The broker as it runs where one machine is not enough: PostgreSQL, Kafka, each part by itself."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from aiokafka import AIOKafkaConsumer
from jsonschema import Draft202012Validator, FormatChecker

from broker.cloudevents import ATTRIBUTES, HEADERS
from broker.events import ALL_TYPES
from broker.topics import TOPICS
from sandbox.ledger import until
from sandbox.process import command, environment
from sandbox.world import World
from tests.databases import PostgreSQL
from tests.kafka import MARKS, Kafka

pytestmark = [*MARKS, pytest.mark.postgres]
ROOT = Path(__file__).parents[2]
ASYNCAPI = yaml.safe_load((ROOT / "docs/asyncapi.yaml").read_text())
PARTS = ("api", "relay", "dispatch", "worker")


@asynccontextmanager
async def world(
    folder: Path, postgresql: PostgreSQL, kafka: Kafka, roles: Sequence[str] = PARTS
) -> AsyncIterator[World]:
    """A world whose broker is several processes on a database and topics of its own."""
    database = postgresql.create("template0")
    settings = {
        "BROKER_DATABASE_URL": postgresql.url(database),
        **kafka.topics_of_its_own(),
    }
    async with kafka.harmed(), World(folder, settings=settings, roles=roles) as made:
        yield made
    postgresql.drop(database)


async def records(world: World, kafka: Kafka, wanted: int) -> list[Any]:
    """Return what stands on all topics, once it is so many records."""
    prefix = world.broker.settings["BROKER_KAFKA_PREFIX"]
    found: list[Any] = []
    async with AIOKafkaConsumer(
        *(prefix + topic.name for topic in TOPICS),
        bootstrap_servers=kafka.bootstrap,
        auto_offset_reset="earliest",
    ) as consumer:
        async with asyncio.timeout(60):
            while len(found) < wanted:
                for rows in (await consumer.getmany(timeout_ms=500)).values():
                    found += rows
    return found


async def some_messages(world: World) -> int:
    """Send one of each kind, and see all of them received; return how many were sent."""
    sent = [
        await world.pharmacy.submit(world.pharmacy.consultation(practice="G99001")),
        await world.pharmacy.submit(world.pharmacy.consultation(practice="G99002")),
    ]
    assert [one.status for one in sent] == [202, 202]
    assert await world.received(sent[0], world.practice, seconds=30)
    assert await world.received(sent[1], world.webhook_practice, seconds=30)
    referred = await world.optometrist.submit(world.optometrist.referral())
    assert referred.status == 202

    def at_the_hospital() -> Any:
        return world.hospital.ledger.first("received", kind="referral")

    assert await until(at_the_hospital, 30)
    return 3


async def test_each_part_of_a_broker_on_kafka_runs_by_itself_and_strangers_can_read_it(
    tmp_path: Path, postgresql: PostgreSQL, kafka: Kafka
) -> None:
    async with world(tmp_path, postgresql, kafka) as made:
        assert await made.cli("topics", "check") == (0, "Every topic is as it should be.\n")
        await some_messages(made)
        # Three messages, the copy's among them, with a receipt each; one move.
        found = await records(made, kafka, wanted=8)
        schemas = ASYNCAPI["components"]["schemas"]
        check = Draft202012Validator(schemas["headers"], format_checker=FormatChecker())
        sealed = Draft202012Validator(schemas["sealed"])
        for record in found:
            headers = {name: value.decode() for name, value in record.headers}
            assert [error.message for error in check.iter_errors(headers)] == []
            assert [error.message for error in sealed.iter_errors(record.value.decode())] == []
            assert record.key.decode() == headers["ce_subject"]
        await no_patient_in(made, kafka)
        await strangers_read(made, kafka)
    said = "".join(process.log_path.read_text() for process in made.processes).splitlines()
    errors = [line for line in said if '"level": "error"' in line]
    # Kafka's own client complains while it connects.
    assert [line for line in errors if '"library.aiokafka' not in line] == []


async def no_patient_in(world: World, kafka: Kafka) -> None:
    """Nothing that a patient is known by stands in what Kafka has on its disk."""
    written = b"".join(
        path.read_bytes() for node in kafka.nodes for path in node.folder.rglob("*.log")
    )
    assert b"ce_subject" in written
    for word in (b"9990000", b"Example", b"NHS number", b'"Patient"'):
        assert word not in written


async def strangers_read(world: World, kafka: Kafka) -> None:
    """The example reads a topic with the key that an operator gave it, and opens every record."""
    prefix = world.broker.settings["BROKER_KAFKA_PREFIX"]
    seen = {}
    for topic in ("fhir.ServiceRequest.v1", "fhir.Communication.v1", "fhir.Task.v1"):
        code, key = await world.cli("topics", "key", topic, "--reader", "A test's platform")
        assert code == 0
        key_file = world.folder / "key.jwk"
        key_file.write_text(key)
        reading = await asyncio.create_subprocess_exec(
            sys.executable,
            ROOT / "examples/read_topic.py",
            kafka.bootstrap,
            prefix + topic,
            key_file,
            stdout=asyncio.subprocess.PIPE,
        )
        assert reading.stdout is not None
        async with asyncio.timeout(30):
            event = json.loads(await reading.stdout.readline())
        reading.terminate()
        await reading.communicate()
        resources = [one["resource"]["resourceType"] for one in event["data"]["entry"]]
        seen[topic] = resources
    assert "ServiceRequest" in seen["fhir.ServiceRequest.v1"]
    assert "Patient" in seen["fhir.Communication.v1"]
    assert "Task" in seen["fhir.Task.v1"]
    with psycopg.connect(world.broker.settings["BROKER_DATABASE_URL"]) as database:
        given = database.execute(
            "SELECT object_id, facts ->> 'reader' FROM audit WHERE action = 'topic-key.given'"
        ).fetchall()
    assert set(given) == {(topic, "A test's platform") for topic in seen}


async def test_an_operators_commands_find_the_kafka_topics_under_their_prefix(
    tmp_path: Path, postgresql: PostgreSQL, kafka: Kafka
) -> None:
    async with world(tmp_path, postgresql, kafka, roles=("all",)) as made:
        early = postgresql.create("template0")
        await some_messages(made)
        before = len(await records(made, kafka, wanted=8))
        code, said = await made.cli("replay", "--since", "2020-01-01", "--publish", "--yes")
        assert code == 0, said
        again = await records(made, kafka, wanted=before + 8)
        assert len({dict(one.headers)["ce_id"] for one in again}) < len(again)
        # Restored from a backup of before any message: all that Kafka holds came after it.
        await made.broker.stop()
        made.broker.settings["BROKER_DATABASE_URL"] = postgresql.url(early)
        for words in (("migrate",), ("restore", "begin")):
            code, said = await made.cli(*words)
            assert code == 0, said
        code, said = await made.cli("restore", "reconcile", "--json")
        assert code == 0, said
        lost = {one["event"] for one in json.loads(said[said.index("{\n") :])["lost"]}
        assert lost == {dict(one.headers)["ce_id"].decode() for one in again}
    postgresql.drop(early)


async def test_another_relay_takes_over_within_seconds_of_kafkas_one_being_killed(
    tmp_path: Path, postgresql: PostgreSQL, kafka: Kafka
) -> None:
    roles = ("api", "relay", "relay", "dispatch", "worker")
    async with world(tmp_path, postgresql, kafka, roles) as made:
        await some_messages(made)
        before = len(await records(made, kafka, wanted=8))
        relays = [process for process in made.processes if process.role == "relay"]
        for relay in relays:  # whichever has the lease
            await relay.kill()
            sent = await made.pharmacy.submit(made.pharmacy.consultation(practice="G99001"))
            assert await made.received(sent, made.practice, seconds=30)
            await records(made, kafka, wanted=before + 2)
            before += 2
            await relay.start()


async def test_while_kafka_is_away_messages_are_taken_and_delivered_and_published_after(
    tmp_path: Path, postgresql: PostgreSQL, kafka: Kafka
) -> None:
    async with world(tmp_path, postgresql, kafka) as made:
        await some_messages(made)
        before = len(await records(made, kafka, wanted=8))
        kafka.kill_all()
        sent = await made.pharmacy.submit(made.pharmacy.consultation(practice="G99001"))
        assert sent.status == 202
        # Dispatch looks at the ledger itself, if more slowly.
        assert await made.received(sent, made.practice, seconds=60)
        for role in ("relay", "dispatch"):  # each ends in order, and starts, without Kafka
            process = next(one for one in made.processes if one.role == role)
            assert await process.stop() == 0
            assert "stopped.unfinished" not in process.log_path.read_text()
            await process.start()
        await kafka.start_all()
        await records(made, kafka, wanted=before + 2)


# A dispatcher whose reader gets nothing any more, and a watchdog that does not wait a minute.
STUCK = """
import sys
from broker import cli, hints, transport
from broker.log_kafka.reader import Reader

hints.STANDSTILL_SECONDS, transport.WATCH_SECONDS = 1.0, 0.3
fetched = Reader._fetched

async def nothing(self):
    await fetched(self)
    return {}

Reader._fetched = nothing
sys.exit(cli.main(["serve", "--role", "dispatch"]))
"""


async def test_a_dispatcher_that_gets_nothing_from_kafka_ends_to_be_started_again(
    tmp_path: Path, postgresql: PostgreSQL, kafka: Kafka
) -> None:
    async with world(tmp_path, postgresql, kafka, ("api", "relay", "worker")) as made:
        await made.pharmacy.submit(made.pharmacy.consultation(practice="G99001"))
        ends = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            STUCK,
            env=environment({**made.broker.settings, "BROKER_ADMIN_PORT": "0"}),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            _, said = await ends.communicate()
        assert ends.returncode == 2
        assert b"the process ends, to be started again" in said
        assert b"Traceback" not in said


async def test_a_broker_without_its_kafka_topics_says_how_they_are_made(
    tmp_path: Path, postgresql: PostgreSQL, kafka: Kafka
) -> None:
    async with world(tmp_path, postgresql, kafka) as made:
        relay = next(process for process in made.processes if process.role == "relay")
        settings = {
            **relay.settings,
            "BROKER_KAFKA_PREFIX": "nowhere.",
            "BROKER_ADMIN_PORT": "0",
        }
        refused = await asyncio.create_subprocess_exec(
            *command("serve", "--role", "relay"),
            env=environment(settings),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(40):
            _, said = await refused.communicate()
        assert refused.returncode == 2
        assert b"There is no topic nowhere.fhir.Task.v1: run referral-broker topics create." in said


# -- the document --------------------------------------------------------------------------------


def test_the_document_of_kafkas_topics_is_true() -> None:
    channels = {one["address"]: one["description"] for one in ASYNCAPI["channels"].values()}
    assert channels == {topic.name: topic.about for topic in TOPICS}
    headers = ASYNCAPI["components"]["schemas"]["headers"]
    assert set(headers["properties"]) == HEADERS
    wanted = {name for name, _, is_wanted in ATTRIBUTES if is_wanted}
    assert set(headers["required"]) == {"ce_specversion", "content-type"} | wanted
    assert set(headers["properties"]["ce_type"]["enum"]) == ALL_TYPES
    sent = {one["channel"]["$ref"].rpartition("/")[2] for one in ASYNCAPI["operations"].values()}
    assert sent == set(ASYNCAPI["channels"])
