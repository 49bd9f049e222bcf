"""A network between the broker and PostgreSQL that breaks off, hangs, or cuts exactly at COMMIT.

Knows just enough of PostgreSQL's protocol (version 3, without TLS) to tell one message from the
next, and a COMMIT of a transaction that wrote from any other. Cut before it, the server never hears
of it; cut after it, the server has committed and the broker never hears of that. Either way the
broker cannot know.
"""

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

HOST: Final = "127.0.0.1"
BEFORE: Final = "cut before COMMIT"
AFTER: Final = "cut after COMMIT"
WITHHELD: Final = "bytes withheld"
BROKEN_OFF: Final = "connections broken off"
TURNED_AWAY: Final = "connections turned away"
_SHARE: Final = 0.2
_CHUNK: Final = 65_536
_ENCRYPTION_ASKED: Final = frozenset({80_877_103, 80_877_104})  # SSLRequest, GSSENCRequest
_WRITES: Final = (b"INSERT", b"UPDATE", b"DELETE")


@dataclass(eq=False)
class _Talk:
    """One connection of the broker and the server's end of it."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    has_written: bool = False
    is_to_be_cut: bool = False  # once the server says that it has committed


@dataclass
class FaultProxy:
    """Passes everything on, until it is told to do harm; what it did is counted in `acted`.

    `cut_share` is how many of the COMMITs are cut, in one of the `ways`.
    """

    server: Path  # PostgreSQL's Unix socket
    chance: random.Random
    cut_share: float = 0.0
    ways: tuple[str, ...] = (BEFORE, AFTER)
    acted: Counter[str] = field(default_factory=Counter)
    _port: int = 0
    _is_shut: bool = False
    _speaking: asyncio.Event = field(default_factory=asyncio.Event)
    _talks: set[_Talk] = field(default_factory=set)

    def url(self, database: str, owner: str) -> str:
        """Return the URL by which a database is reached through here."""
        return f"postgresql://{owner}@{HOST}:{self._port}/{database}?sslmode=disable"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Pass on while it lasts."""
        self._speaking.set()
        listening = await asyncio.start_server(self._talk, HOST, 0)
        self._port = listening.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            listening.close()
            self._is_shut = True
            self._speaking.set()
            self._break_all_off()

    # -- harm ------------------------------------------------------------------------------------

    def cut_at_commit(self) -> None:
        """Cut one COMMIT of five."""
        self.cut_share = _SHARE

    def hang(self) -> None:
        """Pass nothing on any more; every connection stays open."""
        self._speaking.clear()

    def shut(self) -> None:
        """Break every connection off, and turn away who comes."""
        self._is_shut = True
        self.acted[BROKEN_OFF] += len(self._talks)
        self._break_all_off()

    def heal(self) -> None:
        """Do no more harm; what was withheld is passed on now."""
        self._is_shut, self.cut_share = False, 0.0
        self._speaking.set()

    # -- passing on ------------------------------------------------------------------------------

    async def _talk(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self._is_shut:
            self.acted[TURNED_AWAY] += 1
            client.transport.abort()
            return
        try:
            answers, server = await asyncio.open_unix_connection(str(self.server))
        except OSError:  # it is down just now
            client.transport.abort()
            return
        talk = _Talk(client, server)
        self._talks.add(talk)
        both = [
            asyncio.create_task(self._ask(talk, reader)),
            asyncio.create_task(self._answer(talk, answers)),
        ]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._talks.discard(talk)
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            self._break_off(talk)

    async def _ask(self, talk: _Talk, reader: asyncio.StreamReader) -> None:
        """Pass on what the broker asks, but for a COMMIT that is cut before."""
        with suppress(OSError, asyncio.IncompleteReadError):
            await self._begin(talk, reader)
            left = b""
            while chunk := await reader.read(_CHUNK):
                left += chunk
                for message in _messages(left):
                    left = left[len(message) :]
                    if _is_commit(message) and talk.has_written and self._is_unlucky():
                        if self.chance.choice(self.ways) == BEFORE:
                            self.acted[BEFORE] += 1
                            return
                        talk.is_to_be_cut = True
                    await self._pass_on(talk.server, message)

    async def _begin(self, talk: _Talk, reader: asyncio.StreamReader) -> None:
        """Pass on the first message, which has no kind; there is no encryption here."""
        while True:
            head = await reader.readexactly(8)
            size, code = struct.unpack("!II", head)
            if code not in _ENCRYPTION_ASKED:
                await self._pass_on(talk.server, head + await reader.readexactly(size - 8))
                return
            await self._pass_on(talk.client, b"N")

    async def _answer(self, talk: _Talk, answers: asyncio.StreamReader) -> None:
        """Pass on what the server answers, but for the word that it has committed what is cut."""
        left = b""
        with suppress(OSError):
            while chunk := await answers.read(_CHUNK):
                left += chunk
                whole = 0
                for message in _messages(left):
                    if message[:1] == b"C":  # a command was completed
                        tag = message[5:-1]
                        if tag == b"COMMIT" and talk.is_to_be_cut:
                            self.acted[AFTER] += 1
                            return
                        talk.is_to_be_cut = False
                        wrote = tag.startswith(_WRITES) and not tag.endswith(b" 0")
                        talk.has_written = wrote or (
                            talk.has_written and tag not in {b"COMMIT", b"ROLLBACK"}
                        )
                    whole += len(message)
                await self._pass_on(talk.client, left[:whole])
                left = left[whole:]

    async def _pass_on(self, to: asyncio.StreamWriter, said: bytes) -> None:
        if not self._speaking.is_set():
            self.acted[WITHHELD] += len(said)
            await self._speaking.wait()
        to.write(said)
        await to.drain()

    def _is_unlucky(self) -> bool:
        return self.chance.random() < self.cut_share

    def _break_all_off(self) -> None:
        for talk in tuple(self._talks):
            self._break_off(talk)

    def _break_off(self, talk: _Talk) -> None:
        """End both ends: the broker's by an end, or by a reset as from a machine that restarted."""
        if self.chance.random() < 0.5:
            connection = talk.client.get_extra_info("socket")
            with suppress(OSError):  # it has ended by itself
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        talk.client.transport.abort()
        talk.server.transport.abort()


def _messages(said: bytes) -> Iterator[bytes]:
    """Yield each whole message: its kind, its length without the kind, its body."""
    place = 0
    while len(said) >= place + 5:
        end = place + 1 + int.from_bytes(said[place + 1 : place + 5], "big")
        if len(said) < end:
            return
        yield said[place:end]
        place = end


def _is_commit(message: bytes) -> bool:
    """Whether a message asks to commit: as a simple query, or parsed under a name or none."""
    kind, body = message[:1], message[5:]
    if kind == b"Q":
        return body == b"COMMIT\0"
    return kind == b"P" and body.split(b"\0")[1] == b"COMMIT"
