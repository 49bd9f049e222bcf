"""The trail of a message: everything that the store knows of it, read at one moment.

What of it who may see, and in which words, is for `broker.tracking`.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from broker import answered
from broker.acknowledging import NOTE
from broker.calls import NOTE as CALL_NOTE
from broker.directory import BARS
from broker.events import REFERRAL_MOVED, Kind, Recorded
from broker.moves import SAID
from broker.referral import RELATIONS, Relation
from broker.store import deliveries, ledger, messages, referrals, work
from broker.store.tx import Connection
from broker.vault import Tampered, Vault
from fhir_profiles import strict_json

NO_WORDS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Trail:
    """Everything the store knows of one message."""

    message: Any
    version: int
    deliveries: Sequence[Any]
    attempts: Sequence[Any]
    receipts: Sequence[Any]
    decisions: Sequence[Any]
    deadlines: Sequence[Any]
    calls: Sequence[Any]
    items: Sequence[Any]
    moves: Sequence[Recorded]
    referral: Any
    joined: Sequence[Any]
    replaced_by: str | None
    facts: Mapping[str, str]


def read(connection: Connection, message_id: str) -> Trail | None:
    """Read all there is of a message; None where there is none."""
    message = messages.get(connection, message_id)
    if message is None:
        return None
    sent = deliveries.of_message(connection, message_id)
    ids = [row.id for row in sent]
    events: Sequence[Recorded] = []
    referral = None
    version = message.version
    if message.subject_id is not None:
        referral = referrals.get(connection, message.subject_id)
        events = ledger.events_of(connection, message.subject_id)
        version = ledger.subject(connection, message.subject_id).version
    later = messages.replacement_of(connection, message_id)
    return Trail(
        message=message,
        version=version,
        deliveries=sent,
        attempts=deliveries.attempts_of(connection, ids),
        receipts=referrals.receipts_of(connection, ids),
        decisions=referrals.decisions_of(connection, message_id),
        deadlines=work.deadlines_of(connection, [message_id]),
        calls=referrals.calls_of(connection, message_id),
        items=work.items_of(connection, message_id),
        moves=[event for event in events if event.type == REFERRAL_MOVED],
        referral=referral if message.kind == Kind.REFERRAL else None,
        joined=[
            one
            for one in messages.joined(connection, message.correlation_id)
            if one.id != message_id and one.kind != Kind.NOTICE
        ],
        replaced_by=later.id if later is not None else None,
        facts=next((event.facts for event in events if event.id == message.event_id), {}),
    )


def addressed(
    connection: Connection, identity: str, own: Collection[str]
) -> tuple[str, Relation, str]:
    """Return (message, what who asks is to it, its label) for the id of a message or of a
    referral, which stands for its newest message."""
    referral = referrals.get(connection, identity)
    message_id = referral.message_id if referral is not None else identity
    found = read(connection, message_id)
    if found is None:
        return message_id, Relation.NONE, "N"
    return message_id, relation(found, own), found.message.label


def relation(trail: Trail, own: Collection[str]) -> Relation:
    """Return what who answers for these ODS codes is to a message: the closest of all it is."""
    if trail.message.sender in own:
        return Relation.SENDER
    roles = {row.role for row in trail.deliveries if row.ods in own}
    for role, found in RELATIONS.items():
        if role in roles:
            return found
    return Relation.NONE


def words(connection: Connection, vault: Vault, trail: Trail) -> Mapping[str, Mapping[str, Any]]:
    """Return what was said of it in anybody's own words: advice, outcomes, and notes, by the event,
    the call or the delivery.

    What was erased or altered is left out: the trail itself does not depend on it.
    """
    owners = [(event.id, SAID) for event in trail.moves]
    owners += [(one.event_id, NOTE) for one in trail.decisions]
    owners += [(one.id, CALL_NOTE) for one in trail.calls]
    found = {}
    for event, role in owners:
        with suppress(Tampered):
            opened = messages.payload(connection, vault, event, role)
            if opened is not None:
                found[event] = strict_json.loads(opened.body)
    for row in trail.deliveries:
        if row.channel != BARS:
            continue
        with suppress(Tampered):
            answer = answered.of_delivery(connection, vault, row.id)
            if answer is not None and answer.reference is not None:
                found[row.id] = {"reference": answer.reference}
    return found
