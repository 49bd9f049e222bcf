"""Identifiers: what is right comes back in its canonical form, what is wrong as nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_profiles import identifiers

NHS_NUMBERS = ["9990000018", "9990000026", "9990000034", "9990000042", "9990000050", "9990000069"]


@pytest.mark.parametrize("number", [*NHS_NUMBERS, "9912003888", "9000000009", "4010232137"])
def test_a_number_with_a_right_check_digit_in_a_range_in_use_is_an_nhs_number(number: str) -> None:
    assert identifiers.nhs_number(number) == number


def test_spaces_and_hyphens_are_taken_out_of_an_nhs_number() -> None:
    assert identifiers.nhs_number(" 999 000-0018 ") == "9990000018"


@pytest.mark.parametrize(
    "number",
    [
        "0000000000",  # passes Modulus 11, is in no range
        "9990000019",  # check digit
        "4857773456",  # of the published examples; fails Modulus 11
        "0000000019",  # Modulus 11 holds, never issued
        "999000001",
        "99900000180",
        "999000001X",
        "٩٩٩٠٠٠٠٠١٨",
        "",
    ],
)
def test_anything_else_is_not_an_nhs_number(number: str) -> None:
    assert identifiers.nhs_number(number) is None


@given(st.sampled_from(NHS_NUMBERS), st.integers(0, 9), st.integers(1, 9))
def test_one_wrong_digit_is_always_noticed_in_an_nhs_number(
    number: str, place: int, change: int
) -> None:
    digit = str((int(number[place]) + change) % 10)
    assert identifiers.nhs_number(number[:place] + digit + number[place + 1 :]) is None


@pytest.mark.parametrize(
    ("text", "code"),
    [("fph01", "FPH01"), (" G99001 ", "G99001"), ("RXX", "RXX"), ("Y", "Y"), ("K81003001",) * 2],
)
def test_an_ods_code_is_upper_cased_and_stripped(text: str, code: str) -> None:
    assert identifiers.ods_code(text) == code


@pytest.mark.parametrize("text", ["", "G9900 1", "K810030012", "G-9900", "Ä1234"])
def test_what_has_not_the_shape_of_an_ods_code_is_none(text: str) -> None:
    assert identifiers.ods_code(text) is None


@pytest.mark.parametrize(
    "code", ["1091811000000102", "163020007", "1659111000000107", "7771000", "41334211000001109"]
)
def test_snomed_concepts_keep_their_every_digit(code: str) -> None:
    assert identifiers.snomed_concept(code) == code


@pytest.mark.parametrize(
    "code",
    [
        "1091811000000100",  # rounded by a spreadsheet
        "1659111000000100",
        "163020008",
        "12345",
        "0163020007",
        "1630200x7",
        "1234567890123456789",
    ],
)
def test_a_rounded_or_mistyped_snomed_code_is_none(code: str) -> None:
    assert identifiers.snomed_id(code) is None


def test_a_description_id_is_a_snomed_id_and_no_concept() -> None:
    description = next(
        f"12345601{check}" for check in range(10) if identifiers.verhoeff(f"12345601{check}")
    )
    assert identifiers.snomed_id(description) == description[:6] + description[6:]
    assert identifiers.snomed_concept(description) is None


@given(st.sampled_from(["163020007", "1091811000000102"]), st.data())
def test_one_wrong_digit_or_one_swap_is_always_noticed_in_a_snomed_code(
    code: str, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(code) - 2))
    swapped = code[:place] + code[place + 1] + code[place] + code[place + 2 :]
    if swapped != code:
        assert not identifiers.verhoeff(swapped)
    change = data.draw(st.integers(1, 9))
    digit = str((int(code[place]) + change) % 10)
    assert not identifiers.verhoeff(code[:place] + digit + code[place + 1 :])


def test_the_regulators_numbers_have_their_shapes() -> None:
    assert identifiers.gphc_number(" 2099001 ") == "2099001"
    assert identifiers.gphc_number("209900") is None
    assert identifiers.gmc_number("1234567") == "1234567"
    assert identifiers.gmc_number("C123456") is None
    assert identifiers.gdc_number("123456") == "123456"
    assert identifiers.gdc_number("1234567") is None
    assert identifiers.goc_number("01-12345") == "01-12345"
    assert identifiers.goc_number("0112345") == "01-12345"
    assert identifiers.goc_number("1-12345") is None


def test_a_service_of_the_directory_of_services_and_members_of_staff_have_digits() -> None:
    assert identifiers.dos_service_id(" 2000072491 ") == "2000072491"
    assert identifiers.dos_service_id("148") == "148"
    assert identifiers.dos_service_id("RXX01-SPA") is None
    assert identifiers.sds_id("103264994981") == "103264994981"
    assert identifiers.sds_id("PT2489") is None


@pytest.mark.parametrize(
    "text",
    ["0199A000-0000-7000-8000-00000000000f", " 0199a000-0000-7000-8000-00000000000F "],
)
def test_a_uuid_is_written_in_lower_case(text: str) -> None:
    assert identifiers.uuid(text) == "0199a000-0000-7000-8000-00000000000f"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0199a000000070008000-00000000000f",
        "0199a00000007000800000000000000f",
        "{0199a000-0000-7000-8000-00000000000f}",
        "urn:uuid:0199a000-0000-7000-8000-00000000000f",
        "0199a000-0000-7000-8000-00000000000g",
    ],
)
def test_what_is_written_otherwise_is_no_uuid(text: str) -> None:
    assert identifiers.uuid(text) is None


@pytest.mark.parametrize(
    ("text", "code", "area"),
    [
        ("ls14ap", "LS1 4AP", "LS"),
        ("LS12 3AA", "LS12 3AA", "LS"),
        ("ec1a 1bb", "EC1A 1BB", "EC"),
        ("M1 1AE", "M1 1AE", "M"),
        ("ZZ99 3VZ", "ZZ99 3VZ", "ZZ"),
        ("gir 0aa", "GIR 0AA", "GIR"),
    ],
)
def test_a_postcode_is_printed_and_has_an_area(text: str, code: str, area: str) -> None:
    assert identifiers.postcode(text) == code
    assert identifiers.postcode_area(text) == area


@pytest.mark.parametrize("text", ["", "LS1", "75008", "D02 AF30", "LS1 4A", "LSS1 4AP"])
def test_what_has_not_the_shape_of_a_postcode_is_none(text: str) -> None:
    assert identifiers.postcode(text) is None
    assert identifiers.postcode_area(text) is None
