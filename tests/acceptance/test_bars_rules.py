"""What BaRS demands of a receiver and of its answers, rule by rule (docs/bars.md, Conformance)."""

import asyncio
import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest

from broker.bars import receiving
from broker.bars.waiting import Waiting, Word
from broker.intake import Intake
from sandbox import bars
from tests.acceptance.place import BROKER, Body, Caller, Place, by
from tests.acceptance.test_bars import (
    SERVICE,
    answered,
    referral,
    resources,
    send,
    sent_message,
    state_of,
)
from tests.acceptance.test_fhir_errors import outcome

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

TO_PRACTICE = {"target": "G99001", "system": bars.ODS}
ENGLAND = "https://fhir.hl7.org.uk/CodeSystem/UKCore-NHSNumberVerificationStatusEngland"
RETIRED = "https://fhir.hl7.org.uk/CodeSystem/UKCore-NHSNumberVerificationStatus"


def header(message: Body) -> Body:
    return resources(message, "MessageHeader")[0]


def request(message: Body) -> Body:
    return resources(message, "ServiceRequest")[0]


# -- what a message must say ---------------------------------------------------------------------


def _split(message: Body) -> None:
    codings = request(message)["category"][0]["coding"]
    request(message)["category"] = [{"coding": [one]} for one in codings]
    del request(message)["meta"]["profile"]  # so that no profile says it


FAULTS: list[tuple[str, Callable[[Body], Any], str, str]] = [
    ("two categories", _split, "invariant", "Bundle.entry[1].resource.category"),
    (
        "a consent that was withdrawn",
        lambda m: resources(m, "Consent")[0].update(status="rejected"),
        "invariant",
        "Bundle.entry[13].resource",
    ),
    (
        "a consent that is refused",
        lambda m: resources(m, "Consent")[0]["policyRule"]["coding"][0].update(code="OPTOUT"),
        "invariant",
        "Bundle.entry[13].resource",
    ),
    (
        "an answer to a booking",
        lambda m: header(m)["eventCoding"].update(code="booking-response"),
        "invariant",
        "Bundle.entry[0].resource.eventCoding",
    ),
    (
        "a response to nothing",
        lambda m: header(m)["eventCoding"].update(code="servicerequest-response"),
        "invariant",
        "Bundle.entry[0].resource.response",
    ),
    (
        "a change of what was asked",
        lambda m: header(m)["reason"]["coding"][0].update(code="update"),
        "invariant",
        "Bundle.entry[0].resource.reason",
    ),
    (
        "a plan that goes on",
        lambda m: resources(m, "CarePlan")[0].update(status="active"),
        "invariant",
        "Bundle.entry[0].resource.reason",
    ),
    (
        "an encounter that goes on",
        lambda m: resources(m, "Encounter")[0].update(status="in-progress"),
        "invariant",
        "Bundle.entry[0].resource.reason",
    ),
    (
        "a status that FHIR does not have",
        lambda m: resources(m, "Encounter")[0].update(status="complete"),
        "invariant",
        "Bundle.entry[0].resource.reason",
    ),
]


@pytest.mark.parametrize(
    ("change", "issue", "path"), [one[1:] for one in FAULTS], ids=[one[0] for one in FAULTS]
)
async def test_what_goes_together_in_no_row_of_the_standard_is_refused(
    practice: Caller, change: Callable[[Body], Any], issue: str, path: str
) -> None:
    message = referral()
    change(message)
    found = outcome(await send(practice, message), 400, "REC_BAD_REQUEST", issue)
    assert found["expression"] == [path]


@pytest.mark.parametrize(
    ("system", "code", "is_verified"),
    [
        (RETIRED, "number-present-and-verified", True),
        (ENGLAND, "01", True),
        (RETIRED, "number-present-but-not-traced", False),
        *((ENGLAND, f"0{digit}", False) for digit in range(2, 9)),
    ],
)
async def test_a_number_counts_as_verified_only_where_its_sender_says_so(
    practice: Caller, place: Place, system: str, code: str, is_verified: bool
) -> None:
    message = referral()
    (number,) = resources(message, "Patient")[0]["identifier"]
    number["extension"][0]["valueCodeableConcept"]["coding"] = [{"system": system, "code": code}]
    answered(await send(practice, message), message)
    sent = await sent_message(practice)
    (row,) = await place.rows("SELECT * FROM message WHERE id = :m", m=sent["id"])
    assert bool(row.identity_verified) is is_verified
    assert ("identity-not-verified" in str(row.warnings)) is not is_verified


async def test_a_message_is_sent_by_who_the_token_is_for(place: Place) -> None:
    other = place.of("G99002")
    outcome(await send(other, referral()), 401, "REC_UNAUTHORIZED", "forbidden")


# -- times ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        "2026-11-22T09:30:00.1234567+05:30",
        "2026-11-22T09:30:00-08:00",
        "2016-12-31T23:59:60Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59.9999999-12:00",
    ],
)
async def test_any_time_that_fhir_has_is_read_wherever_it_stands(
    practice: Caller, said: str
) -> None:
    message = referral()
    message["timestamp"] = message["meta"]["lastUpdated"] = said
    for entry in message["entry"]:
        entry["resource"]["meta"]["lastUpdated"] = said
    request(message)["authoredOn"] = said
    request(message)["occurrencePeriod"] = {"end": said}
    resources(message, "Task")[0]["restriction"]["period"] = {"end": said}
    told = answered(await send(practice, message), message)
    cancels = bars.cancellation(message, told)
    request(cancels)["meta"]["lastUpdated"] = said
    assert (await send(practice, cancels)).status_code in {200, 409}


@pytest.mark.parametrize(("hours", "status"), [(-1, 409), (1, 200)])
async def test_which_of_two_times_is_later_does_not_hang_on_how_they_are_written(
    practice: Caller, hours: int, status: int
) -> None:
    message = referral()
    told = answered(await send(practice, message), message)
    cancels = bars.cancellation(message, told)
    # In the east an earlier moment has a later clock, and in the west a later one an earlier.
    zone = timezone(timedelta(hours=-12 * hours))
    moment = datetime.now(UTC) + timedelta(hours=hours)
    request(cancels)["meta"]["lastUpdated"] = moment.astimezone(zone).isoformat()
    assert (await send(practice, cancels)).status_code == status


async def test_the_earliest_end_that_a_message_states_is_by_when_the_patient_must_be_seen(
    practice: Caller,
) -> None:
    message = referral(hours=48)
    task = next(one for one in message["entry"] if one["resource"]["resourceType"] == "Task")
    soonest = datetime.now(UTC) + timedelta(hours=5)
    sooner = copy.deepcopy(task)
    sooner["fullUrl"] = f"urn:uuid:{uuid4()}"
    sooner["resource"]["restriction"]["period"]["end"] = soonest.isoformat()
    message["entry"].append(sooner)
    answered(await send(practice, message), message)
    sent = await sent_message(practice)
    assert by(sent, "seen") == soonest
    assert sent["priority"] == "urgent"


# -- the answer ----------------------------------------------------------------------------------


async def test_the_journey_is_the_senders_own_in_the_answer(practice: Caller) -> None:
    message = referral()
    told = answered(await send(practice, message), message)
    (journey,) = [one["episodeOfCare"] for one in resources(message, "Encounter")]
    assert [one["episodeOfCare"] for one in resources(told, "Encounter")] == [journey, journey]


async def test_the_answer_stamps_what_it_adds_and_nothing_else(practice: Caller) -> None:
    message = referral()
    told = answered(await send(practice, message), message)
    sent = {one["fullUrl"]: one["resource"]["meta"] for one in message["entry"]}
    for entry in told["entry"]:
        meta = entry["resource"]["meta"]
        now = {"lastUpdated": told["meta"]["lastUpdated"], "profile": meta["profile"]}
        assert meta == sent.get(entry["fullUrl"], now)


async def test_an_answer_is_given_in_time_however_long_the_intake_took(
    practice: Caller, monkeypatch: pytest.MonkeyPatch, place: Place
) -> None:
    take, word = Intake.take, Waiting.word
    began: list[float] = []
    ended: list[float] = []

    async def taking(*given: Any) -> Any:
        began.append(asyncio.get_running_loop().time())
        return await take(*given)

    async def waiting(waits: Waiting, message: str, ends: float) -> Word:
        ended.append(ends)
        return await word(waits, message, ends)

    monkeypatch.setattr(Intake, "take", taking)
    monkeypatch.setattr(Waiting, "word", waiting)
    monkeypatch.setattr(receiving, "PATIENCE", 0.2)
    inbox = "service: FPH01-PHARMACY-FIRST\n    channel: inbox"
    nobody = inbox.replace("inbox", f"bars\n    url: http://127.0.0.1:{place.webhook_port}/FHIR/R4")
    async with place.directory((inbox, nobody)):
        message = referral()
        answered(await send(practice, message), message)
    (start,), (ends,) = began, ended
    assert ends <= start + receiving.PATIENCE


async def test_an_answer_is_given_within_the_five_seconds_of_the_standard() -> None:
    assert receiving.PATIENCE < 5


async def test_both_ids_come_back_with_every_answer_of_the_door(practice: Caller) -> None:
    message, wrong = referral(), referral(use_case="a1t1")
    for one, status in ((message, 200), (wrong, 422), (message, 409)):
        ids = bars.headers(SERVICE)
        answer = await send(practice, one, **ids)
        assert answer.status_code == status
        for name in ("X-Request-Id", "X-Correlation-Id"):
            assert answer.headers[name] == ids[name]


async def test_a_retry_while_the_first_is_worked_on_is_told_to_wait(practice: Caller) -> None:
    message, ids = referral(), bars.headers(SERVICE)
    first, second = await asyncio.gather(*(send(practice, message, **ids) for _ in range(2)))
    if first.status_code != 200:
        first, second = second, first
    answered(first, message)
    outcome(second, 425, "REC_TOO_EARLY", "duplicate")
    outcome(await send(practice, message, **ids), 409, "REC_CONFLICT", "duplicate")


# -- what reaches the receiver -------------------------------------------------------------------


def _more(message: Body) -> list[Body]:
    """Return what a practice may send beside the least: each is to reach the pharmacy as it is."""
    patient = next(
        {"reference": one["fullUrl"]}
        for one in message["entry"]
        if one["resource"]["resourceType"] == "Patient"
    )
    meta = {"lastUpdated": message["meta"]["lastUpdated"]}
    reason = "http://hl7.org/fhir/StructureDefinition/questionnaireresponse-reason"
    return [
        {
            "resourceType": "Flag",
            "meta": meta,
            "status": "active",
            "category": [
                {"coding": [{"system": f"{bars.NHS_CODES}flag-categories-bars", "code": "RA"}]}
            ],
            "code": {"text": "Hears badly: speak slowly."},
            "subject": patient,
        },
        {
            "resourceType": "Observation",
            "meta": meta,
            "status": "final",
            "code": {"coding": [{"system": bars.SNOMED, "code": "60621009"}]},
            "subject": patient,
            "effectiveDateTime": message["timestamp"],
            "valueQuantity": {"value": 27.10, "unit": "kg/m2"},
        },
        {
            "resourceType": "QuestionnaireResponse",
            "meta": meta,
            "extension": [
                {"url": reason, "valueCodeableConcept": {"text": "Special Patient Note"}}
            ],
            "status": "completed",
            "subject": patient,
            "item": [{"linkId": "1", "text": "Key safe", "answer": [{"valueString": "By side."}]}],
        },
        {
            "resourceType": "AllergyIntolerance",
            "meta": meta,
            "clinicalStatus": {
                "coding": [{"system": f"{bars.HL7}allergyintolerance-clinical", "code": "active"}]
            },
            "code": {"text": "Penicillin: rash, today"},
            "patient": patient,
        },
        {
            "resourceType": "MedicationStatement",
            "meta": meta,
            "status": "active",
            "medicationCodeableConcept": {"text": "Paracetamol 500 mg, today"},
            "subject": patient,
        },
    ]


async def test_flags_notes_findings_and_what_is_new_reach_the_receiver_byte_for_byte(
    practice: Caller, pharmacy: Caller
) -> None:
    message = referral()
    more = [{"fullUrl": f"urn:uuid:{uuid4()}", "resource": one} for one in _more(message)]
    message["entry"] += more
    answered(await send(practice, message), message)
    row = await pharmacy.take((await sent_message(practice))["id"])
    got = (await pharmacy.get(f"/inbox/{row['id']}")).content
    for one in more:
        assert json.dumps(one).encode() in got


async def test_the_receiver_is_shown_who_sent_it_though_it_be_another_than_the_patients_practice(
    practice: Caller, pharmacy: Caller
) -> None:
    message = bars.referral(sender="G99001", receiver="FPH01", service=SERVICE, practice="G99002")
    answered(await send(practice, message), message)
    row = await pharmacy.take((await sent_message(practice))["id"])
    got: Body = (await pharmacy.get(f"/inbox/{row['id']}")).json()
    whose = header(got)["sender"]["reference"]
    sender = next(one["resource"] for one in got["entry"] if one["fullUrl"] == whose)
    assert sender["identifier"][0]["value"] == "G99001"
    assert sender["name"]
    assert {"G99001", "G99002"} <= {
        one["identifier"][0]["value"] for one in resources(got, "Organization")
    }


# -- a referral's life ---------------------------------------------------------------------------


async def test_what_was_completed_is_never_cancelled_nor_goes_on(
    practice: Caller, pharmacy: Caller
) -> None:
    message = referral()
    told = answered(await send(practice, message), message)
    ends = bars.response(message, encounter="finished", status="completed")
    answered(await send(pharmacy, ends, **TO_PRACTICE), ends)
    sent = await sent_message(practice)
    cancels = bars.cancellation(message, told)
    outcome(await send(practice, cancels), 409, "REC_CONFLICT", "conflict")
    for encounter in ("in-progress", "finished", "cancelled"):
        late = bars.response(message, encounter=encounter)
        outcome(await send(pharmacy, late, **TO_PRACTICE), 409, "REC_CONFLICT", "conflict")
    assert await state_of(practice, sent) == "completed"


async def test_a_patient_is_referred_again_under_the_same_correlation_after_a_cancellation(
    practice: Caller, pharmacy: Caller, place: Place
) -> None:
    first, ids = referral(), bars.headers(SERVICE)
    told = answered(await send(practice, first, **ids), first)
    old = await sent_message(practice)
    same = {"X-Correlation-Id": ids["X-Correlation-Id"]}
    cancels = bars.cancellation(first, told)
    answered(await send(practice, cancels, **same), cancels)
    again = referral()
    answered(await send(practice, again, **same), again)
    new = await sent_message(practice)
    assert new["id"] != old["id"]
    await pharmacy.take(new["id"])
    assert await state_of(practice, old) == "cancelled"
    assert await state_of(practice, new) == "received"
    rows = await place.rows(
        "SELECT correlation_id FROM event WHERE message_id IN (:a, :b)", a=old["id"], b=new["id"]
    )
    assert {one.correlation_id for one in rows} == {ids["X-Correlation-Id"]}


async def test_a_patient_who_did_not_come_is_the_senders_to_look_after_again(
    practice: Caller, pharmacy: Caller
) -> None:
    message = referral()
    answered(await send(practice, message), message)
    sent = await sent_message(practice)
    missed = bars.response(message, encounter="finished", status="revoked")
    answered(await send(pharmacy, missed, **TO_PRACTICE), missed)
    assert await state_of(practice, sent) == "rejected"
    heard = await practice.heard(sent["id"], "rejected")
    assert "did not attend" in heard.advice


async def test_a_second_message_leaves_the_first_one_as_it_was(
    practice: Caller, place: Place
) -> None:
    message = referral()
    told = answered(await send(practice, message), message)
    cancels = bars.cancellation(message, told)
    patient = resources(cancels, "Patient")[0]
    patient["name"] = [{"text": "Somebody Else"}]
    answered(await send(practice, cancels), cancels)
    read = await practice.get(f"/FHIR/R4/Patient/{resources(told, 'Patient')[0]['id']}")
    assert read.json()["name"] == resources(message, "Patient")[0]["name"]


# -- who did what --------------------------------------------------------------------------------


async def test_every_message_is_audited_whether_it_was_taken_or_refused(
    practice: Caller, place: Place
) -> None:
    async def audited() -> list[tuple[str, str]]:
        rows = await place.rows(
            "SELECT action, organisation FROM audit WHERE actor = 'acceptance'"
            " AND action <> 'token.issued' ORDER BY seq"
        )
        return [(one.action, one.organisation) for one in rows]

    before = len(await audited())
    message = referral()
    told = answered(await send(practice, message), message)
    cancels = bars.cancellation(message, told)
    answered(await send(practice, cancels), cancels)
    wrong = copy.deepcopy(message)
    del wrong["meta"]["versionId"]
    await send(practice, wrong)
    assert [one for one in (await audited())[before:] if one[1] == "G99001"] == [
        ("message.accepted", "G99001"),
        ("referral.moved", "G99001"),
        ("message.refused", "G99001"),
    ]


# -- applications --------------------------------------------------------------------------------


async def test_a_use_case_that_was_withdrawn_is_taken_with_a_warning(
    practice: Caller, place: Place
) -> None:
    async with place.directory(("pathways: [a5t1]", "pathways: [a5t1, a5t2, a5t3]")):
        for use_case in ("a5t2", "a5t3"):
            message = referral(use_case=use_case)
            answered(await send(practice, message), message)
            sent = await sent_message(practice)
            rows = await place.rows("SELECT warnings FROM message WHERE id = :m", m=sent["id"])
            assert "use-case-withdrawn" in str(rows)


async def test_what_was_referred_to_the_broker_is_not_cancelled_by_message(
    practice: Caller, place: Place
) -> None:
    system, _, value = BROKER.partition("|")
    async with place.directory(("pathways: [a5t1]", "pathways: [a5t1, a8t1]")):
        message = bars.broker_referral(sender="G99001", broker=BROKER, shortlist=[SERVICE])
        told = answered(await send(practice, message, value, system), message)
        cancels = bars.cancellation(message, told)
        answer = await send(practice, cancels, value, system)
    outcome(answer, 422, "REC_UNPROCESSABLE_ENTITY", "not-supported")
