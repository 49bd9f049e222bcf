"""Codes and identifiers under the system that they name: is there such a code, such a number?

An identifier is judged by its shape and check digit; a code by its code system, where that is
loaded. Nothing that is found repeats a value.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from fhir_profiles import codes, identifiers
from fhir_profiles.compiler.finding import Finding, Severity
from fhir_profiles.compiler.scope import Scope
from fhir_profiles.compiler.terminology import Terminology
from fhir_profiles.systems import Systems

NUMBERS: Final[Mapping[str, Callable[[str], str | None]]] = {
    codes.identifier_system(name): check
    for name, check in {
        "nhs-number": identifiers.nhs_number,
        "ods-organization-code": identifiers.ods_code,
        "ods-site-code": identifiers.ods_code,
        "gphc-number": identifiers.gphc_number,
        "gmc-number": identifiers.gmc_number,
        "gdc-number": identifiers.gdc_number,
        "goc-number": identifiers.goc_number,
        "sds-user-id": identifiers.sds_id,
        "sds-role-profile-id": identifiers.sds_id,
        "dos-service-id": identifiers.dos_service_id,
    }.items()
}
_DECISIVE: Final = frozenset(
    {codes.NHS_NUMBER, codes.ODS, codes.identifier_system("ods-site-code")}
)
_CONCEPTS: Final = frozenset({codes.SNOMED, codes.DMD})


class Naming:
    """The checks of `Coding` and `Identifier`."""

    def __init__(self, terminology: Terminology) -> None:
        self._terminology = terminology
        self._identifiers = Systems(codes.identifier_systems())
        self._codes = Systems(())

    def compile(self) -> None:
        """Learn the names of every code system that is loaded by now."""
        self._codes = Systems({*self._terminology.systems(), *_CONCEPTS})

    def identifier(self, value: Any, _scope: Scope) -> Sequence[Finding] | None:
        """Check that a number of a system that is known has its shape and check digit."""
        system, number = value.get("system"), value.get("value")
        if not isinstance(system, str):
            return None
        meant = self._identifiers.meant_by(system)
        if meant is None:
            return None
        found = _named(system, meant.system, meant.is_misspelt)
        check = NUMBERS.get(meant.system)
        if check is not None and isinstance(number, str) and check(number) is None:
            # A regulator's number may be written with a letter before it, and published ids of
            # staff are made up; who a patient is, and where something goes, hangs on the others.
            severity: Severity = "error" if meant.system in _DECISIVE else "warning"
            said = "It has not the shape or the check digit of its system."
            found.append(Finding(severity, "value", "value", meant.system, said))
        return found

    def coding(self, value: Any, _scope: Scope) -> Sequence[Finding] | None:
        """Check that a code is one of its system, and that its words are the system's."""
        system, code = value.get("system"), value.get("code")
        if not isinstance(system, str):
            return None
        meant = self._codes.meant_by(system)
        if meant is None:
            return None
        found = _named(system, meant.system, meant.is_misspelt)
        if not isinstance(code, str):
            return found
        if meant.system in _CONCEPTS:
            if identifiers.snomed_concept(code) is None:
                said = "It is no SNOMED CT concept: its check digit or its kind is wrong."
                found.append(Finding("error", "code-invalid", "code", meant.system, said))
            return found
        known = self._terminology.system(meant.system)
        if known is None:
            return found
        display = known.displays.get(code)
        if display is None:
            severity = self._terminology.gravity(known)
            if severity is not None:
                said = "There is no such code."
                found.append(Finding(severity, "code-invalid", "code", known.url, said))
        elif _differs(value.get("display"), display):
            said = "These are not the words of its code system."
            found.append(Finding("warning", "code-invalid", "display", known.url, said))
        return found


def _named(system: str, meant: str, is_misspelt: bool) -> list[Finding]:
    if system == meant:
        return []
    severity: Severity = "error" if is_misspelt else "warning"
    said = f"It is written {meant}."
    return [Finding(severity, "value", "system", meant, said)]


def _differs(given: Any, display: str) -> bool:
    return isinstance(given, str) and bool(display) and _plain(given) != _plain(display)


def _plain(words: str) -> str:
    return " ".join(words.casefold().split())
