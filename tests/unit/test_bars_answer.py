"""The answer to a BaRS message: which ids its resources get, and what is left as it came."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.events import uuid7
from fhir_profiles import strict_json
from fhir_profiles.bars import answer, incoming
from fhir_profiles.bars.answer import Answering
from fhir_profiles.bundle import given_id
from sandbox import bars

MESSAGE = uuid7()
BY = Answering(MESSAGE, datetime(2026, 11, 23, 10, tzinfo=UTC), "Broker", "https://broker.example")
SENT = bars.referral(sender="G99001", receiver="FPH01", service="2000099901")
REQUEST = next(
    one["fullUrl"] for one in SENT["entry"] if one["resource"]["resourceType"] == "ServiceRequest"
)
HEADER = SENT["entry"][0]["fullUrl"]


def passed_on(*entries: bytes) -> list[bytes]:
    """The entries of a receiver's answer, as its sender gets them."""
    received = b'{"resourceType": "Bundle", "entry" : [ %s ], "type":"message"}' % b" , ".join(
        entries
    )
    told = answer.passed_on(received, incoming.read(SENT), BY)
    assert strict_json.loads(told).keys() == {"resourceType", "entry", "type"}
    return list(strict_json.elements_of(told, "entry"))


def known(resource: bytes, more: bytes = b"") -> bytes:
    return b'{%s"fullUrl":"%s","resource":%s}' % (more, REQUEST.encode(), resource)


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(b'{"fullUrl": 12, "resource": {"resourceType":"Patient"}}', id="a number"),
        pytest.param(b'{"fullUrl": [], "resource": {"resourceType":"Patient"}}', id="a list"),
        pytest.param(b'{ "resource":{ "resourceType": "Patient" } }', id="no url"),
        pytest.param(
            b'{"fullUrl":"urn:uuid:other", "search":{"mode":"match"}, "request" : {"url":"x"},'
            b' "resource":{"v":1.50}, "response":{"status":"200"}, "extension":[{"url":"x"}]}',
            id="not ours, with more members",
        ),
        pytest.param(known(b'"no resource"'), id="ours, without a resource"),
        pytest.param(b'"no entry"', id="no entry"),
        pytest.param(b'{"fullUrl":"%s","resource":{"id": "1"}}' % HEADER.encode(), id="the header"),
    ],
)
def test_what_a_sender_does_not_know_is_passed_on_byte_for_byte(entry: bytes) -> None:
    assert passed_on(entry) == [entry]


@pytest.mark.parametrize(
    ("resource", "rest"),
    [
        (b'{"resourceType" : "ServiceRequest"}', b'"resourceType" : "ServiceRequest"}'),
        (b'{ \n "v":1.50 }', b'"v":1.50 }'),
        (b"{}", b"}"),
    ],
)
def test_what_it_sent_itself_has_the_id_that_it_has_here_and_is_else_as_it_came(
    resource: bytes, rest: bytes
) -> None:
    mine = b'"id":"%s"' % given_id(MESSAGE, REQUEST).encode()
    comma = b"," if len(rest) > 1 else b""
    assert passed_on(known(resource, b'"search":{ "mode":"match" },')) == [
        known(b"{" + mine + comma + rest, b'"search":{ "mode":"match" },')
    ]


@pytest.mark.parametrize("name", [b'"id"', b'"\\u0069d"'])
def test_an_id_of_the_receivers_gives_way_however_it_is_written(name: bytes) -> None:
    (told,) = passed_on(known(b'{"a":{"id":"1"},%s:"theirs"}' % name))
    assert json.loads(told)["resource"] == {"a": {"id": "1"}, "id": given_id(MESSAGE, REQUEST)}


@pytest.mark.parametrize("entry", [b"{}", b"null", b'"x"'])
def test_an_answer_whose_entries_are_no_list_is_passed_on_as_it_came(entry: bytes) -> None:
    received = b'{"resourceType":"Bundle", "entry": ' + entry + b"}"
    assert answer.passed_on(received, incoming.read(SENT), BY) == received
    assert answer.passed_on(b'{"v": 1}', incoming.read(SENT), BY) == b'{"v": 1}'


def marked(resource: dict[str, Any], code: str) -> None:
    resource.setdefault("meta", {}).setdefault("security", []).append({"code": code})


def test_a_message_is_as_confidential_as_the_most_that_anything_in_it_is() -> None:
    message = bars.referral(sender="G99001", receiver="FPH01", service="2000099901")
    assert incoming.read(message).label == "N"
    marked(message["entry"][-1]["resource"], "R")
    assert incoming.read(message).label == "R"
    marked(message, "V")
    assert incoming.read(message).label == "V"
