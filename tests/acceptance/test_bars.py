"""The BaRS front door: a practice's own BaRS system refers to a pharmacy, over $process-message."""

import copy
import json
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from fhir_profiles.profiles import ours
from sandbox import bars
from tests.acceptance.place import BROKER, Body, Caller, Place, consultation, problem, taken
from tests.acceptance.test_fhir_errors import outcome

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOOR = "/FHIR/R4/$process-message"
SERVICE = "2000099901"


def referral(**changes: Any) -> Body:
    return bars.referral(sender="G99001", receiver="FPH01", service=SERVICE, **changes)


async def send(
    caller: Caller,
    message: Body,
    target: str = SERVICE,
    system: str = bars.DOS,
    **headers: str | None,
) -> httpx2.Response:
    """Send a message with its headers; one that is None is left out."""
    whole: dict[str, str | None] = {**bars.headers(target, system=system), **headers}
    given = {name: value for name, value in whole.items() if value is not None}
    return await caller.call("POST", DOOR, content=json.dumps(message), headers=given)


def answered(answer: httpx2.Response, message: Body) -> Body:
    """Return a message's answer: a message Bundle, sound, that names what it answers."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/fhir+json; charset=utf-8"
    found = [one for one in ours().check(answer.content) if one.severity == "error"]
    assert found == []
    said: Body = answer.json()
    header = said["entry"][0]["resource"]
    assert header["response"] == {"identifier": message["id"], "code": "ok"}
    return said


def resources(bundle: Body, kind: str) -> list[Body]:
    return [one["resource"] for one in bundle["entry"] if one["resource"]["resourceType"] == kind]


@pytest.fixture
def practice(place: Place) -> Caller:
    return place.of("G99001")


async def test_a_referral_is_taken_and_the_answer_claims_no_more_than_that(
    practice: Caller, place: Place
) -> None:
    message = referral()
    said = answered(await send(practice, message), message)
    sent = {one["fullUrl"]: one["resource"] for one in message["entry"]}
    for entry in said["entry"][1:-1]:
        given = dict(entry["resource"])
        assert given.pop("id")
        original = {k: v for k, v in sent[entry["fullUrl"]].items() if k != "id"}
        assert given == original
    first, planned = resources(said, "Encounter")
    assert (first["status"], planned["status"]) == ("finished", "planned")
    assert "Held by the broker, not yet with the service." in planned["text"]["div"]
    reference = planned["identifier"][0]["value"]
    assert reference in planned["text"]["div"]
    listed = taken(await practice.get("/messages", limit=1), 200)["messages"]
    assert listed[0]["id"].upper().endswith(reference.replace("-", ""))


async def test_it_stands_in_the_pharmacys_inbox_as_any_other_referral(
    practice: Caller, pharmacy: Caller
) -> None:
    message = referral()
    answered(await send(practice, message), message)
    (sent,) = taken(await practice.get("/messages", limit=1), 200)["messages"]
    row = await pharmacy.take(sent["id"])
    got = await pharmacy.collect(row)
    assert got.kind == "referral"
    found = json.loads(got.body)
    # An inbox speaks UK Core: the status in its code, everything else byte for byte.
    (patient,) = resources(found, "Patient")
    assert patient["identifier"][0]["extension"][0]["valueCodeableConcept"]["coding"] == [
        {
            "system": "https://fhir.hl7.org.uk/CodeSystem/"
            "UKCore-NHSNumberVerificationStatusEngland",
            "code": "01",
            "display": "Number present and verified",
        }
    ]
    text = json.dumps(message)
    for one in message["entry"][1:]:
        if one["resource"]["resourceType"] != "Patient":
            assert json.dumps(one) in text and json.dumps(one).encode() in got.body
    (header,) = resources(found, "MessageHeader")
    assert header["eventCoding"]["code"] == "referral-request"
    tracked = await practice.tracked(sent["id"])
    referred = taken(await practice.get(tracked["referral"]), 200)
    assert (referred["state"], referred["pathway"]) == ("received", "a5t1")
    assert {one["kind"] for one in tracked["deadlines"]} >= {"received", "decided", "seen"}


async def sent_message(caller: Caller) -> Body:
    """Return what this organisation sent last, as it is tracked."""
    (newest,) = taken(await caller.get("/messages", limit=1), 200)["messages"]
    return await caller.tracked(newest["id"])


async def state_of(caller: Caller, message: Body) -> str:
    found: str = taken(await caller.get(message["referral"]), 200)["state"]
    return found


# -- knowing a request again ---------------------------------------------------------------------


async def test_a_repeat_is_a_duplicate_for_ever_and_another_body_a_conflict(
    practice: Caller, place: Place
) -> None:
    message, ids = referral(), bars.headers(SERVICE)
    answered(await send(practice, message, **ids), message)
    before = await place.rows("SELECT count(*) FROM message WHERE kind = 'referral'")
    for _ in range(2):
        outcome(await send(practice, message, **ids), 409, "REC_CONFLICT", "duplicate")
    other = {**message, "timestamp": "2026-11-22T10:00:00Z"}
    outcome(await send(practice, other, **ids), 409, "REC_CONFLICT", "conflict")
    elsewhere = bars.encoded({"system": bars.DOS, "value": "1"})
    again = {**ids, "NHSD-Target-Identifier": elsewhere}
    outcome(await send(practice, message, **again), 409, "REC_CONFLICT", "conflict")
    assert await place.rows("SELECT count(*) FROM message WHERE kind = 'referral'") == before


async def test_the_same_bundle_under_another_request_id_is_a_conflict_never_a_duplicate(
    practice: Caller,
) -> None:
    message = referral()
    answered(await send(practice, message), message)
    outcome(await send(practice, message), 409, "REC_CONFLICT", "conflict")


async def test_a_final_refusal_is_repeated_as_it_was(practice: Caller) -> None:
    message, ids = referral(use_case="a1t1"), bars.headers(SERVICE)
    answers = [await send(practice, message, **ids) for _ in range(2)]
    for answer in answers:
        outcome(answer, 422, "REC_UNPROCESSABLE_ENTITY", "not-supported")
    assert answers[0].content == answers[1].content
    outcome(await send(practice, referral(), **ids), 409, "REC_CONFLICT", "conflict")


# -- a referral's life ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["revoked", "entered-in-error"])
@pytest.mark.parametrize("reason", ["update", "delete"])
async def test_its_sender_cancels_a_referral(
    practice: Caller, pharmacy: Caller, status: str, reason: str
) -> None:
    message = referral()
    said = answered(await send(practice, message), message)
    sent = await sent_message(practice)
    await pharmacy.take(sent["id"])
    cancels = bars.cancellation(message, said, status=status, reason=reason)
    answered(await send(practice, cancels), cancels)
    assert await state_of(practice, sent) == "cancelled"
    await pharmacy.heard(sent["id"], "cancelled")
    again = bars.cancellation(message, said, status=status, reason=reason)
    outcome(await send(practice, again), 409, "REC_CONFLICT", "conflict")


async def test_a_cancellation_names_what_it_cancels_and_only_its_sender_may(
    practice: Caller, place: Place
) -> None:
    message = referral()
    said = answered(await send(practice, message), message)
    cancels = bars.cancellation(message, said)
    (request,) = resources(cancels, "ServiceRequest")
    given = request.pop("id")
    wrong = outcome(await send(practice, cancels), 400, "REC_BAD_REQUEST", "required")
    assert wrong["expression"] == ["Bundle.entry[1].resource.id"]
    request["id"] = str(uuid4())
    outcome(await send(practice, cancels), 404, "REC_NOT_FOUND", "not-found")
    request["id"] = given
    stranger = copy.deepcopy(cancels)
    for one in resources(stranger, "Organization"):
        if one["identifier"][0]["value"] == "G99001":
            one["identifier"][0]["value"] = "G99002"
    answer = await send(place.of("G99002"), stranger)
    outcome(answer, 404, "REC_NOT_FOUND", "not-found")


async def test_a_cancellation_that_is_no_newer_than_the_referral_is_a_conflict(
    practice: Caller,
) -> None:
    message = referral()
    said = answered(await send(practice, message), message)
    cancels = bars.cancellation(message, said)
    (old,), (request,) = resources(message, "ServiceRequest"), resources(cancels, "ServiceRequest")
    request["meta"]["lastUpdated"] = old["meta"]["lastUpdated"]
    outcome(await send(practice, cancels), 409, "REC_CONFLICT", "conflict")


async def test_an_id_that_is_none_of_ours_names_nothing_here(
    practice: Caller, pharmacy: Caller
) -> None:
    message = referral()
    said = answered(await send(practice, message), message)
    cancels = bars.cancellation(message, said)
    (request,) = resources(cancels, "ServiceRequest")
    request["id"] = "our-own-id-1"
    outcome(await send(practice, cancels), 404, "REC_NOT_FOUND", "not-found")
    request["id"] = resources(said, "Patient")[0]["id"]
    outcome(await send(practice, cancels), 404, "REC_NOT_FOUND", "not-found")
    stray = bars.response(message, encounter="in-progress", bundle="your-bundle-1")
    answer = await send(pharmacy, stray, "G99001", bars.ODS)
    outcome(answer, 404, "REC_NOT_FOUND", "not-found")


async def test_what_is_said_of_a_referral_is_about_the_same_patient(
    practice: Caller, pharmacy: Caller
) -> None:
    message = referral()
    said = answered(await send(practice, message), message)
    sent = await sent_message(practice)
    cancels = bars.cancellation(message, said)
    accepts = bars.response(message, encounter="in-progress")
    for one in (cancels, accepts):
        (patient,) = resources(one, "Patient")
        patient["identifier"][0]["value"] = "9990000026"
    wrong = outcome(await send(practice, cancels), 400, "REC_BAD_REQUEST", "invariant")
    assert wrong["expression"][0].endswith(".resource.identifier")
    answer = await send(pharmacy, accepts, "G99001", bars.ODS)
    outcome(answer, 400, "REC_BAD_REQUEST", "invariant")
    assert await state_of(practice, sent) == "requested"


async def test_its_receiver_says_how_a_referral_goes_on(practice: Caller, pharmacy: Caller) -> None:
    message = referral()
    answered(await send(practice, message), message)
    sent = await sent_message(practice)
    accepts = bars.response(message, encounter="in-progress")
    ods = {"target": "G99001", "system": bars.ODS}
    answered(await send(pharmacy, accepts, **ods), accepts)
    assert await state_of(practice, sent) == "accepted"
    repeated = bars.response(message, encounter="in-progress")
    answered(await send(pharmacy, repeated, **ods), repeated)
    done = {"text": "Treated for a sore throat."}
    ends = bars.response(message, encounter="finished", reason=done)
    answered(await send(pharmacy, ends, **ods), ends)
    assert await state_of(practice, sent) == "completed"
    assert await practice.notices(sent["id"]) == ["accepted", "completed"]


async def test_a_referral_rejected_over_bars_waits_for_its_sender_with_the_reason(
    practice: Caller, pharmacy: Caller
) -> None:
    message = referral()
    answered(await send(practice, message), message)
    sent = await sent_message(practice)
    row = await pharmacy.take(sent["id"])
    coded = {
        "coding": [{"system": f"{bars.NHS_CODES}rejected-reasons-bars", "code": "RRNA"}],
        "text": "Closed for the day.",
    }
    rejects = bars.response(message, encounter="cancelled", reason=coded, bundle=row["id"])
    answered(await send(pharmacy, rejects, "G99001", bars.ODS), rejects)
    assert await state_of(practice, sent) == "rejected"
    heard = await practice.heard(sent["id"], "rejected")
    assert "Closed for the day." in heard.advice


async def test_a_response_to_nothing_known_here_is_not_found(
    pharmacy: Caller, place: Place, practice: Caller
) -> None:
    message = referral()
    answered(await send(practice, message), message)
    stray = bars.response(message, encounter="in-progress", bundle=str(uuid4()))
    answer = await send(pharmacy, stray, "G99001", bars.ODS)
    outcome(answer, 404, "REC_NOT_FOUND", "not-found")
    stranger = bars.response(message, encounter="in-progress")
    for one in resources(stranger, "Organization"):
        if one["identifier"][0]["value"] == "FPH01":
            one["identifier"][0]["value"] = "TPX01"
    answer = await send(place.of("TPX01"), stranger, "G99001", bars.ODS)
    outcome(answer, 404, "REC_NOT_FOUND", "not-found")


# -- to the broker itself ------------------------------------------------------------------------


async def to_broker(caller: Caller, **changes: Any) -> tuple[Body, httpx2.Response]:
    given: Body = {"shortlist": ["1", SERVICE], **changes}
    message = bars.broker_referral(sender="G99001", broker=BROKER, **given)
    system, _, value = BROKER.partition("|")
    return message, await send(caller, message, value, system)


async def test_a_referral_to_the_broker_goes_to_the_first_of_its_shortlist_that_takes_it(
    practice: Caller, pharmacy: Caller, place: Place
) -> None:
    takes = ("pathways: [a5t1]", "pathways: [a5t1, a8t1]")
    async with place.directory(takes):
        message, answer = await to_broker(practice)
        answered(answer, message)
        sent = await sent_message(practice)
        row = await pharmacy.arrived(sent["id"])
    assert sent["priority"] == "urgent"
    got = await pharmacy.collect(row)
    bundle = json.loads(got.body)
    assert resources(bundle, "CarePlan") and resources(bundle, "Device")


@pytest.mark.parametrize(
    ("code", "priority"), [("2WW", "urgent"), ("U", "urgent"), ("R", "routine")]
)
async def test_a_two_week_wait_never_stands_behind_what_is_urgent(
    practice: Caller, place: Place, code: str, priority: str
) -> None:
    async with place.directory(("pathways: [a5t1]", "pathways: [a5t1, a8t1]")):
        message, answer = await to_broker(practice, priority=code)
        answered(answer, message)
    assert (await sent_message(practice))["priority"] == priority


async def test_without_a_service_that_takes_it_a_referral_to_the_broker_is_refused(
    practice: Caller,
) -> None:
    _, answer = await to_broker(practice, shortlist=["1", "2"])
    outcome(answer, 422, "REC_UNPROCESSABLE_ENTITY", "not-supported")


async def test_who_is_referred_to_the_broker_is_verified_and_has_an_address(
    practice: Caller,
) -> None:
    system, _, value = BROKER.partition("|")
    message = bars.broker_referral(sender="G99001", broker=BROKER, shortlist=[SERVICE])
    (patient,) = resources(message, "Patient")
    del patient["identifier"], patient["address"]
    answer = await send(practice, message, value, system)
    outcome(answer, 400, "REC_BAD_REQUEST", "required")
    paths = [one["expression"][0].rpartition(".")[2] for one in answer.json()["issue"]]
    assert paths == ["identifier", "address"]


async def test_what_came_by_bars_is_read_under_the_ids_that_its_answer_gave(
    practice: Caller, pharmacy: Caller, place: Place
) -> None:
    message = referral()
    said = answered(await send(practice, message), message)
    given = {one["fullUrl"]: one["resource"] for one in said["entry"][1:-1]}
    for resource in given.values():
        path = f"/FHIR/R4/{resource['resourceType']}/{resource['id']}"
        for caller in (practice, pharmacy):
            read = taken(await caller.get(path), 200)
            assert read["meta"].pop("versionId") == "1"
            assert read | {"meta": 0} == resource | {"meta": 0}
        assert (await place.of("RYY01").get(path)).status_code == 404
    (asked,) = [one for one in given.values() if one["resourceType"] == "ServiceRequest"]
    found = taken(
        await pharmacy.get(
            "/FHIR/R4/ServiceRequest",
            category=asked["category"][0]["coding"][-1]["code"],
            _id=asked["id"],
            _include="ServiceRequest:patient",
        ),
        200,
    )
    match, patient = found["entry"]
    assert match["resource"]["id"] == asked["id"]
    assert patient["fullUrl"] == asked["subject"]["reference"]
    assert patient["resource"]["id"] == given[patient["fullUrl"]]["id"]


# -- the loop is closed --------------------------------------------------------------------------


def seen(referral_id: str, **changes: Any) -> Body:
    """Return the consultation of a patient whom a practice had referred."""
    source = {"kind": "general-practice", "organisation": "G99001", "referral": referral_id}
    body = consultation("minor-illness", practice="G99001", source=source, **changes)
    body["patient"]["nhs_number"] = "9990000018"
    return body


@pytest.mark.parametrize("named", ["referral", "id"])
async def test_the_pharmacys_consultation_is_the_record_and_the_end_of_the_referral(
    practice: Caller, pharmacy: Caller, named: str
) -> None:
    message = referral()
    answered(await send(practice, message), message)
    sent = await sent_message(practice)
    taken(await pharmacy.post("/pharmacy/consultations", seen(sent[named].rpartition("/")[2])))
    assert await state_of(practice, sent) == "completed"
    heard = await practice.heard(sent["id"], "completed")
    assert "The consultation was sent" in heard.advice
    assert any(row["kind"] == "update" for row in await practice.inbox())
    # Once more: the record goes, and the referral stays as it is.
    again = taken(
        await pharmacy.post("/pharmacy/consultations", seen(sent[named].rpartition("/")[2]))
    )
    assert "referral-over" in [one["code"] for one in again["warnings"]]


async def test_a_consultation_ends_no_referral_of_others_nor_about_somebody_else(
    practice: Caller, pharmacy: Caller, place: Place
) -> None:
    message = referral()
    answered(await send(practice, message), message)
    sent = await sent_message(practice)
    subject = sent["referral"].rpartition("/")[2]
    other = seen(subject)
    other["patient"]["nhs_number"] = "9990000026"
    stranger = seen(subject)
    stranger["pharmacy"]["ods"] = "FPH02"
    for caller, body, code in (
        (pharmacy, seen(str(uuid4())), "unknown-referral"),
        (place.of("FPH02"), stranger, "unknown-referral"),
        (pharmacy, other, "another-patient"),
    ):
        said = problem(await caller.post("/pharmacy/consultations", body), 422, "invalid")
        assert [(one["field"], one["code"]) for one in said["problems"]] == [
            ("source.referral", code)
        ]
    assert await state_of(practice, sent) == "requested"
