"""A request for advice that becomes a referral, with everything that was said, typed once."""

import asyncio
from itertools import count
from typing import Any
from uuid import uuid4

import pytest

from broker import registry
from tests.acceptance.place import Body, Caller, Place, problem, taken
from tests.acceptance.test_attachments import documents, naming, png, uploaded
from tests.acceptance.test_communications import ABOUT, id_of, say

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADAPTER = registry.load().adapters["general-practice.referrals"]
ASKED = ADAPTER.examples["advice-and-guidance"]
DOOR = ADAPTER.door
# What the request did not say and the new pathway needs.
NEW = {
    "pathway": "specialty-referral",
    "reason": {"code": "cardiology", "text": "Palpitations"},
    "history": "Palpitations for three months.",
    "medicines": [],
    "allergies": [],
}
_numbers = count(1)


@pytest.fixture
def practice(place: Place) -> Caller:
    return place.of("G99001")


def new(**changes: Any) -> Body:
    return {**NEW, "reference": f"converted-{next(_numbers)}-{uuid4().hex[:8]}", **changes}


async def asked(practice: Caller, hospital: Caller, **changes: Any) -> Body:
    """Return a request for advice that the hospital has stored."""
    body = {**ASKED, "reference": f"asked-{next(_numbers)}-{uuid4().hex[:8]}", **changes}
    (message,) = taken(await practice.post(DOOR, body))["messages"]
    await hospital.take(message["id"])
    return dict(message)


async def converted(caller: Caller, at: str, body: Body) -> Body:
    (message,) = taken(await caller.move(at, "convert", body))["messages"]
    return dict(message)


async def request_of(caller: Caller, message: Body) -> Body:
    """Return the ServiceRequest that a receiver gets, with the whole message beside."""
    row = await caller.take(message["id"])
    content = (await caller.get(f"/inbox/{row['id']}")).json()
    found: Body = next(
        one["resource"]
        for one in content["entry"]
        if one["resource"]["resourceType"] == "ServiceRequest"
    )
    return {**found, "bundle": content}


async def test_who_asked_converts_and_everything_that_was_said_goes_along(
    practice: Caller, hospital: Caller, place: Place
) -> None:
    first, second = png("one"), png("two")
    images = [await uploaded(practice, first), await uploaded(hospital, second)]
    about = await asked(practice, hospital, attachments=naming(images[0]))
    at = about["referral"]
    question = await say(hospital, about=id_of(about), text="Since when?", **ABOUT)
    await say(practice, kind="answer", in_reply_to=question["id"], text="Since May.", **ABOUT)
    told = await say(
        *(hospital,),
        kind="advice",
        in_reply_to=question["id"],
        text="Look at this.",
        attachments=naming(images[1]),
        **ABOUT,
    )
    assert told["thread"]
    made = await converted(practice, at, new())
    got = await request_of(hospital, made)
    assert [one["identifier"]["value"] for one in got["basedOn"]] == [about["id"]]
    notes = " ".join(one["text"] for one in got["note"])
    assert notes.index("Since when?") < notes.index("Since May.") < notes.index("Look at this.")
    assert got["orderDetail"][0]["text"] == ASKED["question"]
    urls = [one["content"][0]["attachment"]["url"] for one in documents(got["bundle"])]
    fetched = [
        (await hospital.get(url[url.index("/attachments") :])).content for url in sorted(urls)
    ]
    assert sorted(fetched) == sorted([first, second])

    shown = taken(await practice.get(at), 200)
    assert shown["state"] == "cancelled"
    rows = await place.rows(
        "SELECT DISTINCT correlation_id FROM message WHERE id IN (:a, :b)",
        a=about["id"],
        b=made["id"],
    )
    assert len(rows) == 1
    joined = (await practice.tracked(made["id"]))["joined"]
    assert about["id"] in str(joined)
    state = taken(await practice.get(made["referral"]), 200)
    assert (state["sender"], state["pathway"]) == ("G99001", "specialty-referral")
    assert state["convert"] is None
    await hospital.heard(about["id"], "cancelled")


async def test_the_new_referral_has_a_reference_of_its_own(
    practice: Caller, hospital: Caller
) -> None:
    about = await asked(practice, hospital)
    unnamed = {name: it for name, it in new().items() if name != "reference"}
    answer = await practice.move(about["referral"], "convert", unnamed)
    (one,) = problem(answer, 422, "invalid")["problems"]
    assert (one["field"], one["code"]) == ("reference", "missing")


async def test_its_receiver_converts_only_what_the_request_allows(
    practice: Caller, hospital: Caller
) -> None:
    about = await asked(practice, hospital)
    answer = await hospital.move(about["referral"], "convert", new())
    assert "has not allowed" in problem(answer, 409, "conflict")["detail"]
    assert taken(await practice.get(about["referral"]), 200)["state"] == "received"

    about = await asked(practice, hospital, may_convert=True)
    shown = taken(await hospital.get(about["referral"]), 200)
    assert shown["convert"] == f"{about['referral']}/convert"
    got = await request_of(hospital, about)
    assert any("You may make a referral" in one["text"] for one in got["note"])
    made = await converted(hospital, about["referral"], new())
    # It is referred by who asked, who hears that it has become one, and which.
    state = taken(await practice.get(made["referral"]), 200)
    assert state["sender"] == "G99001"
    told = await practice.heard(about["id"], "completed")
    assert made["id"] in told.advice


async def test_a_recommended_referral_stays_with_who_asked_until_they_make_it(
    practice: Caller, hospital: Caller
) -> None:
    about = await asked(practice, hospital)
    letters = registry.load().adapters["secondary-care.letters"]
    body = {
        **letters.examples["outcome"],
        "reference": str(uuid4()),
        "pathway": "advice-and-guidance",
        "outcome": "referral-recommended",
        "hospital": {"ods": "RXX01"},
        "referral": {"id": id_of(about)},
        "patient": ASKED["patient"],
        "actions": [],
        "medicines": [],
        "referrer": None,
        "optometrist": None,
    }
    given = {name: it for name, it in body.items() if it is not None}
    taken(await hospital.post(letters.door, given))
    shown = taken(await practice.get(about["referral"]), 200)
    assert (shown["state"], shown["waits_for"]) == ("rejected", "sender")
    clocks = (await practice.tracked(about["id"]))["deadlines"]
    (resolved,) = [one for one in clocks if one["kind"] == "resolved"]
    assert (resolved["whose_turn"], resolved["met_at"]) == ("G99001", None)
    await converted(practice, about["referral"], new())
    assert taken(await practice.get(about["referral"]), 200)["state"] == "resolved"


async def test_what_is_no_request_for_advice_or_is_over_is_not_converted(
    practice: Caller, hospital: Caller, optometrist: Caller
) -> None:
    about = await asked(practice, hospital)
    made = await converted(practice, about["referral"], new())
    answer = await practice.move(made["referral"], "convert", new())
    assert "no request for advice" in problem(answer, 409, "conflict")["detail"]
    answer = await practice.move(about["referral"], "convert", new())
    problem(answer, 409, "conflict")
    about = await asked(practice, hospital)
    problem(await optometrist.post(f"{about['referral']}/convert", new()), 404, "not-found")
    taken(await hospital.move(about["referral"], "accept"), 200)
    taken(await hospital.move(about["referral"], "complete", {"outcome": "Watch and wait."}), 200)
    problem(await practice.move(about["referral"], "convert", new()), 409, "conflict")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"pathway": "no-such-pathway"}, "pathway"),
        ({"pathway": "advice-and-guidance", "reason": ASKED["reason"]}, "pathway"),
        ({"medicines": None}, "medicines"),
        ({"reason": {"code": "advice-on-diagnosis"}}, "reason.code"),
        ({"patient": ASKED["patient"]}, "patient"),
        ({"practice": {"ods": "G99002"}}, "practice"),
        ({"attachments": [{"id": str(uuid4()), "sha256": "0" * 64}]}, "attachments[0].id"),
    ],
)
async def test_what_the_new_pathway_misses_is_named_and_nothing_has_happened(
    practice: Caller, hospital: Caller, changes: Body, field: str
) -> None:
    about = await asked(practice, hospital)
    body = {name: it for name, it in new(**changes).items() if it is not None}
    found = problem(await practice.move(about["referral"], "convert", body), 422, "invalid")
    assert field in {one["field"] for one in found["problems"]}
    assert taken(await practice.get(about["referral"]), 200)["state"] == "received"


async def test_of_two_that_convert_at_once_one_does(practice: Caller, hospital: Caller) -> None:
    about = await asked(practice, hospital, may_convert=True)
    tag = await practice.etag(about["referral"])
    answers = await asyncio.gather(
        *(
            caller.post(f"{about['referral']}/convert", new(), if_match=tag)
            for caller in (practice, hospital)
        )
    )
    assert sorted(answer.status_code for answer in answers) in ([202, 409], [202, 412])


async def test_the_same_conversion_again_gets_the_same_answer(
    practice: Caller, hospital: Caller
) -> None:
    about = await asked(practice, hospital)
    tag, key, body = await practice.etag(about["referral"]), str(uuid4()), new()
    at = f"{about['referral']}/convert"
    first = await practice.post(at, body, key=key, if_match=tag)
    again = await practice.post(at, body, key=key, if_match=tag)
    assert (first.status_code, again.content) == (202, first.content)


async def test_what_it_became_keeps_what_was_said_when_it_is_amended(
    practice: Caller, hospital: Caller
) -> None:
    about = await asked(practice, hospital)
    await say(hospital, kind="advice", about=id_of(about), text="Look at this.", **ABOUT)
    body = new()
    made = await converted(practice, about["referral"], body)
    whole = {**ASKED, **body, "history": "Palpitations since May."}
    tag = await practice.etag(f"/messages/{made['id']}")
    answer = await practice.put(f"{DOOR}/{made['id']}", whole, if_match=tag)
    (again,) = taken(answer, 200)["messages"]
    got = await request_of(hospital, again)
    assert any("Look at this." in one["text"] for one in got["note"])
    assert got["basedOn"]
