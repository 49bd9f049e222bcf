"""One event's content as the FHIR message that one destination gets: for consumers to compose."""

from broker.bars import composing
from broker.events import Recorded
from broker.ports import Addressed
from fhir_profiles.bundle import told_id
from fhir_profiles.message import Header, Site, address


def message(
    event: Recorded,
    content: bytes,
    to: Addressed,
    code: str,
    *,
    reason: str | None = None,
    replaces: str | None = None,
) -> bytes:
    """Return the message Bundle of a delivery. The same delivery gives the same bytes for ever.

    `code` is of the system `message-event`, `reason` of `message-reason`; `replaces` is the id of
    the message that this one takes the place of. What BaRS has no message for is the same to a
    place that speaks it as to everybody else: it stands in its inbox.
    """
    by_bars = composing.message(event, content, to) if to.bars is not None else None
    return by_bars or address(
        content,
        Header(
            bundle_id=to.delivery,
            header_id=told_id(to.delivery, "header"),
            event=code,
            timestamp=event.time,
            source_name=composing.SOFTWARE,
            source_endpoint=event.source,
            sender=Site(to.sender.ods, to.sender.name),
            receiver=Site(to.receiver.ods, to.receiver.name, to.receiver.service),
            focus=(event.facts["focus"],),
            reason=reason,
            replaces=replaces,
        ),
        composing.similar(to),
    )
