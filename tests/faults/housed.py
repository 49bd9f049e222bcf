"""For fault tests: a broker inside this process, and destinations that answer byte by byte."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import uvicorn
from sqlalchemy import event

from broker.api.app import create_app
from broker.settings import PREFIX, Settings
from broker.store.store import Store
from sandbox.process import BrokerProcess


class HousedBroker(BrokerProcess):
    """The broker over real HTTP, in this process, so that its disk can be made to be full."""

    _serving: asyncio.Task[None] | None = None
    _server: uvicorn.Server | None = None
    store: Store

    @classmethod
    def like(cls, other: BrokerProcess) -> "HousedBroker":
        """Return one in the place of a process that was not started yet."""
        return cls(other.url, other.settings, other.log_path)

    async def start(self, *, crashpoint: str = "", **settings: str) -> None:
        given = {**self.settings, **settings}
        chosen = Settings(**{name.removeprefix(PREFIX).lower(): v for name, v in given.items()})
        ready = asyncio.Event()
        self._serving = asyncio.create_task(self._serve(chosen, ready))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({waiting, self._serving}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._serving.done():
            self._serving.result()

    async def stop(self) -> int | None:
        if self._serving is not None and self._server is not None:
            self._server.should_exit = True
            await self._serving
            self._serving = None
        return 0

    async def _serve(self, settings: Settings, ready: asyncio.Event) -> None:
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            self.store = app.state.broker.store
            self._server = _Server(ready, app, settings.port)
            await self._server.serve()

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """While it lasts the database cannot grow by one page: SQLite says that the disk is full.

        The limit belongs to a connection, so each of the writer's transactions begins with it.
        """

        def limit(connection: Any) -> None:
            connection.exec_driver_sql("PRAGMA max_page_count=1")  # the least that it can be

        def unlimit(connection: Any) -> None:
            connection.exec_driver_sql("PRAGMA max_page_count=4294967294")

        writer = self.store.writer
        event.listen(writer, "begin", limit)
        try:
            yield
        finally:
            event.remove(writer, "begin", limit)
            event.listen(writer, "begin", unlimit)


class _Server(uvicorn.Server):
    def __init__(self, ready: asyncio.Event, app: Any, port: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                port=port,
                lifespan="off",
                interface="asgi3",
                ws="none",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=1,
            )
        )
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


Answering = Callable[["Call", asyncio.StreamWriter], Awaitable[None]]


class Call:
    """One request as it came to a rude destination."""

    def __init__(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.path, self.headers, self.body = path, headers, body

    @property
    def delivery(self) -> str:
        return self.headers["webhook-id"]


class Rude:
    """Listens in the place of a webhook and answers as `answering` says, byte by byte."""

    def __init__(self, url: str, answering: Answering) -> None:
        self._port = int(url.split(":")[2].split("/")[0])
        self._answering = answering
        self.calls: list[Call] = []

    @asynccontextmanager
    async def running(self) -> Any:
        """Listen while it lasts."""
        talks: set[asyncio.Task[None]] = set()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            talks.add(task)
            try:
                await self._talk(reader, writer)
            except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                talks.discard(task)
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()

        server = await asyncio.start_server(talk, "127.0.0.1", self._port)
        try:
            yield self
        finally:
            server.close()
            for task in tuple(talks):
                task.cancel()
            await asyncio.gather(*talks, return_exceptions=True)
            await server.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in head[1:-2])
            }
            body = await reader.readexactly(int(headers["content-length"]))
            call = Call(head[0].split(" ")[1], headers, body)
            self.calls.append(call)
            await self._answering(call, writer)
            await writer.drain()


def with_status(status: int, *headers: str) -> Answering:
    """Answer with a status and nothing else."""

    async def say(_: Call, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} -", "Content-Length: 0", *headers]
        writer.write("\r\n".join([*lines, "", ""]).encode())

    return say


async def broken_off(_: Call, writer: asyncio.StreamWriter) -> None:
    """Answer 200, begin a receipt, and reset the connection in the middle of it."""
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"delivery": "')
    await writer.drain()
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    raise ConnectionResetError


async def for_ever(_: Call, writer: asyncio.StreamWriter) -> None:
    """Answer 200 and never stop talking."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while True:
        writer.write(b"x" * 16_384)
        await writer.drain()


async def never(_: Call, writer: asyncio.StreamWriter) -> None:
    """Take it and say nothing."""
    await asyncio.Event().wait()
