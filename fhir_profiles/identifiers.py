"""Identifiers as the NHS writes them: each function returns the canonical form, or None.

Nothing here knows who an identifier belongs to; shape, range and check digit are all that is
judged. Rules: NHS Data Dictionary (NHS number, ODS code), SNOMED CT Technical Implementation
Guide 6.6 (SCTID, Verhoeff), the regulators' own numbers. A system's name: `systems`.
"""

import re
from typing import Final

from nhs_number import constants as _ranges
from nhs_number.validate import is_valid as _modulus_11

_SEPARATORS: Final = str.maketrans("", "", " -\u00a0\u2010\u2011")
_ODS: Final = re.compile(r"[A-Z0-9]{1,9}")
_SCTID: Final = re.compile(r"[1-9][0-9]{5,17}")
_SEVEN: Final = re.compile(r"[0-9]{7}")
_GOC: Final = re.compile(r"([0-9]{2})-?([0-9]{5})")
_GDC: Final = re.compile(r"[0-9]{1,6}")
_DOS: Final = re.compile(r"[0-9]{1,15}")
_SDS: Final = re.compile(r"[0-9]{12}")
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_POSTCODE: Final = re.compile(
    r"(GIR|[A-Z]{1,2}[0-9][A-Z0-9]?)([0-9][A-Z]{2})",
)
_AREA: Final = re.compile(r"[A-Z]{1,2}(?=[0-9])|GIR")

# Ranges that have been issued, or are set aside for test patients (the library's own table).
_RANGES: Final = tuple(
    range(issued.start, issued.end + 1)
    for region in (
        _ranges.REGION_ENGLAND_WALES_IOM,
        _ranges.REGION_NORTHERN_IRELAND,
        _ranges.REGION_SCOTLAND,
        _ranges.REGION_SYNTHETIC,
    )
    for issued in region.ranges
)

# The multiplication of the dihedral group D5, and the permutation of the Verhoeff scheme.
_D5: Final = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (1, 2, 3, 4, 0, 6, 7, 8, 9, 5),
    (2, 3, 4, 0, 1, 7, 8, 9, 5, 6),
    (3, 4, 0, 1, 2, 8, 9, 5, 6, 7),
    (4, 0, 1, 2, 3, 9, 5, 6, 7, 8),
    (5, 9, 8, 7, 6, 0, 4, 3, 2, 1),
    (6, 5, 9, 8, 7, 1, 0, 4, 3, 2),
    (7, 6, 5, 9, 8, 2, 1, 0, 4, 3),
    (8, 7, 6, 5, 9, 3, 2, 1, 0, 4),
    (9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
)
_PERMUTE: Final = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (1, 5, 7, 6, 2, 8, 3, 0, 9, 4),
    (5, 8, 0, 3, 7, 9, 6, 1, 4, 2),
    (8, 9, 1, 6, 0, 4, 3, 5, 2, 7),
    (9, 4, 5, 3, 1, 2, 6, 8, 7, 0),
    (4, 2, 8, 6, 5, 7, 3, 9, 0, 1),
    (2, 7, 9, 3, 8, 0, 6, 4, 1, 5),
    (7, 0, 4, 6, 9, 1, 3, 2, 5, 8),
)
_CONCEPT_PARTITIONS: Final = frozenset({"00", "10"})
_PARTITIONS: Final = _CONCEPT_PARTITIONS | {"01", "11", "02", "12"}


def nhs_number(text: str) -> str | None:
    """Return the ten digits if the number has a right check digit and is in a range in use.

    Spaces and hyphens are taken out. The test ranges (900… to 999…) are numbers like any other;
    ten zeros are not, though they pass Modulus 11.
    """
    digits = text.translate(_SEPARATORS)
    if len(digits) != 10 or not digits.isascii() or not digits.isdigit():
        return None
    if not _modulus_11(digits):
        return None
    return digits if any(int(digits) in issued for issued in _RANGES) else None


def ods_code(text: str) -> str | None:
    """Return the code upper-cased and stripped if it has the shape of an ODS code (1 to 9)."""
    code = text.strip().upper()
    return code if _ODS.fullmatch(code) else None


def verhoeff(digits: str) -> bool:
    """Tell whether the last digit is the right Verhoeff check digit of those before it."""
    check = 0
    for place, digit in enumerate(reversed(digits)):
        check = _D5[check][_PERMUTE[place % 8][ord(digit) - 48]]
    return check == 0


def snomed_id(text: str) -> str | None:
    """Return the id if it is a SNOMED CT identifier: 6 to 18 digits, partition, check digit."""
    code = text.strip()
    if not _SCTID.fullmatch(code) or code[-3:-1] not in _PARTITIONS:
        return None
    return code if verhoeff(code) else None


def snomed_concept(text: str) -> str | None:
    """Return the id if it is a SNOMED CT concept's (dm+d products are concepts too)."""
    code = snomed_id(text)
    return code if code is not None and code[-3:-1] in _CONCEPT_PARTITIONS else None


def gphc_number(text: str) -> str | None:
    """Return a General Pharmaceutical Council registration number: 7 digits."""
    return _shaped(_SEVEN, text)


def gmc_number(text: str) -> str | None:
    """Return a General Medical Council reference number: 7 digits."""
    return _shaped(_SEVEN, text)


def gdc_number(text: str) -> str | None:
    """Return a General Dental Council registration number: up to 6 digits."""
    return _shaped(_GDC, text)


def goc_number(text: str) -> str | None:
    """Return a General Optical Council number as it is printed, `01-12345`."""
    match = _GOC.fullmatch(text.strip())
    return f"{match[1]}-{match[2]}" if match else None


def dos_service_id(text: str) -> str | None:
    """Return the id of a service in the Directory of Services: digits."""
    return _shaped(_DOS, text)


def sds_id(text: str) -> str | None:
    """Return the id of a user or of a role profile in the Spine Directory Service: 12 digits."""
    return _shaped(_SDS, text)


def uuid(text: str) -> str | None:
    """Return a UUID in lower case, with its hyphens, as FHIR and BaRS write it."""
    return _shaped(_UUID, text.lower())


def postcode(text: str) -> str | None:
    """Return a UK postcode as it is printed, `LS1 4AP`, if it has the shape of one."""
    match = _POSTCODE.fullmatch(text.translate(_SEPARATORS).upper())
    return f"{match[1]} {match[2]}" if match else None


def postcode_area(text: str) -> str | None:
    """Return the area of a postcode: `LS` of `LS1 4AP`."""
    code = postcode(text)
    match = _AREA.match(code) if code else None
    return match[0] if match else None


def _shaped(shape: re.Pattern[str], text: str) -> str | None:
    number = text.strip()
    return number if shape.fullmatch(number) else None
