"""What was sent wrongly: replaced, withdrawn or closed, and everybody who got it hears of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from broker import operating
from tests.acceptance.place import (
    Body,
    Caller,
    Place,
    consultation,
    eventually,
    first,
    kinds,
    problem,
    reading,
    referral,
    taken,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

WITHDRAWN = "record-update-withdrawn"


async def correct(
    sender: Caller, message: str, body: Body, if_match: str | None = None
) -> httpx2.Response:
    """Put a whole new body in the place of a message, on the version that stands now."""
    door = "/pharmacy/consultations" if "service" in body else "/optometry/referrals"
    tag = if_match or await sender.etag(f"/messages/{message}")
    return await sender.put(f"{door}/{message}", body, if_match=tag)


async def filed(pharmacy: Caller, practice: Caller, body: Body) -> Body:
    """Return an update that was sent and filed."""
    update = first(await pharmacy.submit(body))
    row = await practice.take(update["id"])
    taken(await practice.decide(row, outcome="filed"), 200)
    return update


async def withdrawals(receiver: Caller, about: str) -> list[Body]:
    """Return the withdrawals of a message in an inbox."""
    await receiver.place.settled()
    found = []
    for row in await receiver.inbox():
        if row["kind"] == "update":
            read = await receiver.collect(row)
            if (read.event, read.about) == (WITHDRAWN, about):
                found.append(row)
    return found


# -- replacing -----------------------------------------------------------------------------------


async def test_a_correction_reaches_the_practice_as_a_linked_new_version_also_after_filing(
    pharmacy: Caller, practice: Caller
) -> None:
    body = consultation(practice="G99001")
    old = await filed(pharmacy, practice, body)
    answer = await correct(pharmacy, old["id"], body | {"plan": "None after all."})
    said = taken(answer, 200)
    new = first(said)
    assert said["replaces"] == old["id"] and new["id"] != old["id"]
    row = await practice.take(new["id"])
    bundle = (await practice.get(row["url"])).json()
    header = bundle["entry"][0]["resource"]
    assert header["reason"]["coding"][0]["code"] == "update"
    assert [one["valueIdentifier"]["value"] for one in header["extension"]] == [old["id"]]
    # A practice links the versions by the sender's own reference, which stays the same.
    before, after = [
        await practice.collect(await practice.arrived(one["id"])) for one in (old, new)
    ]
    assert before.reference == after.reference == body["reference"]
    assert "None after all." in after.body.decode()
    taken(await practice.decide(row, outcome="filed"), 200)
    shown = await pharmacy.tracked(new["id"])
    assert shown["replaces"] == old["id"] and shown["status"] == "sent"
    before = await pharmacy.tracked(old["id"])
    assert before["status"] == "replaced" and "was replaced" in before["line"]
    # The reference goes over: it still finds the version that stands.
    listed = taken(await pharmacy.get("/messages", reference=body["reference"]), 200)["messages"]
    assert [one["id"] for one in listed] == [new["id"]]


async def test_a_repeat_of_the_same_correction_gets_the_same_answer(
    pharmacy: Caller, practice: Caller
) -> None:
    body = consultation(practice="G99001")
    old = await filed(pharmacy, practice, body)
    tag = await pharmacy.etag(old["url"])
    changed = body | {"plan": "Changed."}
    answers = [await correct(pharmacy, old["id"], changed, tag) for _ in range(3)]
    assert {one.status_code for one in answers} == {200}
    assert len({(one.content, one.headers["etag"]) for one in answers}) == 1


async def test_the_answer_to_a_correction_carries_the_etag_that_the_next_one_names(
    pharmacy: Caller, optometrist: Caller
) -> None:
    for sender, body in ((pharmacy, reading(196, 124)), (optometrist, referral())):
        message = (await sender.submit(body))["messages"][0]
        tag = await sender.etag(message["url"])
        field = "plan" if sender is pharmacy else "symptoms"
        for words in ("One.", "Two."):
            answer = await correct(sender, message["id"], body | {field: words}, tag)
            message = taken(answer, 200)["messages"][0]
            tag = answer.headers["etag"]
            assert tag == await sender.etag(message["url"])


async def test_a_correction_without_if_match_is_428_and_a_stale_one_412(
    pharmacy: Caller, practice: Caller
) -> None:
    body = consultation(practice="G99001")
    old = first(await pharmacy.submit(body))
    stale = await pharmacy.etag(old["url"])
    row = await practice.take(old["id"])
    taken(await practice.decide(row, outcome="filed"), 200)
    path = f"/pharmacy/consultations/{old['id']}"
    problem(await pharmacy.put(path, body | {"plan": "X"}), 428, "precondition-required")
    problem(await pharmacy.put(path, body | {"plan": "X"}, if_match=stale), 412, "stale")


async def test_the_version_that_was_replaced_cannot_be_changed_again(
    pharmacy: Caller, practice: Caller
) -> None:
    body = consultation(practice="G99001")
    old = await filed(pharmacy, practice, body)
    taken(await correct(pharmacy, old["id"], body | {"plan": "One."}), 200)
    problem(await correct(pharmacy, old["id"], body | {"plan": "Two."}), 409, "conflict")
    problem(await pharmacy.post(f"{old['url']}/withdrawal", {}), 409, "conflict")


async def test_a_correction_of_a_correction_goes_on_from_the_newest(
    pharmacy: Caller, practice: Caller
) -> None:
    body = consultation(practice="G99001")
    at = await filed(pharmacy, practice, body)
    for plan in ("One.", "Two.", "Three."):
        at = first(taken(await correct(pharmacy, at["id"], body | {"plan": plan}), 200))
    row = await practice.arrived(at["id"])
    assert "Three." in (await practice.get(row["url"])).text
    assert (await pharmacy.tracked(at["id"]))["deliveries"][0]["role"] == "acting"


async def test_a_correction_carries_the_reference_and_is_judged_like_a_post(
    pharmacy: Caller, practice: Caller
) -> None:
    body = consultation(practice="G99001")
    old = await filed(pharmacy, practice, body)
    other = await correct(pharmacy, old["id"], body | {"reference": "another"})
    assert problem(other, 422, "invalid")["problems"][0]["field"] == "reference"
    wrong = body | {"outcome": "cured", "colour": "red", "practice": {"ods": "Z99"}}
    said = problem(await correct(pharmacy, old["id"], wrong), 422, "invalid")
    assert {one["field"] for one in said["problems"]} == {"outcome", "colour", "practice.ods"}
    withheld = body | {"consent_to_inform_gp": False}
    said = problem(await correct(pharmacy, old["id"], withheld), 409, "conflict")
    assert f"POST /messages/{old['id']}/withdrawal" in said["detail"]
    assert (await pharmacy.tracked(old["id"]))["status"] == "sent"


# -- what could not be delivered -----------------------------------------------------------------


@asynccontextmanager
async def refusing(port: int) -> AsyncIterator[None]:
    """Have a webhook there that refuses whatever is sent to it."""

    async def refuse(read: asyncio.StreamReader, write: asyncio.StreamWriter) -> None:
        await read.readuntil(b"\r\n\r\n")
        write.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await write.drain()
        write.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", port):
        yield


@pytest.mark.parametrize("door", ["correction", "withdrawal", "closure"])
async def test_what_is_done_about_a_dead_message_leaves_it_before_the_operator_whose_lane_it_blocks(
    pharmacy: Caller, place: Place, door: str
) -> None:
    body = consultation(practice="G99002")

    async def items(message: str) -> set[str]:
        shown = await pharmacy.tracked(message)
        return {one["code"] for one in shown["open_items"]}

    async with refusing(place.webhook_port):
        old = first(await pharmacy.submit(body))

        async def is_dead() -> bool:
            return "delivery-dead" in await items(old["id"])

        await eventually(is_dead)
    if door == "correction":
        said = taken(await correct(pharmacy, old["id"], body | {"plan": "Another."}), 200)
        behind = first(said)["id"]
    elif door == "withdrawal":
        behind = taken(await pharmacy.post(f"{old['url']}/withdrawal", {}))["message"]
    else:
        taken(await pharmacy.post(f"{old['url']}/closure", {"reason": "patient-told"}), 200)
    assert await items(old["id"]) == {"delivery-dead"}
    (dead,) = (await pharmacy.tracked(old["id"]))["deliveries"]
    if door != "closure":
        await place.settled()
        (one,) = (await pharmacy.tracked(behind))["deliveries"]
        assert (one["state"], one["held_reason"]) == ("held", "predecessor")
    # Seen to by the operator, it is off the list, and what waited behind it goes on.
    await place.broker.store.write(lambda tx: operating.retry(tx, dead["id"], "test"))
    assert await items(old["id"]) == set()


# -- another practice ----------------------------------------------------------------------------


async def test_a_change_of_practice_withdraws_from_the_old_and_updates_the_new(
    pharmacy: Caller, practice: Caller, place: Place
) -> None:
    body = consultation(practice="G99001")
    old = await filed(pharmacy, practice, body)
    moved = body | {"practice": {"ods": "G99003", "name": "Lakeside Practice"}}
    tag = await pharmacy.etag(old["url"])
    answer = await correct(pharmacy, old["id"], moved, tag)
    new = first(taken(answer, 200))
    row = await place.of("G99003").take(new["id"])
    assert row["kind"] == "update"
    (gone,) = await withdrawals(practice, old["id"])
    taken(await practice.receipt(gone), 200)
    assert await withdrawals(place.of("G99003"), old["id"]) == []
    assert new["id"] not in {one["message"] for one in await practice.inbox()}
    # Whatever the id of the withdrawal, which names the old version too.
    set_id = "UPDATE message SET id = :low WHERE id = :id AND replaces = :old"
    low = {"low": "00000000-0000-8000-8000-000000000001", "id": gone["message"], "old": old["id"]}
    await place.broker.store.write(lambda tx: tx.execute(text(set_id), low))
    again = await correct(pharmacy, old["id"], moved, tag)
    assert (again.status_code, again.content) == (200, answer.content)


async def test_a_change_to_a_closed_practice_is_refused_and_nothing_changes(
    pharmacy: Caller, practice: Caller
) -> None:
    body = consultation(practice="G99001")
    old = await filed(pharmacy, practice, body)
    answer = await correct(pharmacy, old["id"], body | {"practice": {"ods": "G99004"}})
    assert problem(answer, 422, "invalid")["problems"][0]["code"] == "closed"
    assert (await pharmacy.tracked(old["id"]))["status"] == "sent"
    assert await withdrawals(practice, old["id"]) == []


async def test_the_same_correction_sent_again_too_soon_gets_the_same_answer(
    pharmacy: Caller,
) -> None:
    body = reading(120, 80)
    update = first(await pharmacy.submit(body))
    body["clinical_summary"] = "It was 122/80."
    tag = await pharmacy.etag(update["url"])
    answers = await asyncio.gather(
        *(correct(pharmacy, update["id"], body, if_match=tag) for _ in range(4))
    )
    assert [one.status_code for one in answers] == [200] * 4
    assert len({one.content for one in answers}) == 1


async def test_a_clock_that_stops_because_a_version_stands_no_longer_was_not_met(
    pharmacy: Caller, practice: Caller
) -> None:
    async def clocks(message: Body) -> dict[str, tuple[bool, str | None]]:
        shown = (await pharmacy.tracked(message["id"]))["deadlines"]
        return {one["kind"]: (one["met_at"] is not None, one["lapsed"]) for one in shown}

    body = reading(196, 124)
    sent = await pharmacy.submit(body)
    update, task = first(sent), first(sent, "referral")
    await practice.take(update["id"])
    assert await clocks(update) == {"received": (True, None), "filed": (False, None)}
    changed = taken(
        await correct(
            pharmacy, update["id"], body | reading(120, 80) | {"reference": body["reference"]}
        ),
        200,
    )
    assert await clocks(update) == {"received": (True, None), "filed": (False, "replaced")}
    assert set((await clocks(task)).values()) == {(False, "cancelled")}
    standing = first(changed)
    taken(await pharmacy.post(f"{standing['url']}/withdrawal"), 202)
    assert set((await clocks(standing)).values()) == {(False, "withdrawn")}
    other = first(await pharmacy.submit(reading(120, 80)))
    taken(await pharmacy.post(f"{other['url']}/closure", {"reason": "patient-told"}), 200)
    assert set((await clocks(other)).values()) == {(False, "closed")}


async def test_a_call_recorded_for_a_version_that_was_replaced_says_whose_the_duty_is_now(
    pharmacy: Caller,
) -> None:
    body = reading(196, 124)
    sent = await pharmacy.submit(body)
    old, spoke = first(sent, "referral"), {"outcome": "spoke-to-clinician"}
    changed = taken(await correct(pharmacy, first(sent)["id"], body | {"advice": "Rest."}), 200)
    new = first(changed, "referral")
    said = taken(await pharmacy.post(f"{old['url']}/telephone-calls", spoke), 201)
    assert said["meets_the_duty"] is False
    assert said["read_first"] == [
        f"The duty to telephone is /messages/{new['id']}'s: record the call there."
    ]
    said = taken(await pharmacy.post(f"{new['url']}/telephone-calls", spoke), 201)
    assert said["meets_the_duty"] is True


def asks_for_a_call(said: Body) -> bool:
    """Whether an answer to a correction lays the duty to telephone on its sender."""
    has_clock = any(one["kind"] == "telephone" for m in said["messages"] for one in m["deadlines"])
    assert has_clock is any("Then record the call" in line for line in said["read_first"])
    return has_clock


@pytest.mark.parametrize(
    ("kind", "practice"), [("referral", "G99001"), ("update", "G99003")], ids=lambda one: str(one)
)
async def test_a_call_that_was_made_is_not_asked_for_again_by_an_amendment(
    pharmacy: Caller, kind: str, practice: str
) -> None:
    body = reading(196, 124, practice=practice)
    sent = await pharmacy.submit(body)
    amended = taken(await correct(pharmacy, first(sent)["id"], body | {"advice": "Rest."}), 200)
    assert asks_for_a_call(amended), "nobody has telephoned yet"
    spoke = {"outcome": "spoke-to-clinician"}
    calls = f"{first(amended, kind)['url']}/telephone-calls"
    assert taken(await pharmacy.post(calls, spoke), 201)["meets_the_duty"]
    for advice in ("Rest, and no salt.", "Rest, no salt, no coffee."):
        amended = taken(
            await correct(pharmacy, first(amended)["id"], body | {"advice": advice}), 200
        )
        assert not asks_for_a_call(amended)
        assert any("telephone again" in line for line in amended["read_first"])


async def test_a_call_is_asked_for_where_what_was_said_in_the_last_one_is_not_enough(
    pharmacy: Caller,
) -> None:
    spoke = {"outcome": "spoke-to-clinician"}
    body = reading(185, 80, acute_symptoms=True, urgency="same-day")
    sent = first(await pharmacy.submit(body))
    assert taken(await pharmacy.post(f"{sent['url']}/telephone-calls", spoke), 201)
    elsewhere = body | {"practice": {"ods": "G99002"}}
    assert asks_for_a_call(taken(await correct(pharmacy, sent["id"], elsewhere), 200))
    milder = reading(120, 80, urgency="urgent")
    sent = first(await pharmacy.submit(milder))
    worse = milder | {"urgency": "same-day"}
    assert asks_for_a_call(taken(await correct(pharmacy, sent["id"], worse), 200))


async def test_not_registered_here_stays_on_the_list_until_it_is_sent_again(
    pharmacy: Caller, practice: Caller, place: Place
) -> None:
    body = consultation(practice="G99001")
    update = first(await pharmacy.submit(body))
    row = await practice.take(update["id"])
    taken(await practice.decide(row, outcome="rejected", reason="not-registered-here"), 200)
    assert await pharmacy.heard(update["id"], "update-rejected")
    assert await pharmacy.overdue(update["id"]) == {"not-registered-here"}
    again = body | {"practice": {"ods": "G99003"}}
    new = first(taken(await correct(pharmacy, update["id"], again), 200))
    assert await pharmacy.overdue(update["id"]) == set()
    assert await place.of("G99003").arrived(new["id"])


async def test_not_registered_here_stays_on_the_list_until_it_is_closed_with_a_reason(
    pharmacy: Caller, practice: Caller
) -> None:
    update = first(await pharmacy.submit(consultation(practice="G99001")))
    row = await practice.take(update["id"])
    taken(await practice.decide(row, outcome="rejected", reason="not-registered-here"), 200)
    closure = f"{update['url']}/closure"
    for given, said in (
        ({}, "given"),
        ({"reason": "bored"}, "one of those known here"),
        ({"reason": ["duplicate"]}, "one of those known here"),
    ):
        (wrong,) = problem(await pharmacy.post(closure, given), 422, "invalid")["problems"]
        assert wrong["detail"] == f"reason is not {said}."
    assert await pharmacy.overdue(update["id"]) == {"not-registered-here"}
    closed = taken(await pharmacy.post(closure, {"reason": "told-by-telephone"}), 200)
    assert closed == {"message": update["id"], "closed": "told-by-telephone"}
    assert await pharmacy.overdue(update["id"]) == set()
    shown = await pharmacy.tracked(update["id"])
    assert (shown["status"], shown["closed_reason"]) == ("closed", "told-by-telephone")
    assert shown["line"].startswith("You closed it: told by telephone. ")


async def test_a_copy_that_belongs_elsewhere_is_closed_with_a_reason_and_its_referral_goes_on(
    optometrist: Caller, hospital: Caller, practice: Caller
) -> None:
    (message,) = (await optometrist.submit(referral("raised-pressure")))["messages"]
    await hospital.take(message["id"])
    row = await practice.take(message["id"])
    taken(await practice.decide(row, outcome="rejected", reason="not-registered-here"), 200)
    assert await optometrist.overdue(message["id"]) == {"not-registered-here"}
    taken(await hospital.move(message["referral"], "accept"), 200)
    closure, said = f"{message['url']}/closure", {"reason": "sent-another-way"}
    taken(await optometrist.post(closure, said), 200)
    assert await optometrist.overdue(message["id"]) == set()
    assert (await optometrist.tracked(message["id"]))["status"] == "sent"
    taken(await hospital.move(message["referral"], "complete", {"outcome": "Treated."}), 200)
    # That was all there was to close: what remains of a referral closes by its moves.
    problem(await optometrist.post(closure, said), 409, "conflict")


@pytest.mark.parametrize("ended", ["closed", "replaced", "withdrawn"])
async def test_not_registered_here_opens_nothing_once_the_version_stands_no_longer(
    pharmacy: Caller, practice: Caller, ended: str
) -> None:
    body = consultation(practice="G99001")
    update = first(await pharmacy.submit(body))
    row = await practice.take(update["id"])
    if ended == "replaced":
        taken(await correct(pharmacy, update["id"], body | {"plan": "Another."}), 200)
    elif ended == "closed":
        taken(await pharmacy.post(f"{update['url']}/closure", {"reason": "patient-told"}), 200)
    else:
        taken(await pharmacy.post(f"{update['url']}/withdrawal", {}))
        (gone,) = await withdrawals(practice, update["id"])
        taken(await practice.receipt(gone), 200)
        answer = await practice.decide(gone, outcome="rejected", reason="not-registered-here")
        taken(answer, 200)
        assert await pharmacy.overdue(gone["message"]) == set()
    taken(await practice.decide(row, outcome="rejected", reason="not-registered-here"), 200)
    # It is told all the same; nothing stands on a list that nobody could take off it.
    assert await pharmacy.heard(update["id"], "update-rejected")
    assert await pharmacy.overdue(update["id"]) == set()


@pytest.mark.parametrize(
    "reason",
    [
        "moved-away",
        "deceased",
        "demographics-do-not-match",
        "duplicate",
        "content-query",
        "kind-not-taken",
    ],
)
async def test_every_other_rejection_is_told_and_leaves_nothing_open(
    pharmacy: Caller, practice: Caller, reason: str
) -> None:
    update = first(await pharmacy.submit(consultation(practice="G99001")))
    row = await practice.take(update["id"])
    answer = await practice.decide(row, outcome="rejected", reason=reason, note="See our letter.")
    taken(answer, 200)
    told = await pharmacy.heard(update["id"], "update-rejected")
    assert told.advice == "See our letter."
    assert await pharmacy.overdue(update["id"]) == set()


async def test_a_loop_is_closed_once_and_again_with_the_same_answer(
    pharmacy: Caller, practice: Caller
) -> None:
    update = first(await pharmacy.submit(consultation(practice="G99001")))
    closure = f"{update['url']}/closure"
    said = {"reason": "patient-told"}
    answers = [await pharmacy.post(closure, said, key=f"close-{update['id']}") for _ in range(2)]
    assert answers[0].content == answers[1].content
    taken(answers[0], 200)
    # Under another key too; but a reason stands once it is given.
    assert (await pharmacy.post(closure, said)).content == answers[0].content
    problem(await pharmacy.post(closure, {"reason": "duplicate"}), 409, "conflict")


# -- escalations ---------------------------------------------------------------------------------


async def test_a_new_escalation_makes_a_new_referral(pharmacy: Caller, practice: Caller) -> None:
    body = reading(120, 80)
    old = await filed(pharmacy, practice, body)
    worse = body | {"blood_pressures": reading(196, 124)["blood_pressures"]}
    said = taken(await correct(pharmacy, old["id"], worse), 200)
    assert kinds(said) == ["update", "referral"]
    task = first(said, "referral")
    assert task["priority"] == "stat"
    assert any(line.startswith("A message alone is not enough") for line in said["read_first"])
    row = await practice.take(task["id"])
    assert row["kind"] == "referral"
    taken(await practice.move(task["referral"], "accept"), 200)


async def test_an_escalation_that_stands_is_amended_not_made_again(
    pharmacy: Caller, practice: Caller
) -> None:
    body = reading(196, 124)
    sent = await pharmacy.submit(body)
    task = first(sent, "referral")
    await practice.take(task["id"])
    said = taken(await correct(pharmacy, first(sent)["id"], body | {"plan": "By noon."}), 200)
    newer = first(said, "referral")
    assert newer["referral"] == task["referral"] and newer["id"] != task["id"]
    assert (await practice.arrived(newer["id"]))["kind"] == "referral"
    assert (await pharmacy.tracked(task["id"]))["status"] == "replaced"


async def test_an_escalation_that_vanished_cancels_what_nobody_has_accepted(
    pharmacy: Caller, practice: Caller
) -> None:
    body = reading(196, 124)
    sent = await pharmacy.submit(body)
    task = first(sent, "referral")
    await practice.take(task["id"])
    better = body | {"blood_pressures": reading(126, 74)["blood_pressures"]}
    said = taken(await correct(pharmacy, first(sent)["id"], better), 200)
    assert kinds(said) == ["update"] and said["cancelled"] == [task["referral"]]
    (line,) = [line for line in said["read_first"] if task["referral"] in line]
    assert "is cancelled, and Riverside Medical Practice is told" in line
    assert taken(await pharmacy.get(task["referral"]), 200)["state"] == "cancelled"
    assert await practice.heard(task["id"], "cancelled")
    problem(await practice.move(task["referral"], "accept"), 409, "conflict")
    await pharmacy.place.settled()
    assert await pharmacy.overdue(task["id"]) == set()


async def test_an_escalation_that_vanished_after_acceptance_stays_open_and_the_answer_says_so(
    pharmacy: Caller, practice: Caller
) -> None:
    body = reading(196, 124)
    sent = await pharmacy.submit(body)
    task = first(sent, "referral")
    await practice.take(task["id"])
    taken(await practice.move(task["referral"], "accept"), 200)
    better = body | {"blood_pressures": reading(126, 74)["blood_pressures"]}
    said = taken(await correct(pharmacy, first(sent)["id"], better), 200)
    assert any(f"{task['referral']} stays open" in line for line in said["read_first"])
    assert taken(await pharmacy.get(task["referral"]), 200)["state"] == "accepted"


async def ended(
    pharmacy: Caller, practice: Caller, body: Body, move: str, said: Body
) -> tuple[str, str]:
    """Return an update and its joined referral, which this move has ended."""
    sent = await pharmacy.submit(body)
    task = first(sent, "referral")
    await practice.take(task["id"])
    if move == "cancel":
        taken(await pharmacy.move(task["referral"], "cancel", said), 200)
    else:
        taken(await practice.move(task["referral"], "accept"), 200)
        taken(await practice.move(task["referral"], move, said), 200)
    return first(sent)["id"], task["referral"]


@pytest.mark.parametrize(
    ("move", "content", "state"),
    [
        ("complete", {"outcome": "Treated at once."}, "completed"),
        ("cancel", {"reason": "patient-request"}, "cancelled"),
    ],
)
async def test_an_escalation_that_has_had_its_course_is_left_and_the_answer_says_so(
    pharmacy: Caller, practice: Caller, move: str, content: Body, state: str
) -> None:
    body = reading(196, 124)
    at, task = await ended(pharmacy, practice, body, move, content)
    for plan in ("A typo.", "Another."):
        said = taken(await correct(pharmacy, at, body | {"plan": plan}), 200)
        assert kinds(said) == ["update"]
        line = next(line for line in said["read_first"] if task in line)
        assert f"as {state}" in line and "Riverside Medical Practice" in line
        assert not [one for one in first(said)["deadlines"] if one["kind"] == "telephone"]
        at = first(said)["id"]


async def test_an_escalation_that_rose_or_is_another_one_makes_a_new_referral(
    pharmacy: Caller, practice: Caller
) -> None:
    body = reading(152, 88, "abpm-average")
    outcome = {"outcome": "Treatment begun."}
    at, _ = await ended(pharmacy, practice, body, "complete", outcome)
    worse = body | {"blood_pressures": reading(172, 88, "abpm-average")["blood_pressures"]}
    said = taken(await correct(pharmacy, at, worse), 200)
    assert first(said, "referral")["priority"] == "stat"
    body = reading(196, 124)
    at, _ = await ended(pharmacy, practice, body, "complete", outcome)
    other = reading(88, 58, fainting_or_falls=True, reference=body["reference"])
    said = taken(await correct(pharmacy, at, other), 200)
    assert first(said, "referral")["priority"] == "urgent"


async def test_an_escalation_that_vanished_and_is_back_makes_a_new_referral(
    pharmacy: Caller, practice: Caller
) -> None:
    body = reading(196, 124)
    sent = await pharmacy.submit(body)
    better = body | {"blood_pressures": reading(126, 74)["blood_pressures"]}
    at = first(taken(await correct(pharmacy, first(sent)["id"], better), 200))["id"]
    said = taken(await correct(pharmacy, at, body), 200)
    assert kinds(said) == ["update", "referral"]
    assert first(said, "referral")["referral"] != first(sent, "referral")["referral"]


async def test_an_escalation_that_was_rejected_is_referred_again(
    pharmacy: Caller, practice: Caller
) -> None:
    body = reading(196, 124)
    no = {"reason": "insufficient-information", "advice": "Which arm?"}
    at, task = await ended(pharmacy, practice, body, "reject", no)
    said = taken(await correct(pharmacy, at, body | {"plan": "The left arm."}), 200)
    assert first(said, "referral")["referral"] != task


async def test_a_correction_is_of_the_update_and_never_of_the_task_that_came_with_it(
    pharmacy: Caller, practice: Caller
) -> None:
    body = reading(196, 124)
    sent = await pharmacy.submit(body)
    task = first(sent, "referral")
    answer = await correct(pharmacy, task["id"], body | {"plan": "By noon."})
    said = problem(answer, 409, "conflict")
    assert first(sent)["id"] in said["detail"]
    # The same by the referral's own id.
    tag = await pharmacy.etag(task["url"])
    path = f"/pharmacy/consultations/{task['referral'].rpartition('/')[2]}"
    problem(await pharmacy.put(path, body | {"plan": "Now."}, if_match=tag), 409, "conflict")
    row = await practice.arrived(task["id"])
    assert row["kind"] == "referral"


# -- withdrawing ---------------------------------------------------------------------------------


async def test_a_task_left_open_names_the_update_to_correct_also_when_a_successor_sent_it(
    pharmacy: Caller, practice: Caller, place: Place
) -> None:
    body = reading(196, 124)
    sent = await pharmacy.submit(body)
    task = first(sent, "referral")
    await practice.take(task["id"])
    taken(await practice.move(task["referral"], "accept"), 200)
    closed = "ods: FPH01\n    name: Riverside Pharmacy"
    opened = (
        "  - ods: FPH02\n    name: Weir Pharmacy\n    pillar: pharmacy\n    icb: QXX\n"
        "    telephone: 0113 496 0102\n\n"
    )
    async with place.directory(
        (f"  - {closed}", f"{opened}  - {closed}\n    status: closed\n    successor: FPH02")
    ):
        successor = place.of("FPH02")
        calm = reading(128, 82) | {"reference": body["reference"], "pharmacy": {"ods": "FPH02"}}
        put = await correct(successor, first(sent)["id"], calm)
        newer = first(taken(put, 200))
        (amend,) = (
            one
            for one in taken(await successor.get(task["referral"]), 200)["allowed_moves"]
            if one["move"] == "amend"
        )
        assert amend["url"] == f"/pharmacy/consultations/{newer['id']}"


@pytest.mark.parametrize("is_filed", [False, True], ids=["before filing", "after filing"])
async def test_a_withdrawal_reaches_whoever_got_the_message(
    pharmacy: Caller, practice: Caller, is_filed: bool
) -> None:
    body = consultation(practice="G99001")
    update = first(await pharmacy.submit(body))
    row = await practice.take(update["id"])
    if is_filed:
        taken(await practice.decide(row, outcome="filed"), 200)
    path = f"{update['url']}/withdrawal"
    answers = [await pharmacy.post(path, {}, key=f"w-{update['id']}") for _ in range(2)]
    assert answers[0].content == answers[1].content
    said = taken(answers[0])
    assert said["withdraws"] == update["id"] and said["told"] == ["G99001"]
    (gone,) = await withdrawals(practice, update["id"])
    assert "entered in error" in (await practice.collect(gone)).text
    taken(await practice.receipt(gone), 200)
    taken(await practice.decide(gone, outcome="filed"), 200)
    shown = await pharmacy.tracked(update["id"])
    assert shown["status"] == "withdrawn" and "was withdrawn" in shown["line"]
    problem(await pharmacy.post(path, {}), 409, "conflict")


async def test_a_withdrawal_names_no_version_so_what_the_practice_does_meanwhile_never_stops_it(
    pharmacy: Caller, practice: Caller
) -> None:
    for _ in range(10):
        sent = await pharmacy.submit(reading(196, 124))
        update, task = sent["messages"]
        rows = [await practice.arrived(one["id"]) for one in (update, task)]
        withdrawn, *receipts = await asyncio.gather(
            pharmacy.post(f"{update['url']}/withdrawal", {}),
            *(practice.receipt(row) for row in rows),
        )
        taken(withdrawn)
        assert [one.status_code for one in receipts] == [200, 200]
        assert taken(await pharmacy.get(task["referral"]), 200)["state"] == "cancelled"


async def test_a_withdrawal_is_not_itself_withdrawn_or_corrected(
    pharmacy: Caller, practice: Caller
) -> None:
    body = consultation(practice="G99001")
    update = first(await pharmacy.submit(body))
    said = taken(await pharmacy.post(f"{update['url']}/withdrawal", {}))
    problem(await pharmacy.post(f"/messages/{said['message']}/withdrawal", {}), 409, "conflict")
    problem(await correct(pharmacy, said["message"], body), 409, "conflict")


async def test_a_notice_is_not_withdrawn_or_closed_by_whoever_caused_it(
    pharmacy: Caller, practice: Caller
) -> None:
    update = await filed(pharmacy, practice, consultation(practice="G99001"))
    notice = (await pharmacy.heard(update["id"], "update-filed")).message
    problem(await practice.post(f"/messages/{notice}/withdrawal", {}), 409, "conflict")
    said = {"reason": "no-longer-needed"}
    problem(await practice.post(f"/messages/{notice}/closure", said), 409, "conflict")


async def test_a_withdrawal_of_something_same_day_asks_nobody_to_telephone(
    pharmacy: Caller, practice: Caller
) -> None:
    # No task can go to this practice, so the update itself is same-day and the call a duty.
    sent = await pharmacy.submit(reading(196, 124, practice="G99003"))
    update = first(sent)
    assert "telephone" in {one["kind"] for one in update["deadlines"]}
    said = taken(await pharmacy.post(f"{update['url']}/withdrawal", {}))
    shown = await pharmacy.tracked(said["message"])
    assert shown["priority"] == "stat"
    assert {one["kind"] for one in shown["deadlines"]} == {"received", "filed"}


async def test_a_withdrawal_cancels_a_joined_referral_that_nobody_has_accepted(
    pharmacy: Caller, practice: Caller
) -> None:
    sent = await pharmacy.submit(reading(196, 124))
    task = first(sent, "referral")
    await practice.take(task["id"])
    said = taken(await pharmacy.post(f"{first(sent)['url']}/withdrawal", {}))
    assert said["cancelled"] == [task["referral"]]
    assert taken(await practice.get(task["referral"]), 200)["state"] == "cancelled"
    assert "Entered in error" in (await practice.heard(task["id"], "cancelled")).text


async def test_a_withdrawal_leaves_an_accepted_referral_open_and_says_whom_to_telephone(
    pharmacy: Caller, practice: Caller
) -> None:
    sent = await pharmacy.submit(reading(196, 124))
    task = first(sent, "referral")
    await practice.take(task["id"])
    taken(await practice.move(task["referral"], "accept"), 200)
    said = taken(await pharmacy.post(f"{first(sent)['url']}/withdrawal", {}))
    assert said["cancelled"] == []
    (line,) = said["read_first"]
    assert "stays open" in line and "elephone" in line
    assert taken(await practice.get(task["referral"]), 200)["state"] == "accepted"


@pytest.mark.parametrize("door", ["withdrawal", "closure"])
async def test_a_referral_is_cancelled_not_withdrawn_or_closed(
    optometrist: Caller, door: str
) -> None:
    (message,) = (await optometrist.submit(referral()))["messages"]
    body: Any = {"reason": "no-longer-needed"} if door == "closure" else {}
    said = problem(await optometrist.post(f"{message['url']}/{door}", body), 409, "conflict")
    assert f"{message['referral']}/cancel" in said["detail"]


async def test_only_the_sender_corrects_withdraws_and_closes(
    pharmacy: Caller, practice: Caller, place: Place
) -> None:
    body = consultation(practice="G99001")
    update = first(await pharmacy.submit(body))
    await practice.take(update["id"])
    tag = await pharmacy.etag(update["url"])
    for other, status, code in (
        (practice, 403, "forbidden"),
        (place.of("FPH02"), 404, "not-found"),
    ):
        problem(await correct(other, update["id"], body, tag), status, code)
        problem(await other.post(f"{update['url']}/withdrawal", {}), status, code)
        closure = {"reason": "patient-told"}
        problem(await other.post(f"{update['url']}/closure", closure), status, code)


# -- referrals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["message", "referral"])
async def test_an_amended_referral_reaches_the_receiver_and_the_gp_copy(
    optometrist: Caller, hospital: Caller, practice: Caller, named: str
) -> None:
    body = referral("raised-pressure")
    (old,) = (await optometrist.submit(body))["messages"]
    await hospital.take(old["id"])
    row = await practice.take(old["id"])
    taken(await practice.decide(row, outcome="filed"), 200)
    identity = old["id"] if named == "message" else old["referral"].rpartition("/")[2]
    tag = await optometrist.etag(old["url"])
    path = f"/optometry/referrals/{identity}"
    amended = body | {"symptoms": "Haloes since Monday."}
    answer = await optometrist.put(path, amended, if_match=tag)
    (new,) = taken(answer, 200)["messages"]
    assert new["referral"] == old["referral"]
    for receiver in (hospital, practice):
        row = await receiver.take(new["id"])
        assert "Haloes since Monday." in (await receiver.get(row["url"])).text
    state = taken(await hospital.get(old["referral"]), 200)
    assert (state["state"], state["message"]) == ("received", new["id"])
    again = await optometrist.put(path, amended, if_match=tag)
    assert (again.status_code, again.content) == (200, answer.content)
    taken(await hospital.move(old["referral"], "accept"), 200)


async def test_an_amendment_of_what_was_sent_in_time_is_not_called_late(
    optometrist: Caller, place: Place
) -> None:
    tested = datetime.now(UTC) - timedelta(days=7)
    body = referral("suspected-wet-amd", date_of_sight_test=tested.isoformat())
    late = await optometrist.submit(body)
    assert "sent-late" in {one["code"] for one in late["warnings"]}
    (message,) = late["messages"]

    async def warned(symptoms: str) -> set[str]:
        standing = taken(await optometrist.get(message["referral"]), 200)["message"]
        put = await correct(optometrist, standing, body | {"symptoms": symptoms})
        return {one["code"] for one in taken(put, 200)["warnings"]}

    assert "sent-late" in await warned("Distortion, worse.")  # it was, and stays so
    await place.accepted_at(message["id"], tested)
    for symptoms in ("Distortion, much worse.", "Distortion, worse by the day."):
        assert "sent-late" not in await warned(symptoms)


async def test_an_amendment_after_acceptance_says_that_somebody_must_see_it(
    optometrist: Caller, hospital: Caller
) -> None:
    body = referral()
    (old,) = (await optometrist.submit(body))["messages"]
    await hospital.take(old["id"])
    taken(await hospital.move(old["referral"], "accept"), 200)
    said = taken(await correct(optometrist, old["id"], body | {"symptoms": "Worse."}), 200)
    assert "has already taken the patient on" in said["read_first"][0]
    assert taken(await hospital.get(old["referral"]), 200)["state"] == "accepted"


async def test_an_amendment_after_acceptance_asks_nobody_to_decide_again(
    optometrist: Caller, hospital: Caller
) -> None:
    long_ago = (datetime.now(UTC) - timedelta(days=30)).date()
    body = referral(date_of_sight_test=long_ago.isoformat())
    (old,) = (await optometrist.submit(body))["messages"]
    await hospital.take(old["id"])
    taken(await hospital.move(old["referral"], "accept"), 200)
    said = taken(await correct(optometrist, old["id"], body | {"symptoms": "Worse."}), 200)
    (new,) = said["messages"]
    assert "decided" not in {one["kind"] for one in new["deadlines"]}
    assert not [line for line in said["read_first"] if "decided" in line]
    shown = await optometrist.tracked(new["id"])
    assert "decided" not in {one["kind"] for one in shown["deadlines"]}


async def test_an_amendment_before_the_decision_still_asks_for_one(
    optometrist: Caller, hospital: Caller
) -> None:
    body = referral()
    (old,) = (await optometrist.submit(body))["messages"]
    await hospital.take(old["id"])
    said = taken(await correct(optometrist, old["id"], body | {"symptoms": "Worse."}), 200)
    assert "decided" in {one["kind"] for one in said["messages"][0]["deadlines"]}


async def test_an_amendment_that_would_go_elsewhere_is_409(
    optometrist: Caller, hospital: Caller
) -> None:
    body = referral("raised-pressure")
    (old,) = (await optometrist.submit(body))["messages"]
    await hospital.take(old["id"])
    elsewhere = body | {"condition": {"code": "suspected-wet-amd"}}
    said = problem(await correct(optometrist, old["id"], elsewhere), 409, "conflict")
    assert "macular" in said["detail"] and f"{old['referral']}/cancel" in said["detail"]


@pytest.mark.parametrize("condition", ["orbital-cellulitis", "retinal-detachment"])
async def test_a_correction_to_an_emergency_that_is_refused_says_what_to_do_now(
    optometrist: Caller, condition: str
) -> None:
    body = referral(provider=None)
    (old,) = (await optometrist.submit(body))["messages"]
    emergency = body | {"condition": {"code": condition}}
    door = f"/optometry/referrals/{old['id']}"
    tag = await optometrist.etag(old["url"])
    for answer, status, code in (
        (await optometrist.put(door, emergency, if_match=tag), 409, "conflict"),
        (await optometrist.put(door, emergency, if_match='W/"999"'), 412, "stale"),
        (await optometrist.put(door, emergency), 428, "precondition-required"),
        (await optometrist.put(door, emergency | {"colour": 1}, if_match=tag), 422, "invalid"),
    ):
        said = problem(answer, status, code)["detail"]
        assert said.startswith("Nothing was sent. Telephone"), said
        assert said.count("Nothing was sent.") == 1
        assert ("A&E" in said) is (condition == "orbital-cellulitis")
        if status == 409:
            assert "under a new reference" in said


async def test_a_referral_whose_patient_no_longer_consents_is_cancelled_by_the_door_that_is_named(
    optometrist: Caller,
) -> None:
    body = referral()
    (old,) = (await optometrist.submit(body))["messages"]
    urgent = {"condition": {"code": "retinal-detachment"}, "consent": False}
    said = problem(await correct(optometrist, old["id"], body | urgent), 409, "conflict")["detail"]
    assert f"POST {old['referral']}/cancel with the reason patient-request" in said
    assert "Telephone" not in said  # nobody is to be told
    cancelled = await optometrist.move(old["referral"], "cancel", {"reason": "patient-request"})
    assert taken(cancelled, 200)["state"] == "cancelled"


async def test_a_referral_that_has_ended_is_not_amended(
    optometrist: Caller, hospital: Caller
) -> None:
    body = referral()
    (old,) = (await optometrist.submit(body))["messages"]
    taken(await optometrist.move(old["referral"], "cancel", {"reason": "patient-request"}), 200)
    said = problem(await correct(optometrist, old["id"], body | {"symptoms": "X"}), 409, "conflict")
    assert "ended" in said["detail"]


async def test_an_amendment_with_another_practice_withdraws_the_copy_from_the_old_one(
    optometrist: Caller, hospital: Caller, practice: Caller, place: Place
) -> None:
    body = referral("raised-pressure")
    (old,) = (await optometrist.submit(body))["messages"]
    await practice.take(old["id"])
    answer = await correct(optometrist, old["id"], body | {"practice": {"ods": "G99003"}})
    (new,) = taken(answer, 200)["messages"]
    assert await place.of("G99003").arrived(new["id"])
    assert await hospital.arrived(new["id"])
    assert len(await withdrawals(practice, old["id"])) == 1
    assert await withdrawals(hospital, old["id"]) == []
    assert new["id"] not in {row["message"] for row in await practice.inbox()}


async def test_a_stale_amendment_is_412(optometrist: Caller, hospital: Caller) -> None:
    body = referral()
    (old,) = (await optometrist.submit(body))["messages"]
    tag = await optometrist.etag(old["url"])
    await hospital.take(old["id"])

    async def moved() -> bool:
        return await optometrist.etag(old["url"]) != tag

    await eventually(moved)
    answer = await correct(optometrist, old["id"], body | {"symptoms": "X"}, tag)
    problem(answer, 412, "stale")
