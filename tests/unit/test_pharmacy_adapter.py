"""Pharmacy: what is refused, what draws a warning, what makes a task, and the FHIR of it all."""

import copy
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from adapters.pharmacy import ADAPTER
from adapters.pharmacy.request import Consultation
from broker.errors import Problem
from broker.events import Kind, Priority, Role, SubjectKind
from broker.ports import Context, Needs, Party
from fhir_profiles import bundle, codes, strict_json
from fhir_profiles.faults import Fault, to_problems
from tests.made import errors

NOW = datetime(2026, 10, 2, 9, tzinfo=UTC)
IDS = {
    "update": "0199a000-0000-7000-8000-000000000001",
    "referral": "0199a000-0000-7000-8000-000000000002",
}
CLEAN = "uncomplicated-uti"
BP = "blood-pressure-check"


def example(of: str = CLEAN, /, **changes: Any) -> dict[str, Any]:
    """A complete body; a change of None takes the field out, a dotted name reaches inside."""
    body: dict[str, Any] = copy.deepcopy(dict(ADAPTER.examples[of]))
    for name, value in changes.items():
        *path, last = name.split("__")
        inner: Any = body
        for step in path:
            inner = inner[int(step)] if step.isdigit() else inner[step]
        if value is None:
            inner.pop(last, None)
        else:
            inner[last] = value
    decimals: dict[str, Any] = strict_json.loads(json.dumps(body).encode())
    return decimals


def a_check(
    systolic: Any, diastolic: Any, method: str = "clinic", **changes: Any
) -> dict[str, Any]:
    """A blood pressure check with one reading and nothing else that asks for anything."""
    reading = {"method": method, "systolic": systolic, "diastolic": diastolic, "unit": "mm[Hg]"}
    changes = {"outcome": "advice-only", "urgency": None, **changes}
    return example(BP, blood_pressures=[reading], **changes)


def read(body: Mapping[str, Any]) -> Consultation:
    return Consultation.model_validate(body, context={"now": NOW})


def needs(body: Mapping[str, Any]) -> Needs:
    return ADAPTER.needs(read(body), NOW)


def refused(body: Mapping[str, Any]) -> list[Fault]:
    with pytest.raises(ValidationError) as caught:
        read(body)
    return to_problems(caught.value, Consultation)


def places(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(fault.field, fault.code) for fault in refused(body)]


def warned(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(warning.field, warning.code) for warning in needs(body).warnings]


def asked(body: Mapping[str, Any]) -> Priority | None:
    """How soon the practice is asked to act, if it is."""
    return next((want.priority for want in needs(body).wants if want.key == "referral"), None)


def context(wanted: Needs, **changes: Any) -> Context:
    practice = Party(wanted.practice or "", "Riverside Medical Practice", "0113 496 0201")
    values: dict[str, Any] = {
        "message_ids": {want.key: IDS[want.key] for want in wanted.wants},
        "sender": Party("FPH01", "Riverside Pharmacy", "0113 496 0101"),
        "practice": practice,
        "destinations": {want.key: ((practice, Role.ACTING),) for want in wanted.wants},
        "correlation_id": IDS["update"],
        "now": NOW,
        "warnings": wanted.warnings,
    }
    return Context(**values | changes)


def translated(body: Mapping[str, Any], **changes: Any) -> dict[str, bytes]:
    request = read(body)
    drafts = ADAPTER.translate(request, context(ADAPTER.needs(request, NOW), **changes))
    return {draft.key: draft.content for draft in drafts}


def resources(content: bytes, kind: str) -> list[dict[str, Any]]:
    found = [strict_json.loads(entry.resource) for entry in bundle.entries(content)]
    return [each for each in found if each["resourceType"] == kind]


# -- examples ------------------------------------------------------------------------------------


def test_there_is_one_complete_example_per_service() -> None:
    assert set(ADAPTER.examples) == set(codes.system("pharmacy-service").displays)
    for service, body in ADAPTER.examples.items():
        assert body["service"] == service
        assert body["pharmacy"]["ods"] == "FPH01"
        assert body["patient"]["nhs_number"].startswith("999")
    references = [body["reference"] for body in ADAPTER.examples.values()]
    assert len(set(references)) == len(references)


@pytest.mark.parametrize("service", ADAPTER.examples)
def test_every_example_becomes_messages_that_are_r4(service: str) -> None:
    wanted = needs(example(service))
    contents = translated(example(service))
    assert list(contents) == [want.key for want in wanted.wants]
    for content in contents.values():
        assert errors(content) == []
        Bundle.model_validate(strict_json.loads(content))


@pytest.mark.parametrize("service", ADAPTER.examples)
def test_every_reference_stands_in_its_own_message(service: str) -> None:
    for content in translated(example(service)).values():
        urls = {entry.full_url for entry in bundle.entries(content)}
        for part in content.decode().split('"reference":"')[1:]:
            assert part.split('"')[0] in urls


def test_the_two_messages_of_one_consultation_share_no_id() -> None:
    contents = translated(example(BP))
    ids = [
        row.resource_id
        for content in contents.values()
        for row in bundle.index(strict_json.loads(content))
    ]
    assert len(ids) == len(set(ids))


def test_the_same_request_gives_the_same_bytes() -> None:
    assert translated(example(BP)) == translated(example(BP))


# -- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field", "code"),
    [
        ({"patient__nhs_number": None}, "patient.nhs_number", "missing"),
        ({"patient__nhs_number": "9990000017"}, "patient.nhs_number", "nhs-number-invalid"),
        ({"patient__nhs_number": "0000000000"}, "patient.nhs_number", "nhs-number-invalid"),
        ({"patient__nhs_number_status": None}, "patient.nhs_number_status", "missing"),
        ({"patient__nhs_number_status": "03"}, "patient.nhs_number_status", "not-traced"),
        ({"patient__nhs_number_status": "04"}, "patient.nhs_number_status", "not-traced"),
        ({"patient__name": None}, "patient.name", "missing"),
        ({"patient__birth_date": None}, "patient.birth_date", "missing"),
        ({"patient": None}, "patient", "missing"),
        ({"clinician": None}, "clinician", "missing"),
        ({"clinician__gphc_number": None}, "clinician.gphc_number", "no-clinician"),
        ({"clinician__gphc_number": "X"}, "clinician.gphc_number", "gphc-number-invalid"),
        ({"clinical_summary": None}, "clinical_summary", "missing"),
        ({"clinical_summary": "  "}, "clinical_summary", "empty"),
        ({"service": "flu-jab"}, "service", "not-in-list"),
        ({"service": None}, "service", "missing"),
        ({"medicines": None}, "medicines", "supply-without-medicine"),
        ({"medicines": []}, "medicines", "supply-without-medicine"),
        ({"observations__0__unit": None}, "observations[0].unit", "unit-missing"),
        ({"clinical_time": "2026-10-02T09:06:00Z"}, "clinical_time", "in-the-future"),
        ({"clinical_time": "2026-10-03"}, "clinical_time", "in-the-future"),
        ({"clinical_time": "2026-10-01T14:15:00"}, "clinical_time", "no-offset"),
        ({"clinical_time": None}, "clinical_time", "missing"),
        ({"patient__birth_date": "2027-01-01"}, "patient.birth_date", "in-the-future"),
        (
            {"medicines__0__supplied_at": "2026-11-01"},
            "medicines[0].supplied_at",
            "in-the-future",
        ),
        ({"outcome": None}, "outcome", "missing"),
        ({"outcome": "cured"}, "outcome", "not-in-list"),
        ({"consent_to_inform_gp": None}, "consent_to_inform_gp", "missing"),
        ({"consent_to_inform_gp": "yes"}, "consent_to_inform_gp", "wrong-type"),
        ({"practice": None}, "practice", "missing"),
        ({"pharmacy__ods": "not ods!"}, "pharmacy.ods", "ods-code-invalid"),
        ({"reference": None}, "reference", "missing"),
        ({"nhsnumber": "1"}, "nhsnumber", "unknown-field"),
        ({"patient__colour": "red"}, "patient.colour", "unknown-field"),
    ],
)
def test_what_is_unsafe_to_file_is_refused_on_its_own_path(
    changes: dict[str, Any], field: str, code: str
) -> None:
    assert (field, code) in places(example(**changes))
    assert len(refused(example(**changes))) == 1


@pytest.mark.parametrize(
    ("name", "value", "code"), [("unit", None, "missing"), ("unit", "kPa", "unit-unfit")]
)
def test_a_pressure_without_its_unit_is_refused(name: str, value: Any, code: str) -> None:
    body = example(BP, **{f"blood_pressures__0__{name}": value})
    assert places(body) == [("blood_pressures[0].unit", code)]


def test_a_pulse_without_its_unit_is_refused() -> None:
    assert places(example(BP, pulse__unit=None)) == [("pulse.unit", "unit-missing")]
    assert places(example(BP, pulse__unit="Hz")) == [("pulse.unit", "unit-unfit")]


def test_every_problem_is_told_at_once() -> None:
    body = example(
        patient__nhs_number="123",
        patient__nhs_number_status="07",
        patient__birth_date="2030-01-01",
        clinician__gphc_number=None,
        clinical_summary=None,
        observations__1__unit=None,
        medicines=None,
        consent_to_inform_gp=None,
        unheard_of=1,
    )
    assert set(places(body)) == {
        ("patient.nhs_number", "nhs-number-invalid"),
        ("patient.nhs_number_status", "not-traced"),
        ("patient.birth_date", "in-the-future"),
        ("clinician.gphc_number", "no-clinician"),
        ("clinical_summary", "missing"),
        ("observations[1].unit", "unit-missing"),
        ("medicines", "supply-without-medicine"),
        ("consent_to_inform_gp", "missing"),
        ("unheard_of", "unknown-field"),
    }


def test_every_problem_says_what_to_do() -> None:
    body = example(patient__nhs_number="123", clinical_summary=None, outcome="x", clinician={})
    assert all(fault.detail and fault.todo for fault in refused(body))


def test_an_assistant_is_seen_for_by_the_responsible_pharmacist() -> None:
    request = read(example("infected-insect-bite"))
    assert request.clinician.gphc_number is None
    body = example("infected-insect-bite", clinician__responsible_pharmacist=None)
    assert places(body) == [("clinician.gphc_number", "no-clinician")]


def test_what_contradicts_a_pathway_is_never_refused() -> None:
    body = example(
        patient__sex="male",
        patient__birth_date="1930-01-01",
        pregnancy="pregnant",
        exclusions=["catheter"],
        gateway_met=False,
    )
    assert set(warned(body)) == {
        ("patient.sex", "sex-outside-pathway"),
        ("patient.birth_date", "age-outside-pathway"),
        ("pregnancy", "exclusion-present"),
        ("exclusions", "exclusion-present"),
        ("gateway_met", "gateway-not-met"),
    }


# -- warnings ------------------------------------------------------------------------------------


def test_a_complete_example_draws_no_warning() -> None:
    assert warned(example()) == []


@pytest.mark.parametrize(
    ("service", "changes", "field", "code"),
    [
        (
            CLEAN,
            {"patient__nhs_number_status": "02"},
            "patient.nhs_number_status",
            "nhs-number-not-traced",
        ),
        (
            CLEAN,
            {"patient__address__postcode": "75008"},
            "patient.address.postcode",
            "postcode-not-recognised",
        ),
        (CLEAN, {"patient__sex": None}, "patient.sex", "sex-not-given"),
        (CLEAN, {"gateway_met": None}, "gateway_met", "gateway-not-stated"),
        (CLEAN, {"medicines__0__level": "VMP"}, "medicines[0].level", "medicine-not-amp"),
        (CLEAN, {"medicines__0__code": None}, "medicines[0].code", "medicine-not-coded"),
        (CLEAN, {"medicines__0__quantity": None}, "medicines[0].quantity", "quantity-missing"),
        (CLEAN, {"medicines__0__dose": None}, "medicines[0].dose", "dose-text-missing"),
        (
            CLEAN,
            {"medicines__0__patient_instruction": None},
            "medicines[0].patient_instruction",
            "patient-instruction-missing",
        ),
        (
            CLEAN,
            {"medicines__0__pgd_version": None},
            "medicines[0].pgd_version",
            "pgd-version-missing",
        ),
        (CLEAN, {"outcome": "advice-only"}, "medicines", "medicine-without-supply"),
        (
            CLEAN,
            {"outcome": "no-supply", "medicines": None},
            "no_supply_reason",
            "no-supply-reason-missing",
        ),
        (CLEAN, {"no_known_allergies": True}, "no_known_allergies", "allergies-contradict"),
        (CLEAN, {"red_flags": ["Rigors"]}, "red_flags", "red-flag-without-action"),
        ("minor-illness", {"source": {"kind": "self"}}, "source", "referral-needed"),
        (BP, {"blood_pressures": []}, "blood_pressures", "reading-missing"),
        (
            BP,
            {"blood_pressures__0__systolic": 60, "blood_pressures__0__diastolic": 90},
            "blood_pressures[0]",
            "reading-implausible",
        ),
        (
            BP,
            {"blood_pressures__1__systolic": 190, "acute_symptoms": None},
            "acute_symptoms",
            "acute-symptoms-not-stated",
        ),
        (BP, {"pulse__rhythm": "irregular"}, "repeat_pulse", "pulse-irregular-unconfirmed"),
        ("contraception-initiation", {"blood_pressures": []}, "contraceptive", "reading-missing"),
    ],
)
def test_each_warning_has_its_code_and_place(
    service: str, changes: dict[str, Any], field: str, code: str
) -> None:
    found = needs(example(service, **changes)).warnings
    [warning] = [each for each in found if each.code == code]
    assert warning.field == field
    assert warning.detail.endswith((".", "?"))
    assert warning.todo
    assert code in codes.system("warning")


def test_an_age_is_that_of_the_day_of_the_consultation_in_london() -> None:
    born = {"patient__birth_date": "2010-10-02"}
    before = example(clinical_time="2026-10-01T22:59:00Z", **born)
    after = example(clinical_time="2026-10-01T23:01:00Z", **born)
    assert ("patient.birth_date", "age-outside-pathway") in warned(before)
    assert ("patient.birth_date", "age-outside-pathway") not in warned(after)


# -- what is asked -------------------------------------------------------------------------------


def test_a_routine_consultation_is_one_update_for_the_registered_practice() -> None:
    wanted = needs(example())
    [want] = wanted.wants
    assert (want.key, want.kind, want.priority) == ("update", Kind.UPDATE, Priority.ROUTINE)
    assert (want.pathway, want.pathway_version) == (CLEAN, "1.0.0")
    [seek] = want.seeks
    assert (seek.role, seek.receiver_type) == (Role.ACTING, "general-practice")
    assert (seek.named, seek.practice) == (None, "G99001")
    assert want.happened == datetime.fromisoformat("2026-10-01T14:15:00+01:00")
    assert wanted.organisation == "FPH01"
    assert wanted.subject is SubjectKind.CONSULTATION
    assert wanted.practice == "G99001"
    assert wanted.nhs_number == "9990000018"
    assert wanted.identity_verified
    assert not wanted.escalates
    assert wanted.label == "N"


def test_a_number_that_was_not_traced_leaves_the_identity_unverified() -> None:
    assert not needs(example(patient__nhs_number_status="02")).identity_verified


def test_a_sensitive_record_is_labelled() -> None:
    assert needs(example(patient__sensitive=True)).label == "R"
    content = translated(example(patient__sensitive=True))["update"]
    for kind in ("Patient", "Communication"):
        [found] = resources(content, kind)
        assert found["meta"]["security"][0]["code"] == "R"


def test_a_task_is_a_second_want_that_may_be_left_out_with_a_sentence() -> None:
    wanted = needs(example(BP))
    update, referral = wanted.wants
    assert update.priority is Priority.ROUTINE
    assert (referral.key, referral.kind) == ("referral", Kind.REFERRAL)
    assert referral.priority is Priority.ASAP
    assert not referral.required
    assert referral.if_left_out == (
        "No task was sent. Telephone the registered practice and ask them to act: within 7 days."
    )
    assert referral.seeks == update.seeks
    assert wanted.escalates


@pytest.mark.parametrize(
    ("body", "priority"),
    [
        (a_check(180, 80), Priority.STAT),
        (a_check(179, 119), None),
        (a_check(120, 120), Priority.STAT),
        (a_check(170, 80, "abpm-average"), Priority.STAT),
        (a_check(169, 114, "abpm-average"), Priority.ASAP),
        (a_check(149, 94, "abpm-average"), Priority.ROUTINE),
        (a_check(134, 84, "abpm-average"), None),
        (a_check(140, 80, abpm_declined=True), Priority.ROUTINE),
        (a_check(139, 89, abpm_declined=True), None),
        (a_check(89, 70, fainting_or_falls=True), Priority.URGENT),
        (a_check(90, 60, fainting_or_falls=True), None),
        (example("contraception-ongoing"), Priority.ASAP),
        (example("contraception-ongoing", no_supply_reason="declined"), None),
        (example(outcome="gp-same-day", medicines=None), Priority.STAT),
        (example(outcome="gp-routine", medicines=None), Priority.ROUTINE),
        (example(outcome="onward-service", medicines=None), None),
        (example(urgency="routine"), Priority.ROUTINE),
        (example(urgency="within-7-days"), Priority.ASAP),
        (example(urgency="urgent"), Priority.URGENT),
        (example(urgency="same-day"), Priority.STAT),
    ],
)
def test_the_practice_is_asked_as_soon_as_the_lines_say(
    body: dict[str, Any], priority: Priority | None
) -> None:
    assert asked(body) is priority


def test_the_senders_own_urgency_is_never_lowered_and_raised_by_the_lines() -> None:
    assert asked(a_check(150, 80, "abpm-average", urgency="same-day")) is Priority.STAT
    assert asked(a_check(180, 80, urgency="routine")) is Priority.STAT
    assert asked(example(outcome="gp-routine", medicines=None, urgency="urgent")) is Priority.URGENT


IRREGULAR = {"rhythm": "irregular"}


@pytest.mark.parametrize(
    ("first", "second", "priority", "warning"),
    [
        ("10:00", "10:05", Priority.URGENT, False),
        ("10:00", "10:04", None, True),
        ("10:05", "10:00", Priority.URGENT, False),
        (None, None, Priority.URGENT, False),
        ("10:00", None, Priority.URGENT, False),
    ],
)
def test_a_second_irregular_pulse_confirms_the_first_after_five_minutes(
    first: str | None, second: str | None, priority: Priority | None, warning: bool
) -> None:
    pulses = [
        IRREGULAR | ({"taken_at": f"2026-10-01T{at}:00+01:00"} if at else {})
        for at in (first, second)
    ]
    body = a_check(120, 80, pulse=pulses[0], repeat_pulse=pulses[1])
    assert asked(body) is priority
    assert (("repeat_pulse", "pulse-irregular-unconfirmed") in warned(body)) == warning


def test_one_irregular_pulse_is_a_warning_until_a_regular_one_settles_it() -> None:
    alone = a_check(120, 80, pulse=IRREGULAR)
    assert asked(alone) is None
    assert warned(alone) == [("repeat_pulse", "pulse-irregular-unconfirmed")]
    later = a_check(120, 80, pulse={"rhythm": "regular"}, repeat_pulse=IRREGULAR)
    assert warned(later) == [("repeat_pulse", "pulse-irregular-unconfirmed")]
    settled = a_check(120, 80, pulse=IRREGULAR, repeat_pulse={"rhythm": "regular"})
    assert warned(settled) == []


def test_a_crisis_with_acute_symptoms_is_told_and_makes_no_task() -> None:
    wanted = needs(a_check(190, 80, acute_symptoms=True))
    assert [want.key for want in wanted.wants] == ["update"]
    assert wanted.wants[0].priority is Priority.URGENT
    assert wanted.advice[0].startswith("Call 999 or send the patient to A&E now")
    assert wanted.escalates


@pytest.mark.parametrize(
    ("said", "priority"),
    [
        ({"urgency": "same-day"}, Priority.STAT),
        ({"outcome": "gp-same-day"}, Priority.STAT),
        ({"urgency": "routine"}, Priority.URGENT),
    ],
)
def test_an_update_that_goes_alone_keeps_the_senders_own_urgency(
    said: dict[str, Any], priority: Priority
) -> None:
    [update] = needs(a_check(190, 80, acute_symptoms=True, **said)).wants
    assert update.priority is priority


def test_where_a_task_carries_the_senders_urgency_the_update_does_not_repeat_it() -> None:
    update, task = needs(example(outcome="emergency", medicines=None, urgency="same-day")).wants
    assert (update.priority, task.priority) == (Priority.URGENT, Priority.STAT)


def test_where_no_task_is_made_no_line_says_how_soon_one_is_due() -> None:
    body = a_check(190, 80, acute_symptoms=True, pulse=IRREGULAR, repeat_pulse=IRREGULAR)
    [said] = needs(body).advice
    assert "No task was made for the GP" in said


def first_flag(body: Mapping[str, Any]) -> str:
    text: str = resources(translated(body)["update"], "Flag")[0]["code"]["text"]
    return text


def test_a_patient_sent_to_hospital_carries_the_flag() -> None:
    body = example(outcome="emergency", medicines=None)
    wanted = needs(body)
    assert [want.key for want in wanted.wants] == ["update"]
    assert "999" in wanted.advice[0]
    assert first_flag(body) == "Sent to A&E or 999"
    acute = a_check(200, 130, acute_symptoms=True, outcome="emergency")
    assert first_flag(acute) == "Sent to A&E or 999"


def test_a_crisis_that_nobody_says_was_sent_to_hospital_is_not_flagged_as_if_it_were() -> None:
    body = a_check(200, 130, acute_symptoms=True, outcome="advice-only")
    assert first_flag(body) == (
        "Needs A&E or 999 now. Blood pressure of 180/120 mmHg or more with acute symptoms. "
        "Nothing here says that the patient was sent."
    )


def test_the_answer_names_each_line_that_asked() -> None:
    body = a_check(182, 80, pulse=IRREGULAR, repeat_pulse=IRREGULAR)
    assert needs(body).advice == (
        "Blood pressure of 180/120 mmHg or more: same day.",
        "Irregular pulse, felt twice: urgent.",
    )


def test_the_answer_says_so_where_the_senders_own_urgency_is_the_higher() -> None:
    line = "Ambulatory average of 135/85 mmHg or more: routine."
    same_day = a_check(136, 80, "abpm-average", urgency="same-day")
    assert needs(same_day).advice == (
        line,
        "What you asked for is more urgent and counts: same day.",
    )
    assert needs(a_check(136, 80, "abpm-average", urgency="routine")).advice == (line,)


# -- consent and danger --------------------------------------------------------------------------


def test_consent_given_or_not_answered_is_not_withheld() -> None:
    assert ADAPTER.withheld(example()) is None
    assert ADAPTER.withheld(example(consent_to_inform_gp=None)) is None
    assert ADAPTER.withheld(example(consent_to_inform_gp="false")) is None


def test_without_consent_only_four_fields_are_looked_at() -> None:
    body = {
        "consent_to_inform_gp": False,
        "reference": "C-1",
        "service": "shingles",
        "pharmacy": {"ods": "FPH01"},
        "patient": "anything",
        "unknown": [1],
    }
    found = ADAPTER.withheld(body)
    assert found is not None
    assert (found.organisation, found.reference) == ("FPH01", "C-1")
    assert found.problems == ()
    assert found.read_first == (
        "The patient does not agree: nothing was sent, and nothing clinical was kept.",
    )


def test_without_consent_the_four_fields_are_still_checked() -> None:
    found = ADAPTER.withheld({"consent_to_inform_gp": False, "service": "x", "pharmacy": {}})
    assert found is not None
    assert [(problem.field, problem.code) for problem in found.problems] == [
        ("reference", "missing"),
        ("pharmacy.ods", "missing"),
        ("service", "not-in-list"),
    ]


def test_without_consent_an_escalation_says_that_nobody_has_been_told() -> None:
    found = ADAPTER.withheld(a_check(190, 80, consent_to_inform_gp=False))
    assert found is not None
    assert found.read_first[0].startswith("Nobody has been told. What was found needs somebody")


@pytest.mark.parametrize(
    "body", [a_check(190, 80, acute_symptoms=True), example(outcome="emergency", medicines=None)]
)
def test_without_consent_an_emergency_keeps_its_999_words(body: dict[str, Any]) -> None:
    found = ADAPTER.withheld(body | {"consent_to_inform_gp": False})
    assert found is not None
    assert found.read_first[0].startswith(
        "Nobody has been told. Call 999 or send the patient to A&E now"
    )


@pytest.mark.parametrize(
    "body",
    [
        {"red_flags": ["Rigors"]},
        {"red_flags": "Rigors"},
        {"urgency": "same-day"},
        {"urgency": "urgent"},
        {"urgency": "emergency"},
        {"urgency": "emergency24Hours"},
        {"urgency": " Same day "},
        {"urgency": "SAME_DAY"},
        {"urgency": "stat"},
        {"outcome": "gp-same-day"},
        {"outcome": "GP same day"},
        {"outcome": "emergency"},
        {"outcome": "Emergency"},
        {"blood_pressures": {"systolic": 190, "diastolic": 80}},
        {"blood_pressures": [{"method": "ABPM average", "systolic": 135}]},
        {"blood_pressures": [{"systolic": 180}]},
        {"blood_pressures": [{"systolic": "180", "diastolic": None}]},
        {"blood_pressures": [None, {"diastolic": 120.0, "unit": 5}]},
        {"blood_pressures": [{"method": "abpm-average", "systolic": 135}]},
        {"blood_pressures": [{"method": "clinic", "systolic": 140}], "abpm_declined": True},
        {"blood_pressures": [{"systolic": 89}], "fainting_or_falls": True},
        {"pulse": {"rhythm": "irregular"}, "repeat_pulse": {"rhythm": "irregular"}},
        {"service": "contraception-ongoing", "no_supply_reason": "raised-blood-pressure"},
        {"service": [], "no_supply_reason": "raised-blood-pressure"},
        {"service": "Contraception ongoing", "no_supply_reason": "Raised blood pressure"},
    ],
)
def test_a_body_that_speaks_of_danger_says_whom_to_telephone(body: dict[str, Any]) -> None:
    whom = ADAPTER.danger(body)
    assert whom is not None
    assert "the patient's practice; out of hours NHS 111" in whom


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"urgency": "routine"},
        {"urgency": "notUrgent"},
        {"urgency": "asap"},
        {"urgency": ["urgent"]},
        {"red_flags": []},
        {"outcome": "supply"},
        {"blood_pressures": [{"systolic": 179, "diastolic": 119}]},
        {"blood_pressures": [{"systolic": True, "diastolic": "NaN"}]},
        {"blood_pressures": "180/120"},
        {"pulse": {"rhythm": "irregular"}},
        {"service": "shingles", "no_supply_reason": "raised-blood-pressure"},
    ],
)
def test_a_body_without_danger_names_nobody(body: dict[str, Any]) -> None:
    assert ADAPTER.danger(body) is None


def test_whom_to_telephone_is_the_practice_by_name_and_999_first_in_an_emergency() -> None:
    practice = {"name": "Riverside Medical Practice", "ods": "G99001"}
    body = {"urgency": "urgent", "practice": practice}
    assert ADAPTER.danger(body) == (
        "Telephone Riverside Medical Practice (G99001); out of hours NHS 111."
    )
    for symptoms in (True, "true", "Yes"):
        acute = {"blood_pressures": [{"systolic": 181}], "acute_symptoms": symptoms}
        whom = str(ADAPTER.danger(acute))
        assert whom.startswith("Telephone 999, or send the patient to A&E; then")
    odd = {"urgency": "urgent", "practice": {"name": "x\n" * 500, "ods": 5}}
    assert ADAPTER.danger(odd) == "Telephone the patient's practice; out of hours NHS 111."


names = st.sampled_from(sorted(Consultation.model_fields)) | st.text(max_size=3)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(names, anything, max_size=6))
def test_whatever_a_body_holds_danger_and_consent_are_read_without_an_error(
    body: dict[str, Any],
) -> None:
    assert ADAPTER.danger(body) is None or "111" in str(ADAPTER.danger(body))
    ADAPTER.withheld(body | {"consent_to_inform_gp": False})


# -- FHIR ----------------------------------------------------------------------------------------


def headed(content: bytes) -> dict[str, str]:
    """The texts of an update, by the code of their PRSB heading, in their order."""
    [told] = resources(content, "Communication")
    return {
        part["extension"][0]["valueCoding"]["code"]: part["contentString"]
        for part in told["payload"]
    }


def test_the_update_is_a_communication_with_one_payload_per_heading() -> None:
    body = example(
        history="None.",
        red_flags=["Rigors"],
        plan="Please review.",
        urgency="routine",
        onward_referral={"to": "Walk-in centre", "organisation": "RXX01", "urgency": "same-day"},
    )
    content = translated(body)["update"]
    said = headed(content)
    assert list(said) == [
        "presenting-complaints-or-issues",
        "clinical-summary",
        "history",
        "red-flags",
        "pregnancy-status",
        "outcome",
        "information-and-advice-given",
        "plan-and-requested-actions",
        "signpost-details",
    ]
    assert said["clinical-summary"] == body["clinical_summary"]
    assert said["signpost-details"] == "Walk-in centre (RXX01); same day"
    assert "Gateway met" in said["outcome"]
    [told] = resources(content, "Communication")
    headings = codes.system("record-standard-headings")
    assert all(
        part["extension"][0]["valueCoding"]["system"] == headings.url for part in told["payload"]
    )


@pytest.mark.parametrize(
    ("mode", "words"), [("telephone", "By telephone."), ("video", "By video.")]
)
def test_a_patient_who_was_seen_is_told_from_one_who_was_heard(mode: str, words: str) -> None:
    assert words in headed(translated(example(mode=mode))["update"])["outcome"]


def test_who_sent_the_patient_and_which_contraceptive_it_was_about_are_told() -> None:
    body = example("contraception-initiation", contraceptive="progestogen-only")
    for source, words in (
        ({"kind": "nhs-111"}, "Source: NHS 111."),
        ({"kind": "general-practice", "organisation": "G99002"}, "General practice (G99002)."),
        (
            {"kind": "nhs-111", "referred_at": "2026-10-01T08:05:00Z"},
            "Source: NHS 111, referred on 1 October 2026 at 09:05.",
        ),
        (
            {"kind": "nhs-111", "referred_at": "2026-09-30"},
            "Source: NHS 111, referred on 30 September 2026.",
        ),
    ):
        said = headed(translated(body | {"source": source})["update"])
        assert words in said["outcome"]
        assert "Contraceptive: Progestogen-only." in said["outcome"]


def test_a_message_is_known_by_our_id_and_by_the_senders_reference() -> None:
    for key, content in translated(example(BP)).items():
        kind = {"update": "Communication", "referral": "ServiceRequest"}[key]
        [found] = resources(content, kind)
        known = {it["system"]: it["value"] for it in found["identifier"]}
        assert known[codes.MESSAGE_ID] == IDS[key]
        assert known[codes.SENDER_REFERENCE] == example(BP)["reference"]
        assert known[codes.CORRELATION_ID] == IDS["update"]


def test_a_pressure_is_a_panel_with_the_codes_of_its_method() -> None:
    found = resources(translated(example(BP))["update"], "Observation")
    panels = {it["code"]["coding"][0]["code"]: it for it in found if "component" in it}
    clinic, average = panels["163020007"], panels["2181371000000107"]
    assert clinic["effectiveDateTime"] == "2026-09-24T10:00:00+01:00"
    assert [it["code"]["coding"][0]["code"] for it in average["component"]] == [
        "2181381000000109",
        "2181391000000106",
    ]
    assert average["component"][0]["valueQuantity"] == {
        "value": 158,
        "unit": "mmHg",
        "system": codes.UCUM,
        "code": "mm[Hg]",
    }


def test_observations_keep_their_digits_and_have_their_codes() -> None:
    body = example("acute-otitis-media")
    body["observations"][1]["value"] = strict_json.loads(b"21.50")
    content = translated(body)["update"]
    assert b'"value":21.50' in content
    assert {it["code"]["coding"][0]["code"] for it in resources(content, "Observation")} == {
        "703421000",
        "27113001",
    }


def test_an_irregular_pulse_and_a_refused_measurement_are_observations() -> None:
    body = a_check(150, 95, abpm_declined=True, pulse={"rate": 80, "unit": "bpm", **IRREGULAR})
    found = resources(translated(body)["update"], "Observation")
    by_code = {it["code"].get("coding", [{}])[0].get("code"): it for it in found}
    assert by_code["78564009"]["valueQuantity"]["code"] == "{beats}/min"
    assert by_code["61086009"]["valueBoolean"] is True
    assert by_code["861231000000105"]["valueBoolean"] is True


def test_a_regular_pulse_is_said_in_words_and_never_under_the_code_of_an_irregular_one() -> None:
    body = a_check(120, 80, pulse=IRREGULAR, repeat_pulse={"rhythm": "regular"})
    found = resources(translated(body)["update"], "Observation")
    irregular, regular = (it for it in found if it["code"].get("text", "").startswith("Pulse "))
    assert irregular["code"]["coding"][0]["code"] == "61086009"
    assert regular["code"] == {"text": "Pulse regular"}
    assert irregular["valueBoolean"] is regular["valueBoolean"] is True


@pytest.mark.parametrize(("said", "code"), [("pregnant", "77386006"), ("not-pregnant", "60001007")])
def test_pregnancy_is_an_observation(said: str, code: str) -> None:
    found = resources(translated(example(pregnancy=said))["update"], "Observation")
    assert code in {it["code"]["coding"][0]["code"] for it in found if "coding" in it["code"]}


def test_a_medicine_is_dispensed_with_everything_that_was_said_of_it() -> None:
    [found] = resources(translated(example())["update"], "MedicationDispense")
    assert found["medicationCodeableConcept"] == {
        "coding": [{"system": codes.DMD, "code": "41334211000001109"}],
        "text": "Nitrofurantoin 100mg modified-release capsules (Advanz Pharma)",
    }
    assert found["type"]["coding"][0]["code"] == "patient-group-direction"
    assert found["quantity"] == {"value": 6, "unit": "capsule"}
    assert found["daysSupply"]["code"] == "d"
    assert found["dosageInstruction"] == [
        {
            "text": "One capsule twice a day for 3 days",
            "patientInstruction": "Take with food; finish the course",
        }
    ]
    assert found["note"] == [{"text": "Supplied under Nitrofurantoin PGD 2.0."}]


def test_a_note_about_a_medicine_names_it() -> None:
    named = ("Nitrofurantoin 50mg capsules", "Paracetamol 500mg tablets")
    medicines = [example()["medicines"][0] | {"name": name, "level": "VMP"} for name in named]
    [told] = resources(translated(example(medicines=medicines))["update"], "Communication")
    assert [note["text"] for note in told["note"]] == [
        f"The medicine is not an actual medicinal product (AMP): {name}." for name in named
    ]


def test_who_was_there_stands_in_the_message() -> None:
    content = translated(example("infected-insect-bite"))["update"]
    people = {
        f"urn:uuid:{it['id']}": it["name"][0]["family"] for it in resources(content, "Practitioner")
    }
    assert list(people.values()) == ["Osei", "Marsh"]
    job_roles = "https://fhir.nhs.uk/STU3/CodeSystem/CareConnect-SDSJobRoleName-1"
    assert [it["code"][0]["coding"] for it in resources(content, "PractitionerRole")] == [
        [{"system": job_roles, "code": "R5230", "display": "Community Pharmacy Assistant"}],
        [{"system": job_roles, "code": "R1290", "display": "Pharmacist"}],
    ]
    [encounter] = resources(content, "Encounter")
    assert encounter["class"]["code"] == "AMB"
    seen_by, responsible = encounter["participant"]
    assert people[seen_by["individual"]["reference"]] == "Osei"
    assert "type" not in seen_by
    assert people[responsible["individual"]["reference"]] == "Marsh"
    assert responsible["type"] == [{"text": "Responsible pharmacist"}]
    organisations = {
        it["identifier"][0]["value"]: it["name"] for it in resources(content, "Organization")
    }
    assert organisations == {
        "FPH01": "Riverside Pharmacy",
        "G99001": "Riverside Medical Practice",
    }


def test_the_patients_own_circumstances_are_carried() -> None:
    content = translated(
        example("infected-insect-bite", patient__safeguarding="Known to the team")
    )["update"]
    [patient] = resources(content, "Patient")
    assert patient["identifier"][0]["extension"][0]["url"] == codes.EXT_NHS_NUMBER_STATUS
    assert patient["communication"][0]["language"]["coding"][0]["code"] == "pl"
    assert {it["category"][0]["coding"][0]["code"] for it in resources(content, "Flag")} == {
        "safety",
        "clinical",
        "contact",
    }
    [guardian] = resources(translated(example("impetigo"))["update"], "RelatedPerson")
    assert guardian["relationship"] == [{"text": "father"}]


def test_an_allergy_is_carried_with_its_reaction() -> None:
    content = translated(example())["update"]
    [told] = resources(content, "AllergyIntolerance")
    assert told["code"]["text"] == "Trimethoprim"
    assert told["reaction"][0]["manifestation"] == [{"text": "Rash"}]
    assert "allergies-and-adverse-reaction" not in headed(content)


def test_no_known_allergies_is_said_in_words_and_is_never_an_allergy() -> None:
    content = translated(example("shingles"))["update"]
    assert resources(content, "AllergyIntolerance") == []
    assert headed(content)["allergies-and-adverse-reaction"] == "No known allergies"


def test_an_allergy_that_is_named_outweighs_that_none_is_known() -> None:
    content = translated(example(no_known_allergies=True))["update"]
    assert len(resources(content, "AllergyIntolerance")) == 1
    assert "allergies-and-adverse-reaction" not in headed(content)


def test_the_referral_says_how_soon_and_why_and_brings_what_it_speaks_of() -> None:
    content = translated(example(BP))["referral"]
    [wanted] = resources(content, "ServiceRequest")
    assert wanted["priority"] == "asap"
    assert wanted["occurrencePeriod"] == {
        "start": "2026-10-01T10:05:00+01:00",
        "end": "2026-10-08",
    }
    assert wanted["reasonCode"][0]["coding"] == [
        {
            "system": "https://referral-broker.example/fhir/CodeSystem/pharmacy-escalation",
            "code": "ambulatory-average-stage-2",
            "display": "Ambulatory average of 150/95 mmHg or more",
        }
    ]
    assert len(wanted["supportingInfo"]) >= 2
    assert any("Please review within 7 days" in note["text"] for note in wanted["note"])
    [requester] = [
        it
        for it in resources(content, "PractitionerRole")
        if wanted["requester"]["reference"].endswith(it["id"])
    ]
    assert requester["organization"]


@pytest.mark.parametrize(
    ("urgency", "end"),
    [
        ("same-day", "2026-10-01"),
        ("urgent", "2026-10-02"),
        ("within-7-days", "2026-10-08"),
        ("routine", None),
    ],
)
def test_the_window_of_a_referral_follows_its_priority(urgency: str, end: str | None) -> None:
    body = example(urgency=urgency, clinical_time="2026-10-01")
    [wanted] = resources(translated(body)["referral"], "ServiceRequest")
    assert wanted["occurrencePeriod"].get("end") == end
    assert wanted["occurrencePeriod"]["start"] == date(2026, 10, 1).isoformat()


def test_the_window_of_what_is_for_the_same_day_is_that_day() -> None:
    """A time and the day that it is in do not compare, and FHIR's own validator refuses both."""
    body = example(urgency="same-day", clinical_time="2026-10-01T10:05:00+01:00")
    [wanted] = resources(translated(body)["referral"], "ServiceRequest")
    assert wanted["occurrencePeriod"] == {"start": "2026-10-01", "end": "2026-10-01"}


def test_warnings_stand_on_both_messages_for_the_practice_to_see() -> None:
    body = example(BP, patient__nhs_number_status="02")
    for key, kind in (("update", "Communication"), ("referral", "ServiceRequest")):
        [found] = resources(translated(body)[key], kind)
        noted = [note for note in found["note"] if "extension" in note]
        assert noted[0]["extension"][0]["valueCoding"]["code"] == "nhs-number-not-traced"
        assert noted[0]["text"] == "The NHS number is present but not traced (02)."


def test_a_warning_that_routing_found_is_carried_too() -> None:
    extra = Problem("practice", "copy-not-sent", "The copy could not go.")
    [told] = resources(translated(example(), warnings=(extra,))["update"], "Communication")
    assert told["note"][0]["text"] == "The copy could not go."


def test_a_referral_that_does_not_go_out_is_not_translated() -> None:
    contents = translated(example(BP), message_ids={"update": IDS["update"]})
    assert list(contents) == ["update"]


def test_what_a_message_is_about_is_its_focus() -> None:
    request = read(example(BP))
    for draft in ADAPTER.translate(request, context(ADAPTER.needs(request, NOW))):
        kinds = {
            entry.full_url: bundle.resource_type_of(entry.resource)
            for entry in bundle.entries(draft.content)
        }
        assert (
            kinds[draft.focus]
            == {"update": "Communication", "referral": "ServiceRequest"}[draft.key]
        )
