"""Every state in which somebody must act has a clock; what passes is raised, then escalated."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from broker.store import tables as t
from tests.acceptance.place import Body, Caller, Place, eventually, problem, referral, taken
from tests.acceptance.test_redirection import amended, plain, sent_on
from tests.acceptance.test_referral_doors import REJECTION, moves_of, received

pytestmark = pytest.mark.asyncio(loop_scope="module")

OWN = {"arranged", "attended", "followed-up", "concluded", "resolved"}
APPOINTMENT = datetime.now(UTC).replace(microsecond=0) + timedelta(days=9)
BOOKING = {"starts_at": APPOINTMENT.isoformat(), "place": "Clinic 4"}


async def running(sender: Caller, message: str) -> dict[str, Body]:
    """Return the clocks of states that run, by kind."""
    shown = await sender.tracked(message)
    return {
        one["kind"]: one
        for one in shown["deadlines"]
        if one["kind"] in OWN and one["met_at"] is None and one["lapsed"] is None
    }


def by(clock: Body) -> datetime:
    return datetime.fromisoformat(clock["by"])


async def test_each_state_has_its_clock_and_ends_the_one_before(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(optometrist, hospital)
    at = message["referral"]
    assert await running(optometrist, message["id"]) == {}  # the decision's clock runs
    for move, content, kind in (
        ("accept", {}, "arranged"),
        ("no-contact", {}, "followed-up"),
        ("book", BOOKING, "attended"),
        ("did-not-attend", {}, "followed-up"),
        ("book", BOOKING, "attended"),
        ("start", {}, "concluded"),
    ):
        taken(await hospital.move(at, move, content), 200)
        now = await running(optometrist, message["id"])
        assert list(now) == [kind], move
        assert now[kind]["whose_turn"] == "RXX01"
        assert move != "book" or by(now[kind]) > APPOINTMENT
    taken(await hospital.move(at, "complete", {"outcome": "Operated."}), 200)
    shown = await optometrist.tracked(message["id"])
    waits = {one["kind"] for one in shown["deadlines"] if not one["met_at"] and not one["lapsed"]}
    assert waits <= {"copy-received"}


async def test_an_appointment_that_is_moved_moves_its_clock(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(optometrist, hospital)
    at = message["referral"]
    taken(await hospital.move(at, "accept"), 200)
    taken(await hospital.move(at, "book", BOOKING), 200)
    first = by((await running(optometrist, message["id"]))["attended"])
    later = {**BOOKING, "starts_at": (APPOINTMENT + timedelta(days=30)).isoformat()}
    taken(await hospital.move(at, "book", later), 200)
    assert by((await running(optometrist, message["id"]))["attended"]) > first


async def test_what_is_rejected_is_the_senders_to_resolve(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    message = await received(optometrist, hospital)
    at = message["referral"]
    taken(await hospital.move(at, "reject", REJECTION), 200)
    clock = (await running(optometrist, message["id"]))["resolved"]
    assert clock["whose_turn"] == "TPX01"
    await place.move_deadline_back(message["id"], "resolved")

    async def listed() -> bool:
        return await optometrist.overdue(message["id"]) == {"resolved-overdue"}

    await eventually(listed)
    told = await optometrist.heard(message["id"], "deadline-passed")
    assert "Nothing says yet what is done for the patient instead" in told.text
    assert "resolve" in moves_of(taken(await optometrist.get(at), 200))
    problem(await optometrist.move(at, "resolve", {}), 422, "invalid")
    done = {"note": "Referred to Southmoor instead."}
    answer = taken(await optometrist.move(at, "resolve", done), 200)
    assert (answer["state"], answer["waits_for"], answer["allowed_moves"]) == (
        "resolved",
        None,
        [],
    )
    assert await optometrist.overdue(message["id"]) == set()
    problem(await hospital.move(at, "reinstate"), 409, "conflict")


async def test_what_is_reinstated_waits_for_its_receiver_again(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(optometrist, hospital)
    at = message["referral"]
    taken(await hospital.move(at, "accept"), 200)
    taken(await hospital.move(at, "book", BOOKING), 200)
    taken(await hospital.move(at, "reject", REJECTION), 200)
    assert list(await running(optometrist, message["id"])) == ["resolved"]
    taken(await hospital.move(at, "reinstate"), 200)
    assert list(await running(optometrist, message["id"])) == ["arranged"]


async def test_who_gave_up_reaching_the_patient_has_still_to_decide_when_that_is_undone(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(optometrist, hospital)
    at = message["referral"]
    taken(await hospital.move(at, "no-contact"), 200)
    taken(await hospital.move(at, "reject", REJECTION), 200)
    assert taken(await hospital.move(at, "reinstate"), 200)["state"] == "received"
    shown = await optometrist.tracked(message["id"])
    assert [
        one["kind"]
        for one in shown["deadlines"]
        if one["kind"] == "decided" and not one["met_at"] and not one["lapsed"]
    ] == ["decided"]
    assert await running(optometrist, message["id"]) == {}


async def test_an_amendment_takes_the_clock_of_the_state_with_it(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    body = plain()
    message = await received(optometrist, hospital, body)
    at = message["referral"]
    taken(await hospital.move(at, "accept"), 200)
    before = await running(optometrist, message["id"])
    await place.move_deadline_back(message["id"], "arranged")

    async def listed() -> bool:
        return "arranged-overdue" in await optometrist.overdue(message["id"])

    await eventually(listed)
    again = await amended(optometrist, message["id"], body)
    assert list(await running(optometrist, again["id"])) == list(before) == ["arranged"]
    assert await running(optometrist, message["id"]) == {}
    assert await optometrist.overdue(again["id"]) == {"arranged-overdue"}
    taken(await hospital.move(at, "book", BOOKING), 200)
    assert await optometrist.overdue(again["id"]) == set()
    assert list(await running(optometrist, again["id"])) == ["attended"]


async def test_the_next_place_has_clocks_of_its_own(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    message = await received(optometrist, hospital, plain())
    at = message["referral"]
    taken(await hospital.move(at, "accept"), 200)
    answer = await sent_on(hospital, at)
    assert await running(optometrist, answer["message"]) == {}
    other = place.of("RYY01")
    await other.take(answer["message"])
    taken(await other.move(at, "accept"), 200)
    (clock,) = (await running(optometrist, answer["message"])).values()
    assert (clock["kind"], clock["whose_turn"]) == ("arranged", "RYY01")


async def escalate(place: Place) -> None:
    """Let the next step of whatever is overdue be due now, and let the broker look."""
    past = datetime.now(UTC) - timedelta(minutes=1)
    await place.broker.store.write(
        lambda tx: tx.execute(
            update(t.escalation).where(t.escalation.c.told_at.is_(None)).values(due_at=past)
        )
    )
    while await place.broker.safety.run_once():
        pass


async def test_what_is_still_not_met_is_told_to_the_receiver_and_then_to_the_practice(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    practice = place.of("G99002")
    message = await received(optometrist, hospital, referral(provider=None))
    at = message["referral"]
    await place.move_deadline_back(message["id"], "decided")
    await optometrist.heard(message["id"], "deadline-passed")
    assert await hospital.notices(message["id"]) == []
    await escalate(place)
    told = await hospital.heard(message["id"], "deadline-escalated")
    assert "Overdue, and still nobody has acted: Northfield Hospital must decide on it" in told.text
    assert await practice.notices(message["id"]) == []
    assert await optometrist.overdue(message["id"]) == {"decided-overdue", "decided-escalated"}
    await escalate(place)
    await practice.heard(message["id"], "deadline-escalated")
    await escalate(place)  # the chain has ended
    for caller in (hospital, practice):
        assert await caller.notices(message["id"]) == ["deadline-escalated"]
    assert await optometrist.notices(message["id"]) == ["deadline-passed"]
    taken(await hospital.move(at, "accept"), 200)
    assert await optometrist.overdue(message["id"]) == set()


async def test_what_is_met_in_time_is_escalated_no_further(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    message = await received(optometrist, hospital)
    await place.move_deadline_back(message["id"], "decided")
    await optometrist.heard(message["id"], "deadline-passed")
    taken(await hospital.move(message["referral"], "accept"), 200)
    await escalate(place)
    assert await hospital.notices(message["id"]) == []
