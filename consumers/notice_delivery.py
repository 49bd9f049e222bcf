"""Notices: word of what became of a message, to those who must hear of it."""

from collections.abc import Sequence

from broker.addressing import message
from broker.events import NOTICE_ISSUED, Recorded, Route
from broker.ports import Addressed, Delivery, Outcome, Outlet


class NoticeDelivery:
    """Sends each notice to the one that it was made for."""

    name = "notice_delivery"
    types = frozenset({NOTICE_ISSUED})

    def destinations(self, event: Recorded) -> Sequence[Route]:
        return event.routes

    def compose(self, event: Recorded, content: bytes, to: Addressed) -> bytes:
        return message(event, content, to, "notice")

    async def handle(self, delivery: Delivery, outlet: Outlet) -> Outcome:
        return await outlet.post(delivery)


CONSUMER = NoticeDelivery()
