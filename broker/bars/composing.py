"""One event's content as the BaRS message that a place gets which speaks BaRS. Pure.

A referral is a request; its end, told to the receiver, a cancellation; anything told to its sender
a response. For all else BaRS has no message.
"""

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any, Final

from broker.events import (
    NOTICE_ISSUED,
    REFERRAL_REDIRECTED,
    REFERRAL_SUBMITTED,
    Destination,
    Recorded,
    Role,
)
from broker.move_content import REJECTION_REASONS
from broker.ports import Addressed, Bars, Original
from broker.referral import STAGES, State
from fhir_profiles.bars import request, response
from fhir_profiles.bars.demanded import words
from fhir_profiles.bars.outgoing import Envelope, Place
from fhir_profiles.bars.referral import Referral
from fhir_profiles.message import Similar, flags

SOFTWARE: Final = "Referral Broker"
VERSION: Final = version("referral-broker")

# Facts of an event whose content came by BaRS: that it did, and whom its sender addressed.
FORM: Final = "form"
BY_BARS: Final = "bars"
ADDRESSED: Final = "addressed"

_REQUESTS: Final = frozenset({REFERRAL_SUBMITTED, REFERRAL_REDIRECTED})
# The one reason of ours that rejected-reasons-bars has a code of its own for.
_REJECTED_AS: Final = {REJECTION_REASONS["no-capacity"]: "RRNA"}


def message(event: Recorded, content: bytes, to: Addressed) -> bytes | None:
    """Return the message of a delivery, or None where BaRS has none for it.

    What came by BaRS for this very place is that, unchanged. The same delivery gives the same
    bytes for ever.
    """
    bars = to.bars
    if bars is None:
        return None
    if event.type in _REQUESTS and to.role is Role.ACTING:
        here = Destination(to.receiver.ods, to.receiver.service)
        if event.facts.get(FORM) == BY_BARS and event.facts.get(ADDRESSED) == str(here):
            return content
        referral = _referral(event, content, bars.receiver, bars.pathway)
        envelope = _envelope(event, to.delivery, bars, referral)
        return request.request(referral, envelope, flags(content, to.delivery, similar(to)))
    if event.type == NOTICE_ISSUED and bars.original is not None:
        return _told(event, content, to, bars, bars.original)
    return None


def similar(to: Addressed) -> list[Similar]:
    """Return what a receiver is told to look out for."""
    return [Similar(one.accepted_at, one.is_of_same_sender, one.message) for one in to.alike]


def _told(
    event: Recorded, content: bytes, to: Addressed, bars: Bars, original: Original
) -> bytes | None:
    referral = _referral(original.event, original.content, original.performer, bars.pathway)
    envelope = _envelope(event, to.delivery, bars, referral)
    said = _Said(content, event.facts["focus"])
    if to.receiver.ods == original.sender.ods:
        answers = _bundle_id(original) or original.went_as
        return response.response(referral, envelope, answers, said.progress())
    if bars.receiver == original.performer and said.is_over:
        return request.cancellation(referral, envelope, said.words, original.given_id)
    return None


def _bundle_id(original: Original) -> str | None:
    """Return the id of the Bundle that the sender itself posted; None where it posted none."""
    if original.event.facts.get(FORM) != BY_BARS:
        return None
    return str(json.loads(original.content)["id"])


def _referral(event: Recorded, content: bytes, performer: Place, pathway: str) -> Referral:
    return Referral(
        content=content,
        focus=event.facts["focus"],
        message_id=event.message_id or event.id,
        correlation_id=event.correlation_id or event.subject,
        pathway=pathway,
        at=event.time,
        performer=performer,
        came_by_bars=event.facts.get(FORM) == BY_BARS,
    )


def _envelope(event: Recorded, delivery: str, bars: Bars, referral: Referral) -> Envelope:
    return Envelope(
        bundle_id=delivery,
        at=event.time,
        sender=bars.sender,
        receiver=bars.receiver,
        software=SOFTWARE,
        software_version=VERSION,
        application=referral.application,
    )


class _Said:
    """What a notice says: the state that a referral moved to, if it did, and words for a person."""

    def __init__(self, content: bytes, focus: str) -> None:
        held = {one["fullUrl"]: one["resource"] for one in json.loads(content)["entry"]}
        self._resource: Mapping[str, Any] = held[focus]
        moved = self._resource.get("businessStatus")
        self._state = State(moved["coding"][0]["code"]) if moved else None
        self.words = "\n".join(self._words())

    @property
    def is_over(self) -> bool:
        """Whether the receiver has nothing more to do for the patient."""
        return self._state is not None and STAGES[self._state].is_terminal

    def progress(self) -> response.Progress:
        status = response.status_of(self._state) if self._state else "planned"
        reason = words(self._resource.get("statusReason", {}))
        as_code = _REJECTED_AS.get(reason, "OTH")
        return response.Progress(status, self.words, as_code)

    def _words(self) -> Iterator[str]:
        if self._state is not None and not self._resource.get("statusReason"):
            yield STAGES[self._state].words.capitalize()
        elif self._state is not None:
            yield words(self._resource["statusReason"])
        for payload in self._resource.get("payload", ()):
            yield payload["contentString"]
        yield from (note["text"] for note in self._resource.get("note", ()))
