"""A BaRS sender, the broker, a BaRS receiver: what is passed on, and what comes back."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from broker import operating
from broker.bars import receiving
from broker.errors import Conflict
from broker.store import claims, deliveries
from broker.store.tx import Tx
from sandbox import bars
from sandbox.bars_receiver import BarsReceiver, Call, Scripted
from sandbox.bars_receiver import outcome as refusal
from tests.acceptance.place import Body, Caller, Place, eventually, taken
from tests.acceptance.place import referral as eye_referral
from tests.acceptance.test_bars import (
    SERVICE,
    answered,
    referral,
    resources,
    send,
    sent_message,
    state_of,
)
from tests.acceptance.test_fhir_errors import outcome

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHARMACY = """  - organisation: FPH01
    service: FPH01-PHARMACY-FIRST
    channel: inbox
    takes: [referral, notice]
    pathways: [a5t1]
"""


@pytest_asyncio.fixture(loop_scope="module")
async def receiver(place: Place) -> AsyncIterator[BarsReceiver]:
    """The pharmacy's service, which now has a BaRS server of its own."""
    made = BarsReceiver()
    await made.start()
    speaks = PHARMACY.replace("channel: inbox", f"channel: bars\n    url: {made.url}")
    async with place.directory((PHARMACY, speaks)):
        yield made
    await made.stop()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "PATIENCE", 0.2)


async def test_the_very_bytes_reach_the_service_and_its_own_answer_comes_back(
    practice: Caller, receiver: BarsReceiver
) -> None:
    message = referral()
    ids = bars.headers(SERVICE)
    said = answered(await send(practice, message, **ids), message)
    (call,) = receiver.messages
    assert json.loads(call.body) == message
    assert call.body == json.dumps(message).encode()
    assert call.headers["x-correlation-id"] == ids["X-Correlation-Id"]
    assert call.decoded("nhsd-target-identifier") == {"system": bars.DOS, "value": SERVICE}
    _, planned = resources(said, "Encounter")
    assert planned["identifier"][0]["value"] == "PF-2048"
    sent = await sent_message(practice)
    (delivery,) = sent["deliveries"]
    assert (delivery["receipts"][0]["via"], delivery["reference"]) == ("bars", "PF-2048")
    assert await state_of(practice, sent) == "received"
    outcome(await send(practice, message, **ids), 409, "REC_CONFLICT", "duplicate")


async def test_what_is_cancelled_reaches_the_service_under_the_id_that_it_gave(
    practice: Caller, receiver: BarsReceiver
) -> None:
    message = referral()
    said = answered(await send(practice, message), message)
    given = receiver.given[resources_url(message, "ServiceRequest")]
    cancels = bars.cancellation(message, said)
    answered(await send(practice, cancels), cancels)

    async def told() -> Call | None:
        return next(iter(receiver.messages[1:]), None)

    call: Call = await eventually(told)
    first = receiver.messages[0]
    assert call.headers["x-correlation-id"] == first.headers["x-correlation-id"]
    assert call.headers["x-request-id"] != first.headers["x-request-id"]
    over: Body = json.loads(call.body)
    (request,) = resources(over, "ServiceRequest")
    sent = await sent_message(practice)
    assert request["status"] == "revoked"
    assert request["id"] == given
    assert await state_of(practice, sent) == "cancelled"


def resources_url(bundle: Body, kind: str) -> str:
    found: str = next(
        one["fullUrl"] for one in bundle["entry"] if one["resource"]["resourceType"] == kind
    )
    return found


async def test_a_refusal_of_the_service_is_passed_on_and_said_again(
    practice: Caller, receiver: BarsReceiver, place: Place
) -> None:
    receiver.script.append(refusal(422, "REC_UNPROCESSABLE_ENTITY", "not-supported"))
    message, ids = referral(), bars.headers(SERVICE)
    first = await send(practice, message, **ids)
    assert first.status_code == 422
    assert first.json()["issue"][0]["code"] == "not-supported"
    again = await send(practice, message, **ids)
    assert (again.status_code, again.content) == (422, first.content)
    sent = await sent_message(practice)
    assert await state_of(practice, sent) == "cancelled"
    assert len(receiver.messages) == 1
    rows = await place.rows(
        "SELECT * FROM work_item WHERE message_id = :m AND closed_at IS NULL", m=sent["id"]
    )
    assert rows == []


@pytest.mark.usefixtures("impatient")
async def test_a_service_that_takes_its_time_is_waited_for_and_its_sender_told_later(
    practice: Caller, receiver: BarsReceiver
) -> None:
    later = {"Retry-After": "600"}  # a retry would take what another test has scripted
    receiver.script.append(Scripted(503, headers=later, after=0.4))
    message, ids = referral(), bars.headers(SERVICE)
    said = answered(await send(practice, message, **ids), message)
    _, planned = resources(said, "Encounter")
    assert "Held by the broker" in planned["text"]["div"]
    outcome(await send(practice, message, **ids), 409, "REC_CONFLICT", "duplicate")


async def test_nobody_waits_for_a_service_that_is_tried_again_only_later(
    practice: Caller, receiver: BarsReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "PATIENCE", 300.0)
    receiver.script.append(Scripted(503, headers={"Retry-After": "600"}))
    message = referral()
    async with asyncio.timeout(60):  # it would be five minutes
        said = answered(await send(practice, message), message)
    _, planned = resources(said, "Encounter")
    assert "Held by the broker" in planned["text"]["div"]


@pytest.mark.usefixtures("impatient")
async def test_a_sender_that_cannot_be_told_asks_until_the_service_has_answered(
    place: Place, receiver: BarsReceiver
) -> None:
    deaf = place.of("G99003")
    message = bars.referral(sender="G99003", receiver="FPH01", service=SERVICE)
    ids = bars.headers(SERVICE)
    receiver.script.append(Scripted(200, receiver.accepted(message), after=0.5))
    outcome(await send(deaf, message, **ids), 408, "REC_TIMEOUT", "timeout")

    async def done() -> bool:
        answer = await send(deaf, message, **ids)
        return answer.status_code == 409

    assert await eventually(done)
    outcome(await send(deaf, message, **ids), 409, "REC_CONFLICT", "duplicate")
    assert len(receiver.messages) == 1


@asynccontextmanager
async def hospital_speaks_bars(place: Place, receiver: BarsReceiver) -> AsyncIterator[None]:
    inbox = "service: RXX01-SPA, channel: inbox, takes: [referral, update, notice]}"
    speaks = (
        f"service: RXX01-SPA, channel: bars, url: '{receiver.url}', takes: [referral, notice]}}"
    )
    async with place.directory((inbox, speaks)):
        yield


async def test_an_optometrists_own_words_reach_a_bars_hospital_and_its_answer_comes_back(
    optometrist: Caller, place: Place
) -> None:
    receiver = BarsReceiver(reference="HES-9")
    await receiver.start()
    async with hospital_speaks_bars(place, receiver):
        (sent,) = (await optometrist.submit(eye_referral()))["messages"]
        word = await optometrist.heard(sent["id"], "receiver-reference")
        assert "HES-9" in word.text
        (call,) = receiver.messages
        asked = json.loads(call.body)
        target = call.decoded("nhsd-target-identifier")
        ends: dict[str, Any] = {"target": "TPX01", "system": bars.ODS}
        accepts = bars.response(asked, encounter="in-progress")
        answered(await send(place.of("RXX01"), accepts, **ends), accepts)
        assert await state_of(optometrist, sent) == "accepted"
        done = {"text": "Seen in the clinic. No treatment needed."}
        ends_it = bars.response(asked, encounter="finished", reason=done)
        answered(await send(place.of("RXX01"), ends_it, **ends), ends_it)
        assert await state_of(optometrist, sent) == "completed"
        assert target["value"] == "RXX01-SPA"
    await receiver.stop()


async def test_a_bars_sender_hears_of_every_move_at_its_own_server(
    practice: Caller, pharmacy: Caller, place: Place
) -> None:
    server = BarsReceiver()
    await server.start()
    inbox = "{organisation: G99001, channel: inbox, takes: [update, referral, notice]}"
    speaks = f"{{organisation: G99001, channel: bars, url: '{server.url}', takes: [notice]}}"
    async with place.directory((inbox, speaks)):
        message, ids = referral(), bars.headers(SERVICE)
        answered(await send(practice, message, **ids), message)
        sent = await sent_message(practice)
        await pharmacy.take(sent["id"])
        taken(await pharmacy.move(sent["referral"], "accept", {}), 200)

        async def told() -> Any:
            return next(iter(server.messages), None)

        call = await eventually(told)
        heard = json.loads(call.body)
        (header,) = resources(heard, "MessageHeader")
        assert header["response"]["identifier"] == message["id"]
        assert call.headers["x-correlation-id"] == ids["X-Correlation-Id"]
        assert [one["status"] for one in resources(heard, "Encounter")] == [
            "in-progress",
            "finished",
        ]
    await server.stop()


# -- a delivery that ended -----------------------------------------------------------------------


async def died(place: Place, caller: Caller) -> str:
    """Return the delivery of what was sent last, whose time is over without an answer for good."""
    sent = await sent_message(caller)

    async def failed() -> str | None:
        rows = await place.rows(
            "SELECT id FROM delivery WHERE message_id = :m AND code = 'answered-5xx'", m=sent["id"]
        )
        return str(rows[0].id) if rows else None

    delivery: str = await eventually(failed)

    def write(tx: Tx) -> None:
        row = deliveries.lock(tx, delivery)
        assert row is not None and row.state == "due"
        claims.bury(tx, row, row.code)

    await place.broker.store.write(write)
    return delivery


async def state_at_the_pharmacy(place: Place, delivery: str) -> str:
    rows = await place.rows(
        "SELECT r.state FROM delivery d JOIN referral r ON r.subject_id = d.subject_id "
        "WHERE d.id = :d",
        d=delivery,
    )
    return str(rows[0].state)


async def give_up(place: Place, delivery: str) -> None:
    known = await place.broker.directory.current()
    await asyncio.to_thread(
        lambda: operating.give_up(
            place.broker.store,
            place.broker.vault,
            known,
            delivery,
            "It was handed over by telephone.",
            actor="test",
            source="//broker.test",
        )
    )


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("sender", "status", "code"),
    [("G99001", 409, "duplicate"), ("G99003", 408, "timeout")],
    ids=["who hears", "who cannot be told"],
)
async def test_what_failed_without_a_refusal_is_for_the_operators_and_its_repeat_ends_nothing(
    place: Place,
    receiver: BarsReceiver,
    sender: str,
    status: int,
    code: str,
) -> None:
    caller = place.of(sender)
    message = bars.referral(sender=sender, receiver="FPH01", service=SERVICE)
    ids = bars.headers(SERVICE)
    receiver.script.append(Scripted(503, headers={"Retry-After": "600"}))
    await send(caller, message, **ids)
    delivery = await died(place, caller)
    answer = await send(caller, message, **ids)
    assert answer.status_code == status, answer.text
    assert answer.json()["issue"][0]["code"] == code
    assert await state_at_the_pharmacy(place, delivery) == "requested"
    await place.broker.store.write(lambda tx: operating.retry(tx, delivery, "test"))

    async def through() -> bool:
        rows = await place.rows("SELECT received_at FROM delivery WHERE id = :d", d=delivery)
        return rows[0].received_at is not None

    assert await eventually(through)


async def test_what_was_refused_to_its_senders_face_is_tried_again_by_nobody(
    practice: Caller, receiver: BarsReceiver, place: Place
) -> None:
    receiver.script.append(refusal(422, "REC_UNPROCESSABLE_ENTITY", "not-supported"))
    message, ids = referral(), bars.headers(SERVICE)
    first = await send(practice, message, **ids)
    assert first.status_code == 422
    (row,) = (await sent_message(practice))["deliveries"]
    assert (row["state"], row["done_reason"]) == ("done", "given-up")
    with pytest.raises(Conflict):
        await place.broker.store.write(lambda tx: operating.retry(tx, row["id"], "test"))
    for _ in range(2):
        again = await send(practice, message, **ids)
        assert (again.status_code, again.content) == (422, first.content)


async def test_who_cannot_be_told_hears_from_a_repeat_that_it_was_given_up(
    place: Place, receiver: BarsReceiver
) -> None:
    deaf = place.of("G99003")
    message = bars.referral(sender="G99003", receiver="FPH01", service=SERVICE)
    ids = bars.headers(SERVICE)
    receiver.script.append(Scripted(503, headers={"Retry-After": "600"}))
    outcome(await send(deaf, message, **ids), 408, "REC_TIMEOUT", "timeout")
    delivery = await died(place, deaf)
    await give_up(place, delivery)
    for _ in range(2):
        said = outcome(
            await send(deaf, message, **ids), 422, "REC_UNPROCESSABLE_ENTITY", "not-supported"
        )
        assert "given up" in said["diagnostics"]
    assert await state_at_the_pharmacy(place, delivery) == "cancelled"


async def test_a_cancellation_that_is_sent_again_waits_for_nobody(
    place: Place, receiver: BarsReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiving, "PATIENCE", 300.0)
    deaf = place.of("G99003")
    message = bars.referral(sender="G99003", receiver="FPH01", service=SERVICE)
    said = answered(await send(deaf, message), message)
    cancels, ids = bars.cancellation(message, said), bars.headers(SERVICE)
    answered(await send(deaf, cancels, **ids), cancels)
    async with asyncio.timeout(60):  # it would be five minutes
        outcome(await send(deaf, cancels, **ids), 409, "REC_CONFLICT", "duplicate")
