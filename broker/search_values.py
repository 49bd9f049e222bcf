"""The values of search parameters, read one by one: ids, identifiers, codes, dates and times.

Pure. Each is read exactly or refused; no value is said back.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from fhir_profiles import codes
from fhir_profiles.identifiers import nhs_number, ods_code
from fhir_profiles.systems import Systems
from fhir_profiles.working_days import LONDON

Prefix = Literal["eq", "ne", "gt", "lt", "ge", "le", "sa", "eb"]
_MOMENT: Final = re.compile(
    r"(?P<prefix>eq|ne|gt|lt|ge|le|sa|eb)?(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)"
    r"(?:T(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d+))?)?"
    r"(?P<offset>Z|[+-]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)
_LAST: Final = datetime.max.replace(tzinfo=UTC)
# R4, section 3.1.1.4.0.1: a comma that is part of a value is escaped, and so are these.
_VALUE: Final = re.compile(r"(?:[^,\\]|\\.?)+", re.DOTALL)
_ESCAPED: Final = re.compile(r"\\([,|$\\])")
_NHS: Final = Systems([codes.NHS_NUMBER])
_ODS: Final = Systems([codes.ODS])


class Wrong(Exception):
    """A parameter cannot be read: FHIR's code for it, what is wrong, and what to do."""

    def __init__(self, code: str, said: str, todo: str) -> None:
        super().__init__(said)
        self.code, self.said, self.todo = code, said, todo


def each(text: str) -> tuple[str, ...]:
    """Return the values between commas. Raises Wrong where there is none, or one that no database
    takes."""
    if any(character < " " for character in text):
        raise Wrong("value", "It holds a control character.", "Take it out.")
    found = tuple(_ESCAPED.sub(r"\1", one) for one in _VALUE.findall(text))
    if not found:
        raise Wrong("value", "It has no value.", "Give one, or leave it out.")
    return found


def identity(text: str) -> str | None:
    """Return an id as it is stored, or None where it can be none that is given here."""
    try:
        found = str(UUID(text))
    except ValueError:
        return None
    return found if found == text.lower() else None  # UUID also reads braces, URNs and bare digits


def uuid(text: str) -> str:
    found = identity(text)
    if found is None:
        raise Wrong("value", "It is not an id that is given here.", "Ids are UUIDs.")
    return found


def pair(text: str) -> tuple[str, str]:
    system, bar, value = text.partition("|")
    if not (system and bar and value):
        raise Wrong("value", "It is not system|value.", "Give the system and the value.")
    return system, value


def nhs(text: str) -> str:
    system, value = pair(text)
    meant = _NHS.meant_by(system)
    number = nhs_number(value)
    if meant is None or meant.is_misspelt or number is None:
        said = "It is not an NHS number with its system."
        raise Wrong("value", said, f"Give {codes.NHS_NUMBER}|<ten digits>.")
    return number


def ods(text: str) -> str:
    system, bar, value = text.rpartition("|")
    code = ods_code(value)
    meant = _ODS.meant_by(system) if bar else None
    if code is None or (bar and (meant is None or meant.is_misspelt)):
        said = "It is not an ODS code."
        raise Wrong("value", said, f"Give {codes.ODS}|<code>, or the code alone.")
    return code


def span(text: str) -> tuple[Prefix, datetime, datetime]:
    """Return (prefix, start, end) of a date or time: a day, a minute, as exact as it is given.

    Where no offset is given it is London's.
    """
    found = _MOMENT.fullmatch(text.replace(" ", "+"))
    wrong = Wrong("value", "It is not a date or time.", "Such as ge2026-11-20.")
    if found is None:
        raise wrong
    try:
        start = _start(found)
        begins = start.astimezone(UTC)
    except (ValueError, OverflowError):
        raise wrong from None
    try:
        ends = _end(start, found).astimezone(UTC)
    except (ValueError, OverflowError):  # 9999, as some write "for ever": the calendar ends there
        ends = _LAST
    return (found["prefix"] or "eq", begins, ends)  # type: ignore[return-value]


def _start(found: re.Match[str]) -> datetime:
    offset = found["offset"]
    zone = datetime.fromisoformat(f"2000-01-01T00:00{offset}").tzinfo if offset else LONDON
    date = int(found["year"]), int(found["month"] or 1), int(found["day"] or 1)
    time = int(found["hour"] or 0), int(found["minute"] or 0), int(found["second"] or 0)
    return datetime(*date, *time, int((found["fraction"] or "")[:6].ljust(6, "0")), tzinfo=zone)


def _end(start: datetime, found: re.Match[str]) -> datetime:
    if found["month"] is None:
        return start.replace(year=start.year + 1)
    if found["day"] is None:
        later = start + timedelta(days=31)
        return later.replace(day=1)
    if found["hour"] is None:
        return start + timedelta(days=1)
    if found["second"] is None:
        width = timedelta(minutes=1)
    else:
        width = timedelta(seconds=1) / 10 ** min(len(found["fraction"] or ""), 6)
    # Naive arithmetic on a wall clock would lose an hour where the clocks change.
    return start.astimezone(UTC) + width
