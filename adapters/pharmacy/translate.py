"""From a consultation to FHIR. The same request and context give the same bytes.

The update is a Communication, each PRSB heading one payload; the referral a ServiceRequest. Both
bring along everything that they refer to, under ids of their own message.
"""

from collections.abc import Iterator
from datetime import date, datetime

from fhir.resources.R4B.annotation import Annotation

from adapters.pharmacy.entries import ABPM_DECLINED, PREGNANCY, Message
from adapters.pharmacy.needs import REFERRAL, UPDATE
from adapters.pharmacy.request import Consultation, Onward, Source
from adapters.pharmacy.rules import judge
from broker.ports import Context, Draft
from fhir_profiles import codes, focus, make, resources
from fhir_profiles.pathways.pharmacy import pharmacy
from fhir_profiles.pathways.rules import ESCALATIONS
from fhir_profiles.resources import concept, defined, reference
from fhir_profiles.working_days import london


def translate(request: Consultation, context: Context) -> list[Draft]:
    """Return one draft per message that goes out: the update, then the referral if there is one."""
    asked = judge(request).asked
    makers = {UPDATE: _update, REFERRAL: _referral}
    return [
        maker(Message(request, context, key, asked))
        for key, maker in makers.items()
        if key in context.message_ids
    ]


def _update(message: Message) -> Draft:
    request, pathway = message.request, message.pathway
    told = focus.communication(
        identifiers=message.identifiers,
        category=defined("pharmacy-service", request.service),
        topic=concept(codes.SNOMED, pathway.encounter.code, pathway.encounter.words),
        sent=message.context.now,
        sender=message.pharmacy,
        recipients=message.receivers,
        patient=message.patient,
        encounter=message.encounter,
        about=[reference(url) for url in message.clinical],
        payload=[focus.headed(heading, text) for heading, text in headings(request)],
        notes=message.notes,
        label=message.label,
    )
    url = message.entries.add("communication", told)
    return Draft(UPDATE, message.entries.body(), url)


def _referral(message: Message) -> Draft:
    request, task = message.request, message.asked.task
    assert task is not None  # noqa: S101 - intake makes a referral only where needs wants one
    wanted = focus.service_request(
        identifiers=message.identifiers,
        category=defined("pharmacy-service", request.service),
        code=make.CodeableConcept(text=f"Action by the registered practice: {task.words}"),
        priority=task.value,
        patient=message.patient,
        requester=message.role,
        performers=message.receivers,
        authored=message.context.now,
        window=resources.period(
            request.clinical_time, pharmacy().shared.act_by(request.clinical_time, task.value)
        ),
        encounter=message.encounter,
        reasons=[defined(ESCALATIONS, rule.id) for rule in message.asked.rules],
        reason_references=message.complaint,
        supporting=[url for url in message.clinical if url not in message.complaint],
        notes=[*(_note(heading, text) for heading, text in headings(request)), *message.notes],
        label=message.label,
    )
    url = message.entries.add("service-request", wanted)
    return Draft(REFERRAL, message.entries.body(), url)


def _note(heading: str, text: str) -> Annotation:
    words = codes.system("record-standard-headings").display(heading)
    return resources.note(f"{words}: {text}")


def headings(request: Consultation) -> Iterator[tuple[str, str]]:
    """Yield (PRSB heading, text), in the order in which a record is read."""
    complaint = request.presenting_complaint
    yield from _said("presenting-complaints-or-issues", complaint.text if complaint else None)
    yield "clinical-summary", request.clinical_summary
    yield from _said("history", request.history)
    if request.no_known_allergies and not request.allergies:
        # In words only: a resource that says it would stand among the patient's allergies.
        yield "allergies-and-adverse-reaction", "No known allergies"
    if request.red_flags:
        yield "red-flags", "\n".join(request.red_flags)
    if request.pregnancy in PREGNANCY:
        yield "pregnancy-status", PREGNANCY[request.pregnancy][1]
    if request.abpm_declined:
        yield "procedures-and-therapies", ABPM_DECLINED[1]
    yield "outcome", " ".join(_ended(request))
    yield from _said("information-and-advice-given", request.advice)
    yield from _said("plan-and-requested-actions", request.plan)
    if request.onward_referral:
        yield "signpost-details", "; ".join(_onward(request.onward_referral))


def _said(heading: str, text: str | None) -> Iterator[tuple[str, str]]:
    if text is not None:
        yield heading, text


def _ended(request: Consultation) -> Iterator[str]:
    pathway = pharmacy().consultations[request.service]
    version = f", version {request.pathway_version}" if request.pathway_version else ""
    yield f"{codes.system('pharmacy-service').display(request.service)}{version}."
    # The encounter's class has one word for a telephone and a camera.
    yield f"{codes.system('consultation-mode').display(request.mode)}."
    if request.source is not None:
        yield f"Source: {_source(request.source)}."
    if request.contraceptive is not None:
        yield f"Contraceptive: {codes.system('contraceptive').display(request.contraceptive)}."
    if pathway.gateway is not None and request.gateway_met is not None:
        yield f"Gateway {'met' if request.gateway_met else 'not met'}: {pathway.gateway.words}."
    for exclusion in request.exclusions:
        yield f"Exclusion: {codes.system('pharmacy-exclusion').display(exclusion)}."
    yield f"{pharmacy().outcomes[request.outcome].words}."
    if request.no_supply_reason is not None:
        reason = codes.system("no-supply-reason").display(request.no_supply_reason)
        yield f"Nothing supplied: {reason}."


def _source(source: Source) -> str:
    words = codes.system("pharmacy-source").display(source.kind)
    who = f"{words} ({source.organisation})" if source.organisation else words
    return f"{who}, referred on {_spoken(source.referred_at)}" if source.referred_at else who


def _spoken(when: date | datetime) -> str:
    """Say a date as it was given, a time by the clock in London."""
    day = london(when) if isinstance(when, datetime) else when
    said = f"{day.day} {day:%B %Y}"
    return f"{said} at {day:%H:%M}" if isinstance(day, datetime) else said


def _onward(onward: Onward) -> Iterator[str]:
    yield f"{onward.to} ({onward.organisation})" if onward.organisation else onward.to
    if onward.urgency:
        yield onward.urgency.replace("-", " ")
    if onward.details:
        yield onward.details
