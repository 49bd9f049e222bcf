"""The only way out over HTTP: TLS, address rules, limits and time-outs live here and nowhere else.

No redirects, no proxies, no cookies, no environment: requests are given to the transport itself,
which knows none of these. A name is looked up once per attempt, every address found is judged
(`broker.addresses`), and the connection goes to a judged address, with SNI and Host kept.
Signatures: Standard Webhooks 1.0. Receipts: house.md section 5.
"""

import asyncio
import re
import socket
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx2
import structlog
from standardwebhooks import Webhook

from broker.addresses import Place, UrlRefused, is_address, read_url, why_refused
from broker.errors import Reject, Retry, Unavailable
from broker.events import read_traceparent
from broker.lookup import Lookup, is_own
from broker.ports import Delivery, Outcome, Receipt
from broker.retry import Verdict, code_of, judge
from broker.settings import Settings
from fhir_profiles import strict_json

LARGEST_ANSWER: Final = 65_536
RECEIPT: Final = ("delivery", "digest", "ods")
MOST_POOLS: Final = 512
# Shorter than the 5 s after which common servers close an idle connection: a connection that is
# used again is then seldom one that is just being closed.
IDLE_SECONDS: Final = 4.0
# One address that swallows packets must leave time for the next one.
CONNECT_SECONDS: Final = 5.0
_LONGEST_NAME: Final = 256
_SECONDS: Final = re.compile(r"[0-9]{1,7}")

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
Secrets = Callable[[str], Awaitable[Sequence[bytes]]]

log = structlog.get_logger()


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Http:
    """The outlet for webhooks: sends once, in bounded time and space, only to judged addresses.

    `secrets(ods)` gives the secrets that are valid for an organisation now; each of them signs.
    `settings.base_url` is told to the destination, so it must be the one that it can reach.
    """

    def __init__(
        self,
        settings: Settings,
        secrets: Secrets,
        *,
        resolve: Resolve | None = None,
        now: Callable[[], datetime] = _utc_now,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._base_url = settings.base_url
        self._own = _own_place(settings.base_url)
        self._timeout = settings.send_timeout
        self._allow_plain = settings.allow_plain_http
        self._secrets = secrets
        self._resolve = resolve or Lookup().resolve
        self._now = now
        self._pools = _Pools(
            tls or httpx2.create_ssl_context(trust_env=False), settings.slots_per_destination
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pools.aclose()

    async def post(self, delivery: Delivery) -> Outcome:
        """Send once, over within `send_timeout` whatever the other end does. Raises Retry, Reject.

        A 2xx with a receipt is one; any other 2xx that ended, or that went on over 64 KiB, is a
        bare one: the destination said that it took the message. A 2xx that broke off or did not
        end in time is no answer, and the message is sent again under the same id.
        """
        if delivery.endpoint.channel != "webhook":
            raise Retry("not-connected")
        try:
            async with asyncio.timeout(self._timeout):
                return await self._post(delivery)
        except (TimeoutError, httpx2.TimeoutException):
            raise Retry("timed-out") from None
        except (httpx2.ConnectError, socket.gaierror):
            raise Retry("connection-failed") from None  # no byte of the request has left
        except (httpx2.TransportError, OSError):
            raise Retry("connection-lost") from None

    async def _post(self, delivery: Delivery) -> Outcome:
        place = self._place(delivery)
        secrets = await self._secrets(delivery.destination.ods)
        if not secrets:
            raise Retry("not-connected")
        addresses = await self._judged(place, delivery)
        headers = self._headers(delivery, place, secrets)
        async with self._pools.to(place) as transport:
            response = await _send(transport, place, addresses, headers, delivery.body)
            try:
                return await self._outcome(response)
            finally:
                await response.aclose()

    def _place(self, delivery: Delivery) -> Place:
        """Return where the endpoint's URL leads. One that may not be called is tried again: it is
        the directory that is wrong, and somebody mends it there."""
        try:
            place = read_url(delivery.endpoint.url, allow_plain_http=self._allow_plain)
        except UrlRefused:
            self._refuse(delivery, "url")
            raise Retry("address-refused") from None
        if (place.host, place.port) == self._own:
            self._refuse(delivery, "own-url")
            raise Retry("address-refused")
        return place

    async def _judged(self, place: Place, delivery: Delivery) -> Sequence[str]:
        """Return every address of the place, if each may be called. Raises Retry."""
        if is_address(place.host):
            addresses: Sequence[str] = [place.host]
        else:
            addresses = await self._resolve(place.host, place.port)
        if not addresses:
            raise Retry("connection-failed")
        for address in addresses:
            why = why_refused(address, allow_loopback=self._allow_plain)
            if why is None and not self._allow_plain and is_own(address):
                why = "own"
            if why is not None:
                self._refuse(delivery, why)
                raise Retry("address-refused")
        return addresses

    def _refuse(self, delivery: Delivery, why: str) -> None:
        log.warning(
            "outbound.address-refused",
            delivery_id=delivery.id,
            organisation=delivery.destination.ods,
            code=why,
        )

    def _headers(
        self, delivery: Delivery, place: Place, secrets: Sequence[bytes]
    ) -> dict[str, str]:
        sent_at = self._now().replace(microsecond=0)
        text = delivery.body.decode("utf-8")
        headers = {
            "Host": place.netloc,
            "User-Agent": "referral-broker",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/fhir+json",
            "webhook-id": delivery.id,
            "webhook-timestamp": str(int(sent_at.timestamp())),
            "webhook-signature": " ".join(
                Webhook(secret).sign(delivery.id, sent_at, text) for secret in secrets
            ),
            "Referral-Broker-Kind": delivery.kind.value,
            "Referral-Broker-Digest": f"sha-256={delivery.digest}",
            "Referral-Broker-Receipt": f"{self._base_url}/inbox/{delivery.id}/receipt",
            "Referral-Broker-Attempt": str(delivery.attempt),
        }
        if trace := read_traceparent(delivery.event.traceparent):
            headers["traceparent"] = trace
        return headers

    async def _outcome(self, response: httpx2.Response) -> Outcome:
        status = response.status_code
        verdict = judge(status)
        if verdict is Verdict.OK:
            body = await _read(response)
            return Outcome(read_receipt(body) if body is not None else None, status)
        # What else a refusal says is not read: the status is what counts.
        if verdict is Verdict.REJECT:
            raise Reject(code_of(status), status=status)
        not_before = retry_after(response.headers.get("retry-after"), self._now())
        raise Retry(code_of(status), status=status, not_before=not_before)


async def _send(
    transport: httpx2.AsyncHTTPTransport,
    place: Place,
    addresses: Sequence[str],
    headers: dict[str, str],
    body: bytes,
) -> httpx2.Response:
    """Send to the first address that can be connected to. Nothing that was sent is sent again."""
    *others, last = addresses
    for address in others:
        try:
            request = _request(place, address, headers, body, CONNECT_SECONDS)
            return await transport.handle_async_request(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            continue
    return await transport.handle_async_request(_request(place, last, headers, body, None))


def _request(
    place: Place, address: str, headers: dict[str, str], body: bytes, connect: float | None
) -> httpx2.Request:
    host = f"[{address}]" if ":" in address else address
    return httpx2.Request(
        "POST",
        f"{place.scheme}://{host}:{place.port}{place.target}",
        headers=headers,
        content=body,
        extensions={
            "sni_hostname": place.host,
            "timeout": httpx2.Timeout(None, connect=connect).as_dict(),
        },
    )


async def _read(response: httpx2.Response) -> bytes | None:
    """Return the answer's body as it came, or None once it is over the limit."""
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > LARGEST_ANSWER:
            return None
    return bytes(body)


def post_form(url: str, form: Mapping[str, str], *, seconds: float = 10.0) -> tuple[int, bytes]:
    """Post a form once and return (status, body); for commands. No redirects, no proxies.

    Raises Unavailable where nobody answers in time, or with more than 64 KiB.
    """
    try:
        with (
            httpx2.Client(trust_env=False, follow_redirects=False, timeout=seconds) as client,
            client.stream("POST", url, data=dict(form)) as response,
        ):
            body = bytearray()
            for part in response.iter_raw():
                body += part
                if len(body) > LARGEST_ANSWER:
                    raise Unavailable(f"{url} answers with more than a token.")
            return response.status_code, bytes(body)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        raise Unavailable(f"{url} cannot be reached: {error or type(error).__name__}.") from None


def read_receipt(body: bytes) -> Receipt | None:
    """Return the receipt that an answer is, or None where it is anything else.

    What it holds beside a receipt is ignored.
    """
    try:
        found = strict_json.loads(body)
    except (strict_json.NotStrictJson, ArithmeticError):
        return None
    return receipt_of(found) if isinstance(found, dict) else None


def receipt_of(found: Mapping[str, Any]) -> Receipt | None:
    """Return the receipt that an object names, by whatever channel it came, or None.

    The digest may be written as in our own header, after `sha-256=`, and in either case. Whether
    it names the right ones is for the caller to judge: a wrong one is evidence.
    """
    if not all(names_something(found.get(name)) for name in RECEIPT):
        return None
    delivery, digest, ods = (found[name] for name in RECEIPT)
    return Receipt(delivery, digest.lower().removeprefix("sha-256="), ods)


def names_something(value: Any) -> bool:
    """Whether this may stand in a receipt: a text, neither empty nor beyond measure."""
    return isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME


def retry_after(value: str | None, now: datetime) -> datetime | None:
    """Return the time that a Retry-After names (RFC 9110 section 10.2.3), if it can be read."""
    if value is None:
        return None
    if _SECONDS.fullmatch(value.strip()):
        return now + timedelta(seconds=int(value))
    try:
        named = parsedate_to_datetime(value)
        return named.astimezone(UTC) if named.tzinfo else named.replace(tzinfo=UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def _own_place(base_url: str) -> tuple[str, int] | None:
    try:
        place = read_url(base_url, allow_plain_http=True)
    except UrlRefused:
        return None
    return place.host, place.port


class _Pools:
    """A bounded pool of connections per destination, so that none waits for another's.

    Also a wall: a connection whose certificate was checked for one name is never used for another
    name at the same address.
    """

    def __init__(self, tls: ssl.SSLContext, connections: int) -> None:
        self._tls = tls
        self._limits = httpx2.Limits(
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=IDLE_SECONDS,
        )
        self._pools: OrderedDict[tuple[str, str, int], httpx2.AsyncHTTPTransport] = OrderedDict()
        self._users: dict[tuple[str, str, int], int] = {}

    @asynccontextmanager
    async def to(self, place: Place) -> AsyncIterator[httpx2.AsyncHTTPTransport]:
        """Lend the pool of a destination; a pool that is lent is never closed."""
        key = (place.scheme, place.host, place.port)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = httpx2.AsyncHTTPTransport(
                verify=self._tls, trust_env=False, http1=True, http2=False, limits=self._limits
            )
        self._pools.move_to_end(key)
        self._users[key] = self._users.get(key, 0) + 1
        try:
            yield pool
        finally:
            self._users[key] -= 1
            await self._trim()

    async def _trim(self) -> None:
        idle = [key for key in self._pools if not self._users.get(key)]
        for key in idle[: max(0, len(self._pools) - MOST_POOLS)]:
            self._users.pop(key, None)
            await self._pools.pop(key).aclose()

    async def aclose(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()
        self._pools.clear()
        self._users.clear()
