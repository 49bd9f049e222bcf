"""What a BaRS receiver answered to a delivery: kept sealed, as it came, beside what was sent.

Kept are the FHIR answer of a 2xx or of a 409 `duplicate`, and of a refusal for good: what proves
where a message is, and the receiver's own words to whoever asks.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from broker.composition import FHIR_JSON
from broker.events import digest
from broker.store import deliveries, messages
from broker.store.tx import Connection, Tx
from broker.vault import Binding, MessageKey, Vault
from fhir_profiles.bars import exchange

ANSWER: Final = "answer"
FIRST_REFUSAL: Final = 400


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to an attempt, with its status, byte for byte as it came."""

    attempt: int
    status: int
    body: bytes = field(repr=False)

    @property
    def is_refusal(self) -> bool:
        """Whether it says that the message is not taken."""
        return self.status >= FIRST_REFUSAL

    @property
    def reference(self) -> str | None:
        """The receiver's own reference, for a person to read out; None where it gave none."""
        return exchange.reference(self.body)

    @property
    def request_id(self) -> str | None:
        """The id that the receiver gave the ServiceRequest; None where it gave none."""
        return exchange.request_id(self.body)


def put(tx: Tx, vault: Vault, key: MessageKey, row: Any, body: bytes) -> None:
    """Keep the answer to a claimed attempt; its number is the version. Safe to repeat."""
    binding = Binding(row.id, ANSWER, row.attempt, row.ods, FHIR_JSON)
    messages.put_payload(tx, messages.sealed(vault, key, binding, body, digest(body), tx.now))


def of_delivery(connection: Connection, vault: Vault, delivery_id: str) -> Answered | None:
    """Return the last answer that was kept of a delivery; None where there is none, or it was
    erased. Raises Tampered."""
    opened = messages.payload(connection, vault, delivery_id, ANSWER)
    if opened is None:
        return None
    attempts = deliveries.attempts_of(connection, [delivery_id])
    status = next((one.http_status for one in attempts if one.number == opened.version), None)
    return None if status is None else Answered(opened.version, status, opened.body)
