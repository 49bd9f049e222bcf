"""The discharge medicines service: what a pharmacy is asked to do about changed medicines.

It is made as the hospital would refer on that pathway itself, with all that the catalogue asks for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from adapters.pillars.outcomes.form import Outcome
from adapters.pillars.outcomes.letter import Letter
from adapters.pillars.referrals import needs as referring
from adapters.pillars.referrals.form import Reason, Referral
from adapters.pillars.referrals.translate import draft
from adapters.pillars.who import Who
from broker.ports import Context, Draft, Want
from fhir_profiles.blocks import Provider

KEY: Final = "medicines"
_PATHWAY: Final = "discharge-medicines"
_REASON: Final = "medicines-changed-in-hospital"
_QUESTION: Final = "Please reconcile the medicines with those from before the stay, and reply."
_NOT_SENT: Final = "No task was sent. Telephone the pharmacy and tell it of the changed medicines."


def wants(request: Outcome, now: datetime) -> Iterator[Want]:
    """Yield the referral to the pharmacy, if one is to be asked."""
    referral = referral_of(request)
    if referral is None:
        return
    (want,) = referring.needs(referral, now).wants
    yield replace(want, key=KEY, required=False, if_left_out=_NOT_SENT)


def advice(request: Outcome) -> Iterator[str]:
    """Yield why no pharmacy was told, where one might have been."""
    why = request.why_no_pharmacy if isinstance(request, Letter) else None
    if why is not None:
        yield why


def drafts(request: Outcome, context: Context) -> Sequence[Draft]:
    """Return the referral, if it goes out."""
    referral = referral_of(request)
    if referral is None or KEY not in context.message_ids:
        return ()
    return (draft(referral, context, KEY),)


def referral_of(request: Outcome) -> Referral | None:
    """Return what the hospital refers to the pharmacy; None where it asks none."""
    if not isinstance(request, Letter) or not request.asks_the_pharmacy:
        return None
    form, pharmacy = request.refers_with, request.pharmacy
    assert pharmacy is not None  # noqa: S101 - that is what asks_the_pharmacy says
    said = {name: getattr(request, name) for name in Who.model_fields}
    said |= {
        name: getattr(request, name)
        for name in (form.sender_field, "clinician", "reference", "patient", "consent", "allergies")
    }
    return form.model_construct(
        **said,
        pathway=_PATHWAY,
        reason=Reason.model_construct(code=_REASON),
        assessed_at=request.discharged_on,
        urgency="routine",
        medicines=request.medicines,
        history=_history(request),
        question=_QUESTION,
        provider=Provider.model_construct(ods=pharmacy.ods, chosen_by_patient=True),
        information_for_patient=request.information_for_patient,
        additional_information="\n".join(one.in_words for one in request.changed),
    )


def _history(request: Letter) -> str | None:
    return "; ".join(one.text for one in request.diagnoses) or None
