"""What the practice is asked to do: a message of its own with its deadline, beside what is told."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from fhir.resources.R4B.codeableconcept import CodeableConcept

from adapters.pillars.message import Message
from broker.events import Kind, Priority
from broker.ports import Clinical, Seek, Want
from fhir_profiles import focus, make, resources
from fhir_profiles.pathways.pharmacy import pharmacy
from fhir_profiles.pathways.rules import ESCALATIONS, Escalation
from fhir_profiles.resources import When
from fhir_profiles.working_days import end_of_day

DONE: Final = "done"
"""The clock of what is asked for."""


@dataclass(frozen=True, slots=True)
class Task:
    """One thing that the practice is asked to do, under a key of its own.

    It is to be done by the day `by`, where there is one: the sender's own, or that of its level.
    """

    key: str
    priority: Priority
    by: date | None
    what: str | None = None
    rules: tuple[Escalation, ...] = ()


def day(seen_at: When, priority: Priority) -> date | None:
    """Return the day by which what is asked at a level is to be done, counted from `seen_at`."""
    return pharmacy().shared.act_by(seen_at, priority.value)


def want(task: Task, pathway: str, version: str, seek: Seek, seen_at: When) -> Want:
    """Return the message that asks for it; what cannot be sent is said, and who to telephone."""
    return Want(
        key=task.key,
        kind=Kind.REFERRAL,
        pathway=pathway,
        pathway_version=version,
        priority=task.priority,
        seeks=(seek,),
        happened=seen_at,
        required=False,
        # Routing adds what the directory knows: its name and its number.
        if_left_out="No task was sent. Telephone the registered practice and ask them to act: "
        f"{task.priority.words}.",
        clocks=tuple(_clocks(task, seen_at)),
        reason_code=task.rules[0].id if task.rules else "",
    )


def _clocks(task: Task, seen_at: When) -> Iterator[Clinical]:
    if task.by is not None:
        end = end_of_day(task.by)
        # What is seen in the evening and is for that day is for the next one.
        late = isinstance(seen_at, datetime) and end <= seen_at
        by = end_of_day(task.by + timedelta(days=1)) if late else end
        yield Clinical(DONE, by, "done by the day that it is asked for")


def ask(
    task: Task,
    message: Message,
    reference: str,
    category: CodeableConcept,
    known: Sequence[str],
    *notes: str | None,
) -> str:
    """Add the ServiceRequest that asks for it; return its fullUrl."""
    return message.entries.add(
        "service-request",
        focus.service_request(
            identifiers=message.identifiers(reference),
            category=category,
            code=make.CodeableConcept(
                text=f"Action by the registered practice: {task.priority.words}"
            ),
            priority=task.priority.value,
            patient=message.patient,
            requester=message.role,
            performers=message.receivers,
            authored=message.context.now,
            window=resources.period(message.happened, task.by),
            reasons=[resources.defined(ESCALATIONS, rule.id) for rule in task.rules],
            supporting=known,
            details=[make.CodeableConcept(text=task.what)] if task.what else (),
            notes=list(message.notes(*notes)),
            label=message.label,
        ),
    )
