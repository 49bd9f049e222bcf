"""What became of a referral, told to a sender that speaks BaRS: the short response.

The receiver's own Encounter carries the progress: the one that the synchronous answer planned,
under the same fullUrl and reference, so that the sender sees one thing move on.
"""

from dataclasses import dataclass
from typing import Any, Final

from fhir_profiles import codes
from fhir_profiles.bars import answer
from fhir_profiles.bars.codes import REJECTED, RESPONSE
from fhir_profiles.bars.demanded import AMBULATORY
from fhir_profiles.bars.outgoing import (
    Envelope,
    Held,
    Purpose,
    ends,
    made,
    named,
    with_all_they_name,
    write,
)
from fhir_profiles.bars.referral import Referral, asked, first, named_only
from fhir_profiles.bundle import given_id

REJECTIONS: Final = {
    "RRNA": "Requested resource not available within timescale",
    "FC": "Failed Contact",
    "OTH": "Other",
}
"""The whole of rejected-reasons-bars 1.1.0."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a referral is: the status of the receiver's Encounter, and the receiver's words.

    `rejected_as` is a code of `REJECTIONS`, said where the status is cancelled.
    """

    status: str
    words: str = ""
    rejected_as: str = "OTH"


def status_of(state: str) -> str:
    """Return the Encounter.status that tells a state of a referral (`referral-state`)."""
    return codes.system("referral-state").properties[state]["encounter-status"]


def response(referral: Referral, envelope: Envelope, answers: str, progress: Progress) -> bytes:
    """Return the message that tells a referral's sender how far it is.

    `answers` is the id of the Bundle by which it was asked. Raises LookupError where the referral
    has no patient or no encounter of its sender's.
    """
    entries = referral.entries()
    focus = asked(entries, referral.focus)
    patient, encounter = first(entries, "Patient"), _senders(entries, focus)
    if patient is None or encounter is None:
        raise LookupError("a response names the patient and the sender's encounter")
    status = "completed" if progress.status == "finished" else "active"
    request = named_only(focus.resource, envelope.at) | {"status": status}
    if referral.came_by_bars:
        request["id"] = given_id(referral.message_id, focus.full_url)  # as it was answered
    own = _own(referral, envelope, encounter, patient, progress)
    told = [made(focus.full_url, request), own, encounter, patient]
    told += [one for one in entries if one.type in {"Practitioner", "PractitionerRole"}]
    told += ends(entries, envelope)
    purpose = Purpose("servicerequest-response", "new", RESPONSE, own.full_url, answers)
    return write(envelope, purpose, with_all_they_name(told, entries), referral.message_id)


def _senders(entries: list[Held], focus: Held) -> Held | None:
    """Return the encounter that the request came of."""
    wanted = focus.resource.get("encounter", {}).get("reference")
    met = (one for one in entries if one.type == "Encounter" and one.full_url == wanted)
    return next(met, None) or first(entries, "Encounter")


def _own(
    referral: Referral, envelope: Envelope, senders: Held, patient: Held, progress: Progress
) -> Held:
    reference = answer.spoken(referral.message_id)
    return named(
        referral.message_id,
        answer.OWN_ENCOUNTER,
        "Encounter",
        f"{codes.UK_CORE}UKCore-Encounter",
        envelope.at,
        identifier=[{"system": codes.CASE_REFERENCE, "value": reference}],
        status=progress.status,
        **{"class": senders.resource.get("class", AMBULATORY)},
        subject={"reference": patient.full_url},
        episodeOfCare=senders.resource.get("episodeOfCare"),
        period={"start": envelope.at.isoformat()},
        reasonCode=_reason(progress),
    )


def _reason(progress: Progress) -> list[dict[str, Any]] | None:
    reason: dict[str, Any] = {}
    if progress.status == "cancelled":
        code = progress.rejected_as
        reason["coding"] = [{"system": REJECTED, "code": code, "display": REJECTIONS[code]}]
    if progress.words:
        reason["text"] = progress.words
    return [reason] if reason else None
