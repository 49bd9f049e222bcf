"""Why Kafka cannot be reached, in a sentence that names the settings to look at.

aiokafka says that it reached nobody and leaves why to a log: so each server is asked once more.
"""

import asyncio
import ssl
from typing import Final

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from broker.errors import Unavailable
from broker.log_kafka.connection import Connection, unavailable

_ASKED_MS: Final = 3_000


async def explained(connection: Connection, error: Exception) -> Unavailable:
    """Return what is wrong with the first server that cannot be reached, else what `error` says.

    No password is in it, nor any other value of a setting but where Kafka is.
    """
    for host, port, _ in collect_hosts(connection["bootstrap_servers"]):
        try:
            await _ask(connection, host, port)
        except (OSError, TimeoutError, KafkaError) as found:
            said = _said(connection, found)
            return Unavailable(f"Kafka at {host}:{port} {said}")
    return unavailable(error)


async def _ask(connection: Connection, host: str, port: int) -> None:
    """Go as far as to be let in. Raises what stands in the way."""
    how = {name: value for name, value in connection.items() if name != "bootstrap_servers"}
    async with asyncio.timeout(2 * _ASKED_MS / 1_000):
        reached = await create_conn(host, port, request_timeout_ms=_ASKED_MS, **how)
    reached.close()


def _said(connection: Connection, error: Exception) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return (
                f"is not who it should be: its certificate cannot be trusted "
                f"({error.verify_message}). BROKER_KAFKA_CA must name who vouches for it, and "
                "BROKER_KAFKA_SERVERS the names that its certificate has."
            )
        case ssl.SSLError():
            return (
                f"wants another certificate or another way to be reached ({error.reason}). Check "
                "BROKER_KAFKA_CERTIFICATE, BROKER_KAFKA_KEY and BROKER_KAFKA_SECURITY."
            )
        case KafkaConnectionError() if connection.get("ssl_context") is not None:
            # TLS 1.3 lets us believe that all is well before our certificate was looked at.
            return (
                "breaks off once TLS is agreed: it wants another certificate than it was shown. "
                "Check BROKER_KAFKA_CERTIFICATE, BROKER_KAFKA_KEY and BROKER_KAFKA_SECURITY."
            )
        case SaslAuthenticationFailed():
            return (
                "refuses the authentication of the broker. Check BROKER_KAFKA_USER and "
                "BROKER_KAFKA_PASSWORD."
            )
        case UnsupportedSaslMechanismError():
            return (
                f"has no authentication by {connection['sasl_mechanism']}. Set BROKER_KAFKA_SASL "
                "to one that it has."
            )
        case OSError(strerror=str(why)):
            return f"cannot be reached: {why}. Check BROKER_KAFKA_SERVERS."
        case _:
            return (
                f"does not answer as Kafka does ({type(error).__name__}). Check "
                "BROKER_KAFKA_SERVERS and BROKER_KAFKA_SECURITY."
            )
