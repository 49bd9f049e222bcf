"""The pharmacy catalogue: its data is strict and sourced, and each line holds on its own side."""

from decimal import Decimal
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from adapters.pharmacy import request
from fhir_profiles import blocks, codes, identifiers
from fhir_profiles.pathways.consultation import Consultation, Shared
from fhir_profiles.pathways.pharmacy import pharmacy
from fhir_profiles.pathways.rules import Condition, Escalation, Facts, Rule

CATALOGUE = pharmacy()
CALM: Facts = {
    "age": Decimal(40),
    "sex": "female",
    "pregnant": False,
    "source": "general-practice",
    "exclusions": frozenset(),
    "gateway-met": True,
    "gateway-stated": True,
    "supplied": True,
    "contraceptive": None,
    "no-supply-reason": None,
    "has-pressure": True,
    "has-bmi": True,
    "abpm-declined": False,
    "acute-symptoms": False,
    "acute-symptoms-stated": True,
    "fainting-or-falls": False,
    "pulse": None,
}


def pressure(systolic: int | str, diastolic: int | str, method: str = "clinic") -> Facts:
    numbers = Decimal(systolic), Decimal(diastolic)
    return {
        "method": method,
        "systolic": numbers[0],
        "diastolic": numbers[1],
        "exchanged": numbers[1] >= numbers[0],
    }


def warned(service: str, *pressures: Facts, **changes: Any) -> list[str]:
    facts = {**CALM, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return [hit.rule.warning for hit in CATALOGUE.warnings(service, facts, pressures)]


def escalated(
    *pressures: Facts, service: str = "blood-pressure-check", **changes: Any
) -> list[str]:
    facts = {**CALM, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return [hit.rule.id for hit in CATALOGUE.escalations(service, facts, pressures)]


def task(rule_id: str) -> str | None:
    return next(rule.task for rule in CATALOGUE.shared.escalations if rule.id == rule_id)


# -- the data ------------------------------------------------------------------------------------


def test_there_are_exactly_twelve_services() -> None:
    assert len(CATALOGUE.consultations) == 12
    assert set(CATALOGUE.consultations) == set(get_args(request.Service))
    assert set(CATALOGUE.consultations) == set(codes.system("pharmacy-service").displays)


def test_every_rule_names_its_source() -> None:
    rules: list[Rule | Escalation] = [*CATALOGUE.shared.escalations, *CATALOGUE.shared.warnings]
    for pathway in CATALOGUE.consultations.values():
        rules += pathway.rules
    assert all(rule.source for rule in rules)
    assert len({rule.id for rule in CATALOGUE.shared.escalations}) == len(
        CATALOGUE.shared.escalations
    )


def test_what_the_reference_does_not_confirm_is_marked_local() -> None:
    local = {rule.id for rule in CATALOGUE.shared.escalations if rule.local}
    assert local == {
        "ambulatory-average-very-high",
        "ambulatory-average-stage-2",
        "ambulatory-declined",
        "pressure-low-with-falls",
    }
    assert all(
        pathway.gateway is None or pathway.gateway.local
        for pathway in CATALOGUE.consultations.values()
    )


def test_every_snomed_code_of_the_data_has_a_right_check_digit() -> None:
    found = [pathway.encounter.code for pathway in CATALOGUE.consultations.values()]
    found += [it.diagnosis.code for it in CATALOGUE.consultations.values() if it.diagnosis]
    for name in ("blood-pressure", "observation-kind"):
        for properties in codes.system(name).properties.values():
            found += [value for value in properties.values() if value.isdigit()]
    assert len(found) > 40
    assert [code for code in found if identifiers.snomed_concept(code) is None] == []


@pytest.mark.parametrize(
    ("names", "literal"),
    [
        (CATALOGUE.outcomes.keys(), request.Outcome),
        (codes.system("pharmacy-exclusion").displays, request.Exclusion),
        (codes.system("no-supply-reason").displays, request.NoSupply),
        (codes.system("contraceptive").displays, request.Contraceptive),
        (codes.system("observation-kind").displays, blocks.ObservationKind),
        (codes.system("preferred-contact-method").displays, blocks.Contact),
        (codes.system("ethnic-category").displays, blocks.Ethnicity),
        (codes.system("nhs-number-verification-status").displays, blocks.NumberStatus),
        *(
            (codes.system(name).displays, block.model_fields[field].annotation)
            for name, block, field in (
                ("pharmacy-role", request.Clinician, "role"),
                ("pharmacy-source", request.Source, "kind"),
                ("pharmacy-supply-route", request.Medicine, "supply_route"),
                ("consultation-mode", request.Consultation, "mode"),
                ("blood-pressure", request.BloodPressure, "method"),
            )
        ),
    ],
)
def test_what_a_body_may_say_is_what_the_definitions_have(names: Any, literal: Any) -> None:
    assert set(get_args(literal)) - {"other"} == set(names) - {"other"}


@pytest.mark.parametrize(
    ("model", "document"),
    [
        (Condition, {"all": {"agee": {"below": 16}}}),
        (Condition, {"all": {"age": {"under": 16}}}),
        (Condition, {"all": {"age": {}}}),
        (Condition, {}),
        (Condition, {"when": {"pregnant": True}}),
        (
            Rule,
            {
                "warning": "no-such",
                "words": "x",
                "when": {"all": {"pregnant": True}},
                "source": "x",
            },
        ),
        (Rule, {"warning": "exclusion-present", "words": "x", "when": {"all": {"pregnant": True}}}),
        (
            Escalation,
            {"id": "x", "when": {"all": {"pregnant": True}}, "source": "x"},
        ),
        (
            Escalation,
            {
                "id": "x",
                "when": {"all": {"pregnant": True}},
                "source": "x",
                "emergency": True,
            },
        ),
        (Consultation, {"strand": "x"}),
        (Shared, {"version": "x"}),
    ],
)
def test_a_mistake_in_the_data_stops_it_from_loading(model: Any, document: Any) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(document)


def test_an_escalation_and_its_words_stand_in_both_places_or_the_catalogue_does_not_load() -> None:
    whole = CATALOGUE.shared.model_dump(by_alias=True)
    assert Shared.model_validate(whole) == CATALOGUE.shared
    *most, last = whole["escalations"]
    for wrong in (most, [*most, last | {"id": "unheard-of"}]):
        with pytest.raises(ValidationError, match="pharmacy-escalation"):
            Shared.model_validate(whole | {"escalations": wrong})


def test_a_fact_that_is_not_known_meets_no_test() -> None:
    for test in ({"pregnant": True}, {"pregnant": False}, {"age": {"below": 16}}, {"sex": ["x"]}):
        assert not Condition.model_validate({"all": test}).holds({})


def test_a_condition_is_all_and_any_and_none() -> None:
    condition = Condition.model_validate(
        {
            "all": {"pregnant": True},
            "any": [{"age": {"below": 16}}, {"age": {"above": 50}}],
            "none": {"supplied": True},
        }
    )
    assert condition.holds({"pregnant": True, "age": Decimal(15)})
    assert condition.holds({"pregnant": True, "age": Decimal(51), "supplied": False})
    assert not condition.holds({"pregnant": True, "age": Decimal(16)})
    assert not condition.holds({"pregnant": False, "age": Decimal(15)})
    assert not condition.holds({"pregnant": True, "age": Decimal(15), "supplied": True})


# -- pathways ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "inside", "outside"),
    [
        ("uncomplicated-uti", [16, 64], [15, 65]),
        ("shingles", [18, 99], [17]),
        ("impetigo", [1, 99], [0]),
        ("infected-insect-bite", [1, 99], [0]),
        ("acute-sore-throat", [5, 99], [4]),
        ("acute-sinusitis", [12, 99], [11]),
        ("acute-otitis-media", [1, 17], [0, 18]),
    ],
)
def test_the_ages_of_a_pathway_are_inclusive(
    service: str, inside: list[int], outside: list[int]
) -> None:
    for age in inside:
        assert warned(service, age=Decimal(age)) == []
    for age in outside:
        assert warned(service, age=Decimal(age)) == ["age-outside-pathway"]


def test_only_the_urinary_pathway_asks_for_a_sex() -> None:
    assert warned("uncomplicated-uti", sex="male") == ["sex-outside-pathway"]
    assert warned("uncomplicated-uti", sex="not-given") == ["sex-not-given"]
    for service in set(CATALOGUE.consultations) - {"uncomplicated-uti"}:
        assert warned(service, sex="male", age=Decimal(17 if "otitis" in service else 40)) == []


@pytest.mark.parametrize("service", ["uncomplicated-uti", "shingles"])
def test_pregnancy_at_any_age_is_an_exclusion_of_two_pathways(service: str) -> None:
    assert warned(service, pregnant=True) == ["exclusion-present"]
    assert warned(service, pregnant=None) == []


@pytest.mark.parametrize(
    "service",
    [
        "impetigo",
        "infected-insect-bite",
        "acute-sore-throat",
        "acute-sinusitis",
        "acute-otitis-media",
    ],
)
def test_pregnancy_under_16_is_an_exclusion_of_the_others(service: str) -> None:
    assert warned(service, pregnant=True, age=Decimal(15)) == ["exclusion-present"]
    assert warned(service, pregnant=True, age=Decimal(16)) == []


@pytest.mark.parametrize(
    ("service", "exclusions"),
    [
        ("uncomplicated-uti", ["catheter", "recurrent", "other"]),
        ("shingles", ["immunosuppressed"]),
        ("impetigo", ["bullous", "recurrent"]),
        ("infected-insect-bite", ["human-or-animal-bite", "bite-abroad", "tick-bite"]),
        ("acute-sore-throat", ["scarlet-fever", "quinsy", "glandular-fever", "suspected-cancer"]),
        ("acute-sinusitis", ["immunosuppressed", "chronic"]),
        ("acute-otitis-media", ["recurrent"]),
        ("minor-illness", ["other"]),
    ],
)
def test_each_exclusion_of_a_pathway_draws_its_warning(service: str, exclusions: list[str]) -> None:
    age = Decimal(17)
    age = Decimal(18) if service == "shingles" else age
    for exclusion in exclusions:
        found = warned(service, age=age, exclusions=frozenset({exclusion}))
        assert found == ["exclusion-present"]


def test_a_gateway_not_met_or_not_stated_is_warned_of_in_clinical_pathways_only() -> None:
    for service, pathway in CATALOGUE.consultations.items():
        age = Decimal(17 if "otitis" in service else 40)
        clinical = pathway.strand == "clinical-pathway"
        assert (pathway.gateway is not None) == clinical
        not_met = warned(service, age=age, gateway_met=False)
        assert not_met == (["gateway-not-met"] if clinical else [])
        not_stated = warned(service, age=age, gateway_met=None, gateway_stated=False)
        assert not_stated == (["gateway-not-stated"] if clinical else [])


@pytest.mark.parametrize("source", ["self", "pharmacist", "sexual-health", "not-given"])
def test_minor_illness_takes_referred_patients_only(source: str) -> None:
    assert warned("minor-illness", source=source) == ["referral-needed"]
    assert warned("acute-sinusitis", source=source) == []


@pytest.mark.parametrize("source", ["general-practice", "nhs-111", "urgent-care"])
def test_minor_illness_takes_whom_these_referred(source: str) -> None:
    assert warned("minor-illness", source=source) == []


def test_a_pressure_check_has_a_pressure_or_a_refusal() -> None:
    assert warned("blood-pressure-check", has_pressure=False) == ["reading-missing"]
    assert warned("blood-pressure-check", has_pressure=False, abpm_declined=True) == []


def test_known_hypertension_is_checked_only_where_general_practice_asks() -> None:
    known = frozenset({"hypertension-diagnosed"})
    assert warned("blood-pressure-check", exclusions=known, source="self") == ["exclusion-present"]
    assert warned("blood-pressure-check", exclusions=known) == []


@pytest.mark.parametrize("service", ["contraception-initiation", "contraception-ongoing"])
def test_a_combined_pill_needs_a_pressure_and_a_body_mass_index(service: str) -> None:
    assert warned(service, contraceptive="combined") == []
    assert warned(service, contraceptive="combined", has_pressure=False) == ["reading-missing"]
    assert warned(service, contraceptive="combined", has_bmi=False) == ["reading-missing"]
    assert warned(service, contraceptive="progestogen-only", has_bmi=False) == []
    assert warned(service, contraceptive="combined", has_bmi=False, supplied=False) == []


def test_pregnancy_contradicts_a_contraceptive_that_was_supplied() -> None:
    for service in CATALOGUE.consultations:
        if service.startswith("contraception"):
            assert warned(service, pregnant=True) == ["exclusion-present"]
            assert warned(service, pregnant=True, supplied=False) == []


# -- escalations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("readings", [(180, 80), (120, 119), (179, 120), (200, 130)])
@pytest.mark.parametrize("method", ["clinic", "sitting", "self-measured", "abpm-average"])
def test_either_number_of_a_crisis_suffices_however_it_was_taken(
    readings: tuple[int, int], method: str
) -> None:
    found = "pressure-crisis" in escalated(pressure(*readings, method))
    assert found == (readings != (120, 119))


@pytest.mark.parametrize(("systolic", "diastolic"), [(179, 119), ("179.9", "119.9")])
def test_under_both_lines_there_is_no_crisis(systolic: Any, diastolic: Any) -> None:
    assert escalated(pressure(systolic, diastolic)) == []


def test_a_crisis_is_for_the_same_day_in_every_service() -> None:
    assert task("pressure-crisis") == "stat"
    for service in CATALOGUE.consultations:
        assert escalated(pressure(180, 80), service=service) == ["pressure-crisis"]


@pytest.mark.parametrize("readings", [(180, 80), (150, 120)])
def test_acute_symptoms_make_an_emergency_of_a_crisis_and_no_task(
    readings: tuple[int, int],
) -> None:
    assert escalated(pressure(*readings), acute_symptoms=True) == ["pressure-crisis-with-symptoms"]
    assert escalated(pressure(179, 119), acute_symptoms=True) == []
    rule = next(it for it in CATALOGUE.shared.escalations if it.emergency)
    assert rule.task is None
    assert "999" in rule.advice
    assert "A&E" in rule.advice


@pytest.mark.parametrize(
    ("readings", "rule", "level"),
    [
        ((170, 80), "ambulatory-average-very-high", "stat"),
        ((120, 115), "ambulatory-average-very-high", "stat"),
        ((169, 114), "ambulatory-average-stage-2", "asap"),
        ((150, 80), "ambulatory-average-stage-2", "asap"),
        ((120, 95), "ambulatory-average-stage-2", "asap"),
        ((149, 94), "ambulatory-average-stage-1", "routine"),
        ((135, 80), "ambulatory-average-stage-1", "routine"),
        ((120, 85), "ambulatory-average-stage-1", "routine"),
    ],
)
def test_an_ambulatory_average_has_three_lines_and_the_highest_counts(
    readings: tuple[int, int], rule: str, level: str
) -> None:
    assert escalated(pressure(*readings, "abpm-average")) == [rule]
    assert task(rule) == level


def test_an_ambulatory_average_under_its_lines_asks_nothing() -> None:
    assert escalated(pressure(134, 84, "abpm-average")) == []
    assert escalated(pressure(169, 114, "clinic")) == []


@pytest.mark.parametrize("method", ["clinic", "sitting", "standing", "lying", "baseline"])
def test_a_raised_clinic_pressure_counts_where_the_ambulatory_one_was_declined(method: str) -> None:
    for readings in ((140, 80), (120, 90)):
        found = escalated(pressure(*readings, method), abpm_declined=True)
        assert found == ["ambulatory-declined"]
        assert escalated(pressure(*readings, method)) == []
    assert escalated(pressure(139, 89, method), abpm_declined=True) == []
    assert escalated(pressure(140, 90, "self-measured"), abpm_declined=True) == []
    assert task("ambulatory-declined") == "routine"


def test_a_low_pressure_counts_with_fainting_or_falls_only() -> None:
    for readings in ((89, 70), (100, 59)):
        assert escalated(pressure(*readings), fainting_or_falls=True) == ["pressure-low-with-falls"]
        assert escalated(pressure(*readings)) == []
    assert escalated(pressure(90, 60), fainting_or_falls=True) == []
    assert task("pressure-low-with-falls") == "urgent"


def test_an_irregular_pulse_counts_once_it_is_confirmed() -> None:
    assert escalated(pulse="irregular-confirmed") == ["pulse-irregular-confirmed"]
    assert escalated(pulse="irregular-unconfirmed") == []
    assert task("pulse-irregular-confirmed") == "urgent"
    assert warned("blood-pressure-check", pulse="irregular-unconfirmed") == [
        "pulse-irregular-unconfirmed"
    ]


def test_a_pressure_that_stopped_a_contraceptive_supply_is_for_within_7_days() -> None:
    for service in CATALOGUE.consultations:
        found = escalated(service=service, no_supply_reason="raised-blood-pressure")
        contraceptive = service.startswith("contraception")
        assert found == (["pressure-stopped-supply"] if contraceptive else [])
    assert escalated(service="contraception-ongoing", no_supply_reason="declined") == []
    assert task("pressure-stopped-supply") == "asap"


def test_each_pressure_is_judged_and_the_hit_names_its_place() -> None:
    hits = list(
        CATALOGUE.escalations(None, CALM, [pressure(120, 80), pressure(190, 80), pressure(185, 70)])
    )
    assert [hit.reading for hit in hits] == [1, 2]


def test_a_crisis_without_a_word_on_symptoms_is_warned_of() -> None:
    stated = {"acute_symptoms": False, "acute_symptoms_stated": False}
    assert warned("blood-pressure-check", pressure(180, 80), **stated) == [
        "acute-symptoms-not-stated"
    ]
    assert warned("blood-pressure-check", pressure(179, 119), **stated) == []


@pytest.mark.parametrize(
    ("readings", "odd"),
    [
        ((49, 30), True),
        ((50, 30), False),
        ((300, 110), False),
        ((301, 110), True),
        ((120, 19), True),
        ((120, 20), False),
        ((250, 200), False),
        ((250, 201), True),
        ((80, 120), True),
        ((120, 120), True),
        ((121, 120), False),
    ],
)
def test_a_reading_that_can_hardly_be_is_warned_of(readings: tuple[int, int], odd: bool) -> None:
    assert ("reading-implausible" in warned("shingles", pressure(*readings))) == odd
