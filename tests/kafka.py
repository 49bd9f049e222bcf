"""A real Apache Kafka for tests and benchmarks, of one node or three, that ends with its owner.

Each node is a process of its own (broker and controller in one), bound to 127.0.0.1. Flushing is
Kafka's default: an acknowledged record is in the page cache of every replica in sync, so it
outlives any process, all of them at once too, but not the machine's power. Fail-over is quick: a
node that is killed or frozen is given up after `SESSION_SECONDS`, where Kafka's default is nine.
"""

import asyncio
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.metadata import MetadataRequest

from tests.databases import REQUIRED

ROOT = Path(__file__).parents[1]
HOST = "127.0.0.1"
# Below the range of outgoing connections: none of them may take the port of a node that is down.
PORTS = range(20_000, 32_768)
SESSION_SECONDS = 4.0
START_SECONDS = 60.0
PATIENCE_MS = 2000
JAVA = [
    "java",
    "-Xms128m",
    "-Xmx256m",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",  # writes outside of our folder
    "-Djava.net.preferIPv4Stack=true",
    "-Dlog4j2.level=INFO",
]
T = TypeVar("T")
MARKS = [
    pytest.mark.kafka,
    # Where a try to connect runs out of time, aiokafka leaves its socket to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.slow,
]  # of every test that needs one


@dataclass(frozen=True)
class Lock:
    """What one listener asks of whoever comes: its own settings, as Kafka names them, and what its
    cluster must be told when it is made (users)."""

    settings: Mapping[str, str]
    format_options: Sequence[str] = ()


@dataclass(eq=False)
class Node:
    """One process of a cluster, and what it keeps while it is down."""

    id: int
    folder: Path
    port: int
    controller_port: int
    process: subprocess.Popen[bytes] | None = None
    is_paused: bool = False

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def is_running(self) -> bool:
        return self.process is not None and not self.is_paused

    @property
    def up(self) -> subprocess.Popen[bytes]:
        """The process of a node that is not down."""
        assert self.process is not None, f"node {self.id} is down"
        return self.process

    def demand_alive(self) -> None:
        """Raise RuntimeError with the end of its log if the node has ended by itself."""
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(f"Kafka node {self.id} ended:\n{self.last_said()}")

    def last_said(self) -> str:
        """The end of its log."""
        return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-30:])


class Kafka:
    """A cluster whose nodes, named 1 to n, can be killed, frozen and started again at will.

    What is said to have started is ready. However the process that made it ends, its nodes are
    killed: the shell at the head of their process group sees its input close.
    """

    def __init__(
        self, folder: Path, jars: Path, nodes: int, locks: Mapping[str, Lock] | None = None
    ) -> None:
        """`locks` are further listeners of a cluster of one node, by the protocol they speak."""
        assert nodes == 1 or not locks
        self._locks = dict(locks or {})
        ports = iter(_free_ports(2 * nodes + len(self._locks)))
        self._nodes = {
            i: Node(i, folder / f"node-{i}", next(ports), next(ports)) for i in range(1, nodes + 1)
        }
        self._locked = {protocol: f"{HOST}:{next(ports)}" for protocol in self._locks}
        self._java = [*JAVA, f"-Djava.io.tmpdir={folder}", "-cp", f"{jars}/*"]
        self._cluster = uuid.uuid4().hex  # a node that meets another cluster's turns away
        for node in self._nodes.values():
            node.folder.mkdir()
            (node.folder / "server.properties").write_text(self._properties(node))
        self._head = subprocess.Popen(
            ["sh", "-c", "read _; kill -9 0"], stdin=subprocess.PIPE, process_group=0
        )

    @property
    def bootstrap(self) -> str:
        """The addresses of all nodes, as clients want them."""
        return ",".join(node.address for node in self._nodes.values())

    def topics_of_its_own(self, partitions: int = 3) -> dict[str, str]:
        """Return a broker's settings for it, with topics that nobody else has."""
        return {
            "BROKER_KAFKA_SERVERS": self.bootstrap,
            "BROKER_KAFKA_SECURITY": "PLAINTEXT",
            "BROKER_KAFKA_PREFIX": f"{uuid.uuid4()}.",
            "BROKER_KAFKA_REPLICAS": str(len(self._nodes)),
            "BROKER_KAFKA_PARTITIONS": str(partitions),
        }

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every node, whatever its state."""
        return tuple(self._nodes.values())

    def locked(self, protocol: str) -> str:
        """The address of a listener that speaks this protocol."""
        return self._locked[protocol]

    # -- start and stop --------------------------------------------------------------------------

    async def start_all(self) -> None:
        """Start or resume every node that does not run; return when all are ready."""
        for node in self._nodes.values():
            if node.process is None or node.process.poll() is not None:
                self._spawn(node)
            elif node.is_paused:
                self.resume(node.id)
        await self.ready()

    async def restart(self, i: int) -> None:
        """Kill a node if it is not down, and start it with the data that it had."""
        if self._nodes[i].process is not None:
            self.kill(i)
        self._spawn(self._nodes[i])
        await self.ready()

    def stop(self) -> None:
        """Kill every node and wait until all are gone. Nothing is shut down in order."""
        os.killpg(self._head.pid, signal.SIGKILL)
        for node in self._nodes.values():
            if node.process is not None:
                node.process.wait()
        self._head.communicate()

    # -- harm --------------------------------------------------------------------------------------

    def kill(self, i: int) -> None:
        """SIGKILL a node, running or paused, and wait until it is gone; its data stays."""
        node = self._nodes[i]
        node.up.kill()
        node.up.wait()
        node.process, node.is_paused = None, False

    def kill_all(self) -> None:
        """SIGKILL every node that is not down, all at once; `start_all` brings them back."""
        up = [node for node in self._nodes.values() if node.process is not None]
        for node in up:
            node.up.kill()
        for node in up:
            self.kill(node.id)

    def pause(self, i: int) -> None:
        """Freeze a node: its connections stay open and nothing answers."""
        self._nodes[i].up.send_signal(signal.SIGSTOP)
        self._nodes[i].is_paused = True

    def resume(self, i: int) -> None:
        """Let a frozen node go on; wait with `ready` until the others have it back."""
        self._nodes[i].up.send_signal(signal.SIGCONT)
        self._nodes[i].is_paused = False

    @asynccontextmanager
    async def harmed(self) -> AsyncIterator[None]:
        """Let the body do harm; whatever comes of it, every node runs at the end."""
        try:
            yield
        finally:
            await self.start_all()

    # -- look and make -----------------------------------------------------------------------------

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AIOKafkaAdminClient]:
        """A client of the nodes that run, that gives up after two seconds."""
        client = AIOKafkaAdminClient(
            bootstrap_servers=[node.address for node in self._running().values()],
            request_timeout_ms=PATIENCE_MS,
        )
        try:
            await client.start()
            yield client
        finally:
            await client.close()

    async def create(
        self, topic: str, partitions: int = 1, settings: Mapping[str, str] | None = None
    ) -> None:
        """Make a topic with a replica on every node. Raises KafkaError."""
        wanted = NewTopic(topic, partitions, len(self._nodes), None, dict(settings or {}))
        async with self.admin() as client:
            made = await client.create_topics([wanted])
        [answer] = made.to_object()["topic_errors"]
        if answer["error_code"]:
            raise for_code(answer["error_code"])(answer["error_message"])

    async def delete_all(self, topic: str) -> None:
        """Delete every record of a topic, as its retention does in time."""
        async with self.admin() as client:
            (found,) = await client.describe_topics([topic])
            places = [TopicPartition(topic, one["partition"]) for one in found["partitions"]]
            await client.delete_records({place: RecordsToDelete(-1) for place in places})

    async def leader_of(self, topic: str, partition: int = 0) -> int:
        """Return the node that leads a partition, as soon as one that runs does."""

        async def look() -> int | None:
            async with self.admin() as client:
                [described] = await client.describe_topics([topic])
            leaders = {one["partition"]: one["leader"] for one in described["partitions"]}
            leader: int = leaders.get(partition, -1)
            return leader if leader in self._running() else None

        return await self._until(look, f"no leader of {topic}, partition {partition}")

    async def ready(self) -> None:
        """Return when every node that runs answers, all know each other, and no replica on them
        is behind. Raises RuntimeError with the end of a log after `START_SECONDS`, or when a node
        ended."""
        await self._until(self._is_whole, "the nodes are not ready")

    async def _is_whole(self) -> bool | None:
        running = self._running()
        for node in running.values():
            if not _answers(node.port):  # before a client is tried, which logs every failure
                return None
            seen = await _seen_by(node)
            if not running.keys() <= {broker["node_id"] for broker in seen["brokers"]}:
                return None
            for partition in (one for topic in seen["topics"] for one in topic["partitions"]):
                replicas = running.keys() & set(partition["replicas"])
                led = partition["leader"] in running or not replicas
                if not led or not replicas <= set(partition["isr"]):
                    return None
        return True

    async def _until(self, look: Callable[[], Awaitable[T | None]], otherwise: str) -> T:
        deadline = time.monotonic() + START_SECONDS
        while True:
            for node in self._nodes.values():
                node.demand_alive()
            try:
                async with asyncio.timeout(5.0):
                    found = await look()
            except (KafkaError, OSError, TimeoutError):  # one of them goes or comes just now
                found = None
            if found is not None:
                return found
            if time.monotonic() > deadline:
                said = "\n".join(f"{one.id}: {one.last_said()}" for one in self._nodes.values())
                raise RuntimeError(f"{otherwise} after {START_SECONDS:.0f} s:\n{said}")
            await asyncio.sleep(0.1)

    def _running(self) -> dict[int, Node]:
        return {node.id: node for node in self._nodes.values() if node.is_running}

    def _spawn(self, node: Node) -> None:
        properties = str(node.folder / "server.properties")
        command = f"exec {shlex.join([*self._java, 'kafka.Kafka', properties])}"
        if not (node.folder / "data" / "meta.properties").exists():
            tool = [*self._java, "kafka.tools.StorageTool", "format"]
            tool += ["-t", self._cluster, "-c", properties]
            for lock in self._locks.values():
                tool += lock.format_options
            command = f"{shlex.join(tool)} && {command}"
        with (node.folder / "log").open("ab") as log:
            node.process = subprocess.Popen(
                ["sh", "-c", command],
                cwd=node.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=self._head.pid,
            )
        node.is_paused = False

    def _properties(self, node: Node) -> str:
        every = self._nodes.values()
        voters = ",".join(f"{one.id}@{HOST}:{one.controller_port}" for one in every)
        listeners = {
            "PLAINTEXT": node.address,
            "CONTROLLER": f"{HOST}:{node.controller_port}",
            **self._locked,
        }
        speaks = {name: "PLAINTEXT" if name == "CONTROLLER" else name for name in listeners}
        copies, most = len(every), len(every) // 2 + 1
        settings: dict[str, str | int] = {
            "process.roles": "broker,controller",
            "node.id": node.id,
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "listeners": ",".join(f"{name}://{address}" for name, address in listeners.items()),
            "listener.security.protocol.map": ",".join(f"{a}:{b}" for a, b in speaks.items()),
            "log.dirs": str(node.folder / "data"),
            # The one with locks is as Kafka comes: who asks for a topic makes it by asking.
            "auto.create.topics.enable": str(bool(self._locks)).lower(),
            "default.replication.factor": copies,
            "min.insync.replicas": most,
            "group.initial.rebalance.delay.ms": 0,
            "broker.session.timeout.ms": round(SESSION_SECONDS * 1000),
            "broker.heartbeat.interval.ms": 500,
            "log.cleaner.dedupe.buffer.size": 2 << 20,  # the default is 128 MiB, at once
        }
        for name in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
            settings[f"{name}.num.partitions"] = 4
            settings[f"{name}.replication.factor"] = copies
        settings["transaction.state.log.min.isr"] = most
        settings["share.coordinator.state.topic.min.isr"] = most
        for protocol, lock in self._locks.items():
            for name, value in lock.settings.items():
                settings[f"listener.name.{protocol.lower()}.{name}"] = value
        return "".join(f"{name}={value}\n" for name, value in settings.items())


def jars() -> Path:
    """Return the folder of Kafka's jars, fetched if need be. Raises RuntimeError where it cannot
    be had."""
    if shutil.which("java") is None:
        raise RuntimeError("there is no Java")
    fetched = subprocess.run([ROOT / "scripts/kafka"], capture_output=True, text=True, check=False)
    if fetched.returncode != 0:
        raise RuntimeError(f"scripts/kafka: {fetched.stderr.strip()}")
    return Path(fetched.stdout.strip())


def demand_kafka() -> Path:
    """Return the folder of Kafka's jars; where it cannot be had, skip saying so, or fail if it is
    required."""
    try:
        return jars()
    except RuntimeError as error:
        if REQUIRED:
            raise
        pytest.skip(f"Kafka cannot be had: {error}")


@contextmanager
def running_kafka(nodes: int, locks: Mapping[str, Lock] | None = None) -> Iterator[Kafka]:
    """Run a Kafka; where it cannot be had, skip saying so, or fail if it is required. One that can
    be had and does not start is a failure everywhere."""
    found = demand_kafka()
    folder = Path(tempfile.mkdtemp(prefix="broker-kafka-"))
    try:
        kafka = Kafka(folder, found, nodes, locks)
        try:
            asyncio.run(kafka.start_all())
            yield kafka
        finally:
            kafka.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _seen_by(node: Node) -> dict[str, Any]:
    """What this very node knows of the cluster: another's answer would not show that it is back."""
    client = AIOKafkaClient(bootstrap_servers=node.address, request_timeout_ms=PATIENCE_MS)
    try:
        await client.bootstrap()
        answer = await client.send(node.id, MetadataRequest(None))
        return dict(answer.to_object())
    finally:
        await client.close()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            found.append(port)
        if len(found) == count:
            return found
    raise OSError("no port of loopback is free")
