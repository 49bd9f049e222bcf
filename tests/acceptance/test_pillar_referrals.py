"""Every pathway, referred by every pillar that may: it goes to the right place, and says all."""

import json
from typing import Any, Final
from uuid import uuid4

import pytest

from broker import registry
from fhir_profiles.pathways.catalogue import catalogue, service_words
from tests.acceptance.place import Body, Place, kinds, problem, taken, warned

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOORS: Final = {
    name.partition(".")[0]: adapter
    for name, adapter in registry.load().adapters.items()
    if name.endswith(".referrals") or name == "optometry"
}
EVERY: Final = [
    pytest.param(pillar, pathway, id=f"{pillar}-{pathway}")
    for pillar, adapter in DOORS.items()
    for pathway, body in adapter.examples.items()
    if "pathway" in body  # a sight test is an optometrist's own: see test_journeys.py
]


def unmodified(pillar: str, pathway: str, /) -> Body:
    """Return a complete example as it is published."""
    found: Body = json.loads(json.dumps(DOORS[pillar].examples[pathway]))
    return found


def example(pillar: str, pathway: str, /, **changes: Any) -> Body:
    """Return a complete example under a reference of its own, with changes; None leaves out."""
    body = unmodified(pillar, pathway) | {"reference": str(uuid4())} | changes
    return {name: said for name, said in body.items() if said is not None}


def sender(pillar: str, body: Body) -> str:
    """Return the ODS code of who refers."""
    if pillar == "optometry":
        return str(body["optical_practice"]["ods"])
    ods: str = body[DOORS[pillar].accepts.sender_field]["ods"]
    return ods


@pytest.mark.parametrize(("pillar", "pathway"), EVERY)
async def test_every_example_goes_unmodified_to_who_the_pathway_is_for(
    place: Place, pillar: str, pathway: str
) -> None:
    body, entry = unmodified(pillar, pathway), catalogue().entries[pathway]
    caller = place.of(sender(pillar, body))
    answer = taken(await caller.post(DOORS[pillar].door, body))
    assert kinds(answer) == ["referral"]
    (message,) = answer["messages"]
    acting, *copies = message["destinations"]
    assert acting["role"] == "acting"
    reason = entry.reason(body["reason"]["code"])
    assert reason is not None
    receiver = reason.receiver or entry.receivers[0]
    assert "provider" in body or service_words(receiver) in acting["reason"]
    told = [one["organisation"] for one in copies]
    assert told == ([] if pillar == "general-practice" else ["G99001"])
    await place.of(acting["organisation"]).arrived(message["id"])


DENTIST: Final = "dentistry"
ORAL_CANCER: Final = "suspected-oral-cancer"


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"pathway": "no-such-pathway"}, "pathway", "unknown-pathway"),
        ({"pathway": "urgent-medicine-supply"}, "pathway", "not-a-sender"),
        ({"reason": {"code": "cataract"}}, "reason.code", "not-in-list"),
        ({"tooth_or_area": None}, "tooth_or_area", "missing"),
        ({"patient_informed": None}, "patient_informed", "missing"),
        ({"red_flags": ["sudden-hearing-loss"]}, "red_flags[0]", "not-in-list"),
        ({"eye": "right"}, "eye", "unknown-field"),
        ({"asa_grade": 9}, "asa_grade", "invalid"),
    ],
)
async def test_what_the_pathway_does_not_take_is_refused_in_the_senders_own_fields(
    place: Place, changes: Body, field: str, code: str
) -> None:
    body = example(DENTIST, ORAL_CANCER, **changes)
    dentist = place.of("V99001")
    refused = problem(await dentist.post(DOORS[DENTIST].door, body), 422, "invalid")
    assert (field, code) in {(one["field"], one["code"]) for one in refused["problems"]}, refused
    assert refused["detail"].startswith("Nothing was sent. Telephone")


async def test_a_red_flag_makes_it_same_day_and_says_what_must_not_wait(place: Place) -> None:
    body = example("community", "podiatry", red_flags=["limb-in-danger"], urgency="routine")
    answer = taken(await place.of("RYC01").post(DOORS["community"].door, body))
    assert answer["messages"][0]["priority"] == "stat"
    assert any("emergency department" in one for one in answer["read_first"])
    assert warned(answer) == ["urgency-raised"]


async def test_who_agrees_to_nothing_is_kept_nowhere_and_an_emergency_is_said(place: Place) -> None:
    body = example(DENTIST, "urgent-dental", consent=False, red_flags=["signs-of-sepsis"])
    answer = taken(await place.of("V99001").post(DOORS[DENTIST].door, body))
    assert [one["status"] for one in answer["messages"]] == ["withheld"]
    assert answer["read_first"][0].startswith("Nobody has been told.")
    assert "Call 999 now" in answer["read_first"][0]


async def test_a_patient_who_refers_themselves_is_told_apart_everywhere(place: Place) -> None:
    body = example("patients", "musculoskeletal")
    answer = taken(await place.of("X99012").post("/self-referrals", body))
    assert "not-seen-by-a-clinician" in {one["code"] for one in answer["warnings"]}
    (message,) = answer["messages"]
    row = await place.of("RYC01").arrived(message["id"])
    content = (await place.of("RYC01").get(f"/inbox/{row['id']}")).json()
    flags = [
        one["resource"]["code"]["coding"][0]["code"]
        for one in content["entry"]
        if one["resource"]["resourceType"] == "Flag"
    ]
    assert "not-seen-by-a-clinician" in flags
    assert not [
        one for one in content["entry"] if "Practitioner" in one["resource"]["resourceType"]
    ]


async def test_a_patient_with_a_red_flag_is_refused_with_what_to_show_at_once(place: Place) -> None:
    body = example("patients", "urgent-dental", red_flags=["swelling-towards-the-airway"])
    answer = problem(await place.of("X99012").post("/self-referrals", body), 422, "invalid")
    (one,) = answer["problems"]
    assert (one["field"], one["code"]) == ("red_flags[0]", "emergency")
    assert one["detail"].startswith("Call 999 now.")
    assert answer["detail"].startswith("Nothing was sent.")


async def test_a_referral_is_corrected_by_its_pillars_own_door(place: Place) -> None:
    dentist, door = place.of("V99001"), DOORS[DENTIST].door
    body = example(DENTIST, "orthodontics")
    (message,) = taken(await dentist.post(door, body))["messages"]
    await place.of("RXX01").arrived(message["id"])
    version = await dentist.etag(f"/messages/{message['id']}")
    body["iotn"]["dental_health"] = 5
    made = taken(await dentist.put(f"{door}/{message['id']}", body, if_match=version), 200)
    assert made["replaces"] == message["id"]


async def test_the_practice_gets_a_copy_of_what_another_provider_is_named_for(place: Place) -> None:
    """Also where the catalogue would have asked the practice itself to act."""
    entry, reason = next(
        (entry, reason)
        for entry in catalogue().entries.values()
        for reason in entry.reasons
        if reason.receiver == "general-practice" and "pharmacy" in entry.senders
    )
    named = {"ods": "RXX01", "service": "RXX01-EYE-CASUALTY"}
    for provider, told in ((None, {"G99001"}), (named, {"RXX01", "G99001"})):
        body = example("pharmacy", entry.id, reason={"code": reason.code}, provider=provider)
        answer = taken(await place.of("FPH01").post(DOORS["pharmacy"].door, body))
        (message,) = answer["messages"]
        assert {one["organisation"] for one in message["destinations"]} == told


async def test_what_is_said_of_neither_eye_is_not_said(place: Place) -> None:
    body = example("general-practice", "cataract", acuities={})
    refused = problem(
        await place.of("G99001").post(DOORS["general-practice"].door, body), 422, "invalid"
    )
    assert [one["field"] for one in refused["problems"]] == ["acuities.right"]
