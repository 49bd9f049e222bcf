"""What every pillar tells the registered practice, and what the practice is asked to do by it."""

import json
from typing import Any, Final
from uuid import uuid4

import pytest

from broker import registry
from tests.acceptance.place import Body, Caller, Place, kinds, problem, taken

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOORS: Final = {
    name.partition(".")[0]: adapter
    for name, adapter in registry.load().adapters.items()
    if name.endswith(".updates")
}
EVERY: Final = [
    pytest.param(pillar, topic, id=f"{pillar}-{topic}")
    for pillar, adapter in DOORS.items()
    for topic in adapter.examples
]
NURSE: Final = "community"
READING: Final = "blood-pressure-reading"


def unmodified(pillar: str, topic: str, /) -> Body:
    """Return a complete example as it is published."""
    found: Body = json.loads(json.dumps(DOORS[pillar].examples[topic]))
    return found


def example(pillar: str, topic: str, /, **changes: Any) -> Body:
    """Return a complete example under a reference of its own, with changes; None leaves out."""
    body = unmodified(pillar, topic) | {"reference": str(uuid4())} | changes
    return {name: said for name, said in body.items() if said is not None}


async def tell(place: Place, pillar: str, body: Body) -> Body:
    """Post an update; it is taken."""
    ods = body[DOORS[pillar].accepts.sender_field]["ods"]
    return taken(await place.of(ods).post(DOORS[pillar].door, body))


@pytest.mark.parametrize(("pillar", "topic"), EVERY)
async def test_every_example_reaches_the_practice_unmodified_with_its_task(
    place: Place, practice: Caller, pillar: str, topic: str
) -> None:
    body = unmodified(pillar, topic)
    answer = await tell(place, pillar, body)
    wanted = ["update", "referral"] if "action" in body else ["update"]
    assert kinds(answer) == wanted
    for message in answer["messages"]:
        await practice.arrived(message["id"])
    if "action" in body:
        assert answer["messages"][0]["priority"] == "routine"


async def test_the_practice_reads_what_was_measured_and_how_the_wound_does(
    place: Place, practice: Caller
) -> None:
    for topic, said in (("blood-pressure-reading", "138"), ("wound-progress", "granulating")):
        answer = await tell(place, NURSE, example(NURSE, topic))
        row = await practice.arrived(answer["messages"][0]["id"])
        content = (await practice.get(f"/inbox/{row['id']}")).json()
        found = [one["resource"] for one in content["entry"]]
        (observation,) = [one for one in found if one["resourceType"] == "Observation"]
        assert said in json.dumps(observation)


@pytest.mark.parametrize(
    ("changes", "priority", "said"),
    [
        ({"blood_pressure": {"systolic": 182, "diastolic": 100}}, "stat", "same day"),
        (
            {"blood_pressure": {"systolic": 86, "diastolic": 58}, "fainting_or_falls": True},
            "urgent",
            "urgent",
        ),
        ({"action": {"what": "Please repeat it.", "urgency": "routine"}}, "routine", ""),
    ],
)
async def test_what_was_measured_asks_the_practice_to_act_and_never_hides_in_the_routine(
    place: Place, practice: Caller, changes: Body, priority: str, said: str
) -> None:
    answer = await tell(place, NURSE, example(NURSE, READING, **changes))
    update, task = answer["messages"]
    assert (update["priority"], task["priority"]) == ("routine", priority)
    assert said in " ".join(answer["read_first"])
    await practice.arrived(task["id"])
    if priority == "stat":
        assert any("A message alone is not enough" in one for one in answer["read_first"])


async def test_a_crisis_with_symptoms_is_for_the_emergency_department_and_no_task(
    place: Place, practice: Caller
) -> None:
    pressure = {"systolic": 196, "diastolic": 124}
    body = example(NURSE, READING, blood_pressure=pressure, acute_symptoms=True)
    answer = await tell(place, NURSE, body)
    assert kinds(answer) == ["update"]
    assert answer["messages"][0]["priority"] == "urgent"
    assert answer["read_first"][0].startswith("Call 999")
    row = await practice.arrived(answer["messages"][0]["id"])
    content = (await practice.get(f"/inbox/{row['id']}")).json()
    assert any(one["resource"]["resourceType"] == "Flag" for one in content["entry"])


async def test_a_practice_that_takes_no_tasks_is_told_of_the_update_and_the_sender_telephones(
    place: Place,
) -> None:
    body = example(NURSE, "disease-alert", practice={"ods": "G99003"})
    answer = await tell(place, NURSE, body)
    assert kinds(answer) == ["update"]
    assert answer["read_first"][0].startswith("No task was sent. Telephone")


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"topic": "gossip"}, "topic", "not-in-list"),
        ({"blood_pressure": None}, "blood_pressure", "missing"),
        ({"clinical_summary": None}, "clinical_summary", "missing"),
        ({"action": {"what": "Call."}}, "action.urgency", "missing"),
    ],
)
async def test_what_cannot_be_filed_is_refused_in_the_senders_own_fields(
    place: Place, changes: Body, field: str, code: str
) -> None:
    nurse = place.of("RYC01")
    refused = problem(
        await nurse.post(DOORS[NURSE].door, example(NURSE, READING, **changes)), 422, "invalid"
    )
    assert (field, code) in {(one["field"], one["code"]) for one in refused["problems"]}, refused


async def test_a_refusal_of_what_is_urgent_says_whom_to_telephone(place: Place) -> None:
    body = example(NURSE, READING, blood_pressure={"systolic": 190, "diastolic": "high"})
    refused = problem(await place.of("RYC01").post(DOORS[NURSE].door, body), 422, "invalid")
    assert refused["detail"].startswith("Nothing was sent. Telephone")


async def test_a_crisis_that_is_refused_says_999_and_claims_that_nobody_was_told(
    place: Place,
) -> None:
    crisis: Body = {"blood_pressure": {"systolic": 196, "diastolic": 124}, "acute_symptoms": True}
    body = example(NURSE, READING, topic="gossip", **crisis)
    refused = problem(await place.of("RYC01").post(DOORS[NURSE].door, body), 422, "invalid")
    assert refused["detail"].startswith("Nothing was sent. Call 999")
    assert "is told" not in refused["detail"]
    withheld = await tell(place, NURSE, example(NURSE, READING, consent=False, **crisis))
    assert withheld["read_first"][0].startswith("Call 999")
    assert withheld["read_first"][1].startswith("Nobody has been told.")


async def test_who_does_not_agree_is_kept_nowhere_and_what_is_urgent_is_said(place: Place) -> None:
    for pressure, first in ((196, "Nobody has been told."), (128, "The patient does not agree")):
        body = example(
            NURSE,
            READING,
            consent=False,
            blood_pressure={"systolic": pressure, "diastolic": 84},
        )
        answer = await tell(place, NURSE, body)
        assert [one["status"] for one in answer["messages"]] == ["withheld"]
        assert answer["read_first"][0].startswith(first)
