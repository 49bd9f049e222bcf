"""What a referral needs before it is translated: where to, how soon, and what the sender hears.

Pure, and the same for every form: what a form means it says itself (`request.Meant`), of a request
or of a body that is not taken.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from adapters.pillars.parts import enclosed
from adapters.pillars.referrals.request import Judged, Meant, Request
from adapters.pillars.refused import NOT_SENT, problem
from broker.events import Destination, Kind, Priority, Role, SubjectKind
from broker.ports import Needs, Seek, Want, Withheld
from fhir_profiles import consent, glance
from fhir_profiles.pathways.catalogue import PRACTICE, service_words
from fhir_profiles.pathways.parts import words

KEY: Final = "referral"

CALL_999: Final = "Call 999 now; do not wait for an answer."
EMERGENCY: Final = (
    "Send the patient to the emergency department (A&E) now, or call 999 if they cannot get there "
    "safely; do not wait for an answer."
)
_TELEPHONE: Final = "Telephone the {receiver} now; out of hours, NHS 111."
_NOBODY_TOLD: Final = (
    "Nobody has been told. What this describes is {urgency}: speak with the patient again, and "
    "telephone the {receiver} if they agree."
)


def needs(request: Request, now: datetime) -> Needs:
    """Return the one referral that is asked for: to whom, how soon, and what there is to say."""
    meant = request.meant
    patient, practice = request.patient, request.practice
    return Needs(
        organisation=request.organisation.ods,
        reference=request.reference,
        subject=SubjectKind.REFERRAL,
        wants=(_want(request, meant, now),),
        consent=request.consent,
        label="R" if patient.sensitive else "N",
        nhs_number=patient.nhs_number,
        identity_verified=patient.verified,
        practice=practice.ods if practice is not None else None,
        escalates=Priority(meant.judgement.urgency).is_urgent,
        warnings=tuple(map(problem, (*patient.warnings(), *request.warnings(now)))),
        advice=tuple(_advice(meant.judgement)),
        attachments=enclosed(request),
    )


def _want(request: Request, meant: Meant, now: datetime) -> Want:
    entry = meant.judgement.entry
    return Want(
        key=KEY,
        kind=Kind.REFERRAL,
        pathway=entry.id,
        pathway_version=entry.version,
        priority=Priority(meant.judgement.urgency),
        seeks=tuple(_seeks(request, meant)),
        happened=request.happened,
        reason_code=request.reason_code,
        chosen_by_patient=request.provider is not None and request.provider.chosen_by_patient,
        closes_alone=not request.is_at_risk(now),
    )


def _seeks(request: Request, meant: Meant) -> Iterator[Seek]:
    practice, provider = request.practice, request.provider
    yield _acting(
        meant,
        named=Destination(provider.ods, provider.service or "") if provider else None,
        practice=practice.ods if practice is not None else None,
        postcode=request.patient.postcode,
    )
    refers_itself = practice is None or practice.ods == request.organisation.ods
    if practice is not None and not refers_itself and meant.judgement.receiver != PRACTICE:
        yield Seek(role=Role.COPY, receiver_type=PRACTICE, practice=practice.ods)


def _acting(
    meant: Meant, *, named: Destination | None, practice: str | None, postcode: str | None
) -> Seek:
    for_what = f" ({meant.words})" if meant.words else ""
    return Seek(
        role=Role.ACTING,
        receiver_type=meant.judgement.receiver,
        subspecialty=meant.clinic,
        named=named,
        practice=practice,
        postcode=postcode,
        words=f"referrals to the {service_words(meant.judgement.receiver)}{for_what}",
        field=meant.field,
    )


def _advice(judgement: Judged) -> Iterator[str]:
    # That a same-day message is not enough, and whom to telephone, the broker says for any pillar.
    yield from _at_once(judgement)
    yield f"Urgency: {words(judgement.urgency)}. The rule: {judgement.rule}."


def _at_once(judgement: Judged) -> Iterator[str]:
    """Yield what must not wait for a message."""
    if judgement.calls_999:
        yield CALL_999
    elif judgement.emergency:
        yield EMERGENCY


# -- bodies that are not validated ---------------------------------------------------------------


def withheld(raw: Mapping[str, Any], form: type[Request]) -> Withheld | None:
    """Read the few fields that are still looked at where the patient refused; else None."""
    refusal = consent.refusal(raw, "consent", form.looked())
    if refusal is None:
        return None
    sentences = [NOT_SENT]
    meant = form.glance(raw)
    if meant is not None and Priority(meant.judgement.urgency).is_urgent:
        judgement = meant.judgement
        told = _NOBODY_TOLD.format(
            urgency=words(judgement.urgency), receiver=service_words(judgement.receiver)
        )
        sentences.insert(0, " ".join((told, *_at_once(judgement))))
    return Withheld(
        kind=Kind.REFERRAL,
        organisation=refusal.organisation,
        reference=refusal.reference,
        problems=tuple(map(problem, refusal.faults)),
        read_first=tuple(sentences),
    )


def danger(raw: Mapping[str, Any], form: type[Request]) -> str | None:
    """Say whom to telephone about a body that is refused, if it speaks of something urgent.

    Reads what it can of any body and never raises.
    """
    meant = form.glance(raw)
    if meant is None:
        is_urgent = Priority(glance.urgency(raw.get("urgency"))).is_urgent
        return _TELEPHONE.format(receiver="service that you refer to") if is_urgent else None
    judgement = meant.judgement
    if not Priority(judgement.urgency).is_urgent:
        return None
    said = _TELEPHONE.format(receiver=service_words(judgement.receiver))
    return " ".join((said, *_at_once(judgement)))


def sought(raw: Mapping[str, Any], form: type[Request]) -> Seek | None:
    """Return who would act on a body, as far as it can be read of it. Never raises."""
    meant = form.glance(raw)
    if meant is None:
        return None
    address = glance.block(glance.block(raw.get("patient")).get("address"))
    provider = glance.block(raw.get("provider"))
    named, service = glance.ods(provider), provider.get("service")
    postcode = address.get("postcode")
    return _acting(
        meant,
        named=Destination(named, service if isinstance(service, str) else "") if named else None,
        practice=glance.ods(raw.get("practice")),
        postcode=postcode if isinstance(postcode, str) else None,
    )
