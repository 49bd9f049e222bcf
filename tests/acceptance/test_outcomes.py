"""What receivers found and did: to who referred and to the practice, and what becomes of both."""

import json
from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

import pytest

from broker import registry
from tests.acceptance.place import (
    Body,
    Caller,
    Place,
    first,
    kinds,
    problem,
    referral,
    taken,
    warned,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOORS: Final = {
    name: adapter
    for name, adapter in registry.load().adapters.items()
    if name.endswith((".outcomes", ".letters"))
}
EVERY: Final = [
    pytest.param(door, name, id=f"{door}-{name}")
    for door, adapter in DOORS.items()
    for name in adapter.examples
]
COMMUNITY: Final = "community.outcomes"
LETTERS: Final = "secondary-care.letters"
NOWHERE: Final = "00000000-0000-7000-8000-000000000000"
EYE_CLINIC: Final[Body] = {"ods": "RXX01", "name": "Northfield Hospital"}


def unmodified(door: str, name: str, /) -> Body:
    """Return a complete example as it is published."""
    found: Body = json.loads(json.dumps(DOORS[door].examples[name]))
    return found


def example(door: str, name: str, /, **changes: Any) -> Body:
    """Return a complete example under a reference of its own, with changes; None leaves out."""
    body = unmodified(door, name) | {"reference": str(uuid4())} | changes
    return {name: said for name, said in body.items() if said is not None}


def sender(door: str, body: Body) -> str:
    ods: str = body[DOORS[door].accepts.sender_field]["ods"]
    return ods


async def tell(place: Place, door: str, body: Body) -> Body:
    """Post an outcome; it is taken."""
    return taken(await place.of(sender(door, body)).post(DOORS[door].door, body))


async def correct(place: Place, door: str, message: str, body: Body) -> Body:
    """Put a whole new body in the place of an outcome."""
    caller = place.of(sender(door, body))
    tag = await caller.etag(f"/messages/{message}")
    return taken(await caller.put(f"{DOORS[door].door}/{message}", body, if_match=tag), 200)


def told(message: Body) -> dict[str, str]:
    """Return who gets a message, in order, each with what it is to them."""
    return {one["organisation"]: one["role"] for one in message["destinations"]}


async def bundle(caller: Caller, message: str) -> list[Body]:
    """Return the resources of a message that arrived, the one that it is about first."""
    row = await caller.arrived(message)
    content = (await caller.get(f"/inbox/{row['id']}")).json()
    found = [one["resource"] for one in content["entry"]][1:]
    # Others of these tests tell of the same patient, which is flagged.
    return [one for one in found if not is_flag_of_another(one)]


def is_flag_of_another(resource: Body) -> bool:
    if resource["resourceType"] != "Flag":
        return False
    return any(one["code"] == "similar-message" for one in resource["code"].get("coding", ()))


def of_type(resources: Sequence[Body], kind: str) -> list[Body]:
    return [one for one in resources if one["resourceType"] == kind]


async def referred(place: Place, **changes: Any) -> Body:
    """Return a referral's message that the hospital has stored."""
    body = referral(provider=None, practice="G99001", **changes)
    body["patient"]["nhs_number"] = "9990000018"
    (message,) = (await place.of("TPX01").submit(body))["messages"]
    await place.of("RXX01").take(message["id"])
    return {**message, "reference": body["reference"]}


def letter(**changes: Any) -> Body:
    """Return the eye clinic's letter about a referral for cataract."""
    said: Body = {"hospital": EYE_CLINIC, "referrer": None}
    return example(LETTERS, "outcome", **{**said, **changes})


async def state(caller: Caller, at: str) -> str:
    found: str = taken(await caller.get(at), 200)["state"]
    return found


async def moves(caller: Caller, at: str) -> list[str]:
    """Return the moves that were told to somebody about a referral, by notice."""
    await caller.place.settled()
    subject = at.rpartition("/")[2]
    rows = [row for row in await caller.inbox() if row["kind"] == "notice"]
    found = [await caller.collect(row) for row in rows if row["subject"] == subject]
    return [one.topic for one in found]


# -- who gets it ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("door", "name"), EVERY)
async def test_every_example_reaches_who_referred_and_the_practice_unmodified(
    place: Place, door: str, name: str
) -> None:
    body = unmodified(door, name)
    answer = await tell(place, door, body)
    message, *others = answer["messages"]
    # The practice must file it; whoever else gets it has a copy, and nobody gets it twice.
    known = [body.get("practice", {}).get("ods"), body.get("referrer", {}).get("ods")]
    wanted = [ods for ods in dict.fromkeys(known) if ods not in (None, sender(door, body))]
    assert told(message) == {ods: "acting" if at == 0 else "copy" for at, ods in enumerate(wanted)}
    assert warned(answer) == []
    for ods in wanted:
        resources = await bundle(place.of(ods), message["id"])
        assert resources[0]["resourceType"] == "Communication"
    asked = [one for one in body.get("actions", ()) if one.get("whom", "practice") == "practice"]
    assert kinds(answer) == [
        "update",
        *["referral"] * (len(asked) + ("consent_to_inform_pharmacy" in body)),
    ]
    for one in others[: len(asked)]:
        assert list(told(one)) == ["G99001"]
        await place.of("G99001").arrived(one["id"])


async def test_an_outcome_ends_the_referral_and_each_hears_it_once(place: Place) -> None:
    sent = await referred(place)
    at = sent["referral"]
    answer = await tell(place, LETTERS, letter(referral={"id": at.rpartition("/")[2]}))
    message = first(answer)
    assert told(message) == {"G99001": "acting", "TPX01": "copy"}
    assert await state(place.of("TPX01"), at) == "completed"
    for ods in ("TPX01", "G99001"):  # by the letter alone
        assert await moves(place.of(ods), at) == []
        (communication, *_) = await bundle(place.of(ods), message["id"])
        (about,) = communication["basedOn"]
        assert about["identifier"]["value"] == at.rpartition("/")[2]
        assert len(communication["recipient"]) == 2
    assert message["id"] not in {row["message"] for row in await place.of("RYY01").inbox()}
    assert (await place.of("TPX01").overdue(sent["id"])) == set()


@pytest.mark.parametrize("named", ["message", "reference"])
async def test_a_referral_is_named_by_its_message_or_by_its_senders_reference(
    place: Place, named: str
) -> None:
    sent = await referred(place)
    by: Body = {"id": sent["id"]}
    if named == "reference":
        by = {"sender": "TPX01", "reference": sent["reference"]}
    answer = await tell(place, LETTERS, letter(referral=by))
    assert "TPX01" in told(first(answer))
    assert await state(place.of("TPX01"), sent["referral"]) == "completed"


@pytest.mark.parametrize(
    ("changes", "ended"),
    [
        ({"outcome": "under-follow-up"}, "in-progress"),
        ({"outcome": "under-follow-up", "ends_referral": True}, "completed"),
        ({"outcome": "treated"}, "completed"),
        ({"outcome": "treated", "ends_referral": False}, "in-progress"),
        ({"kind": "clinic-letter", "outcome": None}, "in-progress"),
        ({"kind": "clinic-letter", "outcome": "discharged-to-gp"}, "completed"),
    ],
)
async def test_a_letter_ends_the_referral_or_leaves_it_in_progress(
    place: Place, changes: Body, ended: str
) -> None:
    sent = await referred(place)
    body = letter(referral={"id": sent["id"]}, **changes)
    answer = await tell(place, LETTERS, body)
    assert await state(place.of("TPX01"), sent["referral"]) == ended
    goes_on = [one for one in answer["read_first"] if one.startswith("The referral goes on")]
    assert bool(goes_on) == (ended == "in-progress")


async def test_a_referral_that_goes_on_is_told_of_again_and_ended_by_a_later_letter(
    place: Place,
) -> None:
    sent = await referred(place)
    at = sent["referral"]
    for outcome, stands in (
        ("under-follow-up", "in-progress"),
        ("under-follow-up", "in-progress"),
        ("treated", "completed"),
    ):
        await tell(place, LETTERS, letter(referral={"id": sent["id"]}, outcome=outcome))
        assert await state(place.of("TPX01"), at) == stands
    # A result that comes later is told as well; the referral stays as it is.
    late = letter(referral={"id": sent["id"]}, outcome="treated", ends_referral=False)
    answer = await tell(place, LETTERS, late)
    assert warned(answer) == ["referral-over"]
    assert "TPX01" in told(first(answer))


async def test_the_optometrist_of_a_patient_whom_the_gp_referred_gets_the_outcome(
    place: Place,
) -> None:
    body = letter(referrer={"ods": "G99002"}, optometrist={"ods": "TPX01"})
    message = first(await tell(place, LETTERS, body))
    assert told(message) == {"G99001": "acting", "G99002": "copy", "TPX01": "copy"}
    mistyped = letter(referrer={"ods": "G99002"}, optometrist={"ods": "V99001"})
    answer = await tell(place, LETTERS, mistyped)
    assert told(first(answer)) == {"G99001": "acting", "G99002": "copy"}
    assert warned(answer) == ["copy-another-pillar"]


async def test_a_hospital_that_referred_to_itself_gets_no_copy_of_its_own_letter(
    place: Place,
) -> None:
    hospital, refers = place.of("RXX01"), registry.load().adapters["secondary-care.referrals"]
    body = json.loads(json.dumps(refers.examples["specialty-referral"]))
    body |= {"reference": str(uuid4()), "hospital": EYE_CLINIC}
    (sent,) = taken(await hospital.post(refers.door, body))["messages"]
    assert sent["destinations"][0]["organisation"] == "RXX01"
    reply = letter(
        pathway="specialty-referral", outcome="treated", referral={"id": sent["id"]}, actions=None
    )
    answer = await tell(place, LETTERS, reply)
    assert told(first(answer)) == {"G99001": "acting"}
    assert warned(answer) == []
    assert await state(hospital, sent["referral"]) == "completed"


async def test_an_outcome_of_a_patient_without_a_practice_goes_to_who_referred(
    place: Place,
) -> None:
    body = example("dentistry.outcomes", "urgent-dental", practice=None)
    message = first(await tell(place, "dentistry.outcomes", body))
    assert told(message) == {"Y99011": "acting"}


async def test_who_referred_and_takes_no_updates_hears_the_end_by_notice(place: Place) -> None:
    takes = "{organisation: TPX01, channel: inbox, takes: [update, notice]}"
    sent = await referred(place)
    async with place.directory((takes, takes.replace("update, ", ""))):
        answer = await tell(place, LETTERS, letter(referral={"id": sent["id"]}))
    assert told(first(answer)) == {"G99001": "acting"}
    assert warned(answer) == ["copy-does-not-take"]
    heard = await place.of("TPX01").heard(sent["id"], "completed")
    assert "Seen and discharged to the optometrist" in heard.advice
    assert await moves(place.of("G99001"), sent["referral"]) == []


# -- what is refused -----------------------------------------------------------------------------


async def test_a_referral_that_is_not_the_callers_to_end_is_refused_and_nothing_is_kept(
    place: Place,
) -> None:
    sent, over = await referred(place), await referred(place)
    await tell(place, LETTERS, letter(referral={"id": over["id"]}))
    other = letter(referral={"id": sent["id"]})
    other["patient"] = {**other["patient"], "nhs_number": "9990000026"}
    stranger = letter(referral={"id": sent["id"]}, hospital={"ods": "RYY01"})
    glaucoma = letter(referral={"id": sent["id"]}, pathway="glaucoma")
    for body, code in (
        (other, "another-patient"),
        (stranger, "unknown-referral"),
        (letter(referral={"id": str(uuid4())}), "unknown-referral"),
        (letter(referral={"sender": "TPX01", "reference": "no such"}), "unknown-referral"),
        (glaucoma, "another-pathway"),
        (letter(referral={"id": over["id"]}), "referral-over"),
    ):
        caller = place.of(body["hospital"]["ods"])
        said = problem(await caller.post(DOORS[LETTERS].door, body), 422, "invalid")
        assert [(one["field"], one["code"]) for one in said["problems"]] == [("referral", code)]
        found = taken(await caller.get("/messages", reference=body["reference"]), 200)
        assert found["messages"] == []
    assert await state(place.of("TPX01"), sent["referral"]) == "received"


@pytest.mark.parametrize(
    ("door", "name", "changes", "field", "code"),
    [
        (COMMUNITY, "wound-care", {"outcome": "quit"}, "outcome", "not-in-list"),
        (COMMUNITY, "wound-care", {"outcome": "gone"}, "outcome", "not-in-list"),
        (COMMUNITY, "wound-care", {"outcome": None}, "outcome", "missing"),
        (COMMUNITY, "wound-care", {"pathway": None}, "pathway", "missing"),
        (COMMUNITY, "wound-care", {"pathway": "nowhere"}, "pathway", "unknown-pathway"),
        (COMMUNITY, "wound-care", {"referral": {}}, "referral.id", "missing"),
        (COMMUNITY, "wound-care", {"referral": {"id": NOWHERE}}, "referrer", "said-twice"),
        (COMMUNITY, "wound-care", {"ends_referral": True}, "ends_referral", "no-referral"),
        (COMMUNITY, "wound-care", {"optometrist": {"ods": "TPX01"}}, "optometrist", "not-a-reader"),
        (
            COMMUNITY,
            "wound-care",
            {"practice": None, "referrer": None, "actions": None},
            "practice",
            "nobody-to-tell",
        ),
        (COMMUNITY, "wound-care", {"practice": None}, "actions[0].whom", "nobody-to-ask"),
        (COMMUNITY, "wound-care", {"actions": [{"what": "x"}]}, "actions[0].urgency", "missing"),
        (
            COMMUNITY,
            "wound-care",
            {"actions": [{"what": "x", "by": "soon"}]},
            "actions[0].by",
            "not-a-date",
        ),
        (
            COMMUNITY,
            "wound-care",
            {"actions": [{"what": "x", "urgency": "routine"}] * 2},
            "actions[1]",
            "said-twice",
        ),
        (
            COMMUNITY,
            "wound-care",
            {"medicines": [{"name": "x", "change": "stopped"}]},
            "medicines[0].why",
            "missing",
        ),
        (LETTERS, "discharge", {"kind": "note"}, "kind", "not-in-list"),
        (LETTERS, "discharge", {"discharged_on": None}, "discharged_on", "missing"),
        (LETTERS, "discharge", {"discharged_on": "2026-11-01"}, "discharged_on", "before"),
        (LETTERS, "outcome", {"pharmacy": {"ods": "FPH01"}}, "pharmacy", "only-of-a-discharge"),
    ],
)
async def test_what_cannot_be_told_is_refused_in_the_senders_own_fields(
    place: Place, door: str, name: str, changes: Body, field: str, code: str
) -> None:
    body = example(door, name, **changes)
    refused = problem(
        await place.of(sender(door, body)).post(DOORS[door].door, body), 422, "invalid"
    )
    assert (field, code) in {(one["field"], one["code"]) for one in refused["problems"]}, refused


async def test_a_refusal_of_what_is_urgent_says_whom_to_telephone(place: Place) -> None:
    today = {"what": "Please call the patient.", "urgency": "Same day"}
    soon = {"what": "Please call the patient.", "by": "2026-11-21"}
    for action in (today, soon):
        body = example(COMMUNITY, "wound-care", actions=[action], outcome="gone")
        refused = problem(await place.of("RYC01").post(DOORS[COMMUNITY].door, body), 422, "invalid")
        assert refused["detail"].startswith("Nothing was sent. Telephone")
    crisis: Body = {"blood_pressure": {"systolic": 196, "diastolic": 124}, "acute_symptoms": True}
    body = example(COMMUNITY, "wound-care", outcome="gone", **crisis)
    refused = problem(await place.of("RYC01").post(DOORS[COMMUNITY].door, body), 422, "invalid")
    assert refused["detail"].startswith("Nothing was sent. Call 999")


async def test_who_does_not_agree_is_kept_nowhere_and_the_referral_stays_as_it_is(
    place: Place,
) -> None:
    sent = await referred(place)
    body = letter(referral={"id": sent["id"]}, consent=False)
    answer = await tell(place, LETTERS, body)
    assert [one["status"] for one in answer["messages"]] == ["withheld"]
    assert answer["read_first"][0].startswith("The patient does not agree")
    assert answer["read_first"][-1].startswith("The referral stays as it is")
    assert await state(place.of("TPX01"), sent["referral"]) == "received"
    urgent = letter(consent=False, actions=[{"what": "Call.", "urgency": "same-day"}])
    answer = await tell(place, LETTERS, urgent)
    assert answer["read_first"][0].startswith("Nobody has been told.")


# -- what is asked -------------------------------------------------------------------------------


def asked_for(answer: Body) -> list[Body]:
    """Return the referrals of an answer: what the practice, or a pharmacy, is asked to do."""
    return [one for one in answer["messages"] if one["kind"] == "referral"]


async def words(caller: Caller, message: Body) -> str:
    """Return what a task asks for, as it arrived."""
    (request,) = of_type(await bundle(caller, message["id"]), "ServiceRequest")
    (said,) = request["orderDetail"]
    found: str = said["text"]
    return found


BLOODS: Final[Body] = {"id": "bloods", "what": "Please check the blood.", "urgency": "routine"}
DOSE: Final[Body] = {"what": "Please raise the dose.", "urgency": "within-7-days"}
LETTER: Final[Body] = {"what": "Please read the letter.", "urgency": "urgent"}


async def test_each_action_of_the_practice_is_a_message_of_its_own_with_its_deadline(
    place: Place, practice: Caller
) -> None:
    dated = {"what": "Please stop the drops.", "by": "2027-01-04"}
    elsewhere = {"whom": "other", "who": "District nurses", "what": "Dress it.", "by": "2027-01-04"}
    actions = [BLOODS, DOSE, dated, elsewhere]
    answer = await tell(place, LETTERS, letter(referrer={"ods": "TPX01"}, actions=actions))
    tasks = asked_for(answer)
    assert [one["priority"] for one in tasks] == ["routine", "asap", "routine"]
    assert first(answer)["priority"] == "routine"
    said = [await words(practice, one) for one in tasks]
    assert said == [one["what"] for one in actions[:3]]
    done = [{one["kind"]: one for one in task["deadlines"]}.get("done") for task in tasks]
    clocks = [{one["kind"] for one in task["deadlines"]} for task in tasks]
    assert clocks == [{"received", "decided"}, *[{"received", "decided", "done"}] * 2]
    assert done[0] is None  # routine, and no day is named: its decision has a clock
    assert done[1] is not None and done[1]["whose_turn"] == "G99001"
    assert done[2] is not None and done[2]["by"] == "2027-01-04T18:30:00+00:00"
    (communication,) = of_type(await bundle(practice, first(answer)["id"]), "Communication")
    plan = "".join(one["contentString"] for one in communication["payload"])
    assert "District nurses, by 4 January 2027: Dress it." in plan
    # Nobody else hears of what the practice is asked.
    ids = {one["id"] for one in tasks}
    assert not ids & {row["message"] for row in await place.of("TPX01").inbox()}


async def test_what_is_due_today_is_for_today_whatever_else_is_said(place: Place) -> None:
    action = {"what": "Please call the patient.", "urgency": "routine", "by": "2026-11-21"}
    answer = await tell(place, COMMUNITY, example(COMMUNITY, "wound-care", actions=[action]))
    (task,) = asked_for(answer)
    assert (first(answer)["priority"], task["priority"]) == ("routine", "stat")
    assert any("A message alone is not enough" in one for one in answer["read_first"])


async def test_what_who_referred_is_asked_at_once_does_not_lie_among_the_routine(
    place: Place,
) -> None:
    action = {"whom": "referrer", "what": "Please see the patient.", "urgency": "same-day"}
    answer = await tell(place, LETTERS, letter(referrer={"ods": "TPX01"}, actions=[action]))
    assert kinds(answer) == ["update"]
    assert first(answer)["priority"] == "urgent"
    assert any("telephone them too" in one for one in answer["read_first"])


async def test_what_was_measured_asks_the_practice_to_act(place: Place, practice: Caller) -> None:
    body = example(
        COMMUNITY,
        "wound-care",
        actions=[BLOODS],
        blood_pressure={"systolic": 182, "diastolic": 100},
    )
    tasks = asked_for(await tell(place, COMMUNITY, body))
    assert [one["priority"] for one in tasks] == ["routine", "stat"]
    values = [
        part["valueQuantity"]["value"]
        for one in of_type(await bundle(practice, tasks[1]["id"]), "Observation")
        for part in one.get("component", ())
    ]
    assert values == [182, 100]


async def test_a_practice_that_takes_no_tasks_leaves_each_to_the_telephone(place: Place) -> None:
    body = letter(practice={"ods": "G99003"}, referrer={"ods": "TPX01"}, actions=[BLOODS, DOSE])
    answer = await tell(place, LETTERS, body)
    assert kinds(answer) == ["update"]
    left = [one for one in answer["read_first"] if one.startswith("No task was sent. Telephone")]
    assert len(left) == 2


async def test_a_correction_finds_each_action_again_one_by_one(
    place: Place, practice: Caller
) -> None:
    body = letter(referrer={"ods": "TPX01"}, actions=[BLOODS, DOSE])
    old = await tell(place, LETTERS, body)
    bloods, dose = asked_for(old)
    for one in (bloods, dose):
        await practice.take(one["id"])
    # One is removed, one is added, and of one the words change: it is known by its id.
    reworded = BLOODS | {"what": "Please check blood and urine."}
    new = await correct(place, LETTERS, first(old)["id"], body | {"actions": [LETTER, reworded]})
    added, kept = asked_for(new)
    assert kept["referral"] == bloods["referral"] and kept["id"] != bloods["id"]
    assert added["referral"] not in {bloods["referral"], dose["referral"]}
    assert new["cancelled"] == [dose["referral"]]
    assert [await words(practice, one) for one in (added, kept)] == [
        LETTER["what"],
        reworded["what"],
    ]
    assert await moves(practice, dose["referral"]) == ["cancelled"]
    assert await state(practice, bloods["referral"]) == "received"
    # Both at once, the other way round: nothing is mistaken for the other.
    again = await correct(place, LETTERS, first(new)["id"], body | {"actions": [reworded, LETTER]})
    assert [one["referral"] for one in asked_for(again)] == [kept["referral"], added["referral"]]
    assert again["cancelled"] == []


async def test_an_action_that_was_done_is_not_asked_for_again_by_a_correction(
    place: Place, practice: Caller
) -> None:
    body = letter(referrer={"ods": "TPX01"}, actions=[BLOODS, DOSE])
    old = await tell(place, LETTERS, body)
    bloods, dose = asked_for(old)
    await practice.take(dose["id"])
    taken(await practice.move(dose["referral"], "accept"), 200)
    taken(await practice.move(dose["referral"], "complete", {"outcome": "Raised."}), 200)
    new = await correct(place, LETTERS, first(old)["id"], body | {"findings": "More."})
    assert [one["referral"] for one in asked_for(new)] == [bloods["referral"]]
    assert any(f"{dose['referral']} is not made again" in one for one in new["read_first"])
    # What another one asks for is new, though one at the same place has had its course.
    more = body | {"actions": [BLOODS, DOSE, LETTER]}
    again = await correct(place, LETTERS, first(new)["id"], more)
    assert [one["priority"] for one in asked_for(again)] == ["routine", "urgent"]


# -- corrections of what closed a loop -----------------------------------------------------------


async def test_a_correction_of_what_ended_a_referral_reaches_who_referred_again(
    place: Place,
) -> None:
    sent = await referred(place)
    body = letter(referral={"id": sent["id"]})
    old = await tell(place, LETTERS, body)
    new = await correct(place, LETTERS, first(old)["id"], body | {"findings": "Both eyes."})
    assert told(first(new)) == {"G99001": "acting", "TPX01": "copy"}
    assert (warned(new), new["read_first"]) == ([], [])
    row = await place.of("TPX01").arrived(first(new)["id"])
    assert (await place.of("TPX01").collect(row)).event == "record-update"


async def test_a_correction_ends_the_referral_that_the_first_version_left_open(
    place: Place,
) -> None:
    sent = await referred(place)
    body = letter(referral={"id": sent["id"]}, outcome="under-follow-up")
    old = await tell(place, LETTERS, body)
    await correct(place, LETTERS, first(old)["id"], body | {"outcome": "treated"})
    assert await state(place.of("TPX01"), sent["referral"]) == "completed"


async def test_who_answered_the_wrong_referral_hears_that_it_stays_ended(place: Place) -> None:
    wrong, right = await referred(place), await referred(place)
    body = letter(referral={"id": wrong["id"]})
    old = await tell(place, LETTERS, body)
    new = await correct(place, LETTERS, first(old)["id"], body | {"referral": {"id": right["id"]}})
    assert f"{wrong['referral']} stays completed" in new["read_first"][0]
    assert "Clearview Opticians" in new["read_first"][0]
    assert await state(place.of("TPX01"), right["referral"]) == "completed"
    hospital = place.of("RXX01")
    path = f"/messages/{first(new)['id']}/withdrawal"
    withdrawn = taken(await hospital.post(path, {}))
    assert f"{right['referral']} stays completed" in withdrawn["read_first"][0]


# -- a discharge, and the pharmacy that the patient names ----------------------------------------


def discharge(**changes: Any) -> Body:
    return example(LETTERS, "discharge", **changes)


async def test_a_discharge_asks_the_pharmacy_about_the_medicines_and_its_reply_closes_that(
    place: Place,
) -> None:
    body = discharge(actions=None)
    answer = await tell(place, LETTERS, body)
    update, asks = answer["messages"]
    assert told(update) == {"G99001": "acting"}
    assert told(asks) == {"FPH01": "acting", "G99001": "copy"}
    hospital, pharmacy, practice = (place.of(ods) for ods in ("RXZ01", "FPH01", "G99001"))
    resources = await bundle(pharmacy, asks["id"])
    (request,) = of_type(resources, "ServiceRequest")
    assert request["code"]["coding"][0]["code"] == "discharge-medicines"
    medicines = {
        one["medicationCodeableConcept"]["text"]: (one["status"], one["note"][0]["text"])
        for one in of_type(resources, "MedicationStatement")
    }
    ramipril = "Stopped: Ramipril 5 mg capsules (Kidney function)"
    assert medicines["Ramipril 5 mg capsules"] == ("stopped", ramipril)
    assert medicines["Bisoprolol 2.5 mg tablets"][0] == "active"
    joined = await place.rows(
        "SELECT id FROM message WHERE correlation_id = :it", it=answer["correlation_id"]
    )
    assert {update["id"], asks["id"]} <= {one.id for one in joined}

    await pharmacy.take(asks["id"])
    reply = example("pharmacy.outcomes", "discharge-medicines", actions=None, referrer=None)
    replied = await tell(place, "pharmacy.outcomes", reply | {"referral": {"id": asks["id"]}})
    assert told(first(replied)) == {"G99001": "acting", "RXZ01": "copy"}
    assert await state(hospital, asks["referral"]) == "completed"
    for one in (hospital, practice):
        (communication, *_) = await bundle(one, first(replied)["id"])
        assert communication["topic"]["coding"][0]["code"] == "medicines-reconciled"
        assert "completed" not in await moves(one, asks["referral"])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"consent_to_inform_pharmacy": False}, "the patient does not agree"),
        ({"consent_to_inform_pharmacy": None}, "it is not said whether the patient agrees"),
        ({"pharmacy": None}, "none is named"),
        (
            {"medicines": [{"name": "Aspirin 75 mg tablets", "change": "unchanged"}]},
            "no medicine was started, changed or stopped",
        ),
        ({"pharmacy": {"ods": "V99001"}}, "No task was sent. Telephone the pharmacy"),
    ],
)
async def test_no_pharmacy_is_told_of_what_it_may_not_or_need_not_know_and_the_answer_says_so(
    place: Place, changes: Body, why: str
) -> None:
    answer = await tell(place, LETTERS, discharge(actions=None, **changes))
    assert kinds(answer) == ["update"]
    assert why in " ".join(answer["read_first"])
    await place.settled()
    for ods in ("FPH01", "V99001"):
        rows = {row["message"] for row in await place.of(ods).inbox()}
        assert not rows & {one["id"] for one in answer["messages"]}


async def test_a_discharge_without_changed_medicines_and_pharmacy_says_nothing_of_one(
    place: Place,
) -> None:
    body = discharge(medicines=None, pharmacy=None, consent_to_inform_pharmacy=None)
    answer = await tell(place, LETTERS, body)
    assert "pharmacy" not in " ".join(answer["read_first"]).lower()


async def test_a_corrected_discharge_amends_what_the_pharmacy_is_asked_and_a_refusal_takes_it_back(
    place: Place,
) -> None:
    body = discharge()
    old = await tell(place, LETTERS, body)
    kidneys, asks = asked_for(old)
    new = await correct(
        place, LETTERS, first(old)["id"], body | {"medicines": body["medicines"][:1]}
    )
    assert [one["referral"] for one in asked_for(new)] == [kidneys["referral"], asks["referral"]]
    again = await correct(
        place, LETTERS, first(new)["id"], body | {"consent_to_inform_pharmacy": False}
    )
    assert again["cancelled"] == [asks["referral"]]
    assert [one["referral"] for one in asked_for(again)] == [kidneys["referral"]]
    assert await moves(place.of("FPH01"), asks["referral"]) == ["cancelled"]


async def test_a_letter_stands_under_its_headings_beside_its_parts(
    place: Place, practice: Caller
) -> None:
    body = example(LETTERS, "clinic-letter")
    message = first(await tell(place, LETTERS, body))
    resources = await bundle(practice, message["id"])
    (communication,) = of_type(resources, "Communication")
    told_under = [
        (one["extension"][0]["valueCoding"]["code"], one["contentString"])
        for one in communication["payload"]
    ]
    assert ("clinical-summary", body["letter"].strip()) in told_under
    assert communication["category"][0]["coding"][0]["code"] == "clinic-letter"
    conditions = of_type(resources, "Condition")
    assert [one["code"]["text"] for one in conditions] == ["Hyperthyroidism"]
    assert conditions[0]["verificationStatus"]["coding"][0]["code"] == "provisional"
    assert len(of_type(resources, "MedicationStatement")) == 2
