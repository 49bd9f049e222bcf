"""What the two ends of a BaRS call read of each other, and what is made of anything else."""

import json
from typing import Any

import pytest

from fhir_profiles.bars import exchange
from fhir_profiles.bars.exchange import Response
from sandbox.bars_receiver import REFERRAL, BarsReceiver
from tests.bars_body import request
from tests.published import DATA

NOTHING = (
    *(b"", b"null", b"[]", b"{}", b"[" * 10_000, b'"Bundle"', b'{"resourceType":7}', b"\xff"),
    *(b'{"resourceType":"Bundle","type":"message"}', b'{"resourceType":"Bundle","entry":[null]}'),
    b'{"resourceType":"Bundle","type":"message","entry":[{"resource":"MessageHeader"}]}',
    b'{"resourceType":"Bundle","type":"message","entry":{"resource":{"resourceType":[]}}}',
)


def test_a_message_is_read_for_its_codes_and_ids() -> None:
    body = request(id="b-1")
    message = exchange.read_message(body)
    assert message is not None
    assert (message.id, message.version, message.definition) == ("b-1", "1.2.0", REFERRAL)
    assert message.use_context == "a5t1|referral|servicerequest-request|new"


def test_codes_are_sent_in_lower_case_whatever_the_guide_prints() -> None:
    body = request().replace(b'"a5t1"', b'"A5T1"')
    message = exchange.read_message(body)
    assert message is not None
    assert message.use_case == "a5t1"


@pytest.mark.parametrize("code", ["Robin Examplesson", "a\r\nX-Evil: 1", "é", "x" * 33, "", 7])
def test_what_is_no_code_never_reaches_a_header(code: object) -> None:
    system = "https://fhir.nhs.uk/CodeSystem/message-reason-bars"
    body = request(header_reason={"coding": [{"system": system, "code": code}]})
    message = exchange.read_message(body)
    assert message is not None
    assert message.use_context == "a5t1|referral|servicerequest-request|"


@pytest.mark.parametrize("body", NOTHING)
def test_what_is_no_message_is_none_and_nothing_raises(body: bytes) -> None:
    assert exchange.read_message(body) is None
    assert exchange.read_response(body) is None
    assert exchange.reference(body) is None
    assert exchange.definitions(body) is None
    assert not exchange.is_outcome(body)
    assert not exchange.is_duplicate(body)
    assert exchange.versions(body) in (None, ())


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "collection"},
        {"header_eventCoding": {"system": "urn:x", "code": "x"}},
        {"id": None},
    ],
)
def test_another_bundle_or_event_or_one_without_an_id_is_no_message(
    changes: dict[str, Any],
) -> None:
    assert exchange.read_message(request(**changes)) is None


def answered(**encounter: Any) -> bytes:
    said = BarsReceiver(reference="PF-1").accepted(json.loads(request()))
    said["entry"][-1]["resource"] |= encounter
    return json.dumps(said).encode()


def test_the_reference_is_that_of_the_encounter_that_the_receiver_plans() -> None:
    assert exchange.reference(answered()) == "PF-1"


@pytest.mark.parametrize(
    "encounter",
    [
        {"status": "finished"},
        {"identifier": []},
        {"identifier": [{"value": ""}]},
        {"identifier": [{"value": " "}]},
        {"identifier": [{"value": 7}]},
        {"identifier": [{"value": "two\nlines"}]},
        {"identifier": [{"value": "x" * 65}]},
    ],
)
def test_what_nobody_could_read_out_is_no_reference(encounter: dict[str, Any]) -> None:
    assert exchange.reference(answered(**encounter)) is None


def test_a_response_says_what_it_answers_and_how() -> None:
    body = request(header_response={"identifier": "b-1", "code": "ok"})
    assert exchange.read_response(body) == Response("b-1", "ok")
    assert exchange.read_response(request(header_response={"code": "ok"})) == Response("", "ok")
    assert exchange.read_response(request()) is None


@pytest.mark.parametrize("mode", ["sender", "receiver"])
def test_a_definition_is_listed_whatever_the_mode_and_the_version_in_its_url(mode: str) -> None:
    statement = {
        "resourceType": "CapabilityStatement",
        "messaging": [{"supportedMessage": [{"mode": mode, "definition": f"{REFERRAL}|1.0.0"}]}],
    }
    assert exchange.definitions(json.dumps(statement).encode()) == {REFERRAL}
    assert exchange.definitions(b'{"resourceType":"CapabilityStatement"}') == frozenset()


@pytest.mark.parametrize(
    ("version", "major"),
    [("1.2.0", "1"), ("1.0.0-beta", "1"), ("10.1", "10"), ("2", "2"), ("", ""), ("v1", "")],
)
def test_versions_are_compared_by_their_first_number(version: str, major: str) -> None:
    assert exchange.major(version) == major


def test_a_duplicate_is_told_by_its_issue_code_alone() -> None:
    def said(*issues: str) -> bytes:
        found = [{"severity": "error", "code": code} for code in issues]
        return json.dumps({"resourceType": "OperationOutcome", "issue": found}).encode()

    assert exchange.is_duplicate(said("duplicate"))
    assert not exchange.is_duplicate(said("conflict"))
    assert not exchange.is_outcome(said())


def test_the_published_examples_are_read() -> None:
    folder = DATA / "bars" / "bars-pkg-1.37.0-examples-json"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there: no published example can be read")
    (path,) = folder.glob("REFREQ03*.json")
    message = exchange.read_message(path.read_bytes())
    assert message is not None
    assert message.use_context == "a5t1|referral|servicerequest-request|new"
    assert (message.version, message.definition) == ("1.0.0-beta", REFERRAL)
