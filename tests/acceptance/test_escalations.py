"""A consultation that asks the practice to act: what is made of it, for whom, and by when."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fhir_profiles.working_days import next_working_day_end
from tests.acceptance.place import (
    Caller,
    Place,
    by,
    consultation,
    eventually,
    first,
    kinds,
    problem,
    reading,
    referral,
    taken,
    warned,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENOUGH = "A message alone is not enough"
IRREGULAR = {"rate": 88, "unit": "{beats}/min", "rhythm": "irregular"}
CONFIRMED = {
    "pulse": IRREGULAR | {"taken_at": "2026-11-01T10:00:00+00:00"},
    "repeat_pulse": IRREGULAR | {"taken_at": "2026-11-01T10:05:00+00:00"},
}
STOPPED = consultation(
    "contraception-ongoing", outcome="no-supply", no_supply_reason="raised-blood-pressure"
)


@pytest.mark.parametrize(
    ("body", "priority"),
    [
        pytest.param(reading(180, 80), "stat", id="systolic 180"),
        pytest.param(reading(130, 120), "stat", id="diastolic 120"),
        pytest.param(reading(130, 80, **CONFIRMED), "urgent", id="irregular twice"),
        pytest.param(reading(170, 80, "abpm-average"), "stat", id="ABPM 170"),
        pytest.param(reading(130, 115, "abpm-average"), "stat", id="ABPM diastolic 115"),
        pytest.param(reading(150, 80, "abpm-average"), "asap", id="ABPM 150"),
        pytest.param(reading(130, 95, "abpm-average"), "asap", id="ABPM diastolic 95"),
        pytest.param(reading(135, 80, "abpm-average"), "routine", id="ABPM 135"),
        pytest.param(reading(130, 85, "abpm-average"), "routine", id="ABPM diastolic 85"),
        pytest.param(reading(140, 80, abpm_declined=True), "routine", id="declined, 140"),
        pytest.param(reading(130, 90, abpm_declined=True), "routine", id="declined, 90"),
        pytest.param(reading(89, 70, fainting_or_falls=True), "urgent", id="89 with falls"),
        pytest.param(reading(100, 59, fainting_or_falls=True), "urgent", id="59 with falls"),
        pytest.param(STOPPED, "asap", id="contraceptive stopped"),
        pytest.param(reading(120, 80, urgency="urgent"), "urgent", id="the sender says urgent"),
        pytest.param(reading(150, 80, "abpm-average", urgency="same-day"), "stat", id="never less"),
        pytest.param(reading(182, 80, urgency="routine"), "stat", id="the rule is higher"),
        pytest.param(reading(120, 80, outcome="gp-same-day"), "stat", id="the outcome asks"),
        pytest.param(
            reading(120, 80, outcome="gp-routine"), "routine", id="the outcome asks, later"
        ),
    ],
)
async def test_each_rule_makes_an_update_and_a_joined_referral_of_its_priority(
    pharmacy: Caller, practice: Caller, body: dict[str, Any], priority: str
) -> None:
    sent = await pharmacy.submit(body)
    assert kinds(sent) == ["update", "referral"]
    task = first(sent, "referral")
    assert task["priority"] == priority
    # One correlation id joins the two.
    shown = await pharmacy.tracked(first(sent)["id"])
    assert [one["id"] for one in shown["joined"]] == [task["id"]]
    assert first(sent)["priority"] == "routine"
    assert (await practice.arrived(task["id"]))["kind"] == "referral"
    assert any(line.startswith(ENOUGH) for line in sent["read_first"]) is (priority == "stat")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(reading(179, 119), id="179/119"),
        pytest.param(reading(134, 84, "abpm-average"), id="ABPM 134/84"),
        pytest.param(reading(139, 89, abpm_declined=True), id="declined, 139/89"),
        pytest.param(reading(165, 99), id="raised, ABPM not declined"),
        pytest.param(reading(90, 60, fainting_or_falls=True), id="90/60 with falls"),
        pytest.param(reading(85, 55), id="low without falls"),
    ],
)
async def test_one_below_each_line_is_an_update_alone(
    pharmacy: Caller, body: dict[str, Any]
) -> None:
    sent = await pharmacy.submit(body)
    assert kinds(sent) == ["update"]
    assert sent["read_first"] == []


async def test_an_irregular_pulse_that_is_not_confirmed_is_a_warning(pharmacy: Caller) -> None:
    sent = await pharmacy.submit(reading(130, 80, pulse=IRREGULAR))
    assert kinds(sent) == ["update"]
    assert warned(sent) == ["pulse-irregular-unconfirmed"]


async def test_same_day_clocks_run_from_the_consultation(pharmacy: Caller) -> None:
    body = reading(196, 124)
    task = first(await pharmacy.submit(body), "referral")
    assert by(task, "decided") - by(task, "received") == timedelta(hours=3)
    assert by(task, "telephone") >= by(task, "received")
    assert by(task, "received").isoformat() > body["clinical_time"]
    owners = {one["kind"]: one["whose_turn"] for one in task["deadlines"]}
    assert owners == {"received": "G99001", "decided": "G99001", "telephone": "FPH01"}


@pytest.mark.parametrize(
    ("urgency", "received", "decided"),
    [("urgent", 0, 1), ("within-7-days", 1, 2), ("routine", 1, 5)],
)
async def test_the_other_levels_have_their_own_clocks(
    pharmacy: Caller, urgency: str, received: int, decided: int
) -> None:
    sent = await pharmacy.submit(reading(120, 80, urgency=urgency))
    task = first(sent, "referral")
    start = by(task, "received") - timedelta(hours=4)
    if received:
        shown = await pharmacy.tracked(task["id"])
        start = datetime.fromisoformat(shown["clinical_at"])
        assert by(task, "received") == next_working_day_end(start, received)
    assert by(task, "decided") == next_working_day_end(start, decided)
    assert by(first(sent), "filed") == next_working_day_end(start, 5)
    assert "telephone" not in {one["kind"] for one in task["deadlines"]}


async def test_what_is_past_already_is_overdue_at_once_and_the_answer_says_so(
    pharmacy: Caller,
) -> None:
    sent = await pharmacy.submit(reading(190, 100, clinical_time="2026-10-01T10:00:00+01:00"))
    task = first(sent, "referral")
    late = {one["kind"] for one in task["deadlines"] if one["overdue"]}
    assert late == {"received", "decided"}

    async def listed() -> bool:
        return {"received-overdue", "decided-overdue"} <= await pharmacy.overdue(task["id"])

    await eventually(listed)


async def test_whom_to_telephone_is_read_before_all_that_is_overdue(pharmacy: Caller) -> None:
    seen = (datetime.now(UTC) - timedelta(days=12)).isoformat(timespec="seconds")
    sent = await pharmacy.submit(reading(190, 70, clinical_time=seen))
    telephone = next(
        place for place, line in enumerate(sent["read_first"]) if line.startswith(ENOUGH)
    )
    overdue = [line.startswith("Overdue already") for line in sent["read_first"]]
    assert overdue.count(True) == 4
    assert not any(overdue[: telephone + 1])


async def test_with_acute_symptoms_the_update_goes_alone_and_the_answer_says_999(
    pharmacy: Caller, practice: Caller
) -> None:
    sent = await pharmacy.submit(reading(196, 124, acute_symptoms=True))
    assert kinds(sent) == ["update"]
    assert sent["read_first"][0].startswith("Call 999 or send the patient to A&E now")
    row = await practice.arrived(first(sent)["id"])
    body = (await practice.get(row["url"])).json()
    flags = [e["resource"] for e in body["entry"] if e["resource"]["resourceType"] == "Flag"]
    assert any("A&E" in str(flag) for flag in flags)


async def test_a_crisis_sent_as_same_day_keeps_its_duty_to_telephone(pharmacy: Caller) -> None:
    sent = await pharmacy.submit(reading(185, 80, acute_symptoms=True, urgency="same-day"))
    assert kinds(sent) == ["update"]
    assert first(sent)["priority"] == "stat"
    assert sent["read_first"][0].startswith("Call 999 or send the patient to A&E now")
    assert any(line.startswith(ENOUGH) for line in sent["read_first"])
    assert "telephone" in {one["kind"] for one in first(sent)["deadlines"]}


async def test_where_a_practice_takes_updates_only_no_task_is_made_and_the_answer_begins_with_it(
    pharmacy: Caller, place: Place
) -> None:
    sent = await pharmacy.submit(reading(196, 124, practice="G99003"))
    assert kinds(sent) == ["update"]
    assert sent["read_first"][0].startswith("No task was sent. Telephone ")
    assert "Lakeside Practice" in sent["read_first"][0]
    assert "G99003" not in sent["read_first"][0]
    assert "left-out" in {warning["code"] for warning in sent["warnings"]}
    (destination,) = first(sent)["destinations"]
    assert destination["reason"] == "The registered practice."
    assert await place.of("G99003").arrived(first(sent)["id"])


async def test_where_no_task_could_be_sent_the_same_day_call_is_still_a_duty(
    pharmacy: Caller, place: Place
) -> None:
    sent = await pharmacy.submit(reading(196, 124, practice="G99003"))
    update = first(sent)
    assert any(ENOUGH in line for line in sent["read_first"])
    await place.move_deadline_back(update["id"], "telephone")

    async def listed() -> bool:
        return "telephone-overdue" in await pharmacy.overdue(update["id"])

    await eventually(listed)


async def test_a_practice_that_is_not_connected_is_refused_with_its_telephone_number(
    pharmacy: Caller,
) -> None:
    answer = await pharmacy.post("/pharmacy/consultations", reading(196, 124, practice="G99005"))
    said = problem(answer, 422, "invalid")
    assert said["detail"].startswith("Nothing was sent. Telephone ")
    assert "0113 496 0205" in said["detail"]
    assert said["problems"][0]["field"] == "practice.ods"


@pytest.mark.parametrize(
    "spelt",
    [
        pytest.param({"urgency": "emergency"}, id="an urgency of another standard"),
        pytest.param({"blood_pressures": {"systolic": 190}}, id="one object for a list"),
    ],
)
async def test_what_is_refused_for_its_spelling_still_says_whom_to_telephone(
    pharmacy: Caller, spelt: dict[str, Any]
) -> None:
    answer = await pharmacy.post("/pharmacy/consultations", reading(120, 80) | spelt)
    assert problem(answer, 422, "invalid")["detail"].startswith("Nothing was sent. Telephone ")


async def test_a_crisis_that_is_refused_for_its_body_gives_the_number_in_the_directory(
    pharmacy: Caller,
) -> None:
    body = reading(196, 124) | {"clinical_summary": ""}
    said = problem(await pharmacy.post("/pharmacy/consultations", body), 422, "invalid")
    assert said["detail"].startswith("Nothing was sent. Telephone the patient's practice (G99001)")
    assert "0113 496 0201" in said["detail"]
    assert said["detail"].endswith("1 problem found; nothing was stored.")


async def test_an_emergency_that_is_refused_keeps_its_999_words_before_any_other_number(
    pharmacy: Caller,
) -> None:
    body = reading(200, 130, practice="G99005") | {"acute_symptoms": True}
    answer = await pharmacy.post("/pharmacy/consultations", body)
    said = problem(answer, 422, "invalid")["detail"]
    assert said.startswith("Nothing was sent. Telephone 999, or send the patient to A&E")
    assert "0113 496 0205" in said


async def test_a_closed_practice_is_refused_with_its_successor_named(pharmacy: Caller) -> None:
    answer = await pharmacy.post("/pharmacy/consultations", consultation(practice="G99004"))
    (found, *_) = problem(answer, 422, "invalid")["problems"]
    assert (found["field"], found["code"]) == ("practice.ods", "closed")
    assert "G99001" in found["detail"] + found["todo"]


async def test_an_unknown_practice_is_refused(pharmacy: Caller) -> None:
    answer = await pharmacy.post("/pharmacy/consultations", consultation(practice="G99998"))
    (found, *_) = problem(answer, 422, "invalid")["problems"]
    assert (found["field"], found["code"]) == ("practice.ods", "unknown-destination")


async def test_what_must_be_seen_today_says_whom_to_telephone_and_takes_a_record_of_the_call(
    pharmacy: Caller, place: Place
) -> None:
    sent = await pharmacy.submit(reading(196, 124))
    task = first(sent, "referral")
    (line,) = (one for one in sent["read_first"] if one.startswith(ENOUGH))
    assert "elephone Riverside Medical Practice on 0113 496 0201" in line or "NHS 111" in line
    assert f"/messages/{task['id']}/telephone-calls" in line
    calls = f"/messages/{task['id']}/telephone-calls"
    note = "No reply from the zzyzx desk"
    missed = taken(await pharmacy.post(calls, {"outcome": "no-answer", "note": note}), 201)
    assert missed["meets_the_duty"] is False
    spoke = {"outcome": "spoke-to-clinician", "note": "Dr Bell will see him at 3"}
    answers = [await pharmacy.post(calls, spoke, key=f"call-{task['id']}") for _ in "12"]
    assert [one.status_code for one in answers] == [201, 201]
    assert answers[0].content == answers[1].content
    shown = await pharmacy.tracked(task["id"])
    assert [(one["outcome"], one["note"]) for one in shown["telephone_calls"]] == [
        ("no-answer", note),
        ("spoke-to-clinician", spoke["note"]),
    ]
    assert [one["met_at"] is not None for one in shown["deadlines"] if one["kind"] == "telephone"]
    await place.settled()
    assert "telephone-overdue" not in await pharmacy.overdue(task["id"])


async def test_without_a_call_within_the_hour_it_is_on_the_senders_and_the_operators_list(
    pharmacy: Caller, place: Place
) -> None:
    task = first(await pharmacy.submit(reading(196, 124)), "referral")
    assert "telephone-overdue" not in await pharmacy.overdue(task["id"])
    await place.move_deadline_back(task["id"], "telephone")

    async def listed() -> bool:
        return "telephone-overdue" in await pharmacy.overdue(task["id"])

    await eventually(listed)
    everywhere = await place.rows(
        "SELECT code FROM work_item WHERE message_id = :m AND closed_at IS NULL", m=task["id"]
    )
    assert "telephone-overdue" in {row.code for row in everywhere}
    # The receipt clock runs on its own: it neither meets nor is met by the call.
    calls = f"/messages/{task['id']}/telephone-calls"
    taken(await pharmacy.post(calls, {"outcome": "spoke-to-staff"}), 201)
    assert "telephone-overdue" not in await pharmacy.overdue(task["id"])
    met = {d["kind"]: d["met_at"] for d in (await pharmacy.tracked(task["id"]))["deadlines"]}
    assert met["telephone"] and not met["received"]


async def test_a_call_about_another_message_of_the_post_leaves_the_duty_open_and_says_whose_it_is(
    pharmacy: Caller,
) -> None:
    sent = await pharmacy.submit(reading(196, 124))
    update, task = first(sent), first(sent, "referral")
    spoke = {"outcome": "spoke-to-clinician"}
    said = taken(await pharmacy.post(f"/messages/{update['id']}/telephone-calls", spoke), 201)
    assert said["meets_the_duty"] is False
    assert said["read_first"] == [
        f"The duty to telephone is /messages/{task['id']}'s: record the call there."
    ]
    met = {d["kind"]: d["met_at"] for d in (await pharmacy.tracked(task["id"]))["deadlines"]}
    assert met["telephone"] is None
    routine = first(await pharmacy.submit(reading(120, 70)))
    said = taken(await pharmacy.post(f"/messages/{routine['id']}/telephone-calls", spoke), 201)
    assert (said["meets_the_duty"], said["read_first"]) == (False, [])


async def test_a_call_from_long_before_the_consultation_is_refused(pharmacy: Caller) -> None:
    task = first(await pharmacy.submit(reading(196, 124)), "referral")
    body = {"outcome": "spoke-to-clinician", "called_at": "2020-01-01T00:00:00Z"}
    answer = await pharmacy.post(f"/messages/{task['id']}/telephone-calls", body)
    (found,) = problem(answer, 422, "invalid")["problems"]
    assert (found["field"], found["code"]) == ("called_at", "too-early")


async def test_what_is_urgent_is_found_in_an_inbox_without_what_is_routine(
    pharmacy: Caller, practice: Caller
) -> None:
    routine = first(await pharmacy.submit(reading(120, 70)))
    sent = await pharmacy.submit(reading(196, 124))
    task = first(sent, "referral")
    await practice.take(task["id"])
    await practice.take(routine["id"])

    async def listed(**asked: str) -> set[str]:
        found: set[str] = set()
        after: str | None = ""
        while after is not None:
            page = taken(await practice.get("/inbox", state="all", after=after, **asked), 200)
            found |= {row["message"] for row in page["deliveries"]}
            after = page["next"]
        return found

    assert {task["id"], routine["id"]} <= await listed(limit="200")
    for priority in ("stat", "urgent"):
        urgent = await listed(priority=priority)
        assert task["id"] in urgent
        assert routine["id"] not in urgent
    problem(await practice.get("/inbox", priority="soon"), 422, "invalid")


async def test_a_same_day_referral_from_an_optometrist_says_the_same(optometrist: Caller) -> None:
    sent = await optometrist.submit(referral("retinal-detachment"))
    line = next(one for one in sent["read_first"] if one.startswith(ENOUGH))
    assert "eye casualty" in line
    assert {one["kind"] for one in sent["messages"][0]["deadlines"]} >= {"telephone", "received"}


async def test_a_call_that_says_nothing_readable_is_refused_with_every_problem(
    pharmacy: Caller,
) -> None:
    task = first(await pharmacy.submit(reading(196, 124)), "referral")
    body = {"outcome": "shouted", "called_at": "2031-01-01T00:00:00Z", "note": 3, "mood": "bad"}
    answer = await pharmacy.post(f"/messages/{task['id']}/telephone-calls", body)
    fields = {one["field"] for one in problem(answer, 422, "invalid")["problems"]}
    assert fields == {"outcome", "called_at", "note", "mood"}
    listed = {"outcome": ["spoke-to-staff"]}
    answer = await pharmacy.post(f"/messages/{task['id']}/telephone-calls", listed)
    assert [one["field"] for one in problem(answer, 422, "invalid")["problems"]] == ["outcome"]


async def test_the_time_of_a_call_is_written_as_every_other_time(pharmacy: Caller) -> None:
    task = first(await pharmacy.submit(reading(196, 124)), "referral")
    now = datetime.now(UTC)
    for when in (f"{now:%Y-%m-%d %H:%M:%S}Z", f"{now:%Y%m%dT%H%M%S}Z", f"{now:%G-W%V-%uT%H:%M}Z"):
        answer = await pharmacy.post(
            f"/messages/{task['id']}/telephone-calls",
            {"outcome": "spoke-to-staff", "called_at": when},
        )
        assert problem(answer, 422, "invalid")["problems"][0]["field"] == "called_at"


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_a_time_outside_the_calendar_is_refused_by_name(
    pharmacy: Caller, optometrist: Caller, when: str
) -> None:
    task = first(await pharmacy.submit(reading(196, 124)), "referral")
    calls = f"/messages/{task['id']}/telephone-calls"
    for answer, field in (
        (
            await pharmacy.post("/pharmacy/consultations", consultation(clinical_time=when)),
            "clinical_time",
        ),
        (
            await optometrist.post("/optometry/referrals", referral(date_of_sight_test=when)),
            "date_of_sight_test",
        ),
        (
            await pharmacy.post(calls, {"outcome": "spoke-to-staff", "called_at": when}),
            "called_at",
        ),
    ):
        assert field in {one["field"] for one in problem(answer, 422, "invalid")["problems"]}
