"""A referral goes to a BaRS receiver by itself: what is proved, kept, told, and what is refused."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import delete, update

from broker import answered, receipts, registry
from broker.events import Recorded, Role, uuid7
from broker.ports import Addressed
from broker.store import endpoints, messages
from broker.store import tables as t
from broker.store.tx import Tx
from consumers.referral_delivery import ReferralDelivery
from fhir_profiles import codes
from sandbox.bars_receiver import BarsReceiver, Scripted, outcome
from tests.acceptance.place import Caller, Place, eventually, first, referral, taken
from tests.bars_body import PATIENT_WORDS, request

pytestmark = pytest.mark.asyncio(loop_scope="module")

TARGET = (codes.SERVICE_ID, "RXX01-SPA")
INBOX = (
    "{organisation: RXX01, service: RXX01-SPA, channel: inbox, takes: [referral, update, notice]}"
)


class InBars(ReferralDelivery):
    """Sends a BaRS message to who must act and speaks BaRS, whatever was referred."""

    def compose(self, event: Recorded, content: bytes, to: Addressed) -> bytes:
        if to.role is not Role.ACTING or to.bars is None:
            return super().compose(event, content, to)
        return request(target=TARGET)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(
    tmp_path_factory: pytest.TempPathFactory, backing: Mapping[str, Any]
) -> AsyncIterator[Place]:
    """A running broker that refers in BaRS."""
    found = registry.load()
    in_bars = replace(found, consumers={**found.consumers, InBars.name: InBars()})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(registry, "load", lambda: in_bars)
        made = Place(tmp_path_factory.mktemp("place"), backing=backing)
        await made.start()
        yield made
        await made.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def receiver() -> AsyncIterator[BarsReceiver]:
    made = BarsReceiver(reference="SPA-4711")
    await made.start()
    yield made
    await made.stop()


def reached_by(channel: str, url: str) -> str:
    said = f"channel: {channel}, url: '{url}', takes: [referral, notice]"
    return f"{{organisation: RXX01, service: RXX01-SPA, {said}}}"


@pytest.fixture
def connected(place: Place, receiver: BarsReceiver) -> Callable[..., Any]:
    """The service is reached by BaRS for a while, at the receiver, or otherwise."""

    def connect(channel: str = "bars", url: str = "") -> AbstractAsyncContextManager[None]:
        return place.directory((INBOX, reached_by(channel, url or receiver.url)))

    return connect


async def sent(optometrist: Caller) -> str:
    """Refer a patient; return the message's id."""
    found: str = first(await optometrist.submit(referral()), "referral")["id"]
    return found


async def acting(optometrist: Caller, message: str) -> dict[str, Any]:
    """Return the delivery to who must act, as the sender is shown it; {} while there is none."""
    seen = await optometrist.tracked(message)
    return next((one for one in seen["deliveries"] if one["role"] == "acting"), {})


async def once(
    optometrist: Caller, message: str, holds: Callable[[dict[str, Any]], Any]
) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        found = await acting(optometrist, message)
        return found if found and holds(found) else None

    found: dict[str, Any] = await eventually(look)
    return found


def attempted(times: int) -> Callable[[dict[str, Any]], bool]:
    return lambda row: len(row["attempts"]) >= times


def received(row: dict[str, Any]) -> bool:
    return bool(row["received_at"])


async def try_now(place: Place, delivery: str) -> None:
    """Let a delivery that waits be due."""
    chosen = update(t.delivery).where(t.delivery.c.id == delivery)
    past = datetime.now(UTC) - timedelta(seconds=1)
    await place.broker.store.write(lambda tx: tx.execute(chosen.values(due_at=past)))
    place.broker.wake()


async def kept(place: Place, delivery: str) -> answered.Answered | None:
    look = partial(answered.of_delivery, vault=place.broker.vault, delivery_id=delivery)
    return await place.broker.store.read(look)


async def test_the_answer_of_the_endpoint_is_the_receipt_and_is_shown_as_its_word(
    place: Place, optometrist: Caller, receiver: BarsReceiver, connected: Any
) -> None:
    async with connected():
        message = await sent(optometrist)
        row = await once(optometrist, message, received)
        seen = await optometrist.tracked(message)
    assert (row["state"], row["done_reason"], row["channel"]) == ("done", "receipt", "bars")
    assert [(one["via"], one["matches"]) for one in row["receipts"]] == [("bars", True)]
    assert row["reference"] == "SPA-4711"
    assert row["acknowledged_at"] is None
    assert "has it, by its endpoint's word; nobody has acted on it yet." in seen["line"]
    assert seen["state"] == "received"
    (call,) = receiver.messages
    assert call.headers["x-request-id"] == row["id"]
    assert call.decoded("nhsd-target-identifier") == {"system": TARGET[0], "value": TARGET[1]}
    organisation = call.decoded("nhsd-end-user-organisation")
    assert organisation["identifier"][0]["value"] == "TPX01"
    assert organisation["name"]
    (joined,) = await place.rows("SELECT correlation_id FROM message WHERE id = :id", id=message)
    assert call.headers["x-correlation-id"] == joined.correlation_id


async def test_the_reference_reaches_the_sender_once(
    place: Place, optometrist: Caller, receiver: BarsReceiver, connected: Any
) -> None:
    async with connected():
        message = await sent(optometrist)
        row = await once(optometrist, message, received)
        told = await optometrist.heard(message, "receiver-reference")
        assert told.text == (
            "Northfield Hospital, ophthalmology single point of access has your referral; "
            "its reference is SPA-4711."
        )
        # A second receipt, by another way, tells nothing again.
        hospital = place.of("RXX01")
        delivery = next(one for one in await hospital.inbox() if one["id"] == row["id"])
        taken(await hospital.receipt(delivery), 200)
    topics = await optometrist.notices(message)
    assert topics.count("receiver-reference") == 1
    seen = await acting(optometrist, message)
    assert [one["via"] for one in seen["receipts"]] == ["bars"]
    assert len(receiver.messages) == 1


async def test_what_the_receiver_said_is_kept_byte_for_byte(
    place: Place, optometrist: Caller, receiver: BarsReceiver, connected: Any
) -> None:
    async with connected():
        row = await once(optometrist, await sent(optometrist), received)
    found = await kept(place, row["id"])
    assert found is not None
    assert found.status == 200
    said = json.loads(found.body)
    assert said["entry"][0]["resource"]["response"]["code"] == "ok"
    assert found.reference == "SPA-4711"
    (message,) = await place.rows("SELECT message_id FROM delivery WHERE id = :id", id=row["id"])
    forget = delete(t.message_key).where(t.message_key.c.id == message.message_id)
    await place.broker.store.write(lambda tx: tx.execute(forget))
    assert await kept(place, row["id"]) is None  # it is erased with its message


async def test_of_a_notice_and_of_what_is_erased_no_reference_need_be_told(
    place: Place, optometrist: Caller, receiver: BarsReceiver, connected: Any
) -> None:
    async with connected():
        message = await sent(optometrist)
        row = await once(optometrist, message, received)
    core = place.broker.core
    claimed = SimpleNamespace(
        id=row["id"], message_id=message, ods="RXX01", service="RXX01-SPA", received_at=None
    )
    (made,) = await receipts.reference_word(core, as_row(claimed, Role.ACTING), "SPA-4711")
    assert made.row["kind"] == "notice"
    assert await receipts.reference_word(core, as_row(claimed, Role.ACTING), None) == []
    assert await receipts.reference_word(core, as_row(claimed, Role.NOTICE), "SPA-4711") == []
    forget = delete(t.message_key).where(t.message_key.c.id == message)
    await place.broker.store.write(lambda tx: tx.execute(forget))
    # Nothing is there to be opened; what happened to it is told all the same, without its words.
    (made,) = await receipts.reference_word(core, as_row(claimed, Role.ACTING), "SPA-4711")
    assert made.row["kind"] == "notice"


def as_row(claimed: SimpleNamespace, role: Role) -> SimpleNamespace:
    return SimpleNamespace(**vars(claimed), role=role)


async def test_an_answer_that_is_settled_twice_is_kept_once(place: Place) -> None:
    key = place.broker.vault.new_key(uuid7())
    row = SimpleNamespace(id=uuid7(), attempt=1, ods="RXX01")

    def write(tx: Tx) -> None:
        messages.put_key(tx, key)
        for _ in range(2):
            answered.put(tx, place.broker.vault, key, row, b"{}")

    await place.broker.store.write(write)
    found = await place.rows("SELECT role, version FROM payload WHERE owner_id = :id", id=row.id)
    assert [tuple(one) for one in found] == [("answer", 1)]


async def test_a_reference_is_told_as_it_is_written(
    place: Place, optometrist: Caller, connected: Any
) -> None:
    strange = BarsReceiver(reference='<b>A&B</b> "7" é')
    await strange.start()
    try:
        async with connected(url=strange.url):
            message = await sent(optometrist)
            told = await optometrist.heard(message, "receiver-reference")
    finally:
        await strange.stop()
    assert told.text.endswith('its reference is <b>A&B</b> "7" é.')


async def test_neither_reference_nor_patient_stands_in_a_column_or_in_the_log(
    place: Place,
    optometrist: Caller,
    receiver: BarsReceiver,
    connected: Any,
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with connected():
        message = await sent(optometrist)
        await once(optometrist, message, received)
        receiver.script.append(outcome(422, "REC_UNPROCESSABLE_ENTITY", "not-supported"))
        await once(optometrist, await sent(optometrist), lambda row: row["state"] == "dead")
        await optometrist.heard(message, "receiver-reference")
    out, err = capfd.readouterr()
    assert "delivery.attempted" in out + err
    dumped = out + err
    for table in t.METADATA.tables:
        dumped += repr([tuple(row) for row in await place.rows(f'SELECT * FROM "{table}"')])  # noqa: S608
    assert message in dumped
    assert not [word for word in ("SPA-4711", *PATIENT_WORDS) if word in dumped]


async def test_a_refusal_in_the_receivers_words_is_dead_on_the_work_list_and_kept(
    place: Place, optometrist: Caller, receiver: BarsReceiver, connected: Any
) -> None:
    async with connected():
        refusal = outcome(422, "REC_UNPROCESSABLE_ENTITY", "not-supported")
        receiver.script.append(refusal)
        message = await sent(optometrist)
        row = await once(optometrist, message, lambda row: row["state"] == "dead")
    assert row["code"] == "answered-4xx"
    found = await kept(place, row["id"])
    assert found is not None
    assert (found.status, json.loads(found.body)) == (422, refusal.body)
    items = await place.rows("SELECT code FROM work_item WHERE delivery_id = :id", id=row["id"])
    assert [item.code for item in items] == ["delivery-dead"]


async def test_an_answer_to_another_message_is_evidence_on_the_work_list(
    place: Place, optometrist: Caller, receiver: BarsReceiver, connected: Any
) -> None:
    async with connected():
        other = receiver.accepted(json.loads(request(target=TARGET)))
        receiver.script.append(Scripted(200, other))
        message = await sent(optometrist)
        row = await once(optometrist, message, attempted(1))
    assert (row["state"], row["held_reason"], row["code"]) == (
        "held",
        "receipt",
        "receipt-mismatch",
    )
    assert [one["matches"] for one in row["receipts"]] == [False]
    assert row["received_at"] is None
    assert "receiver-reference" not in await optometrist.notices(message)
    items = await place.rows("SELECT code FROM work_item WHERE delivery_id = :id", id=row["id"])
    assert [item.code for item in items] == ["receipt-mismatch"]


async def test_a_lost_answer_becomes_a_receipt_by_the_duplicate_that_follows(
    place: Place, optometrist: Caller, receiver: BarsReceiver, connected: Any
) -> None:
    async with connected():
        receiver.script.append(Scripted(503))
        message = await sent(optometrist)
        row = await once(optometrist, message, attempted(1))
        assert (row["state"], row["code"]) == ("due", "answered-5xx")
        assert await kept(place, row["id"]) is None
        receiver.script.append(outcome(409, "REC_CONFLICT", "duplicate"))
        await try_now(place, row["id"])
        row = await once(optometrist, message, received)
    assert [one["via"] for one in row["receipts"]] == ["bars"]
    assert row["reference"] is None
    found = await kept(place, row["id"])
    assert found is not None and found.status == 409
    first_try, second = receiver.messages
    assert first_try.headers["x-request-id"] == second.headers["x-request-id"]
    assert first_try.body == second.body


async def test_what_is_not_offered_is_dead_at_once_and_can_be_collected(
    place: Place, optometrist: Caller, receiver: BarsReceiver, connected: Any
) -> None:
    receiver.offered.definitions = ()
    async with connected():
        message = await sent(optometrist)
        row = await once(optometrist, message, lambda row: row["state"] == "dead")
    assert row["code"] == "not-offered"
    assert receiver.messages == []
    items = await place.rows("SELECT code FROM work_item WHERE delivery_id = :id", id=row["id"])
    assert [item.code for item in items] == ["delivery-dead"]
    assert row["id"] in {one["id"] for one in await place.of("RXX01").inbox()}


async def test_an_operator_has_forgotten_what_an_endpoint_offers(
    place: Place, optometrist: Caller, receiver: BarsReceiver, connected: Any
) -> None:
    async with connected():
        await once(optometrist, await sent(optometrist), received)
        receiver.offered.definitions = ()
        await once(optometrist, await sent(optometrist), received)
        assert receiver.questions.count("metadata") == 1
        await place.broker.store.write(lambda tx: endpoints.refresh(tx, "RXX01", "RXX01-SPA"))
        await once(optometrist, await sent(optometrist), lambda row: row["code"] == "not-offered")
        assert receiver.questions.count("metadata") == 2


async def test_what_was_composed_for_bars_goes_out_by_nothing_else(
    place: Place, optometrist: Caller, receiver: BarsReceiver, connected: Any
) -> None:
    receiver.offered.metadata = 503
    async with connected():
        message = await sent(optometrist)
        row = await once(optometrist, message, attempted(1))
        assert row["code"] == "answered-5xx"
    await try_now(place, row["id"])  # it is an inbox again
    row = await once(optometrist, message, attempted(2))
    assert (row["state"], row["code"]) == ("due", "does-not-take")
    async with connected("webhook"):
        await try_now(place, row["id"])
        row = await once(optometrist, message, attempted(3))
    assert (row["state"], row["code"]) == ("due", "does-not-take")
    collected = await place.of("RXX01").get(f"/inbox/{row['id']}")
    assert collected.status_code == 200
    assert collected.json()["entry"][0]["resource"]["definition"].endswith("request-referral")
    receiver.offered.metadata = 200
    async with connected():
        await try_now(place, row["id"])
        assert received(await once(optometrist, message, received))


async def test_what_was_composed_for_another_way_goes_to_no_bars_receiver(
    place: Place, optometrist: Caller, receiver: BarsReceiver, connected: Any
) -> None:
    async with connected("webhook", f"http://127.0.0.1:{place.webhook_port}/"):
        message = await sent(optometrist)
        row = await once(optometrist, message, attempted(1))
    async with connected():
        await try_now(place, row["id"])
        row = await once(optometrist, message, attempted(2))
    assert (row["state"], row["code"]) == ("due", "does-not-take")
    assert receiver.calls == []
