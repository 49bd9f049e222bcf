"""Whoever's move it is: reading a referral, moving it, and what everybody else hears of it."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from broker.move_content import REJECTION_REASONS
from broker.store import tables as t
from broker.store.tx import Tx
from tests.acceptance.place import (
    Body,
    Caller,
    Place,
    consultation,
    eventually,
    first,
    problem,
    reading,
    referral,
    taken,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

REJECTION = {"reason": "criteria-not-met", "advice": "Repeat the fields in 3 months."}
OUTCOME = {"outcome": "Operated; well.", "practice_actions": "Stop the drops after 4 weeks."}


async def received(optometrist: Caller, hospital: Caller, body: Body | None = None) -> Body:
    """Return a referral's message that the hospital has stored."""
    (message,) = (await optometrist.submit(body or referral()))["messages"]
    await hospital.take(message["id"])
    return message


def moves_of(shown: Body) -> set[str]:
    return {one["move"] for one in shown["allowed_moves"]}


async def way(caller: Caller, at: str, move: str) -> Body:
    """Return the call by which a move that is allowed now is made."""
    moves = taken(await caller.get(at), 200)["allowed_moves"]
    (found,) = [one for one in moves if one["move"] == move]
    return {"method": found["method"], "path": found["url"]}


async def test_the_receivers_receipt_moves_it_from_requested_to_received(
    optometrist: Caller, hospital: Caller
) -> None:
    (message,) = (await optometrist.submit(referral()))["messages"]
    at = message["referral"]
    await hospital.arrived(message["id"])
    before = taken(await hospital.get(at), 200)
    assert before["state"] == "requested"
    assert moves_of(before) == {"receive", "decline", "deceased"}
    await hospital.take(message["id"])
    answer = await hospital.get(at)
    after = taken(answer, 200)
    assert after["state"] == "received" and answer.headers["etag"] == f'W/"{after["version"]}"'
    assert moves_of(after) == {
        *("accept", "reject", "request-information", "redirect"),
        *("upgrade", "downgrade", "no-contact", "decline", "deceased"),
    }
    assert moves_of(taken(await optometrist.get(at), 200)) == {
        *("cancel", "amend", "decline", "deceased")
    }


async def test_each_allowed_move_names_the_door_that_it_is_made_at(
    optometrist: Caller, hospital: Caller, pharmacy: Caller, practice: Caller
) -> None:
    body = referral()
    (old,) = (await optometrist.submit(body))["messages"]
    at = old["referral"]
    await hospital.arrived(old["id"])
    amend = await way(optometrist, at, "amend")
    amended = body | {"symptoms": "Worse."}
    said = await optometrist.call(
        **amend, json=amended, headers={"if-match": await optometrist.etag(at)}
    )
    (new,) = taken(said, 200)["messages"]
    row = await hospital.arrived(new["id"])
    receipt = {"delivery": row["id"], "digest": row["digest"], "ods": hospital.ods}
    taken(await hospital.call(**await way(hospital, at, "receive"), json=receipt), 200)
    accept = await way(hospital, at, "accept")
    assert accept == {"method": "POST", "path": f"{at}/accept"}
    # A pharmacy's task is amended with the consultation that it came with.
    sent = await pharmacy.submit(reading(196, 124))
    task = first(sent, "referral")
    await practice.arrived(task["id"])
    amend = await way(pharmacy, task["referral"], "amend")
    assert amend == {"method": "PUT", "path": f"/pharmacy/consultations/{first(sent)['id']}"}


async def test_it_cannot_be_decided_before_it_is_proved_stored(
    optometrist: Caller, hospital: Caller
) -> None:
    (message,) = (await optometrist.submit(referral()))["messages"]
    await hospital.arrived(message["id"])
    said = problem(await hospital.move(message["referral"], "accept"), 409, "conflict")
    assert "Allowed now" in said["detail"]


async def test_a_move_without_if_match_is_428_a_stale_one_412_a_forbidden_one_409(
    optometrist: Caller, hospital: Caller
) -> None:
    at = (await received(optometrist, hospital))["referral"]
    tag = await hospital.etag(at)
    problem(await hospital.move(at, "accept", if_match=None), 428, "precondition-required")
    for stale in ('W/"1"', 'W/"999"', '"nonsense"', "*"):
        problem(await hospital.move(at, "accept", if_match=stale), 412, "stale")
    said = problem(await hospital.move(at, "complete", OUTCOME, if_match=tag), 409, "conflict")
    assert "accept, reject" in said["detail"]
    taken(await hospital.move(at, "accept", if_match=tag), 200)
    problem(await hospital.move(at, "reject", REJECTION, if_match=tag), 412, "stale")


async def test_a_move_that_is_not_there_is_404(optometrist: Caller, hospital: Caller) -> None:
    at = (await received(optometrist, hospital))["referral"]
    for name in ("expire", "receive", "amend", "vanish"):
        problem(await hospital.move(at, name), 404, "not-found")


@pytest.mark.parametrize("if_match", [None, 'W/"1"', 'W/"999"'])
async def test_a_repeat_gets_the_same_answer_whatever_its_if_match(
    optometrist: Caller, hospital: Caller, if_match: str | None
) -> None:
    at = (await received(optometrist, hospital))["referral"]
    once = await hospital.move(at, "reject", REJECTION)
    again = await hospital.move(at, "reject", REJECTION, if_match=if_match)
    assert (once.status_code, once.content) == (again.status_code, again.content)
    other = {**REJECTION, "advice": "Something else."}
    tag = await hospital.etag(at)
    problem(await hospital.move(at, "reject", other, if_match=tag), 409, "conflict")


async def test_a_move_that_is_asked_for_several_times_at_once_is_made_once_and_answered_alike(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(optometrist, hospital)
    at = message["referral"]
    tag = await hospital.etag(at)
    asked = [hospital.move(at, "reject", REJECTION, if_match=tag) for _ in range(8)]
    answers = await asyncio.gather(*asked)
    assert [one.status_code for one in answers] == [200] * 8
    assert len({one.content for one in answers}) == 1
    assert (await optometrist.notices(message["id"])).count("rejected") == 1


async def test_a_repeat_under_the_same_key_is_the_same_answer_even_after_later_moves(
    optometrist: Caller, hospital: Caller
) -> None:
    at = (await received(optometrist, hospital))["referral"]
    once = await hospital.move(at, "accept", key=f"accept-{at}")
    taken(await hospital.move(at, "complete", OUTCOME), 200)
    again = await hospital.move(at, "accept", key=f"accept-{at}", if_match='W/"1"')
    assert once.content == again.content


async def test_a_move_needs_a_key(optometrist: Caller, hospital: Caller) -> None:
    at = (await received(optometrist, hospital))["referral"]
    answer = await hospital.call(
        "POST", f"{at}/accept", headers={"if-match": await hospital.etag(at)}
    )
    problem(answer, 400, "key-required")


async def test_what_a_move_carries_is_checked_all_at_once(
    optometrist: Caller, hospital: Caller
) -> None:
    at = (await received(optometrist, hospital))["referral"]
    said = problem(
        await hospital.move(at, "reject", {"reason": "tired", "mood": "bad"}), 422, "invalid"
    )
    assert {one["field"] for one in said["problems"]} == {"reason", "advice", "mood"}
    todo = next(one["todo"] for one in said["problems"] if one["field"] == "reason")
    assert all(reason in todo for reason in REJECTION_REASONS)


async def test_acceptance_and_completion_are_told_to_the_optometrist_and_the_practice(
    optometrist: Caller, hospital: Caller, practice: Caller
) -> None:
    message = await received(optometrist, hospital, referral("raised-pressure"))
    at = message["referral"]
    taken(await hospital.move(at, "accept"), 200)
    done = taken(await hospital.move(at, "complete", OUTCOME), 200)
    assert (done["state"], done["allowed_moves"]) == ("completed", [])
    for listener in (optometrist, practice):
        told = await listener.heard(message["id"], "completed")
        assert "Operated; well." in told.advice
        assert "For the practice: Stop the drops" in told.advice
        assert await listener.heard(message["id"], "accepted")
    assert await hospital.notices(message["id"]) == []


@pytest.mark.parametrize("reason", REJECTION_REASONS)
async def test_each_reason_for_rejection_reaches_the_optometrist_in_words_with_the_advice(
    optometrist: Caller, hospital: Caller, reason: str
) -> None:
    message = await received(optometrist, hospital)
    said = {"reason": reason, "advice": f"Because of {reason}."}
    taken(await hospital.move(message["referral"], "reject", said), 200)
    told = await optometrist.heard(message["id"], "rejected")
    assert REJECTION_REASONS[reason] in told.text and told.advice == f"Because of {reason}."
    (move,) = (
        one
        for one in (await optometrist.tracked(message["id"]))["moves"]
        if one["move"] == "reject"
    )
    assert (move["reason"], move["by"]) == (reason, "RXX01")


async def test_what_was_accepted_may_still_be_rejected(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(optometrist, hospital)
    taken(await hospital.move(message["referral"], "accept"), 200)
    after = taken(await hospital.move(message["referral"], "reject", REJECTION), 200)
    assert (after["state"], after["waits_for"]) == ("rejected", "sender")


async def test_the_gp_copy_may_be_rejected_and_has_no_filed_by_clock(
    optometrist: Caller, practice: Caller
) -> None:
    (message,) = (await optometrist.submit(referral("raised-pressure")))["messages"]
    assert "filed" not in {one["kind"] for one in message["deadlines"]}
    assert "copy-received" in {one["kind"] for one in message["deadlines"]}
    row = await practice.take(message["id"])
    assert (row["kind"], row["role"]) == ("update", "copy")
    taken(await practice.decide(row, outcome="rejected", reason="moved-away"), 200)
    told = await optometrist.heard(message["id"], "update-rejected")
    assert "Riverside Medical Practice rejected" in told.text
    # The referral itself is not touched by that.
    assert taken(await optometrist.get(message["referral"]), 200)["state"] == "requested"
    # Nor does its line tell the copy's fate as the referral's.
    line = (await optometrist.tracked(message["id"]))["line"]
    assert line.startswith("Accepted; waiting for Northfield Hospital")
    assert (await practice.tracked(message["id"]))["line"] == "You have rejected it."


async def test_only_the_receiver_decides_and_only_the_sender_cancels(
    optometrist: Caller, hospital: Caller, practice: Caller, place: Place
) -> None:
    at = (await received(optometrist, hospital, referral("raised-pressure")))["referral"]
    tag = await hospital.etag(at)
    said = await optometrist.move(at, "accept", if_match=tag)
    assert "Only the receiver may accept" in problem(said, 409, "conflict")["detail"]
    cancel = {"reason": "no-longer-needed"}
    said = await hospital.move(at, "cancel", cancel, if_match=tag)
    assert "Only the sender may cancel" in problem(said, 409, "conflict")["detail"]
    # The practice may read it, so it hears that it is not its to move; a stranger hears nothing.
    problem(await practice.move(at, "accept", if_match=tag), 403, "forbidden")
    for stranger in ("RYY01", "TPX02", "G99002"):
        problem(await place.of(stranger).move(at, "accept", if_match=tag), 404, "not-found")


async def test_the_successor_in_the_directory_decides_in_its_predecessors_place(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    message = await received(optometrist, hospital)
    successor = place.of("RYY01")
    problem(await successor.get(message["referral"]), 404, "not-found")
    closed = "pillar: secondary-care\n    icb: QXX\n    telephone: 0113 496 0400"
    async with place.directory((closed, f"{closed}\n    status: closed\n    successor: RYY01")):
        assert taken(await successor.get(message["referral"]), 200)["state"] == "received"
        taken(await successor.move(message["referral"], "accept"), 200)
        assert await optometrist.heard(message["id"], "accepted")


async def test_the_rejecting_organisation_reinstates_on_the_same_day_and_nobody_else(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    message = await received(optometrist, hospital)
    at = message["referral"]
    taken(await hospital.move(at, "accept"), 200)
    taken(await hospital.move(at, "reject", REJECTION), 200)
    tag = await hospital.etag(at)
    problem(await optometrist.move(at, "reinstate", if_match=tag), 409, "conflict")
    assert taken(await hospital.move(at, "reinstate"), 200)["state"] == "accepted"
    # Rejected again with the very same words: a move of its own, not a repeat of the first.
    assert taken(await hospital.move(at, "reject", REJECTION), 200)["state"] == "rejected"
    await optometrist.place.settled()
    assert (await optometrist.notices(message["id"])).count("rejected") == 2

    yesterday = datetime.now(UTC) - timedelta(days=1)
    subject = at.rpartition("/")[2]
    row = update(t.referral).where(t.referral.c.subject_id == subject)

    def write(tx: Tx) -> None:
        tx.execute(row.values(last_move_at=yesterday))

    await place.broker.store.write(write)
    late = await hospital.move(at, "reinstate")
    assert "same London day" in problem(late, 409, "conflict")["detail"]


async def test_a_reinstated_referrals_clock_runs_again(
    optometrist: Caller, hospital: Caller
) -> None:
    message = await received(optometrist, hospital)
    at = message["referral"]

    async def decided() -> bool:
        shown = (await optometrist.tracked(message["id"]))["deadlines"]
        return bool(next(one["met_at"] for one in shown if one["kind"] == "decided"))

    taken(await hospital.move(at, "reject", REJECTION), 200)
    assert await decided()
    assert taken(await hospital.move(at, "reinstate"), 200)["state"] == "received"
    assert not await decided()


async def test_a_cancel_is_told_to_the_receiver_and_the_practice(
    optometrist: Caller, hospital: Caller, practice: Caller
) -> None:
    message = await received(optometrist, hospital, referral("raised-pressure"))
    after = taken(
        await optometrist.move(message["referral"], "cancel", {"reason": "patient-request"}), 200
    )
    assert (after["state"], after["allowed_moves"]) == ("cancelled", [])
    line = (await optometrist.tracked(message["id"]))["line"]
    assert line.startswith("Cancelled, by Clearview Opticians.")
    for listener in (hospital, practice):
        assert "The patient asked for it" in (await listener.heard(message["id"], "cancelled")).text
    problem(await hospital.move(message["referral"], "accept"), 409, "conflict")


async def test_a_cancel_supersedes_what_was_never_sent_and_is_then_sent_itself(
    pharmacy: Caller, place: Place
) -> None:
    # Nothing listens at the webhook of G99002: the first was tried and surely never sent.
    body = reading(196, 124, practice="G99002")
    sent = await pharmacy.submit(body)
    task = first(sent, "referral")

    async def tried() -> bool:
        return any(one["attempts"] for one in (await pharmacy.tracked(task["id"]))["deliveries"])

    await eventually(tried)
    amended = body | {"plan": "Please see before noon."}
    put = await pharmacy.put(
        f"/pharmacy/consultations/{first(sent)['id']}",
        amended,
        if_match=await pharmacy.etag(first(sent)["url"]),
    )
    newer = first(taken(put, 200), "referral")
    await place.settled()
    (one,) = (await pharmacy.tracked(newer["id"]))["deliveries"]
    assert (one["state"], one["held_reason"]) == ("held", "predecessor")
    taken(await pharmacy.move(task["referral"], "cancel", {"reason": "entered-in-error"}), 200)
    await place.settled()
    for message in (task, newer):
        (one,) = (await pharmacy.tracked(message["id"]))["deliveries"]
        assert (one["state"], one["done_reason"]) == ("done", "superseded")
    behind = await place.rows(
        "SELECT state FROM delivery WHERE subject_id = :s AND kind = 'notice' AND ods = 'G99002'",
        s=task["referral"].rpartition("/")[2],
    )
    assert [row.state for row in behind] == ["due"]


async def test_a_move_of_a_pharmacys_task_is_told_to_the_pharmacy_once(
    pharmacy: Caller, practice: Caller
) -> None:
    task = first(await pharmacy.submit(reading(196, 124)), "referral")
    await practice.take(task["id"])
    taken(await practice.move(task["referral"], "accept"), 200)
    told = await pharmacy.heard(task["id"], "accepted")
    assert "Riverside Medical Practice" in told.body.decode()
    assert await pharmacy.notices(task["id"]) == ["accepted"]
    assert await practice.notices(task["id"]) == []  # the decider is not told its own decision


async def test_a_successor_that_files_an_update_is_named_as_who_filed_it(
    place: Place, pharmacy: Caller
) -> None:
    (message,) = (await pharmacy.submit(consultation()))["messages"]
    await place.settled()
    closed = "ods: G99001\n    name: Riverside Medical Practice"
    async with place.directory((closed, f"{closed}\n    status: closed\n    successor: G99002")):
        successor = place.of("G99002")
        row = next(one for one in await successor.inbox() if one["message"] == message["id"])
        taken(await successor.receipt(row), 200)
        taken(await successor.decide(row, outcome="filed"), 200)
        told = await pharmacy.heard(message["id"], "update-filed")
        assert told.text.startswith("Hilltop Surgery filed")
        line = (await pharmacy.tracked(message["id"]))["line"]
        assert line == "Hilltop Surgery filed it in the patient's record."


async def test_a_successor_collects_and_confirms_what_its_predecessor_never_took(
    place: Place, optometrist: Caller
) -> None:
    (message,) = (await optometrist.submit(referral()))["messages"]
    await place.settled()
    successor = place.of("RYY01")
    assert await successor.inbox() == []
    closed = "ods: RXX01\n    name: Northfield Hospital"
    async with place.directory((closed, f"{closed}\n    status: closed\n    successor: RYY01")):
        row = next(one for one in await successor.inbox() if one["message"] == message["id"])
        assert row["organisation"] == "RXX01"
        assert (await successor.get(row["url"])).status_code == 200
        said = problem(await successor.receipt(row, digest="0" * 64, ods="TPX01"), 409, "conflict")
        assert {one["field"] for one in said["problems"]} == {"digest", "ods"}
        said = problem(await successor.receipt(row, digest="0" * 64), 409, "conflict")
        assert {one["field"] for one in said["problems"]} == {"digest"}
        taken(await successor.receipt(row), 200)  # under its own code
        taken(await successor.receipt(row, ods="RXX01"), 200)  # or under the code it was sent to
        taken(await successor.move(message["referral"], "accept"), 200)
        assert taken(await successor.get(f"/messages/{message['id']}"), 200)["state"] == "accepted"


async def test_a_place_that_is_no_practice_hears_nothing_however_its_code_was_given(
    optometrist: Caller, hospital: Caller, pharmacy: Caller
) -> None:
    # FPH01 is a pharmacy: a code that was mistyped, and is somebody's all the same.
    message = await received(optometrist, hospital, referral(practice="FPH01"))
    taken(await hospital.move(message["referral"], "accept"), 200)
    assert await optometrist.heard(message["id"], "accepted")
    assert await pharmacy.notices(message["id"]) == []
    problem(await pharmacy.get(message["referral"]), 404, "not-found")


async def test_the_successor_of_a_closed_practice_hears_what_became_of_its_patient(
    optometrist: Caller, hospital: Caller, practice: Caller, place: Place
) -> None:
    message = await received(optometrist, hospital, referral(practice="G99002"))
    closed = "ods: G99002\n    name: Hilltop Surgery"
    async with place.directory((closed, f"{closed}\n    status: closed\n    successor: G99001")):
        taken(await hospital.move(message["referral"], "accept"), 200)
        done = taken(await hospital.move(message["referral"], "complete", OUTCOME), 200)
        told = await practice.heard(message["id"], "completed")
        assert OUTCOME["practice_actions"] in (told.advice or "")
        assert done["read_first"] == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"practice": "G99003"}, "Lakeside Practice hears nothing of this"),
        ({"practice": "G99005"}, "Orchard Practice hears nothing of this"),
        ({"practice": None}, "The patient's practice hears nothing of this"),
    ],
)
async def test_who_moves_is_told_when_the_practice_cannot_hear_of_it(
    optometrist: Caller, hospital: Caller, changes: Body, said: str
) -> None:
    message = await received(optometrist, hospital, referral(**changes))
    at = message["referral"]
    accepted = taken(await hospital.move(at, "accept"), 200)
    assert [one[: len(said)] for one in accepted["read_first"]] == [said]
    done = await hospital.move(at, "complete", OUTCOME)
    assert taken(done, 200)["read_first"][0].startswith(said)
    repeat = await hospital.move(at, "complete", OUTCOME, if_match='W/"1"')
    assert repeat.content == done.content
