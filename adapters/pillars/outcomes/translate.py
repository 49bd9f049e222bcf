"""From an outcome to FHIR: a Communication for the record, a ServiceRequest for what is asked."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime

from adapters.pillars import asked
from adapters.pillars.found import Found
from adapters.pillars.message import Message
from adapters.pillars.outcomes import medicines
from adapters.pillars.outcomes.form import KINDS, Outcome
from adapters.pillars.outcomes.letter import Letter
from adapters.pillars.outcomes.needs import OUTCOME, tasks_of
from adapters.pillars.tasks import Task, ask
from broker.events import Priority
from broker.ports import Context, Draft
from fhir_profiles import clinical, codes, focus, resources
from fhir_profiles.pathways.catalogue import OUTCOMES, catalogue
from fhir_profiles.pathways.rules import ESCALATIONS


def translate(request: Outcome, context: Context) -> Sequence[Draft]:
    """Return one draft per message that goes out: the outcome, the tasks, the pharmacy's."""
    found = asked.asked(request)
    wanted: dict[str, Task | None] = {OUTCOME: None}
    levels = context.priorities  # what does not go out has none
    asking = tasks_of(request, found, lambda one: levels.get(one.key, Priority.ROUTINE))
    wanted |= {task.key: task for task in asking if task.key in context.message_ids}
    drafts = [_draft(request, context, key, task) for key, task in wanted.items()]
    return [*drafts, *medicines.drafts(request, context)]


def _draft(request: Outcome, context: Context, key: str, task: Task | None) -> Draft:
    message = Message(request, request.patient, request.seen_at, context, key)
    known = dict(Found(request, message).every())
    for at, diagnosis in enumerate(request.diagnoses):
        known[f"diagnosis {at}"] = clinical.condition(
            code=resources.coded(diagnosis),
            patient=message.patient,
            recorder=message.says,
            recorded=request.seen_at,
            suspected=diagnosis.suspected,
        )
    urls = [message.entries.url(name) for name in known]
    if task is None:
        about = _told(request, message, urls)
    else:
        notes = request.clinical_summary, request.additional_information
        kind = resources.defined(KINDS, request.told)
        about = ask(task, message, request.reference, kind, urls, *notes)
    message.add_parties()
    for name, resource in known.items():
        message.entries.add(name, resource)
    rules = asked.asked(request).rules
    message.add_flags(*(resources.defined(ESCALATIONS, one.id) for one in rules if one.emergency))
    return message.draft(about)


def _told(request: Outcome, message: Message, known: Sequence[str]) -> str:
    referral, outcome, pathway = message.context.referral, request.outcome, request.pathway
    return message.entries.add(
        "communication",
        focus.communication(
            identifiers=message.identifiers(request.reference),
            category=resources.defined(KINDS, request.told),
            topic=resources.defined(OUTCOMES, outcome) if outcome is not None else None,
            reasons=[resources.defined("pathway", pathway)] if pathway is not None else (),
            based_on=resources.by_identifier("ServiceRequest", codes.SUBJECT_ID, referral)
            if referral is not None
            else None,
            sent=message.context.now,
            sender=message.organization(message.context.sender.ods),
            recipients=message.everybody,
            patient=message.patient,
            about=[resources.reference(url) for url in known],
            payload=[focus.headed(heading, text) for heading, text in _headings(request)],
            notes=list(message.notes(request.additional_information)),
            label=message.label,
        ),
    )


def _headings(request: Outcome) -> Iterator[tuple[str, str]]:
    """Yield (PRSB heading, text), in the order in which a record is read."""
    letter = request if isinstance(request, Letter) else None
    said = (
        ("outcome", " ".join(_ended(request))),
        ("clinical-summary", request.clinical_summary),
        ("presenting-complaints-or-issues", "\n".join(_diagnoses(request))),
        ("examination-findings", _joined(request.findings, request.results)),
        ("procedures-and-therapies", request.treatment),
        (
            "medications-and-medical-devices",
            "\n".join(one.in_words for one in request.medicines or ()),
        ),
        (
            "plan-and-requested-actions",
            _joined(*(one.in_words for one in request.actions), request.follow_up),
        ),
        ("information-and-advice-given", request.information_for_patient),
        ("clinical-summary", letter.letter if letter is not None else None),
    )
    for heading, text in said:
        if text:
            yield heading, text


def _joined(*said: str | None) -> str:
    return "\n".join(filter(None, said))


def _ended(request: Outcome) -> Iterator[str]:
    if request.pathway is not None:
        yield f"{catalogue().entries[request.pathway].name}."
    if request.outcome is not None:
        yield f"{codes.system(OUTCOMES).display(request.outcome)}."
    if isinstance(request, Letter):
        if request.admitted_on is not None:
            yield f"Admitted on {_spoken(request.admitted_on)}."
        if request.discharged_on is not None:
            yield f"Discharged on {_spoken(request.discharged_on)}."


def _spoken(day: date | datetime) -> str:
    return f"{day.day} {day:%B %Y}"


def _diagnoses(request: Outcome) -> Iterator[str]:
    for one in request.diagnoses:
        yield f"{one.text} (suspected)" if one.suspected else one.text
