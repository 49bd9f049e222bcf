"""Small, valid things to store, each made by one call."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from joserfc.jwk import ECKey
from sqlalchemy import Connection

from broker.audit import Entry
from broker.events import (
    REFERRAL_SUBMITTED,
    UPDATE_SUBMITTED,
    Destination,
    Event,
    Priority,
    Recorded,
    Role,
    Route,
    SubjectKind,
    delivery_id,
    digest,
    uuid7,
)
from broker.store import messages
from broker.store.messages import NewMessage
from broker.store.tx import Tx
from broker.vault import Binding, FileKeyRing, Vault

AT = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
PHARMACY = "FA001"
PRACTICE = "A81001"
FHIR = "application/fhir+json"
SOURCE = "urn:referral-broker:test"  # of what a test laid down and no broker made
TOKEN = ECKey.generate_key("P-384")


def ring_document(**changes: Any) -> dict[str, list[dict[str, str]]]:
    """The document of a key ring whose keys are fixed, but for the one that signs tokens."""
    document: dict[str, list[dict[str, str]]] = {
        "kek": [{"id": "kek-1", "key": "11" * 32}],
        "pseudonym": [{"id": "pseudonym-1", "key": "22" * 32}],
        "reference": [{"id": "reference-1", "key": "33" * 32}],
        "topic": [{"id": "topic-1", "key": "55" * 32}],
        "token": [{"id": "token-1", "pem": TOKEN.as_pem(private=True).decode()}],
    }
    return document | changes


def a_vault() -> Vault:
    """A vault with fixed keys."""
    return Vault(FileKeyRing(ring_document()))


def an_event(subject: str, **changes: Any) -> Event:
    """An event about a subject."""
    event = Event(
        id=uuid7(),
        type=UPDATE_SUBMITTED,
        source=SOURCE,
        subject=subject,
        time=AT,
        dataschema="https://example.org/profile|1.0.0",
        correlation_id=uuid7(),
        facts={"kind": "update"},
        routes=(Route(Destination(PRACTICE), Role.ACTING, "registered-practice"),),
    )
    return replace(event, **changes)


def an_entry(action: str = "message.accepted", **facts: str) -> Entry:
    """An audit entry."""
    return Entry(action, "client-1", PHARMACY, "message", uuid7(), facts)


def record(tx: Tx, subject: str, **changes: Any) -> Event:
    """Record an event with its audit entry, making its subject where there is none."""
    if tx.lock_subject(subject) is None:
        tx.new_subject(subject, SubjectKind.CONSULTATION, PHARMACY)
    event = an_event(subject, **changes)
    tx.record(event)
    tx.audit(an_entry(event=event.id))
    return event


@dataclass
class Sample:
    """A message ready to be stored, and what its payloads say."""

    new: NewMessage
    content: bytes
    posted: bytes

    @property
    def id(self) -> str:
        return str(self.new.row["id"])

    @property
    def event_id(self) -> str:
        return self.new.event.id

    def put(self, tx: Tx) -> None:
        """Store it with an audit entry, as intake does."""
        messages.put(tx, self.new)
        tx.audit(an_entry(event=self.event_id))


def a_message(
    vault: Vault, *, size: int = 400, index: int = 2, reference: str | None = None, **row: Any
) -> Sample:
    """A message with its key, two payloads, index rows and event."""
    subject, message = uuid7(), uuid7()
    event = an_event(subject, message_id=message, type=REFERRAL_SUBMITTED)
    key = vault.new_key(uuid7())
    content, posted = (f"{role} of {message} ".encode().ljust(size, b".") for role in "cp")
    values = {
        "id": message,
        "kind": "update",
        "status": "accepted",
        "subject_id": subject,
        "event_id": event.id,
        "key_id": key.id,
        "door": "pharmacy",
        "sender": PHARMACY,
        "client_id": "client-1",
        "reference_hmac": vault.mac("reference", (reference or message).encode()),
        "body_hmac": vault.mac("body", posted),
        "correlation_id": uuid7(),
        "replaces": None,
        "version": 1,
        "pathway": "minor-illness",
        "pathway_version": "1",
        "priority": Priority.ROUTINE.value,
        "practice": PRACTICE,
        "patient_pseudonym": None,
        "pseudonym_key": None,
        "identity_verified": True,
        "label": "N",
        "consent": True,
        "agreement": None,
        "purpose": "direct-care",
        "warnings": [],
        "clinical_at": AT,
        "accepted_at": AT,
        "closed_reason": None,
    }
    payloads = [
        messages.sealed(vault, key, Binding(owner, role, 1, PHARMACY, FHIR), body, digest(body), AT)
        for owner, role, body in ((event.id, "content", content), (message, "in", posted))
    ]
    rows = [
        {
            "id": uuid7(),
            "version": 1,
            "type": "Observation",
            "message_id": message,
            "event_id": event.id,
            "subject_id": subject,
            "status": "final",
            "category": None,
            "code": "75367002",
            "priority": None,
            "requester": PHARMACY,
            "performer": PRACTICE,
            "patient_pseudonym": None,
            "identifiers": None,
            "authored_at": AT,
            "updated_at": AT,
        }
        for _ in range(index)
    ]
    new = NewMessage(
        row=values | row,
        key=key,
        payloads=payloads,
        event=event,
        subject_kind=SubjectKind.CONSULTATION,
        index=rows,
    )
    return Sample(new, content, posted)


def recorded(subject: str, seq: int, position: int, **changes: Any) -> Recorded:
    """An event as it would stand in the ledger."""
    event = an_event(subject, **changes)
    return Recorded(
        position=position,
        id=event.id,
        type=event.type,
        source=event.source,
        subject=subject,
        subject_seq=seq,
        time=event.time,
        dataschema=event.dataschema,
        message_id=event.message_id,
        correlation_id=event.correlation_id,
        causation_id=event.causation_id,
        traceparent=event.traceparent,
        priority=event.priority,
        facts=event.facts,
        routes=event.routes,
    )


def a_delivery(event: Recorded, now: datetime, **changes: Any) -> dict[str, Any]:
    """A delivery row of an event as dispatch makes it, before its place in the lane is known."""
    ods, consumer = changes.get("ods", PRACTICE), changes.get("consumer", "record_update")
    destination = Destination(ods, changes.get("service", ""))
    row = {
        "id": delivery_id(consumer, event.id, destination),
        "event_id": event.id,
        "position": event.position,
        "subject_id": event.subject,
        "subject_seq": event.subject_seq,
        "message_id": event.message_id,
        "kind": "update",
        "consumer": consumer,
        "ods": ods,
        "service": destination.service,
        "role": Role.ACTING.value,
        "reason": "registered-practice",
        "channel": "webhook",
        "priority": event.priority.value,
        "priority_rank": event.priority.rank,
        "state": "due",
        "held_reason": None,
        "done_reason": None,
        "code": None,
        "attempt": 0,
        "due_at": now,
        "first_due_at": now,
        "lease_until": None,
        "lease_by": None,
        "digest": digest(event.id.encode()),
        "label": "N",
        "consent": True,
        "agreement": None,
        "purpose": "direct-care",
        "created_at": now,
        "collected_at": None,
        "received_at": None,
        "settled_at": None,
    }
    return row | changes


def count(connection: Connection, table: Any) -> int:
    """How many rows a table has."""
    return len(connection.execute(table.select()).all())
