"""What somebody must do by what was told: the sender's own word, and the lines of the catalogue."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from adapters.pillars.said import Said
from broker.events import Priority, highest
from fhir_profiles import glance
from fhir_profiles.pathways.pharmacy import pharmacy
from fhir_profiles.pathways.rules import Escalation, Facts


@dataclass(frozen=True, slots=True)
class Asked:
    """A task for the practice, or A&E at once and then no task. `rules` say so, the most urgent
    first; `own` is how soon the sender asks for it, which is never lowered."""

    task: Priority | None
    own: Priority | None
    emergency: bool
    rules: tuple[Escalation, ...]
    advice: tuple[str, ...]

    @property
    def is_urgent(self) -> bool:
        """Whether somebody must be telephoned about it where it cannot be sent."""
        return self.emergency or (self.task is not None and self.task.is_urgent)


def asked(said: Said, own: Priority | None = None) -> Asked:
    """Hold what was measured against every line of the catalogue, and the sender's own word."""
    pressure = said.blood_pressure
    return _judged(
        own,
        (pressure.systolic, pressure.diastolic) if pressure is not None else None,
        acute_symptoms=bool(said.acute_symptoms),
        fainting_or_falls=bool(said.fainting_or_falls),
    )


def read(raw: Mapping[str, Any], own: Priority | None) -> Asked:
    """Judge a body of which nothing is known to be right. Never raises."""
    pressure = glance.block(raw.get("blood_pressure"))
    found = glance.number(pressure.get("systolic")), glance.number(pressure.get("diastolic"))
    known = [one for one in found if one is not None]
    # One number that cannot be read hides nothing of the other.
    normal = Decimal(120), Decimal(80)
    return _judged(
        own,
        (found[0] or normal[0], found[1] or normal[1]) if known else None,
        acute_symptoms=glance.yes(raw.get("acute_symptoms")),
        fainting_or_falls=glance.yes(raw.get("fainting_or_falls")),
    )


def _judged(
    own: Priority | None,
    pressure: tuple[Decimal, Decimal] | None,
    *,
    acute_symptoms: bool,
    fainting_or_falls: bool,
) -> Asked:
    facts: Facts = {"acute-symptoms": acute_symptoms, "fainting-or-falls": fainting_or_falls}
    readings: list[Facts] = []
    if pressure is not None:
        readings.append({"method": "clinic", "systolic": pressure[0], "diastolic": pressure[1]})
    rules = [hit.rule for hit in pharmacy().escalations(None, facts, readings)]
    rules.sort(key=lambda rule: Priority(rule.task).rank if rule.task else -1)
    emergency = any(rule.emergency for rule in rules)
    wanted = [Priority(rule.task) for rule in rules if rule.task] + ([own] if own else [])
    task = highest(*wanted) if wanted and not emergency else None
    advice = [rule.advice for rule in rules if rule.advice]
    if task is not None:
        advice += [f"{rule.words}: {Priority(rule.task).words}." for rule in rules if rule.task]
    return Asked(task, own, emergency, tuple(rules), tuple(advice))
