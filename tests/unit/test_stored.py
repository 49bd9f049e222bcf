"""A stored resource as it is read: its own bytes, with only `id` and `meta` put in."""

from datetime import UTC, datetime

import pytest

from fhir_profiles import bundle, created, stored, strict_json
from fhir_profiles.compiler.finding import Finding
from fhir_profiles.created import Created

AT = datetime(2026, 11, 23, 9, 30, 0, 123456, tzinfo=UTC)
MESSAGE = "0199a000-0000-7000-8000-000000000001"
RESOURCE = b'{"resourceType" : "Observation", "valueQuantity":{ "value": 1.50 },"text":{"div":"x"}}'


def test_every_value_keeps_its_bytes() -> None:
    read = stored.as_read(RESOURCE, "one", 3, AT)
    assert read == (
        b'{"resourceType":"Observation","id":"one","meta":{"versionId":"3",'
        b'"lastUpdated":"2026-11-23T09:30:00.123+00:00"},'
        b'"valueQuantity":{ "value": 1.50 },"text":{"div":"x"}}'
    )


def test_what_its_meta_said_stays_and_what_stands_no_longer_is_tagged() -> None:
    given = strict_json.with_member(RESOURCE, "meta", b'{"profile":["p"],"tag":[{"code":"t"}]}')
    meta = strict_json.loads(stored.as_read(given, "one", 1, AT, standing="withdrawn"))["meta"]
    assert meta["profile"] == ["p"]
    assert [one["code"] for one in meta["tag"]] == ["t", "withdrawn"]


def test_a_summary_leaves_out_and_says_so() -> None:
    for summary, names in (("true", set()), ("data", {"valueQuantity"})):
        read = strict_json.loads(stored.as_read(RESOURCE, "one", 1, AT, summary=summary))
        assert read.keys() == {"resourceType", "id", "meta"} | names
        assert [one["code"] for one in read["meta"]["tag"]] == ["SUBSETTED"]


def test_references_of_an_element_are_those_and_no_others() -> None:
    body = b'{"a":[{"reference":"x"},{"display":"y"}],"b":{"reference":"z"},"c":{"d":1}}'
    assert stored.references(body, "a") == ["x"]
    assert stored.references(body, "b") == ["z"]
    assert stored.references(body, "c") == stored.references(body, "e") == []


def test_a_resource_is_found_by_its_id_wherever_its_url_stands() -> None:
    url = "urn:uuid:11111111-1111-4111-8111-111111111111"
    given = bundle.given_id(MESSAGE, url)
    first = b'{"fullUrl":"urn:uuid:0","resource":{"n":0}}'
    for entry in (
        b'{"fullUrl":"%s","resource":{"n":1}}' % url.encode(),
        b'{"resource":{"n":1},"fullUrl":"%s"}' % url.encode(),
    ):
        content = b'{"type":"message","entry":[%s,%s]}' % (first, entry)
        assert bundle.resource_of(content, MESSAGE, given) == b'{"n":1}'
        assert bundle.resource_of(content, MESSAGE, "another") is None
    assert bundle.resource_of(b'{"type":"message"}', MESSAGE, given) is None


def test_elements_of_a_member_are_its_own_bytes() -> None:
    body = b' { "a" : [9] , "b" : [ {"x":1.0} , 2 ] }'
    assert list(strict_json.elements_of(body, "b")) == [b'{"x":1.0}', b"2"]
    assert list(strict_json.elements_of(body, "c")) == []
    for wrong in (b"[]", b'{"b":1}'):
        with pytest.raises(strict_json.NotStrictJson):
            list(strict_json.elements_of(wrong, "b"))


def test_contained_resources_become_entries_and_only_references_follow() -> None:
    body = (
        b'{"resourceType":"ServiceRequest","contained":[{"resourceType":"Patient","id":"p"}],'
        b'"subject":{"reference" : "#p"},"note":[{"text":"\\"reference\\": \\"#p\\" 1.50"}]}'
    )
    made = created.read(body, strict_json.loads(body))
    assert isinstance(made, Created)
    content = made.content(MESSAGE)
    patient = made.named(MESSAGE)["#p"]
    assert b'"subject":{"reference" : "%s"}' % patient.encode() in content
    assert b'\\"#p\\" 1.50' in content and b"contained" not in content
    types = [row.type for row in bundle.index(strict_json.loads(content), MESSAGE)]
    assert types == ["ServiceRequest", "Patient"]


def test_what_was_not_sent_with_it_cannot_be_referred_to() -> None:
    body = b'{"resourceType":"ServiceRequest","subject":{"reference":"Patient/1"}}'
    found = created.read(body, strict_json.loads(body))
    assert isinstance(found, list)
    assert [(type(one), one.code, one.path) for one in found] == [
        (Finding, "not-found", "ServiceRequest")
    ]
