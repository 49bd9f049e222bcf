"""How a partner calls the broker: signs in with its own key, and asks again until it is answered.

Nothing in here knows the broker from the inside; only the making of the signed assertion is
borrowed. A supplier's own client does the same in any language (README).
"""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2

from broker.assertion import ASSERTION_TYPE, signed_assertion

PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that say nothing for good: the same request is sent again, under the same key."""
_RENEW_BEFORE: Final = 30.0
_LONGEST_PAUSE: Final = 2.0
_CONNECTIONS: Final = 64


class NeverAnswered(Exception):
    """The broker gave no final answer for as long as the partner had patience."""


class NotSignedIn(Exception):
    """The broker gives this client no token. The message is its reason."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a client is, for which organisation, and the private key that it proves it with."""

    client_id: str
    organisation: str
    name: str
    key_path: Path
    algorithm: str
    kid: str
    scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reply:
    """A final answer: its status, its body as it came, its headers, and how often was asked."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    tries: int = 1

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def etag(self) -> str:
        return self.headers.get("etag", "")


class Client:
    """Calls one broker for one organisation. Renews its token by itself."""

    def __init__(self, url: str, identity: Identity, *, patience: float = 60.0) -> None:
        self.url = url.rstrip("/")
        self.identity = identity
        self.patience = patience
        self._http = httpx2.AsyncClient(
            base_url=self.url,
            timeout=httpx2.Timeout(30.0, connect=5.0),
            trust_env=False,
            limits=httpx2.Limits(max_connections=_CONNECTIONS, keepalive_expiry=4.0),
        )
        self._signing_in = asyncio.Lock()
        self._token = ""
        self._renew_at = 0.0

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def token(self) -> str:
        """Return a token that is good for a while yet. Raises NotSignedIn, NeverAnswered."""
        async with self._signing_in:
            if time.monotonic() >= self._renew_at:
                await self._sign_in()
            return self._token

    async def _sign_in(self) -> None:
        who = self.identity
        token_url = f"{self.url}/oauth2/token"
        # Signed anew for each try: an assertion is good once, and may have been used up unseen.
        reply = await self._until_answered(
            lambda: self._http.post(
                "/oauth2/token",
                data={
                    "grant_type": "client_credentials",
                    "client_assertion_type": ASSERTION_TYPE,
                    "client_assertion": signed_assertion(
                        who.key_path.read_bytes(),
                        who.client_id,
                        token_url,
                        who.organisation,
                        who.algorithm,
                        who.kid,
                    ),
                },
            ),
            "POST /oauth2/token",
        )
        if reply.status != 200:
            raise NotSignedIn(str(reply.json.get("error_description")))
        self._token = reply.json["access_token"]
        life = float(reply.json["expires_in"])
        self._renew_at = time.monotonic() + max(1.0, life - _RENEW_BEFORE)

    async def call(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        key: str | None = None,
        if_match: str | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Reply:
        """Return the broker's final answer, asking again with the same key until there is one.

        Raises NeverAnswered once patience is at its end.
        """
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if key is not None:
            headers["Idempotency-Key"] = key
        if if_match is not None:
            headers["If-Match"] = if_match

        async def ask() -> httpx2.Response:
            headers["Authorization"] = f"Bearer {await self.token()}"
            response = await self._http.request(
                method, path, content=body, headers=headers, params=params
            )
            if response.status_code == 401:
                self._renew_at = 0.0
                headers["Authorization"] = f"Bearer {await self.token()}"
                response = await self._http.request(
                    method, path, content=body, headers=headers, params=params
                )
            return response

        return await self._until_answered(ask, f"{method} {path}")

    async def _until_answered(self, ask: Any, what: str) -> Reply:
        ends = time.monotonic() + self.patience
        tries, said = 0, ""
        pause = 0.05
        while True:
            tries += 1
            wanted = 0.0
            try:
                response: httpx2.Response = await ask()
                if response.status_code not in PASSING:
                    return Reply(
                        response.status_code,
                        response.content,
                        {name.lower(): value for name, value in response.headers.items()},
                        tries,
                    )
                said = str(response.status_code)
                after = response.headers.get("retry-after", "")
                wanted = float(after) if after.isdigit() else 0.0
            except httpx2.TransportError as error:
                said = type(error).__name__
            pause = min(_LONGEST_PAUSE, max(pause * 2, wanted))
            if time.monotonic() + pause > ends:
                raise NeverAnswered(f"{what}: {said} after {tries} tries")
            await asyncio.sleep(pause)
