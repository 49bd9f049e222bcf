"""From a pillar's referral to FHIR: one Bundle around a ServiceRequest.

Pure: the same request and context give the same bytes. Everything that the sender said is on the
message, with both urgencies, every warning, and what is not verified.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.extension import Extension
from fhir.resources.R4B.fhirresourcemodel import FHIRResourceModel
from fhir.resources.R4B.reference import Reference
from fhir.resources.R4B.servicerequest import ServiceRequest

from adapters.pillars.found import Found
from adapters.pillars.message import Message
from adapters.pillars.parts import OfBody, OfEyes, OfTeeth
from adapters.pillars.referrals.form import Referral
from adapters.pillars.referrals.needs import KEY
from adapters.pillars.referrals.request import Judged, Request
from broker.ports import Context, Draft
from fhir_profiles import clinical, codes, focus, make, resources
from fhir_profiles.bars.incoming import CATEGORIES
from fhir_profiles.pathways.catalogue import catalogue, service_words, system_of
from fhir_profiles.pathways.judgement import Judgement
from fhir_profiles.working_days import start_of

EXT_SOURCE: Final = f"{codes.UK_CORE}Extension-UKCore-SourceOfServiceRequest"
EXT_PRIORITY_REASON: Final = f"{codes.UK_CORE}Extension-UKCore-PriorityReason"

_TRANSFER: Final = resources.concept(CATEGORIES, "referral", "Transfer of Care")
_AGREES: Final = "The patient agrees to this referral and to sharing it."
_ANAESTHESIA: Final = {
    "local": "Local anaesthesia",
    "inhalation-sedation": "Inhalation sedation",
    "intravenous-sedation": "Intravenous sedation",
    "general": "General anaesthesia",
}


_MAY_CONVERT: Final = "You may make a referral of this request without asking again."


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a form's own words come to, where forms differ.

    `conditions` are the sites of the conditions that it is about, by a name for each; `found` is
    every other resource that it speaks of, by name.
    """

    code: CodeableConcept
    reason: CodeableConcept
    seen_by: datetime | None
    conditions: Mapping[str, CodeableConcept | None]
    found: Mapping[str, FHIRResourceModel]
    priority_reason: CodeableConcept
    sites: Sequence[CodeableConcept] = ()
    details: Sequence[CodeableConcept] = ()
    said: Sequence[str | None] = ()
    extensions: Sequence[Extension] = ()
    flags: Sequence[CodeableConcept] = ()


def translate(request: Referral, context: Context) -> Sequence[Draft]:
    """Return the referral as one draft."""
    return (draft(request, context, KEY),)


def draft(request: Referral, context: Context, key: str) -> Draft:
    """Return the referral as its want of this key: a ServiceRequest and all that it speaks of."""
    message = message_of(request, context, key)
    judgement = request.judgement
    spoken = Spoken(
        code=resources.defined("pathway", request.pathway),
        reason=_reason(request, judgement),
        seen_by=_seen_by(request, judgement),
        conditions={"condition": None},
        found=dict(Found(request, message).every()),
        priority_reason=make.CodeableConcept(text=judgement.rule),
        sites=list(_sites(request)),
        details=list(_details(request)),
        said=[request.additional_information, _MAY_CONVERT if request.may_convert else None],
        flags=[resources.defined("red-flag", one.code) for one in judgement.red_flags],
    )
    return drafted(request, message, spoken)


def message_of(request: Request, context: Context, key: str = KEY) -> Message:
    """Begin the message of a referral."""
    return Message(request, request.patient, request.happened, context, key)


def drafted(request: Request, message: Message, spoken: Spoken) -> Draft:
    """Return a referral of any form: its ServiceRequest first, then all it speaks of."""
    entries = message.entries
    about = entries.add("service-request", _service_request(request, message, spoken))
    message.add_parties()
    for name, site in spoken.conditions.items():
        entries.add(
            name,
            clinical.condition(
                code=spoken.reason,
                patient=message.patient,
                recorder=message.says,
                recorded=request.happened,
                site=site,
                # Who refers tells what somebody else is to confirm.
                suspected=True,
            ),
        )
    for name, resource in spoken.found.items():
        entries.add(name, resource)
    message.add_flags(*spoken.flags)
    return message.draft(about)


def _service_request(request: Request, message: Message, spoken: Spoken) -> ServiceRequest:
    judgement, url = request.meant.judgement, message.entries.url
    asked = focus.service_request(
        identifiers=message.identifiers(request.reference),
        category=_TRANSFER,
        code=spoken.code,
        priority=judgement.urgency,
        patient=message.patient,
        requester=message.role,
        performers=message.receivers,
        authored=message.context.now,
        window=resources.period(request.happened, spoken.seen_by),
        reasons=[spoken.reason],
        reason_references=[url(name) for name in spoken.conditions],
        supporting=[url(name) for name in spoken.found],
        sites=spoken.sites,
        details=spoken.details,
        notes=list(message.notes(*spoken.said, *message.context.said_before, _AGREES)),
        label=message.label,
    )
    reason = resources.extension(EXT_PRIORITY_REASON, valueCodeableConcept=spoken.priority_reason)
    return asked.model_copy(
        update={
            "extension": list(_extensions(request, judgement, spoken.extensions)),
            "priority__ext": make.FHIRPrimitiveExtension(extension=[reason]),
            "basedOn": list(_based_on(message.context)) or None,
            "performerType": make.CodeableConcept(text=service_words(judgement.receiver)),
            "patientInstruction": request.information_for_patient,
        }
    )


def _based_on(context: Context) -> Iterator[Reference]:
    if context.based_on is not None:
        yield resources.by_identifier("ServiceRequest", codes.MESSAGE_ID, context.based_on)


def _extensions(
    request: Request, judgement: Judged, own: Sequence[Extension]
) -> Iterator[Extension]:
    if request.source is not None:
        yield resources.extension(EXT_SOURCE, valueCodeableConcept=request.source)
    yield focus.urgencies(judgement.asked, judgement.table, judgement.rule)
    yield from own
    if request.provider is not None:
        yield focus.provider(request.provider)


# -- the form of the catalogue's pathways --------------------------------------------------------


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
