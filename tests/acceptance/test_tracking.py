"""What became of a message: each sees what is its own to see, and nothing before it was proved."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from broker import operating, receipts
from broker.ports import Receipt
from broker.store import claims, deliveries, trail
from broker.store import tables as t
from broker.store.tx import Tx
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


async def sent_to(pharmacy: Caller, **changes: Any) -> Body:
    return first(await pharmacy.submit(consultation(**{"practice": "G99001", **changes})))


# -- the three levels ----------------------------------------------------------------------------


async def test_the_three_levels_are_shown_as_they_are_proved_and_never_before(
    pharmacy: Caller, practice: Caller
) -> None:
    update = await sent_to(pharmacy)
    row = await practice.arrived(update["id"])

    async def level() -> tuple[Any, ...]:
        shown = await pharmacy.tracked(update["id"])
        (one,) = shown["deliveries"]
        names = ("accepted_at", "collected_at", "received_at", "acknowledged_at")
        return (*(one[name] is not None for name in names), shown["line"])

    *proved, line = await level()
    assert proved == [True, False, False, False]
    assert line.startswith("Accepted; waiting for Riverside Medical Practice")
    await practice.collect(row)
    *proved, line = await level()
    assert proved == [True, True, False, False]
    assert "has collected it but not confirmed" in line
    problem(await practice.decide(row, outcome="filed"), 409, "conflict")
    taken(await practice.receipt(row), 200)
    *proved, line = await level()
    assert proved == [True, True, True, False]
    assert "has stored it; nobody has acted on it yet" in line
    assert "Next: Riverside Medical Practice must file or reject it by 18:30" in line
    taken(await practice.decide(row, outcome="filed"), 200)
    *proved, line = await level()
    assert proved == [True, True, True, True]
    assert line == "Riverside Medical Practice filed it in the patient's record."


@pytest.mark.parametrize(
    "lie", [{"digest": "0" * 64}, {"ods": "G99002"}, {"delivery": "another"}], ids=str
)
async def test_a_receipt_that_does_not_match_proves_nothing_and_is_kept_as_evidence(
    pharmacy: Caller, practice: Caller, place: Place, lie: dict[str, str]
) -> None:
    update = await sent_to(pharmacy)
    row = await practice.arrived(update["id"])
    said = problem(await practice.receipt(row, **lie), 409, "conflict")
    assert {one["field"] for one in said["problems"]} == set(lie)
    (one,) = (await pharmacy.tracked(update["id"]))["deliveries"]
    assert one["received_at"] is None and [r["matches"] for r in one["receipts"]] == [False]
    items = await place.rows("SELECT code FROM work_item WHERE delivery_id = :d", d=row["id"])
    assert [item.code for item in items] == ["receipt-mismatch"]
    taken(await practice.receipt(row), 200)
    (one,) = (await pharmacy.tracked(update["id"]))["deliveries"]
    assert one["received_at"] and sorted(r["matches"] for r in one["receipts"]) == [False, True]


@pytest.mark.parametrize("done", ["withdrawal", "closure"])
async def test_a_false_receipt_stays_on_the_list_though_its_sender_has_done_with_the_message(
    pharmacy: Caller, practice: Caller, place: Place, done: str
) -> None:
    """What the practice holds is not known, nor whether it will know it for withdrawn."""
    update = await sent_to(pharmacy)
    row = await practice.arrived(update["id"])
    problem(await practice.receipt(row, digest="0" * 64), 409, "conflict")
    taken(
        await pharmacy.post(f"{update['url']}/withdrawal", {})
        if done == "withdrawal"
        else await pharmacy.post(f"{update['url']}/closure", {"reason": "patient-told"}),
        200 if done == "closure" else 202,
    )

    async def still_open() -> list[str]:
        items = await place.rows(
            "SELECT code FROM work_item WHERE delivery_id = :d AND closed_at IS NULL", d=row["id"]
        )
        return [item.code for item in items]

    assert await still_open() == ["receipt-mismatch"]
    taken(await practice.receipt(row), 200)
    assert await still_open() == []


async def test_a_false_receipt_after_the_true_one_is_evidence_and_nobodys_work(
    pharmacy: Caller, practice: Caller, place: Place
) -> None:
    update = await sent_to(pharmacy)
    row = await practice.take(update["id"])
    problem(await practice.receipt(row, digest="0" * 64), 409, "conflict")
    (one,) = (await pharmacy.tracked(update["id"]))["deliveries"]
    assert one["received_at"] and sorted(r["matches"] for r in one["receipts"]) == [False, True]
    assert await place.rows("SELECT code FROM work_item WHERE delivery_id = :d", d=row["id"]) == []


async def test_a_receipt_is_read_as_a_webhooks_answer_is(
    pharmacy: Caller, practice: Caller
) -> None:
    update = await sent_to(pharmacy)
    row = await practice.arrived(update["id"])
    for nothing in ("", "0" * 257):
        said = problem(await practice.receipt(row, digest=nothing, ods=nothing), 422, "invalid")
        assert [one["field"] for one in said["problems"]] == ["digest", "ods"]
    taken(await practice.receipt(row, digest=f"SHA-256={row['digest'].upper()}"), 200)
    (one,) = (await pharmacy.tracked(update["id"]))["deliveries"]
    assert one["received_at"] and [r["matches"] for r in one["receipts"]] == [True]


async def test_receipts_and_decisions_may_be_repeated_and_a_decision_stands(
    pharmacy: Caller, practice: Caller
) -> None:
    update = await sent_to(pharmacy)
    row = await practice.take(update["id"])
    taken(await practice.receipt(row), 200)
    one = await practice.decide(row, outcome="filed")
    two = await practice.decide(row, outcome="filed")
    assert one.status_code == 200 and one.content == two.content
    problem(await practice.decide(row, outcome="rejected", reason="duplicate"), 409, "conflict")
    assert await pharmacy.notices(update["id"]) == ["update-filed"]


async def test_a_second_acknowledgement_with_another_note_is_refused_not_dropped(
    pharmacy: Caller, practice: Caller
) -> None:
    row = await practice.take((await sent_to(pharmacy))["id"])
    note = {"note": "Filed under hypertension."}
    one = await practice.decide(row, outcome="filed", **note)
    assert (await practice.decide(row, outcome="filed", **note)).content == one.content
    other = await practice.decide(row, outcome="filed", note="Allergic to penicillin, ring us.")
    assert "note" in problem(other, 409, "conflict")["detail"]
    assert "note" in problem(await practice.decide(row, outcome="filed"), 409, "conflict")["detail"]


async def test_an_acknowledgement_that_cannot_be_read_is_refused_with_every_problem(
    pharmacy: Caller, practice: Caller
) -> None:
    row = await practice.take((await sent_to(pharmacy))["id"])
    answer = await practice.decide(row, outcome="lost", mood="bad")
    fields = {one["field"] for one in problem(answer, 422, "invalid")["problems"]}
    assert fields == {"outcome", "mood"}
    answer = await practice.put(f"{row['url']}/acknowledgement", {"outcome": []})
    assert [one["field"] for one in problem(answer, 422, "invalid")["problems"]] == ["outcome"]
    for given, said in (({}, "given"), ({"reason": "because"}, "one of those known here")):
        answer = await practice.decide(row, outcome="rejected", **given)
        (wrong,) = problem(answer, 422, "invalid")["problems"]
        assert wrong["detail"] == f"reason is not {said}."
    problem(await practice.decide(row, outcome="filed", reason="duplicate"), 422, "invalid")


async def test_a_webhook_that_is_down_is_shown_as_tried_and_the_inbox_has_it_all_the_same(
    pharmacy: Caller, place: Place
) -> None:
    update = await sent_to(pharmacy, practice="G99002")
    hilltop = place.of("G99002")

    async def tried() -> list[Body]:
        (*found,) = (await pharmacy.tracked(update["id"]))["deliveries"]
        return [attempt for one in found for attempt in one["attempts"]]

    (attempt, *_) = await eventually(tried)
    assert (attempt["outcome"], attempt["code"]) == ("retrying", "connection-failed")
    shown = await pharmacy.tracked(update["id"])
    assert shown["line"].startswith("Accepted; waiting for Hilltop Surgery")
    row = await hilltop.take(update["id"])
    taken(await hilltop.decide(row, outcome="filed"), 200)
    assert "filed it" in (await pharmacy.tracked(update["id"]))["line"]
    (one,) = (await pharmacy.tracked(update["id"]))["deliveries"]
    assert (one["state"], one["done_reason"]) == ("done", "receipt")


async def test_a_secret_that_does_not_open_kills_no_delivery(
    pharmacy: Caller, place: Place
) -> None:
    s = t.webhook_secret.c
    kept = (await place.broker.store.read(lambda c: c.execute(select(s.sealed)).all()))[0].sealed

    async def put(sealed: bytes) -> None:
        change = t.webhook_secret.update().values(sealed=sealed)
        await place.broker.store.write(lambda tx: tx.execute(change))

    await put(b"altered, and no longer to be opened")
    try:
        update = await sent_to(pharmacy, practice="G99002")
        delivery = (await place.of("G99002").arrived(update["id"]))["id"]
        await place.broker.store.write(lambda tx: at_once(tx, delivery))

        async def tried() -> list[Body]:
            shown = (await pharmacy.tracked(update["id"]))["deliveries"]
            return [attempt for one in shown for attempt in one["attempts"]]

        (attempt, *_) = await eventually(tried)
        assert (attempt["outcome"], attempt["code"]) == ("retrying", "not-connected")
    finally:
        await put(kept)


async def test_what_was_never_sent_is_not_said_to_be_though_it_was_to_be_pushed(
    pharmacy: Caller, place: Place
) -> None:
    update = await sent_to(pharmacy, practice="G99002")
    delivery = (await place.of("G99002").arrived(update["id"]))["id"]
    url = f"http://127.0.0.1:{place.webhook_port}/inbound"

    async def shown() -> tuple[str | None, str]:
        found = await pharmacy.tracked(update["id"])
        return found["deliveries"][0]["held_reason"], found["line"]

    async def stands_in_the_inbox() -> bool:
        await place.broker.store.write(lambda tx: at_once(tx, delivery))
        return (await shown())[0] == "receipt"

    async with place.directory((f"channel: webhook\n    url: {url}", "channel: inbox")):
        await eventually(stands_in_the_inbox)
    assert (await shown())[1].startswith("Accepted; waiting for Hilltop Surgery to take it.")

    def answered(tx: Tx) -> None:
        claims.put_attempt(tx, delivery, 999, tx.now, "answered", None, 202)

    await place.broker.store.write(answered)
    assert "Hilltop Surgery was sent it but has not confirmed" in (await shown())[1]


def at_once(tx: Tx, delivery: str) -> None:
    """Let a delivery be tried now, whatever its destination's breaker says."""
    tx.execute(t.endpoint_state.update().values(failures=0, open_until=None))
    row = deliveries.lock(tx, delivery)
    assert row is not None
    deliveries.retry(tx, row)


# -- who sees what -------------------------------------------------------------------------------


async def test_the_sender_sees_all_a_receiver_its_own_and_a_stranger_nothing(
    optometrist: Caller, hospital: Caller, practice: Caller, place: Place
) -> None:
    (message,) = (await optometrist.submit(referral("raised-pressure")))["messages"]
    await hospital.take(message["id"])
    await practice.arrived(message["id"])
    taken(await hospital.move(message["referral"], "accept"), 200)
    sender = await optometrist.tracked(message["id"])
    assert {one["organisation"] for one in sender["deliveries"]} == {"RXX01", "G99001"}
    assert [one["move"] for one in sender["moves"]] == ["receive", "accept"]
    assert sender["deadlines"] and sender["next"] and sender["warnings"]

    acting = await hospital.tracked(message["id"])
    assert {one["organisation"] for one in acting["deliveries"]} == {"RXX01"}
    assert [one["move"] for one in acting["moves"]] == ["receive", "accept"]
    stored = "You have confirmed that you stored it."
    assert acting["line"] == f"The referral is accepted. {stored}"

    copied = await practice.tracked(message["id"])
    assert {one["organisation"] for one in copied["deliveries"]} == {"G99001"}
    assert [one["move"] for one in copied["moves"]] == ["accept"]  # it is told outcomes only
    assert copied["line"] == "The referral is accepted. It waits for your receipt."

    only_the_senders = {"warnings", "deadlines", "telephone_calls", "open_items", "joined"}
    for view in (acting, copied):
        assert not only_the_senders & view.keys()
    for stranger in ("RYY01", "G99002", "FPH01", "TPX02"):
        problem(await place.of(stranger).get(message["url"]), 404, "not-found")


async def test_what_another_receiver_decided_is_not_a_receivers_to_see(
    optometrist: Caller, hospital: Caller, practice: Caller
) -> None:
    (message,) = (await optometrist.submit(referral("raised-pressure")))["messages"]
    await hospital.take(message["id"])
    row = await practice.take(message["id"])
    taken(await practice.decide(row, outcome="rejected", reason="moved-away"), 200)
    assert "moved-away" not in json.dumps(await hospital.tracked(message["id"]))
    assert "moved-away" in json.dumps(await optometrist.tracked(message["id"]))


async def test_a_restricted_copy_is_not_tracked_by_its_receiver_but_stays_collectable(
    optometrist: Caller, hospital: Caller, practice: Caller
) -> None:
    body = referral("raised-pressure")
    body["patient"] = body["patient"] | {"sensitive": True}
    (message,) = (await optometrist.submit(body))["messages"]
    row = await practice.take(message["id"])
    await hospital.take(message["id"])
    assert (await hospital.tracked(message["id"]))["deliveries"]
    problem(await practice.get(message["url"]), 404, "not-found")
    problem(await practice.get(message["referral"]), 404, "not-found")
    assert (await practice.get(row["url"])).status_code == 200


async def test_a_message_and_the_one_joined_to_it_are_told_to_whoever_sent_both(
    pharmacy: Caller, practice: Caller
) -> None:
    sent = await pharmacy.submit(reading(196, 124))
    assert kinds(sent) == ["update", "referral"]
    task = first(sent, "referral")
    await practice.take(task["id"])
    assert "joined" not in await practice.tracked(task["id"])
    assert [one["id"] for one in (await pharmacy.tracked(task["id"]))["joined"]] == [
        first(sent)["id"]
    ]


# -- lists ---------------------------------------------------------------------------------------


async def test_the_list_is_an_organisations_own_with_filters(
    place: Place, pharmacy: Caller, optometrist: Caller, practice: Caller
) -> None:
    body = reading(196, 124)
    sent = await pharmacy.submit(body)

    async def ids(caller: Caller, **filters: Any) -> set[str]:
        answer = await caller.get("/messages", limit=200, **filters)
        return {one["id"] for one in taken(answer, 200)["messages"]}

    update, task = first(sent)["id"], first(sent, "referral")["id"]
    assert {update, task} <= await ids(pharmacy)
    assert update in await ids(pharmacy, kind="update")
    assert task not in await ids(pharmacy, kind="update")
    assert task in await ids(pharmacy, kind="referral", status="sent")
    assert await ids(pharmacy, reference=body["reference"]) == {update}
    assert await ids(pharmacy, reference="never used") == set()
    assert update in await ids(pharmacy, since=sent["accepted_at"])
    assert await ids(pharmacy, since="2999-01-01T00:00:00Z") == set()
    assert not {update, task} & (await ids(optometrist) | await ids(practice))
    for kind in taken(await pharmacy.get("/messages", limit=200), 200)["messages"]:
        assert kind["kind"] != "notice"


async def test_a_successor_lists_tracks_and_corrects_what_its_predecessor_sent(
    pharmacy: Caller, practice: Caller, place: Place
) -> None:
    body = reading(196, 124)
    sent = await pharmacy.submit(body)
    update, task = first(sent), first(sent, "referral")
    row = await practice.take(update["id"])
    taken(await practice.decide(row, outcome="rejected", reason="not-registered-here"), 200)
    successor = place.of("TPX02")
    merged = "  - ods: FPH01\n    name: Riverside Pharmacy\n    pillar: pharmacy\n    icb: QXX\n"
    open_now = merged.replace("FPH01", "TPX02").replace("Riverside", "Market Street")
    closed = f"{merged}    status: closed\n    successor: TPX02\n"
    both = f"{open_now}    telephone: 0113 496 0102\n\n{closed}"
    async with place.directory((merged, both)):

        async def found() -> set[str]:
            given = {"limit": 200, "reference": body["reference"]}
            answer = taken(await successor.get("/messages", **given), 200)
            return {one["id"] for one in answer["messages"]}

        assert await found() == {update["id"]}
        assert await successor.overdue(update["id"]) == {"not-registered-here"}
        at = update["id"]
        # Again from the successor's own version; the task goes on as the same referral.
        for plan in ("One.", "Two."):
            mine = body | {
                "pharmacy": {"ods": "TPX02", "name": "Market Street Pharmacy"},
                "plan": plan,
            }
            tag = await successor.etag(f"/messages/{at}")
            wrong = mine | {"reference": "another"}
            path = f"/pharmacy/consultations/{at}"
            said = problem(await successor.put(path, wrong, if_match=tag), 422, "invalid")
            assert said["problems"][0]["code"] == "reference-changed"
            said = taken(await successor.put(path, mine, if_match=tag), 200)
            assert first(said, "referral")["referral"] == task["referral"]
            at = first(said)["id"]
            assert await found() == {at}
        assert await successor.overdue(update["id"]) == set()
    assert not await found()


async def test_the_successor_of_a_practice_reads_the_referral_that_it_was_told_of(
    optometrist: Caller, hospital: Caller, practice: Caller, place: Place
) -> None:
    (message,) = (await optometrist.submit(referral("raised-pressure")))["messages"]
    await hospital.take(message["id"])
    successor = place.of("G99002")
    problem(await successor.get(message["referral"]), 404, "not-found")
    merged = "name: Riverside Medical Practice\n    pillar: general-practice\n    icb: QXX\n"
    async with place.directory((merged, f"{merged}    status: closed\n    successor: G99002\n")):
        assert taken(await successor.get(message["referral"]), 200)["state"] == "received"


async def test_of_a_receiver_that_has_closed_the_trail_names_who_stands_for_it_now(
    pharmacy: Caller, place: Place
) -> None:
    update = first(await pharmacy.submit(consultation(practice="G99001")))
    await place.settled()
    successor = place.of("G99002")
    both = "Riverside Medical Practice (now Hilltop Surgery)"
    merged = "name: Riverside Medical Practice\n    pillar: general-practice\n    icb: QXX\n"
    async with place.directory((merged, f"{merged}    status: closed\n    successor: G99002\n")):
        shown = await pharmacy.tracked(update["id"])
        assert shown["line"].startswith(f"Accepted; waiting for {both} to take it. Next: {both} ")
        assert (shown["next"]["whose_turn"], shown["next"]["name"]) == ("G99001", both)
        assert {one["name"] for one in shown["deadlines"]} == {both}
        (delivery,) = shown["deliveries"]
        assert (delivery["organisation"], delivery["name"]) == (
            "G99001",
            "Riverside Medical Practice",
        )
        await place.move_deadline_back(update["id"], "received")
        told = await pharmacy.heard(update["id"], "deadline-passed")
        assert f"by {both}." in told.text
        row = await successor.take(update["id"])
        assert f"{both} has stored it" in (await pharmacy.tracked(update["id"]))["line"]
        taken(await successor.decide(row, outcome="filed"), 200)
        line = (await pharmacy.tracked(update["id"]))["line"]
        assert line == "Hilltop Surgery filed it in the patient's record."


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "notice"},
        {"status": "lost"},
        {"limit": 0},
        {"limit": 201},
        {"limit": "many"},
        {"since": "yesterday"},
        {"since": "2026-01-01T00:00:00"},
        {"since": "0001-01-01T00:00:00+14:00"},
        {"before": "nowhere"},
        {"before": "2026-01-01~x"},
        {"before": "2026-01-01T00:00:00+00:00"},
        {"before": "0001-01-01T00:00:00+14:00~x"},
    ],
    ids=str,
)
async def test_a_filter_that_cannot_be_read_is_refused_by_name(
    pharmacy: Caller, wrong: dict[str, Any]
) -> None:
    (one,) = problem(await pharmacy.get("/messages", **wrong), 422, "invalid")["problems"]
    assert one["field"] in wrong
    assert one["todo"] and "Input should" not in one["detail"]


@pytest.mark.parametrize(
    ("path", "name", "todo"),
    [
        ("/messages", "stat", "status"),
        ("/inbox", "before", "Take it out"),
        ("/overdue", "lmit", "limit"),
        ("/messages/00000000-0000-4000-8000-000000000000", "state", "Take it out"),
        ("/organisations/G99001", "ods", "Take it out"),
        ("/pathways", "sendr", "sender"),
    ],
)
async def test_a_parameter_that_is_not_known_is_refused_by_name(
    pharmacy: Caller, path: str, name: str, todo: str
) -> None:
    (one,) = problem(await pharmacy.get(path, **{name: "1"}), 422, "invalid")["problems"]
    assert (one["field"], one["code"]) == (name, "unknown-parameter")
    assert todo in one["todo"]


async def test_what_is_overdue_comes_in_pages_with_the_most_urgent_first(
    pharmacy: Caller, place: Place
) -> None:
    for _ in range(3):
        update = await sent_to(pharmacy)
        await place.settled()
        await place.move_deadline_back(update["id"], "received")
        await pharmacy.heard(update["id"], "deadline-passed")
    every = taken(await pharmacy.get("/overdue", limit=500), 200)["items"]
    seen: list[Body] = []
    after: str | None = ""
    while after is not None:
        page = taken(await pharmacy.get("/overdue", limit=2, after=after), 200)
        seen += page["items"]
        after = page["next"]
    assert len(every) >= 3 and seen == every
    for wrong in ("nowhere", "1~x", "9~2026-01-01T00:00:00+00:00~x"):
        said = problem(await pharmacy.get("/overdue", after=wrong), 422, "invalid")
        assert [one["field"] for one in said["problems"]] == ["after"]


async def test_pages_are_stable_while_messages_arrive(place: Place) -> None:
    sender = place.of("FPH02")
    who = {"ods": "FPH02", "name": "Other Pharmacy"}
    there = [first(await sender.submit(consultation(pharmacy=who)))["id"] for _ in range(7)]
    seen: list[str] = []
    before = ""
    while True:
        page = taken(await sender.get("/messages", limit=2, before=before), 200)
        seen += [one["id"] for one in page["messages"]]
        await sender.submit(consultation(pharmacy=who))  # arrives while we read
        before = page["next"]
        if before is None:
            break
    assert seen == there[::-1]


async def test_the_inbox_pages_in_ledger_order_while_messages_arrive(
    pharmacy: Caller, place: Place
) -> None:
    lakeside = place.of("G99003")
    sent = [(await sent_to(pharmacy, practice="G99003"))["id"] for _ in range(5)]
    await place.settled()
    seen: list[str] = []
    after: str | None = ""
    while after is not None and len(seen) < 5:
        page = taken(await lakeside.get("/inbox", limit=2, after=after), 200)
        seen += [one["message"] for one in page["deliveries"]]
        await sent_to(pharmacy, practice="G99003")
        after = page["next"]
    assert seen[:5] == sent
    for wrong in ("nowhere", f"1.{'-' * 36}", f"1.{'0' * 36}"):
        problem(await lakeside.get("/inbox", after=wrong), 422, "invalid")


async def test_an_inbox_is_never_empty_because_a_service_was_misspelt(
    place: Place, practice: Caller
) -> None:
    spa = place.of("RXX01")
    taken(await spa.get("/inbox", service="RXX01-SPA"), 200)
    for wrong in ("rxx01-spa", "RXX01-SPAA", "RYY01-SPA", "\0"):
        (one,) = problem(await spa.get("/inbox", service=wrong), 422, "invalid")["problems"]
        assert one["field"] == "service" and "RXX01-MACULAR" in one["todo"]
        assert "RYY01" not in one["todo"]
    problem(await practice.get("/inbox", service="RXX01-SPA"), 422, "invalid")


async def test_the_line_names_the_acting_receiver_before_a_copy_that_is_due_at_the_same_time(
    optometrist: Caller,
) -> None:
    for _ in range(4):
        (message,) = (await optometrist.submit(referral("raised-pressure")))["messages"]
        shown = await optometrist.tracked(message["id"])
        due = {one["kind"]: one["by"] for one in shown["deadlines"]}
        assert due["received"] == due["copy-received"]
        assert shown["next"]["kind"] == "received"
        assert "Next: Northfield Hospital must confirm" in shown["line"]


async def test_a_receivers_line_says_when_what_it_stored_stands_no_longer(
    pharmacy: Caller, practice: Caller, optometrist: Caller, hospital: Caller
) -> None:
    update = await sent_to(pharmacy)
    row = await practice.take(update["id"])
    taken(await practice.decide(row, outcome="filed"), 200)
    taken(await pharmacy.post(f"{update['url']}/withdrawal"))
    assert (await practice.tracked(update["id"]))["line"] == (
        "It stands no longer: its sender has withdrawn or replaced it. You have filed it."
    )
    (message,) = (await optometrist.submit(referral()))["messages"]
    await hospital.take(message["id"])
    stored = "You have confirmed that you stored it."
    assert (await hospital.tracked(message["id"]))["line"] == stored
    taken(await optometrist.move(message["referral"], "cancel", {"reason": "duplicate"}), 200)
    line = (await hospital.tracked(message["id"]))["line"]
    assert line == f"The referral is cancelled. {stored}"


async def test_an_open_inbox_lists_what_has_no_receipt_yet(
    pharmacy: Caller, practice: Caller
) -> None:
    update = await sent_to(pharmacy)
    await practice.arrived(update["id"])
    assert update["id"] in {row["message"] for row in await practice.inbox("open")}
    await practice.take(update["id"])
    assert update["id"] not in {row["message"] for row in await practice.inbox("open")}


async def test_a_hospital_asks_for_one_of_its_services(
    optometrist: Caller, hospital: Caller
) -> None:
    (amd,) = (await optometrist.submit(referral("suspected-wet-amd")))["messages"]
    await hospital.arrived(amd["id"])
    for service, is_there in (("RXX01-MACULAR", True), ("RXX01-SPA", False)):
        page = taken(await hospital.get("/inbox", service=service, limit=200), 200)
        assert (amd["id"] in {one["message"] for one in page["deliveries"]}) is is_there


# -- deadlines -----------------------------------------------------------------------------------


async def test_a_deadline_is_raised_once_to_the_sender_and_on_the_lists(
    pharmacy: Caller, practice: Caller, place: Place
) -> None:
    update = await sent_to(pharmacy)
    await practice.arrived(update["id"])
    await place.move_deadline_back(update["id"], "received")

    async def listed() -> bool:
        return "received-overdue" in await pharmacy.overdue(update["id"])

    await eventually(listed)
    told = await pharmacy.heard(update["id"], "deadline-passed")
    assert "not confirmed as stored" in told.text and "Riverside Medical Practice" in told.text
    assert "still there to be collected" in told.text
    for _ in range(3):
        await place.broker.safety.run_once()
    assert await pharmacy.notices(update["id"]) == ["deadline-passed"]
    items = await place.rows("SELECT code FROM work_item WHERE message_id = :m", m=update["id"])
    assert [item.code for item in items] == ["received-overdue"]
    line = (await pharmacy.tracked(update["id"]))["line"]
    assert "Overdue: Riverside Medical Practice must confirm that it is stored" in line

    # It stays collectable, and a receipt that comes late tells the sender so, once.
    row = await practice.take(update["id"])
    late = await pharmacy.heard(update["id"], "received-late")
    assert "has now stored your update, after its deadline" in late.text
    taken(await practice.receipt(row), 200)
    assert await pharmacy.overdue(update["id"]) == set()
    assert sorted(await pharmacy.notices(update["id"])) == ["deadline-passed", "received-late"]


async def test_a_receipt_after_giving_up_is_told_as_that_and_not_as_after_the_deadline(
    pharmacy: Caller, practice: Caller, place: Place
) -> None:
    update = await sent_to(pharmacy)
    row = await practice.arrived(update["id"])
    broker = place.broker
    given_up = partial(operating.give_up, actor="test", source=broker.settings.source)
    directory = await broker.directory.current()
    await asyncio.to_thread(
        given_up, broker.store, broker.vault, directory, row["id"], "It has closed."
    )
    assert await pharmacy.heard(update["id"], "delivery-failed")
    taken(await practice.receipt(row), 200)
    late = await pharmacy.heard(update["id"], "received-late")
    assert "has now stored your update, after it was given up." in late.text


class Meanwhile:
    """A store in which something else is written first, once, whenever something is to be."""

    def __init__(self, store: Any, first: Callable[[], Awaitable[None]]) -> None:
        self.look_up = store.look_up
        self._store = store
        self._first: Callable[[], Awaitable[None]] | None = first

    async def write(self, fn: Any) -> Any:
        first, self._first = self._first, None
        if first is not None:
            await first()
        return await self._store.write(fn)


async def test_a_deadline_that_is_raised_while_its_receipt_is_written_is_told_of_as_late(
    pharmacy: Caller, practice: Caller, place: Place
) -> None:
    update = await sent_to(pharmacy)
    row = await practice.arrived(update["id"])

    async def passes() -> None:
        await place.move_deadline_back(update["id"], "received")
        await pharmacy.heard(update["id"], "deadline-passed")

    broker = place.broker
    core = replace(broker.core, store=Meanwhile(broker.store, passes))  # type: ignore[arg-type]
    delivery = await broker.store.read(lambda c: deliveries.get(c, row["id"]))
    receipt = Receipt(row["id"], row["digest"], "G99001")
    assert await receipts.take(core, delivery, receipt, via="inbox", client="test")
    assert await pharmacy.heard(update["id"], "received-late")
    assert await pharmacy.overdue(update["id"]) == set()


async def test_a_receipt_counts_also_where_the_message_can_no_longer_be_opened(
    pharmacy: Caller, practice: Caller, place: Place
) -> None:
    update = await sent_to(pharmacy)
    row = await practice.arrived(update["id"])
    await place.move_deadline_back(update["id"], "received")
    await pharmacy.heard(update["id"], "deadline-passed")

    def alter(tx: Tx) -> None:
        p = t.payload.c
        owner = select(t.message.c.event_id).where(t.message.c.id == update["id"])
        chosen = t.payload.update().where(p.owner_id == owner.scalar_subquery())
        assert tx.execute(chosen.values(sealed=b"altered")).rowcount

    await place.broker.store.write(alter)
    taken(await practice.receipt(row), 200)
    assert await pharmacy.overdue(update["id"]) == set()


async def test_each_deadline_of_a_message_is_its_own(
    pharmacy: Caller, practice: Caller, place: Place
) -> None:
    update = await sent_to(pharmacy)
    row = await practice.take(update["id"])
    await place.move_deadline_back(update["id"], "filed")
    told = await pharmacy.heard(update["id"], "deadline-passed")
    assert "neither filed nor rejected" in told.text
    assert "still there to be collected" not in told.text  # it was stored long ago
    assert await pharmacy.overdue(update["id"]) == {"filed-overdue"}
    taken(await practice.decide(row, outcome="filed"), 200)
    assert await pharmacy.overdue(update["id"]) == set()


async def test_a_copy_that_is_late_is_told_as_a_copy(
    optometrist: Caller, practice: Caller, place: Place
) -> None:
    (message,) = (await optometrist.submit(referral("raised-pressure")))["messages"]
    await practice.arrived(message["id"])
    await place.move_deadline_back(message["id"], "copy-received")
    told = await optometrist.heard(message["id"], "deadline-passed")
    assert "A copy of your message was not confirmed" in told.text
    assert "still there to be collected" in told.text
    await practice.take(message["id"])
    assert await optometrist.heard(message["id"], "received-late")


async def test_a_copy_is_waited_for_also_after_the_referral_has_ended(
    optometrist: Caller, hospital: Caller, practice: Caller, place: Place
) -> None:
    (message,) = (await optometrist.submit(referral("suspected-wet-amd")))["messages"]
    await hospital.take(message["id"])
    said = {"reason": "out-of-area", "advice": "Refer where the patient lives."}
    taken(await hospital.move(message["referral"], "reject", said), 200)
    clocks = (await optometrist.tracked(message["id"]))["deadlines"]
    stood = {one["kind"]: "met" if one["met_at"] else one["lapsed"] for one in clocks}
    assert stood["received"] == stood["decided"] == "met"
    assert stood["seen"] == "rejected"  # and not met: nobody has seen the patient
    assert stood["copy-received"] is None
    await place.move_deadline_back(message["id"], "copy-received")
    told = await optometrist.heard(message["id"], "deadline-passed")
    assert "A copy of your message was not confirmed" in told.text
    await practice.take(message["id"])
    assert await optometrist.overdue(message["id"]) == set()


async def test_of_a_cancelled_referral_no_copy_is_waited_for(
    optometrist: Caller, hospital: Caller
) -> None:
    (message,) = (await optometrist.submit(referral("raised-pressure")))["messages"]
    taken(await optometrist.move(message["referral"], "cancel", {"reason": "duplicate"}), 200)
    clocks = (await optometrist.tracked(message["id"]))["deadlines"]
    assert {(one["met_at"], one["lapsed"]) for one in clocks} == {(None, "cancelled")}


async def test_a_clinical_clock_that_passes_is_told_as_not_known_to_have_happened(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    (message,) = (await optometrist.submit(referral("suspected-wet-amd")))["messages"]
    await hospital.take(message["id"])
    await place.move_deadline_back(message["id"], "seen")
    told = await optometrist.heard(message["id"], "deadline-passed")
    assert "Nothing says yet that the patient was seen" in told.text
    assert "still there to be collected" not in told.text


async def test_a_notice_that_nobody_collects_is_on_the_operators_list_and_never_told_by_notice(
    pharmacy: Caller, practice: Caller, place: Place
) -> None:
    update = await sent_to(pharmacy)
    row = await practice.take(update["id"])
    taken(await practice.decide(row, outcome="filed"), 200)
    notice = (await pharmacy.heard(update["id"], "update-filed")).message
    await place.move_deadline_back(notice)

    async def listed() -> bool:
        found = await place.rows("SELECT code FROM work_item WHERE message_id = :m", m=notice)
        return bool(found)

    await eventually(listed)
    assert await pharmacy.notices(notice) == []
    assert await practice.notices(notice) == []


async def test_a_referral_decided_in_time_has_nothing_overdue_when_the_clock_would_have_run_out(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    (message,) = (await optometrist.submit(referral()))["messages"]
    await hospital.take(message["id"])
    taken(await hospital.move(message["referral"], "accept"), 200)
    shown = await optometrist.tracked(message["id"])
    waited_for = {one["kind"] for one in shown["deadlines"] if not one["met_at"]}
    assert waited_for <= {"copy-received", "arranged", "seen"}


async def test_the_audit_chain_holds_over_all_of_this(place: Place) -> None:
    await place.settled()
    verdict = await place.broker.store.read(trail.verify_audit)
    assert verdict.broken_at is None and verdict.checked, verdict
