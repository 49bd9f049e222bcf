"""What a place gets that speaks BaRS: composed like any delivery, and collectable like any."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from fhir_profiles import codes
from fhir_profiles.bars import definitions
from fhir_profiles.profiles import ours
from tests.acceptance import test_bars as door
from tests.acceptance.place import (
    Body,
    Caller,
    Place,
    eventually,
    first,
    problem,
    reading,
    referral,
    taken,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSPITAL = (
    "{organisation: RXX01, service: RXX01-SPA, channel: inbox, takes: [referral, update, notice]}"
)
OPTICIAN = "{organisation: TPX01, channel: inbox, takes: [update, notice]}"


def speaking_bars(endpoint: str, port: int) -> tuple[str, str]:
    url = f"channel: bars, url: 'http://127.0.0.1:{port}/FHIR/R4'"
    # BaRS has no message for an update.
    return endpoint, endpoint.replace("channel: inbox", url).replace("update, ", "")


@pytest_asyncio.fixture(loop_scope="module")
async def bars(place: Place) -> AsyncIterator[None]:
    """The hospital's single point of access and the optician speak BaRS."""
    changes = [speaking_bars(one, place.webhook_port) for one in (HOSPITAL, OPTICIAN)]
    async with place.directory(*changes):
        yield


async def body_of(caller: Caller, row: Body) -> Body:
    """Return the message of a delivery, which is as BaRS and our profiles have it."""
    answer = await caller.get(f"/inbox/{row['id']}")
    message: Body = answer.json()
    assert [one for one in ours().check(answer.content) if one.severity == "error"] == []
    header = message["entry"][0]["resource"]
    assert header["resourceType"] == "MessageHeader" and message["id"] == row["id"]
    if "definition" in header:
        assert definitions.counts(header["definition"], message) == []
    return message


async def notice(caller: Caller, event: str, reason: str) -> Body:
    """Return the newest message of BaRS of this event and reason that tells of something."""

    async def look() -> Body | None:
        for row in reversed(await caller.inbox()):
            if row["kind"] == "notice":
                message = await body_of(caller, row)
                header = message["entry"][0]["resource"]
                said = (header["eventCoding"]["code"], header["reason"]["coding"][0]["code"])
                if said == (event, reason):
                    return message
        return None

    found: Body = await eventually(look)
    return found


def resources(message: Body, kind: str) -> list[Body]:
    held = (one["resource"] for one in message["entry"])
    return [one for one in held if one["resourceType"] == kind]


@pytest.mark.usefixtures("bars")
async def test_a_referral_goes_out_its_progress_comes_back_and_its_end_is_told_by_bars(
    optometrist: Caller, hospital: Caller
) -> None:
    (sent,) = (await optometrist.submit(referral()))["messages"]
    row = await hospital.take(sent["id"])
    asked = await body_of(hospital, row)
    header = asked["entry"][0]["resource"]
    assert header["definition"].endswith("bars-message-servicerequest-request-referral")
    assert header["destination"][0]["endpoint"] == f"{codes.SERVICE_ID}|RXX01-SPA"
    assert header["source"]["endpoint"] == f"{codes.ODS}|TPX01"
    (request,) = resources(asked, "ServiceRequest")
    assert request["category"][0]["coding"][1]["code"] == "optometry-to-eye-care"

    taken(await hospital.move(sent["referral"], "accept"), 200)
    told = await notice(optometrist, "servicerequest-response", "new")
    answer = told["entry"][0]["resource"]
    assert answer["response"] == {"identifier": asked["id"], "code": "ok"}
    assert answer["source"]["endpoint"] == f"{codes.SERVICE_ID}|RXX01-SPA"
    assert {one["status"] for one in resources(told, "Encounter")} == {"finished", "in-progress"}

    said = {"reason": "referred-elsewhere", "note": "Seen abroad."}
    taken(await optometrist.move(sent["referral"], "cancel", said), 200)
    ended = await notice(hospital, "servicerequest-request", "update")
    (revoked,) = resources(ended, "ServiceRequest")
    assert (revoked["status"], revoked["id"]) == ("revoked", request["id"])
    assert revoked["reasonCode"] == [{"text": "Referred elsewhere\nSeen abroad."}]


@pytest.mark.usefixtures("bars")
async def test_a_sender_that_speaks_bars_hears_of_a_deadline_that_passed(
    place: Place, optometrist: Caller, hospital: Caller
) -> None:
    (sent,) = (await optometrist.submit(referral()))["messages"]
    row = await hospital.arrived(sent["id"])
    await place.move_deadline_back(sent["id"], "received")

    async def look() -> Body | None:
        for one in await optometrist.inbox():
            if one["kind"] == "notice":
                told = await body_of(optometrist, one)
                if told["entry"][0]["resource"]["response"]["identifier"] == row["id"]:
                    return told
        return None

    own = resources(await eventually(look), "Encounter")
    (planned,) = [one for one in own if one["status"] == "planned"]
    assert planned["reasonCode"][0]["text"].startswith("Your message was not confirmed as stored")


PHARMACY = """  - organisation: FPH01
    service: FPH01-PHARMACY-FIRST
    channel: inbox
"""
PRACTICE = "{organisation: G99001, channel: inbox, takes: [update, referral, notice]}"


async def test_what_came_by_bars_reaches_the_service_unchanged_and_its_sender_hears_by_bars(
    place: Place, practice: Caller, pharmacy: Caller
) -> None:
    url = f"http://127.0.0.1:{place.webhook_port}/FHIR/R4"
    at_pharmacy = PHARMACY.replace("inbox", f"bars\n    url: {url}")
    at_practice = PRACTICE.replace("inbox", f"bars, url: '{url}'").replace("update, ", "")
    async with place.directory((PHARMACY, at_pharmacy), (PRACTICE, at_practice)):
        message = door.referral()
        answered = door.answered(await door.send(practice, message), message)
        (sent,) = taken(await practice.get("/messages", limit=1), 200)["messages"]
        row = await pharmacy.take(sent["id"])
        got = await pharmacy.get(f"/inbox/{row['id']}")
        assert got.content == json.dumps(message).encode()

        referred = (await practice.tracked(sent["id"]))["referral"]
        taken(await pharmacy.move(referred, "accept", {"note": "Come at 3."}), 200)
        told = await notice(practice, "servicerequest-response", "new")
        assert told["entry"][0]["resource"]["response"]["identifier"] == message["id"]
        planned = resources(answered, "Encounter")[1]
        (own,) = [one for one in resources(told, "Encounter") if one["status"] == "in-progress"]
        assert (own["id"], own["identifier"]) == (planned["id"], planned["identifier"])
        assert own["reasonCode"][0]["text"] == "Accepted\nCome at 3."
        answers_id = resources(answered, "ServiceRequest")[0]["id"]
        assert resources(told, "ServiceRequest")[0]["id"] == answers_id


@pytest.mark.usefixtures("bars")
async def test_who_does_not_speak_bars_gets_what_everybody_gets(
    pharmacy: Caller, practice: Caller, optometrist: Caller
) -> None:
    task = first(await pharmacy.submit(reading(196, 124)), "referral")
    message = await body_of(practice, await practice.arrived(task["id"]))
    header = message["entry"][0]["resource"]
    assert header["eventCoding"]["system"] == codes.system("message-event").url
    assert "versionId" not in message.get("meta", {})


@pytest.mark.usefixtures("bars")
async def test_a_referral_at_a_place_that_speaks_bars_is_cancelled_and_sent_anew_never_changed(
    optometrist: Caller, place: Place
) -> None:
    body = referral()
    (sent,) = (await optometrist.submit(body))["messages"]
    kept = "SELECT count(*) FROM message WHERE kind = 'referral'"
    before = await place.rows(kept)
    changed = body | {"symptoms": "Haloes since Monday."}
    tag = await optometrist.etag(sent["url"])
    answer = await optometrist.put(f"/optometry/referrals/{sent['id']}", changed, if_match=tag)
    assert "Cancel this one" in problem(answer, 409, "conflict")["detail"]
    assert await place.rows(kept) == before
