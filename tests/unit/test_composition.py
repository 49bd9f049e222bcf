"""Composing: nothing that is not FHIR R4 is sealed, stored or sent, whoever made it."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from broker.composition import Composing, Unsound, compose
from broker.events import UPDATE_SUBMITTED, Destination, Kind, Priority, Role, Route, uuid7
from tests import made
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


def test_a_content_that_breaks_the_profile_of_its_kind_goes_no_further() -> None:
    update = made.contents()["pharmacy-shingles-update"]
    assert compose(a_vault(), a_message(update)).row["kind"] == "update"
    nobodys = json.loads(update)
    for entry in nobodys["entry"]:
        entry["resource"].pop("sender", None)
    with pytest.raises(Unsound, match=r"resource\.sender .*StructureDefinition/update\)"):
        compose(a_vault(), a_message(json.dumps(nobodys).encode()))


def test_a_content_may_follow_another_profile_than_that_of_its_kind() -> None:
    withdrawal = made.told()["notice-message-withdrawn-Communication"]
    with pytest.raises(Unsound):
        compose(a_vault(), a_message(withdrawal))
    told = replace(a_message(withdrawal), profile="notice-content")
    assert compose(a_vault(), told).row["kind"] == "update"
