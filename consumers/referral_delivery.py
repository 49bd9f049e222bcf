"""Referrals: to the service that must act, and as a copy to who keeps the patient's record."""

from collections.abc import Sequence
from typing import Final

from broker.addressing import message
from broker.events import (
    REFERRAL_AMENDED,
    REFERRAL_REDIRECTED,
    REFERRAL_SUBMITTED,
    Recorded,
    Role,
    Route,
)
from broker.ports import Addressed, Delivery, Outcome, Outlet

_EVENTS: Final = {
    REFERRAL_SUBMITTED: "referral-request",
    REFERRAL_AMENDED: "referral-amended",
    REFERRAL_REDIRECTED: "referral-request",
}


class ReferralDelivery:
    """Sends each referral, and each version of it, to its receiver and to those with a copy."""

    name = "referral_delivery"
    types = frozenset(_EVENTS)

    def destinations(self, event: Recorded) -> Sequence[Route]:
        return event.routes

    def compose(self, event: Recorded, content: bytes, to: Addressed) -> bytes:
        # A copy is for the record: the place that gets it must not take it for a request to act.
        kind = _EVENTS[event.type] if to.role is Role.ACTING else "record-update"
        # Where it is sent on to, it is new.
        is_new = event.type == REFERRAL_REDIRECTED and to.role is Role.ACTING
        return message(
            event,
            content,
            to,
            kind,
            reason="new" if is_new else event.facts.get("reason"),
            replaces=None if is_new else event.facts.get("about"),
        )

    async def handle(self, delivery: Delivery, outlet: Outlet) -> Outcome:
        return await outlet.post(delivery)


CONSUMER = ReferralDelivery()
