"""The BaRS front door: a practice's own BaRS system refers to a pharmacy, over $process-message."""

import json
from typing import Any

import httpx2
import pytest

from fhir_profiles.profiles import ours
from sandbox import bars
from tests.acceptance.place import Body, Caller, Place, taken

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOOR = "/FHIR/R4/$process-message"
SERVICE = "2000099901"


def referral(**changes: Any) -> Body:
    return bars.referral(sender="G99001", receiver="FPH01", service=SERVICE, **changes)


async def send(
    caller: Caller, message: Body, target: str = SERVICE, **headers: str | None
) -> httpx2.Response:
    """Send a message with its headers; one that is None is left out."""
    whole: dict[str, str | None] = {**bars.headers(message, target), **headers}
    given = {name: value for name, value in whole.items() if value is not None}
    return await caller.call("POST", DOOR, content=json.dumps(message), headers=given)


def answered(answer: httpx2.Response, message: Body) -> Body:
    """Return a message's answer: a message Bundle, sound, that names what it answers."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/fhir+json"
    found = [one for one in ours().check(answer.content) if one.severity == "error"]
    assert found == []
    said: Body = answer.json()
    header = said["entry"][0]["resource"]
    assert header["response"] == {"identifier": message["id"], "code": "ok"}
    return said


def resources(bundle: Body, kind: str) -> list[Body]:
    return [one["resource"] for one in bundle["entry"] if one["resource"]["resourceType"] == kind]


@pytest.fixture
def practice(place: Place) -> Caller:
    return place.of("G99001")


async def test_a_referral_is_taken_and_the_answer_claims_no_more_than_that(
    practice: Caller, place: Place
) -> None:
    message = referral()
    said = answered(await send(practice, message), message)
    sent = {one["fullUrl"]: one["resource"] for one in message["entry"]}
    for entry in said["entry"][1:-1]:
        given = dict(entry["resource"])
        assert given.pop("id")
        original = {k: v for k, v in sent[entry["fullUrl"]].items() if k != "id"}
        assert given == original
    first, planned = resources(said, "Encounter")
    assert (first["status"], planned["status"]) == ("finished", "planned")
    assert "Held by the broker, not yet with the service." in planned["text"]["div"]
    reference = planned["identifier"][0]["value"]
    assert reference in planned["text"]["div"]
    listed = taken(await practice.get("/messages", limit=1), 200)["messages"]
    assert listed[0]["id"].upper().endswith(reference.replace("-", ""))


async def test_it_stands_in_the_pharmacys_inbox_as_any_other_referral(
    practice: Caller, pharmacy: Caller
) -> None:
    message = referral()
    answered(await send(practice, message), message)
    (sent,) = taken(await practice.get("/messages", limit=1), 200)["messages"]
    row = await pharmacy.take(sent["id"])
    got = await pharmacy.collect(row)
    assert got.kind == "referral"
    tracked = await practice.tracked(sent["id"])
    referred = taken(await practice.get(tracked["referral"]), 200)
    assert (referred["state"], referred["pathway"]) == ("received", "a5t1")
    assert {one["kind"] for one in tracked["deadlines"]} >= {"received", "decided", "seen"}
