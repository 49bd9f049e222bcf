"""What every message costs: its statements are built once in a process, for building one costs
several times what asking it does."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Delete, Insert, Select, Update

import broker
from tests.acceptance.place import Caller, Place, consultation, eventually, first

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGES = 12
OURS = str(Path(broker.__file__).parent)


async def test_no_statement_is_built_for_each_message(
    pharmacy: Caller, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def send() -> None:
        sent = first(await pharmacy.submit(consultation(practice="G99002")))

        async def is_received() -> bool:
            rows = await place.rows(
                "SELECT received_at FROM delivery WHERE message_id = :m", m=sent["id"]
            )
            return bool(rows) and rows[0].received_at is not None

        await eventually(is_received)

    async with confirming(place.webhook_port):
        await send()
        built = counted(monkeypatch)
        for _ in range(MESSAGES):
            await send()
    assert {ours: times for ours, times in built.items() if times >= MESSAGES / 2} == {}


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count from now on which of our functions build statements."""
    built: Counter[str] = Counter()

    def watch(kind: Any) -> None:
        original = kind.__init__

        def init(self: Any, *given: Any, **named: Any) -> None:
            frame = sys._getframe(1)
            while frame.f_back is not None and not frame.f_code.co_filename.startswith(OURS):
                frame = frame.f_back
            built[f"{Path(frame.f_code.co_filename).stem}.{frame.f_code.co_name}"] += 1
            original(self, *given, **named)

        monkeypatch.setattr(kind, "__init__", init)

    for kind in (Select, Insert, Update, Delete):
        watch(kind)
    return built


@asynccontextmanager
async def confirming(port: int) -> AsyncIterator[None]:
    """Have a webhook there that confirms whatever is sent to it."""

    async def confirm(read: asyncio.StreamReader, write: asyncio.StreamWriter) -> None:
        head = (await read.readuntil(b"\r\n\r\n")).decode().splitlines()[1:-1]
        said = {name.lower(): value for name, _, value in (line.partition(": ") for line in head)}
        await read.readexactly(int(said["content-length"]))
        receipt = {
            "delivery": said["webhook-id"],
            "digest": said["referral-broker-digest"],
            "ods": "G99002",
        }
        body = json.dumps(receipt).encode()
        write.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        await write.drain()
        write.close()

    async with await asyncio.start_server(confirm, "127.0.0.1", port):
        yield
