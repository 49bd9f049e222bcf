"""The kinds of value in a native body: each checks itself and says what to do if it is wrong.

All are annotated types for pydantic models that are validated with `context={"now": …}`.
"""

import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    Strict,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from fhir_profiles import codes, identifiers

GRACE: Final = timedelta(minutes=5)


def now_of(info: ValidationInfo) -> datetime:
    """Return the one time that counts. Raises RuntimeError where the caller gave none."""
    if not info.context or "now" not in info.context:
        raise RuntimeError('Validate a block with context={"now": an aware datetime}.')
    now = info.context["now"]
    assert isinstance(now, datetime)  # noqa: S101 - narrows the type for mypy
    return now


def refusal(code: str, detail: str, todo: str = "") -> PydanticCustomError:
    """Return an error for a validator to raise. The sentences must not repeat a patient's data."""
    # The template is fixed and the sentences are its argument: braces in them stay braces.
    return PydanticCustomError(code, "{detail}", {"detail": detail, "todo": todo})


_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
# Up to nanoseconds; `fromisoformat` cuts off what is finer than a microsecond.
_DATETIME: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2})?", re.ASCII
)
_SHA256: Final = re.compile(r"[0-9A-Fa-f]{64}")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_WHEN_TODO: Final = "Send 2026-10-01T14:30:00+01:00, or 2026-10-01 if the time is not known."
# No patient was seen before it; near the calendar's own ends a time cannot be reckoned with.
_FIRST_YEAR: Final = 1900
_MOST_YEARS_AHEAD: Final = 10


def _when(value: Any, info: ValidationInfo) -> date | datetime:
    read = date_or_time(value)
    if read is None:
        raise refusal("not-a-time", "This is not a date or a time.", _WHEN_TODO)
    if isinstance(read, datetime) and read.tzinfo is None:
        raise refusal("no-offset", "This time does not say its offset from UTC.", _WHEN_TODO)
    return _past(
        read,
        info,
        "Send the time when it happened; check the clock of the system that sends it.",
    )


def _past(read: date | datetime, info: ValidationInfo, todo: str) -> date | datetime:
    now = now_of(info)
    # An hour ahead: London's summer time is what the sender's calendar goes by.
    latest = now + GRACE if isinstance(read, datetime) else (now + timedelta(hours=1)).date()
    if read > latest:
        raise refusal("in-the-future", "This lies in the future.", todo)
    if read.year < _FIRST_YEAR:
        raise refusal("too-long-ago", f"This lies before the year {_FIRST_YEAR}.", todo)
    return read


def date_or_time(value: Any) -> date | datetime | None:
    """Read a date, or a time with or without its offset, written as every door has it."""
    try:
        if isinstance(value, str) and _DATE.fullmatch(value):
            return date.fromisoformat(value)
        if isinstance(value, str) and _DATETIME.fullmatch(value):
            return datetime.fromisoformat(value)
    except ValueError:
        return None
    return None


def _day(todo: str) -> Callable[[Any, ValidationInfo], date]:
    """Return the check of a date that is not in the future; `todo` says what to do if it is."""

    def check(value: Any, info: ValidationInfo) -> date:
        read = date_or_time(value)
        if read is None or isinstance(read, datetime):
            raise refusal("not-a-date", "This is not a date.", "Send a date such as 1980-04-30.")
        return _past(read, info, todo)

    return check


def _ahead(value: Any, info: ValidationInfo) -> date:
    read = date_or_time(value)
    if read is None or isinstance(read, datetime):
        raise refusal("not-a-date", "This is not a date.", "Send a date such as 2026-11-30.")
    if not _FIRST_YEAR <= read.year <= now_of(info).year + _MOST_YEARS_AHEAD:
        raise refusal("out-of-reach", "This date is too far away.", "Check the date.")
    return read


def _readable(text: str) -> str:
    if _CONTROL.search(text):
        raise refusal(
            "control-character",
            "This text holds a control character.",
            "Send plain text; only tabs and line breaks are allowed between the words.",
        )
    return text


def _one_line(text: str) -> str:
    if "\n" in text or "\r" in text:
        raise refusal("line-break", "This text has a line break.", "Send it on one line.")
    return _readable(text)


def _number(value: Any) -> Any:
    if isinstance(value, float):
        raise TypeError("A float has lost its digits; read the body with strict_json.loads.")
    if isinstance(value, bool | str):
        raise refusal("not-a-number", "This is not a number.", "Send it as a JSON number: 142.")
    return value


When = Annotated[
    date | datetime,
    BeforeValidator(_when),
    WithJsonSchema(
        {
            "type": "string",
            "format": "date-time",
            "description": "A time with its offset, or a date where the time is not known. "
            "Not in the future.",
        }
    ),
]
"""A date, or a time with its offset. Not in the future (5 minutes of grace)."""

PastDate = Annotated[date, BeforeValidator(_day("Check the date."))]
"""A date that is not in the future."""

DueDate = Annotated[
    date,
    BeforeValidator(_ahead),
    WithJsonSchema({"type": "string", "format": "date", "examples": ["2026-11-30"]}),
]
"""A day by which something is to be done: also one that has passed, for that is overdue."""

BirthDate = Annotated[date, BeforeValidator(_day("Check the date of birth."))]
"""The day on which somebody was born. Not in the future."""

Line = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=255),
    AfterValidator(_one_line),
    Field(json_schema_extra={"pattern": r"^[^\r\n]*$"}),
]
"""A short text on one line."""

Text = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=20_000),
    AfterValidator(_readable),
]
"""A text in the clinician's own words."""

Flagged = Annotated[bool, Strict()]
"""true or false, nothing that looks like it."""

Number = Annotated[
    Decimal,
    BeforeValidator(_number),
    Field(allow_inf_nan=False),
    WithJsonSchema({"type": "number"}),
]
"""A number that keeps its digits: 1.50 stays 1.50."""


def _identifier(
    canonical: Callable[[str], str | None], code: str, detail: str, todo: str
) -> Callable[[str], str]:
    def check(text: str) -> str:
        value = canonical(text)
        if value is None:
            raise refusal(code, detail, todo)
        return value

    return check


NhsNumber = Annotated[
    str,
    AfterValidator(
        _identifier(
            identifiers.nhs_number,
            "nhs-number-invalid",
            "This is not a valid NHS number: it must have 10 digits and a right check digit.",
            "Trace the patient first (PDS) and send the number that the trace returned.",
        )
    ),
]
UploadId = Annotated[
    str,
    AfterValidator(
        _identifier(
            identifiers.uuid,
            "not-an-id",
            "This is not an id that an upload was answered with.",
            "Send the `id` that POST /attachments answered, as it is.",
        )
    ),
]
Sha256 = Annotated[
    str,
    AfterValidator(
        _identifier(
            lambda text: text.lower() if _SHA256.fullmatch(text) else None,
            "not-a-digest",
            "This is not a SHA-256 in hexadecimal: it has 64 digits.",
            "Send the `sha256` that POST /attachments answered, or your own of the same file.",
        )
    ),
]
OdsCode = Annotated[
    str,
    AfterValidator(
        _identifier(
            identifiers.ods_code,
            "ods-code-invalid",
            "This is not an ODS code: 1 to 9 capital letters and digits.",
            "Send the organisation's ODS code, for example FPH01.",
        )
    ),
]
SnomedCode = Annotated[
    str,
    AfterValidator(
        _identifier(
            identifiers.snomed_concept,
            "snomed-code-invalid",
            "This is not a SNOMED CT concept: its check digit or its partition is wrong.",
            "Send the code as text; a spreadsheet or JavaScript rounds long codes sent as numbers.",
        )
    ),
]
GphcNumber = Annotated[
    str,
    AfterValidator(
        _identifier(
            identifiers.gphc_number,
            "gphc-number-invalid",
            "This is not a GPhC registration number: it must have 7 digits.",
            "Send the number under which the clinician is registered.",
        )
    ),
]
GmcNumber = Annotated[
    str,
    AfterValidator(
        _identifier(
            identifiers.gmc_number,
            "gmc-number-invalid",
            "This is not a GMC number: it must have 7 digits.",
            "Send the number under which the doctor is registered.",
        )
    ),
]
GdcNumber = Annotated[
    str,
    AfterValidator(
        _identifier(
            identifiers.gdc_number,
            "gdc-number-invalid",
            "This is not a GDC registration number.",
            "Send the number under which the clinician is registered.",
        )
    ),
]
GocNumber = Annotated[
    str,
    AfterValidator(
        _identifier(
            identifiers.goc_number,
            "goc-number-invalid",
            "This is not a GOC number: it must look like 01-12345.",
            "Send the number under which the performer is registered.",
        )
    ),
]


def _unit(text: str) -> str:
    return UNITS.properties[text]["ucum"] if text in UNITS else text


UNITS: Final = codes.system("unit")
Unit = Annotated[Line, AfterValidator(_unit)]
"""A unit: UCUM, or a spelling of it that `definitions/unit.json` knows; then UCUM from here on."""

Postcode = Annotated[Line, AfterValidator(lambda text: identifiers.postcode(text) or text)]
"""A postcode, in its printed form where it has the shape of a British one."""

_LANGUAGE: Final = r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$"


def _language(text: str) -> str:
    if not re.fullmatch(_LANGUAGE, text):
        raise refusal(
            "language-invalid",
            "This is not a language tag.",
            "Send a BCP 47 tag, such as pl, or bfi for British Sign Language.",
        )
    return text


Language = Annotated[
    str,
    StringConstraints(strip_whitespace=True),
    AfterValidator(_language),
    Field(json_schema_extra={"pattern": _LANGUAGE}),
]
"""A BCP 47 language tag: `pl`, `bfi` (British Sign Language)."""
