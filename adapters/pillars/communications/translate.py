"""From a clinical message to FHIR: one Communication, with the patient of what it is about."""

from collections.abc import Iterator, Sequence
from typing import Final

from fhir.resources.R4B.reference import Reference

from adapters.pillars.communications.form import KINDS, QUESTION, Clinical
from adapters.pillars.communications.needs import MESSAGE
from broker.events import Kind
from broker.ports import Context, Draft, Talks
from fhir_profiles import clinical, codes, documents, focus, make, resources
from fhir_profiles.focus import Original, Telling
from fhir_profiles.message import Site

# Under which PRSB heading a text stands in the record.
_HEADINGS: Final = {
    QUESTION: "plan-and-requested-actions",
    "chase": "plan-and-requested-actions",
}
_SUMMARY: Final = "clinical-summary"


def translate(request: Clinical, context: Context) -> Sequence[Draft]:
    """Return the one draft. What it answers or is about lends it the patient."""
    talks = context.talks or Talks(request.kind)
    message_id = context.message_ids[MESSAGE]
    to = [Site(party.ods, party.name) for party, _ in context.destinations[MESSAGE]]
    sender = Site(context.sender.ods, context.sender.name)
    original = Original(talks.message, _type(talks), content=talks.content)
    telling = Telling(message_id, original, sender, *to)
    entries = telling.entries
    patient = telling.patient
    if patient is None:
        assert request.patient is not None  # noqa: S101 - the form asks for one of the two
        patient = entries.add("patient", resources.patient(request.patient))
    who = request.clinician
    says = entries.add("practitioner", resources.practitioner(who.name, *who.registration))
    role = entries.add(
        "practitioner-role", resources.practitioner_role(says, telling.site(sender), who.job)
    )
    if request.patient is not None:
        for at, (code, category) in enumerate(clinical.flags_of(request.patient)):
            flag = clinical.flag(code, patient, says, context.now, category)
            entries.add(f"flag {at}", flag)
    sent = [
        entries.add(
            f"attachment {at}",
            documents.document(
                one,
                content_type=context.attachments[one.id].content_type,
                size=context.attachments[one.id].size,
                url=context.attachments[one.id].url,
                patient=patient,
                author=says,
                written=context.now,
            ),
        )
        for at, one in enumerate(request.attachments)
    ]
    about = entries.add(
        "communication",
        focus.communication(
            identifiers=focus.message_identifiers(
                message_id, context.sender.ods, request.reference
            ),
            category=resources.defined(KINDS, request.kind),
            topic=make.CodeableConcept(text=request.subject),
            sent=context.now,
            sender=role,
            recipients=[telling.site(one) for one in to],
            patient=patient,
            about=[*_about(talks), *map(resources.reference, sent)],
            in_response_to=_named("Communication", talks.in_reply_to),
            payload=[focus.headed(_HEADINGS.get(request.kind, _SUMMARY), request.text)],
            notes=[resources.note(one.detail, one.code) for one in context.warnings],
            label="R" if request.patient is not None and request.patient.sensitive else None,
        ),
    )
    made = telling.finish(about)
    named = tuple(one.id for one in request.attachments)
    return [Draft(MESSAGE, made.body, made.focus, attachments=named)]


def _about(talks: Talks) -> Iterator[Reference]:
    about = _named(_type(talks), talks.message)
    if about is not None:
        yield about
    if talks.referral:
        yield resources.by_identifier("ServiceRequest", codes.SUBJECT_ID, talks.referral)


def _type(talks: Talks) -> str:
    return "ServiceRequest" if talks.message_kind is Kind.REFERRAL else "Communication"


def _named(kind: str, message: str) -> Reference | None:
    return resources.by_identifier(kind, codes.MESSAGE_ID, message) if message else None
