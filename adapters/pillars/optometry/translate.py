"""From a sight test to FHIR: what is said of eyes, in the message that every referral is.

Pure: the same request and context give the same bytes. Everything that the sender said is on the
message, with both urgencies, every warning, and what is not verified.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.extension import Extension

from adapters.pillars.found import Found
from adapters.pillars.optometry.findings import observations
from adapters.pillars.optometry.sight_test import SightTestReferral
from adapters.pillars.referrals.translate import Spoken, drafted, message_of
from broker.ports import Context, Draft
from fhir_profiles import clinical, codes, eye, make, resources

EXT_CLOCK: Final = f"{codes.BASE}StructureDefinition/clock"
EXT_GP_ACTION: Final = f"{codes.BASE}StructureDefinition/gp-action"


def translate(request: SightTestReferral, context: Context) -> Sequence[Draft]:
    """Return the referral as one draft: Bundle of the ServiceRequest and all it speaks of."""
    message = message_of(request, context)
    judgement = request.judgement
    wanted = request.subspecialty or "not-otherwise-specified"
    spoken = Spoken(
        code=resources.defined("eye-subspecialty", wanted),
        reason=_condition(request),
        seen_by=judgement.seen_by(request.date_of_sight_test),
        conditions={f"condition {side}": clinical.EYES[side] for side in request.eyes},
        found={
            **dict(observations(request, message.patient, message.says)),
            **dict(Found(request, message).taken()),
        },
        priority_reason=_priority_reason(judgement),
        sites=[clinical.EYES[side] for side in request.eyes],
        said=[request.reason, request.additional_information],
        extensions=list(_extensions(request, judgement)),
    )
    return (drafted(request, message, spoken),)


def _condition(request: SightTestReferral) -> CodeableConcept:
    condition = request.condition
    known = condition.known
    coding = []
    if known is not None:
        coding.append(resources.coding(codes.system(eye.CONDITIONS).url, known, eye.display(known)))
    # The sender's own, else the one that a reference confirms for our code.
    snomed = condition.snomed or (eye.snomed_of(known) if known else None)
    if snomed is not None:
        coding.append(make.Coding(system=codes.SNOMED, code=snomed))
    return make.CodeableConcept(coding=coding, text=condition.text)


def _priority_reason(judgement: eye.Judgement) -> CodeableConcept:
    deciding, rule = judgement.deciding, judgement.rule
    if deciding is None or deciding.urgency != judgement.urgency:
        return make.CodeableConcept(text=rule)
    system, display = codes.system(eye.CONDITIONS).url, eye.display(deciding.code)
    return resources.concept(system, deciding.code, display, rule)


def _extensions(request: SightTestReferral, judgement: eye.Judgement) -> Iterator[Extension]:
    for kind, due in judgement.due(request.tested_on).items():
        yield make.Extension(
            url=EXT_CLOCK,
            extension=[
                resources.extension("kind", valueCode=kind),
                resources.extension("due", valueDateTime=due.at),
                resources.extension("source", valueString=due.span.source),
            ],
        )
    if request.gp_action is not None:
        action = resources.defined("eye-gp-action", request.gp_action)
        yield resources.extension(EXT_GP_ACTION, valueCodeableConcept=action)
