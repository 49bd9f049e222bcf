"""Webhooks: one signed POST per attempt, and the receipt that its answer may hold.

Signatures: Standard Webhooks 1.0. Receipts: house.md section 5.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import httpx2
from standardwebhooks import Webhook

from broker.errors import Reject, Retry
from broker.events import read_traceparent
from broker.outbound.connections import Connections, bounded, read, retry_after
from broker.ports import Delivery, Outcome, Receipt
from broker.retry import Verdict, code_of, judge
from broker.settings import Settings
from fhir_profiles import strict_json

RECEIPT: Final = ("delivery", "digest", "ods")
CONNECT_SECONDS: Final = 5.0
_LONGEST_NAME: Final = 256

Secrets = Callable[[str], Awaitable[Sequence[bytes]]]


class Webhooks:
    """Sends deliveries to webhooks; each secret that is valid for the destination signs."""

    def __init__(
        self,
        settings: Settings,
        connections: Connections,
        secrets: Secrets,
        now: Callable[[], datetime],
    ) -> None:
        self._base_url = settings.base_url
        self._timeout = settings.send_timeout
        self._connections = connections
        self._secrets = secrets
        self._now = now

    async def post(self, delivery: Delivery) -> Outcome:
        """Send once, over within `send_timeout` whatever the other end does. Raises Retry, Reject.

        A 2xx with a receipt is one; any other 2xx that ended, or that went on over 64 KiB, is a
        bare one: the destination said that it took the message. A 2xx that broke off or did not
        end in time is no answer, and the message is sent again under the same id.
        """
        async with bounded(self._timeout):
            place = self._connections.place(delivery.endpoint.url, delivery)
            secrets = await self._secrets(delivery.destination.ods)
            if not secrets:
                raise Retry("not-connected")
            addresses = await self._connections.judged(place, delivery)
            headers = self._headers(delivery, secrets)
            async with self._connections.sent(
                "POST", place, addresses, headers, delivery.body, connect=CONNECT_SECONDS
            ) as response:
                return await self._outcome(response)

    def _headers(self, delivery: Delivery, secrets: Sequence[bytes]) -> dict[str, str]:
        sent_at = self._now().replace(microsecond=0)
        text = delivery.body.decode("utf-8")
        headers = {
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
            "Referral-Broker-Subject": delivery.event.subject,
            "Referral-Broker-Sequence": str(delivery.event.subject_seq),
        }
        if trace := read_traceparent(delivery.event.traceparent):
            headers["traceparent"] = trace
        return headers

    async def _outcome(self, response: httpx2.Response) -> Outcome:
        status = response.status_code
        verdict = judge(status)
        if verdict is Verdict.OK:
            body = await read(response)
            return Outcome(read_receipt(body) if body is not None else None, status)
        # What else a refusal says is not read: the status is what counts.
        if verdict is Verdict.REJECT:
            raise Reject(code_of(status), status=status)
        not_before = retry_after(response.headers.get("retry-after"), self._now())
        raise Retry(code_of(status), status=status, not_before=not_before)


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
