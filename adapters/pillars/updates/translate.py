"""From an update to FHIR: a Communication for the record, a ServiceRequest for what is asked."""

from collections.abc import Iterator, Sequence

from adapters.pillars.asked import Asked
from adapters.pillars.found import Found
from adapters.pillars.message import Message
from adapters.pillars.tasks import ask
from adapters.pillars.updates.form import TOPICS, Update
from adapters.pillars.updates.needs import TASK, UPDATE, asked_by, task_of
from broker.ports import Context, Draft
from fhir_profiles import focus, resources
from fhir_profiles.pathways.rules import ESCALATIONS


def translate(request: Update, context: Context) -> Sequence[Draft]:
    """Return one draft per message that goes out: the update, then the task if there is one."""
    found = asked_by(request)
    return [
        _draft(request, context, key, found) for key in (UPDATE, TASK) if key in context.message_ids
    ]


def _draft(request: Update, context: Context, key: str, found: Asked) -> Draft:
    message = Message(request, request.patient, request.seen_at, context, key)
    known = dict(Found(request, message).every())
    urls = [message.entries.url(name) for name in known]
    if key == UPDATE:
        about = _told(request, message, urls)
    else:
        task = task_of(request, found)
        assert task is not None  # noqa: S101 - intake makes a task only where needs wants one
        notes = request.clinical_summary, request.additional_information
        topic = resources.defined(TOPICS, request.topic)
        about = ask(task, message, request.reference, topic, urls, *notes)
    message.add_parties()
    for name, resource in known.items():
        message.entries.add(name, resource)
    emergency = [resources.defined(ESCALATIONS, one.id) for one in found.rules if one.emergency]
    message.add_flags(*emergency)
    return message.draft(about)


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
