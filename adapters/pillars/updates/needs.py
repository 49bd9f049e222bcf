"""What an update needs before it is translated: the practice, how soon, what the sender hears."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from adapters.pillars import asked, refused, tasks
from adapters.pillars.asked import Asked
from adapters.pillars.parts import enclosed
from adapters.pillars.tasks import Task
from adapters.pillars.updates.form import TOPICS, Update
from broker.events import Kind, Priority, Role, SubjectKind, highest
from broker.ports import Needs, Seek, Want, Withheld
from fhir_profiles import codes, glance
from fhir_profiles.blocks import URGENCIES
from fhir_profiles.pathways.catalogue import PRACTICE

UPDATE: Final = "update"
TASK: Final = "task"


def asked_by(request: Update) -> Asked:
    """Return what an update asks of the practice."""
    action = request.action
    own = Priority(URGENCIES[action.urgency]) if action is not None else None
    return asked.asked(request, own)


def task_of(request: Update, found: Asked) -> Task | None:
    """Return the one task of an update, whoever asks for it."""
    if found.task is None:
        return None
    what = request.action.what if request.action is not None else None
    by = tasks.day(request.seen_at, found.task)
    return Task(TASK, found.task, by, what, found.rules)


def needs(request: Update) -> Needs:
    """Return the update for the registered practice, and the task if it must act."""
    found = asked_by(request)
    patient, practice = request.patient, request.practice.ods
    seek = Seek(
        role=Role.ACTING, receiver_type=PRACTICE, practice=practice, postcode=patient.postcode
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
        warnings=tuple(map(refused.problem, patient.warnings())),
        advice=found.advice,
        attachments=enclosed(request),
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
    task = task_of(request, found)
    if task is not None:
        yield tasks.want(task, request.topic, version, seek, request.seen_at)


# -- bodies that are not validated ---------------------------------------------------------------


def withheld(raw: Mapping[str, Any], form: type[Update]) -> Withheld | None:
    """Read the few fields that are still looked at where the patient refused; else None."""
    return refused.withheld(raw, form, _glance(raw))


def danger(raw: Mapping[str, Any]) -> str | None:
    """Say whom to telephone about a body that is refused, if it speaks of something urgent."""
    return refused.danger(_glance(raw))


def _glance(raw: Mapping[str, Any]) -> Asked:
    action = raw.get("action")
    own = glance.urgency(glance.block(action).get("urgency")) if action else None
    return asked.read(raw, Priority(own) if own is not None else None)
