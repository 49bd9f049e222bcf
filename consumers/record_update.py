"""The GP notifier: updates for the record, their corrections and withdrawals, to who keeps it."""

from collections.abc import Sequence
from typing import Final

from broker.addressing import message
from broker.events import UPDATE_SUBMITTED, UPDATE_WITHDRAWN, Recorded, Route
from broker.ports import Addressed, Delivery, Outcome, Outlet

_EVENTS: Final = {
    UPDATE_SUBMITTED: "record-update",
    UPDATE_WITHDRAWN: "record-update-withdrawn",
}


class RecordUpdate:
    """Sends each update to the destinations that were fixed when it was accepted."""

    name = "record_update"
    types = frozenset(_EVENTS)

    def destinations(self, event: Recorded) -> Sequence[Route]:
        return event.routes

    def compose(self, event: Recorded, content: bytes, to: Addressed) -> bytes:
        return message(
            event,
            content,
            to,
            _EVENTS[event.type],
            reason=event.facts.get("reason"),
            replaces=event.facts.get("about"),
        )

    async def handle(self, delivery: Delivery, outlet: Outlet) -> Outcome:
        return await outlet.post(delivery)


CONSUMER = RecordUpdate()
