"""Deliveries to a BaRS receiver, and the outlet that sends them, for tests of both."""

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.errors import Reject, Retry
from broker.events import REFERRAL_SUBMITTED, Destination, Kind, Priority, Recorded, Role, uuid7
from broker.events import digest as digest_of
from broker.outbound import Http
from broker.ports import Delivery, Endpoint, Party, Receipt
from broker.settings import Settings
from sandbox.bars_receiver import BarsReceiver
from tests.bars_body import TARGET, request

TO = Destination("FPH01", "FPH01-PHARMACY-FIRST")
SENDER = Party("G99001", "Riverside Medical Practice")
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)

MakeHttp = Callable[..., Http]


@asynccontextmanager
async def listening(**given: Any) -> AsyncIterator[BarsReceiver]:
    """Have a receiver listen for a while."""
    made = BarsReceiver(**given)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


def making(stack: AsyncExitStack) -> MakeHttp:
    """Return what makes outlets, which are closed with the stack."""

    def make(**given: Any) -> Http:
        names = ("now", "tls", "resolve", "key")
        more = {name: given.pop(name) for name in names if name in given}

        async def secrets(_: str) -> list[bytes]:
            return []

        values = {"public_url": "https://broker.example", "allow_plain_http": True} | given
        made = Http(Settings(**values), secrets, **more)
        stack.push_async_callback(made.aclose)
        return made

    return make


def a_delivery(url: str, **changes: Any) -> Delivery:
    body = changes.pop("body", None) or request()
    event = Recorded(
        position=1,
        id=uuid7(),
        type=REFERRAL_SUBMITTED,
        source="urn:referral-broker:test",
        subject=uuid7(),
        subject_seq=1,
        time=NOW,
        dataschema="",
        message_id=uuid7(),
        correlation_id=uuid7(),
        causation_id=None,
        traceparent=None,
        priority=Priority.ROUTINE,
        facts={},
        routes=(),
    )
    endpoint = Endpoint(TO, "bars", url, **changes.pop("endpoint", {}))
    made = Delivery(
        id=str(uuid.uuid4()),
        event=event,
        kind=Kind.REFERRAL,
        destination=TO,
        role=Role.ACTING,
        attempt=1,
        digest=digest_of(body),
        body=body,
        endpoint=endpoint,
        sender=SENDER,
        target=TARGET,
    )
    return replace(made, **changes)


async def failure(http: Http, delivery: Delivery) -> Retry | Reject:
    try:
        found = await http.post(delivery)
    except (Retry, Reject) as failed:
        return failed
    pytest.fail(f"not refused: {found}")


def receipt_of(delivery: Delivery) -> Receipt:
    return Receipt(delivery.id, delivery.digest, TO.ods)
