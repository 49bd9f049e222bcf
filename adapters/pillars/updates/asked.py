"""What an update asks of the practice: the sender's own word, and the lines of the catalogue."""

from dataclasses import dataclass
from decimal import Decimal

from adapters.pillars.updates.form import Update
from broker.events import Priority, highest
from fhir_profiles.blocks import URGENCIES
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


def asked(request: Update) -> Asked:
    """Hold an update against every line of the catalogue."""
    pressure = request.blood_pressure
    return judged(
        URGENCIES[request.action.urgency] if request.action is not None else None,
        (pressure.systolic, pressure.diastolic) if pressure is not None else None,
        acute_symptoms=bool(request.acute_symptoms),
        fainting_or_falls=bool(request.fainting_or_falls),
    )


def judged(
    asked_for: str | None,
    pressure: tuple[Decimal, Decimal] | None,
    *,
    acute_symptoms: bool,
    fainting_or_falls: bool,
) -> Asked:
    """Judge what was measured and what is asked for."""
    facts: Facts = {"acute-symptoms": acute_symptoms, "fainting-or-falls": fainting_or_falls}
    readings: list[Facts] = []
    if pressure is not None:
        readings.append({"method": "clinic", "systolic": pressure[0], "diastolic": pressure[1]})
    rules = [hit.rule for hit in pharmacy().escalations(None, facts, readings)]
    rules.sort(key=lambda rule: Priority(rule.task).rank if rule.task else -1)
    emergency = any(rule.emergency for rule in rules)
    own = Priority(asked_for) if asked_for is not None else None
    wanted = [Priority(rule.task) for rule in rules if rule.task] + ([own] if own else [])
    task = highest(*wanted) if wanted and not emergency else None
    advice = [rule.advice for rule in rules if rule.advice]
    if task is not None:
        advice += [f"{rule.words}: {Priority(rule.task).words}." for rule in rules if rule.task]
    return Asked(task, own, emergency, tuple(rules), tuple(advice))
