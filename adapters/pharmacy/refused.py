"""Bodies that are not taken: the patient does not agree, or they are refused. Reads any body."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from adapters.pharmacy.request import Service
from adapters.pharmacy.rules import pressure
from broker.errors import Problem
from broker.events import Kind
from broker.ports import Withheld
from fhir_profiles import consent
from fhir_profiles.pathways import Facts, Value, pharmacy

_LONGEST_NAME: Final = 100


class _Looked(consent.Looked):
    pharmacy: consent.Sender
    """The pharmacy: the organisation of your token."""
    service: Service
    """The service under which the patient was seen."""

    @property
    def sender(self) -> consent.Sender:
        return self.pharmacy


def withheld(raw: Mapping[str, Any]) -> Withheld | None:
    """Read the few fields that are still looked at where the patient refused; else None."""
    refusal = consent.refusal(raw, "consent_to_inform_gp", _Looked)
    if refusal is None:
        return None
    sentences = ["The patient does not agree: nothing was sent, and nothing clinical was kept."]
    if danger(raw) is not None:
        sentences.insert(
            0,
            "Nobody has been told. What was found needs somebody to act: speak with the patient "
            "again, and call 999 if life is in danger.",
        )
    return Withheld(
        kind=Kind.UPDATE,
        organisation=refusal.organisation,
        reference=refusal.reference,
        problems=tuple(
            Problem(fault.field, fault.code, fault.detail, fault.todo) for fault in refusal.faults
        ),
        read_first=tuple(sentences),
    )


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
