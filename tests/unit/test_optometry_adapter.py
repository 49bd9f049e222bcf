"""The optometry adapter: what it takes and refuses, where it goes, and what the message says."""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.resources import files
from typing import Any

import pytest
from pydantic import ValidationError

from adapters.pillars.optometry.door import REFERRALS as ADAPTER
from adapters.pillars.optometry.door import OptometryReferral
from adapters.pillars.optometry.sight_test import SightTestReferral
from broker.errors import Problem
from broker.events import Destination, Kind, Priority, Role, SubjectKind
from broker.ports import Adapter, Attached, Context, Needs, Party
from fhir_profiles import codes, strict_json
from fhir_profiles.blocks import Fault, to_problems
from fhir_profiles.pathways.catalogue import catalogue
from tests.made import errors

NOW = datetime(2026, 10, 1, 16, 0, tzinfo=UTC)
MESSAGE = "01999f6e-6c00-7000-8000-000000000001"
EXAMPLES: Mapping[str, Any] = strict_json.loads(
    (files("adapters") / "examples" / "optometry.json").read_bytes()
)
CLEARVIEW = Party("TPX01", "Clearview Opticians", "0113 496 0301")
NORTHFIELD = Party("RXX01", "Northfield Hospital", "0113 496 0400", "RXX01-SPA")
RIVERSIDE = Party("G99001", "Riverside Medical Practice", "0113 496 0201")
SNOMED_WITHOUT_ROW = "9826008"


def body(example: str = "suspected-wet-amd", **changes: Any) -> dict[str, Any]:
    """An example with some fields changed; None takes a field out."""
    made: dict[str, Any] = copy.deepcopy(EXAMPLES[example])
    for name, value in changes.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = value
    return made


def read(raw: Mapping[str, Any], now: datetime = NOW) -> OptometryReferral:
    request = ADAPTER.accepts.model_validate(raw, context={"now": now})
    assert isinstance(request, OptometryReferral)
    return request


def sight_test(raw: Mapping[str, Any]) -> SightTestReferral:
    said = read(raw).root
    assert isinstance(said, SightTestReferral)
    return said


def refused(raw: Mapping[str, Any], now: datetime = NOW) -> list[Fault]:
    with pytest.raises(ValidationError) as error:
        read(raw, now)
    return to_problems(error.value, OptometryReferral)


def needed(raw: Mapping[str, Any], now: datetime = NOW) -> Needs:
    return ADAPTER.needs(read(raw, now), now)


def warned(raw: Mapping[str, Any], now: datetime = NOW) -> list[tuple[str, str]]:
    return [(warning.field, warning.code) for warning in needed(raw, now).warnings]


def context(
    raw: Mapping[str, Any], acting: Party = NORTHFIELD, practice: Party | None = RIVERSIDE
) -> Context:
    told = [(acting, Role.ACTING)]
    if practice is not None:
        told.append((practice, Role.COPY))
    return Context(
        message_ids={"referral": MESSAGE},
        sender=CLEARVIEW,
        practice=practice,
        destinations={"referral": tuple(told)},
        correlation_id="01999f6e-6c00-7000-8000-000000000002",
        now=NOW,
        warnings=needed(raw).warnings,
        attachments={
            one["id"]: Attached(
                one["id"], one["sha256"], "image/png", 70, f"https://broker.example/{one['id']}"
            )
            for one in raw.get("attachments", ())
        },
    )


def content(raw: Mapping[str, Any], practice: Party | None = RIVERSIDE) -> bytes:
    [draft] = ADAPTER.translate(read(raw), context(raw, practice=practice))
    return draft.content


class Message:
    """A translated message, to look into."""

    def __init__(self, raw: Mapping[str, Any], practice: Party | None = RIVERSIDE) -> None:
        self.body = content(raw, practice)
        self.entries = {
            entry["fullUrl"]: entry["resource"] for entry in strict_json.loads(self.body)["entry"]
        }

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [it for it in self.entries.values() if it["resourceType"] == kind]

    def the(self, kind: str) -> dict[str, Any]:
        [found] = self.all(kind)
        return found

    def seen(self, code: str, side: str | None = None) -> dict[str, Any]:
        """The one Observation of a code, in one eye if it is of an eye."""
        site = {"right": "18944008", "left": "8966001", None: None}[side]
        [found] = [
            it
            for it in self.all("Observation")
            if it["code"]["coding"][0]["code"] == code
            and (site is None or it["bodySite"]["coding"][0]["code"] == site)
        ]
        return found

    def extension(self, name: str) -> list[dict[str, Any]]:
        return [
            it
            for it in self.the("ServiceRequest")["extension"]
            if it["url"].rsplit("/", 1)[-1] == name
        ]


def parts(extension: Mapping[str, Any]) -> dict[str, Any]:
    return {
        it["url"]: next(value for name, value in it.items() if name.startswith("value"))
        for it in extension["extension"]
    }


def strings(value: Any) -> Iterator[str]:
    """Every text and number in a JSON value, as it is written."""
    if isinstance(value, dict):
        for member in value.values():
            yield from strings(member)
    elif isinstance(value, list):
        for element in value:
            yield from strings(element)
    elif not isinstance(value, bool):
        yield str(value)


# -- what is taken -------------------------------------------------------------------------------


def test_it_is_an_adapter() -> None:
    adapter: Adapter = ADAPTER
    assert (adapter.name, adapter.accepts) == ("optometry", OptometryReferral)
    assert adapter.door == "/optometry/referrals"
    assert list(adapter.examples)[: len(EXAMPLES)] == list(EXAMPLES)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_is_taken_unmodified(example: str) -> None:
    assert sight_test(body(example)).reference == EXAMPLES[example]["reference"]


def test_the_openapi_page_describes_every_field() -> None:
    schema = OptometryReferral.model_json_schema()
    for block in schema["$defs"].values():
        for name, field in block["properties"].items():
            assert "description" in field or "$ref" in field, name


def test_the_openapi_page_lists_every_condition_code() -> None:
    schema = json.dumps(OptometryReferral.model_json_schema())
    for code in codes.system("eye-condition").displays:
        assert f'"{code}"' in schema


def test_without_an_nhs_number_the_rest_of_who_it_is_must_be_there() -> None:
    raw = body("no-nhs-number")
    for name in ("sex", "address", "telephone"):
        del raw["patient"][name]
    assert {(fault.field, fault.code) for fault in refused(raw)} == {
        ("patient.sex", "needed-without-nhs-number"),
        ("patient.address.lines", "needed-without-nhs-number"),
        ("patient.address.postcode", "needed-without-nhs-number"),
        ("patient.telephone", "needed-without-nhs-number"),
    }


def test_with_an_nhs_number_address_and_telephone_are_not_needed() -> None:
    raw = body()
    for name in ("sex", "address", "telephone"):
        del raw["patient"][name]
    assert sight_test(raw).patient.nhs_number == "9990000018"


def test_everything_that_is_wrong_is_told_at_once_each_with_its_own_field() -> None:
    raw = body(
        eye="middle",
        urgency="soon",
        condition={"code": "sore-eye"},
        date_of_sight_test="2026-10-03",
        consent="yes",
        colour="blue",
        reference=None,
    )
    raw["performer"]["goc_number"] = "12345"
    raw["right"]["refraction"]["axis"] = 190
    raw["left"]["pressures"][0]["value"] = "14"
    raw["left"]["cup_disc_ratio"] = Decimal("1.01")
    assert {(fault.field, fault.code) for fault in refused(raw)} == {
        ("eye", "not-in-list"),
        ("urgency", "not-in-list"),
        ("condition.code", "not-in-list"),
        ("date_of_sight_test", "in-the-future"),
        ("consent", "wrong-type"),
        ("colour", "unknown-field"),
        ("reference", "missing"),
        ("performer.goc_number", "goc-number-invalid"),
        ("right.refraction.axis", "invalid"),
        ("left.pressures[0].value", "not-a-number"),
        ("left.cup_disc_ratio", "invalid"),
    }


@pytest.mark.parametrize(
    ("path", "right", "wrong"),
    [
        ("cup_disc_ratio", Decimal(1), Decimal("1.01")),
        ("cup_disc_ratio", Decimal(0), Decimal("-0.1")),
        ("refraction.axis", 180, 181),
        ("refraction.axis", 0, -1),
        ("refraction.sphere", -60, Decimal("-60.25")),
        ("pressures.value", 120, 121),
        ("pressures.value", 0, -1),
    ],
)
def test_a_number_outside_what_can_be_is_refused_and_one_at_its_edge_is_not(
    path: str, right: Any, wrong: Any
) -> None:
    raw = body()
    raw["right"]["refraction"] = {"cylinder": 1, "axis": 5}
    raw["right"]["pressures"] = [{"value": 12}]
    for value in (right, wrong):
        holder = raw["right"]
        *inside, last = path.split(".")
        for step in inside:
            holder = holder[step][0] if step == "pressures" else holder[step]
        holder[last] = value
        if value == right:
            read(raw)
    [fault] = refused(raw)
    assert fault.field.endswith(last)


def test_a_cylinder_needs_its_axis() -> None:
    raw = body()
    raw["right"]["refraction"] = {"sphere": 1, "cylinder": Decimal("-0.75")}
    [fault] = refused(raw)
    assert (fault.field, fault.code) == ("right.refraction.axis", "missing")
    raw["right"]["refraction"]["cylinder"] = 0
    read(raw)


def test_a_condition_needs_a_code() -> None:
    [fault] = refused(body(condition={"text": "Something is wrong"}))
    assert (fault.field, fault.code) == ("condition.code", "missing")
    # What the rule says, not what the field is: a SNOMED CT concept would do as well.
    assert fault.detail == "The condition has no code."
    assert fault.todo.endswith("or `snomed`.")


def test_two_codes_for_different_conditions_are_refused() -> None:
    [fault] = refused(body(condition={"code": "cataract", "snomed": "4740000"}))
    assert (fault.field, fault.code) == ("condition.snomed", "codes-differ")
    read(body(condition={"code": "herpes-zoster", "snomed": "4740000"}))
    read(body(condition={"code": "cataract", "snomed": SNOMED_WITHOUT_ROW}))


def test_a_rounded_snomed_code_is_refused() -> None:
    [fault] = refused(body(condition={"snomed": "9826000"}))
    assert (fault.field, fault.code) == ("condition.snomed", "snomed-code-invalid")


# -- what is needed ------------------------------------------------------------------------------


def test_a_referral_asks_for_one_message_by_its_table_row() -> None:
    needs = needed(body())
    [want] = needs.wants
    assert (needs.organisation, needs.reference) == ("TPX01", "CV-2026-000101")
    assert (needs.subject, needs.consent) == (SubjectKind.REFERRAL, True)
    assert (want.key, want.kind) == ("referral", Kind.REFERRAL)
    assert want.pathway == "suspected-wet-amd"
    assert want.priority is Priority.ASAP
    assert want.required


@pytest.mark.parametrize(
    ("said", "priority"),
    [
        ("same-day", Priority.STAT),
        ("urgent", Priority.URGENT),
        ("within-7-days", Priority.ASAP),
        ("routine", Priority.ROUTINE),
    ],
)
def test_the_words_of_the_door_are_the_levels_of_the_broker(said: str, priority: Priority) -> None:
    assert needed(body("cataract", urgency=said)).wants[0].priority is priority


def test_the_table_raises_the_urgency_and_the_answer_names_the_rule() -> None:
    raw = body("retinal-detachment", urgency="routine")
    needs = needed(raw)
    assert needs.wants[0].priority is Priority.STAT
    assert ("urgency", "urgency-raised") in warned(raw)
    assert "retinal-detachment (C205" in needs.advice[-1]


def test_the_senders_higher_urgency_stands_and_the_answer_still_names_the_rule() -> None:
    needs = needed(body("cataract", urgency="urgent"))
    assert needs.wants[0].priority is Priority.URGENT
    assert "sender's own urgency" in needs.advice[-1]
    assert "cataract" in needs.advice[-1]


def test_the_acting_receiver_is_sought_by_type_and_subspecialty_and_the_gp_gets_a_copy() -> None:
    acting, copied = needed(body(subspecialty="other-medical-retina")).wants[0].seeks
    assert (acting.role, acting.receiver_type) == (Role.ACTING, "macular")
    assert (acting.subspecialty, acting.named) == ("other-medical-retina", None)
    assert (acting.practice, acting.postcode) == ("G99001", "LS6 2AB")
    assert (copied.role, copied.receiver_type) == (Role.COPY, "general-practice")
    assert copied.practice == "G99001"


def test_a_named_provider_is_sought_by_name() -> None:
    acting = needed(body("cataract")).wants[0].seeks[0]
    assert acting.named == Destination("RXX01", "RXX01-SPA")
    raw = body("cataract", provider={"ods": "RXX01"})
    assert needed(raw).wants[0].seeks[0].named == Destination("RXX01")


def test_without_a_known_practice_nobody_gets_a_copy_and_the_postcode_says_where() -> None:
    [acting] = needed(body("no-nhs-number")).wants[0].seeks
    assert (acting.practice, acting.postcode) == (None, "LS2 7DA")


def test_where_the_gp_acts_there_is_no_copy() -> None:
    raw = body(condition={"code": "herpes-zoster-acute-skin-lesions"})
    [acting] = needed(raw).wants[0].seeks
    assert (acting.role, acting.receiver_type) == (Role.ACTING, "general-practice")


def test_a_gp_condition_without_a_practice_goes_to_the_urgent_eye_service() -> None:
    raw = body(condition={"snomed": "4740000"}, practice=None)
    assert needed(raw).wants[0].seeks[0].receiver_type == "urgent-eye"
    assert ("practice.ods", "urgent-eye-service-for-gp") in warned(raw)


def test_a_gp_condition_with_a_named_hospital_goes_there_and_the_gp_gets_a_copy() -> None:
    raw = body(condition={"code": "herpes-zoster"}, provider={"ods": "RXX01"})
    acting, copied = needed(raw).wants[0].seeks
    assert (acting.receiver_type, acting.named) == ("urgent-eye", Destination("RXX01"))
    assert copied.practice == "G99001"


def test_a_snomed_code_without_a_row_is_warned_of_and_the_senders_urgency_stands() -> None:
    raw = body("cataract", condition={"snomed": SNOMED_WITHOUT_ROW}, urgency="urgent")
    needs = needed(raw)
    assert needs.wants[0].priority is Priority.URGENT
    assert needs.wants[0].seeks[0].receiver_type == "spa"
    assert ("condition.snomed", "condition-without-a-rule") in warned(raw)


def test_the_condition_is_the_reason_that_the_catalogue_has_clocks_for() -> None:
    want = needed(body()).wants[0]
    assert (want.pathway, want.reason_code) == ("suspected-wet-amd", "suspected-wet-amd")


def test_wet_amd_sent_after_the_next_working_day_is_warned_of() -> None:
    # The sight test was on a Thursday: Friday 18:30 London is the last moment.
    in_time = datetime(2026, 10, 2, 17, 30, tzinfo=UTC)
    late = datetime(2026, 10, 2, 17, 30, 1, tzinfo=UTC)
    assert "sent-late" not in {code for _, code in warned(body(), in_time)}
    assert ("date_of_sight_test", "sent-late") in warned(body(), late)


def test_happened_is_the_sight_test_with_its_time_if_it_is_known() -> None:
    assert needed(body("cataract")).wants[0].happened == date(2026, 10, 1)
    assert needed(body()).wants[0].happened == datetime(2026, 10, 1, 9, 40, tzinfo=UTC)


def test_an_unconfirmed_pressure_is_warned_of_with_its_own_field() -> None:
    assert ("right.pressures[0]", "pressure-not-confirmed") in warned(body("raised-pressure"))
    assert ("left.pressures[0]", "pressure-not-confirmed") not in warned(body("raised-pressure"))


def test_no_warning_repeats_what_was_found() -> None:
    said = " ".join(
        f"{warning.detail} {warning.todo}" for warning in needed(body("raised-pressure")).warnings
    )
    assert "25" not in said
    assert "Whitfield" not in said


def test_a_patient_without_an_nhs_number_is_not_verified_and_that_is_said() -> None:
    needs = needed(body("no-nhs-number"))
    assert (needs.nhs_number, needs.identity_verified) == (None, False)
    assert ("patient.nhs_number", "identity-not-verified") in warned(body("no-nhs-number"))


def test_a_traced_patient_is_verified() -> None:
    needs = needed(body())
    assert (needs.nhs_number, needs.identity_verified) == ("9990000018", True)
    assert needs.warnings == ()


def test_emergency_department_words_come_first_and_only_where_the_data_has_them() -> None:
    with_words = needed(body(condition={"code": "orbital-cellulitis"})).advice
    assert "999" in with_words[0]
    assert not any("999" in line for line in needed(body("retinal-detachment")).advice)


@pytest.mark.parametrize(
    ("urgency", "escalates"),
    [("same-day", True), ("urgent", True), ("within-7-days", False), ("routine", False)],
)
def test_what_is_urgent_or_higher_escalates(urgency: str, escalates: bool) -> None:
    assert needed(body("cataract", urgency=urgency)).escalates == escalates


def test_a_sensitive_patient_is_labelled_restricted() -> None:
    raw = body()
    raw["patient"]["sensitive"] = True
    assert needed(raw).label == "R"
    assert needed(body()).label == "N"


# -- what is refused or withheld -----------------------------------------------------------------


def test_where_the_patient_agrees_nothing_is_withheld() -> None:
    assert ADAPTER.withheld(body()) is None
    assert ADAPTER.withheld(body(consent=None)) is None


def test_where_the_patient_refuses_only_organisation_and_reference_are_checked() -> None:
    raw = {
        "consent": False,
        "reference": "CV-1",
        "optical_practice": {"ods": "TPX01"},
        "nonsense": [],
    }
    withheld = ADAPTER.withheld(raw)
    assert withheld is not None
    problems, said = list(withheld.problems), list(withheld.read_first)
    assert problems == []
    assert "nothing was sent" in said[0]
    missing = ADAPTER.withheld({"consent": False, "optical_practice": {"ods": "?"}})
    assert missing is not None
    assert {(it.field, it.code) for it in missing.problems} == {
        ("reference", "missing"),
        ("optical_practice.ods", "ods-code-invalid"),
    }


def test_a_refused_emergency_says_that_nobody_has_been_told() -> None:
    withheld = ADAPTER.withheld(body("retinal-detachment", consent=False))
    assert withheld is not None
    assert withheld.read_first[0].startswith("Nobody has been told.")
    assert "A&E" not in withheld.read_first[0]
    hospital = ADAPTER.withheld(body(consent=False, condition={"code": "papilloedema"}))
    assert hospital is not None
    assert "Send the patient to the emergency department (A&E) now" in hospital.read_first[0]
    routine = ADAPTER.withheld(body("cataract", consent=False))
    assert routine is not None
    assert not any("Nobody" in line for line in routine.read_first)


@pytest.mark.parametrize(
    ("raw", "whom"),
    [
        ({"urgency": "same-day"}, "single point of access"),
        ({"urgency": "urgent"}, "single point of access"),
        ({"urgency": "stat"}, "single point of access"),
        ({"urgency": "emergency24Hours"}, "single point of access"),
        ({"urgency": "Same day"}, "single point of access"),
        ({"condition": {"code": "uveitis"}}, "eye casualty"),
        ({"condition": {"snomed": "4740000"}, "practice": {"ods": "G99001"}}, "GP practice"),
        ({"condition": {"snomed": "4740000"}}, "urgent eye service"),
        (
            {
                "condition": {"snomed": "4740000"},
                "practice": {"ods": "G99001"},
                "provider": {"ods": "RXX01"},
            },
            "urgent eye service",
        ),
        ({"condition": {"code": "Orbital_Cellulitis"}}, "eye casualty"),
        ({"right": {"pressures": [{"value": 40}]}}, "eye casualty"),
        ({"left": {"pressures": [{}, {"value": Decimal("41.5")}]}}, "eye casualty"),
        ({"left": {"pressures": {"value": 50}}}, "eye casualty"),
        ({"right": {"pressures": [{"value": "50"}]}}, "eye casualty"),
        ({"condition": {"code": "papilloedema"}}, "999"),
    ],
)
def test_a_refused_body_that_is_urgent_says_whom_to_telephone(
    raw: dict[str, Any], whom: str
) -> None:
    said = ADAPTER.danger(raw)
    assert said is not None
    assert said.startswith("Telephone the ")
    assert whom in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "referrals to the macular service"),
        (
            {"subspecialty": "other-medical-retina"},
            "referrals to the macular service (Other medical retina)",
        ),
    ],
)
def test_what_is_sought_is_said_in_words_and_not_in_codes(
    changes: dict[str, str], words: str
) -> None:
    raw = body(**changes) if changes else body(subspecialty=None)
    assert needed(raw).wants[0].seeks[0].words == words


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"urgency": "routine"},
        {"urgency": "within-7-days"},
        {"condition": {"code": "suspected-wet-amd"}},
        {"urgency": 7, "condition": [], "right": "none", "left": {"pressures": 50}},
        {"urgency": "notUrgent"},
        {"condition": {"code": ["uveitis"], "snomed": 5}, "practice": "G99001"},
        {"right": {"pressures": [50, None, {"value": "high"}, {"value": Decimal("NaN")}]}},
        {"right": {"pressures": [{"value": Decimal("39.9")}]}},
    ],
)
def test_a_refused_body_that_is_not_urgent_or_cannot_be_read_names_nobody(
    raw: dict[str, Any],
) -> None:
    assert ADAPTER.danger(raw) is None


# -- what the message says -----------------------------------------------------------------------


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_becomes_fhir_r4(example: str) -> None:
    practice = RIVERSIDE if "practice" in EXAMPLES[example] else None
    assert errors(content(body(example), practice)) == []


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_reference_leads_to_an_entry(example: str) -> None:
    message = Message(body(example))
    text = message.body.decode()
    referred = set(re.findall(r'"reference":"([^"]+)"', text))
    assert referred <= message.entries.keys()


def test_the_same_request_gives_the_same_bytes() -> None:
    assert content(body()) == content(body())


def test_the_draft_is_about_the_service_request() -> None:
    raw = body()
    [draft] = ADAPTER.translate(read(raw), context(raw))
    entries = strict_json.loads(draft.content)["entry"]
    assert entries[0]["fullUrl"] == draft.focus
    assert entries[0]["resource"]["resourceType"] == "ServiceRequest"


# Words of the door that have a code of their own on the message.
CODED = {
    *{"same-day", "urgent", "within-7-days", "routine"},
    *{"right", "left", "both", "telephone"},
    *{"goldmann", "perkins", "rebound", "non-contact", "other"},
}
IMAGE = "01932f6e-5b1c-7d2e-9f3a-4b5c6d7e8f90"
# What the directory knows better than the sender, and what is said as an address.
BETTER_KNOWN = {"0113 496 0200", "Hilltop Surgery", "G99002", IMAGE}


def lost(raw: Mapping[str, Any]) -> set[str]:
    written = set(strings(strict_json.loads(content(raw))))
    return set(strings(raw)) - CODED - BETTER_KNOWN - written


@pytest.mark.parametrize("example", EXAMPLES)
def test_nothing_that_the_sender_said_is_lost(example: str) -> None:
    assert lost(body(example)) == set()


def eye_with_everything(offset: str) -> dict[str, Any]:
    """Every field of one eye; the numbers of the two eyes differ in their last digit."""

    def prism(digits: str) -> dict[str, Any]:
        bases = ("base_in", "base_out", "base_up", "base_down")
        return {base: Decimal(f"{digits}{at}{offset}0") for at, base in enumerate(bases, start=1)}

    return {
        "acuity": f"6/9-{offset}",
        "unaided_vision": f"6/18-{offset}",
        "pinhole": f"6/6-{offset}",
        "near_acuity": f"N{offset}",
        "previous_acuity": f"6/7.5-{offset}",
        "previous_acuity_date": f"2025-09-0{offset}",
        "refraction": {
            "sphere": Decimal(f"-4.{offset}0"),
            "cylinder": Decimal(f"3.{offset}0"),
            "axis": Decimal(f"17{offset}.0"),
            "addition": Decimal(f"2.{offset}00"),
            "distance_prism": prism("5."),
            "near_prism": prism("6."),
        },
        "pressures": [
            {
                "value": Decimal(f"21.{offset}0"),
                "method": "perkins",
                "taken_at": f"2026-10-01T10:0{offset}:00+01:00",
                "repeated": True,
            }
        ],
        "cup_disc_ratio": Decimal(f"0.{offset}0"),
        "optic_disc": f"Disc {offset}",
        "visual_field": f"Field {offset}",
        "other": f"Line {offset}\nand another",
    }


def everything() -> dict[str, Any]:
    raw = body(
        "cataract",
        condition={"code": "herpes-zoster", "snomed": "4740000", "text": "Zoster of the lid"},
        right=eye_with_everything("1"),
        left=eye_with_everything("2"),
        cycloplegic=True,
        medicines=[{"name": "Aciclovir", "dmd_code": "289411000001107", "dose": "Five a day"}],
        allergies=[{"substance": {"text": "Latex", "code": "276433004"}, "reaction": "Itching"}],
        information_for_patient="Wash your hands.",
        additional_information="Prefers mornings.",
        attachments=[
            {
                "id": IMAGE,
                "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "title": "OCT, right macula",
                "dated": "2026-09-30",
                "shows": "Fluid at the fovea",
            }
        ],
    )
    raw["patient"] |= {
        "needs": ["Level access"],
        "flags": ["Dog at home"],
        "safeguarding": "Frightened of a relative.",
        "language": "yo",
        "guardian": {
            "name": {"family": "Adeyemi", "given": "Ruth", "prefix": "Dr"},
            "relationship": "daughter",
            "telephone": "07700 900177",
        },
    }
    return raw


def test_a_referral_with_every_field_filled_loses_nothing_and_no_digit() -> None:
    raw = everything()
    assert sight_test(raw).model_fields_set == set(SightTestReferral.model_fields)
    assert lost(raw) == set()
    assert errors(content(raw)) == []


def test_numbers_keep_their_digits() -> None:
    text = content(body("cataract")).decode()
    for digits in ("-2.00", "0.75", "2.25", "1.25", "1.00", "17.0", "16.5", "0.30", "70"):
        assert f'"value":{digits},' in text, digits


def test_the_service_request_says_what_for_whom_by_when() -> None:
    message = Message(body())
    asked = message.the("ServiceRequest")
    assert (asked["status"], asked["intent"], asked["priority"]) == ("active", "order", "asap")
    assert asked["authoredOn"] == "2026-10-01T16:00:00+00:00"
    assert asked["occurrencePeriod"] == {
        "start": "2026-10-01T10:40:00+01:00",
        "end": "2026-10-08T17:30:00+00:00",
    }
    assert [it["value"] for it in asked["identifier"]] == [MESSAGE, "CV-2026-000101"]
    [reason] = asked["reasonCode"]
    assert reason["coding"][0]["code"] == "suspected-wet-amd"
    assert reason["text"].startswith("New distortion")
    assert [it["coding"][0]["code"] for it in asked["bodySite"]] == ["18944008"]
    [performer] = asked["performer"]
    assert message.entries[performer["reference"]]["name"] == "Northfield Hospital"
    role = message.entries[asked["requester"]["reference"]]
    assert message.entries[role["practitioner"]["reference"]]["identifier"][0] == {
        "system": "https://fhir.hl7.org.uk/Id/goc-number",
        "value": "01-12345",
    }
    assert asked["patientInstruction"].startswith("Expect a call")


def test_the_period_never_ends_before_it_starts() -> None:
    raw = body("retinal-detachment", date_of_sight_test="2026-10-01T16:45:00+00:00")
    later = datetime(2026, 10, 1, 18, 30, tzinfo=UTC)
    raw["date_of_sight_test"] = "2026-10-01T18:00:00+00:00"
    request = read(raw, later)
    [draft] = ADAPTER.translate(request, context(body("retinal-detachment")))
    period = strict_json.loads(draft.content)["entry"][0]["resource"]["occurrencePeriod"]
    assert datetime.fromisoformat(period["start"]) < datetime.fromisoformat(period["end"])


def test_both_urgencies_and_the_rule_are_on_the_message() -> None:
    raw = body("retinal-detachment", urgency="routine")
    message = Message(raw)
    [urgency] = message.extension("urgency")
    kept = parts(urgency)
    assert (kept["sender"], kept["table"]) == ("routine", "stat")
    assert "retinal-detachment" in kept["rule"]
    asked = message.the("ServiceRequest")
    assert asked["priority"] == "stat"
    [reason] = asked["_priority"]["extension"]
    assert reason["url"].endswith("Extension-UKCore-PriorityReason")
    assert reason["valueCodeableConcept"]["coding"][0]["code"] == "retinal-detachment"


def test_a_condition_without_a_row_has_the_senders_urgency_only() -> None:
    message = Message(body("cataract", condition={"snomed": SNOMED_WITHOUT_ROW}))
    [urgency] = message.extension("urgency")
    assert parts(urgency).keys() == {"sender", "rule"}
    asked = message.the("ServiceRequest")
    assert asked["reasonCode"] == [
        {"coding": [{"system": "http://snomed.info/sct", "code": SNOMED_WITHOUT_ROW}]}
    ]


def test_a_confirmed_snomed_code_stands_beside_ours_whichever_was_sent() -> None:
    for condition in ({"code": "herpes-zoster"}, {"snomed": "4740000"}):
        asked = Message(body(condition=condition)).the("ServiceRequest")
        assert [it["code"] for it in asked["reasonCode"][0]["coding"]] == [
            "herpes-zoster",
            "4740000",
        ]


def test_all_three_clocks_of_wet_amd_are_on_the_message() -> None:
    clocks = [parts(it) for it in Message(body()).extension("clock")]
    assert {it["kind"]: it["due"] for it in clocks} == {
        "sent": "2026-10-02T17:30:00+00:00",
        "seen": "2026-10-08T17:30:00+00:00",
        "treated": "2026-10-15T17:30:00+00:00",
    }
    assert Message(body("cataract")).extension("clock") == []


def test_every_warning_is_on_the_message_with_its_code() -> None:
    raw = body("raised-pressure")
    noted = {
        it["extension"][0]["valueCoding"]["code"]: it["text"]
        for it in Message(raw).the("ServiceRequest")["note"]
        if "extension" in it
    }
    assert noted == {it.code: it.detail for it in needed(raw).warnings}
    assert noted.keys() == {"nhs-number-not-traced", "pressure-not-confirmed"}


def test_a_warning_of_the_broker_is_on_the_message_too() -> None:
    raw = body()
    given = context(raw)
    warning = Problem("practice.ods", "copy-not-connected", "No copy was sent.", "")
    told = Context(
        message_ids=given.message_ids,
        sender=given.sender,
        practice=given.practice,
        destinations=given.destinations,
        correlation_id=given.correlation_id,
        now=given.now,
        warnings=(warning,),
    )
    [draft] = ADAPTER.translate(read(raw), told)
    assert b'"No copy was sent."' in draft.content


def test_an_unverified_identity_is_a_flag_a_note_and_a_reason_on_the_patient() -> None:
    message = Message(body("no-nhs-number"), practice=None)
    [flag] = message.all("Flag")
    assert flag["code"]["coding"][0]["code"] == "identity-not-verified"
    patient = message.the("Patient")
    assert "identifier" not in patient
    [reason] = patient["extension"]
    assert reason["url"].endswith("Extension-UKCore-NHSNumberUnavailableReason")
    assert reason["valueCodeableConcept"]["coding"][0]["code"] == "nhs-number-not-known"
    notes = [it["text"] for it in message.the("ServiceRequest")["note"]]
    assert any(text.startswith("Identity not verified") for text in notes)


def test_a_verified_identity_is_not_flagged() -> None:
    flagged = [it["code"]["text"] for it in Message(body()).all("Flag")]
    assert flagged == ["Lives alone", "Large print"]


def test_a_referral_of_both_eyes_has_a_condition_for_each() -> None:
    message = Message(body("cataract"))
    sites = [it["bodySite"][0]["coding"][0]["code"] for it in message.all("Condition")]
    assert sites == ["18944008", "8966001"]
    assert len(message.the("ServiceRequest")["reasonReference"]) == 2


def test_what_was_found_is_said_of_the_right_eye_and_of_the_left() -> None:
    message = Message(body("cataract"))
    assert message.seen("visual-acuity", "right")["valueCodeableConcept"]["text"] == "6/18-2"
    assert message.seen("visual-acuity", "left")["valueCodeableConcept"]["text"] == "6/12"
    assert str(message.seen("cup-disc-ratio", "right")["valueQuantity"]["value"]) == "0.30"


def test_a_pressure_says_with_what_when_and_whether_it_was_repeated() -> None:
    message = Message(body("raised-pressure"))
    pressure = message.seen("intraocular-pressure", "left")
    assert pressure["valueQuantity"] == {
        "value": 27,
        "unit": "mmHg",
        "system": "http://unitsofmeasure.org",
        "code": "mm[Hg]",
    }
    assert pressure["effectiveDateTime"] == "2026-10-01T09:45:00+01:00"
    assert pressure["method"]["coding"][0]["code"] == "tonometer-goldmann"
    assert pressure["component"][0]["valueBoolean"] is True
    again = message.seen("intraocular-pressure", "right")
    assert again["component"][0]["valueBoolean"] is False


def test_several_pressures_of_one_eye_are_all_kept() -> None:
    raw = body("raised-pressure")
    raw["right"]["pressures"] = [{"value": 25}, {"value": 26}, {"value": 25}]
    found = [
        it["valueQuantity"]["value"]
        for it in Message(raw).all("Observation")
        if it["code"]["coding"][0]["code"] == "intraocular-pressure"
    ]
    assert found == [25, 26, 25, 27]


def test_a_refraction_has_a_part_for_each_number_with_its_unit() -> None:
    found = Message(body("cataract")).seen("refraction", "right")["component"]
    assert {
        it["code"]["coding"][0]["code"]: (
            str(it["valueQuantity"]["value"]),
            it["valueQuantity"]["code"],
        )
        for it in found
    } == {
        "sphere": ("-2.00", "[diop]"),
        "cylinder": ("0.75", "[diop]"),
        "axis": ("70", "deg"),
        "addition": ("2.25", "[diop]"),
        "distance-prism-base-in": ("1.25", "[p'diop]"),
        "distance-prism-base-down": ("0.75", "[p'diop]"),
        "near-prism-base-in": ("1.00", "[p'diop]"),
    }


def test_an_earlier_acuity_never_takes_the_date_of_this_sight_test() -> None:
    raw = body()
    earlier = Message(raw).seen("previous-acuity", "right")
    assert earlier["effectiveDateTime"] == "2025-09-12"
    del raw["right"]["previous_acuity_date"]
    assert "effectiveDateTime" not in Message(raw).seen("previous-acuity", "right")


def test_what_was_not_said_is_not_on_the_message() -> None:
    raw = body("no-nhs-number", dilated=None, under_hospital=None, symptoms=None)
    found = {it["code"]["coding"][0]["code"] for it in Message(raw).all("Observation")}
    assert found == {"visual-acuity", "refraction"}


def test_dilated_or_not_and_under_the_hospital_or_not_are_both_said() -> None:
    message = Message(body("raised-pressure", under_hospital=True))
    assert message.seen("dilated-examination")["valueBoolean"] is False
    assert message.seen("under-hospital")["valueBoolean"] is True


def test_medicines_and_allergies_are_on_the_message() -> None:
    message = Message(body())
    medicine = message.the("MedicationStatement")
    assert medicine["medicationCodeableConcept"]["text"] == "Amlodipine 5 mg tablets"
    assert medicine["dosage"][0]["text"] == "One in the morning"
    assert message.the("AllergyIntolerance")["code"]["text"] == "Fluorescein"


def test_each_organisation_stands_there_once_also_if_the_gp_acts() -> None:
    raw = body(condition={"code": "herpes-zoster"})
    given = context(raw, acting=RIVERSIDE)
    [draft] = ADAPTER.translate(read(raw), given)
    organisations = [
        entry["resource"]["identifier"][0]["value"]
        for entry in strict_json.loads(draft.content)["entry"]
        if entry["resource"]["resourceType"] == "Organization"
    ]
    assert organisations == ["TPX01", "G99001"]


def test_a_practice_that_the_directory_does_not_know_keeps_the_senders_name() -> None:
    message = Message(body(), practice=Party("G99001", ""))
    names = {it["identifier"][0]["value"]: it["name"] for it in message.all("Organization")}
    assert names["G99001"] == "Riverside Medical Practice"


def test_a_guardian_and_a_safeguarding_concern_are_on_the_message() -> None:
    raw = body()
    raw["patient"]["guardian"] = {
        "name": {"family": "Lindqvist", "given": "Erik"},
        "relationship": "son",
        "telephone": "07700 900199",
    }
    raw["patient"]["safeguarding"] = "Unexplained bruising."
    message = Message(raw)
    assert message.the("RelatedPerson")["relationship"] == [{"text": "son"}]
    assert any(it["code"].get("text") == "Unexplained bruising." for it in message.all("Flag"))
    assert errors(message.body) == []


def test_what_is_asked_of_the_gp_and_who_chose_the_provider_are_on_the_message() -> None:
    message = Message(body("cataract"))
    [action] = message.extension("gp-action")
    assert action["valueCodeableConcept"]["coding"][0]["code"] == "information-only"
    [provider] = message.extension("provider")
    assert parts(provider) == {"ods": "RXX01", "service": "RXX01-SPA", "chosen-by-patient": True}


def test_that_there_are_no_medicines_and_no_allergies_is_said_where_the_sender_says_so() -> None:
    # An empty list says that there are none; a field that is left out says nothing.
    said = Message(body(medicines=[], allergies=[]))
    for item in ("medicines", "allergies"):
        assert said.seen(item)["valueCodeableConcept"]["text"] == "None known"
    silent = Message(body(medicines=None, allergies=None))
    found = {it["code"]["coding"][0]["code"] for it in silent.all("Observation")}
    assert not found & {"medicines", "allergies"}


# -- what is not of the eyes ---------------------------------------------------------------------


def pathway(name: str = "stop-smoking", **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = copy.deepcopy(dict(ADAPTER.examples[name]))
    made["assessed_at"] = "2026-10-01T10:40:00+01:00"
    return {field: said for field, said in (made | changes).items() if said is not None}


def test_a_body_that_names_a_pathway_is_in_the_form_of_all_pillars() -> None:
    raw = pathway()
    [want] = needed(raw).wants
    assert (want.pathway, want.reason_code) == ("stop-smoking", "wants-to-stop-smoking")
    assert want.seeks[0].receiver_type == "stop-smoking"
    message = Message(raw)
    [asked] = message.all("ServiceRequest")
    assert asked["code"]["coding"][0]["code"] == "stop-smoking"
    [source] = message.extension("Extension-UKCore-SourceOfServiceRequest")
    assert source["valueCodeableConcept"]["coding"][0]["code"] == "185368000"
    types = [one["type"] for one in message.all("Organization") if "type" in one]
    assert [it[0]["coding"][0]["code"] for it in types] == ["310105000"]


def test_what_is_wrong_with_it_is_told_in_the_words_of_its_own_form() -> None:
    raw = pathway(consent=None, colour="blue", reason={"code": "bored"})
    raw["clinician"]["goc_number"] = "1"
    found = {(fault.field, fault.code): fault.todo for fault in refused(raw)}
    assert found.keys() == {
        ("consent", "missing"),
        ("colour", "unknown-field"),
        ("reason.code", "not-in-list"),
        ("clinician.goc_number", "goc-number-invalid"),
    }
    assert "agrees to be referred" in found["consent", "missing"]
    near = refused(body(dilatd=True, dilated=None))
    assert [(it.field, it.todo) for it in near] == [("dilatd", "Did you mean `dilated`?")]


def test_the_eyes_are_referred_with_a_sight_test_and_not_as_a_pathway() -> None:
    [fault] = [it for it in refused(pathway(pathway="cataract")) if it.field == "pathway"]
    assert fault.code == "sight-test-needed"
    assert "`condition`" in fault.todo
    of_eyes = {one.id for one in catalogue().entries.values() if one.group == "eye"}
    assert not of_eyes & set(list(ADAPTER.examples)[len(EXAMPLES) :])


@pytest.mark.parametrize(
    ("name", "code"), [("minor-illness", "not-a-sender"), ("nonsense", "unknown-pathway")]
)
def test_a_pathway_that_optometrists_do_not_send_is_refused(name: str, code: str) -> None:
    found = {(it.field, it.code) for it in refused(pathway(pathway=name))}
    assert ("pathway", code) in found


def test_a_refused_body_on_a_pathway_is_judged_by_its_pathway() -> None:
    raw = pathway("same-day-emergency-care")
    seek = ADAPTER.sought(raw)
    assert seek is not None
    assert (seek.receiver_type, seek.field) == ("same-day-emergency-care", "reason.code")
    assert (ADAPTER.danger(raw) or "").startswith("Telephone the same-day")
    refuses = ADAPTER.withheld(raw | {"consent": False})
    assert refuses is not None and refuses.organisation == "TPX01"
    assert refuses.read_first[0].startswith("Nobody has been told.")
    of_eyes = ADAPTER.sought(body())
    assert of_eyes is not None and of_eyes.field == "condition"
