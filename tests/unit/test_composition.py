"""Composing: nothing is sealed, stored or sent that was not checked to be FHIR R4."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from broker.composition import Composing, Unsound, compose
from broker.events import UPDATE_SUBMITTED, Destination, Kind, Priority, Role, Route, uuid7
from fhir_profiles import bundle
from tests.samples import PHARMACY, PRACTICE, a_vault

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)


def a_message(content: bytes) -> Composing:
    return Composing(
        id=uuid7(),
        kind=Kind.UPDATE,
        subject=uuid7(),
        event_type=UPDATE_SUBMITTED,
        event_id=uuid7(),
        source="https://broker.example",
        sender=PHARMACY,
        client="client-1",
        door="pharmacy",
        correlation_id=uuid7(),
        content=content,
        focus="urn:uuid:1",
        routes=(Route(Destination(PRACTICE), Role.ACTING, "The registered practice."),),
        priority=Priority.ROUTINE,
        happened=NOW,
        now=NOW,
    )


def test_a_content_that_is_not_fhir_goes_no_further_and_its_words_are_not_told() -> None:
    content = (
        b'{"resourceType":"Bundle","type":"collection","entry":[{"fullUrl":"urn:uuid:1",'
        b'"resource":{"resourceType":"Patient","id":"1","birthDate":"Okafor"}}]}'
    )
    with pytest.raises(Unsound, match=r"pharmacy.*birthDate") as wrong:
        compose(a_vault(), a_message(content))
    assert "Okafor" not in str(wrong.value)


def test_what_was_checked_when_it_came_in_is_taken_as_it_was_read() -> None:
    patient = {"fullUrl": "urn:uuid:1", "resource": {"resourceType": "Patient"}}
    came = {"resourceType": "Bundle", "type": "message", "entry": [patient]}
    new = replace(a_message(b"the very bytes"), checked=came)
    (row,) = compose(a_vault(), new).index
    assert row["id"] == bundle.given_id(new.id, "urn:uuid:1")
