"""The Kafka that the tests start: what it promises, and how it is harmed and mended."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

import tests.kafka
from tests import minutes
from tests.kafka import HOST, MARKS, ROOT, SESSION_SECONDS, Kafka, running_kafka

pytestmark = MARKS

SECONDS = 60.0
PATIENCE_MS = 10_000  # more than a take-over takes, which a send must outlast
OWNER = """
import asyncio, sys, time
from pathlib import Path
from tests.kafka import Kafka, jars

kafka = Kafka(Path(sys.argv[1]), jars(), 1)
asyncio.run(kafka.start_all())
print(kafka.nodes[0].up.pid, flush=True)
time.sleep(600)
"""

NOTED = """
import os, pathlib, pytest

@pytest.mark.parametrize("number", range(8))
def test_with_kafka(number):
    pathlib.Path(os.environ["NOTES"], os.environ["PYTEST_XDIST_WORKER"]).touch()
"""


async def send(kafka: Kafka, topic: str, *values: bytes) -> None:
    """Return when each value is acknowledged by as many replicas as must have it."""
    async with (
        asyncio.timeout(SECONDS),
        AIOKafkaProducer(
            bootstrap_servers=kafka.bootstrap,
            enable_idempotence=True,
            request_timeout_ms=PATIENCE_MS,
        ) as producer,
    ):
        for value in values:
            await producer.send_and_wait(topic, value)


async def read(kafka: Kafka, topic: str) -> list[bytes]:
    """All that a topic of one partition holds."""
    partition = TopicPartition(topic, 0)
    found: list[bytes] = []
    async with (
        asyncio.timeout(SECONDS),
        AIOKafkaConsumer(
            bootstrap_servers=kafka.bootstrap, request_timeout_ms=PATIENCE_MS
        ) as consumer,
    ):
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        while await consumer.position(partition) < end:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += [record.value for record in records]
    return found


def values(name: str) -> list[bytes]:
    return [f"{name} {number}".encode() for number in range(20)]


def listening(pid: int) -> set[str]:
    """Every address and port on which a process awaits connections, as Linux writes them."""
    opened = set()
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            opened.add(str(one.readlink()))
    rows = [
        row.split()
        for table in ("tcp", "tcp6")
        for row in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    return {row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in opened}


# -- what a record's acknowledgement is worth ------------------------------------------------------


async def test_what_was_acknowledged_is_there_after_every_node_was_killed(
    kafka: Kafka, topic_prefix: str
) -> None:
    topic = f"{topic_prefix}kept"
    await kafka.create(topic)
    await send(kafka, topic, *values("before"))
    async with kafka.harmed():
        kafka.kill_all()
    await send(kafka, topic, *values("after"))
    assert await read(kafka, topic) == values("before") + values("after")


async def test_a_killed_leader_is_taken_over_within_seconds_and_no_acknowledged_record_is_missing(
    kafka_cluster: Kafka, topic_prefix: str
) -> None:
    topic = f"{topic_prefix}taken-over"
    await kafka_cluster.create(topic)
    await send(kafka_cluster, topic, *values("before"))
    async with kafka_cluster.harmed():
        killed, at = await kafka_cluster.leader_of(topic), time.monotonic()
        kafka_cluster.kill(killed)
        await send(kafka_cluster, topic, *values("without it"))
        assert time.monotonic() - at < 3 * SESSION_SECONDS
        assert await kafka_cluster.leader_of(topic) != killed
        assert await read(kafka_cluster, topic) == values("before") + values("without it")
        await kafka_cluster.restart(killed)
    assert await read(kafka_cluster, topic) == values("before") + values("without it")


async def test_a_frozen_leader_is_taken_over_and_has_caught_up_when_it_is_back(
    kafka_cluster: Kafka, topic_prefix: str
) -> None:
    topic = f"{topic_prefix}frozen"
    await kafka_cluster.create(topic)
    await send(kafka_cluster, topic, *values("before"))
    async with kafka_cluster.harmed():
        frozen = await kafka_cluster.leader_of(topic)
        kafka_cluster.pause(frozen)
        assert await kafka_cluster.leader_of(topic) != frozen
        await send(kafka_cluster, topic, *values("meanwhile"))
    async with kafka_cluster.admin() as client:
        [described] = await client.describe_topics([topic])
    assert sorted(described["partitions"][0]["isr"]) == [1, 2, 3]
    assert await read(kafka_cluster, topic) == values("before") + values("meanwhile")


# -- what a test may rely on -----------------------------------------------------------------------


async def test_a_topic_is_never_made_by_writing_to_it(kafka: Kafka, topic_prefix: str) -> None:
    async with kafka.admin() as client:
        await client.describe_topics([f"{topic_prefix}misspelt"])
        assert f"{topic_prefix}misspelt" not in await client.list_topics()


def test_every_port_is_open_to_this_machine_alone(kafka: Kafka) -> None:
    [node] = kafka.nodes
    loopback = bytes(map(int, reversed(HOST.split(".")))).hex().upper()
    wanted = {f"{loopback}:{port:04X}" for port in (node.port, node.controller_port)}
    assert listening(node.up.pid) == wanted


def test_nothing_is_left_running_when_its_owner_is_killed(kafka: Kafka, tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, tmp_path], cwd=ROOT, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        node = Path("/proc", owner.stdout.readline().decode().strip())
        assert node.exists()
        owner.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while node.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_a_node_that_does_not_start_says_why(tmp_path: Path) -> None:
    cluster = Kafka(tmp_path, tmp_path / "nothing", 1)
    try:
        with pytest.raises(RuntimeError, match=r"node 1 ended:\n\S"):
            await cluster.start_all()
    finally:
        cluster.stop()


def test_without_java_its_tests_are_skipped_saying_so_and_fail_where_it_is_required(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tests.kafka, "REQUIRED", False)
    with pytest.raises(pytest.skip.Exception, match="Kafka cannot be had: there is no Java"):
        running_kafka(1).__enter__()
    monkeypatch.setattr(tests.kafka, "REQUIRED", True)
    with pytest.raises(RuntimeError, match="there is no Java"):
        running_kafka(1).__enter__()


def test_one_worker_runs_all_tests_with_kafka_in_their_name(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "test_noted.py").write_text(NOTED)
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-n", "2", "--dist", "loadgroup"]
    given = {name: value for name, value in os.environ.items() if name != minutes.FILE}
    subprocess.run(
        [sys.executable, "-m", "pytest", "-c", ROOT / "pyproject.toml", *options, tmp_path],
        cwd=ROOT,
        env=given | {"NOTES": str(tmp_path / "notes")},
        check=True,
        capture_output=True,
    )
    assert len(list((tmp_path / "notes").iterdir())) == 1
