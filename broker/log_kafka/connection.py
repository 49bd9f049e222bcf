"""How Kafka is reached, and let go of."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from broker.errors import Unavailable
from broker.settings import Settings, SettingsProblem

# A partition without a leader for longer than this fails what waits for it.
REQUEST_MS: Final = 8_000
ANSWER_SECONDS: Final = 10.0
LET_GO_SECONDS: Final = 2.0
BREAK_OFF_SECONDS: Final = 0.5

Connection = Mapping[str, Any]
"""`bootstrap_servers`, `security_protocol`, TLS and SASL, as aiokafka calls them."""


def connection(settings: Settings) -> Connection:
    """Return how these settings reach Kafka. Raises SettingsProblem where a file cannot be used."""
    context = _tls(settings) if settings.kafka_security.endswith("SSL") else None
    found: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_servers,
        "security_protocol": settings.kafka_security,
        "ssl_context": context,
    }
    if settings.kafka_security.startswith("SASL"):
        found["sasl_mechanism"] = settings.kafka_sasl
        found["sasl_plain_username"] = settings.kafka_user
        found["sasl_plain_password"] = settings.kafka_password.get_secret_value()
    return found


def _tls(settings: Settings) -> ssl.SSLContext:
    certificate, key = settings.kafka_certificate, settings.kafka_key
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ca)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsProblem(
            f"{settings.kafka_ca} cannot be used ({error.strerror or error}): give BROKER_KAFKA_CA "
            "the certificates, as PEM, of who vouches for Kafka's."
        ) from None
    if certificate is not None and key is not None:
        try:
            # With an empty password nobody is asked for one, at a terminal that is not there.
            context.load_cert_chain(certificate, key, password="")
        except (OSError, ValueError) as error:
            said = error.strerror if isinstance(error, OSError) else error
            raise SettingsProblem(
                f"{certificate} with the key {key} cannot be used ({said}): give "
                "BROKER_KAFKA_CERTIFICATE a certificate with its chain, and BROKER_KAFKA_KEY its "
                "key without a password, both as PEM."
            ) from None
    return context


async def started(make: Callable[[], Any]) -> Any:
    """Return a client that has reached Kafka; one that has not is let go of, and its error said."""
    client = make()
    try:
        await client.start()
    except BaseException:
        await let_go(client)
        raise
    return client


async def let_go(client: Any) -> None:
    """Stop a client, which may hang, or break off as if we were cancelled, while Kafka is away.

    One that hangs is taken apart: its tasks would run, and its connections stay open, for ever.
    """
    if await _ended(client.stop(), LET_GO_SECONDS):
        return
    for part in ("_sender", "_coordinator", "_fetcher", "_client", "client"):
        if (held := getattr(client, part, None)) is not None:
            await _ended(held.close(), BREAK_OFF_SECONDS)


async def _ended(ending: Coroutine[Any, Any, None], seconds: float) -> bool:
    """Whether it came to an end, good or bad, within this time; else it is broken off."""
    task = asyncio.ensure_future(ending)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
        await asyncio.wait({task}, timeout=BREAK_OFF_SECONDS)
    if task.done() and not task.cancelled():
        task.exception()  # looked at, so that nobody is told that it was not
    return bool(done)


def unavailable(error: Exception) -> Unavailable:
    return Unavailable(f"Kafka does not answer ({type(error).__name__}).")
