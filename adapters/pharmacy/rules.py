"""What a consultation asks of others, and what contradicts its pathway.

The lines themselves stand in `fhir_profiles/pathways/pharmacy/`; here their facts are gathered.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from adapters.pharmacy.request import Consultation, Medicine, Pulse
from broker.errors import Problem
from broker.events import Priority, highest
from fhir_profiles import codes
from fhir_profiles.pathways.pharmacy import pharmacy
from fhir_profiles.pathways.rules import Escalation, Fact, Facts, Hit, Rule

URGENCIES: Final = {
    "same-day": Priority.STAT,
    "urgent": Priority.URGENT,
    "within-7-days": Priority.ASAP,
    "routine": Priority.ROUTINE,
}

# Where in the body a fact comes from: that is where a warning about it points.
_FIELDS: Final[Mapping[Fact, str]] = {
    "age": "patient.birth_date",
    "sex": "patient.sex",
    "pregnant": "pregnancy",
    "source": "source",
    "exclusions": "exclusions",
    "gateway-met": "gateway_met",
    "gateway-stated": "gateway_met",
    "has-pressure": "blood_pressures",
    "has-bmi": "observations",
    "acute-symptoms-stated": "acute_symptoms",
    "pulse": "repeat_pulse",
    "contraceptive": "contraceptive",
    "supplied": "outcome",
}
HOSPITAL: Final = "Call 999 or send the patient to A&E now, if that has not been done."


@dataclass(frozen=True, slots=True)
class Asked:
    """What a consultation asks of others: a task for the GP, or A&E at once and then no task.

    `rules` are the lines that say so, the most urgent first. `own` is how soon the sender asks
    for it, which is never lowered.
    """

    task: Priority | None
    own: Priority | None
    emergency: bool
    rules: tuple[Escalation, ...]
    advice: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """All that the rules say of one consultation."""

    asked: Asked
    warnings: tuple[Problem, ...]


def judge(request: Consultation) -> Judgement:
    """Hold a consultation against every line of the catalogue."""
    known, readings = facts(request), pressures(request)
    asked = _asked(request, known, readings)
    return Judgement(asked, tuple(_warnings(request, asked, known, readings)))


def _asked(request: Consultation, known: Facts, readings: Sequence[Facts]) -> Asked:
    catalogue = pharmacy()
    hits = {hit.rule.id for hit in catalogue.escalations(request.service, known, readings)}
    rules = [rule for rule in catalogue.shared.escalations if rule.id in hits]
    outcome = catalogue.outcomes[request.outcome]
    hospital = any(rule.emergency for rule in rules)
    own = [Priority(outcome.asks_gp)] if outcome.asks_gp else []
    own += [URGENCIES[request.urgency]] if request.urgency else []
    ruled = [Priority(rule.task) for rule in rules if rule.task]
    task = highest(*own, *ruled) if (own or ruled) and not hospital else None
    advice = [rule.advice for rule in rules if rule.advice]
    if outcome.emergency and not advice:
        advice.append(HOSPITAL)
    # By urgency, then in the order of the catalogue: the first one is the referral's first reason.
    rules.sort(key=lambda rule: Priority(rule.task).rank if rule.task else -1)
    if task is not None:
        advice += [f"{rule.words}: {Priority(rule.task).words}." for rule in rules if rule.task]
        if ruled and task is not highest(*ruled):
            advice.append(f"What you asked for is more urgent and counts: {task.words}.")
    return Asked(
        task=task,
        own=highest(*own) if own else None,
        emergency=outcome.emergency or hospital,
        rules=tuple(rules),
        advice=tuple(advice),
    )


# -- facts ---------------------------------------------------------------------------------------


def facts(request: Consultation) -> Facts:
    """Return everything that the rules may test, but for the single pressures."""
    patient = request.patient
    kinds = {observation.kind for observation in request.observations}
    outcome = pharmacy().outcomes[request.outcome]
    return {
        "age": Decimal(patient.age(request.clinical_time)),
        "sex": patient.sex or "not-given",
        "pregnant": None if request.pregnancy is None else request.pregnancy == "pregnant",
        "source": request.source.kind if request.source else "not-given",
        "exclusions": frozenset(request.exclusions),
        "gateway-met": request.gateway_met,
        "gateway-stated": request.gateway_met is not None,
        "supplied": outcome.supplies,
        "contraceptive": request.contraceptive,
        "no-supply-reason": request.no_supply_reason,
        "has-pressure": bool(request.blood_pressures),
        "has-bmi": "bmi" in kinds
        or (
            not kinds.isdisjoint({"height", "self-reported-height"})
            and not kinds.isdisjoint({"weight", "self-reported-weight"})
        ),
        "abpm-declined": bool(request.abpm_declined),
        "acute-symptoms": bool(request.acute_symptoms),
        "acute-symptoms-stated": request.acute_symptoms is not None,
        "fainting-or-falls": bool(request.fainting_or_falls),
        "pulse": _rhythm(request.pulse, request.repeat_pulse),
    }


def pressures(request: Consultation) -> list[Facts]:
    """Return the facts of each pressure, in order."""
    return [
        pressure(reading.method, reading.systolic, reading.diastolic)
        for reading in request.blood_pressures
    ]


def pressure(method: str, systolic: Decimal | None, diastolic: Decimal | None) -> Facts:
    exchanged = systolic is not None and diastolic is not None and diastolic >= systolic
    return {
        "method": method,
        "systolic": systolic,
        "diastolic": diastolic,
        "exchanged": exchanged,
    }


def _rhythm(first: Pulse | None, second: Pulse | None) -> str | None:
    """A second reading without times counts as one taken late enough: that is what it is for."""
    irregular = [pulse for pulse in (first, second) if pulse and pulse.rhythm == "irregular"]
    if first is None or second is None or len(irregular) < 2:
        return "irregular-unconfirmed" if irregular and not _settled(second) else None
    times = first.taken_at, second.taken_at
    if isinstance(times[0], datetime) and isinstance(times[1], datetime):
        wait = timedelta(minutes=pharmacy().shared.pulse_confirmed_after_minutes)
        confirmed = abs(times[1] - times[0]) >= wait
        return "irregular-confirmed" if confirmed else "irregular-unconfirmed"
    return "irregular-confirmed"


def _settled(second: Pulse | None) -> bool:
    return second is not None and second.rhythm == "regular"


# -- warnings ------------------------------------------------------------------------------------


def _warnings(
    request: Consultation, asked: Asked, known: Facts, readings: Sequence[Facts]
) -> Iterator[Problem]:
    """Yield what is doubtful and not refused: identity first, then the pathway, then the supply."""
    for fault in request.patient.warnings():
        yield Problem(fault.field, fault.code, fault.detail, fault.todo)
    hits = pharmacy().warnings(request.service, known, readings)
    yield from dict.fromkeys(_doubt(hit) for hit in hits)
    yield from _supply_warnings(request)
    if request.no_known_allergies and request.allergies:
        yield _warning("no_known_allergies", "allergies-contradict", "Send a correction.")
    if request.red_flags and asked.task is None and not asked.emergency:
        yield _warning("red_flags", "red-flag-without-action", "Send `urgency` if the GP must act.")


def _doubt(hit: Hit[Rule]) -> Problem:
    place = "service" if hit.reading is None else f"blood_pressures[{hit.reading}]"
    field = next((_FIELDS[fact] for fact in hit.rule.when.facts() if fact in _FIELDS), place)
    return Problem(field, hit.rule.warning, hit.rule.words, "Check it; the practice sees this.")


def _supply_warnings(request: Consultation) -> Iterator[Problem]:
    for place, medicine in enumerate(request.medicines):
        for field, code, todo in _medicine_doubts(medicine):
            yield _warning(f"medicines[{place}].{field}", code, todo, medicine.name)
    supplies = pharmacy().outcomes[request.outcome].supplies
    if request.medicines and not supplies:
        yield _warning("medicines", "medicine-without-supply", "Check the outcome.")
    if request.outcome == "no-supply" and request.no_supply_reason is None:
        yield _warning("no_supply_reason", "no-supply-reason-missing", "Send the reason.")


def _medicine_doubts(medicine: Medicine) -> Iterator[tuple[str, str, str]]:
    """Yield (field, code, what to do) of all that is doubtful about one medicine."""
    if medicine.code is None:
        yield "code", "medicine-not-coded", "Send the dm+d code of the AMP."
    elif medicine.level != "AMP":
        yield "level", "medicine-not-amp", "Send the dm+d code of the AMP."
    if medicine.quantity is None:
        yield "quantity", "quantity-missing", "Send the quantity."
    if medicine.dose is None:
        yield "dose", "dose-text-missing", "Send the dose."
    if medicine.patient_instruction is None:
        yield "patient_instruction", "patient-instruction-missing", "Send it."
    if medicine.supply_route == "patient-group-direction" and medicine.pgd_version is None:
        yield "pgd_version", "pgd-version-missing", "Send the PGD's version."


def _warning(field: str, code: str, todo: str, about: str = "") -> Problem:
    """Return a warning; `about` names what it is about, for the message's notes have no field."""
    words = codes.system("warning").display(code)
    return Problem(field, code, f"{words}: {about}." if about else f"{words}.", todo)
