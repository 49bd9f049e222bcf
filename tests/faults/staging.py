"""What a fault run acts on: a world of processes, what it stands on, and the means to harm it."""

import asyncio
import mmap
import random
import struct
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx2

from sandbox.process import BrokerProcess, NotServing
from sandbox.world import World
from tests.databases import PostgreSQL
from tests.faults.proxying import FaultProxy
from tests.kafka import Kafka

READY_WITHIN: Final = 90.0
_LOOK_EVERY: Final = 0.2
_NUMBERS: Final = struct.Struct("4q")


class Control:
    """The four numbers of harm.c, shared with one process for as long as it runs."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_NUMBERS.size))
        self.path = path
        with path.open("r+b") as file:
            self._there = mmap.mmap(file.fileno(), _NUMBERS.size)

    def set(self, *, seconds: float = 0.0, is_full: bool = False) -> None:
        """Let its clock be wrong by so much, and its disk be full."""
        struct.pack_into("2q", self._there, 0, round(seconds * 1e9), is_full)

    @property
    def misread(self) -> int:
        """How often the process has read a wrong clock."""
        return int(_NUMBERS.unpack(self._there)[2])

    @property
    def refused(self) -> int:
        """How many writes were refused for want of room."""
        return int(_NUMBERS.unpack(self._there)[3])


@dataclass
class Stage:
    """A world, what it stands on, and what was done to it. Its processes are started again where
    they end by themselves, as by a supervisor; `ended` says which did."""

    world: World
    chance: random.Random
    proxy: FaultProxy | None = None
    postgresql: PostgreSQL | None = None
    kafka: Kafka | None = None
    controls: dict[BrokerProcess, Control] = field(default_factory=dict)
    acted: Counter[str] = field(default_factory=Counter)
    ended: list[str] = field(default_factory=list)
    family: str = ""  # of patients whose receiver is to behave so; empty: any
    held: set[BrokerProcess] = field(default_factory=set)  # down on purpose

    @property
    def can_shim(self) -> bool:
        return bool(self.controls)

    def process(self, *roles: str) -> BrokerProcess:
        """Return one of the processes, of these roles if any are named."""
        found = [one for one in self.world.processes if not roles or one.role in roles]
        return self.chance.choice(found)

    async def kill_one(self) -> BrokerProcess | None:
        """SIGKILL a process, whatever it does; it stays down until it is started. None: no other
        nemesis has left one."""
        running = [one for one in self.world.processes if one.pid and one not in self.held]
        if not running:
            return None
        process = self.chance.choice(running)
        self.held.add(process)
        await process.kill()
        return process

    async def supervise(self) -> None:
        """Start again, for ever, what has ended by itself."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            for one in self.world.processes:
                if one.pid is None and one not in self.held:
                    self.ended.append(one.log_path.name)
                    await self.start(one)

    async def start(self, process: BrokerProcess) -> None:
        """Start a process, again and again where it cannot while something else is broken."""
        ends = asyncio.get_running_loop().time() + READY_WITHIN
        self.held.add(process)
        while True:
            try:
                await process.start()
                break
            except NotServing:
                if asyncio.get_running_loop().time() > ends:
                    raise
                await process.stop()
        self.held.discard(process)

    async def all_ready(self) -> None:
        """Return once every process says that it is ready. Raises TimeoutError."""
        async with (
            asyncio.timeout(READY_WITHIN),
            httpx2.AsyncClient(trust_env=False, timeout=5.0) as http,
        ):
            for process in self.world.processes:
                is_ready = False
                while not is_ready:
                    with suppress(httpx2.TransportError):
                        answer = await http.get(f"{process.url}/health/ready")
                        is_ready = answer.status_code == 200
                    await asyncio.sleep(0.0 if is_ready else _LOOK_EVERY)
