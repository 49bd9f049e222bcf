"""The life of a referral after it was taken on: questions, bookings, and every way that it ends."""

from datetime import datetime, timedelta

import pytest

from tests.acceptance.place import Body, Caller, Place, problem, referral, taken
from tests.acceptance.test_referral_doors import moves_of, received

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUESTION = {"question": "Which drops has she tried?"}
ANSWER = {"answer": "Latanoprost for a year."}
BOOKING = {
    "starts_at": "2026-12-07T10:30:00+00:00",
    "place": "Eye clinic, level 2",
    "instructions": "Do not drive home.",
}


async def deadline(caller: Caller, message: str, kind: str) -> Body:
    """Return a deadline as it is shown to whoever sent the message."""
    shown = await caller.tracked(message)
    (found,) = [one for one in shown["deadlines"] if one["kind"] == kind]
    return dict(found)


def by(shown: Body) -> datetime:
    return datetime.fromisoformat(shown["by"])


async def test_a_question_waits_for_the_sender_and_the_decision_for_its_answer(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(optometrist, hospital)
    at, before = message["referral"], await deadline(optometrist, message["id"], "decided")
    problem(await hospital.move(at, "request-information", {}), 422, "invalid")
    asked = taken(await hospital.move(at, "request-information", QUESTION), 200)
    assert (asked["state"], asked["waits_for"]) == ("information-requested", "sender")
    told = await optometrist.heard(message["id"], "information-requested")
    assert QUESTION["question"] in told.advice
    assert (await optometrist.tracked(message["id"]))["next"]["whose_turn"] == "TPX01"
    waiting = await deadline(optometrist, message["id"], "answered")
    assert (waiting["whose_turn"], waiting["met_at"], waiting["lapsed"]) == ("TPX01", None, None)
    assert (await deadline(optometrist, message["id"], "decided"))["lapsed"] == "waits-for-answer"
    problem(await hospital.move(at, "answer", ANSWER), 409, "conflict")

    answered = taken(await optometrist.move(at, "answer", ANSWER), 200)
    assert (answered["state"], answered["waits_for"]) == ("received", "receiver")
    heard = await hospital.heard(message["id"], "received")
    assert ANSWER["answer"] in heard.advice
    assert (await deadline(optometrist, message["id"], "answered"))["met_at"] is not None
    after = await deadline(optometrist, message["id"], "decided")
    assert (after["lapsed"], after["met_at"]) == (None, None)
    assert timedelta(0) < by(after) - by(before) < timedelta(minutes=1)
    taken(await hospital.move(at, "accept"), 200)
    assert (await deadline(optometrist, message["id"], "decided"))["met_at"] is not None


@pytest.mark.parametrize(
    ("move", "said"),
    [("accept", {}), ("reject", {"reason": "criteria-not-met", "advice": "Repeat the fields."})],
)
async def test_who_decides_without_an_answer_has_decided_and_nobody_owes_one(
    optometrist: Caller, hospital: Caller, move: str, said: Body
) -> None:
    message = await received(optometrist, hospital)
    taken(await hospital.move(message["referral"], "request-information", QUESTION), 200)
    taken(await hospital.move(message["referral"], move, said), 200)
    answered = await deadline(optometrist, message["id"], "answered")
    assert answered["lapsed"] == {"accept": "accepted", "reject": "rejected"}[move]
    decided = await deadline(optometrist, message["id"], "decided")
    assert decided["met_at"] is not None and decided["lapsed"] is None


async def test_no_clock_of_anything_urgent_waits_for_an_answer(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(optometrist, hospital, referral(urgency="urgent"))
    before = await deadline(optometrist, message["id"], "decided")
    taken(await hospital.move(message["referral"], "request-information", QUESTION), 200)
    assert await deadline(optometrist, message["id"], "decided") == before
    assert (await deadline(optometrist, message["id"], "answered"))["whose_turn"] == "TPX01"


async def test_a_question_that_is_not_answered_in_time_is_raised_with_the_sender(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    message = await received(optometrist, hospital)
    taken(await hospital.move(message["referral"], "request-information", QUESTION), 200)
    await place.settled()
    await place.move_deadline_back(message["id"], "answered")
    told = await optometrist.heard(message["id"], "deadline-passed")
    assert "question about your referral was not answered" in told.text
    assert "answered" in {
        one["code"].removesuffix("-overdue")
        for one in taken(await optometrist.get("/overdue", limit=500), 200)["items"]
        if one["message"] == message["id"]
    }


async def test_an_appointment_is_told_with_its_time_and_place(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(optometrist, hospital)
    at = message["referral"]
    taken(await hospital.move(at, "accept"), 200)
    for wrong in ("tomorrow", "2026-12-07T10:30:00"):
        (one,) = problem(
            await hospital.move(at, "book", {**BOOKING, "starts_at": wrong}), 422, "invalid"
        )["problems"]
        assert (one["field"], one["code"]) == ("starts_at", "invalid")
    booked = taken(await hospital.move(at, "book", BOOKING), 200)
    assert booked["state"] == "booked"
    assert {"start", "complete", "did-not-attend"} <= moves_of(booked)
    told = await optometrist.heard(message["id"], "booked")
    for words in ("10:30 on Monday 7 December", BOOKING["place"], BOOKING["instructions"]):
        assert words in told.advice


@pytest.mark.parametrize(
    ("moves", "state"),
    [
        (("accept", "book", "start", "complete"), "completed"),
        (("accept", "book", "did-not-attend", "book", "start"), "in-progress"),
        (("accept", "no-contact", "complete"), "completed"),
        (("no-contact",), "no-contact"),
        (("accept", "decline"), "declined-by-patient"),
        (("deceased",), "deceased"),
    ],
    ids=lambda one: "-".join(one) if isinstance(one, tuple) else one,
)
async def test_a_referral_goes_on_and_its_clocks_with_it(
    optometrist: Caller, hospital: Caller, moves: tuple[str, ...], state: str
) -> None:
    message = await received(optometrist, hospital)
    carried: dict[str, Body] = {"book": BOOKING, "complete": {"outcome": "Seen."}}
    for move in moves:
        said = taken(await hospital.move(message["referral"], move, carried.get(move, {})), 200)
    assert said["state"] == state
    shown = await optometrist.tracked(message["id"])
    open_ = {
        one["kind"] for one in shown["deadlines"] if one["met_at"] is None and not one["lapsed"]
    }
    assert "decided" not in open_
    assert [one["move"] for one in shown["moves"]][-1] == moves[-1]


async def test_the_sender_too_may_say_that_the_patient_declined(
    optometrist: Caller, hospital: Caller, practice: Caller
) -> None:
    message = await received(optometrist, hospital, referral("raised-pressure"))
    said = taken(await optometrist.move(message["referral"], "decline", {"note": "By phone."}), 200)
    assert said["state"] == "declined-by-patient"
    assert (await hospital.heard(message["id"], "declined-by-patient")).advice == "By phone."
    assert (await practice.heard(message["id"], "declined-by-patient")).advice == "By phone."
