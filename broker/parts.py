"""The parts of a broker, which run in one process or each in processes of its own."""

from enum import StrEnum
from typing import Final

from broker.errors import BrokerError
from broker.settings import PREFIX, Settings


class Part(StrEnum):
    """What a process does. Any number of each may run, started and killed at will."""

    API = "api"
    RELAY = "relay"
    DISPATCH = "dispatch"
    WORKER = "worker"


ALL: Final = "all"
NAMES: Final = (ALL, *(part.value for part in Part))


EMBEDDED: Final = frozenset(Part) - {Part.RELAY}
"""What one process does that has no Kafka."""


class NoSuchPart(BrokerError):
    """This broker cannot run so. The message says why, and what to do."""


def parts_of(role: str, settings: Settings) -> frozenset[Part]:
    """Return what a process of this role does. Raises NoSuchPart."""
    if role not in NAMES:
        raise NoSuchPart(f"There is no role {role!r}: it is one of {', '.join(NAMES)}.")
    if role == ALL:
        return frozenset(Part) if settings.has_kafka else EMBEDDED
    if settings.is_embedded:
        raise NoSuchPart(
            "An embedded broker is one process with every part. To run parts by themselves, set "
            f"{PREFIX}DATABASE_URL to a PostgreSQL."
        )
    if role == Part.RELAY and not settings.has_kafka:
        raise NoSuchPart(
            f"A relay publishes to Kafka, and {PREFIX}KAFKA_SERVERS is empty: set it, or leave the "
            "relay out; without Kafka the dispatcher reads the ledger itself."
        )
    return frozenset({Part(role)})
