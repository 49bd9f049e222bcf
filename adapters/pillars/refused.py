"""Bodies that are not taken, and what is said of them: the patient does not agree, or of danger."""

from collections.abc import Mapping
from typing import Any, Final

from adapters.pillars.asked import Asked
from adapters.pillars.who import Who
from broker.errors import Problem
from broker.events import Kind, Role
from broker.ports import Seek, Withheld
from fhir_profiles import consent, glance
from fhir_profiles.blocks import Fault
from fhir_profiles.pathways.catalogue import PRACTICE

NOT_SENT: Final = (
    "The patient does not agree: nothing was sent to anybody, and nothing clinical was kept."
)
_TELEPHONE: Final = "Telephone the patient's registered practice; out of hours, NHS 111."
_AT_ONCE: Final = "Call 999, or send the patient to the emergency department (A&E) now."
_NOBODY_TOLD: Final = (
    "Nobody has been told. What was found needs somebody to act; call 999 if life is in danger. "
    "Speak with the patient again."
)


def problem(fault: Fault) -> Problem:
    """Return what a form finds, as the broker tells it."""
    return Problem(fault.field, fault.code, fault.detail, fault.todo)


def withheld(raw: Mapping[str, Any], form: type[Who], found: Asked, *more: str) -> Withheld | None:
    """Read the few fields that are still looked at where the patient refused; else None.

    `found` is what the body asks of somebody; `more` is said last.
    """
    refusal = consent.refusal(raw, "consent", form.looked())
    if refusal is None:
        return None
    first = (_AT_ONCE,) if found.emergency else ()
    danger = (*first, _NOBODY_TOLD) if found.is_urgent else ()
    return Withheld(
        kind=Kind.UPDATE,
        organisation=refusal.organisation,
        reference=refusal.reference,
        problems=tuple(map(problem, refusal.faults)),
        read_first=(*danger, NOT_SENT, *more),
    )


def danger(found: Asked) -> str | None:
    """Say whom to telephone about a body that is refused, if it speaks of something urgent."""
    if found.emergency:
        return f"{_AT_ONCE} {_TELEPHONE}"
    return _TELEPHONE if found.is_urgent else None


def sought(raw: Mapping[str, Any]) -> Seek | None:
    """Return the practice that a body is for, as far as it can be read of it. Never raises."""
    practice = glance.ods(raw.get("practice"))
    if practice is None:
        return None
    return Seek(role=Role.ACTING, receiver_type=PRACTICE, practice=practice)
