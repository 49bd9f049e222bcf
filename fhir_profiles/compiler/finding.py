"""What a check finds, and where."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import RLock
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
        Finding(one.severity, one.code, _joined(prefix, one.path), one.rule, one.text)
        for one in found
    ]


def _joined(prefix: str, path: str) -> str:
    return f"{prefix}.{path}" if path and path[0] != "[" else prefix + path


class Made:
    """Checks by name, each made once, when it is first asked for; they may hold each other.

    May be used by any thread: who asks for one that another is making waits until it is there.
    """

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._lock = RLock()

    def get(self, name: str, make: Callable[[], Check]) -> Check:
        """Return the check of a name."""
        found = self._checks.get(name)
        if found is not None:
            return found
        with self._lock:
            return self._checks.get(name) or self._make(name, make)

    def _make(self, name: str, make: Callable[[], Check]) -> Check:
        cell: list[Check] = []

        def later(value: Any, around: Any) -> "Findings | None":
            if not cell:
                with self._lock:  # what holds this one was made, and this one still is
                    pass
            return cell[0](value, around)

        self._checks[name] = later
        try:
            cell.append(make())
        except BaseException:
            del self._checks[name]
            raise
        self._checks[name] = cell[0]
        return cell[0]
