"""What a referral needs before it is translated: where to, how soon, and what the sender hears.

Pure. The catalogue's rules are `fhir_profiles.pathways.judgement`; here they meet one request, or
a body that is not taken.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from adapters.pillars.referrals.form import Referral, may_act
from broker.errors import Problem
from broker.events import Destination, Kind, Priority, Role, SubjectKind
from broker.ports import Needs, Seek, Want, Withheld
from fhir_profiles import consent, glance
from fhir_profiles.blocks import Fault
from fhir_profiles.pathways.catalogue import PRACTICE, catalogue, service_words
from fhir_profiles.pathways.judgement import Judgement, judge
from fhir_profiles.pathways.parts import words

KEY: Final = "referral"

CALL_999: Final = "Call 999 now; do not wait for an answer."
EMERGENCY: Final = (
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


def needs(request: Referral) -> Needs:
    """Return the one referral that is asked for: to whom, how soon, and what there is to say."""
    judgement = request.judgement
    patient, practice = request.patient, request.practice
    return Needs(
        organisation=request.organisation.ods,
        reference=request.reference,
        subject=SubjectKind.REFERRAL,
        wants=(_want(request, judgement),),
        consent=request.consent,
        label="R" if patient.sensitive else "N",
        nhs_number=patient.nhs_number,
        identity_verified=patient.verified,
        practice=practice.ods if practice is not None else None,
        escalates=Priority(judgement.urgency).is_urgent,
        warnings=tuple(_problem(fault) for fault in (*patient.warnings(), *request.warnings())),
        advice=tuple(_advice(judgement)),
    )


def _want(request: Referral, judgement: Judgement) -> Want:
    return Want(
        key=KEY,
        kind=Kind.REFERRAL,
        pathway=judgement.entry.id,
        pathway_version=judgement.entry.version,
        priority=Priority(judgement.urgency),
        seeks=tuple(_seeks(request, judgement)),
        happened=request.assessed_at,
        reason_code=request.reason.code,
        chosen_by_patient=request.provider is not None and request.provider.chosen_by_patient,
    )


def _seeks(request: Referral, judgement: Judgement) -> Iterator[Seek]:
    practice, provider = request.practice, request.provider
    yield Seek(
        role=Role.ACTING,
        receiver_type=judgement.receiver,
        subspecialty=judgement.subspecialty,
        named=Destination(provider.ods, provider.service or "") if provider else None,
        practice=practice.ods if practice is not None else None,
        postcode=request.patient.postcode,
        words=_words(judgement),
    )
    refers_itself = practice is None or practice.ods == request.organisation.ods
    if practice is not None and not refers_itself and judgement.receiver != PRACTICE:
        yield Seek(role=Role.COPY, receiver_type=PRACTICE, practice=practice.ods)


def _words(judgement: Judgement) -> str:
    return f"referrals to the {service_words(judgement.receiver)} ({judgement.entry.name})"


def _advice(judgement: Judgement) -> Iterator[str]:
    # That a same-day message is not enough, and whom to telephone, the broker says for any pillar.
    yield from _at_once(judgement)
    yield f"Urgency: {words(judgement.urgency)}. The rule: {judgement.rule}."


def _at_once(judgement: Judgement) -> Iterator[str]:
    """Yield what must not wait for a message."""
    if judgement.calls_999:
        yield CALL_999
    elif judgement.emergency:
        yield EMERGENCY


def _problem(fault: Fault) -> Problem:
    return Problem(fault.field, fault.code, fault.detail, fault.todo)


# -- bodies that are not validated ---------------------------------------------------------------


def withheld(raw: Mapping[str, Any], form: type[Referral]) -> Withheld | None:
    """Read the few fields that are still looked at where the patient refused; else None."""
    refusal = consent.refusal(raw, "consent", form.looked())
    if refusal is None:
        return None
    sentences = [_NOT_SENT]
    judgement = _glance(raw, form)
    if judgement is not None and Priority(judgement.urgency).is_urgent:
        told = _NOBODY_TOLD.format(
            urgency=words(judgement.urgency), receiver=service_words(judgement.receiver)
        )
        sentences.insert(0, " ".join((told, *_at_once(judgement))))
    return Withheld(
        kind=Kind.REFERRAL,
        organisation=refusal.organisation,
        reference=refusal.reference,
        problems=tuple(_problem(fault) for fault in refusal.faults),
        read_first=tuple(sentences),
    )


def danger(raw: Mapping[str, Any], form: type[Referral]) -> str | None:
    """Say whom to telephone about a body that is refused, if it speaks of something urgent.

    Reads what it can of any body and never raises.
    """
    judgement = _glance(raw, form)
    if judgement is None:
        is_urgent = Priority(glance.urgency(raw.get("urgency"))).is_urgent
        return _TELEPHONE.format(receiver="service that you refer to") if is_urgent else None
    if not Priority(judgement.urgency).is_urgent:
        return None
    said = _TELEPHONE.format(receiver=service_words(judgement.receiver))
    return " ".join((said, *_at_once(judgement)))


def sought(raw: Mapping[str, Any], form: type[Referral]) -> Seek | None:
    """Return who would act on a body, as far as it can be read of it. Never raises."""
    judgement = _glance(raw, form)
    if judgement is None:
        return None
    address = glance.block(glance.block(raw.get("patient")).get("address"))
    provider = glance.block(raw.get("provider"))
    named, service = glance.ods(provider), provider.get("service")
    postcode = address.get("postcode")
    return Seek(
        role=Role.ACTING,
        receiver_type=judgement.receiver,
        subspecialty=judgement.subspecialty,
        named=Destination(named, service if isinstance(service, str) else "") if named else None,
        practice=glance.ods(raw.get("practice")),
        postcode=postcode if isinstance(postcode, str) else None,
        words=_words(judgement),
    )


def _glance(raw: Mapping[str, Any], form: type[Referral]) -> Judgement | None:
    """Judge a body of which nothing is known to be right; None without a pathway."""
    entry = catalogue().entries.get(glance.word(raw.get("pathway")))
    if entry is None:
        return None
    flags = raw.get("red_flags")
    return judge(
        entry,
        reason=glance.word(glance.block(raw.get("reason")).get("code")),
        asked=glance.urgency(raw.get("urgency")),
        red_flags=[glance.word(one) for one in flags] if isinstance(flags, list | tuple) else (),
        practice_may_act=may_act(
            glance.ods(raw.get("practice")),
            glance.ods(raw.get(form.sender_field)),
            glance.ods(raw.get("provider")),
        ),
    )
