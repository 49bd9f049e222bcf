"""A referral that its receiver sends on: the same referral, its clocks, and who sees what of it."""

from datetime import datetime
from typing import Any

import pytest

from tests.acceptance.place import Body, Caller, Place, problem, referral, taken
from tests.acceptance.test_referral_doors import moves_of, received

pytestmark = pytest.mark.asyncio(loop_scope="module")

ELSEWHERE = "RYY01/RYY01-SPA"
SENT_ON = {"destination": ELSEWHERE, "advice": "We have no surgeon until March."}


@pytest.fixture
def other(place: Place) -> Caller:
    """The hospital that it is sent on to."""
    return place.of("RYY01")


def plain(**changes: Any) -> Body:
    """Return a referral for which nobody chose a provider."""
    return referral(provider=None, **changes)


def clocks(shown: Body) -> dict[str, datetime]:
    """Return when each clock of a message passes that runs or ran."""
    return {one["kind"]: datetime.fromisoformat(one["by"]) for one in shown["deadlines"]}


async def sent_on(hospital: Caller, at: str, **changes: Any) -> Body:
    """Send a referral on; return the answer."""
    said = {name: it for name, it in {**SENT_ON, **changes}.items() if it is not None}
    return taken(await hospital.move(at, "redirect", said), 200)


async def amended(optometrist: Caller, message: str, body: Body) -> Body:
    """Amend a referral; return the message of its next version."""
    answer = await optometrist.put(
        f"/optometry/referrals/{message}",
        {**body, "additional_information": "Now both eyes."},
        if_match=await optometrist.etag(f"/messages/{message}"),
    )
    (again,) = taken(answer, 200)["messages"]
    return dict(again)


async def resource(caller: Caller, row: Body, kind: str) -> Body:
    """Return the first resource of a type in what was delivered."""
    content = (await caller.get(f"/inbox/{row['id']}")).json()
    found: Body = next(
        one["resource"] for one in content["entry"] if one["resource"]["resourceType"] == kind
    )
    return found


async def test_the_same_referral_goes_on_with_its_clocks_and_its_sender(
    optometrist: Caller, hospital: Caller, other: Caller, place: Place
) -> None:
    practice = place.of("G99002")
    message = await received(optometrist, hospital, plain())
    at = message["referral"]
    before = clocks(await optometrist.tracked(message["id"]))
    taken(await hospital.move(at, "accept"), 200)
    answer = await sent_on(hospital, at)
    assert (answer["state"], answer["receiver"], answer["service"]) == (
        "redirected",
        "RYY01",
        "RYY01-SPA",
    )
    assert (answer["allowed_moves"], answer["sender"]) == ([], "TPX01")
    assert f"/referrals/{answer['id']}" == at

    told = await optometrist.heard(message["id"], "redirected")
    assert SENT_ON["advice"] in told.advice
    row = await other.take(answer["message"])
    asked = await resource(other, row, "ServiceRequest")
    assert any(SENT_ON["advice"] in one["text"] for one in asked["note"])
    header = await resource(other, row, "MessageHeader")
    assert header["reason"]["coding"][0]["code"] == "new"
    shown = taken(await other.get(at), 200)
    assert (shown["state"], shown["waits_for"]) == ("received", "receiver")

    now = await optometrist.tracked(answer["message"])
    after = clocks(now)
    patients = {"decided", "seen", "treated"} & set(before)
    assert {kind: after[kind] for kind in patients} == {kind: before[kind] for kind in patients}
    decided = next(one for one in now["deadlines"] if one["kind"] == "decided")
    assert (decided["whose_turn"], decided["met_at"]) == ("RYY01", None)
    copy = await practice.arrived(answer["message"])
    assert (await resource(practice, copy, "ServiceRequest"))["id"] == asked["id"]

    taken(await other.move(at, "accept"), 200)
    taken(await other.move(at, "complete", {"outcome": "Operated."}), 200)
    end = await optometrist.heard(answer["message"], "completed")
    assert "Operated." in end.advice


async def test_the_old_place_keeps_sight_of_what_it_received_and_of_no_more(
    optometrist: Caller, hospital: Caller, other: Caller
) -> None:
    message = await received(optometrist, hospital, plain())
    at = message["referral"]
    answer = await sent_on(hospital, at)
    await other.take(answer["message"])
    taken(await other.move(at, "accept"), 200)
    problem(await hospital.get(at), 404, "not-found")
    problem(await hospital.move(at, "accept", if_match='"1"'), 404, "not-found")
    problem(await hospital.get(f"/messages/{answer['message']}"), 404, "not-found")
    shown = await hospital.tracked(message["id"])
    assert shown["line"] == "You have sent the referral on to another place."
    assert "state" not in shown
    assert [one["move"] for one in shown["moves"]] == ["receive", "redirect"]
    (row,) = [one for one in await hospital.inbox() if one["message"] == message["id"]]
    assert (await hospital.get(f"/inbox/{row['id']}")).status_code == 200
    task = f"/FHIR/R4/Task/{answer['id']}"
    states = [
        taken(await caller.get(task), 200)["businessStatus"]["coding"][0]["code"]
        for caller in (hospital, other, optometrist)
    ]
    assert states == ["redirected", "accepted", "accepted"]
    history = taken(await hospital.get(f"{task}/_history"), 200)
    assert history["total"] == 1


async def test_what_its_sender_amends_or_cancels_goes_to_where_it_is_now(
    optometrist: Caller, hospital: Caller, other: Caller, place: Place
) -> None:
    body = plain()
    message = await received(optometrist, hospital, body)
    at = message["referral"]
    answer = await sent_on(hospital, at)
    await other.take(answer["message"])
    again = await amended(optometrist, answer["message"], body)
    assert {one["organisation"] for one in again["destinations"]} == {"RYY01", "G99002"}
    await other.take(again["id"])
    taken(await optometrist.move(at, "cancel", {"reason": "no-longer-needed"}), 200)
    await other.heard(again["id"], "cancelled")
    await place.settled()
    heard = [row["message"] for row in await hospital.inbox() if row["message"] != message["id"]]
    assert again["id"] not in heard
    assert answer["message"] not in heard


async def test_the_sender_finds_it_by_its_own_reference_and_a_repeat_gets_its_first_answer(
    optometrist: Caller, hospital: Caller
) -> None:
    body = plain()
    first = taken(await optometrist.post("/optometry/referrals", body, key="once"))
    (message,) = first["messages"]
    await hospital.take(message["id"])
    answer = await sent_on(hospital, message["referral"])
    repeated = await optometrist.post("/optometry/referrals", body, key="once")
    assert repeated.json() == first
    found = taken(await optometrist.get("/messages", reference=body["reference"]), 200)
    assert [one["id"] for one in found["messages"]] == [answer["message"]]


async def test_a_place_that_may_not_take_it_is_refused_and_nothing_changes(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(optometrist, hospital, plain())
    at = message["referral"]
    for destination, code in (
        ("XX999", "unknown-destination"),
        ("RYC01/RYC01-MSK", "does-not-take"),
        ("TPX01", "is-the-sender"),
        ("RXX01/RXX01-SPA", "is-here"),
        ("G99001", "does-not-take"),
    ):
        refused = problem(
            await hospital.move(at, "redirect", {**SENT_ON, "destination": destination}),
            422,
            "invalid",
        )
        (one,) = refused["problems"]
        assert (one["field"], one["code"]) == ("destination", code)
        assert one["todo"]
    assert "redirect" in moves_of(taken(await hospital.get(at), 200))
    problem(await hospital.move(at, "redirect", {"destination": ELSEWHERE}), 422, "invalid")


async def test_a_provider_that_the_patient_chose_is_left_only_with_their_word(
    optometrist: Caller, hospital: Caller, other: Caller
) -> None:
    chosen = {"ods": "RXX01", "service": "RXX01-SPA", "chosen_by_patient": True}
    message = await received(optometrist, hospital, referral(provider=chosen))
    at = message["referral"]
    for agrees in ({}, {"patient_agrees": "not-asked"}):
        refused = problem(await hospital.move(at, "redirect", SENT_ON | agrees), 422, "invalid")
        (one,) = refused["problems"]
        assert (one["field"], one["code"]) == ("patient_agrees", "chosen-by-patient")
    answer = await sent_on(hospital, at, patient_agrees="yes")
    await other.take(answer["message"])


async def test_a_same_day_referral_that_is_sent_on_is_telephoned_about(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(
        optometrist,
        hospital,
        plain(condition={"code": "other-eye-condition"}, urgency="same-day"),
    )
    answer = taken(
        await hospital.move(
            message["referral"],
            "redirect",
            {"destination": "RYY01/RYY01-SPA", "advice": "No theatre today."},
        ),
        200,
    )
    assert "A message alone is not enough" in answer["read_first"][0]


async def test_a_late_receipt_of_the_old_place_receives_nothing_in_the_new_ones_stead(
    optometrist: Caller, hospital: Caller, other: Caller
) -> None:
    body = plain()
    message = await received(optometrist, hospital, body)
    again = await amended(optometrist, message["id"], body)
    row = await hospital.arrived(again["id"])
    answer = await sent_on(hospital, message["referral"])
    taken(await hospital.receipt(row), 200)
    assert (await optometrist.tracked(answer["message"]))["state"] == "redirected"
    await other.take(answer["message"])
    assert (await optometrist.tracked(answer["message"]))["state"] == "received"


async def test_it_may_be_sent_back_and_then_is_whole_again_there(
    optometrist: Caller, hospital: Caller, other: Caller
) -> None:
    message = await received(optometrist, hospital, plain())
    at = message["referral"]
    there = await sent_on(hospital, at)
    await other.take(there["message"])
    back = await sent_on(other, at, destination="RXX01/RXX01-SPA", advice="She lives with you.")
    await hospital.take(back["message"])
    shown = taken(await hospital.get(at), 200)
    assert (shown["state"], shown["receiver"]) == ("received", "RXX01")
    assert (await hospital.tracked(message["id"]))["state"] == "received"
