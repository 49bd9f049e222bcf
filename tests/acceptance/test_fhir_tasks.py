"""A referral moved by FHIR: its Task, put as it is to be."""

from typing import Any

import pytest

from fhir_profiles import codes
from tests.acceptance.place import Body, Caller, Place, taken
from tests.acceptance.test_referral_doors import received

pytestmark = pytest.mark.asyncio(loop_scope="module")

STATES = codes.system("referral-state").url
ITEMS = codes.system("move-item").url


def path(message: Body) -> str:
    return str(message["referral"]).replace("/referrals/", "/FHIR/R4/Task/")


def task(message: Body, state: str, **said: Any) -> Body:
    """Return the Task of a referral as it is to be."""
    coding = {"system": STATES, "code": state}
    return {
        "resourceType": "Task",
        "id": path(message).rpartition("/")[2],
        "status": codes.system("referral-state").properties[state]["task-status"],
        "intent": "order",
        "businessStatus": {"coding": [coding]},
        **said,
    }


def item(name: str, value: str) -> Body:
    return {"type": {"coding": [{"system": ITEMS, "code": name}]}, "valueString": value}


async def put(caller: Caller, message: Body, body: Body, if_match: str | None = None) -> Any:
    version = if_match or await caller.etag(message["referral"])
    return await caller.put(path(message), body, if_match=version)


def refused(answer: Any, status: int) -> Body:
    """Return the OperationOutcome of a refusal."""
    told = taken(answer, status)
    assert told["resourceType"] == "OperationOutcome"
    return told


async def test_a_referral_is_led_from_its_receipt_to_its_end(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(optometrist, hospital)
    answer = await put(hospital, message, task(message, "accepted"))
    stands = taken(answer, 200)
    assert stands["businessStatus"]["coding"][0]["code"] == "accepted"
    assert answer.headers["etag"] == await hospital.etag(message["referral"])

    # What was read is put back, changed: what the broker wrote in it is no news.
    stands |= {"status": "accepted", "businessStatus": task(message, "booked")["businessStatus"]}
    stands["input"] = [item("place", "Clinic 4"), item("starts_at", "2026-12-01T10:00:00+00:00")]
    booked = taken(await put(hospital, message, stands), 200)
    assert booked["businessStatus"]["coding"][0]["code"] == "booked"
    told = await optometrist.heard(message["id"], "booked")
    assert "Clinic 4" in told.advice

    taken(await put(hospital, message, task(message, "in-progress")), 200)
    done = task(message, "completed", note=[{"text": "Operated; well."}])
    taken(await put(hospital, message, done), 200)
    told = await optometrist.heard(message["id"], "completed")
    assert told.advice == "Operated; well."


async def test_why_is_the_status_reason_and_what_to_do_instead_the_note(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(optometrist, hospital)
    why = {"statusReason": {"text": "The patient is outside the area served"}}
    said = task(message, "rejected", **why, note=[{"text": "Refer to Southmoor."}])
    taken(await put(hospital, message, said), 200)
    (move,) = [
        one
        for one in (await optometrist.tracked(message["id"]))["moves"]
        if one["move"] == "reject"
    ]
    assert (move["reason"], move["said"]["advice"]) == ("out-of-area", "Refer to Southmoor.")
    # And its sender says what it does instead.
    mended = task(message, "resolved", note=[{"text": "Referred to Southmoor."}])
    taken(await put(optometrist, message, mended), 200)


async def test_a_question_and_its_answer_go_both_ways(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(optometrist, hospital)
    asked = task(message, "information-requested", note=[{"text": "Which eye?"}])
    stands = taken(await put(hospital, message, asked), 200)
    stands["businessStatus"] = task(message, "received")["businessStatus"]
    stands["note"] = [*stands["note"], {"text": "The left."}]
    taken(await put(optometrist, message, stands), 200)
    told = await hospital.heard(message["id"], "received")
    assert "The left." in told.advice


async def test_another_priority_is_a_move_too_and_a_task_as_it_stood_is_none(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(optometrist, hospital)
    stands = taken(await put(hospital, message, task(message, "accepted")), 200)
    taken(await put(hospital, message, {**stands, "priority": "urgent"}), 200)
    now = taken(await hospital.get(message["referral"]), 200)
    assert (now["priority"], now["state"]) == ("urgent", "accepted")
    again = taken(await hospital.get(path(message)), 200)
    refused(await put(hospital, message, again), 409)
    assert taken(await hospital.get(message["referral"]), 200)["version"] == now["version"]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"businessStatus": {"coding": [{"system": STATES, "code": "lost"}]}}, "businessStatus"),
        ({"owner": {"display": "x"}, "partOf": [{"display": "x"}]}, "partOf"),
        ({"id": "another"}, "id"),
        ({"input": [item("wish", "x")]}, "input[0]"),
        ({"input": [item("place", "Clinic 4")]}, "input(place)"),
        ({"businessStatus": None, "status": None}, "status"),
    ],
)
async def test_what_no_move_says_is_refused_with_its_place_and_nothing_moves(
    optometrist: Caller, hospital: Caller, changes: Body, where: str
) -> None:
    message = await received(optometrist, hospital)
    body = {name: one for name, one in (task(message, "accepted") | changes).items() if one}
    told = refused(await put(hospital, message, body), 422)
    assert any(f"Task.{where}" in one.get("expression", []) for one in told["issue"])
    assert taken(await hospital.get(message["referral"]), 200)["state"] == "received"


async def test_what_a_move_must_carry_is_asked_for_in_fhirs_words(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(optometrist, hospital)
    told = refused(await put(hospital, message, task(message, "rejected")), 422)
    places = [one["expression"] for one in told["issue"]]
    assert places == [["Task.statusReason"], ["Task.input(advice)"]]
    refused(await put(hospital, message, task(message, "booked")), 409)


async def test_a_version_that_has_moved_on_is_refused_and_the_same_again_is_answered(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(optometrist, hospital)
    version = await hospital.etag(message["referral"])
    first = await put(hospital, message, task(message, "accepted"), if_match=version)
    again = await put(hospital, message, task(message, "accepted"), if_match=version)
    assert taken(first, 200) == taken(again, 200)
    late = task(message, "in-progress")
    refused(await put(hospital, message, late, if_match=version), 412)


async def test_others_find_nothing_and_who_may_only_look_moves_nothing(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    message = await received(optometrist, hospital)
    version = await hospital.etag(message["referral"])
    body = task(message, "accepted")
    refused(await put(place.of("RYY01"), message, body, if_match=version), 404)
    practice = place.of("G99002")
    assert (await put(practice, message, body, if_match=version)).status_code in {403, 404}
