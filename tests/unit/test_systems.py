"""Names of systems: other spellings of the same one, and slips of the pen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_profiles.systems import Meant, Systems, is_close, is_same

ODS = "https://fhir.nhs.uk/Id/ods-organization-code"
GMC, GMP = "https://fhir.hl7.org.uk/Id/gmc-number", "https://fhir.hl7.org.uk/Id/gmp-number"
SYSTEMS = Systems([ODS, GMC, GMP, "https://dmd.nhs.uk"])


@pytest.mark.parametrize(
    ("name", "system"),
    [
        (ODS, ODS),
        ("https://fhir.nhs.uk/id/ods-organization-code", ODS),
        ("http://fhir.nhs.uk/Id/ODS-organization-code/", ODS),
        ("https://dmd.nhs.uk/", "https://dmd.nhs.uk"),
        (GMP, GMP),
    ],
)
def test_scheme_case_and_a_slash_at_the_end_tell_no_systems_apart(name: str, system: str) -> None:
    assert SYSTEMS.meant_by(name) == Meant(system, is_misspelt=False)


SPELLINGS = [
    (
        "https://fhir.nhs.uk/CodeSystem/http-error-codes",
        "https://fhir.nhs.uk/Codesystem/http-error-codes",
    ),
    ("https://fhir.nhs.uk/Id/dos-service-id", "http://fhir.nhs.uk/Id/dos-service-id"),
    ("https://fhir.nhs.uk/Id/dos-service-id", "https://fhir.nhs.uk/id/dos-service-id"),
    (ODS, "https://fhir.nhs.uk/id/ods-organization-code"),
    ("https://dmd.nhs.uk", "https://dmd.nhs.uk/"),
]


@pytest.mark.parametrize(("system", "spelt"), SPELLINGS)
def test_every_spelling_in_which_bars_is_published_is_of_the_same_system(
    system: str, spelt: str
) -> None:
    assert is_same(system, spelt)
    assert Systems([system]).meant_by(spelt) == Meant(system, is_misspelt=False)


def test_a_misspelt_system_is_not_the_same() -> None:
    assert not is_same(ODS, "https://fhir.nhs.uk/Id/ods-organisation-code")


@pytest.mark.parametrize(
    "name",
    [
        "https://fhir.nhs.uk/Id/ods-organisation-code",
        "https://fhir.nhs.uk/Id/ods-organization-cod",
        "https://fhir.nhs.uk/Idods-organization-code",
    ],
)
def test_a_letter_or_two_away_is_a_slip_of_the_pen(name: str) -> None:
    assert SYSTEMS.meant_by(name) == Meant(ODS, is_misspelt=True)


def test_another_number_makes_another_name() -> None:
    held = Systems(["http://terminology.hl7.org/CodeSystem/v2-0276"])
    assert held.meant_by("http://terminology.hl7.org/CodeSystem/v2-0916") is None


@pytest.mark.parametrize("name", ["", "https://fhir.nhs.uk/Id/ods-site-code", "urn:oid:1.2.3"])
def test_anything_else_is_another_system(name: str) -> None:
    assert SYSTEMS.meant_by(name) is None


@given(st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_closeness_is_the_same_both_ways_and_of_the_same_is_certain(one: str, other: str) -> None:
    assert is_close(one, other) == is_close(other, one)
    assert is_close(one, one, 0)
    assert not (one != other and is_close(one, other, 0))
