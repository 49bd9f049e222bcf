"""What a move of a referral carries: texts and codes, and everything wrong with what was sent.

The code lists are this project's own; their displays are what a person reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from broker.errors import Problem
from fhir_profiles import codes

MAX_TEXT: Final = 4_000

REJECTION_REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "not-clinically-appropriate": "Not clinically appropriate for this service",
        "criteria-not-met": "Does not meet the criteria for referral",
        "wrong-service": "Should go to another service",
        "insufficient-information": "Not enough information to decide",
        "patient-not-identified": "The patient cannot be identified from the details given",
        "out-of-area": "The patient is outside the area served",
        "already-under-care": "Already under the care of this service for the same problem",
        "duplicate": "The same referral has been made already",
        "no-capacity": "Cannot be seen here within the time needed",
        "other": "Another reason, given in the advice",
    }
)

CANCELLATION_REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "no-longer-needed": "No longer needed",
        "patient-request": "The patient asked for it",
        "referred-elsewhere": "Referred elsewhere",
        "duplicate": "The same referral has been made already",
        "entered-in-error": "Entered in error",
        "other": "Another reason, given in the note",
    }
)


PATIENT_AGREES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "yes": "The patient agrees to the other place",
        "not-asked": "The patient was not asked",
    }
)


# What a patient is told who was referred with a suspected cancer.
DIAGNOSES: Final[Mapping[str, str]] = MappingProxyType(
    {
        code: display
        for code, display in codes.system("referral-outcome").displays.items()
        if codes.system("referral-outcome").properties.get(code, {}).get("is-diagnosis")
    }
)


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that a move carries: free text, one code of a list, or a time with its offset."""

    name: str
    words: str
    required: bool = True
    codes: Mapping[str, str] | None = None
    is_time: bool = False


def moment(text: str) -> datetime | None:
    """Return a time with its offset; None where the text is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def check(carries: Sequence[Item], content: Mapping[str, object]) -> list[Problem]:
    """Return everything wrong with what a move carries: unknown, missing, blank, too long."""
    names = [item.name for item in carries]
    todo = f"It has: {', '.join(names)}." if names else "It carries nothing."
    problems = [
        Problem(name, "unknown-field", f"This move has no field {name}.", todo)
        for name in content
        if name not in names
    ]
    for item in carries:
        problem = _wrong(item, content.get(item.name))
        if problem is not None:
            problems.append(problem)
    return problems


def _wrong(item: Item, value: object) -> Problem | None:
    todo = f"Give {item.words}."
    if item.codes is not None:
        todo = f"Give one of: {', '.join(item.codes)}."
    if value is None:
        missing = Problem(item.name, "missing", f"{item.name} is missing.", todo)
        return missing if item.required else None
    if not isinstance(value, str) or not value.strip():
        return Problem(item.name, "invalid", f"{item.name} must be a text, not blank.", todo)
    if item.is_time and moment(value) is None:
        detail = f"{item.name} is not a time with its offset."
        return Problem(item.name, "invalid", detail, "Send it like 2026-11-30T10:30:00+00:00.")
    if item.codes is not None and value not in item.codes:
        return Problem(item.name, "unknown-code", f"{item.name} has no such code.", todo)
    if len(value) > MAX_TEXT:
        detail = f"{item.name} is over {MAX_TEXT} characters."
        return Problem(item.name, "too-long", detail, "Say it more briefly.")
    return None
