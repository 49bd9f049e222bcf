"""Bodies that are not taken: the patient does not agree, or they are refused. Reads any body."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from adapters.pharmacy.rules import pressure
from broker.errors import Problem
from broker.ports import Withheld
from fhir_profiles import codes
from fhir_profiles.faults import to_problems
from fhir_profiles.pathways import Facts, Value, pharmacy
from fhir_profiles.values import Flagged, Line, OdsCode

_LONGEST_NAME: Final = 100


class _Pharmacy(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    ods: OdsCode
    """ODS code of the pharmacy."""


class _Withheld(BaseModel):
    """All that is looked at where the patient refused."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    reference: Line
    """Your own reference for this consultation."""
    service: str
    """The service under which the patient was seen."""
    consent_to_inform_gp: Flagged
    """Whether the patient agrees that the registered practice is told."""
    pharmacy: _Pharmacy
    """The pharmacy: the organisation of your token."""


def withheld(raw: Mapping[str, Any]) -> Withheld | None:
    """Read the few fields that are still looked at where the patient refused; else None."""
    if raw.get("consent_to_inform_gp") is not False:
        return None
    problems: list[Problem] = []
    organisation = reference = ""
    try:
        read = _Withheld.model_validate(raw)
        organisation, reference = read.pharmacy.ods, read.reference
    except ValidationError as error:
        problems = [
            Problem(fault.field, fault.code, fault.detail, fault.todo)
            for fault in to_problems(error, _Withheld)
        ]
    service = raw.get("service")
    if isinstance(service, str) and service not in codes.system("pharmacy-service"):
        known = ", ".join(codes.system("pharmacy-service").displays)
        detail = "`service` is not one of the values that are known here."
        problems.append(Problem("service", "not-in-list", detail, f"Send one of {known}."))
    sentences = ["The patient does not agree: nothing was sent, and nothing clinical was kept."]
    if danger(raw) is not None:
        sentences.insert(
            0,
            "Nobody has been told. What was found needs somebody to act: speak with the patient "
            "again, and call 999 if life is in danger.",
        )
    return Withheld(organisation, reference, tuple(problems), tuple(sentences))


def danger(raw: Mapping[str, Any]) -> str | None:
    """Say whom to telephone about a refused body, if it speaks of danger. Never raises."""
    emergency = raw.get("outcome") == "emergency"
    urgent = raw.get("urgency") in ("same-day", "urgent") or raw.get("outcome") == "gp-same-day"
    service = raw.get("service")
    known = service if isinstance(service, str) and service in pharmacy().pathways else None
    hits = list(pharmacy().escalations(known, _read_facts(raw), list(_read_pressures(raw))))
    if not (emergency or urgent or raw.get("red_flags") or hits):
        return None
    practice = _mapping(raw.get("practice"))
    whom = _readable(practice.get("name")) or "the patient's practice"
    if ods := _readable(practice.get("ods")):
        whom = f"{whom} ({ods})"
    whom = f"{whom}; out of hours NHS 111"
    if emergency or any(hit.rule.emergency for hit in hits):
        whom = f"999, or send the patient to A&E; then {whom}"
    return f"Telephone {whom}."


def _readable(value: Any) -> str:
    """Return a name that may be said back to whoever sent it, or nothing."""
    text = value.strip() if isinstance(value, str) else ""
    return text if text.isprintable() and len(text) <= _LONGEST_NAME else ""


def _read_facts(raw: Mapping[str, Any]) -> Facts:
    rhythms = [_mapping(raw.get(name)).get("rhythm") for name in ("pulse", "repeat_pulse")]
    reason = raw.get("no_supply_reason")
    pulse: Value = "irregular-confirmed" if rhythms == ["irregular", "irregular"] else None
    return {
        "abpm-declined": raw.get("abpm_declined") is True,
        "acute-symptoms": raw.get("acute_symptoms") is True,
        "fainting-or-falls": raw.get("fainting_or_falls") is True,
        "no-supply-reason": reason if isinstance(reason, str) else None,
        "pulse": pulse,
    }


def _read_pressures(raw: Mapping[str, Any]) -> Iterator[Facts]:
    readings = raw.get("blood_pressures")
    for reading in readings if isinstance(readings, Sequence) else ():
        given = _mapping(reading)
        systolic, diastolic = _number(given.get("systolic")), _number(given.get("diastolic"))
        yield pressure(str(given.get("method")), systolic, diastolic)


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return None
    try:
        number = Decimal(str(value).strip())
    except (InvalidOperation, ValueError):
        return None
    return number if number.is_finite() else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
