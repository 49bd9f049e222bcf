"""What every call out has in common: where it may go, over which connection, and for how long.

No redirects, no proxies, no cookies, no environment: requests are given to the transport itself,
which knows none of these. A name is looked up once per attempt, every address found is judged
(`broker.addresses`), and the connection goes to a judged address, with SNI and Host kept.
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
from typing import Final

import httpx2
import structlog

from broker.addresses import Place, UrlRefused, is_address, read_url, why_refused
from broker.errors import Retry
from broker.lookup import is_own
from broker.ports import Delivery
from broker.settings import Settings

LARGEST_ANSWER: Final = 65_536
MOST_POOLS: Final = 512
# Shorter than the 5 s after which common servers close an idle connection: a connection that is
# used again is then seldom one that is just being closed.
IDLE_SECONDS: Final = 4.0
_SECONDS: Final = re.compile(r"[0-9]{1,7}")

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

log = structlog.get_logger()


class Connections:
    """Bounded pools of connections to judged addresses. `broker.outbound.Http` closes them."""

    def __init__(self, settings: Settings, resolve: Resolve, tls: ssl.SSLContext) -> None:
        self._own = _own_place(settings.base_url)
        self._allow_plain = settings.allow_plain_http
        self._resolve = resolve
        self._pools = _Pools(tls, settings.slots_per_destination)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pools.aclose()

    def place(self, url: str, delivery: Delivery) -> Place:
        """Return where a URL leads. One that may not be called is tried again: it is the directory
        that is wrong, and somebody mends it there. Raises Retry."""
        try:
            place = read_url(url, allow_plain_http=self._allow_plain)
        except UrlRefused:
            _refuse(delivery, "url")
            raise Retry("address-refused") from None
        if (place.host, place.port) == self._own:
            _refuse(delivery, "own-url")
            raise Retry("address-refused")
        return place

    async def judged(self, place: Place, delivery: Delivery) -> Sequence[str]:
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
                _refuse(delivery, why)
                raise Retry("address-refused")
        return addresses

    @asynccontextmanager
    async def sent(
        self,
        method: str,
        place: Place,
        addresses: Sequence[str],
        headers: Mapping[str, str],
        body: bytes,
        *,
        connect: float,
    ) -> AsyncIterator[httpx2.Response]:
        """Send to the first address that can be connected to; nothing sent is sent again.

        `connect` seconds are for one address that swallows packets: there must be time for the
        next one.
        """
        *others, last = addresses
        async with self._pools.to(place) as transport:
            response = None
            for address in others:
                request = _request(method, place, address, headers, body, connect)
                try:
                    response = await transport.handle_async_request(request)
                    break
                except (httpx2.ConnectError, httpx2.ConnectTimeout):
                    continue
            if response is None:
                request = _request(method, place, last, headers, body, None)
                response = await transport.handle_async_request(request)
            try:
                yield response
            finally:
                await response.aclose()


@asynccontextmanager
async def bounded(seconds: float) -> AsyncIterator[None]:
    """Be over within so many seconds, whatever the other end does; what breaks is a Retry."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except (TimeoutError, httpx2.TimeoutException):
        raise Retry("timed-out") from None
    except (httpx2.ConnectError, socket.gaierror):
        raise Retry("connection-failed") from None  # no byte of the request has left
    except (httpx2.TransportError, OSError):
        raise Retry("connection-lost") from None


async def read(response: httpx2.Response, limit: int = LARGEST_ANSWER) -> bytes | None:
    """Return the answer's body as it came, or None once it is over the limit."""
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) > limit:
            return None
    return bytes(body)


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


def _refuse(delivery: Delivery, why: str) -> None:
    log.warning(
        "outbound.address-refused",
        delivery_id=delivery.id,
        organisation=delivery.destination.ods,
        code=why,
    )


def _request(
    method: str,
    place: Place,
    address: str,
    headers: Mapping[str, str],
    body: bytes,
    connect: float | None,
) -> httpx2.Request:
    host = f"[{address}]" if ":" in address else address
    return httpx2.Request(
        method,
        f"{place.scheme}://{host}:{place.port}{place.target}",
        headers={"Host": place.netloc, **headers},
        content=body,
        extensions={
            "sni_hostname": place.host,
            "timeout": httpx2.Timeout(None, connect=connect).as_dict(),
        },
    )


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
