"""Delivery to BaRS receivers, against a receiver on loopback that answers as it is told."""

import json
import ssl
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from broker.errors import Reject, Retry
from broker.events import uuid7
from broker.outbound import bars as way
from broker.ports import Delivery
from broker.settings import SettingsProblem, load
from fhir_profiles.bars import exchange
from fhir_profiles.bars.codes import USE_CASES
from sandbox.bars_receiver import SHORT, BarsReceiver, Scripted, outcome
from tests.bars_body import PATIENT_WORDS, TARGET, request
from tests.integration.bars_calls import (
    NOW,
    SENDER,
    MakeHttp,
    a_delivery,
    failure,
    listening,
    making,
    receipt_of,
)
from tests.integration.test_outbound import Authority, on_loopback
from tests.made import errors

pytestmark = pytest.mark.slow

IDS = ("x-request-id", "x-correlation-id")


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as made:
        yield made


@pytest.fixture
async def receiver(stack: AsyncExitStack) -> BarsReceiver:
    return await stack.enter_async_context(listening())


@pytest.fixture
def http(stack: AsyncExitStack) -> MakeHttp:
    return making(stack)


def answer_to(delivery: Delivery, **response: str) -> dict[str, Any]:
    """What a receiver says that takes it, with another response in its header."""
    said = BarsReceiver().accepted(json.loads(delivery.body))
    said["entry"][0]["resource"]["response"] |= response
    return said


# -- what is sent --------------------------------------------------------------------------------


async def test_a_message_is_posted_as_it_is_under_the_ids_that_stay_the_same(
    receiver: BarsReceiver, http: MakeHttp
) -> None:
    delivery = a_delivery(receiver.url)
    await http().post(delivery)
    (call,) = receiver.messages
    assert call.path == "$process-message"
    assert call.body == delivery.body
    assert call.headers["content-type"] == "application/fhir+json"
    assert call.headers["x-request-id"] == delivery.id
    assert call.headers["x-correlation-id"] == delivery.event.correlation_id
    assert call.headers["accept"] == "application/fhir+json; version=1.5.0"
    assert call.headers["use-context"] == "a5t1|referral|servicerequest-request|new"
    assert "authorization" not in call.headers


async def test_the_headers_say_who_asks_whom_in_base64(
    receiver: BarsReceiver, http: MakeHttp
) -> None:
    await http(source="urn:broker:here").post(a_delivery(receiver.url))
    for call in receiver.calls:
        assert call.decoded("nhsd-target-identifier") == {"system": TARGET[0], "value": TARGET[1]}
        organisation = call.decoded("nhsd-end-user-organisation")
        assert organisation["resourceType"] == "Organization"
        assert organisation["name"] == SENDER.name
        (identifier,) = organisation["identifier"]
        assert identifier["system"] == "https://fhir.nhs.uk/Id/ods-organization-code"
        assert identifier["value"] == SENDER.ods
        device = call.decoded("nhsd-requesting-software")
        assert device["deviceName"] == [{"name": "Referral Broker", "type": "manufacturer-name"}]
        assert [set(one) for one in device["version"]] == [{"value"}]
        for resource in (organisation, device):
            assert errors(json.dumps(resource).encode()) == []


async def test_no_header_and_no_url_holds_anything_of_the_patient(
    receiver: BarsReceiver, http: MakeHttp
) -> None:
    await http().post(a_delivery(receiver.url))
    for call in receiver.calls:
        decoded = [call.decoded(name) for name in call.headers if name.startswith("nhsd-")]
        said = json.dumps([call.path, call.query, dict(call.headers), decoded])
        assert not [word for word in PATIENT_WORDS if word in said]


async def test_a_question_never_takes_the_id_of_the_message(
    receiver: BarsReceiver, http: MakeHttp
) -> None:
    """A receiver that keeps every X-Request-Id would take the message for a repeat of it."""
    await http().post(a_delivery(receiver.url))
    ids = [call.headers["x-request-id"] for call in receiver.calls]
    assert len(set(ids)) == len(ids) == 3


async def test_a_correlation_that_nobody_named_is_that_of_the_subject(
    receiver: BarsReceiver, http: MakeHttp
) -> None:
    delivery = a_delivery(receiver.url)
    delivery = replace(delivery, event=replace(delivery.event, correlation_id=None))
    assert (await http().post(delivery)).receipt == receipt_of(delivery)
    assert receiver.messages[0].headers["x-correlation-id"] == delivery.event.subject


@pytest.mark.parametrize(
    ("body", "sent"),
    [("1.1.0", "1.1.0"), ("1.9.9", "1.9.9"), ("2.0.0", "1.5.0"), ("latest", "1.5.0")],
)
async def test_the_core_version_is_the_one_that_the_receiver_speaks_if_its_major_is_ours(
    receiver: BarsReceiver, http: MakeHttp, body: str, sent: str
) -> None:
    receiver.offered.core = body
    await http().post(a_delivery(receiver.url))
    accepted = [call.headers["accept"].rpartition("=")[2] for call in receiver.calls]
    assert accepted == ["1.5.0", sent, sent]


@pytest.mark.parametrize(
    "body", [b"{}", b"not JSON", b'{"resourceType":"Bundle","type":"message"}']
)
async def test_what_is_no_bars_message_is_not_sent(
    receiver: BarsReceiver, http: MakeHttp, body: bytes
) -> None:
    failed = await failure(http(), a_delivery(receiver.url, body=body))
    assert (type(failed), failed.code) == (Reject, "not-offered")
    assert receiver.calls == []


@pytest.mark.parametrize(
    "url", ["https://10.0.0.1/FHIR/R4", "https://broker.example/FHIR/R4", "ftp://x.example/"]
)
async def test_the_same_addresses_are_refused_as_to_webhooks(http: MakeHttp, url: str) -> None:
    failed = await failure(http(), a_delivery(url))
    assert (type(failed), failed.code) == (Retry, "address-refused")


# -- what is answered ----------------------------------------------------------------------------


async def test_an_answer_to_this_very_bundle_is_a_receipt_by_the_endpoints_word(
    receiver: BarsReceiver, http: MakeHttp
) -> None:
    delivery = a_delivery(receiver.url)
    found = await http().post(delivery)
    assert (found.receipt, found.status, found.via) == (receipt_of(delivery), 200, "bars")
    assert found.answer is not None
    assert exchange.reference(found.answer) == "PF-2048"


async def test_a_second_attempt_is_a_duplicate_and_that_is_a_receipt_too(
    receiver: BarsReceiver, http: MakeHttp
) -> None:
    delivery = a_delivery(receiver.url)
    outlet = http()
    await outlet.post(delivery)
    found = await outlet.post(replace(delivery, attempt=2))
    assert (found.receipt, found.status, found.via) == (receipt_of(delivery), 409, "bars")


async def test_a_duplicate_without_the_ids_is_nobodys_word(
    receiver: BarsReceiver, http: MakeHttp
) -> None:
    receiver.script.append(outcome(409, "REC_CONFLICT", "duplicate", echo=False))
    failed = await failure(http(), a_delivery(receiver.url))
    assert (type(failed), failed.status) == (Retry, 409)


@pytest.mark.parametrize(
    "response",
    [
        {"identifier": str(uuid.UUID(int=7))},
        {"identifier": "Robin Examplesson"},
        {"code": "fatal-error"},
        {"code": "transient-error"},
    ],
    ids=["another id", "words", "fatal", "transient"],
)
async def test_an_answer_to_something_else_or_of_an_error_is_only_evidence(
    receiver: BarsReceiver, http: MakeHttp, response: dict[str, str]
) -> None:
    delivery = a_delivery(receiver.url)
    receiver.script.append(Scripted(200, answer_to(delivery, **response)))
    found = await http().post(delivery)
    assert found.receipt is not None
    assert found.receipt != receipt_of(delivery)
    assert found.receipt.digest == ""
    assert "Robin" not in found.receipt.delivery


NO_RECEIPTS: Mapping[str, Scripted] = {
    "nothing": Scripted(200),
    "HTML": Scripted(200, b"<html>"),
    "an outcome": outcome(200, "X", "informational"),
    "a Bundle that answers nothing": Scripted(200, request()),
    "over the limit": Scripted(200, b" " * (way.LARGEST + 1)),
    "no content": Scripted(204),
}


@pytest.mark.parametrize("scripted", NO_RECEIPTS.values(), ids=NO_RECEIPTS.keys())
async def test_any_other_2xx_of_the_receiver_is_a_bare_one(
    receiver: BarsReceiver, http: MakeHttp, scripted: Scripted
) -> None:
    receiver.script.append(scripted)
    found = await http().post(a_delivery(receiver.url))
    assert (found.receipt, found.status) == (None, scripted.status)


@pytest.mark.parametrize("scripted", NO_RECEIPTS.values(), ids=NO_RECEIPTS.keys())
async def test_a_2xx_without_the_ids_may_be_anybodys_and_is_tried_again(
    receiver: BarsReceiver, http: MakeHttp, scripted: Scripted
) -> None:
    receiver.script.append(replace(scripted, echo=False))
    failed = await failure(http(), a_delivery(receiver.url))
    assert (type(failed), failed.code, failed.status) == (Retry, "intermediary", None)


@pytest.mark.parametrize("status", [400, 405, 406, 409, 410, 413, 415, 422])
async def test_a_refusal_in_the_receivers_own_words_is_final_and_kept(
    receiver: BarsReceiver, http: MakeHttp, status: int
) -> None:
    scripted = outcome(status, "REC_X", "invariant")
    receiver.script.append(scripted)
    failed = await failure(http(), a_delivery(receiver.url))
    assert isinstance(failed, Reject)
    assert (failed.code, failed.status) == ("answered-4xx", status)
    assert json.loads(failed.answer or b"") == scripted.body


@pytest.mark.parametrize("status", [400, 410, 413, 415, 422])
@pytest.mark.parametrize("how", ["no ids", "no outcome", "other ids"])
async def test_a_refusal_that_an_intermediary_may_have_made_is_tried_again(
    receiver: BarsReceiver, http: MakeHttp, status: int, how: str
) -> None:
    said = {
        "no ids": outcome(status, "REC_X", "invalid", echo=False),
        "no outcome": Scripted(status, b"<html>Bad request</html>"),
        "other ids": outcome(
            status, "REC_X", "invalid", echo=False, headers=dict.fromkeys(IDS, uuid7())
        ),
    }
    receiver.script.append(said[how])
    failed = await failure(http(), a_delivery(receiver.url))
    # Without the status: a Retry that named it would be final.
    assert (type(failed), failed.code, failed.status) == (Retry, "intermediary", None)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        *((status, "answered-4xx") for status in (401, 403, 404, 408, 425, 429)),
        *((status, "answered-5xx") for status in (500, 501, 502, 503, 504)),
        (302, "redirected"),
    ],
)
async def test_what_may_pass_is_tried_again_whoever_says_it(
    receiver: BarsReceiver, http: MakeHttp, status: int, code: str
) -> None:
    outlet = http()
    for echo in (True, False):
        receiver.script.append(outcome(status, "REC_X", "transient", echo=echo))
        failed = await failure(outlet, a_delivery(receiver.url))
        assert (type(failed), failed.code, failed.status) == (Retry, code, status)


async def test_a_first_attempt_that_still_runs_proves_nothing(
    receiver: BarsReceiver, http: MakeHttp
) -> None:
    receiver.script.append(outcome(425, "REC_TOO_EARLY", "duplicate"))
    failed = await failure(http(), a_delivery(receiver.url))
    assert (type(failed), failed.status) == (Retry, 425)


async def test_a_conflict_that_is_no_duplicate_is_final(
    receiver: BarsReceiver, http: MakeHttp
) -> None:
    receiver.script.append(outcome(409, "REC_CONFLICT", "conflict"))
    failed = await failure(http(), a_delivery(receiver.url))
    assert (type(failed), failed.status) == (Reject, 409)


async def test_a_retry_after_is_respected(receiver: BarsReceiver, http: MakeHttp) -> None:
    receiver.script.append(
        outcome(429, "REC_TOO_MANY_REQUESTS", "throttled", headers={"Retry-After": "120"})
    )
    failed = await failure(http(now=lambda: NOW), a_delivery(receiver.url))
    assert isinstance(failed, Retry)
    assert failed.not_before == NOW + timedelta(minutes=2)


async def test_five_seconds_are_all_that_an_answer_gets(
    receiver: BarsReceiver, http: MakeHttp
) -> None:
    receiver.script.append(Scripted(200, after=way.SECONDS + 1))
    failed = await failure(http(send_timeout=45), a_delivery(receiver.url))
    assert (type(failed), failed.code) == (Retry, "timed-out")
    assert way.SECONDS == 5


async def test_a_redirect_is_not_followed(receiver: BarsReceiver, http: MakeHttp) -> None:
    receiver.script.append(Scripted(307, headers={"Location": f"{receiver.url}/elsewhere"}))
    assert (await failure(http(), a_delivery(receiver.url))).code == "redirected"
    assert len(receiver.messages) == 1


# -- what is offered -----------------------------------------------------------------------------


async def test_what_is_offered_is_asked_once_before_the_first_message(
    receiver: BarsReceiver, http: MakeHttp
) -> None:
    outlet = http()
    for _ in range(3):
        await outlet.post(a_delivery(receiver.url))
    assert receiver.questions == ["metadata", "MessageDefinition"]
    assert [call.method for call in receiver.calls] == ["GET", "GET", *["POST"] * 3]
    assert receiver.calls[1].query == (
        ("context", "|".join(TARGET)),
        ("context", f"{USE_CASES}|a5t1"),
    )


@pytest.mark.parametrize(
    ("cache_control", "kept_for"),
    [
        ("", timedelta(hours=12)),
        ("private", timedelta(hours=12)),
        ("max-age=60", timedelta(minutes=1)),
        ("private, max-age=604800", timedelta(hours=24)),
        ("no-store", timedelta()),
        ("no-cache, max-age=60", timedelta()),
    ],
)
async def test_it_is_known_for_as_long_as_the_answer_says_but_never_over_a_day(
    receiver: BarsReceiver, http: MakeHttp, cache_control: str, kept_for: timedelta
) -> None:
    times = [NOW]
    outlet = http(now=lambda: times[-1])
    receiver.offered.cache_control = cache_control
    asked = []
    for at in (NOW, NOW + kept_for - timedelta(seconds=1), NOW + kept_for):
        times.append(max(at, NOW))
        await outlet.post(a_delivery(receiver.url))
        asked.append(receiver.questions.count("metadata"))
    assert asked == ([1, 2, 3] if not kept_for else [1, 1, 2])


async def test_each_service_and_use_case_is_asked_for_by_itself(
    receiver: BarsReceiver, http: MakeHttp
) -> None:
    outlet = http()
    other = (TARGET[0], "2000099902")
    await outlet.post(a_delivery(receiver.url))
    await outlet.post(a_delivery(receiver.url, body=request(target=other), target=other))
    assert receiver.questions.count("MessageDefinition") == 2


async def test_an_endpoint_that_was_refreshed_is_asked_anew(
    receiver: BarsReceiver, http: MakeHttp
) -> None:
    outlet = http()
    for mark in (None, NOW, NOW):
        await outlet.post(a_delivery(receiver.url, endpoint={"refreshed_at": mark}))
    assert receiver.questions.count("metadata") == 2


async def test_what_the_receiver_does_not_list_is_never_sent(
    receiver: BarsReceiver, http: MakeHttp
) -> None:
    receiver.offered.definitions = (SHORT,)
    outlet = http()
    for _ in range(2):
        failed = await failure(outlet, a_delivery(receiver.url))
        assert (type(failed), failed.code) == (Reject, "not-offered")
    assert receiver.messages == []


@pytest.mark.parametrize(
    ("offered", "ours", "goes"),
    [
        (("1.0.0-beta",), "1.2.0", True),
        (("2.0.0", "1.1.4"), "1.2.0", True),
        (("2.0.0",), "1.2.0", False),
        (("10.0.0",), "1.2.0", False),
        ((), "1.2.0", False),
        (("latest",), "latest", False),
    ],
)
async def test_a_message_goes_only_to_the_same_major_version(
    receiver: BarsReceiver, http: MakeHttp, offered: tuple[str, ...], ours: str, goes: bool
) -> None:
    receiver.offered.versions = offered
    delivery = a_delivery(receiver.url, body=request(meta_versionId=ours))
    if goes:
        assert (await http().post(delivery)).receipt is not None
    else:
        failed = await failure(http(), delivery)
        assert (type(failed), failed.code) == (Reject, "not-offered")
        assert receiver.messages == []


async def test_before_a_message_dies_of_what_is_known_the_receiver_is_asked_again(
    receiver: BarsReceiver, http: MakeHttp
) -> None:
    outlet = http()
    receiver.offered.versions = ("2.0.0",)
    await failure(outlet, a_delivery(receiver.url))
    receiver.offered.versions = ("1.0.0",)
    assert (await outlet.post(a_delivery(receiver.url))).receipt is not None


@pytest.mark.parametrize("status", [404, 400, 410, 500, 503, 204])
async def test_without_metadata_it_is_tried_again(
    receiver: BarsReceiver, http: MakeHttp, status: int
) -> None:
    receiver.offered.metadata = status
    failed = await failure(http(), a_delivery(receiver.url))
    assert isinstance(failed, Retry)
    assert failed.status not in {400, 410}
    assert receiver.messages == []


@pytest.mark.parametrize("status", [404, 501])
async def test_a_receiver_without_message_definitions_gets_the_message_all_the_same(
    receiver: BarsReceiver, http: MakeHttp, status: int
) -> None:
    receiver.offered.definitions_status = status
    assert (await http().post(a_delivery(receiver.url))).receipt is not None


@pytest.mark.parametrize("status", [400, 401, 500])
async def test_message_definitions_that_fail_are_asked_for_again(
    receiver: BarsReceiver, http: MakeHttp, status: int
) -> None:
    receiver.offered.definitions_status = status
    assert isinstance(await failure(http(), a_delivery(receiver.url)), Retry)
    assert receiver.messages == []


# -- a certificate of our own --------------------------------------------------------------------


def demanding(authority: Authority) -> ssl.SSLContext:
    """A server's context that takes calls only of those whose certificate the authority signed."""
    context = authority.serving("pharmacy.example")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=authority.pem)
    return context


async def test_a_receiver_that_wants_our_certificate_is_shown_it(
    stack: AsyncExitStack, http: MakeHttp, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    there = await stack.enter_async_context(listening(tls=demanding(authority)))
    authority.serving("broker.example")
    both = tmp_path / "broker.example.pem"
    url = f"https://pharmacy.example:{there.port}/FHIR/R4"
    shown = http(resolve=on_loopback, tls=authority.trusting(), tls_certificate=both, tls_key=both)
    assert (await shown.post(a_delivery(url))).receipt is not None
    without = http(resolve=on_loopback, tls=authority.trusting())
    assert isinstance(await failure(without, a_delivery(url)), Retry)
    assert len(there.messages) == 1


@pytest.mark.parametrize("name", ["TLS_CERTIFICATE", "TLS_KEY"])
def test_a_certificate_and_its_key_are_set_together(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(f"BROKER_{name}", "one.pem")
    with pytest.raises(SettingsProblem, match=r"^set BROKER_TLS_CERTIFICATE and BROKER_TLS_KEY"):
        load()


@pytest.mark.parametrize("held", [None, b"", b"-----BEGIN CERTIFICATE-----\nx\n"])
def test_a_certificate_that_cannot_be_used_stops_the_start(
    tmp_path: Path, http: MakeHttp, held: bytes | None
) -> None:
    path = tmp_path / "broker.pem"
    if held is not None:
        path.write_bytes(held)
    with pytest.raises(SettingsProblem, match=r"broker\.pem .* give BROKER_TLS_CERTIFICATE"):
        http(tls_certificate=path, tls_key=path)


def test_a_key_with_a_password_stops_the_start_and_asks_nobody(
    tmp_path: Path, http: MakeHttp
) -> None:
    Authority(tmp_path).serving("broker")
    both, locked = tmp_path / "broker.pem", tmp_path / "locked.pem"
    key = serialization.load_pem_private_key(both.read_bytes(), None)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(SettingsProblem, match="its key without a password"):
        http(tls_certificate=both, tls_key=locked)
