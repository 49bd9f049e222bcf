"""The only way out over HTTP: TLS, address rules, limits and time-outs live here and nowhere else.

`connections` is what every call has in common, `webhook` and `bars` are the two ways of calling,
`tokens` the way to an access token of somebody else's.
"""

import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import httpx2
from joserfc.jwk import ECKey

from broker.errors import Retry
from broker.lookup import Lookup
from broker.outbound.bars import Bars
from broker.outbound.connections import LARGEST_ANSWER, Connections, Resolve, retry_after
from broker.outbound.tokens import Tokens, post_form
from broker.outbound.webhook import (
    RECEIPT,
    Secrets,
    Webhooks,
    names_something,
    read_receipt,
    receipt_of,
)
from broker.ports import Delivery, Outcome
from broker.settings import Settings, SettingsProblem

__all__ = [
    "LARGEST_ANSWER",
    "RECEIPT",
    "Http",
    "names_something",
    "post_form",
    "read_receipt",
    "receipt_of",
    "retry_after",
]

Post = Callable[[Delivery], Awaitable[Outcome]]


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Http:
    """The outlet: sends once, in bounded time and space, only to judged addresses.

    `secrets(ods)` gives the secrets that are valid for an organisation now; each of them signs its
    webhooks. `key` proves who we are to the token endpoints of BaRS receivers. `settings.base_url`
    is told to destinations, so it must be the one that they can reach.
    """

    def __init__(
        self,
        settings: Settings,
        secrets: Secrets,
        *,
        key: ECKey | None = None,
        resolve: Resolve | None = None,
        now: Callable[[], datetime] = _utc_now,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        resolve = resolve or Lookup().resolve
        plain = tls or httpx2.create_ssl_context(trust_env=False)
        webhooks = Connections(settings, resolve, plain)
        # Connections of their own: who we are is shown to BaRS receivers only.
        bars = Connections(settings, resolve, _with_certificate(settings, tls))
        self._all = (webhooks, bars)
        self._ways: dict[str, Post] = {
            "webhook": Webhooks(settings, webhooks, secrets, now).post,
            "bars": Bars(bars, Tokens(bars, key, now), settings.source, now).post,
        }

    async def aclose(self) -> None:
        """Close every connection."""
        for connections in self._all:
            await connections.aclose()

    async def post(self, delivery: Delivery) -> Outcome:
        """Send once, by the way that the endpoint speaks. Raises Retry, Reject."""
        way = self._ways.get(delivery.endpoint.channel)
        if way is None:
            raise Retry("not-connected")
        return await way(delivery)


def _with_certificate(settings: Settings, tls: ssl.SSLContext | None) -> ssl.SSLContext:
    """Return a context that shows our certificate where one is set. Raises SettingsProblem."""
    context = tls or httpx2.create_ssl_context(trust_env=False)
    if settings.tls_certificate is not None and settings.tls_key is not None:
        try:
            # With an empty password nobody is asked for one, at a terminal that is not there.
            context.load_cert_chain(settings.tls_certificate, settings.tls_key, password="")
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise SettingsProblem(
                f"{settings.tls_certificate} with the key {settings.tls_key} cannot be shown to "
                f"BaRS receivers ({error.strerror if isinstance(error, OSError) else error}): give "
                "BROKER_TLS_CERTIFICATE a certificate with its chain, and BROKER_TLS_KEY its key "
                "without a password, both as PEM."
            ) from None
    return context
