"""What a delivery to a place that speaks BaRS needs beside its content: both ends by their names
there and, for a notice, the referral that it tells of."""

from collections.abc import Callable, Iterable
from typing import Any

from broker import answered
from broker.composition import CONTENT
from broker.directory import BARS, Directory
from broker.events import NOTICE_ISSUED, Destination, Kind, Recorded, Role, Route
from broker.ports import Bars, Original
from broker.store import ledger, messages
from broker.store.tx import Connection
from broker.vault import Tampered, Vault
from fhir_profiles.bars.outgoing import Place

WentAs = Callable[[Recorded, Route], str | None]


def is_wanted(event: Recorded, directory: Directory) -> bool:
    """Whether a notice tells somebody who speaks BaRS, so that its original must be at hand."""
    return event.type == NOTICE_ISSUED and any(
        directory.channel(route.destination) == BARS for route in event.routes
    )


def find(
    connection: Connection,
    vault: Vault,
    directory: Directory,
    notices: Iterable[Recorded],
    went_as: WentAs,
) -> dict[str, Original]:
    """Return for each notice, by its event's id, the referral that it tells of.

    One about something else, and one whose original was erased or altered, is left out.
    """
    about = {event.id: event.facts.get("about", "") for event in notices}
    rows = messages.by_id(connection, set(about.values()))
    found = {}
    for event_id, message_id in about.items():
        row = rows.get(message_id)
        if row is None or row.kind != Kind.REFERRAL or row.event_id is None:
            continue
        original = _original(connection, vault, directory, row, went_as)
        if original is not None:
            found[event_id] = original
    return found


def _original(
    connection: Connection, vault: Vault, directory: Directory, row: Any, went_as: WentAs
) -> Original | None:
    event = ledger.event(connection, row.event_id)
    if event is None:
        return None
    acting = next((route for route in event.routes if route.role is Role.ACTING), None)
    bundle = None if acting is None else went_as(event, acting)
    if acting is None or bundle is None:
        return None
    try:
        content = messages.payload(connection, vault, row.event_id, CONTENT)
        answer = answered.of_delivery(connection, vault, bundle)
    except Tampered:
        return None
    if content is None:
        return None
    performer = place(directory, acting.destination)
    given_id = answer.request_id if answer is not None else None
    return Original(event, content.body, Destination(row.sender), performer, bundle, given_id)


def ends(directory: Directory, message: Any, to: Destination, original: Original | None) -> Bars:
    """Return both ends of a delivery. Who was asked to act speaks as the service that was asked."""
    sender = place(directory, Destination(message.sender))
    if original is not None and original.performer.ods == message.sender:
        sender = original.performer
    return Bars(sender, place(directory, to), message.pathway, original)


def place(directory: Directory, destination: Destination) -> Place:
    """Return a destination as BaRS names it."""
    system, value = directory.target(destination)
    service, party = directory.service(destination), directory.party(destination)
    return Place(
        ods=destination.ods,
        system=system,
        value=value,
        name=party.name,
        service=service.name if service is not None else "",
        telephone=party.telephone,
    )
