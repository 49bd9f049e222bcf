"""Access tokens of others: got with a signed JWT of ours, kept until shortly before they end.

Rules: RFC 6749 section 4.4, RFC 7523, NHS England's signed-JWT pattern.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

import httpx2
from joserfc.jwk import ECKey

from broker.assertion import ASSERTION_TYPE, signed_assertion
from broker.errors import Retry, Unavailable
from broker.outbound.connections import LARGEST_ANSWER, Connections, bounded, read
from broker.ports import Delivery, Endpoint
from fhir_profiles import strict_json

ALGORITHM: Final = "ES384"  # the ring's keys are all of P-384
SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 1.5
# A token is used no more so long before its end: it must still be good when the call arrives.
BEFORE_ITS_END: Final = timedelta(seconds=30)
MOST_TOKENS: Final = 4_096
_LONGEST_LIFE: Final = 86_400

_Key = tuple[Endpoint, str]


class Tokens:
    """Gets the token for an endpoint and a sender; one per sending organisation is kept."""

    def __init__(
        self, connections: Connections, key: ECKey | None, now: Callable[[], datetime]
    ) -> None:
        self._connections = connections
        self._key = key
        self._now = now
        self._held: OrderedDict[_Key, tuple[str, datetime]] = OrderedDict()

    async def token(self, delivery: Delivery) -> str | None:
        """Return the token to call the endpoint with, None where it wants none. Raises Retry."""
        endpoint = delivery.endpoint
        if not endpoint.token_url:
            return None
        key = (endpoint, delivery.sender.ods)
        found = self._held.get(key)
        if found is None or found[1] <= self._now():
            found = self._held[key] = await self._fetch(delivery)
            while len(self._held) > MOST_TOKENS:
                self._held.popitem(last=False)
        return found[0]

    def forget(self, delivery: Delivery) -> None:
        """Throw the token away: the receiver does not take it."""
        self._held.pop((delivery.endpoint, delivery.sender.ods), None)

    async def _fetch(self, delivery: Delivery) -> tuple[str, datetime]:
        """Ask once. Whatever is wrong may be mended at either end: it is tried again."""
        if self._key is None:
            raise Retry("no-token")
        url, asked_at = delivery.endpoint.token_url, self._now()
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": signed_assertion(
                self._key.as_pem(private=True),
                delivery.endpoint.client,
                url,
                delivery.sender.ods,
                ALGORITHM,
                self._key.thumbprint(),
                now=asked_at,
            ),
        }
        headers = {
            "User-Agent": "referral-broker",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        async with bounded(SECONDS):
            place = self._connections.place(url, delivery)
            addresses = await self._connections.judged(place, delivery)
            async with self._connections.sent(
                "POST",
                place,
                addresses,
                headers,
                urlencode(form).encode("ascii"),
                connect=CONNECT_SECONDS,
            ) as response:
                body = await read(response) if response.status_code == 200 else None
        said = _read_answer(body)
        token = said.get("access_token")
        if not _is_token(token) or str(said.get("token_type", "")).lower() != "bearer":
            raise Retry("no-token")
        return str(token), asked_at + _life(said.get("expires_in")) - BEFORE_ITS_END


def _read_answer(body: bytes | None) -> Mapping[str, Any]:
    try:
        said = strict_json.loads(body or b"")
    except (strict_json.NotStrictJson, ArithmeticError):
        return {}
    return said if isinstance(said, dict) else {}


def _is_token(value: object) -> bool:
    """Whether it can stand in a header: visible ASCII (RFC 6750 section 2.1)."""
    return isinstance(value, str) and value != "" and all("!" <= c <= "~" for c in value)


def _life(value: object) -> timedelta:
    """Return how long a token is good; one that does not say so is used once."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _LONGEST_LIFE:
        return timedelta()
    return timedelta(seconds=value)


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
