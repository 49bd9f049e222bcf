"""Bodies that are not taken: the patient does not agree, or they are refused. Reads any body."""

from collections.abc import Iterator, Mapping
from enum import Enum, auto
from typing import Any, Final

from adapters.pharmacy.request import Service
from adapters.pharmacy.rules import HOSPITAL, pressure
from broker.errors import Problem
from broker.events import Kind, Priority, Role
from broker.ports import Seek, Withheld
from fhir_profiles import consent, glance
from fhir_profiles.pathways.pharmacy import pharmacy
from fhir_profiles.pathways.rules import Facts, Value

_LONGEST_NAME: Final = 100
_SOMEBODY: Final = "What was found needs somebody to act; call 999 if life is in danger."


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
    if alarm := _alarm(raw):
        act = HOSPITAL if alarm is _Alarm.HOSPITAL else _SOMEBODY
        sentences.insert(0, f"Nobody has been told. {act} Speak with the patient again.")
    return Withheld(
        kind=Kind.UPDATE,
        organisation=refusal.organisation,
        reference=refusal.reference,
        problems=tuple(
            Problem(fault.field, fault.code, fault.detail, fault.todo) for fault in refusal.faults
        ),
        read_first=tuple(sentences),
    )


class _Alarm(Enum):
    """What a body that speaks of danger asks for."""

    SOMEBODY = auto()
    HOSPITAL = auto()


def _alarm(raw: Mapping[str, Any]) -> _Alarm | None:
    outcome, service = glance.word(raw.get("outcome")), glance.word(raw.get("service"))
    urgent = Priority(glance.urgency(raw.get("urgency"))).is_urgent or outcome == "gp-same-day"
    known = service if service in pharmacy().consultations else None
    hits = list(pharmacy().escalations(known, _read_facts(raw), list(_read_pressures(raw))))
    if outcome == "emergency" or any(hit.rule.emergency for hit in hits):
        return _Alarm.HOSPITAL
    return _Alarm.SOMEBODY if urgent or raw.get("red_flags") or hits else None


def danger(raw: Mapping[str, Any]) -> str | None:
    """Say whom to telephone about a refused body, if it speaks of danger. Never raises."""
    alarm = _alarm(raw)
    if alarm is None:
        return None
    practice = glance.block(raw.get("practice"))
    whom = _readable(practice.get("name")) or "the patient's practice"
    if ods := _readable(practice.get("ods")):
        whom = f"{whom} ({ods})"
    whom = f"{whom}; out of hours NHS 111"
    if alarm is _Alarm.HOSPITAL:
        whom = f"999, or send the patient to A&E; then {whom}"
    return f"Telephone {whom}."


def sought(raw: Mapping[str, Any]) -> Seek | None:
    """Return the practice that a body is for, if it names one. Never raises."""
    practice = glance.ods(raw.get("practice"))
    return Seek(Role.ACTING, "general-practice", practice=practice) if practice else None


def _readable(value: Any) -> str:
    """Return a name that may be said back to whoever sent it, or nothing."""
    text = value.strip() if isinstance(value, str) else ""
    return text if text.isprintable() and len(text) <= _LONGEST_NAME else ""


def _read_facts(raw: Mapping[str, Any]) -> Facts:
    rhythms = [
        glance.word(glance.block(raw.get(name)).get("rhythm")) for name in ("pulse", "repeat_pulse")
    ]
    pulse: Value = "irregular-confirmed" if rhythms == ["irregular", "irregular"] else None
    return {
        "abpm-declined": glance.yes(raw.get("abpm_declined")),
        "acute-symptoms": glance.yes(raw.get("acute_symptoms")),
        "fainting-or-falls": glance.yes(raw.get("fainting_or_falls")),
        "no-supply-reason": glance.word(raw.get("no_supply_reason")),
        "pulse": pulse,
    }


def _read_pressures(raw: Mapping[str, Any]) -> Iterator[Facts]:
    for given in glance.blocks(raw.get("blood_pressures")):
        systolic, diastolic = map(glance.number, (given.get("systolic"), given.get("diastolic")))
        yield pressure(glance.word(given.get("method")), systolic, diastolic)
