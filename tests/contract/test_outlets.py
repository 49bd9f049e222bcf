"""What every outlet does, over HTTP in either way and in memory: one suite, inherited by all."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from broker.errors import Reject, Retry
from broker.events import UPDATE_SUBMITTED, Destination, Kind, Priority, Recorded, Role, digest
from broker.outbound import Http
from broker.outbound_memory import Answered, Memory, stored
from broker.ports import Delivery, Endpoint, Outlet, Receipt
from broker.settings import Settings
from sandbox.bars_receiver import BarsReceiver, Call, Scripted, outcome
from tests.bars_body import request

GP = Destination("G99002")
BODY = b'{"resourceType":"Bundle","type":"message"}'


def a_delivery(
    url: str = "", *, channel: str = "webhook", to: Destination = GP, body: bytes = BODY
) -> Delivery:
    event = Recorded(
        position=1,
        id="01a20000-0000-7000-8000-000000000001",
        type=UPDATE_SUBMITTED,
        source="urn:test",
        subject="01a20000-0000-7000-8000-000000000002",
        subject_seq=1,
        time=datetime(2026, 11, 22, tzinfo=UTC),
        dataschema="",
        message_id=None,
        correlation_id=None,
        causation_id=None,
        traceparent=None,
        priority=Priority.ROUTINE,
        facts={},
        routes=(),
    )
    return Delivery(
        id="01a20000-0000-5000-8000-000000000003",
        event=event,
        kind=Kind.UPDATE,
        destination=to,
        role=Role.ACTING,
        attempt=1,
        digest=digest(body),
        body=body,
        endpoint=Endpoint(to, channel, url),
    )


@dataclass
class Place:
    """A destination that answers as it is told, and an outlet that reaches it."""

    outlet: Outlet
    url: str
    answers: list[Answered] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


class OutletSuite:
    """The promises of `ports.Outlet`."""

    channel = "webhook"
    body = BODY

    def delivery(self, place: Place, channel: str | None = None) -> Delivery:
        return a_delivery(place.url, channel=channel or self.channel, body=self.body)

    def place(self) -> "asynccontextmanager[Place]":  # type: ignore[valid-type]
        raise NotImplementedError

    async def test_a_receipt_in_the_answer_is_the_outcome(self) -> None:
        async with self.place() as place:
            delivery = self.delivery(place)
            place.answers.append(stored(delivery))
            outcome = await place.outlet.post(delivery)
        assert outcome.receipt == Receipt(delivery.id, delivery.digest, GP.ods)
        assert outcome.status == 200
        assert place.bodies == [self.body]

    async def test_a_bare_success_has_no_receipt(self) -> None:
        async with self.place() as place:
            place.answers.append(Answered(204))
            outcome = await place.outlet.post(self.delivery(place))
        assert (outcome.receipt, outcome.status) == (None, 204)

    @pytest.mark.parametrize("status", [400, 410, 413, 415, 422])
    async def test_what_can_never_be_taken_is_rejected(self, status: int) -> None:
        async with self.place() as place:
            place.answers.append(Answered(status))
            with pytest.raises(Reject) as refused:
                await place.outlet.post(self.delivery(place))
        assert (refused.value.code, refused.value.status) == ("answered-4xx", status)

    @pytest.mark.parametrize(
        ("status", "code"),
        [(302, "redirected"), (401, "answered-4xx"), (404, "answered-4xx"), (500, "answered-5xx")],
    )
    async def test_what_may_pass_is_to_be_tried_again(self, status: int, code: str) -> None:
        async with self.place() as place:
            place.answers.append(Answered(status))
            with pytest.raises(Retry) as failed:
                await place.outlet.post(self.delivery(place))
        assert (failed.value.code, failed.value.status) == (code, status)

    async def test_each_call_sends_once(self) -> None:
        async with self.place() as place:
            place.answers += [Answered(500), Answered(204)]
            with pytest.raises(Retry):
                await place.outlet.post(self.delivery(place))
            await place.outlet.post(self.delivery(place))
        assert place.bodies == [self.body, self.body]

    async def test_an_inbox_is_nothing_to_send_to(self) -> None:
        async with self.place() as place:
            with pytest.raises(Retry) as failed:
                await place.outlet.post(self.delivery(place, "inbox"))
        assert failed.value.code == "not-connected"
        assert place.bodies == []


class TestMemory(OutletSuite):
    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:  # type: ignore[override]
        def receive(delivery: Delivery) -> Answered:
            made.bodies.append(delivery.body)
            return made.answers.pop(0)

        made = Place(Memory({GP.ods: receive}), "memory:")
        yield made


class TestHttp(OutletSuite):
    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:  # type: ignore[override]
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length:")[2].split("\r\n")[0])
            made.bodies.append(await reader.readexactly(length))
            answered = made.answers.pop(0)
            body = b""
            if answered.receipt is not None:
                receipt = answered.receipt
                said = {
                    "delivery": receipt.delivery,
                    "digest": receipt.digest,
                    "ods": receipt.ods,
                }
                body = json.dumps(said).encode()
            extra = "" if answered.status == 204 else f"Content-Length: {len(body)}\r\n"
            kind = "Content-Type: application/json\r\nConnection: close\r\n"
            writer.write(f"HTTP/1.1 {answered.status} X\r\n{extra}{kind}\r\n".encode() + body)
            await writer.drain()
            writer.close()

        async def secrets(_ods: str) -> list[bytes]:
            return [b"a secret of the destination"]

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        settings = Settings(allow_plain_http=True, public_url="https://broker.example")
        outlet = Http(settings, secrets)
        made = Place(outlet, f"http://127.0.0.1:{port}/inbound")
        try:
            yield made
        finally:
            await outlet.aclose()
            server.close()
            await server.wait_closed()


class TestBars(OutletSuite):
    channel = "bars"
    body = request(target=("", ""))

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:  # type: ignore[override]
        class Told(BarsReceiver):
            """Answers each message as the suite tells it, in the words of the standard."""

            def answer(self, call: Call) -> Scripted:
                if call.method == "GET":
                    return super().answer(call)
                made.bodies.append(call.body)
                answered = made.answers.pop(0)
                if answered.receipt is not None:
                    return super().answer(call)
                if answered.status < 300:
                    return Scripted(answered.status)
                return outcome(answered.status, "REC_X", "invalid")

        async def secrets(_ods: str) -> list[bytes]:
            return []

        settings = Settings(allow_plain_http=True, public_url="https://broker.example")
        receiver = Told()
        made = Place(Http(settings, secrets), receiver.url)
        await receiver.start()
        try:
            yield made
        finally:
            await made.outlet.aclose()  # type: ignore[attr-defined]
            await receiver.stop()
