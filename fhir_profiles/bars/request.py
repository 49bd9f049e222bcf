"""A referral to a receiver that speaks BaRS, and its cancellation.

The bytes that came by BaRS for this very receiver are not made anew: that is the caller's to tell.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fhir_profiles.bars import demanded
from fhir_profiles.bars.codes import CANCELLED, REQUEST
from fhir_profiles.bars.outgoing import (
    Envelope,
    Purpose,
    ends,
    held,
    made,
    read_entry,
    with_all_they_name,
    write,
)
from fhir_profiles.bars.referral import Referral, asked, first, named_only

_EVENT: Final = "servicerequest-request"


def request(referral: Referral, envelope: Envelope, beside: Sequence[bytes] = ()) -> bytes:
    """Return the message that asks a service to take a patient on.

    Of a referral that came by BaRS for somebody else every entry but the header is carried byte
    for byte, and the one that is asked now is added. `beside` are entries that only this receiver
    is told.
    """
    entries = referral.entries()
    focus = asked(entries, referral.focus)
    _, added = demanded.service(entries, referral.message_id, envelope.receiver, envelope.at)
    was = _header(referral)
    purpose = Purpose(_EVENT, "new", was.get("definition", REQUEST), focus.full_url)
    return write(
        envelope, purpose, [*entries, *added, *map(read_entry, beside)], referral.message_id, was
    )


def _header(referral: Referral) -> Mapping[str, Any]:
    """Return the header that a referral by BaRS came with; a native one has none."""
    came_with = first(held(referral.content), "MessageHeader") if referral.came_by_bars else None
    return came_with.resource if came_with is not None else {}


def cancellation(
    referral: Referral, envelope: Envelope, reason: str, given_id: str | None = None
) -> bytes:
    """Return the message that ends a referral that went out, under the fullUrls that it had there.

    `given_id` is the id that the receiver gave the request in its answer, if it gave one.
    """
    entries = referral.entries()
    focus = asked(entries, referral.focus)
    revoked = named_only(focus.resource, envelope.at) | {
        "status": "revoked",
        "reasonCode": [{"text": reason}],
    }
    if given_id is not None:
        revoked["id"] = given_id
    patients = [entry for entry in entries if entry.type == "Patient"]
    told = [made(focus.full_url, revoked), *patients, *ends(entries, envelope)]
    purpose = Purpose(_EVENT, "update", CANCELLED, focus.full_url)
    return write(envelope, purpose, with_all_they_name(told, entries), referral.message_id)
