"""What is said of numbers and codes by the system that they name: each kind of verdict."""

import json

import pytest

from fhir_profiles.profiles import ours

NHS, UK = "https://fhir.nhs.uk/Id/", "https://fhir.hl7.org.uk/Id/"
WRONG_NUMBER = "It has not the shape or the check digit of its system."


def said(resource: dict[str, object]) -> list[tuple[str, str]]:
    """(severity, words) of all that is found of a resource."""
    return [(one.severity, one.text) for one in ours().check(json.dumps(resource).encode())]


def numbered(kind: str, system: str, value: str) -> list[tuple[str, str]]:
    return said({"resourceType": kind, "identifier": [{"system": system, "value": value}]})


@pytest.mark.parametrize(
    ("kind", "system", "value"),
    [
        ("Patient", f"{NHS}nhs-number", "9990000018"),
        ("Organization", f"{NHS}ods-organization-code", "FPH01"),
        ("Organization", f"{NHS}ods-site-code", "RR8D7"),
        ("Practitioner", f"{UK}gphc-number", "2099001"),
        ("Practitioner", f"{UK}gmc-number", "1234567"),
        ("Practitioner", f"{UK}gdc-number", "123456"),
        ("Practitioner", f"{UK}goc-number", "01-12345"),
        ("Practitioner", f"{NHS}sds-user-id", "103264994981"),
        ("PractitionerRole", f"{NHS}sds-role-profile-id", "100102238986"),
        ("HealthcareService", f"{NHS}dos-service-id", "2000072491"),
    ],
)
def test_a_number_that_has_the_shape_of_its_system_is_let_pass(
    kind: str, system: str, value: str
) -> None:
    assert numbered(kind, system, value) == []


@pytest.mark.parametrize(
    ("kind", "system", "value"),
    [
        ("Patient", f"{NHS}nhs-number", "9990000019"),
        ("Organization", f"{NHS}ods-organization-code", "G-9900"),
        ("Organization", f"{NHS}ods-site-code", "RR8 D7/1"),
    ],
)
def test_a_wrong_number_is_an_error_where_it_says_who_a_patient_is_or_where_to_send(
    kind: str, system: str, value: str
) -> None:
    assert numbered(kind, system, value) == [("error", WRONG_NUMBER)]


@pytest.mark.parametrize(
    ("kind", "system", "value"),
    [
        ("Practitioner", f"{UK}gphc-number", "209900"),
        ("Practitioner", f"{UK}gmc-number", "C1234567"),
        ("Practitioner", f"{UK}gdc-number", "1234567"),
        ("Practitioner", f"{UK}goc-number", "1-12345"),
        ("Practitioner", f"{NHS}sds-user-id", "P12345678"),
        ("PractitionerRole", f"{NHS}sds-role-profile-id", "PT2489"),
        ("HealthcareService", f"{NHS}dos-service-id", "RXX01-SPA"),
    ],
)
def test_a_wrong_number_of_staff_or_of_a_service_is_a_warning(
    kind: str, system: str, value: str
) -> None:
    assert numbered(kind, system, value) == [("warning", WRONG_NUMBER)]


def test_another_spelling_of_a_system_is_a_warning_and_a_misspelt_one_an_error() -> None:
    right = f"{NHS}ods-organization-code"
    for spelt, severity in (
        ("https://fhir.nhs.uk/id/ods-organization-code", "warning"),
        ("https://fhir.nhs.uk/Id/ods-organisation-code", "error"),
    ):
        assert numbered("Organization", spelt, "FPH01") == [(severity, f"It is written {right}.")]


def given(system: str, code: str) -> list[tuple[str, str]]:
    """What is said of a medicine with this code."""
    return said(
        {
            "resourceType": "MedicationStatement",
            "status": "active",
            "medicationCodeableConcept": {"coding": [{"system": system, "code": code}]},
            "subject": {"reference": "Patient/1"},
        }
    )


def test_a_code_of_dmd_is_a_concept_of_snomed_ct_however_its_system_is_spelt() -> None:
    spelt = ("warning", "It is written https://dmd.nhs.uk.")
    wrong = ("error", "It is no SNOMED CT concept: its check digit or its kind is wrong.")
    assert given("https://dmd.nhs.uk", "41334211000001109") == []
    assert given("https://dmd.nhs.uk/", "41334211000001109") == [spelt]
    assert given("https://dmd.nhs.uk/", "41334211000001100") == [spelt, wrong]
