"""From a pillar's referral to FHIR: one Bundle around a ServiceRequest.

Pure: the same request and context give the same bytes. Everything that the sender said is on the
message, with both urgencies, every warning, and what is not verified.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.extension import Extension
from fhir.resources.R4B.servicerequest import ServiceRequest

from adapters.pillars.found import Found
from adapters.pillars.message import Message
from adapters.pillars.parts import OfBody, OfEyes, OfTeeth
from adapters.pillars.referrals.form import Referral
from adapters.pillars.referrals.needs import KEY
from broker.ports import Context, Draft
from fhir_profiles import clinical, codes, focus, make, resources
from fhir_profiles.bars.incoming import CATEGORIES
from fhir_profiles.pathways.catalogue import catalogue, service_words, system_of
from fhir_profiles.pathways.judgement import Judgement
from fhir_profiles.working_days import start_of

EXT_PRIORITY_REASON: Final = f"{codes.UK_CORE}Extension-UKCore-PriorityReason"

_TRANSFER: Final = resources.concept(CATEGORIES, "referral", "Transfer of Care")
_AGREES: Final = "The patient agrees to this referral and to sharing it."
_ANAESTHESIA: Final = {
    "local": "Local anaesthesia",
    "inhalation-sedation": "Inhalation sedation",
    "intravenous-sedation": "Intravenous sedation",
    "general": "General anaesthesia",
}


def translate(request: Referral, context: Context) -> Sequence[Draft]:
    """Return the referral as one draft: Bundle of the ServiceRequest and all it speaks of."""
    message = Message(request, request.patient, request.assessed_at, context, KEY)
    entries, judgement = message.entries, request.judgement
    found = dict(Found(request, message).every())
    about = entries.add(
        "service-request",
        _service_request(request, message, judgement, [entries.url(name) for name in found]),
    )
    message.add_parties()
    entries.add(
        "condition",
        clinical.condition(
            code=_reason(request, judgement),
            patient=message.patient,
            recorder=message.says,
            recorded=request.assessed_at,
            # Who refers tells what somebody else is to confirm.
            suspected=True,
        ),
    )
    for name, resource in found.items():
        entries.add(name, resource)
    message.add_flags(*(resources.defined("red-flag", one.code) for one in judgement.red_flags))
    return (Draft(KEY, entries.body(), about),)


def _service_request(
    request: Referral, message: Message, judgement: Judgement, supporting: list[str]
) -> ServiceRequest:
    asked = focus.service_request(
        identifiers=message.identifiers(request.reference),
        category=_TRANSFER,
        code=resources.defined("pathway", request.pathway),
        priority=judgement.urgency,
        patient=message.patient,
        requester=message.role,
        performers=message.receivers,
        authored=message.context.now,
        window=resources.period(request.assessed_at, _seen_by(request, judgement)),
        reasons=[_reason(request, judgement)],
        reason_references=[message.entries.url("condition")],
        supporting=supporting,
        sites=list(_sites(request)),
        details=list(_details(request)),
        notes=list(message.notes(request.additional_information, _AGREES)),
        label=message.label,
    )
    rule = make.CodeableConcept(text=judgement.rule)
    reason = resources.extension(EXT_PRIORITY_REASON, valueCodeableConcept=rule)
    return asked.model_copy(
        update={
            "extension": list(_extensions(request, judgement)),
            "priority__ext": make.FHIRPrimitiveExtension(extension=[reason]),
            "performerType": make.CodeableConcept(text=service_words(judgement.receiver)),
            "patientInstruction": request.information_for_patient,
        }
    )


def _seen_by(request: Referral, judgement: Judgement) -> datetime | None:
    starts = {"seen": start_of(request.assessed_at)}
    code = request.reason.code
    due = catalogue().due(judgement.entry.id, judgement.urgency, code, starts)
    return due["seen"].at if due else None


def _reason(request: Referral, judgement: Judgement) -> CodeableConcept:
    said, known = request.reason, judgement.reason
    system = codes.system(system_of(said.code))
    coding = [resources.coding(system.url, said.code, system.display(said.code))]
    snomed = said.snomed or (known.snomed if known is not None else None)
    if snomed is not None:
        coding.append(make.Coding(system=codes.SNOMED, code=snomed))
    return make.CodeableConcept(coding=coding, text=said.text)


def _extensions(request: Referral, judgement: Judgement) -> Iterator[Extension]:
    yield focus.urgencies(judgement.asked, judgement.table, judgement.rule)
    if request.provider is not None:
        yield focus.provider(request.provider)


def _sites(request: Referral) -> Iterator[CodeableConcept]:
    if isinstance(request, OfEyes) and request.eye is not None:
        yield from (site for side, site in clinical.EYES.items() if request.eye in {side, "both"})
    if isinstance(request, OfTeeth) and request.tooth_or_area is not None:
        yield make.CodeableConcept(text=request.tooth_or_area)
    if isinstance(request, OfBody) and request.wound is not None:
        yield make.CodeableConcept(text=request.wound.site)


def _details(request: Referral) -> Iterator[CodeableConcept]:
    if request.question is not None:
        yield make.CodeableConcept(text=request.question)
    if isinstance(request, OfTeeth) and request.anaesthesia is not None:
        wanted = request.anaesthesia
        yield make.CodeableConcept(text=f"{_ANAESTHESIA[wanted.kind]}: {wanted.reason}")
