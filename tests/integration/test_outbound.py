# ruff: noqa: RUF001 - the corpus is made of characters that are taken for others
"""The one way out, against real servers on loopback that answer well, badly, slowly and never."""

import asyncio
import json
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks import Webhook

from broker.errors import Reject, Retry
from broker.events import UPDATE_SUBMITTED, Destination, Kind, Priority, Recorded, Role, uuid7
from broker.events import digest as digest_of
from broker.lookup import is_own
from broker.outbound import LARGEST_ANSWER, Http, read_receipt, retry_after
from broker.ports import Delivery, Endpoint, Receipt
from broker.settings import Settings

pytestmark = pytest.mark.slow

BODY = '{"resourceType":"Bundle","note":"Zoë, 1.50 µg — as it came"}'.encode()
SECRETS = [b"first secret of twenty-four", b"second secret, older by far"]
BASE = "https://broker.example.nhs.uk"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SOON = 0.4


# -- the other end -------------------------------------------------------------------------------


@dataclass
class Request:
    """What a peer was sent."""

    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def __getitem__(self, name: str) -> str:
        (value,) = [v for n, v in self.headers if n.lower() == name.lower()]
        return value

    @property
    def names(self) -> set[str]:
        return {name.lower() for name, _ in self.headers}


Answering = Callable[["Peer", Request, asyncio.StreamWriter], Awaitable[None]]


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(
    talk: Talk, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Serve on a free port, which is told, until it is enough; then nothing of it is left."""
    tasks: set[asyncio.Task[None]] = set()

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(tracked, host, 0, ssl=tls)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        left = [task for task in tasks if task.cancel()]
        await asyncio.gather(*left, return_exceptions=True)
        await asyncio.sleep(0.001)


@dataclass
class Peer:
    """A real server on a socket, which counts connections and keeps requests."""

    answering: Answering
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    at_once: int = 0
    most_at_once: int = 0
    server_names: list[str | None] = field(default_factory=list)

    @asynccontextmanager
    async def running(
        self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> AsyncIterator["Peer"]:
        if tls is not None:
            tls.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
        async with listening(self._talk, host, tls) as self.port:
            yield self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?site=1"

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = [(n, v.strip()) for n, _, v in (h.partition(":") for h in head[1:-2])]
                length = int(next(v for n, v in headers if n.lower() == "content-length"))
                request = Request(head[0], headers, await reader.readexactly(length))
                self.requests.append(request)
                await self.answering(self, request, writer)
                await writer.drain()
        finally:
            self.at_once -= 1


def answer(status: str = "200 OK", body: bytes = b"", *headers: str) -> Answering:
    async def say(_: Peer, __: Request, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", *headers]
        if not status.startswith(("204", "304")):
            lines.append(f"Content-Length: {len(body)}")
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    return say


async def with_receipt(_: Peer, request: Request, writer: asyncio.StreamWriter) -> None:
    named = {
        "delivery": request["webhook-id"],
        "digest": digest_of(request.body),
        "ods": "A81001",
        "stored": True,
    }
    await answer("201 Created", json.dumps(named).encode())(_, request, writer)


def raw(*parts: bytes, every: float = 0.0, then: str = "close") -> Answering:
    """Say these bytes, with a pause after each, then close, reset, or stay silent."""

    async def say(_: Peer, __: Request, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(every)
        if then == "silence":
            await asyncio.sleep(30)
        if then == "reset":
            linger = struct.pack("ii", 1, 0)
            raw_socket = writer.get_extra_info("socket")
            raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        raise ConnectionAbortedError

    return say


OK_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


StartPeer = Callable[..., Awaitable[Peer]]
MakeHttp = Callable[..., Http]


@pytest.fixture
def peer(stack: AsyncExitStack) -> StartPeer:
    async def start(
        answering: Answering, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
    ) -> Peer:
        return await stack.enter_async_context(Peer(answering).running(host, tls))

    return start


@pytest.fixture
def http(stack: AsyncExitStack) -> MakeHttp:
    def make(*, secrets: Sequence[bytes] = SECRETS, resolve: Any = None, **changes: Any) -> Http:
        more = {name: changes.pop(name) for name in ("now", "tls") if name in changes}
        values: dict[str, Any] = {
            "public_url": BASE,
            "allow_plain_http": True,
            "send_timeout": 5.0,
        } | changes

        async def given(ods: str) -> Sequence[bytes]:
            assert ods == "A81001"
            return secrets

        made = Http(Settings(**values), given, resolve=resolve, **more)
        stack.push_async_callback(made.aclose)
        return made

    return make


def a_delivery(url: str, **changes: Any) -> Delivery:
    event = Recorded(
        position=1,
        id=uuid7(),
        type=UPDATE_SUBMITTED,
        source="urn:referral-broker:test",
        subject=uuid7(),
        subject_seq=1,
        time=datetime(2026, 11, 23, tzinfo=UTC),
        dataschema="",
        message_id=uuid7(),
        correlation_id=None,
        causation_id=None,
        traceparent=changes.pop("traceparent", TRACE),
        priority=Priority.ROUTINE,
        facts={},
        routes=(),
    )
    destination = Destination("A81001")
    body = changes.pop("body", BODY)
    made = {
        "id": "0d2f6f3a-6f0e-5d0c-9a53-4d1f6f9f2c11",
        "event": event,
        "kind": Kind.UPDATE,
        "destination": destination,
        "role": Role.ACTING,
        "attempt": 3,
        "digest": digest_of(body),
        "body": body,
        "endpoint": Endpoint(destination, changes.pop("channel", "webhook"), url),
    }
    return Delivery(**(made | changes))


async def failure(http: Http, delivery: Delivery) -> Retry | Reject:
    try:
        outcome = await http.post(delivery)
    except (Retry, Reject) as failed:
        return failed
    pytest.fail(f"not refused: {outcome}")


# -- what is sent --------------------------------------------------------------------------------


async def test_the_body_is_sent_as_it_is_with_what_the_receiver_must_know(
    peer: StartPeer, http: MakeHttp
) -> None:
    there = await peer(with_receipt)
    delivery = a_delivery(there.url)
    await http().post(delivery)
    (request,) = there.requests
    assert request.line == "POST /hook?site=1 HTTP/1.1"
    assert request.body == BODY
    assert request["content-type"] == "application/fhir+json"
    assert request["host"] == f"127.0.0.1:{there.port}"
    assert request["webhook-id"] == delivery.id
    assert request["referral-broker-kind"] == "update"
    assert request["referral-broker-digest"] == f"sha-256={digest_of(BODY)}"
    assert request["referral-broker-receipt"] == f"{BASE}/inbox/{delivery.id}/receipt"
    assert request["referral-broker-attempt"] == "3"
    assert request["traceparent"] == TRACE
    assert request["accept-encoding"] == "identity"


@pytest.mark.parametrize("trace", [None, "", "x", f"{TRACE}\r\nX-Evil: 1", f"{TRACE}\n"])
async def test_a_trace_that_is_none_is_left_out(
    peer: StartPeer, http: MakeHttp, trace: str | None
) -> None:
    there = await peer(answer())
    await http().post(a_delivery(there.url, traceparent=trace))
    assert not there.requests[0].names & {"traceparent", "x-evil"}


@pytest.mark.parametrize("secret", SECRETS)
async def test_the_signature_verifies_with_each_of_two_secrets(
    peer: StartPeer, http: MakeHttp, secret: bytes
) -> None:
    there = await peer(answer())
    await http().post(a_delivery(there.url))
    (request,) = there.requests
    assert request["webhook-signature"].count("v1,") == 2
    Webhook(secret).verify(request.body, dict(request.headers))


async def test_each_attempt_has_the_same_id_and_a_fresh_timestamp(
    peer: StartPeer, http: MakeHttp
) -> None:
    there = await peer(answer())
    times = iter([datetime(2026, 11, 23, 9, tzinfo=UTC), datetime(2026, 11, 23, 10, tzinfo=UTC)])
    outlet = http(now=lambda: next(times))
    for _ in range(2):
        await outlet.post(a_delivery(there.url))
    first, second = there.requests
    assert first["webhook-id"] == second["webhook-id"]
    assert int(second["webhook-timestamp"]) - int(first["webhook-timestamp"]) == 3600
    assert first["webhook-signature"] != second["webhook-signature"]


async def test_without_a_secret_nothing_is_sent(peer: StartPeer, http: MakeHttp) -> None:
    there = await peer(answer())
    failed = await failure(http(secrets=[]), a_delivery(there.url))
    assert (type(failed), failed.code) == (Retry, "not-connected")
    assert there.connections == 0


async def test_to_an_inbox_nothing_is_sent(peer: StartPeer, http: MakeHttp) -> None:
    there = await peer(answer())
    failed = await failure(http(), a_delivery(there.url, channel="inbox"))
    assert failed.code == "not-connected"
    assert there.connections == 0


async def test_cookies_are_not_kept(peer: StartPeer, http: MakeHttp) -> None:
    there = await peer(answer("200 OK", b"", "Set-Cookie: a=b"))
    outlet = http()
    for _ in range(2):
        await outlet.post(a_delivery(there.url))
    assert "cookie" not in there.requests[1].names


async def test_proxies_of_the_environment_are_not_used(
    peer: StartPeer, http: MakeHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, trap = await peer(answer()), await peer(answer())
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{trap.port}")
    await http().post(a_delivery(there.url))
    assert (there.connections, trap.connections) == (1, 0)


# -- what is answered ----------------------------------------------------------------------------


async def test_a_receipt_in_the_answer_is_the_outcome(peer: StartPeer, http: MakeHttp) -> None:
    there = await peer(with_receipt)
    delivery = a_delivery(there.url)
    outcome = await http().post(delivery)
    assert outcome.receipt == Receipt(delivery.id, digest_of(BODY), "A81001")
    assert outcome.status == 201


async def test_a_receipt_for_something_else_is_handed_on_as_evidence(
    peer: StartPeer, http: MakeHttp
) -> None:
    lie = {"delivery": "another", "digest": "00", "ods": "X99999"}
    there = await peer(answer("200 OK", json.dumps(lie).encode()))
    assert (await http().post(a_delivery(there.url))).receipt == Receipt("another", "00", "X99999")


GOOD = {"delivery": "d", "digest": "e", "ods": "A81001"}
NO_RECEIPTS: dict[str, bytes] = {
    "nothing": b"",
    "text": b"OK",
    "HTML": b"<html></html>",
    "an empty object": b"{}",
    "a list": json.dumps([GOOD]).encode(),
    "null": b"null",
    "half of it": json.dumps(GOOD).encode()[:-1],
    "no ODS code": json.dumps({"delivery": "d", "digest": "e"}).encode(),
    "an empty digest": json.dumps(GOOD | {"digest": ""}).encode(),
    "a number for a delivery": json.dumps(GOOD | {"delivery": 1}).encode(),
    "an ODS code of null": json.dumps(GOOD | {"ods": None}).encode(),
    "a very long ODS code": json.dumps(GOOD | {"ods": "A" * 257}).encode(),
    "an ODS code twice": b'{"delivery":"d","digest":"e","ods":"A81001","ods":"B"}',
    "not UTF-8": b'{"delivery":"d","digest":"e","ods":"\xff"}',
    "a NUL": b'{"delivery":"d","digest":"e","ods":"A\\u0000"}',
    "half of a surrogate pair": b'{"delivery":"d","digest":"e","ods":"\\ud800"}',
    "deep nesting": b"[" * 10_000,
    "a number that nothing holds": b'{"x":1e99999999999999999999}',
}


@pytest.mark.parametrize("body", [pytest.param(b, id=name) for name, b in NO_RECEIPTS.items()])
async def test_a_2xx_that_is_no_receipt_is_a_bare_one(
    peer: StartPeer, http: MakeHttp, body: bytes
) -> None:
    there = await peer(answer("202 Accepted", body))
    outcome = await http().post(a_delivery(there.url))
    assert (outcome.receipt, outcome.status) == (None, 202)


async def test_no_content_is_a_bare_2xx(peer: StartPeer, http: MakeHttp) -> None:
    there = await peer(answer("204 No Content"))
    outcome = await http().post(a_delivery(there.url))
    assert (outcome.receipt, outcome.status) == (None, 204)


async def test_a_compressed_answer_is_not_unpacked(peer: StartPeer, http: MakeHttp) -> None:
    there = await peer(answer("200 OK", b"\x1f\x8b\x08bomb", "Content-Encoding: gzip"))
    assert (await http().post(a_delivery(there.url))).receipt is None


@pytest.mark.parametrize("length", ["Content-Length: 99999999999", "Transfer-Encoding: chunked"])
async def test_of_a_2xx_over_the_limit_no_more_is_read_and_it_is_a_bare_one(
    peer: StartPeer, http: MakeHttp, length: str
) -> None:
    sent = 0

    async def endless(_: Peer, __: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(OK_HEAD + f"{length}\r\n\r\n".encode())
        part = b"x" * 4096 if "Length" in length else b"1000\r\n" + b"x" * 4096 + b"\r\n"
        while True:
            writer.write(part)
            sent += 4096
            await writer.drain()

    there = await peer(endless)
    outcome = await http().post(a_delivery(there.url))
    assert (outcome.receipt, outcome.status) == (None, 200)
    # What the two kernels buffer between them is sent too, but no flood.
    assert sent < LARGEST_ANSWER + 16_000_000


async def test_an_answer_of_exactly_the_limit_is_read(peer: StartPeer, http: MakeHttp) -> None:
    body = json.dumps(GOOD).encode()
    there = await peer(answer("200 OK", body + b" " * (LARGEST_ANSWER - len(body))))
    assert (await http().post(a_delivery(there.url))).receipt is not None


@pytest.mark.parametrize("status", [400, 410, 413, 415, 422])
async def test_what_will_never_be_taken_is_rejected(
    peer: StartPeer, http: MakeHttp, status: int
) -> None:
    there = await peer(answer(f"{status} No", b"why"))
    failed = await failure(http(), a_delivery(there.url))
    assert (type(failed), failed.code, failed.status) == (Reject, "answered-4xx", status)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *((status, "answered-4xx") for status in (401, 403, 404, 408, 409, 425, 429, 451)),
        *((status, "answered-5xx") for status in (500, 501, 502, 503, 504, 599)),
    ],
)
async def test_what_may_pass_is_tried_again(
    peer: StartPeer, http: MakeHttp, status: int, code: str
) -> None:
    there = await peer(answer(f"{status} No"))
    failed = await failure(http(), a_delivery(there.url))
    assert (type(failed), failed.code, failed.status) == (Retry, code, status)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(peer: StartPeer, http: MakeHttp, status: int) -> None:
    trap = await peer(answer())
    there = await peer(answer(f"{status} Moved", b"", f"Location: {trap.url}"))
    failed = await failure(http(), a_delivery(there.url))
    assert (type(failed), failed.code, failed.status) == (Retry, "redirected", status)
    assert (trap.connections, len(there.requests)) == (0, 1)


async def test_what_a_refusal_goes_on_to_say_is_not_waited_for(
    peer: StartPeer, http: MakeHttp
) -> None:
    head = b"HTTP/1.1 503 No\r\nContent-Length: 5000\r\n\r\n"
    there = await peer(raw(head, then="silence"))
    # Waited for, it would be timed out, and no status be known.
    assert (await failure(http(), a_delivery(there.url))).status == 503


NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)


async def test_a_retry_after_is_respected(peer: StartPeer, http: MakeHttp) -> None:
    there = await peer(answer("429 Too Many", b"", "Retry-After: 120"))
    failed = await failure(http(now=lambda: NOW), a_delivery(there.url))
    assert isinstance(failed, Retry)
    assert failed.not_before == NOW + timedelta(minutes=2)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("0", NOW),
        (" 60 ", NOW + timedelta(minutes=1)),
        ("Mon, 23 Nov 2026 11:00:00 GMT", NOW + timedelta(hours=1)),
        ("Mon, 23 Nov 2026 11:00:00 -0000", NOW + timedelta(hours=1)),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("60, 120", None),
        ("99999999999999999999", None),
        ("٣", None),
        ("Fri, 31 Dec 9999 23:59:59 -1200", None),
        ("Mon, 99 Nov 2026 11:00:00 GMT", None),
    ],
)
def test_a_retry_after_that_cannot_be_read_is_none(
    value: str | None, expected: datetime | None
) -> None:
    assert retry_after(value, NOW) == expected


@pytest.mark.parametrize("digest", ["sha-256=e3b0", "SHA-256=E3B0", "E3B0"])
def test_a_digest_may_be_written_as_in_our_own_header_and_in_either_case(digest: str) -> None:
    found = read_receipt(json.dumps(GOOD | {"digest": digest}).encode())
    assert found == Receipt("d", "e3b0", "A81001")


def test_a_receipt_may_say_more_than_it_must() -> None:
    assert read_receipt(json.dumps(GOOD | {"more": 1.5}).encode()) == Receipt("d", "e", "A81001")


# -- what breaks ---------------------------------------------------------------------------------

BREAKS: dict[str, Answering] = {
    "closes without an answer": raw(),
    "resets without an answer": raw(then="reset"),
    "speaks something else": raw(b"SSH-2.0-OpenSSH_9.9\r\n"),
    "closes within the head": raw(OK_HEAD),
    "closes within the body": raw(OK_HEAD + b"Content-Length: 90\r\n\r\n{"),
    "resets within the body": raw(OK_HEAD + b"Content-Length: 90\r\n\r\n{", then="reset"),
    "closes within a chunk": raw(OK_HEAD + b"Transfer-Encoding: chunked\r\n\r\nff\r\n{"),
    "names two lengths": raw(OK_HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} "),
    "has no end of headers": raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000),
}


@pytest.mark.parametrize("answering", [pytest.param(a, id=name) for name, a in BREAKS.items()])
async def test_what_breaks_off_is_tried_again(
    peer: StartPeer, http: MakeHttp, answering: Answering
) -> None:
    there = await peer(answering)
    failed = await failure(http(), a_delivery(there.url))
    assert (type(failed), failed.code) == (Retry, "connection-lost")


async def test_a_port_that_nobody_listens_on_is_tried_again(http: MakeHttp) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        failed = await failure(http(), a_delivery(f"http://127.0.0.1:{port}/"))
    assert (type(failed), failed.code) == (Retry, "connection-failed")


async def test_a_name_that_is_not_found_is_tried_again(http: MakeHttp) -> None:
    async def nowhere(_: str, __: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    failed = await failure(http(resolve=nowhere), a_delivery("https://gp.example.nhs.uk/"))
    assert (type(failed), failed.code) == (Retry, "connection-failed")


SLOW: dict[str, Answering] = {
    "says nothing": raw(then="silence"),
    "drips its head": raw(*(bytes([b]) for b in OK_HEAD), every=0.05),
    "drips its body": raw(
        OK_HEAD + b"Content-Length: 1000\r\n\r\n", *(b" " for _ in range(999)), every=0.05
    ),
    "stops within its body": raw(OK_HEAD + b"Content-Length: 9\r\n\r\n{", then="silence"),
    "says continue for ever": raw(
        *(b"HTTP/1.1 100 Continue\r\n\r\n" for _ in range(99)), every=0.05
    ),
}


@pytest.mark.parametrize("answering", [pytest.param(a, id=name) for name, a in SLOW.items()])
async def test_what_is_slow_in_any_way_is_timed_out_in_all(
    peer: StartPeer, http: MakeHttp, answering: Answering
) -> None:
    there = await peer(answering)
    # What drips comes to an end, and would then be another failure or none.
    failed = await failure(http(send_timeout=SOON), a_delivery(there.url))
    assert (type(failed), failed.code) == (Retry, "timed-out")


async def test_one_that_does_not_read_is_timed_out(stack: AsyncExitStack, http: MakeHttp) -> None:
    async def deaf(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(30)

    url = f"http://127.0.0.1:{await stack.enter_async_context(listening(deaf))}/"
    body = b"x" * 30_000_000
    failed = await failure(http(send_timeout=SOON), a_delivery(url, body=body))
    assert failed.code == "timed-out"


async def test_a_name_server_that_hangs_is_timed_out(http: MakeHttp) -> None:
    async def hangs(_: str, __: int) -> Sequence[str]:
        await asyncio.sleep(30)
        return []

    delivery = a_delivery("https://gp.example.nhs.uk/")
    assert (await failure(http(send_timeout=SOON, resolve=hangs), delivery)).code == "timed-out"


# -- connections ---------------------------------------------------------------------------------


async def test_a_connection_is_used_again(peer: StartPeer, http: MakeHttp) -> None:
    there = await peer(with_receipt)
    outlet = http()
    for _ in range(5):
        await outlet.post(a_delivery(there.url))
    assert (there.connections, len(there.requests)) == (1, 5)


async def test_one_destination_never_has_more_connections_than_its_slots(
    peer: StartPeer, http: MakeHttp
) -> None:
    async def slowly(p: Peer, request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.02)
        await answer()(p, request, writer)

    there = await peer(slowly)
    outlet = http(slots_per_destination=2)
    await asyncio.gather(*(outlet.post(a_delivery(there.url)) for _ in range(12)))
    assert (there.most_at_once, len(there.requests)) == (2, 12)


async def test_a_dead_destination_takes_nothing_from_another(
    peer: StartPeer, http: MakeHttp
) -> None:
    dead, alive = await peer(raw(then="silence")), await peer(answer())
    outlet = http(slots_per_destination=2)
    stuck = [asyncio.create_task(outlet.post(a_delivery(dead.url))) for _ in range(20)]
    await asyncio.sleep(0.1)
    async with asyncio.timeout(2):
        for _ in range(20):
            await outlet.post(a_delivery(alive.url))
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)


async def test_what_is_kept_open_is_bounded_over_all_destinations(
    peer: StartPeer, http: MakeHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.outbound.connections.MOST_POOLS", 2)
    peers = [await peer(answer()) for _ in range(5)]
    outlet = http()
    for there in peers:
        await outlet.post(a_delivery(there.url))
    for _ in range(500):
        if sum(there.at_once for there in peers) == 2:
            break
        await asyncio.sleep(0.01)
    assert [there.at_once for there in peers] == [0, 0, 0, 1, 1]


async def test_a_cancelled_attempt_gives_its_connection_back(
    peer: StartPeer, http: MakeHttp
) -> None:
    there = await peer(raw(then="silence"))
    outlet = http(slots_per_destination=2)
    for _ in range(6):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await outlet.post(a_delivery(there.url))
    assert len(there.requests) == 6


async def test_the_next_address_is_tried_if_the_first_cannot_be_connected_to(
    peer: StartPeer, http: MakeHttp
) -> None:
    there = await peer(answer())

    async def two(_: str, __: int) -> Sequence[str]:
        return ["127.0.0.9", "127.0.0.1"]

    await http(resolve=two).post(a_delivery(f"http://gp.example.nhs.uk:{there.port}/"))
    assert there.requests[0]["host"] == f"gp.example.nhs.uk:{there.port}"


async def test_the_system_finds_names_without_holding_up_the_loop(
    peer: StartPeer, http: MakeHttp
) -> None:
    there = await peer(answer())
    outlet = http()
    url = f"http://localhost:{there.port}/"
    await asyncio.gather(*(outlet.post(a_delivery(url)) for _ in range(5)))
    assert len(there.requests) == 5


# -- TLS -----------------------------------------------------------------------------------------


@dataclass
class Authority:
    """A certification authority of one test run."""

    folder: Path
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def __post_init__(self) -> None:
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
        self.certificate = self._sign(self.key, self.name, ca=True)
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def serving(self, name: str) -> ssl.SSLContext:
        """A server's context with a certificate for one name."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = self._sign(key, subject, san=name)
        path = self.folder / f"{name}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + made.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(path)
        return context

    def trusting(self) -> ssl.SSLContext:
        """A client's context that trusts nobody else."""
        return ssl.create_default_context(cadata=self.pem)

    def _sign(
        self,
        key: ec.EllipticCurvePrivateKey,
        subject: x509.Name,
        *,
        san: str = "",
        ca: bool = False,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        identifier = x509.SubjectKeyIdentifier.from_public_key
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(identifier(key.public_key()), critical=False)
        )
        if ca:  # Python 3.13 demands it of an authority
            usage = dict.fromkeys(
                (
                    "content_commitment",
                    "key_encipherment",
                    "data_encipherment",
                    "key_agreement",
                    "encipher_only",
                    "decipher_only",
                ),
                False,
            )
            signing = x509.KeyUsage(
                digital_signature=True, key_cert_sign=True, crl_sign=True, **usage
            )
            builder = builder.add_extension(signing, critical=True)
        if san:
            issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(san)]), critical=False
            ).add_extension(issuer, critical=False)
        return builder.sign(self.key, hashes.SHA256())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


async def on_loopback(_: str, __: int) -> Sequence[str]:
    return ["127.0.0.1"]


async def test_over_tls_the_name_is_kept_though_the_address_is_called(
    peer: StartPeer, http: MakeHttp, authority: Authority
) -> None:
    there = await peer(with_receipt, tls=authority.serving("gp.example.nhs.uk"))
    outlet = http(resolve=on_loopback, tls=authority.trusting())
    url = f"https://gp.example.nhs.uk:{there.port}/"
    assert (await outlet.post(a_delivery(url))).receipt is not None
    assert there.server_names == ["gp.example.nhs.uk"]
    assert there.requests[0]["host"] == f"gp.example.nhs.uk:{there.port}"


@pytest.mark.parametrize("trusts", [True, False], ids=["another name", "another authority"])
async def test_where_the_certificate_does_not_fit_not_a_byte_of_the_body_is_sent(
    peer: StartPeer, http: MakeHttp, authority: Authority, tmp_path: Path, trusts: bool
) -> None:
    signer = authority if trusts else Authority(tmp_path)
    there = await peer(answer(), tls=signer.serving("other.example" if trusts else "gp.example"))
    outlet = http(resolve=on_loopback, tls=authority.trusting())
    failed = await failure(outlet, a_delivery(f"https://gp.example:{there.port}/"))
    assert (type(failed), failed.code) == (Retry, "connection-failed")
    assert there.requests == []


async def test_a_connection_to_one_name_is_not_used_for_another_at_the_same_address(
    peer: StartPeer, http: MakeHttp, authority: Authority
) -> None:
    there = await peer(answer(), tls=authority.serving("one.example"))
    outlet = http(resolve=on_loopback, tls=authority.trusting())
    await outlet.post(a_delivery(f"https://one.example:{there.port}/"))
    failed = await failure(outlet, a_delivery(f"https://two.example:{there.port}/"))
    assert failed.code == "connection-failed"
    assert len(there.requests) == 1


async def test_a_plain_answer_to_a_tls_greeting_is_a_failure(
    stack: AsyncExitStack, http: MakeHttp
) -> None:
    async def plainly(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    url = f"https://gp.example:{await stack.enter_async_context(listening(plainly))}/"
    assert (await failure(http(resolve=on_loopback), a_delivery(url))).code == "connection-failed"


# -- where nothing is ever sent ------------------------------------------------------------------

PORT = "{port}"
NAMES: Mapping[str, Sequence[str]] = {
    # Names that anybody can register and point anywhere, as nip.io does.
    "127.0.0.1.nip.example": ["127.0.0.1"],
    "7f000001.nip.example": ["127.0.0.1"],
    "10.0.0.1.nip.example": ["10.0.0.1"],
    "169-254-169-254.nip.example": ["169.254.169.254"],
    "metadata.google.internal": ["169.254.169.254"],
    "six.example": ["::1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "mapped-hex.example": ["::ffff:7f00:1"],
    "compatible.example": ["::127.0.0.1"],
    "nat64.example": ["64:ff9b::7f00:1"],
    "nat64-private.example": ["64:ff9b::10.0.0.1"],
    "nat64-local.example": ["64:ff9b:1::7f00:1"],
    "six-to-four.example": ["2002:7f00:1::"],
    "teredo.example": ["2001:0:7f00:1::"],
    "unspecified.example": ["0.0.0.0"],  # noqa: S104
    "unspecified-six.example": ["::"],
    "link-local-six.example": ["fe80::1%lo"],
    "unique-local.example": ["fd00:ec2::254"],
    "site-local.example": ["fec0::1"],
    "multicast.example": ["224.0.0.1"],
    "multicast-six.example": ["ff02::1"],
    "broadcast.example": ["255.255.255.255"],
    "shared.example": ["100.100.100.200"],
    "azure.example": ["168.63.129.16"],
    "benchmark.example": ["198.18.0.1"],
    "one-good-one-bad.example": ["93.184.215.14", "127.0.0.1"],
    "one-bad-one-good.example": ["::1", "2606:4700:4700::1111"],
    "nonsense.example": ["not an address"],
}
WRITTEN: Sequence[str] = (
    # loopback, in every way of writing it
    "https://127.0.0.1:{port}/",
    "https://127.1:{port}/",
    "https://127.0.1:{port}/",
    "https://0:{port}/",
    "https://0.0.0.0:{port}/",
    "https://0177.0.0.1:{port}/",
    "https://0177.0.0.01:{port}/",
    "https://00000177.0.0.1:{port}/",
    "https://017700000001:{port}/",
    "https://0x7f.0.0.1:{port}/",
    "https://0x7f.1:{port}/",
    "https://0X7F000001:{port}/",
    "https://0x7f000001:{port}/",
    "https://2130706433:{port}/",
    "https://127.0.0.1.:{port}/",
    "https://127.0.0.0x1:{port}/",
    "https://127.255.255.254:{port}/",
    "https://localhost:{port}/",
    "https://LOCALHOST:{port}/",
    "https://localhost.:{port}/",
    "https://ip6-localhost:{port}/",
    "https://[::1]:{port}/",
    "https://[0:0:0:0:0:0:0:1]:{port}/",
    "https://[::ffff:127.0.0.1]:{port}/",
    "https://[::ffff:7f00:1]:{port}/",
    "https://[0000:0000:0000:0000:0000:ffff:7f00:0001]:{port}/",
    "https://[::127.0.0.1]:{port}/",
    "https://[64:ff9b::127.0.0.1]:{port}/",
    "https://[::]:{port}/",
    "https://[::1%25lo]:{port}/",
    "https://[::1%lo]:{port}/",
    "https://[v1.127.0.0.1]:{port}/",
    "https://[127.0.0.1]:{port}/",
    "https://[::1:{port}/",
    # other places that are not anybody's business
    "https://10.0.0.1:{port}/",
    "https://172.16.0.1:{port}/",
    "https://192.168.0.1:{port}/",
    "https://169.254.169.254:{port}/latest/meta-data/",
    "https://[fd00:ec2::254]:{port}/",
    "https://[fe80::1]:{port}/",
    # a host that is not the host
    "https://gp.example@127.0.0.1:{port}/",
    "https://gp.example:443@127.0.0.1:{port}/",
    "https://user:password@gp.example:{port}/",
    "https://@127.0.0.1:{port}/",
    "https://127.0.0.1:{port}@gp.example/",
    "https://gp.example\\@127.0.0.1:{port}/",
    "https://127.0.0.1:{port}\\@gp.example/",
    "https://127.0.0.1%40gp.example:{port}/",
    "https://gp.example#@127.0.0.1:{port}/",
    "https://127.0.0.1:{port}#@gp.example/",
    "https://127.0.0.1%00.gp.example:{port}/",
    "https://127.0.0.1 .gp.example:{port}/",
    "https://127.0.0.1\t:{port}/",
    "https://127.0.0.1\r\nHost: gp.example:{port}/",
    " https://127.0.0.1:{port}/",
    "https:127.0.0.1:{port}/",
    "https:/127.0.0.1:{port}/",
    "https:///127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "127.0.0.1:{port}",
    "",
    # characters that some readers take for others
    "https://①②⑦.⓪.⓪.①:{port}/",
    "https://１２７.０.０.１:{port}/",
    "https://127。0。0。1:{port}/",
    "https://127｡0｡0｡1:{port}/",
    "https://127．0．0．1:{port}/",
    "https://ⓛocalhost:{port}/",
    "https://l\u200bocalhost:{port}/",
    "https://gp.example／@127.0.0.1:{port}/",
    "https://%31%32%37.0.0.1:{port}/",
    "https://127%2e0%2e0%2e1:{port}/",
    # other schemes and ports
    "http://127.0.0.1:{port}/",
    "http://gp.example:{port}/",
    "ftp://127.0.0.1:{port}/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/_POST",
    "unix:///var/run/docker.sock",
    "data:text/plain,x",
    "wss://127.0.0.1:{port}/",
    "https://127.0.0.1:0/",
    "https://127.0.0.1:65536/",
    "https://127.0.0.1:{port}:443/",
    "https://127.0.0.1:-{port}/",
    "https://gp.example:４４３/",
)


async def resolve_named(host: str, _: int) -> Sequence[str]:
    """What names stand for; what is not in the table was never to be asked for."""
    return NAMES[host]


@pytest.fixture
async def trap(stack: AsyncExitStack) -> Peer:
    """A server on every address of this machine."""
    return await stack.enter_async_context(Peer(answer()).running("0.0.0.0"))  # noqa: S104


@pytest.mark.parametrize("url", WRITTEN)
async def test_a_url_that_leads_inside_is_refused_for_good(
    trap: Peer, http: MakeHttp, url: str
) -> None:
    outlet = http(allow_plain_http=False, resolve=resolve_named)
    failed = await failure(outlet, a_delivery(url.replace(PORT, str(trap.port))))
    assert (type(failed), failed.code) == (Retry, "address-refused")
    assert trap.connections == 0


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_that_leads_inside_is_refused_until_it_leads_elsewhere(
    trap: Peer, http: MakeHttp, name: str
) -> None:
    outlet = http(allow_plain_http=False, resolve=resolve_named)
    failed = await failure(outlet, a_delivery(f"https://{name}:{trap.port}/"))
    assert (type(failed), failed.code) == (Retry, "address-refused")
    assert trap.connections == 0


def test_the_corpus_is_as_large_as_it_should_be() -> None:
    assert len(set(WRITTEN)) + len(NAMES) >= 60


async def test_the_trap_can_be_hit(trap: Peer, http: MakeHttp) -> None:
    """Else the tests above would prove nothing."""
    outlet = http(resolve=resolve_named)
    for host in ("127.0.0.1", "127.1.2.3", "127.0.0.1.nip.example"):
        await outlet.post(a_delivery(f"http://{host}:{trap.port}/"))
    assert trap.connections == 3


@pytest.mark.parametrize(
    "name",
    [
        "10.0.0.1.nip.example",
        "169-254-169-254.nip.example",
        "compatible.example",
        "nat64-private.example",
        "nat64-local.example",
        "unspecified.example",
        "unspecified-six.example",
        "link-local-six.example",
        "unique-local.example",
        "multicast.example",
    ],
)
async def test_allowing_plain_http_opens_loopback_and_nothing_else(
    trap: Peer, http: MakeHttp, name: str
) -> None:
    failed = await failure(http(resolve=resolve_named), a_delivery(f"http://{name}:{trap.port}/"))
    assert failed.code == "address-refused"
    assert trap.connections == 0


async def test_a_name_that_changes_after_the_check_is_not_asked_again(
    peer: StartPeer, http: MakeHttp
) -> None:
    there = await peer(answer())
    answers = iter([["127.0.0.1"], ["169.254.169.254"], ["127.0.0.1"]])
    asked = 0

    async def rebinding(_: str, __: int) -> Sequence[str]:
        nonlocal asked
        asked += 1
        return next(answers)

    outlet = http(resolve=rebinding)
    delivery = a_delivery(f"http://rebind.example:{there.port}/")
    await outlet.post(delivery)
    assert (asked, there.connections) == (1, 1)
    # The next attempt is judged anew, though a connection to the name is still open.
    assert (await failure(outlet, delivery)).code == "address-refused"
    assert (asked, len(there.requests)) == (2, 1)


async def test_the_brokers_own_url_is_not_called(trap: Peer, http: MakeHttp) -> None:
    own = f"http://127.0.0.1:{trap.port}"
    failed = await failure(http(public_url=f"{own}/"), a_delivery(f"{own}/inbox"))
    assert (type(failed), failed.code) == (Retry, "address-refused")
    assert trap.connections == 0


def test_this_machine_knows_its_own_addresses() -> None:
    assert is_own("127.0.0.1")
    assert not is_own("8.8.8.8")
    assert not is_own("2606:4700:4700::1111")
    assert ip_address("8.8.8.8").is_global
