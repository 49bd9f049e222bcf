"""The clients: a process of their own, keep-alive connections, and as little work as can be.

`closed_loop` posts as fast as it is answered; `open_loop` posts when the clock says so, whatever
has been answered, and looks into the inbox meanwhile. Both are bounded in time and in count.
"""

import asyncio
import json
import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

MARK: Final = b"REFERENCE-TO-BE-FILLED-IN"
"""Stands in a body where each request gets a reference of its own, of the same length."""
MOST: Final = 200_000
ANSWERED_WITHIN: Final = 30.0
LOOK_BACK: Final = 5
GAP_SECONDS: Final = 0.05
LONGEST_IDLE: Final = 2.0
"""Seconds after which a connection is not used again: the servers hang up after five."""


class LoadProblem(Exception):
    """The load did not go as it was meant to, so no figure may come of it."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where requests go on loopback, with what headers; `body` holds MARK once.

    `accepted` is the status of what was taken. Each request has a key of its own, as its
    Idempotency-Key and, as a UUID, its X-Request-Id: by that BaRS knows it.
    """

    port: int
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    accepted: int = 202

    def post(self, name: str) -> bytes:
        """Return a request with its own reference and key."""
        body = self.body.replace(MARK, name.encode().rjust(len(MARK), b"-"))
        request_id = str(uuid.uuid5(uuid.NAMESPACE_OID, name))
        own = {
            "Idempotency-Key": name,
            "X-Request-Id": request_id,
            "Content-Type": "application/json",
        }
        return self._head("POST", self.path, {**own, "Content-Length": str(len(body))}) + body

    def get(self, query: str) -> bytes:
        return self._head("GET", f"{self.path}?{query}", {})

    def _head(self, method: str, path: str, more: Mapping[str, str]) -> bytes:
        headers = {"Host": f"127.0.0.1:{self.port}", **self.headers, **more}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {it}" for name, it in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode()


class _Connection(asyncio.Protocol):
    """One keep-alive connection, one request at a time. Reads what our two servers write."""

    def __init__(self) -> None:
        self._read = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    async def call(self, request: bytes) -> tuple[int, bytes]:
        """Return (status, body)."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await asyncio.wait_for(self._answer, ANSWERED_WITHIN)

    def data_received(self, data: bytes) -> None:
        self._read += data
        end = self._read.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._read[:end]).lower()
        _, _, rest = head.partition(b"\r\ncontent-length:")
        length = int(rest.split(b"\r\n", 1)[0] or b"0")
        if len(self._read) < end + 4 + length:
            return
        body = bytes(self._read[end + 4 : end + 4 + length])
        self._read.clear()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((int(head[9:12]), body))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(LoadProblem("the server hung up"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Caller:
    """Calls one server over one connection at a time, a new one where it lay idle for long."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: _Connection | None = None
        self._used = 0.0

    async def call(self, request: bytes) -> tuple[int, bytes]:
        """Return (status, body)."""
        if self._connection is None or time.perf_counter() - self._used > LONGEST_IDLE:
            self.close()
            loop = asyncio.get_running_loop()
            _, made = await loop.create_connection(_Connection, "127.0.0.1", self._port)
            self._connection = made
        answer = await self._connection.call(request)
        self._used = time.perf_counter()
        return answer

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


def expect(status: int, wanted: int, body: bytes) -> None:
    if status != wanted:
        raise LoadProblem(f"answered {status} instead of {wanted}: {body[:500]!r}")


# -- as fast as it is answered -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Closed:
    """What a closed loop saw after its warm-up, each one's time; `all_requests` with warm-up."""

    requests: int
    seconds: float
    milliseconds: list[float]
    all_requests: int

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def closed_loop(door: Door, run: str, connections: int, warm_up: float, seconds: float) -> Closed:
    """Post on every connection, each as soon as it was answered. `run` makes references unique."""
    return asyncio.run(_closed_loop(door, run, connections, warm_up, seconds))


async def _closed_loop(
    door: Door, run: str, connections: int, warm_up: float, seconds: float
) -> Closed:
    opened = [Caller(door.port) for _ in range(connections)]
    begins = time.perf_counter() + warm_up
    ends = begins + seconds
    took: list[float] = []
    answers = 0

    async def client(number: int, connection: Caller) -> None:
        nonlocal answers
        for count in range(MOST // connections):
            sent = time.perf_counter()
            if sent >= ends:
                return
            status, body = await connection.call(door.post(f"{run}-{number}-{count}"))
            expect(status, door.accepted, body)
            answered = time.perf_counter()
            answers += 1
            if begins <= answered < ends:
                took.append((answered - sent) * 1000)

    try:
        async with asyncio.TaskGroup() as group:
            for number, connection in enumerate(opened):
                group.create_task(client(number, connection))
    finally:
        for connection in opened:
            connection.close()
    return Closed(len(took), seconds, took, answers)


# -- when the clock says so ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """What an open loop saw after its warm-up, in ms from the time at which each was to be sent."""

    accepted: list[float]
    visible: list[float]
    polls: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How often something is posted, for how long, and how often the inbox is looked at."""

    per_second: float
    warm_up: float
    seconds: float
    look_every: float
    connections: int = 64
    page: int = 20
    patience: float = 120.0


def open_loop(door: Door, inbox: Door, run: str, pace: Pace) -> Opened:
    """Post at fixed times and see when each stands in the inbox.

    A request that has to wait for a free connection waits on our clock, not on its own. Raises
    LoadProblem if one never stands there.
    """
    return asyncio.run(_OpenLoop(door, inbox, run, pace).run())


class _OpenLoop:
    def __init__(self, door: Door, inbox: Door, run: str, pace: Pace) -> None:
        self._door, self._inbox, self._run, self._pace = door, inbox, run, pace
        self._count = min(MOST, int(pace.per_second * (pace.warm_up + pace.seconds)))
        self._times: list[float] = []
        self._turns: asyncio.Queue[int | None] = asyncio.Queue()
        self._answers: dict[int, tuple[float, str]] = {}
        self._waiting: dict[str, float] = {}  # what was answered and not seen yet, by when
        self._latest = 0.0  # when the last was answered that was seen
        self._seen: dict[str, float] = {}
        self._polls = 0

    async def run(self) -> Opened:
        pace = self._pace
        connections = [Caller(self._door.port) for _ in range(pace.connections)]
        looking = Caller(self._inbox.port)
        start = time.perf_counter() + 0.1
        self._times = [start + number / pace.per_second for number in range(self._count)]
        try:
            async with asyncio.TaskGroup() as group:
                poller = group.create_task(self._look(looking))
                posters = [group.create_task(self._post(one)) for one in connections]
                await self._keep_time()
                await asyncio.gather(*posters)
                await poller
        finally:
            for connection in (*connections, looking):
                connection.close()
        return self._result()

    async def _keep_time(self) -> None:
        for number, due in enumerate(self._times):
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            self._turns.put_nowait(number)
        for _ in range(self._pace.connections):
            self._turns.put_nowait(None)

    async def _post(self, connection: Caller) -> None:
        while (number := await self._turns.get()) is not None:
            status, body = await connection.call(self._door.post(f"{self._run}-{number}"))
            expect(status, self._door.accepted, body)
            now, message = time.perf_counter(), json.loads(body)["messages"][0]["id"]
            self._answers[number] = now, message
            if message not in self._seen:
                self._waiting[message] = now

    async def _look(self, connection: Caller) -> None:
        places, at, back = [""], 0, LOOK_BACK
        gives_up = self._times[-1] + self._pace.patience
        # Of a load before, there may be others in the inbox.
        while self._waiting or len(self._answers) < self._count:
            if time.perf_counter() > gives_up:
                missing = self._count - len(self._answers) + len(self._waiting)
                raise LoadProblem(f"{missing} of {self._count} never stood in the inbox")
            request = self._inbox.get(f"limit={self._pace.page}&after={places[at]}")
            status, body = await connection.call(request)
            now = time.perf_counter()
            expect(status, 200, body)
            self._polls += 1
            page = json.loads(body)
            for row in page["deliveries"]:
                self._seen.setdefault(row["message"], now)
                self._latest = max(self._latest, self._waiting.pop(row["message"], 0.0))
            if page["next"]:
                at += 1
                if at == len(places):
                    places.append(page["next"])
            else:
                if self._has_gap():
                    at, back = max(0, at - back), 2 * back
                    del places[at + 1 :]  # what came between moves the pages after it
                else:
                    back = LOOK_BACK
                await asyncio.sleep(self._pace.look_every)

    def _has_gap(self) -> bool:
        """Whether something was seen that was answered well after something that was not: where
        several processes fan out, it may stand before the place that we have come to."""
        return next(iter(self._waiting.values()), math.inf) + GAP_SECONDS < self._latest

    def _result(self) -> Opened:
        accepted, visible = [], []
        first = int(self._pace.per_second * self._pace.warm_up)
        for number in range(first, self._count):
            answered, message = self._answers[number]
            accepted.append((answered - self._times[number]) * 1000)
            visible.append((self._seen[message] - self._times[number]) * 1000)
        return Opened(accepted, visible, self._polls)
