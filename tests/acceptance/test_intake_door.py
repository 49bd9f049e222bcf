"""The doors that pharmacies and optometrists post to: what is taken, what is refused, and how."""

import asyncio
import copy
import json
from typing import Any
from uuid import uuid4

import pytest

from adapters.pharmacy import ADAPTER as PHARMACY
from adapters.pillars.optometry.door import REFERRALS as OPTOMETRY
from fhir_profiles.pathways.catalogue import catalogue
from tests.acceptance.place import (
    Body,
    Caller,
    Place,
    consultation,
    first,
    problem,
    reading,
    referral,
    taken,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOORS = {"pharmacy": PHARMACY.door, "optometry": OPTOMETRY.door}
SENDERS = {"pharmacy": "FPH01", "optometry": "TPX01"}


@pytest.mark.parametrize(
    ("adapter", "name"),
    [(a, name) for a in (PHARMACY, OPTOMETRY) for name in a.examples],
    ids=lambda one: getattr(one, "name", one),
)
async def test_every_example_of_the_page_is_taken_as_it_stands(
    place: Place, adapter: Any, name: str
) -> None:
    page = (await place.http.get("/openapi.json")).json()
    content = page["paths"][adapter.door]["post"]["requestBody"]["content"]["application/json"]
    body = content["examples"][name]["value"]
    sent = taken(await place.of(SENDERS[adapter.name]).post(adapter.door, body))
    for message in sent["messages"]:
        assert message["destinations"]
        assert all(one["reason"] for one in message["destinations"])
        assert message["deadlines"]


async def test_each_of_the_twelve_services_has_an_example() -> None:
    services = {one["service"] for one in PHARMACY.examples.values()}
    assert len(services) == 12


# -- keys and references -------------------------------------------------------------------------


@pytest.mark.parametrize("key", [None, "", "x" * 256, "with a space", "tab\tbed"])
async def test_a_post_without_a_usable_key_is_400(pharmacy: Caller, key: str | None) -> None:
    headers = {"content-type": "application/json"}
    if key is not None:
        headers["idempotency-key"] = key
    answer = await pharmacy.call("POST", PHARMACY.door, json=consultation(), headers=headers)
    problem(answer, 400, "key-required")


@pytest.mark.parametrize("door", DOORS)
async def test_the_same_key_and_body_get_the_same_bytes_again(place: Place, door: str) -> None:
    caller = place.of(SENDERS[door])
    body = consultation() if door == "pharmacy" else referral()
    answers = [await caller.post(DOORS[door], body, key=f"again-{door}") for _ in range(3)]
    assert {one.status_code for one in answers} == {202}
    assert len({one.content for one in answers}) == 1
    rows = await place.rows(
        "SELECT id FROM message WHERE correlation_id = :c AND kind != 'notice'",
        c=answers[0].json()["correlation_id"],
    )
    assert len(rows) == 1


async def test_posts_of_one_key_at_the_same_time_make_one_message(
    pharmacy: Caller, place: Place
) -> None:
    body = consultation()
    before = await place.rows("SELECT count(*) FROM message")
    answers = await asyncio.gather(
        *(pharmacy.post(PHARMACY.door, body, key="at-once") for _ in range(5))
    )
    assert {one.status_code for one in answers} <= {202, 425}
    for early in (one for one in answers if one.status_code == 425):
        assert int(early.headers["retry-after"]) >= 1
    assert len({one.content for one in answers if one.status_code == 202}) == 1
    assert (await place.rows("SELECT count(*) FROM message"))[0][0] == before[0][0] + 1


async def test_another_body_under_the_same_key_is_409(pharmacy: Caller) -> None:
    body = consultation()
    sent = taken(await pharmacy.post(PHARMACY.door, body, key="other-body"))
    answer = await pharmacy.post(PHARMACY.door, body | {"plan": "Something else"}, key="other-body")
    assert first(sent)["id"] in problem(answer, 409, "conflict")["detail"]


async def test_the_same_reference_under_another_key_is_409_and_names_the_message(
    pharmacy: Caller, optometrist: Caller
) -> None:
    for caller, body in ((pharmacy, consultation()), (optometrist, referral())):
        sent = await caller.submit(body)
        door = PHARMACY.door if "service" in body else OPTOMETRY.door
        said = problem(await caller.post(door, body), 409, "conflict")
        assert said["problems"][0]["field"] == "reference"
        assert sent["messages"][0]["id"] in said["detail"]


async def test_a_key_is_used_up_by_success_only(pharmacy: Caller) -> None:
    wrong = consultation(clinical_summary=None)
    problem(await pharmacy.post(PHARMACY.door, wrong, key="mended"), 422, "invalid")
    right = wrong | {"clinical_summary": "Seen."}
    taken(await pharmacy.post(PHARMACY.door, right, key="mended"))


async def test_a_key_is_an_organisations_own(place: Place) -> None:
    other = consultation(pharmacy={"ods": "FPH02", "name": "Other Pharmacy"})
    one = taken(await place.of("FPH01").post(PHARMACY.door, consultation(), key="shared"))
    two = taken(await place.of("FPH02").post(PHARMACY.door, other, key="shared"))
    assert first(one)["id"] != first(two)["id"]


@pytest.mark.parametrize("door", DOORS)
async def test_the_organisation_in_a_body_must_be_the_tokens(place: Place, door: str) -> None:
    body = consultation() if door == "pharmacy" else referral()
    stranger = place.of("FPH02" if door == "pharmacy" else "TPX02")
    said = problem(await stranger.post(DOORS[door], body), 403, "forbidden")
    assert SENDERS[door] in said["detail"] and stranger.ods in said["detail"]
    assert taken(await stranger.get("/messages"), 200)["messages"] == [] or door == "pharmacy"


# -- what is wrong with a body -------------------------------------------------------------------


async def test_all_that_is_wrong_is_told_at_once_by_the_senders_own_field_paths(
    pharmacy: Caller,
) -> None:
    body = consultation()
    body["patient"] |= {"nhs_number": "9990000043", "birth_date": "2069-01-21"}
    body["patient"]["address"]["street"] = "Canal Row"
    body["observations"][0] = {"kind": "temperature", "value": 36.9}
    body["clinical_sumary"] = body.pop("clinical_summary")
    body["outcome"] = "cured"
    said = problem(await pharmacy.post(PHARMACY.door, body), 422, "invalid")
    fields = {one["field"] for one in said["problems"]}
    assert fields >= {
        "patient.nhs_number",
        "patient.birth_date",
        "patient.address.street",
        "observations[0].unit",
        "clinical_sumary",
        "clinical_summary",
        "outcome",
    }
    for one in said["problems"]:
        assert one["detail"] and one["todo"] and one["code"]
    assert said["detail"].startswith(f"{len(said['problems'])} problems found")


async def test_the_optometry_door_tells_all_at_once_too(optometrist: Caller) -> None:
    body = referral()
    body["urgencey"] = body.pop("urgency")
    body["left"]["pressures"][0]["value"] = -4
    body["right"]["refraction"].pop("axis")
    body["condition"] = {"code": "sore-eye"}
    body["performer"].pop("goc_number")
    said = problem(await optometrist.post(OPTOMETRY.door, body), 422, "invalid")
    fields = {one["field"] for one in said["problems"]}
    assert fields >= {
        "urgencey",
        "urgency",
        "left.pressures[0].value",
        "right.refraction.axis",
        "condition.code",
        "performer.goc_number",
    }


NO_SUMMARY: Body = {"clinical_summary": None}
NO_EYE: Body = {"eye": None}
NAMED: Body = {"provider": {"ods": "RYY01"}}
UNHEARD_OF: Body = {"provider": {"ods": "Z99"}}
IN_EDINBURGH: Body = {
    **OPTOMETRY.examples["no-nhs-number"]["patient"],
    "address": {"lines": ["1 High Street"], "postcode": "EH1 1AA"},
}


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (consultation(practice="Z99", **NO_SUMMARY), ["clinical_summary", "practice.ods"]),
        (consultation(practice="G99004", **NO_SUMMARY), ["clinical_summary", "practice.ods"]),
        (consultation(practice="G99005", **NO_SUMMARY), ["clinical_summary", "practice.ods"]),
        (referral(**UNHEARD_OF, **NO_EYE), ["eye", "provider"]),
        (referral("suspected-wet-amd", **NAMED, **NO_EYE), ["eye", "provider"]),
        (referral(**UNHEARD_OF, condition={"code": "sore"}), ["condition.code", "provider"]),
        (referral("no-nhs-number", patient=IN_EDINBURGH, **NO_EYE), ["eye", "condition"]),
    ],
)
async def test_a_place_that_cannot_be_had_is_told_with_everything_else_that_is_wrong(
    place: Place, body: Body, fields: list[str]
) -> None:
    said = await _refused(place, body)
    assert [one["field"] for one in said["problems"]] == fields
    assert said["detail"] == "2 problems found; nothing was stored."


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (consultation(practice="G 99!"), "practice.ods"),
        (consultation(practice=None), "practice"),
        (referral(provider={"ods": "??"}), "provider.ods"),
        (referral(condition={"code": "sore"}, provider=None), "condition.code"),
        (referral(condition={"code": "sore"}, provider={"ods": "G99001"}), "condition.code"),
        (referral(subspecialty="left leg", provider=None), "subspecialty"),
    ],
)
async def test_of_a_place_that_hangs_on_a_field_at_fault_nothing_is_said(
    place: Place, body: Body, field: str
) -> None:
    said = await _refused(place, body)
    assert [one["field"] for one in said["problems"]] == [field]


async def _refused(place: Place, body: Body) -> Body:
    door = "pharmacy" if "service" in body else "optometry"
    return problem(await place.of(SENDERS[door]).post(DOORS[door], body), 422, "invalid")


def _without(path: str) -> Body:
    body = consultation()
    *parents, last = path.split(".")
    inner = body
    for name in parents:
        inner = inner[name]
    del inner[last]
    return body


def _with(path: str, value: Any) -> Body:
    body = consultation()
    *parents, last = path.split(".")
    inner = body
    for name in parents:
        inner = inner[name]
    inner[last] = value
    return body


@pytest.mark.parametrize(
    ("body", "field"),
    [
        pytest.param(_without("patient.nhs_number"), "patient.nhs_number", id="no NHS number"),
        pytest.param(_with("patient.nhs_number", "9990000019"), "patient.nhs_number", id="digits"),
        pytest.param(
            _with("patient.nhs_number_status", "03"), "patient.nhs_number_status", id="status 03"
        ),
        pytest.param(
            _without("patient.nhs_number_status"), "patient.nhs_number_status", id="no status"
        ),
        pytest.param(_without("patient.name"), "patient.name", id="no name"),
        pytest.param(_without("patient.birth_date"), "patient.birth_date", id="no birth date"),
        pytest.param(_without("clinician"), "clinician", id="no clinician"),
        pytest.param(_without("clinician.gphc_number"), "clinician.gphc_number", id="no number"),
        pytest.param(_without("clinical_summary"), "clinical_summary", id="no summary"),
        pytest.param(_with("clinical_summary", "  "), "clinical_summary", id="blank summary"),
        pytest.param(_with("service", "ear-piercing"), "service", id="unknown service"),
        pytest.param(_with("medicines", []), "medicines", id="supply without medicine"),
        pytest.param(
            _with("clinical_time", "2041-01-01T10:00:00Z"), "clinical_time", id="in the future"
        ),
        pytest.param(_without("outcome"), "outcome", id="no outcome"),
        pytest.param(_without("consent_to_inform_gp"), "consent_to_inform_gp", id="no consent"),
        pytest.param(_with("consent_to_inform_gp", "yes"), "consent_to_inform_gp", id="a word"),
    ],
)
async def test_what_is_unsafe_to_file_is_refused(pharmacy: Caller, body: Body, field: str) -> None:
    said = problem(await pharmacy.post(PHARMACY.door, body), 422, "invalid")
    assert field in {one["field"] for one in said["problems"]}


async def test_a_number_that_is_present_but_not_traced_draws_a_warning_the_practice_sees(
    pharmacy: Caller, practice: Caller
) -> None:
    body = _with("patient.nhs_number_status", "02")
    sent = await pharmacy.submit(body)
    (warning,) = (w for w in sent["warnings"] if w["field"] == "patient.nhs_number_status")
    row = await practice.arrived(first(sent)["id"])
    assert warning["code"] in (await practice.get(row["url"])).text


async def test_what_contradicts_its_pathway_is_taken_with_a_warning_the_practice_sees(
    pharmacy: Caller, practice: Caller
) -> None:
    body = consultation(gateway_met=False)
    body["patient"] |= {"sex": "male", "birth_date": "1949-05-05"}
    sent = await pharmacy.submit(body)
    codes = {one["code"] for one in sent["warnings"]}
    assert len(codes) >= 2
    row = await practice.arrived(first(sent)["id"])
    bundle = (await practice.get(row["url"])).text
    assert all(code in bundle for code in codes)


async def test_a_code_of_the_virtual_product_draws_a_warning(pharmacy: Caller) -> None:
    body = consultation()
    body["medicines"][0]["level"] = "VMP"
    sent = await pharmacy.submit(body)
    assert "medicine-not-amp" in {one["code"] for one in sent["warnings"]}


# -- bodies that are not read --------------------------------------------------------------------

GOOD = json.dumps(consultation()).encode()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b"[]", id="not an object"),
        pytest.param(b'"text"', id="a text"),
        pytest.param(GOOD[:-1] + b', "plan": "a", "plan": "b"}', id="duplicate keys"),
        pytest.param(GOOD[:-1] + b', "weight": NaN}', id="NaN"),
        pytest.param(GOOD[:-1] + b', "weight": -Infinity}', id="Infinity"),
        pytest.param(GOOD[:-1] + b', "plan": "\\ud800"}', id="lone surrogate"),
        pytest.param(GOOD[:-1] + b', "plan": "\\u0000"}', id="NUL"),
        pytest.param(GOOD[:-1] + b', "plan": ' + b"[" * 70 + b"]" * 70 + b"}", id="depth"),
        pytest.param(b"[" * 100_000, id="depth without end"),
        pytest.param(b"\xef\xbb\xbf" + GOOD, id="byte-order mark"),
        pytest.param(GOOD.decode().encode("utf-16"), id="UTF-16"),
        pytest.param(GOOD[:-1] + b', "plan": "\xff"}', id="not UTF-8"),
        pytest.param(GOOD[:-1] + b', "weight": ' + b"9" * 5_000 + b"}", id="digits"),
    ],
)
async def test_what_can_be_read_in_more_than_one_way_is_not_read(
    pharmacy: Caller, body: bytes
) -> None:
    problem(await pharmacy.post(PHARMACY.door, body), 400, "malformed")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/xml", "application/fhir+json", "", "json"]
)
async def test_another_content_type_is_415(pharmacy: Caller, content_type: str) -> None:
    answer = await pharmacy.post(PHARMACY.door, GOOD, headers={"content-type": content_type})
    problem(answer, 415, "unsupported-media-type")


async def test_a_charset_beside_the_content_type_does_no_harm(pharmacy: Caller) -> None:
    body = json.dumps(consultation()).encode()
    headers = {"content-type": "application/JSON; charset=utf-8"}
    taken(await pharmacy.post(PHARMACY.door, body, headers=headers))


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate"])
async def test_a_packed_body_is_refused(pharmacy: Caller, coding: str) -> None:
    answer = await pharmacy.post(PHARMACY.door, GOOD, headers={"content-encoding": coding})
    problem(answer, 415, "unsupported-media-type")


async def test_a_body_over_the_limit_is_413_whether_it_says_its_length_or_not(
    pharmacy: Caller, place: Place
) -> None:
    large = GOOD[:-1] + b', "plan": "' + b"x" * place.settings.max_body + b'"}'
    problem(await pharmacy.post(PHARMACY.door, large), 413, "too-large")

    async def parts() -> Any:
        for start in range(0, len(large), 65_536):
            yield large[start : start + 65_536]

    headers = {"content-type": "application/json", "idempotency-key": "in-parts"}
    answer = await pharmacy.call("POST", PHARMACY.door, content=parts(), headers=headers)
    problem(answer, 413, "too-large")


async def test_numbers_keep_the_digits_they_came_with(
    optometrist: Caller, hospital: Caller
) -> None:
    text = json.dumps(referral(provider={"ods": "RXX01", "service": "RXX01-SPA"}))
    assert '"sphere": -2.0' in text
    body = text.replace('"sphere": -2.0', '"sphere": -2.00', 1).encode()
    sent = taken(await optometrist.post(OPTOMETRY.door, body))
    row = await hospital.arrived(sent["messages"][0]["id"])
    assert "-2.00" in (await hospital.get(row["url"])).text


# -- refusals of what is urgent ------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"red_flags": ["Rigors"]}, id="red flag"),
        pytest.param({"urgency": "same-day"}, id="same-day"),
        pytest.param({"urgency": "urgent"}, id="urgent"),
        pytest.param({"outcome": "emergency"}, id="emergency"),
        pytest.param({"outcome": "gp-same-day"}, id="to the GP today"),
        pytest.param({"blood_pressures": reading(190, 80)["blood_pressures"]}, id="crisis"),
    ],
)
async def test_the_refusal_of_anything_urgent_begins_with_nothing_was_sent(
    pharmacy: Caller, changes: Body
) -> None:
    body = reading(120, 80) | changes
    body["patient"] = copy.deepcopy(body["patient"]) | {"nhs_number": "1"}
    said = problem(await pharmacy.post(PHARMACY.door, body), 422, "invalid")
    assert said["detail"].startswith("Nothing was sent. Telephone ")


async def test_an_urgent_body_that_is_refused_unread_is_refused_in_the_same_words(
    pharmacy: Caller,
) -> None:
    routine = await pharmacy.submit(reading(120, 80))
    key = "used-before"
    taken(await pharmacy.post(PHARMACY.door, reading(120, 80), key=key), 202)
    crisis = reading(190, 80)
    refused = [
        problem(await pharmacy.post(PHARMACY.door, crisis, key=key), 409, "conflict"),
        problem(
            await pharmacy.post(PHARMACY.door, crisis | {"pharmacy": {"ods": "FPH02"}}),
            403,
            "forbidden",
        ),
        problem(
            await pharmacy.put(f"{PHARMACY.door}/{first(routine)['id']}", crisis),
            428,
            "precondition-required",
        ),
        problem(await pharmacy.put(f"{PHARMACY.door}/{uuid4()}", crisis), 404, "not-found"),
    ]
    for said in refused:
        assert said["detail"].startswith("Nothing was sent. Telephone ")


async def test_a_parameter_that_no_door_reads_is_refused_before_anything_is_sent(
    pharmacy: Caller,
) -> None:
    tried = await pharmacy.post(f"{PHARMACY.door}?dry_run=true", reading(190, 80))
    said = problem(tried, 422, "invalid")
    assert said["detail"].startswith("Nothing was sent. Telephone ")
    assert [one["field"] for one in said["problems"]] == ["dry_run"]
    sent = first(await pharmacy.submit(reading(120, 80)))
    tried = await pharmacy.put(f"{PHARMACY.door}/{sent['id']}?dry_run=true", reading(120, 80))
    assert problem(tried, 422, "invalid")["problems"][0]["code"] == "unknown-parameter"


async def test_the_refusal_of_a_routine_body_does_not_cry_wolf(pharmacy: Caller) -> None:
    answer = await pharmacy.post(PHARMACY.door, consultation(clinical_summary=None))
    assert not problem(answer, 422, "invalid")["detail"].startswith("Nothing was sent")


async def test_an_urgent_referral_is_refused_in_the_same_words(optometrist: Caller) -> None:
    body = referral("retinal-detachment")
    body["patient"]["nhs_number"] = "1"
    said = problem(await optometrist.post(OPTOMETRY.door, body), 422, "invalid")
    assert said["detail"].startswith("Nothing was sent. Telephone the eye casualty")
    assert "0113 496 0402" in said["detail"]


async def test_nothing_of_what_was_refused_is_kept(pharmacy: Caller, place: Place) -> None:
    tables = ("message", "event", "payload", "subject", "message_key", "idempotency_key")
    await place.settled()  # what other tests sent is no longer being sent on
    sizes = [await place.rows(f"SELECT count(*) FROM {one}") for one in tables]  # noqa: S608
    body = reading(190, 80)
    body["patient"].pop("name")
    problem(await pharmacy.post(PHARMACY.door, body), 422, "invalid")
    assert sizes == [
        await place.rows(f"SELECT count(*) FROM {one}")  # noqa: S608
        for one in tables
    ]


async def test_a_trace_that_is_none_is_not_kept(pharmacy: Caller, place: Place) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    for given, kept in ((trace, trace), ("Robin Example 9990000018", None), ("x" * 3_000, None)):
        body = consultation()
        headers = {"traceparent": given}
        (message,) = taken(await pharmacy.post(PHARMACY.door, body, headers=headers))["messages"]
        read = await pharmacy.etag(message["url"])
        corrected = await pharmacy.call(
            "PUT",
            f"{PHARMACY.door}/{message['id']}",
            json=body | {"plan": "Return if the rash spreads."},
            headers={"if-match": read, **headers},
        )
        newer = taken(corrected, 200)["messages"][0]
        rows = await place.rows(
            "SELECT traceparent FROM event WHERE message_id IN (:first, :second)",
            first=message["id"],
            second=newer["id"],
        )
        assert [row.traceparent for row in rows] == [kept, kept]


# -- routing -------------------------------------------------------------------------------------


async def test_the_reason_for_a_destination_is_answered_and_kept(
    optometrist: Caller,
) -> None:
    sent = await optometrist.submit(referral("raised-pressure"))
    (message,) = sent["messages"]
    acting, copied = message["destinations"]
    assert (acting["organisation"], acting["role"]) == ("RXX01", "acting")
    assert (copied["organisation"], copied["role"]) == ("G99001", "copy")
    assert "QXX" in acting["reason"]

    await optometrist.place.settled()
    shown = await optometrist.tracked(message["id"])
    assert {one["reason"] for one in shown["deliveries"]} == {acting["reason"], copied["reason"]}


async def test_a_named_provider_that_does_not_take_it_is_refused_with_the_candidates(
    optometrist: Caller,
) -> None:
    body = referral("suspected-wet-amd", provider={"ods": "RYY01"})
    (found,) = problem(await optometrist.post(OPTOMETRY.door, body), 422, "invalid")["problems"]
    assert found["field"].startswith("provider")
    assert "RXX01-MACULAR" in found["todo"] and "0113 496 0403" in found["todo"]


async def test_a_tie_is_refused_with_the_candidates_and_their_numbers(
    optometrist: Caller, place: Place
) -> None:
    old = "receiver_type: macular, subspecialties: [all], rank: 1"
    tie = "- {receiver_type: spa, subspecialties: [all], rank: 1}\n      - {" + old
    async with place.directory(("- {" + old, tie)):
        body = referral("raised-pressure")
        (found,) = problem(await optometrist.post(OPTOMETRY.door, body), 422, "invalid")["problems"]
    assert found["code"] == "tie"
    assert "0113 496 0401" in found["todo"] and "0113 496 0403" in found["todo"]


async def test_without_a_practice_the_postcode_finds_the_service_and_the_identity_is_unverified(
    optometrist: Caller, hospital: Caller
) -> None:
    sent = await optometrist.submit(referral("no-nhs-number"))
    (message,) = sent["messages"]
    assert [one["organisation"] for one in message["destinations"]] == ["RXX01"]
    assert (await optometrist.tracked(message["id"]))["identity_verified"] is False
    row = await hospital.arrived(message["id"])
    assert "dentity not verified" in (await hospital.get(row["url"])).text


async def test_without_an_nhs_number_every_other_means_of_identification_is_needed(
    optometrist: Caller,
) -> None:
    body = referral("no-nhs-number")
    body["patient"] = {"name": body["patient"]["name"]}
    said = problem(await optometrist.post(OPTOMETRY.door, body), 422, "invalid")
    fields = " ".join(one["field"] for one in said["problems"])
    for name in ("birth_date", "sex", "address", "telephone"):
        assert name in fields


@pytest.mark.parametrize(
    ("ods", "code"), [("G99005", "not-connected"), ("G99998", "unknown"), ("G99004", "closed")]
)
async def test_a_copy_that_cannot_go_never_stops_a_referral(
    optometrist: Caller, ods: str, code: str
) -> None:
    body = referral(practice=ods)  # its provider is named
    sent = await optometrist.submit(body)
    (message,) = sent["messages"]
    assert [one["role"] for one in message["destinations"]] == ["acting"]
    (warning,) = (one for one in sent["warnings"] if one["code"].startswith("copy-"))
    assert code in warning["code"]
    shown = await optometrist.tracked(message["id"])
    assert warning["code"] in {one["code"] for one in shown["warnings"]}


async def test_the_table_raises_the_urgency_and_the_answer_names_the_rule(
    optometrist: Caller,
) -> None:
    sent = await optometrist.submit(referral("suspected-wet-amd", urgency="routine"))
    (message,) = sent["messages"]
    assert message["priority"] == "asap"
    assert message["destinations"][0]["service"] == "RXX01-MACULAR"
    assert any("The rule:" in line for line in sent["read_first"])
    assert {"seen", "treated"} <= {one["kind"] for one in message["deadlines"]}


async def test_the_senders_higher_urgency_stands(optometrist: Caller) -> None:
    sent = await optometrist.submit(referral(urgency="urgent"))
    assert sent["messages"][0]["priority"] == "urgent"


async def test_a_snomed_code_without_a_row_is_kept_and_warned_of(
    optometrist: Caller, hospital: Caller
) -> None:
    body = referral(condition={"snomed": "73211009"}, urgency="within-7-days")
    sent = await optometrist.submit(body)
    assert sent["messages"][0]["priority"] == "asap"
    assert any(one["field"].startswith("condition") for one in sent["warnings"])
    row = await hospital.arrived(sent["messages"][0]["id"])
    assert "73211009" in (await hospital.get(row["url"])).text


async def test_a_pressure_that_was_not_confirmed_draws_a_warning(optometrist: Caller) -> None:
    sent = await optometrist.submit(referral("raised-pressure"))
    assert any("right.pressures" in one["field"] for one in sent["warnings"])
    assert not any("left.pressures" in one["field"] for one in sent["warnings"])


async def test_what_is_for_the_gp_goes_to_the_urgent_eye_service_where_the_practice_is_unknown(
    optometrist: Caller,
) -> None:
    body = referral("no-nhs-number", condition={"code": "herpes-zoster"})
    sent = await optometrist.submit(body)
    (message,) = sent["messages"]
    assert message["destinations"][0]["service"] == "TPX03-URGENT-EYE"
    assert sent["warnings"]


async def test_a_place_says_beforehand_what_it_takes(pharmacy: Caller) -> None:
    said = taken(await pharmacy.get("/organisations/g99003"), 200)
    assert said["ods"] == "G99003"
    assert [one["kinds"] for one in said["takes"]] == [["update"]]
    assert [one["pathways"] for one in said["takes"]] == [["all"]]
    hospital = taken(await pharmacy.get("/organisations/RXX01"), 200)
    casualty = next(one for one in hospital["takes"] if one["service"] == "RXX01-EYE-CASUALTY")
    assert casualty["offers"] == [
        {"receiver_type": "eye-casualty", "subspecialties": ["all"], "rank": 1},
        {"receiver_type": "urgent-eye", "subspecialties": ["all"], "rank": 2},
    ]
    (hours,) = casualty["opening_hours"]
    assert (len(hours["days"]), hours["opens"], hours["closes"]) == (7, "08:00", "20:00")
    assert hours["bank_holidays"] is True
    closed = taken(await pharmacy.get("/organisations/G99004"), 200)
    assert (closed["status"], closed["successor"]) == ("closed", "G99001")
    assert "Riverside Medical Practice" in closed["takes"][0]["whom_to_telephone_now"]
    assert [
        one["connected"] for one in taken(await pharmacy.get("/organisations/G99005"), 200)["takes"]
    ] == [False]
    problem(await pharmacy.get("/organisations/ZZZ99"), 404, "not-found")


async def test_what_may_be_sent_to_whom_is_said_beforehand(pharmacy: Caller) -> None:
    every = taken(await pharmacy.get("/pathways"), 200)["pathways"]
    assert [one["id"] for one in every] == list(catalogue().entries)
    ours = taken(await pharmacy.get("/pathways", sender="pharmacy"), 200)["pathways"]
    assert [one["id"] for one in every if "pharmacy" in one["senders"]] == [
        one["id"] for one in ours
    ]
    assert 0 < len(ours) < len(every)
    first = ours[0]
    assert taken(await pharmacy.get(f"/pathways/{first['id']}"), 200) == first
    problem(await pharmacy.get("/pathways/nothing"), 404, "not-found")
    (wrong,) = problem(await pharmacy.get("/pathways", sender="dentist"), 422, "invalid")[
        "problems"
    ]
    assert wrong["field"] == "sender" and "dentistry" in wrong["todo"]


async def test_a_long_message_is_received_whole(pharmacy: Caller, practice: Caller) -> None:
    said = {
        field: f"{field}: " + "said at length. " * 1_200
        for field in ("clinical_summary", "history", "advice", "plan")
    }
    sent = taken(await pharmacy.post("/pharmacy/consultations", consultation(**said)))
    row = await practice.take(first(sent)["id"])
    content = (await practice.get(f"/inbox/{row['id']}")).text
    assert len(content) > 65_536
    assert all(words.strip() in content for words in said.values())
