"""What can be read of a body that is not taken, whatever its shape. Nothing here raises.

Such a body was refused, often because of how something in it is spelt; so spellings are read as
loosely as is safe: what is taken for urgent at worst makes somebody telephone.
"""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from fhir_profiles import identifiers
from fhir_profiles.pathways.parts import Level

# As the doors, FHIR and EeRS spell them; EeRS says emergencyASAP and emergency24Hours.
_URGENCIES: Final[Mapping[str, Level]] = {
    "emergency": "stat",
    "same-day": "stat",
    "stat": "stat",
    "urgent": "urgent",
    "within-7-days": "asap",
    "asap": "asap",
}


def urgency(value: Any) -> Level:
    """Return the level that a word stands for, in any spelling; routine if it stands for none."""
    said = word(value)
    return next((it for start, it in _URGENCIES.items() if said.startswith(start)), "routine")


def word(value: Any) -> str:
    """Return a code as our lists spell it: `Same day` and `SAME_DAY` are `same-day`."""
    return re.sub(r"[\s_-]+", "-", value.strip().lower()) if isinstance(value, str) else ""


def yes(value: Any) -> bool:
    """Tell whether it says yes, also in quotation marks."""
    return value is True or word(value) in {"true", "yes"}


def number(value: Any) -> Decimal | None:
    """Return a finite number, also one in quotation marks."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        found = Decimal(str(value).strip())
    except (InvalidOperation, ValueError):
        return None
    return found if found.is_finite() else None


def block(value: Any) -> Mapping[str, Any]:
    """Return an object, empty if it is none."""
    return value if isinstance(value, Mapping) else {}


def ods(value: Any) -> str | None:
    """Return the ODS code of an organisation's block, in capitals, if it has one."""
    code = block(value).get("ods")
    return identifiers.ods_code(code) if isinstance(code, str) else None


def blocks(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a list, or the single one that stands where a list belongs."""
    yield from map(block, value if isinstance(value, list | tuple) else (value,))
