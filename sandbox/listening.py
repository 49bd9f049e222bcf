"""Listens inside somebody else's process: for partners that are called."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol


class Server(uvicorn.Server):
    """Serves inside somebody else's process: leaves its signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Resettable(H11Protocol):
    """HTTP on a connection that can be broken off with a reset, as a crashing peer does."""

    _open: dict[int, asyncio.Transport] = {}  # noqa: RUF012  one per process, by the peer's port

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._open[transport.get_extra_info("peername")[1]] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.pop(self.transport.get_extra_info("peername")[1], None)
        super().connection_lost(exc)

    @classmethod
    def reset(cls, peer_port: int) -> None:
        """Break a connection off at once: the other end gets a reset, not an end."""
        transport = cls._open.get(peer_port)
        if transport is not None:
            connection = transport.get_extra_info("socket")
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            transport.abort()
