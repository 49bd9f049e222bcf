"""What an update needs before it is translated: the practice, how soon, what the sender hears."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from adapters.pillars.updates.asked import Asked, asked, judged
from adapters.pillars.updates.form import TOPICS, Update
from broker.errors import Problem
from broker.events import Kind, Priority, Role, SubjectKind, highest
from broker.ports import Needs, Seek, Want, Withheld
from fhir_profiles import codes, consent, glance

UPDATE: Final = "update"
TASK: Final = "task"
_PRACTICE: Final = "general-practice"
_TELEPHONE: Final = "Telephone the patient's registered practice; out of hours, NHS 111."
_AT_ONCE: Final = "Call 999, or send the patient to the emergency department (A&E) now."
_NOT_SENT: Final = "The patient does not agree: nothing was sent, and nothing clinical was kept."
_NOBODY_TOLD: Final = (
    "Nobody has been told. What was found needs somebody to act; call 999 if life is in danger. "
    "Speak with the patient again."
)


def needs(request: Update) -> Needs:
    """Return the update for the registered practice, and the task if it must act."""
    found = asked(request)
    patient, practice = request.patient, request.practice.ods
    seek = Seek(
        role=Role.ACTING, receiver_type=_PRACTICE, practice=practice, postcode=patient.postcode
    )
    return Needs(
        organisation=request.organisation.ods,
        reference=request.reference,
        subject=SubjectKind.CONSULTATION,
        wants=tuple(_wants(request, found, seek)),
        consent=request.consent,
        label="R" if patient.sensitive else "N",
        nhs_number=patient.nhs_number,
        identity_verified=patient.verified,
        practice=practice,
        escalates=bool(found.task or found.emergency),
        warnings=tuple(
            Problem(one.field, one.code, one.detail, one.todo) for one in patient.warnings()
        ),
        advice=found.advice,
    )


def _wants(request: Update, found: Asked, seek: Seek) -> Iterator[Want]:
    version = codes.system(TOPICS).version
    yield Want(
        key=UPDATE,
        kind=Kind.UPDATE,
        pathway=request.topic,
        pathway_version=version,
        priority=highest(Priority.URGENT, found.own or Priority.URGENT)
        if found.emergency
        else Priority.ROUTINE,
        seeks=(seek,),
        happened=request.seen_at,
    )
    if found.task is not None:
        yield Want(
            key=TASK,
            kind=Kind.REFERRAL,
            pathway=request.topic,
            pathway_version=version,
            priority=found.task,
            seeks=(seek,),
            happened=request.seen_at,
            required=False,
            # Routing adds what the directory knows: its name and its number.
            if_left_out="No task was sent. Telephone the registered practice and ask them to "
            f"act: {found.task.words}.",
            reason_code=found.rules[0].id if found.rules else "",
        )


# -- bodies that are not validated ---------------------------------------------------------------


def withheld(raw: Mapping[str, Any], form: type[Update]) -> Withheld | None:
    """Read the few fields that are still looked at where the patient refused; else None."""
    refusal = consent.refusal(raw, "consent", form.looked())
    if refusal is None:
        return None
    found = _glance(raw)
    urgent = found.emergency or (found.task is not None and found.task.is_urgent)
    return Withheld(
        kind=Kind.UPDATE,
        organisation=refusal.organisation,
        reference=refusal.reference,
        problems=tuple(
            Problem(one.field, one.code, one.detail, one.todo) for one in refusal.faults
        ),
        read_first=(*((_AT_ONCE,) if found.emergency else ()), _NOBODY_TOLD, _NOT_SENT)
        if urgent
        else (_NOT_SENT,),
    )


def danger(raw: Mapping[str, Any]) -> str | None:
    """Say whom to telephone about a body that is refused, if it speaks of something urgent."""
    found = _glance(raw)
    if found.emergency:
        return f"{_AT_ONCE} {_TELEPHONE}"
    return _TELEPHONE if found.task is not None and found.task.is_urgent else None


def sought(raw: Mapping[str, Any]) -> Seek | None:
    """Return who would act on a body, as far as it can be read of it. Never raises."""
    practice = glance.ods(raw.get("practice"))
    if practice is None:
        return None
    return Seek(role=Role.ACTING, receiver_type=_PRACTICE, practice=practice)


def _glance(raw: Mapping[str, Any]) -> Asked:
    pressure, action = glance.block(raw.get("blood_pressure")), raw.get("action")
    read = glance.number(pressure.get("systolic")), glance.number(pressure.get("diastolic"))
    known = [one for one in read if one is not None]
    # One number that cannot be read hides nothing of the other.
    normal = Decimal(120), Decimal(80)
    return judged(
        glance.urgency(glance.block(action).get("urgency")) if action else None,
        (read[0] or normal[0], read[1] or normal[1]) if known else None,
        acute_symptoms=glance.yes(raw.get("acute_symptoms")),
        fainting_or_falls=glance.yes(raw.get("fainting_or_falls")),
    )
