"""Destinations of a mixed load: webhooks that listen in the clients' process, some of them unwell.

Each has a port of its own, confirms what it gets by its digest, and notes when it came. A `dead`
one takes the connection and never answers; a `slow` one answers after `slow_seconds`.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.load import ANSWERED_WITHIN, Caller, Door, LoadProblem, expect
from sandbox import arrival

Place = tuple[str, str]
"""An organisation and its service, which is empty for the organisation itself."""
WELL: Final = "well"
DEAD: Final = "dead"
SLOW: Final = "slow"
_LAST_ONES: Final = 60.0
_FLOWING: Final = 100


@dataclass(frozen=True, slots=True)
class Mix:
    """What is posted in turn, how often, for how long, and where it is to arrive.

    Each body holds MARK once, where its reference stands, and `patient`, the NHS number of its
    example, for which each post has another of `patients`.
    """

    doors: Sequence[Door]
    patient: bytes
    patients: Sequence[bytes]
    per_second: float
    warm_up: float
    seconds: float
    ports: Mapping[Place, int]
    manners: Mapping[Place, str] = field(default_factory=dict)
    slow_seconds: float = 2.0
    connections: int = 64

    def manner(self, place: Place) -> str:
        return self.manners.get(place, WELL)


@dataclass(frozen=True, slots=True)
class Arrived:
    """What came where after the warm-up, in ms from the time at which it was to be posted."""

    accepted: list[float]
    by_place: Mapping[Place, list[float]]


class _Listener(asyncio.Protocol):
    """One connection of the broker's to a destination."""

    def __init__(self, place: Place, mix: Mix, came: dict[tuple[str, Place], float]) -> None:
        self._place, self._came = place, came
        self._manner, self._slow = mix.manner(place), mix.slow_seconds
        self._read = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._read += data
        end = self._read.find(b"\r\n\r\n")
        if end < 0:
            return
        lines = bytes(self._read[:end]).decode("latin-1").lower().split("\r\n")[1:]
        headers = dict(line.split(": ", 1) for line in lines)
        length = int(headers["content-length"])
        if len(self._read) < end + 4 + length:
            return
        body = bytes(self._read[end + 4 : end + 4 + length])
        self._read.clear()
        found = arrival.read(headers["webhook-id"], "", "webhook", body)
        self._came.setdefault((found.message, self._place), time.perf_counter())
        if self._manner != DEAD:
            wait = self._slow if self._manner == SLOW else 0.0
            asyncio.get_running_loop().call_later(wait, self._answer, headers["webhook-id"], body)

    def _answer(self, delivery: str, body: bytes) -> None:
        digest = hashlib.sha256(body).hexdigest()
        said = json.dumps({"delivery": delivery, "digest": digest, "ods": self._place[0]}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(said)}"
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(f"{head}\r\n\r\n".encode() + said)


def post_the_mix(mix: Mix, run: str) -> Arrived:
    """Post at fixed times, whatever has been answered, and see when each arrives where it is to.

    Raises LoadProblem where one did not arrive at a destination that is well.
    """
    return asyncio.run(_Mixed(mix, run).run())


class _Mixed:
    def __init__(self, mix: Mix, run: str) -> None:
        self._mix, self._run = mix, run
        self._count = int(mix.per_second * (mix.warm_up + mix.seconds))
        self._turns: asyncio.Queue[int | None] = asyncio.Queue()
        self._times: list[float] = []
        self._accepted: dict[int, float] = {}
        self._owed: dict[tuple[str, Place], int] = {}
        self._came: dict[tuple[str, Place], float] = {}

    async def run(self) -> Arrived:
        mix, loop = self._mix, asyncio.get_running_loop()
        servers = [
            await loop.create_server(
                lambda place=place: _Listener(place, mix, self._came),  # type: ignore[misc]
                "127.0.0.1",
                port,
            )
            for place, port in mix.ports.items()
        ]
        callers = [Caller(mix.doors[0].port) for _ in range(mix.connections)]
        start = time.perf_counter() + 0.1
        self._times = [start + number / mix.per_second for number in range(self._count)]
        try:
            async with asyncio.TaskGroup() as group:
                for one in callers:
                    group.create_task(self._post(one))
                await self._keep_time()
            await self._all_arrived()
        finally:
            for one in callers:
                one.close()
            for server in servers:
                server.close()
        return self._result()

    async def _keep_time(self) -> None:
        for number, due in enumerate(self._times):
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            self._turns.put_nowait(number)
        for _ in range(self._mix.connections):
            self._turns.put_nowait(None)

    async def _post(self, caller: Caller) -> None:
        mix = self._mix
        while (number := await self._turns.get()) is not None:
            door = mix.doors[number % len(mix.doors)]
            request = door.post(f"{self._run}-{number}").replace(mix.patient, mix.patients[number])
            status, body = await caller.call(request)
            expect(status, door.accepted, body)
            self._accepted[number] = time.perf_counter()
            for message in json.loads(body)["messages"]:
                for one in message["destinations"]:
                    place = one["organisation"], one["service"] or ""
                    if place in mix.ports:
                        self._owed[message["id"], place] = number

    async def _all_arrived(self) -> None:
        owed = [one for one in self._owed if self._mix.manner(one[1]) == WELL]
        gives_up = time.perf_counter() + _LAST_ONES
        while missing := sum(one not in self._came for one in owed):
            if time.perf_counter() > gives_up:
                raise LoadProblem(f"{missing} of {len(owed)} never arrived where all is well")
            await asyncio.sleep(0.1)

    def _result(self) -> Arrived:
        first = int(self._mix.per_second * self._mix.warm_up)
        by_place: dict[Place, list[float]] = {}
        for (message, place), number in self._owed.items():
            came = self._came.get((message, place))
            if number >= first and came is not None:
                by_place.setdefault(place, []).append((came - self._times[number]) * 1000)
        accepted = [
            (self._accepted[number] - self._times[number]) * 1000
            for number in range(first, self._count)
        ]
        return Arrived(accepted, by_place)


def overtake(door: Door, port: int, place: Place) -> tuple[float, int]:
    """Listen at a destination, and post one message once what it is owed flows there.

    Returns how many seconds after its acceptance its last part came, which is the most urgent, and
    how many others came between.
    """
    return asyncio.run(_overtake(door, port, place))


async def _overtake(door: Door, port: int, place: Place) -> tuple[float, int]:
    came: dict[tuple[str, Place], float] = {}
    mix = Mix([door], b"", [], 0.0, 0.0, 0.0, {place: port})
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Listener(place, mix, came), "127.0.0.1", port)
    caller = Caller(door.port)
    try:
        async with asyncio.timeout(ANSWERED_WITHIN):
            while len(came) < _FLOWING:  # noqa: ASYNC110 - another process's
                await asyncio.sleep(0.01)
        status, body = await caller.call(door.post("urgent"))
        accepted = time.perf_counter()
        expect(status, door.accepted, body)
        wanted = json.loads(body)["messages"][-1]["id"], place
        async with asyncio.timeout(ANSWERED_WITHIN):
            while wanted not in came:  # noqa: ASYNC110 - another process's
                await asyncio.sleep(0.01)
    finally:
        caller.close()
        server.close()
    before = sum(accepted <= at < came[wanted] for at in came.values())
    return came[wanted] - accepted, before
