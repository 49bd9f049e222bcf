"""A referral's content for the place that it is sent on to."""

from collections.abc import Iterator
from typing import Any

import pytest

from fhir_profiles import redirection, strict_json
from fhir_profiles.bundle import URN, entries, references
from fhir_profiles.message import Site
from tests import made

NEW = "0199a000-0000-7000-8000-00000000000b"
PRIORITY = "urgent"
SAID = "Redirected by Northfield Hospital (RXX01): No surgeon until March."
REFERRALS = [name for name in made.contents() if name.endswith("-referral")]


@pytest.fixture(params=REFERRALS)
def before(request: pytest.FixtureRequest) -> bytes:
    return made.contents()[request.param]


def sent_on(before: bytes, ods: str = "RYY01") -> tuple[bytes, str]:
    """Send a content on to an organisation; return it, and the fullUrl of its request."""
    focus = next(
        one.full_url
        for one in entries(before)
        if b'"resourceType":"ServiceRequest"' in one.resource
    )
    found = redirection.redirected(
        before,
        focus,
        old_message=made.IDS["referral"],
        message=NEW,
        performer=Site(ods, "Southmoor Hospital"),
        performer_type="hospital's single point of access",
        priority=PRIORITY,
        said=SAID,
    )
    return found.body, found.focus


def request_of(content: bytes, focus: str) -> dict[str, Any]:
    found = {one.full_url: one.resource for one in entries(content)}
    request: dict[str, Any] = strict_json.loads(found[focus])
    return request


def texts(value: Any) -> Iterator[str]:
    """Yield every text and number of what was said, but for ids and references."""
    if isinstance(value, dict):
        for name, member in value.items():
            if name not in {"id", "reference", "fullUrl"}:
                yield from texts(member)
    elif isinstance(value, list):
        for member in value:
            yield from texts(member)
    else:
        yield repr(value)


def test_it_asks_the_new_place_and_says_who_sent_it_on_and_why(before: bytes) -> None:
    content, focus = sent_on(before)
    request = request_of(content, focus)
    (asked,) = request["performer"]
    places = {one.full_url: strict_json.loads(one.resource) for one in entries(content)}
    assert places[asked["reference"]]["identifier"][0]["value"] == "RYY01"
    assert request["performerType"] == {"text": "hospital's single point of access"}
    assert request["note"][-1] == {"text": SAID}


def test_it_is_as_its_profile_says(before: bytes) -> None:
    content, _ = sent_on(before)
    assert made.errors(content, "referral-content") == []


def test_nothing_that_was_said_is_lost_or_changed(before: bytes) -> None:
    content, focus = sent_on(before)
    old_focus = next(one for one in entries(before) if b'"ServiceRequest"' in one.resource).full_url
    kept = {"id", "performer", "performerType", "note", "identifier", "priority"}
    was, now = request_of(before, old_focus), request_of(content, focus)
    for name in was.keys() - kept:
        assert list(texts(was[name])) == list(texts(now[name])), name
    assert now["note"][:-1] == was.get("note", [])
    assert now["priority"] == PRIORITY
    others = [
        [
            list(texts(strict_json.loads(one.resource)))
            for one in entries(body)
            if one.full_url != whose
        ]
        for body, whose in ((before, old_focus), (content, focus))
    ]
    gone = [one for one in others[0] if one not in others[1]]
    assert all("'Organization'" in one for one in gone)  # whom it is no longer asked of


def test_what_its_receiver_takes_it_for_stands_in_it_and_nothing_else_changes(
    before: bytes,
) -> None:
    (focus,) = (one.full_url for one in entries(before) if b'"ServiceRequest"' in one.resource)
    content = redirection.taken_as(before, focus, PRIORITY)
    assert made.errors(content, "referral-content") == []
    assert request_of(content, focus) == request_of(before, focus) | {"priority": PRIORITY}
    others = [[one for one in entries(body) if one.full_url != focus] for body in (before, content)]
    assert others[0] == others[1]


def test_every_resource_has_an_id_of_its_own_message_and_what_refers_to_it_follows(
    before: bytes,
) -> None:
    content, _ = sent_on(before)
    old = {one.full_url for one in entries(before)}
    new = {one.full_url for one in entries(content)}
    assert not old & new
    assert not any(url.removeprefix(URN).encode() in content for url in old)
    assert made.IDS["referral"].encode() not in content
    named = {
        one for held in entries(content) for one in references(strict_json.loads(held.resource))
    }
    assert {one for one in named if one.startswith(URN)} <= new
    for one in entries(content):
        assert f"{URN}{strict_json.loads(one.resource)['id']}" == one.full_url


def test_who_is_on_it_already_is_not_named_twice(before: bytes) -> None:
    content, focus = sent_on(before, made.PRACTICE.ods)
    named = [
        one
        for one in entries(content)
        if b'"Organization"' in one.resource and made.PRACTICE.ods.encode() in one.resource
    ]
    (asked,) = request_of(content, focus)["performer"]
    assert [one.full_url for one in named] == [asked["reference"]]
