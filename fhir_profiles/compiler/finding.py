"""What a check finds, and where."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Severity = Literal["error", "warning", "information"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem. `code` is FHIR's issue type, `path` FHIRPath, `rule` the canonical of the rule.

    `text` says what is wrong and never repeats a value that could tell of a patient.
    """

    severity: Severity
    code: str
    path: str
    rule: str
    text: str


Findings = Sequence[Finding]
Check = Callable[[Any, Any], "Findings | None"]
"""From a JSON value and its scope to what is wrong; paths begin at the value. None: nothing."""


def under(prefix: str, found: Findings) -> list[Finding]:
    """Return findings as they are seen from the element that holds the value."""
    return [
        replace(
            one, path=f"{prefix}{one.path}" if one.path[:1] in {"", "["} else f"{prefix}.{one.path}"
        )
        for one in found
    ]
