"""The patient says no: nothing is sent, nothing clinical is kept, and nobody is misled about it."""

from typing import Any

import pytest

from adapters.pharmacy import ADAPTER as PHARMACY
from adapters.pillars.optometry.door import REFERRALS as OPTOMETRY
from broker.store import tables as t
from tests.acceptance.place import (
    Body,
    Caller,
    Place,
    consultation,
    problem,
    reading,
    referral,
    taken,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVICES = sorted(PHARMACY.examples)
# What a message row may hold where nothing was sent: codes, ids, times and HMACs of our own.
EMPTY = ("subject_id", "event_id", "key_id", "practice", "patient_pseudonym", "pseudonym_key")
BARE = ("pathway", "pathway_version")


async def sizes(place: Place) -> dict[str, int]:
    return {
        name: (await place.rows(f'SELECT count(*) FROM "{name}"'))[0][0]  # noqa: S608
        for name in t.METADATA.tables
    }


@pytest.mark.parametrize("service", SERVICES)
async def test_without_consent_a_row_a_key_and_an_audit_entry_are_all_that_is_kept(
    pharmacy: Caller, place: Place, service: str
) -> None:
    await pharmacy.get("/messages")
    await place.settled()
    before = await sizes(place)
    body = consultation(service, consent_to_inform_gp=False)
    sent = taken(await pharmacy.post(PHARMACY.door, body))
    after = await sizes(place)
    grown = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert grown == {"message": 1, "audit": 1, "idempotency_key": 1}
    (message,) = sent["messages"]
    assert (message["status"], message["destinations"]) == ("withheld", [])
    (row,) = await place.rows("SELECT * FROM message WHERE id = :id", id=message["id"])
    assert row.status == "withheld"
    assert [getattr(row, name) for name in EMPTY] == [None] * len(EMPTY)
    assert [getattr(row, name) for name in BARE] == ["", ""]
    assert row.body_hmac and body["clinical_summary"] not in str(row)
    (entry,) = await place.rows("SELECT * FROM audit WHERE object_id = :id", id=message["id"])
    assert entry.action == "message.withheld"


async def test_a_repeat_gets_the_same_answer_and_another_body_does_not(pharmacy: Caller) -> None:
    body = consultation(consent_to_inform_gp=False)
    answers = [await pharmacy.post(PHARMACY.door, body, key="withheld") for _ in range(3)]
    assert {one.status_code for one in answers} == {202}
    assert len({one.content for one in answers}) == 1
    other = body | {"clinical_summary": "Another"}
    problem(await pharmacy.post(PHARMACY.door, other, key="withheld"), 409, "conflict")
    agreed = body | {"consent_to_inform_gp": True}
    problem(await pharmacy.post(PHARMACY.door, agreed), 409, "conflict")  # the reference is used


@pytest.mark.parametrize(
    "changes",
    [
        {"blood_pressures": reading(196, 124)["blood_pressures"]},
        {"red_flags": ["Rigors"]},
        {"outcome": "gp-same-day"},
        {"urgency": "urgent"},
    ],
    ids=lambda changes: next(iter(changes)),
)
async def test_where_the_body_held_an_escalation_the_answer_says_that_nobody_has_been_told(
    pharmacy: Caller, changes: Body
) -> None:
    body = reading(120, 80, consent_to_inform_gp=False) | changes
    sent = taken(await pharmacy.post(PHARMACY.door, body))
    assert sent["read_first"][0].startswith("Nobody has been told.")


async def test_a_routine_refusal_says_so_without_alarm(pharmacy: Caller) -> None:
    sent = taken(await pharmacy.post(PHARMACY.door, consultation(consent_to_inform_gp=False)))
    assert not any("Nobody has been told" in line for line in sent["read_first"])


async def test_only_organisation_reference_service_and_consent_are_looked_at(
    pharmacy: Caller,
) -> None:
    bare = {
        "reference": "withheld-and-bare",
        "service": "shingles",
        "consent_to_inform_gp": False,
        "pharmacy": {"ods": "FPH01"},
        "patient": "whatever",
        "unheard_of": [1, 2],
    }
    taken(await pharmacy.post(PHARMACY.door, bare))


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"reference": None}, 422, "invalid"),
        ({"service": "ear-piercing"}, 422, "invalid"),
        ({"pharmacy": {"name": "Nobody"}}, 422, "invalid"),
        ({"pharmacy": {"ods": "FPH02"}}, 403, "forbidden"),
    ],
)
async def test_what_is_looked_at_is_refused_where_it_is_wrong(
    pharmacy: Caller, change: dict[str, Any], status: int, code: str
) -> None:
    body = consultation(consent_to_inform_gp=False) | change
    problem(await pharmacy.post(PHARMACY.door, body), status, code)


@pytest.mark.parametrize(
    ("change", "status", "code", "said_after"),
    [
        ({"reference": None}, 422, "invalid", "1 problem found; nothing was stored."),
        ({"pharmacy": {"ods": "FPH02"}}, 403, "forbidden", "The body says it comes from FPH02"),
    ],
)
async def test_the_refusal_of_a_body_without_consent_says_what_danger_there_is_in_it(
    pharmacy: Caller, change: Body, status: int, code: str, said_after: str
) -> None:
    body = consultation(consent_to_inform_gp=False, outcome="emergency") | change
    said = problem(await pharmacy.post(PHARMACY.door, body), status, code)["detail"]
    assert said.startswith("Nobody has been told. Call 999 or send the patient to A&E now")
    assert said_after in said
    calm = consultation(consent_to_inform_gp=False) | change
    said = problem(await pharmacy.post(PHARMACY.door, calm), status, code)["detail"]
    assert said.startswith(said_after)


async def test_a_body_without_consent_that_is_refused_unread_says_what_danger_there_is_in_it_too(
    pharmacy: Caller,
) -> None:
    taken(await pharmacy.post(PHARMACY.door, consultation(), key="used-for-another"))
    body = consultation(consent_to_inform_gp=False, outcome="emergency")
    answer = await pharmacy.post(PHARMACY.door, body, key="used-for-another")
    said = problem(answer, 409, "conflict")["detail"]
    assert said.startswith("Nobody has been told. Call 999 or send the patient to A&E now")


async def test_a_correction_that_withdraws_consent_never_says_that_nobody_has_been_told(
    pharmacy: Caller,
) -> None:
    body = reading(196, 124)
    (message, _) = taken(await pharmacy.post(PHARMACY.door, body))["messages"]
    path = f"{PHARMACY.door}/{message['id']}"
    refused = body | {"consent_to_inform_gp": False}
    answer = await pharmacy.put(path, refused, if_match=await pharmacy.etag(message["url"]))
    said = problem(answer, 409, "conflict")["detail"]
    assert said.startswith("The patient no longer consents")


async def test_a_reference_that_was_used_for_what_was_withheld_says_that_nothing_was_sent_under_it(
    pharmacy: Caller,
) -> None:
    body = consultation(consent_to_inform_gp=False)
    (message,) = taken(await pharmacy.post(PHARMACY.door, body))["messages"]
    for again in (body, body | {"consent_to_inform_gp": True}):
        said = problem(await pharmacy.post(PHARMACY.door, again), 409, "conflict")
        assert said["detail"] == (
            f"Your reference was used before, for message {message['id']}. Nothing was sent under "
            "it; use a reference of its own."
        )


async def test_the_sender_sees_that_nothing_was_sent_and_the_practice_sees_nothing(
    pharmacy: Caller, practice: Caller
) -> None:
    body = reading(196, 124, consent_to_inform_gp=False)
    (message,) = taken(await pharmacy.post(PHARMACY.door, body))["messages"]
    shown = await pharmacy.tracked(message["id"])
    assert shown["status"] == "withheld" and shown["deliveries"] == []
    assert shown["line"].startswith("Nothing was sent")
    await pharmacy.place.settled()
    assert message["id"] not in {row["message"] for row in await practice.inbox()}
    problem(await practice.get(message["url"]), 404, "not-found")
    listed = taken(await pharmacy.get("/messages", status="withheld"), 200)["messages"]
    assert message["id"] in {one["id"] for one in listed}


async def test_of_what_was_withheld_nothing_is_shown_that_nobody_said(
    pharmacy: Caller, optometrist: Caller
) -> None:
    unsaid = {"priority", "priority_in_words", "clinical_at", "pathway", "identity_verified"}
    for caller, door, kept_back, sent in (
        (pharmacy, PHARMACY.door, reading(196, 124, consent_to_inform_gp=False), reading(196, 124)),
        (optometrist, OPTOMETRY.door, referral("cataract", consent=False), referral("cataract")),
    ):
        withheld = taken(await caller.post(door, kept_back))["messages"][0]
        other = taken(await caller.post(door, sent))["messages"][0]
        listed = taken(await caller.get("/messages"), 200)["messages"]
        for message, missing in ((withheld, unsaid), (other, set())):
            shown = await caller.tracked(message["id"])
            assert unsaid - shown.keys() == missing
            (row,) = (one for one in listed if one["id"] == message["id"])
            assert {"priority", "pathway"} - row.keys() == missing & {"priority", "pathway"}


@pytest.mark.parametrize("door", ["withdrawal", "closure", "telephone-calls"])
async def test_there_is_nothing_to_take_back_and_the_answer_says_so(
    pharmacy: Caller, door: str
) -> None:
    body = consultation(consent_to_inform_gp=False)
    (message,) = taken(await pharmacy.post(PHARMACY.door, body))["messages"]
    said = {
        "withdrawal": {},
        "closure": {"reason": "no-longer-needed"},
        "telephone-calls": {"outcome": "spoke-to-staff"},
    }[door]
    answer = await pharmacy.post(f"{message['url']}/{door}", said)
    assert "othing was sent" in problem(answer, 409, "conflict")["detail"]


async def test_a_correction_of_what_was_withheld_says_so_too(pharmacy: Caller) -> None:
    body = consultation(consent_to_inform_gp=False)
    (message,) = taken(await pharmacy.post(PHARMACY.door, body))["messages"]
    agreed = body | {"consent_to_inform_gp": True}
    path = f"{PHARMACY.door}/{message['id']}"
    answer = await pharmacy.put(path, agreed, if_match=await pharmacy.etag(message["url"]))
    assert "othing was sent" in problem(answer, 409, "conflict")["detail"]


async def test_an_optometrists_patient_may_refuse_too(optometrist: Caller, place: Place) -> None:
    before = await sizes(place)
    body = referral("retinal-detachment", consent=False)
    sent = taken(await optometrist.post(OPTOMETRY.door, body))
    after = await sizes(place)
    assert {name for name in after if after[name] != before[name]} <= {
        "message",
        "audit",
        "idempotency_key",
        "jti",
    }
    assert sent["messages"][0]["status"] == "withheld"
    assert sent["read_first"][0].startswith("Nobody has been told.")


@pytest.mark.parametrize(
    ("pillar", "kind", "refused"),
    [
        ("pharmacy", "update", "the practice being told"),
        ("optometry", "referral", "being referred"),
    ],
)
async def test_what_was_withheld_is_shown_as_the_kind_that_it_would_have_been(
    pharmacy: Caller, optometrist: Caller, pillar: str, kind: str, refused: str
) -> None:
    caller, door, body = {
        "pharmacy": (pharmacy, PHARMACY.door, consultation(consent_to_inform_gp=False)),
        "optometry": (optometrist, OPTOMETRY.door, referral("cataract", consent=False)),
    }[pillar]
    (message,) = taken(await caller.post(door, body))["messages"]
    assert message["kind"] == kind
    shown = await caller.tracked(message["id"])
    assert shown["kind"] == kind
    assert shown["line"] == f"Nothing was sent: the patient did not consent to {refused}."
    of_its_kind = taken(await caller.get("/messages", kind=kind, status="withheld"), 200)
    assert message["id"] in {one["id"] for one in of_its_kind["messages"]}
    problem(await caller.post(f"{message['url']}/withdrawal", {}), 409, "conflict")
