"""The GP notifier: updates for the record, their corrections and withdrawals, to who keeps it."""

from collections.abc import Sequence
from typing import Final

from broker.events import UPDATE_SUBMITTED, UPDATE_WITHDRAWN, Recorded, Route
from broker.ports import Addressed, Delivery, Outcome, Outlet
from fhir_profiles.bundle import Header, Site, address, entry_id

_EVENTS: Final = {
    UPDATE_SUBMITTED: "record-update",
    UPDATE_WITHDRAWN: "record-update-withdrawn",
}


class RecordUpdate:
    """Sends each update to the destinations that were fixed when it was accepted."""

    name = "record_update"
    types = frozenset(_EVENTS)
    sends_outside = True

    def destinations(self, event: Recorded) -> Sequence[Route]:
        return event.routes

    def compose(self, event: Recorded, content: bytes, to: Addressed) -> bytes:
        return address(
            content,
            Header(
                bundle_id=to.delivery,
                header_id=entry_id(to.delivery, "header"),
                event=_EVENTS[event.type],
                timestamp=event.time,
                source_name="Referral Broker",
                source_endpoint=event.source,
                sender=Site(to.sender.ods, to.sender.name),
                receiver=Site(to.receiver.ods, to.receiver.name, to.receiver.service),
                focus=(event.facts["focus"],),
                reason=event.facts.get("reason"),
                replaces=event.facts.get("about"),
            ),
        )

    async def handle(self, delivery: Delivery, outlet: Outlet) -> Outcome:
        return await outlet.post(delivery)


CONSUMER = RecordUpdate()
