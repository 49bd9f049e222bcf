"""Clinical messages: what the parties of a patient's care say to each other, thread by thread."""

import json
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import uuid4

import pytest

from broker import registry
from fhir_profiles import codes
from tests.acceptance.place import (
    Body,
    Caller,
    Place,
    eventually,
    problem,
    referral,
    taken,
)
from tests.acceptance.test_attachments import documents, naming, png, uploaded
from tests.acceptance.test_referral_doors import received

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOOR = "/communications"
EXAMPLES = registry.load().adapters["communications"].examples
QUESTION = EXAMPLES["question"]
ABOUT = {"patient": None, "to": None}
TODAY = datetime.now(UTC).date().isoformat()
_numbers = count(1)


def said(caller: Caller, **changes: Any) -> Body:
    """Return a clinical message of this caller's; a field that is None is left out."""
    body = {
        **QUESTION,
        "reference": f"said-{next(_numbers)}-{uuid4().hex[:8]}",
        "sent_by": {"ods": caller.ods},
        **changes,
    }
    return {name: value for name, value in body.items() if value is not None}


async def say(caller: Caller, **changes: Any) -> Body:
    """Post a clinical message that is taken; return what became of it."""
    (message,) = taken(await caller.post(DOOR, said(caller, **changes)))["messages"]
    return dict(message)


async def thread(caller: Caller, message: Body) -> list[Body]:
    found: list[Body] = taken(await caller.get(f"{DOOR}/{message['id']}/thread"), 200)["messages"]
    return found


def whom(message: Body) -> list[tuple[str, str | None]]:
    return [(one["organisation"], one["service"]) for one in message["destinations"]]


def id_of(message: Body) -> str:
    """Return the id of a message's referral."""
    return str(message["referral"]).rpartition("/")[2]


async def refused(caller: Caller, field: str, code: str, **changes: Any) -> Body:
    found = problem(await caller.post(DOOR, said(caller, **changes)), 422, "invalid")
    (one,) = found["problems"]
    assert (one["field"], one["code"]) == (field, code)
    return dict(one)


async def communication(caller: Caller, message: Body) -> Body:
    """Return what a receiver gets of a clinical message, once it is there."""
    row = await caller.take(message["id"])
    content = (await caller.get(f"/inbox/{row['id']}")).json()
    found: Body = next(
        one["resource"]
        for one in content["entry"]
        if one["resource"]["resourceType"] == "Communication"
    )
    return {**found, "bundle": content}


async def test_a_question_about_a_referral_and_its_answer_are_one_thread(
    optometrist: Caller, hospital: Caller, practice: Caller
) -> None:
    about = await received(optometrist, hospital)
    asked = await say(hospital, about=id_of(about), **ABOUT)
    assert whom(asked) == [("TPX01", None)]
    assert asked["destinations"][0]["reason"] == "It is a party of what this is about."
    got = await communication(optometrist, asked)
    assert got["category"][0]["coding"][0]["code"] == "question"
    assert [one["contentString"] for one in got["payload"]] == [QUESTION["text"]]
    assert {one["identifier"]["value"] for one in got["about"]} == {about["id"], id_of(about)}
    patient = next(
        one["resource"]
        for one in got["bundle"]["entry"]
        if one["resource"]["resourceType"] == "Patient"
    )
    assert patient["name"][0]["family"] == referral()["patient"]["name"]["family"]

    answered = await say(optometrist, kind="answer", in_reply_to=asked["id"], **ABOUT)
    assert whom(answered) == [("RXX01", "RXX01-SPA")]
    got = await communication(hospital, answered)
    assert got["inResponseTo"][0]["identifier"]["value"] == asked["id"]
    for caller in (optometrist, hospital):
        for message in (asked, answered):
            first, second = await thread(caller, message)
            assert [first["id"], second["id"]] == [asked["id"], answered["id"]]
            assert (first["kind"], first["text"]) == ("question", QUESTION["text"])
            assert first["answered_at"] is not None
    stands = {one["kind"]: one for one in (await hospital.tracked(asked["id"]))["deadlines"]}
    assert stands["answered"]["met_at"] is not None and stands["filed"]["met_at"] is not None
    problem(await practice.get(f"{DOOR}/{asked['id']}/thread"), 404, "not-found")


async def test_a_question_that_nobody_answers_is_raised_with_who_asked(
    place: Place, optometrist: Caller, hospital: Caller
) -> None:
    about = await received(optometrist, hospital)
    day = (datetime.now(UTC) + timedelta(days=20)).date().isoformat()
    asked = await say(hospital, about=about["id"], answer_by=day, **ABOUT)
    (clock,) = [one for one in asked["deadlines"] if one["kind"] == "answered"]
    assert (clock["whose_turn"], clock["by"][:10]) == ("TPX01", day)
    await communication(optometrist, asked)
    await place.move_deadline_back(asked["id"], "answered")
    told = await hospital.heard(asked["id"], "deadline-passed")
    assert "Your question was not answered" in told.text
    assert await hospital.overdue(asked["id"])
    # A question back is no answer; what the asker adds is none either.
    await say(optometrist, kind="question", in_reply_to=asked["id"], **ABOUT)
    await say(hospital, kind="information", in_reply_to=asked["id"], **ABOUT)
    assert await hospital.overdue(asked["id"])
    await say(optometrist, kind="advice", in_reply_to=asked["id"], **ABOUT)
    assert not await hospital.overdue(asked["id"])


async def test_a_chase_goes_to_whose_turn_it_is(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    about = await received(optometrist, hospital)
    practice = place.of("G99002")
    chased = await say(practice, kind="chase", about=id_of(about), **ABOUT)
    assert whom(chased) == [("RXX01", "RXX01-SPA")]
    rejected = {"reason": "criteria-not-met", "advice": "Watch and wait."}
    taken(await hospital.move(about["referral"], "reject", rejected), 200)
    chased = await say(practice, kind="chase", about=id_of(about), **ABOUT)
    assert whom(chased) == [("TPX01", None)]
    found = await refused(
        optometrist, "to.ods", "not-a-party", kind="chase", about=id_of(about), **ABOUT
    )
    assert "your own" in found["detail"] and "RXX01" in found["todo"]


async def test_who_is_no_party_learns_nothing_and_hears_nothing(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    about = await received(optometrist, hospital)
    stranger = place.of("V99001")
    for field, code in (("about", "unknown-case"), ("in_reply_to", "unknown-message")):
        asked = await say(hospital, about=about["id"], **ABOUT)
        there = await refused(stranger, field, code, **{field: asked["id"]}, **ABOUT)
        nowhere = await refused(stranger, field, code, **{field: str(uuid4())}, **ABOUT)
        assert there == nowhere
    found = await refused(
        hospital, "to.ods", "not-a-party", about=about["id"], patient=None, to={"ods": "V99001"}
    )
    assert "TPX01" in found["todo"]


async def test_what_is_said_of_a_restricted_referral_stays_as_restricted(
    optometrist: Caller, hospital: Caller, practice: Caller, place: Place
) -> None:
    body = referral()
    about = await received(
        optometrist, hospital, {**body, "patient": {**body["patient"], "sensitive": True}}
    )
    asked = await say(hospital, about=about["id"], **ABOUT)
    (row,) = await place.rows("SELECT label FROM message WHERE id = :id", id=asked["id"])
    assert row.label == "R"
    await refused(practice, "about", "unknown-case", about=about["id"], **ABOUT)


async def test_about_a_patient_alone_it_goes_to_whom_it_names_with_its_images(
    optometrist: Caller, practice: Caller, hospital: Caller
) -> None:
    body = png()
    image = await uploaded(optometrist, body)
    told = await say(optometrist, kind="information", attachments=naming(image))
    got = await communication(practice, told)
    (document,) = documents(got["bundle"])
    url = document["content"][0]["attachment"]["url"]
    path = url[url.index("/attachments") :]
    assert (await practice.get(path)).content == body
    (shown,) = await thread(practice, told)
    assert shown["attachments"] == [path]
    problem(await hospital.get(path), 404, "not-found")
    # Also what they say afterwards is about that patient, whom nobody types again.
    back = await say(practice, kind="question", in_reply_to=told["id"], **ABOUT)
    got = await communication(optometrist, back)
    assert codes.NHS_NUMBER in json.dumps(got["bundle"])


async def test_another_patient_than_that_of_what_it_is_about_is_refused(
    optometrist: Caller, hospital: Caller
) -> None:
    about = await received(optometrist, hospital)
    other = {**referral()["patient"], "nhs_number": "9990000034"}
    await refused(
        hospital,
        "patient.nhs_number",
        "another-patient",
        about=about["id"],
        patient=other,
        to=None,
    )


async def test_the_same_post_again_gets_the_same_answer_and_says_it_once(
    optometrist: Caller, practice: Caller
) -> None:
    body = said(optometrist)
    key = str(uuid4())
    first = await optometrist.post(DOOR, body, key=key)
    again = await optometrist.post(DOOR, body, key=key)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    (message,) = taken(first)["messages"]
    assert len(await thread(optometrist, message)) == 1


async def test_what_is_corrected_or_withdrawn_leaves_the_rest_of_its_thread(
    optometrist: Caller, practice: Caller
) -> None:
    body = said(optometrist, text="5 mg?")
    (first,) = taken(await optometrist.post(DOOR, body))["messages"]
    second = await say(optometrist, kind="information", in_reply_to=first["id"], **ABOUT)
    third = await say(optometrist, kind="information", in_reply_to=first["id"], **ABOUT)
    tag = await optometrist.etag(f"/messages/{first['id']}")
    amended = {**body, "text": "10 mg?"}
    (new,) = taken(await optometrist.put(f"{DOOR}/{first['id']}", amended, if_match=tag), 200)[
        "messages"
    ]
    taken(await optometrist.post(f"/messages/{third['id']}/withdrawal"))
    shown = {one["id"]: one for one in await thread(practice, second)}
    assert {name: one["status"] for name, one in shown.items()} == {
        first["id"]: "replaced",
        second["id"]: "sent",
        third["id"]: "withdrawn",
        new["id"]: "sent",
    }
    assert shown[new["id"]]["text"] == "10 mg?"
    found = await refused(practice, "in_reply_to", "over", in_reply_to=third["id"], **ABOUT)
    assert "withdrawn" in found["detail"]


async def test_a_withdrawal_in_a_thread_ends_nothing_of_it_that_is_still_to_be_sent(
    place: Place, optometrist: Caller
) -> None:
    away = place.of("G99002")  # whose webhook nobody answers
    first = await say(optometrist, to={"ods": "G99002"})
    second = await say(optometrist, kind="information", in_reply_to=first["id"], **ABOUT)
    taken(await optometrist.post(f"/messages/{second['id']}/withdrawal"))
    await place.settled()

    async def look() -> bool:
        rows = await place.rows(
            "SELECT message_id, state, done_reason FROM delivery WHERE message_id IN (:a, :b)",
            a=first["id"],
            b=second["id"],
        )
        return len(rows) == 2 and all(row.state != "done" for row in rows)

    await eventually(look)
    assert len(await thread(away, first)) == 2


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"patient": None}, "patient", "missing"),
        ({"to": None}, "to", "missing"),
        ({"kind": "answer"}, "in_reply_to", "missing"),
        ({"kind": "gossip"}, "kind", "not-in-list"),
        (
            {"kind": "chase", "answer_by": TODAY},
            "answer_by",
            "not-a-question",
        ),
        ({"about": "the patient of Monday"}, "about", "not-an-id"),
        ({"about": str(uuid4()), "in_reply_to": str(uuid4())}, "about", "said-twice"),
        ({"to": {"ods": "ZZZ99"}}, "to.ods", "unknown-destination"),
    ],
)
async def test_what_cannot_be_said_is_refused_in_the_senders_own_fields(
    optometrist: Caller, changes: Body, field: str, code: str
) -> None:
    await refused(optometrist, field, code, **changes)


async def test_what_is_urgent_and_refused_says_whom_to_telephone(optometrist: Caller) -> None:
    body = said(optometrist, urgency="same-day", text=None)
    found = problem(await optometrist.post(DOOR, body), 422, "invalid")
    assert found["detail"].startswith("Nothing was sent. Telephone")
