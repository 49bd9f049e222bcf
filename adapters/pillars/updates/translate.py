"""From an update to FHIR: a Communication for the record, a ServiceRequest for what is asked."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta

from adapters.pillars.found import Found
from adapters.pillars.message import Message
from adapters.pillars.updates.asked import Asked, asked
from adapters.pillars.updates.form import TOPICS, Update
from adapters.pillars.updates.needs import TASK, UPDATE
from broker.events import Priority
from broker.ports import Context, Draft
from fhir_profiles import focus, make, resources
from fhir_profiles.pathways.pharmacy import pharmacy
from fhir_profiles.pathways.rules import ESCALATIONS
from fhir_profiles.working_days import london, start_of


def translate(request: Update, context: Context) -> Sequence[Draft]:
    """Return one draft per message that goes out: the update, then the task if there is one."""
    found = asked(request)
    return [
        _draft(request, context, key, found) for key in (UPDATE, TASK) if key in context.message_ids
    ]


def _draft(request: Update, context: Context, key: str, found: Asked) -> Draft:
    message = Message(request, request.patient, request.seen_at, context, key)
    known = dict(Found(request, message).every())
    urls = [message.entries.url(name) for name in known]
    about = _told(request, message, urls) if key == UPDATE else _task(request, message, urls, found)
    message.add_parties()
    for name, resource in known.items():
        message.entries.add(name, resource)
    emergency = [resources.defined(ESCALATIONS, one.id) for one in found.rules if one.emergency]
    message.add_flags(*emergency)
    return Draft(key, message.entries.body(), about)


def _told(request: Update, message: Message, known: Sequence[str]) -> str:
    return message.entries.add(
        "communication",
        focus.communication(
            identifiers=message.identifiers(request.reference),
            category=resources.defined(TOPICS, request.topic),
            sent=message.context.now,
            sender=message.organization(message.context.sender.ods),
            recipients=message.receivers,
            patient=message.patient,
            about=[resources.reference(url) for url in known],
            payload=[focus.headed(heading, text) for heading, text in _headings(request)],
            notes=list(message.notes(request.additional_information)),
            label=message.label,
        ),
    )


def _task(request: Update, message: Message, known: Sequence[str], found: Asked) -> str:
    task = found.task
    assert task is not None  # noqa: S101 - intake makes a task only where needs wants one
    wanted = [request.action.what] if request.action is not None else []
    return message.entries.add(
        "service-request",
        focus.service_request(
            identifiers=message.identifiers(request.reference),
            category=resources.defined(TOPICS, request.topic),
            code=make.CodeableConcept(text=f"Action by the registered practice: {task.words}"),
            priority=task.value,
            patient=message.patient,
            requester=message.role,
            performers=message.receivers,
            authored=message.context.now,
            window=resources.period(request.seen_at, _act_by(request, task)),
            reasons=[resources.defined(ESCALATIONS, rule.id) for rule in found.rules],
            supporting=known,
            details=[make.CodeableConcept(text=words) for words in wanted],
            notes=list(message.notes(request.clinical_summary, request.additional_information)),
            label=message.label,
        ),
    )


def _act_by(request: Update, task: Priority) -> date | None:
    days = pharmacy().shared.act_within_days.get(task.value)
    if days is None:
        return None
    return london(start_of(request.seen_at)).date() + timedelta(days=days)


def _headings(request: Update) -> Iterator[tuple[str, str]]:
    """Yield (PRSB heading, text), in the order in which a record is read."""
    said = (
        ("clinical-summary", request.clinical_summary),
        ("examination-findings", request.findings),
        ("plan-and-requested-actions", request.action.what if request.action else None),
        ("information-and-advice-given", request.information_for_patient),
    )
    for heading, text in said:
        if text is not None:
            yield heading, text
