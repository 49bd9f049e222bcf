"""What a referral needs before it is translated: where to, how soon, and what the sender hears.

Pure. The rules themselves are `fhir_profiles.eye`; here they meet one request.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from adapters.optometry.request import SIDES, OptometryReferral
from broker.errors import Problem
from broker.events import Destination, Kind, Priority, Role, SubjectKind
from broker.ports import Needs, Seek, Want, Withheld
from fhir_profiles import codes, consent, eye, glance
from fhir_profiles.blocks import Fault
from fhir_profiles.pathways.catalogue import service_words
from fhir_profiles.pathways.parts import words

KEY: Final = "referral"

_EMERGENCY: Final = (
    "Send the patient to the emergency department (A&E) now, or call 999 if they cannot get there "
    "safely; do not wait for an answer."
)
_TELEPHONE: Final = "Telephone the {receiver} now; out of hours, NHS 111."
_NOT_SENT: Final = (
    "The patient does not agree: nothing was sent to anybody, and nothing clinical was kept."
)
_NOBODY_TOLD: Final = (
    "Nobody has been told. What this describes is {urgency}: speak with the patient again, and "
    "telephone the {receiver} if they agree."
)


def judged(request: OptometryReferral) -> eye.Judgement:
    """Return what the rules make of this request: the same for needs and for translation."""
    return eye.judge(
        request.level,
        code=request.condition.known,
        readings=request.readings,
        why_not_gp=_why_not_gp(
            request.practice.ods if request.practice else None,
            request.provider.ods if request.provider else None,
        ),
    )


def _why_not_gp(practice: object, provider: object) -> str | None:
    if not practice:
        return "the practice is not known"
    if provider and provider != practice:
        return "another provider is named"
    return None


def needs(request: OptometryReferral, now: datetime) -> Needs:
    """Return the one referral that is asked for: to whom, how soon, and what there is to say."""
    judgement = judged(request)
    practice = request.practice.ods if request.practice else None
    patient = request.patient
    return Needs(
        organisation=request.optical_practice.ods,
        reference=request.reference,
        subject=SubjectKind.REFERRAL,
        wants=(_want(request, judgement),),
        consent=request.consent,
        label="R" if patient.sensitive else "N",
        nhs_number=patient.nhs_number,
        identity_verified=patient.verified,
        practice=practice,
        escalates=Priority(judgement.urgency).is_urgent,
        warnings=(
            *(_problem(fault) for fault in patient.warnings()),
            *(_remark(remark) for remark in judgement.remarks),
            *_late(request, judgement, now),
        ),
        advice=tuple(_advice(judgement)),
    )


def _want(request: OptometryReferral, judgement: eye.Judgement) -> Want:
    return Want(
        key=KEY,
        kind=Kind.REFERRAL,
        pathway=judgement.pathway.id,
        pathway_version=judgement.pathway.version,
        priority=Priority(judgement.urgency),
        seeks=tuple(_seeks(request, judgement)),
        happened=request.date_of_sight_test,
        reason_code=request.condition.known or request.condition.snomed or "",
        chosen_by_patient=request.provider is not None and request.provider.chosen_by_patient,
    )


def _late(request: OptometryReferral, judgement: eye.Judgement, now: datetime) -> Iterator[Problem]:
    sent = judgement.due(request.tested_on).get("sent")
    if sent is not None and now > sent.at:
        yield Problem(
            "date_of_sight_test",
            "sent-late",
            f"Sent later than the sight test allows ({sent.span.source}).",
            "Telephone the receiver; the clocks for being seen and treated run on.",
        )


def _seeks(request: OptometryReferral, judgement: eye.Judgement) -> Iterator[Seek]:
    practice = request.practice.ods if request.practice else None
    provider = request.provider
    named = Destination(provider.ods, provider.service or "") if provider else None
    postcode = request.patient.postcode
    yield Seek(
        role=Role.ACTING,
        receiver_type=judgement.receiver,
        subspecialty=request.subspecialty or "",
        named=named,
        practice=practice,
        postcode=postcode,
        words=_words(judgement.receiver, request.subspecialty or ""),
    )
    # The rules leave the GP as receiver only where the practice is known and nobody else is named.
    if practice is not None and judgement.receiver != "general-practice":
        yield Seek(
            role=Role.COPY,
            receiver_type="general-practice",
            practice=practice,
            postcode=postcode,
        )


def _words(receiver: str, subspecialty: str) -> str:
    clinic = codes.system("eye-subspecialty").displays.get(subspecialty)
    return f"referrals to the {service_words(receiver)}{f' ({clinic})' if clinic else ''}"


def _advice(judgement: eye.Judgement) -> Iterator[str]:
    # That a same-day message is not enough, and whom to telephone, the broker says for any pillar.
    if judgement.emergency_department:
        yield _EMERGENCY
    yield f"Urgency: {words(judgement.urgency)}. The rule: {judgement.rule}."


def _problem(fault: Fault) -> Problem:
    return Problem(fault.field, fault.code, fault.detail, fault.todo)


def _remark(remark: eye.Remark) -> Problem:
    return Problem(remark.path, remark.code, remark.detail, remark.todo)


# -- bodies that are not validated ---------------------------------------------------------------


class _Looked(consent.Looked):
    optical_practice: consent.Sender
    """The optical practice that refers: the organisation of your token."""

    @property
    def sender(self) -> consent.Sender:
        return self.optical_practice


def withheld(raw: Mapping[str, Any]) -> Withheld | None:
    """Read the few fields that are still looked at where the patient refused; else None."""
    refusal = consent.refusal(raw, "consent", _Looked)
    if refusal is None:
        return None
    sentences = [_NOT_SENT]
    judgement = _glance(raw)
    if Priority(judgement.urgency).is_urgent:
        told = _NOBODY_TOLD.format(
            urgency=words(judgement.urgency), receiver=service_words(judgement.receiver)
        )
        sentences.insert(0, f"{told} {_EMERGENCY}" if judgement.emergency_department else told)
    return Withheld(
        kind=Kind.REFERRAL,
        organisation=refusal.organisation,
        reference=refusal.reference,
        problems=tuple(_problem(fault) for fault in refusal.faults),
        read_first=tuple(sentences),
    )


def danger(raw: Mapping[str, Any]) -> str | None:
    """Say whom to telephone about a body that is refused, if it speaks of something urgent.

    Reads what it can of any body and never raises.
    """
    judgement = _glance(raw)
    if not Priority(judgement.urgency).is_urgent:
        return None
    said = _TELEPHONE.format(receiver=service_words(judgement.receiver))
    return f"{said} {_EMERGENCY}" if judgement.emergency_department else said


def sought(raw: Mapping[str, Any]) -> Seek | None:
    """Return who would act on a body, as far as it can be read of it. Never raises."""
    address = glance.block(glance.block(raw.get("patient")).get("address"))
    provider = glance.block(raw.get("provider"))
    named, service = glance.ods(provider), provider.get("service")
    postcode, given, receiver = (
        address.get("postcode"),
        raw.get("subspecialty"),
        _glance(raw).receiver,
    )
    subspecialty = given if isinstance(given, str) else ""
    return Seek(
        role=Role.ACTING,
        receiver_type=receiver,
        subspecialty=subspecialty,
        named=Destination(named, service if isinstance(service, str) else "") if named else None,
        practice=glance.ods(raw.get("practice")),
        postcode=postcode if isinstance(postcode, str) else None,
        words=_words(receiver, subspecialty),
    )


def _glance(raw: Mapping[str, Any]) -> eye.Judgement:
    """Judge a body of which nothing is known to be right; what cannot be read is not there."""
    condition = glance.block(raw.get("condition"))
    code: str | None = glance.word(condition.get("code"))
    snomed = condition.get("snomed")
    if code not in eye.conditions():
        code = eye.of_snomed(snomed) if isinstance(snomed, str) else None
    return eye.judge(
        glance.urgency(raw.get("urgency")),
        code=code,
        readings=tuple(_pressures(raw)),
        why_not_gp=_why_not_gp(
            glance.block(raw.get("practice")).get("ods"),
            glance.block(raw.get("provider")).get("ods"),
        ),
    )


def _pressures(raw: Mapping[str, Any]) -> Iterator[eye.Reading]:
    for side in SIDES:
        for it in glance.blocks(glance.block(raw.get(side)).get("pressures")):
            value = glance.number(it.get("value"))
            if value is not None:
                yield eye.Reading(side, value, None, repeated=False)
