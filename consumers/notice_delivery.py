"""Notices: word of what became of a message, to those who must hear of it."""

from collections.abc import Sequence

from broker.events import NOTICE_ISSUED, Recorded, Route
from broker.ports import Addressed, Delivery, Outcome, Outlet
from fhir_profiles.bundle import Header, Site, address, entry_id


class NoticeDelivery:
    """Sends each notice to the one that it was made for."""

    name = "notice_delivery"
    types = frozenset({NOTICE_ISSUED})
    sends_outside = True

    def destinations(self, event: Recorded) -> Sequence[Route]:
        return event.routes

    def compose(self, event: Recorded, content: bytes, to: Addressed) -> bytes:
        return address(
            content,
            Header(
                bundle_id=to.delivery,
                header_id=entry_id(to.delivery, "header"),
                event="notice",
                timestamp=event.time,
                source_name="Referral Broker",
                source_endpoint=event.source,
                sender=Site(to.sender.ods, to.sender.name),
                receiver=Site(to.receiver.ods, to.receiver.name, to.receiver.service),
                focus=(event.facts["focus"],),
            ),
        )

    async def handle(self, delivery: Delivery, outlet: Outlet) -> Outcome:
        return await outlet.post(delivery)


CONSUMER = NoticeDelivery()
