"""What a BaRS answer means for the delivery: a receipt, a bare 2xx, a Retry or a Reject. No I/O.

Rules: BaRS Core 1.5.0 Transactional-integrity and Error-Handling; house.md section 5. A receipt is
only what cannot be anything else: what an intermediary may have said is tried again, under the same
X-Request-Id, so that a receiver that has it all the same says so.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from broker.errors import Reject, Retry
from broker.outbound.bars_headers import correlation
from broker.outbound.connections import retry_after
from broker.ports import Delivery, Outcome, Receipt
from broker.retry import PERMANENT, code_of
from fhir_profiles.bars import exchange
from fhir_profiles.bars.exchange import Message

VIA: Final = "bars"
# 4xx that say nothing of this very message: a key, a deployment, or patience.
PASSING: Final = frozenset({401, 403, 404, 408, 425, 429})


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; `headers` by their names in lower case. Of a body over the limit nothing is
    kept."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


def judged(answer: Answer, delivery: Delivery, message: Message, now: datetime) -> Outcome:
    """Return what the answer to `$process-message` proves. Raises Retry or Reject."""
    status, is_theirs = answer.status, _is_echoed(answer, delivery)
    if 200 <= status < 300:
        return _taken(answer, delivery, message, is_theirs=is_theirs)
    if is_theirs and status == 409 and exchange.is_duplicate(answer.body):
        return Outcome(_receipt(delivery), status, via=VIA, answer=answer.body)
    is_word = is_theirs and exchange.is_outcome(answer.body)
    if is_word and 400 <= status < 500 and status not in PASSING:
        raise Reject(code_of(status), status=status, answer=answer.body)
    raise passing(answer, now)


def passing(answer: Answer, now: datetime) -> Retry:
    """Return the failure that may pass, whatever the status: one that would be final from the
    receiver is not named, for it was somebody between us who said it."""
    not_before = retry_after(answer.headers.get("retry-after"), now)
    if 200 <= answer.status < 300 or answer.status in PERMANENT:
        return Retry("intermediary", not_before=not_before)
    return Retry(code_of(answer.status), status=answer.status, not_before=not_before)


def _taken(answer: Answer, delivery: Delivery, message: Message, *, is_theirs: bool) -> Outcome:
    kept = answer.body if exchange.is_fhir(answer.body) else None
    response = exchange.read_response(answer.body)
    if response is not None:
        # One that tells of an error is no receipt, whichever message it is about.
        good = (response.identifier, response.code) == (message.id, "ok")
        receipt = _receipt(delivery) if good else _evidence(delivery, response.identifier)
        return Outcome(receipt, answer.status, via=VIA, answer=kept)
    if not is_theirs:
        raise Retry("intermediary")
    return Outcome(None, answer.status, via=VIA, answer=kept)


def _receipt(delivery: Delivery) -> Receipt:
    return Receipt(delivery.id, delivery.digest, delivery.destination.ods)


def _evidence(delivery: Delivery, named: str) -> Receipt:
    """A receipt that matches nothing. What it names is kept only if it is an id: it may be any
    text, and stands in a column."""
    try:
        found = str(uuid.UUID(named))
    except ValueError:
        found = ""
    return Receipt(found, "", delivery.destination.ods)


def _is_echoed(answer: Answer, delivery: Delivery) -> bool:
    """Whether the receiver itself answered: it gives both ids of the request back."""
    sent = (delivery.id, correlation(delivery))
    given = (answer.headers.get(name, "") for name in ("x-request-id", "x-correlation-id"))
    return all(a.lower() == b.lower() for a, b in zip(sent, given, strict=True))
