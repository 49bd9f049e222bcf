"""A receiver that takes a referral for more or less urgent: who hears of it, and its clocks."""

from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest

from broker import registry
from broker.referral import State
from tests.acceptance.place import Body, Caller, Place, eventually, problem, referral, taken
from tests.acceptance.test_redirection import amended, plain, resource, sent_on
from tests.acceptance.test_referral_doors import moves_of, received

pytestmark = pytest.mark.asyncio(loop_scope="module")

JUDGED = {"clinical_reason": "The vision is 6/6.", "clinician": "Dr A. Example, consultant"}
EXAMPLES = registry.load().adapters["dentistry.referrals"].examples


@pytest.fixture
def dentist(place: Place) -> Caller:
    return place.of("V99001")


def running(shown: Body) -> dict[str, Body]:
    """Return the clocks of a message that run, by kind."""
    return {
        one["kind"]: one
        for one in shown["deadlines"]
        if one["met_at"] is None and one["lapsed"] is None
    }


def ends(shown: Body) -> dict[str, datetime]:
    return {kind: datetime.fromisoformat(one["by"]) for kind, one in running(shown).items()}


async def upgraded(hospital: Caller, at: str, to: str = "urgent") -> Body:
    return taken(await hospital.move(at, "upgrade", {"priority": to}), 200)


async def downgraded(hospital: Caller, at: str, to: str = "routine") -> Body:
    return taken(await hospital.move(at, "downgrade", {"priority": to, **JUDGED}), 200)


async def of_dentist(
    dentist: Caller, place: Place, pathway: str, **changes: Any
) -> tuple[Caller, Body]:
    """Refer as a dentist; return the hospital that has received it, and the message."""
    body = dict(EXAMPLES[pathway]) | {"reference": str(uuid4())} | changes
    (message,) = taken(await dentist.post("/dentistry/referrals", body))["messages"]
    hospital = place.of(message["destinations"][0]["organisation"])
    await hospital.take(message["id"])
    return hospital, message


async def task(caller: Caller, at: str) -> Body:
    return taken(await caller.get(at.replace("/referrals/", "/FHIR/R4/Task/")), 200)


async def told(caller: Caller, message: Body, count: int) -> Body:
    """Return the Task of the last of so many moves that this was told of."""

    async def look() -> list[Body] | None:
        rows = [
            row
            for row in await caller.inbox()
            if row["kind"] == "notice"
            for notice in [await caller.collect(row)]
            if notice.about == message["id"] and notice.topic in set(State)
        ]
        return rows if len(rows) >= count else None

    rows = await eventually(look)
    assert len(rows) == count
    last = max(rows, key=lambda row: int(row["sequence"]))
    return await resource(caller, last, "Task") | {"told_as": last["priority"]}


def words(task: Body) -> str:
    return "\n".join(note["text"] for note in task.get("note", ()))


async def test_a_more_urgent_priority_holds_at_once_with_its_sooner_clocks(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(optometrist, hospital)
    at = message["referral"]
    before = ends(await optometrist.tracked(message["id"]))
    answer = await upgraded(hospital, at)
    assert answer["read_first"][0] == "It is now urgent; it was routine."
    assert (answer["state"], answer["priority"], answer["priority_asked"]) == (
        "received",
        "urgent",
        "routine",
    )
    shown = await optometrist.tracked(message["id"])
    assert shown["priority"] == "urgent"
    after = ends(shown)
    assert after["decided"] < before["decided"]
    assert running(shown)["decided"]["whose_turn"] == "RXX01"
    (lapsed,) = [one for one in shown["deadlines"] if one["lapsed"]]
    assert (lapsed["kind"], lapsed["lapsed"]) == ("decided", "urgent")
    heard = await told(optometrist, message, 1)
    assert words(heard) == "It is now urgent; it was routine."
    assert (heard["priority"], heard["told_as"]) == ("urgent", "urgent")
    assert (await task(optometrist, at))["priority"] == "urgent"
    (move,) = [one for one in shown["moves"] if one["move"] == "upgrade"]
    assert (move["priority"], move["from"], move["to"]) == ("urgent", "received", "received")


async def test_a_lower_priority_holds_with_a_clinicians_reason_until_the_sender_objects(
    dentist: Caller, place: Place
) -> None:
    hospital, message = await of_dentist(dentist, place, "oral-surgery-level-3", urgency="urgent")
    at, was = message["referral"], message["priority"]
    assert was == "urgent"
    before = ends(await dentist.tracked(message["id"]))
    problem(await hospital.move(at, "downgrade", {"priority": "routine"}), 422, "invalid")
    answer = await downgraded(hospital, at)
    assert (answer["priority"], answer["priority_asked"]) == ("routine", was)
    heard = await told(dentist, message, 1)
    assert "The sender may object." in words(heard)
    assert all(said in words(heard) for said in JUDGED.values())
    assert ends(await dentist.tracked(message["id"]))["decided"] > before["decided"]

    assert "object" in moves_of(taken(await dentist.get(at), 200))
    assert "agree" not in moves_of(taken(await dentist.get(at), 200))
    taken(await dentist.move(at, "object", {"objection": "He drives for a living."}), 200)
    shown = taken(await hospital.get(at), 200)
    assert (shown["priority"], shown["priority_asked"]) == (was, was)
    assert ends(await dentist.tracked(message["id"])) == before
    assert "He drives for a living." in words(await told(hospital, message, 1))
    assert "object" not in moves_of(taken(await dentist.get(at), 200))


async def test_of_wet_amd_nothing_changes_until_the_sender_agrees(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(optometrist, hospital, referral("suspected-wet-amd", provider=None))
    at, was = message["referral"], message["priority"]
    before = ends(await optometrist.tracked(message["id"]))
    answer = await downgraded(hospital, at)
    assert answer["read_first"][0].startswith("Proposed: routine instead of")
    assert (answer["priority"], answer["priority_proposed"]) == (was, "routine")
    assert ends(await optometrist.tracked(message["id"])) == before
    heard = await told(optometrist, message, 1)
    assert "Until the sender agrees it stays as it is" in words(heard)
    assert heard["priority"] == was
    assert {"agree", "object"} <= moves_of(taken(await optometrist.get(at), 200))
    problem(await hospital.move(at, "agree"), 409, "conflict")

    taken(await optometrist.move(at, "object", {"objection": "Vision fell this week."}), 200)
    assert taken(await hospital.get(at), 200)["priority_proposed"] is None
    problem(await optometrist.move(at, "agree"), 409, "conflict")

    await downgraded(hospital, at)
    answer = taken(await optometrist.move(at, "agree"), 200)
    assert (answer["priority"], answer["priority_asked"], answer["priority_proposed"]) == (
        "routine",
        was,
        None,
    )
    assert ends(await optometrist.tracked(message["id"]))["decided"] > before["decided"]
    # The clocks of the reason itself are no priority's: they run on.
    assert "treated" not in before or ends(await optometrist.tracked(message["id"]))["treated"]


async def test_what_is_named_must_be_more_or_less_urgent_and_the_receivers_to_say(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(optometrist, hospital)
    at = message["referral"]
    lower = {"priority": "routine", **JUDGED}
    refused = problem(await hospital.move(at, "downgrade", lower), 422, "invalid")
    assert refused["problems"][0]["code"] == "not-less-urgent"
    refused = problem(await hospital.move(at, "upgrade", {"priority": "routine"}), 422, "invalid")
    assert refused["problems"][0]["field"] == "priority"
    problem(await optometrist.move(at, "upgrade", {"priority": "urgent"}), 409, "conflict")
    assert taken(await hospital.get(at), 200)["priority"] == "routine"


async def test_an_amendment_undoes_no_triage_and_says_what_it_is_taken_for(
    optometrist: Caller, hospital: Caller
) -> None:
    body = plain()
    message = await received(optometrist, hospital, body)
    at = message["referral"]
    await upgraded(hospital, at)
    again = await amended(optometrist, message["id"], body)
    assert again["priority"] == "urgent"
    row = await hospital.take(again["id"])
    assert row["priority"] == "urgent"
    assert (await resource(hospital, row, "ServiceRequest"))["priority"] == "urgent"
    shown = taken(await hospital.get(at), 200)
    assert (shown["priority"], shown["priority_asked"]) == ("urgent", "routine")


async def test_it_goes_on_to_another_place_as_urgent_as_it_is_taken(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    message = await received(optometrist, hospital, plain())
    at = message["referral"]
    await upgraded(hospital, at)
    before = ends(await optometrist.tracked(message["id"]))
    answer = await sent_on(hospital, at)
    assert (answer["priority"], answer["priority_asked"]) == ("urgent", "routine")
    other = place.of("RYY01")
    row = await other.take(answer["message"])
    assert row["priority"] == "urgent"
    assert (await resource(other, row, "ServiceRequest"))["priority"] == "urgent"
    after = ends(await optometrist.tracked(answer["message"]))
    assert after["decided"] == before["decided"]


async def test_what_becomes_urgent_waits_for_no_answer(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(optometrist, hospital)
    at = message["referral"]
    taken(await hospital.move(at, "request-information", {"question": "Which eye?"}), 200)
    waiting = ends(await optometrist.tracked(message["id"]))
    assert "decided" not in waiting
    answer = await upgraded(hospital, at)
    assert answer["state"] == "information-requested"
    now = ends(await optometrist.tracked(message["id"]))
    assert now["decided"]
    assert now["answered"] < waiting["answered"]
    taken(await optometrist.move(at, "answer", {"answer": "The left."}), 200)
    after = ends(await optometrist.tracked(message["id"]))
    assert after["decided"] == now["decided"]
    assert "answered" not in after


async def cancer(dentist: Caller, place: Place) -> tuple[Caller, Body]:
    """Refer a suspected cancer; return the hospital that has accepted it, and the message."""
    hospital, message = await of_dentist(dentist, place, "suspected-oral-cancer")
    taken(await hospital.move(message["referral"], "accept"), 200)
    return hospital, message


async def test_a_suspected_cancer_counts_until_the_patient_was_told(
    dentist: Caller, place: Place
) -> None:
    hospital, message = await cancer(dentist, place)
    at = message["referral"]
    assert "diagnosed" in ends(await dentist.tracked(message["id"]))
    refused = problem(await hospital.move(at, "complete", {"outcome": "Seen."}), 422, "invalid")
    assert refused["problems"][0]["field"] == "diagnosis"
    assert "diagnosed" in ends(await dentist.tracked(message["id"]))
    said = {"diagnosis": "cancer-excluded", "note": "Told in clinic."}
    answer = taken(await hospital.move(at, "diagnosed", said), 200)
    assert answer["state"] == "accepted"
    shown = await dentist.tracked(message["id"])
    (clock,) = [one for one in shown["deadlines"] if one["kind"] == "diagnosed"]
    assert clock["met_at"]
    assert (await told(dentist, message, 2))["statusReason"] == {"text": "Cancer was excluded"}
    (move,) = [one for one in shown["moves"] if one["move"] == "diagnosed"]
    assert (move["reason"], move["said"]) == (None, said)
    taken(await hospital.move(at, "complete", {"outcome": "Discharged."}), 200)


async def test_what_the_patient_was_told_may_be_said_with_the_end(
    dentist: Caller, place: Place
) -> None:
    hospital, message = await cancer(dentist, place)
    said: dict[str, Any] = {"outcome": "Operation planned.", "diagnosis": "cancer-confirmed"}
    taken(await hospital.move(message["referral"], "complete", said), 200)
    shown = await dentist.tracked(message["id"])
    (clock,) = [one for one in shown["deadlines"] if one["kind"] == "diagnosed"]
    assert (bool(clock["met_at"]), clock["lapsed"]) == (True, None)
