"""Every table of the broker. The database is the truth; Kafka is transport.

Columns hold ids, codes, times and keyed pseudonyms only. Free text, demographic values and
remembered answers are sealed and stand in `payload`. Event, key, delivery and audit rows are never
deleted; payloads and message keys are what retention removes.
"""

from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Column, Index, Insert, Integer, Table, Text, UniqueConstraint, insert, text
from sqlmodel import Field, SQLModel

from broker.store.columns import Codes, Flag, Id, Position, Sealed, Utc


def _id(*, primary: bool = False, null: bool = False, index: bool = False) -> Any:
    return Field(sa_column=Column(Id, primary_key=primary, nullable=null, index=index))


def _text(*, primary: bool = False, null: bool = False, default: str | None = None) -> Any:
    return Field(sa_column=Column(Text, primary_key=primary, nullable=null, server_default=default))


def _int(*, primary: bool = False, null: bool = False, default: str | None = None) -> Any:
    return Field(
        sa_column=Column(
            Integer, primary_key=primary, nullable=null, server_default=default, autoincrement=False
        )
    )


def _utc(*, null: bool = False) -> Any:
    return Field(sa_column=Column(Utc, nullable=null))


def _flag() -> Any:
    return Field(sa_column=Column(Flag, nullable=False))


def _codes(*, null: bool = False) -> Any:
    return Field(sa_column=Column(Codes, nullable=null))


def _bytes(*, primary: bool = False, null: bool = False) -> Any:
    return Field(sa_column=Column(Sealed, primary_key=primary, nullable=null))


def _position(*, primary: bool = False, null: bool = False) -> Any:
    return Field(
        sa_column=Column(Position, primary_key=primary, nullable=null, autoincrement=False)
    )


STRICT: dict[str, Any] = {"sqlite_strict": True}
KEYED: dict[str, Any] = {"sqlite_strict": True, "sqlite_with_rowid": False}


def _where(name: str, rows: str, *columns: str) -> Index:
    """An index of these rows alone."""
    return Index(name, *columns, sqlite_where=text(rows), postgresql_where=text(rows))


class LedgerHead(SQLModel, table=True):
    """The one serial point: locked last in every writing transaction, never cached."""

    __tablename__ = "ledger_head"
    __table_args__ = (STRICT,)
    id: int = _int(primary=True)
    position: int = _position()
    audit_seq: int = _position()
    audit_hash: str = _text()


class SubjectRow(SQLModel, table=True):
    """What events are about, and the key that orders them."""

    __tablename__ = "subject"
    __table_args__ = (KEYED,)
    id: str = _id(primary=True)
    kind: str = _text()
    owner: str = _text()
    last_seq: int = _int()
    dispatched_seq: int = _int()
    version: int = _int()
    created_at: datetime = _utc()


class MessageRow(SQLModel, table=True):
    """One thing that one party tells others; carried by exactly one event (none if withheld)."""

    __tablename__ = "message"
    __table_args__ = (
        UniqueConstraint("sender", "reference_hmac", name="uq_message_reference"),
        Index("ix_message_sender", "sender", "accepted_at", "id"),
        Index("ix_message_subject", "subject_id", "accepted_at"),
        Index("ix_message_correlation", "correlation_id"),
        Index("ix_message_replaces", "replaces"),
        _where(
            "ix_message_patient",
            "patient_pseudonym IS NOT NULL",
            *("patient_pseudonym", "pathway", "accepted_at"),
        ),
        KEYED,
    )
    id: str = _id(primary=True)
    kind: str = _text()
    status: str = _text()
    subject_id: str | None = _id(null=True)
    event_id: str | None = _id(null=True)
    key_id: str | None = _id(null=True)
    door: str = _text()
    sender: str = _text()
    client_id: str = _text()
    reference_hmac: str | None = _text(null=True)
    body_hmac: str | None = _text(null=True)
    correlation_id: str = _id()
    replaces: str | None = _id(null=True)
    version: int = _int()
    pathway: str = _text()
    pathway_version: str = _text()
    priority: str = _text()
    practice: str | None = _text(null=True)
    patient_pseudonym: str | None = _text(null=True)
    pseudonym_key: str | None = _text(null=True)
    identity_verified: bool = _flag()
    label: str = _text()
    consent: bool = _flag()
    agreement: str | None = _text(null=True)
    purpose: str = _text()
    warnings: Any = _codes()
    clinical_at: datetime = _utc()
    accepted_at: datetime = _utc()
    closed_reason: str | None = _text(null=True)


class EventRow(SQLModel, table=True):
    """The append-only ledger. `position` is gap-free and visible in commit order."""

    __tablename__ = "event"
    __table_args__ = (
        UniqueConstraint("id", name="uq_event_id"),
        UniqueConstraint("subject_id", "subject_seq", name="uq_event_subject_seq"),
        STRICT,
    )
    position: int = _position(primary=True)
    id: str = _id()
    type: str = _text()
    source: str = _text()
    subject_id: str = _id()
    subject_seq: int = _int()
    time: datetime = _utc()
    dataschema: str = _text()
    message_id: str | None = _id(null=True)
    correlation_id: str | None = _id(null=True)
    causation_id: str | None = _id(null=True)
    traceparent: str | None = _text(null=True)
    priority: str = _text()
    facts: Any = _codes()
    routes: Any = _codes()


class PayloadRow(SQLModel, table=True):
    """Sealed bytes and the digest of their plaintext. `owner_id` is the event's, delivery's,
    message's or decision's id that the bytes belong to; `role` says what they are to it."""

    __tablename__ = "payload"
    __table_args__ = (STRICT,)
    owner_id: str = _id(primary=True)
    role: str = _text(primary=True)
    version: int = _int(primary=True)
    key_id: str = _id()
    organisation: str = _text()
    content_type: str = _text()
    digest: str = _text()
    size: int = _int()
    sealed: bytes = _bytes()
    created_at: datetime = _utc()


class MessageKeyRow(SQLModel, table=True):
    """A message's key, wrapped. Deleting the row erases the message."""

    __tablename__ = "message_key"
    __table_args__ = (KEYED,)
    id: str = _id(primary=True)
    kek_id: str = _text()
    wrapped: bytes = _bytes()


class AttachmentRow(SQLModel, table=True):
    """A file that was uploaded: what it is, and its SHA-256. One that no message names expires."""

    __tablename__ = "attachment"
    __table_args__ = (
        _where("ix_attachment_unclaimed", "claimed_at IS NULL", "expires_at"),
        KEYED,
    )
    id: str = _id(primary=True)
    organisation: str = _text()
    client_id: str = _text()
    content_type: str = _text()
    size: int = _int()
    digest: str = _text()
    created_at: datetime = _utc()
    expires_at: datetime = _utc()
    claimed_at: datetime | None = _utc(null=True)


class AttachmentKeyRow(SQLModel, table=True):
    """An attachment's own key, sealed under the key of a message that names it; before the first
    does, under the upload's."""

    __tablename__ = "attachment_key"
    __table_args__ = (Index("ix_attachment_key_key", "key_id"), KEYED)
    attachment_id: str = _id(primary=True)
    key_id: str = _id(primary=True)
    sealed: bytes = _bytes()


class KeyCheckRow(SQLModel, table=True):
    """Proof that the key ring given at start-up is the one the data was sealed with."""

    __tablename__ = "key_check"
    __table_args__ = (STRICT,)
    key_id: str = _text(primary=True)
    purpose: str = _text()
    check_value: str = _text()


class ReferralRow(SQLModel, table=True):
    """Where a referral stands in its state machine, and the last move for its repeats."""

    __tablename__ = "referral"
    __table_args__ = (Index("ix_referral_receiver", "receiver", "state"), KEYED)
    subject_id: str = _id(primary=True)
    message_id: str = _id()
    state: str = _text()
    sender: str = _text()
    receiver: str = _text()
    receiver_service: str = _text()
    practice: str | None = _text(null=True)
    pathway: str = _text()
    priority: str = _text()
    state_before: str | None = _text(null=True)
    last_move: str | None = _text(null=True)
    last_move_by: str | None = _text(null=True)
    last_move_at: datetime | None = _utc(null=True)
    last_move_hmac: str | None = _text(null=True)
    last_event_id: str | None = _id(null=True)
    redirected_to: str | None = _text(null=True)


class TriageRow(SQLModel, table=True):
    """What its receiver made of a referral's priority, and when the patient was told what was
    found: a row only where there is something to say.

    `priority_asked` is the sender's own word where it is taken otherwise.
    """

    __tablename__ = "triage"
    __table_args__ = (KEYED,)
    subject_id: str = _id(primary=True)
    priority_asked: str | None = _text(null=True)
    priority_proposed: str | None = _text(null=True)
    diagnosed_at: datetime | None = _utc(null=True)


class ThreadRow(SQLModel, table=True):
    """A thread of clinical messages, by its subject, and the subject that it is about: a row only
    where it is about one."""

    __tablename__ = "thread"
    __table_args__ = (Index("ix_thread_about", "about_subject"), KEYED)
    subject_id: str = _id(primary=True)
    about_subject: str = _id()


class DeliveryRow(SQLModel, table=True):
    """One consumer's obligation for one event towards one destination.

    Inbox, retry queue, dead letters and tracking are the states of this row.
    """

    __tablename__ = "delivery"
    __table_args__ = (
        Index("ix_delivery_due", "state", "priority_rank", "due_at"),
        _where("ix_delivery_queue", "state = 'due'", "ods", "service", "priority_rank", "due_at"),
        _where("ix_delivery_open", "state <> 'done'", "ods", "position", "id"),
        Index("ix_delivery_lane", "ods", "service", "subject_id", "subject_seq"),
        Index("ix_delivery_inbox", "ods", "position", "id"),
        Index("ix_delivery_message", "message_id"),
        Index("ix_delivery_event", "event_id"),
        Index("ix_delivery_lease", "lease_until"),
        KEYED,
    )
    id: str = _id(primary=True)
    event_id: str = _id()
    position: int = _position()
    subject_id: str = _id()
    subject_seq: int = _int()
    message_id: str | None = _id(null=True)
    kind: str = _text()
    consumer: str = _text()
    ods: str = _text()
    service: str = _text()
    role: str = _text()
    reason: str = _text()
    channel: str = _text()
    priority: str = _text()
    priority_rank: int = _int()
    state: str = _text()
    held_reason: str | None = _text(null=True)
    done_reason: str | None = _text(null=True)
    code: str | None = _text(null=True)
    attempt: int = _int()
    due_at: datetime = _utc()
    first_due_at: datetime = _utc()
    lease_until: datetime | None = _utc(null=True)
    lease_by: str | None = _id(null=True)
    digest: str = _text()
    label: str = _text()
    consent: bool = _flag()
    agreement: str | None = _text(null=True)
    purpose: str = _text()
    created_at: datetime = _utc()
    collected_at: datetime | None = _utc(null=True)
    received_at: datetime | None = _utc(null=True)
    settled_at: datetime | None = _utc(null=True)


class AttemptRow(SQLModel, table=True):
    """What became of one attempt. Never changed once written."""

    __tablename__ = "attempt"
    __table_args__ = (KEYED,)
    delivery_id: str = _id(primary=True)
    number: int = _int(primary=True)
    started_at: datetime = _utc()
    ended_at: datetime = _utc()
    outcome: str = _text()
    code: str | None = _text(null=True)
    http_status: int | None = _int(null=True)


class ReceiptRow(SQLModel, table=True):
    """A destination's word that it stored a delivery. A mismatching one is kept as evidence."""

    __tablename__ = "receipt"
    __table_args__ = (Index("ix_receipt_delivery", "delivery_id"), KEYED)
    id: str = _id(primary=True)
    delivery_id: str = _id()
    named_delivery: str = _text()
    named_digest: str = _text()
    named_ods: str = _text()
    via: str = _text()
    matches: bool = _flag()
    client_id: str | None = _text(null=True)
    received_at: datetime = _utc()


class DecisionRow(SQLModel, table=True):
    """What a receiver decided about an update: filed, or rejected with a coded reason."""

    __tablename__ = "decision"
    __table_args__ = (Index("ix_decision_message", "message_id"), KEYED)
    delivery_id: str = _id(primary=True)
    message_id: str = _id()
    subject_id: str = _id()
    organisation: str = _text()
    client_id: str = _text()
    outcome: str = _text()
    reason: str | None = _text(null=True)
    said_hmac: str = _text()
    event_id: str = _id()
    decided_at: datetime = _utc()


class DeadlineRow(SQLModel, table=True):
    """By when what must have happened to a message, and whether it was raised or cleared.

    `lapsed` is why it was cleared though it was not met: replaced, withdrawn, closed, or the state
    in which its referral ended.
    """

    __tablename__ = "deadline"
    __table_args__ = (
        UniqueConstraint("message_id", "kind", "version", name="uq_deadline"),
        Index("ix_deadline_due", "cleared_at", "raised_at", "due_at"),
        KEYED,
    )
    id: str = _id(primary=True)
    message_id: str = _id()
    kind: str = _text()
    version: int = _int()
    owner: str = _text()
    source: str = _text()
    due_at: datetime = _utc()
    cleared_at: datetime | None = _utc(null=True)
    lapsed: str | None = _text(null=True)
    raised_at: datetime | None = _utc(null=True)


class EscalationRow(SQLModel, table=True):
    """That a deadline which passed is still not met, and when who else hears of it: one row for
    each step of its pathway's chain that was begun."""

    __tablename__ = "escalation"
    __table_args__ = (Index("ix_escalation_due", "told_at", "due_at"), KEYED)
    deadline_id: str = _id(primary=True)
    step: int = _int(primary=True)
    due_at: datetime = _utc()
    told_at: datetime | None = _utc(null=True)


class TelephoneCallRow(SQLModel, table=True):
    """That somebody telephoned about a same-day message; the note itself is sealed."""

    __tablename__ = "telephone_call"
    __table_args__ = (Index("ix_telephone_call_message", "message_id"), KEYED)
    id: str = _id(primary=True)
    message_id: str = _id()
    organisation: str = _text()
    client_id: str = _text()
    outcome: str = _text()
    called_at: datetime = _utc()
    recorded_at: datetime = _utc()


class WorkItemRow(SQLModel, table=True):
    """Something a person must look at: on the operations list, the sender's list, or both."""

    __tablename__ = "work_item"
    __table_args__ = (
        UniqueConstraint("code", "object_id", name="uq_work_item"),
        Index("ix_work_item_open", "closed_at", "priority_rank", "due_at"),
        Index("ix_work_item_message", "message_id"),
        KEYED,
    )
    id: str = _id(primary=True)
    code: str = _text()
    object_id: str = _id()
    message_id: str | None = _id(null=True)
    delivery_id: str | None = _id(null=True)
    organisation: str | None = _text(null=True)
    priority: str = _text()
    priority_rank: int = _int()
    due_at: datetime = _utc()
    opened_at: datetime = _utc()
    closed_at: datetime | None = _utc(null=True)
    closed_reason: str | None = _text(null=True)


class EndpointStateRow(SQLModel, table=True):
    """The breaker of a destination; locked at claim, so that slots hold over many processes."""

    __tablename__ = "endpoint_state"
    __table_args__ = (KEYED,)
    ods: str = _text(primary=True)
    service: str = _text(primary=True)
    failures: int = _int()
    open_until: datetime | None = _utc(null=True)
    updated_at: datetime = _utc()


class PauseRow(SQLModel, table=True):
    """A place at which nothing is attempted: a service, or without one an organisation with all of
    them; without an organisation, everywhere."""

    __tablename__ = "pause"
    __table_args__ = (KEYED,)
    id: str = _id()
    ods: str = _text(primary=True)
    service: str = _text(primary=True)
    since: datetime = _utc()


class RestorationRow(SQLModel, table=True):
    """That the database came from a backup which ended at `position`, by how much the sequence of
    each subject was raised then, and how far its reconciliation is. Never deleted."""

    __tablename__ = "restoration"
    __table_args__ = (KEYED,)
    id: str = _id(primary=True)
    position: int = _position()
    step: int = _int()
    begun_at: datetime = _utc()
    reconciled_at: datetime | None = _utc(null=True)
    ended_at: datetime | None = _utc(null=True)


class EndpointRefreshRow(SQLModel, table=True):
    """When an operator last had forgotten what was known of what an endpoint offers."""

    __tablename__ = "endpoint_refresh"
    __table_args__ = (KEYED,)
    ods: str = _text(primary=True)
    service: str = _text(primary=True)
    refreshed_at: datetime = _utc()


class IdempotencyKeyRow(SQLModel, table=True):
    """A key that has been used, for ever: the HMAC of what it was used for, and whose answer."""

    __tablename__ = "idempotency_key"
    __table_args__ = (KEYED,)
    organisation: str = _text(primary=True)
    family: str = _text(primary=True)
    key_hmac: str = _text(primary=True)
    body_hmac: str = _text()
    owner_id: str = _id()
    status: int = _int()
    created_at: datetime = _utc()


class JtiRow(SQLModel, table=True):
    """A client assertion that has been used; it is never taken again while it could be valid."""

    __tablename__ = "jti"
    __table_args__ = (Index("ix_jti_expires", "expires_at"), KEYED)
    issuer: str = _text(primary=True)
    jti: str = _text(primary=True)
    expires_at: datetime = _utc()


class AuditRow(SQLModel, table=True):
    """Who did what to what; each entry's hash covers the one before it."""

    __tablename__ = "audit"
    __table_args__ = (Index("ix_audit_object", "object_id"), STRICT)
    seq: int = _position(primary=True)
    time: datetime = _utc()
    actor: str = _text()
    organisation: str = _text()
    action: str = _text()
    object_kind: str = _text()
    object_id: str = _text()
    facts: Any = _codes()
    hash: str = _text()


class ResourceIndexRow(SQLModel, table=True):
    """Where each FHIR resource of each message stands, and the columns it is searched by."""

    __tablename__ = "resource_index"
    __table_args__ = (
        Index("ix_resource_message", "message_id"),
        _where("ix_resource_patient", "patient_pseudonym IS NOT NULL", "patient_pseudonym"),
        KEYED,
    )
    id: str = _id(primary=True)
    version: int = _int(primary=True)
    type: str = _text()
    message_id: str = _id()
    event_id: str = _id()
    subject_id: str = _id()
    status: str | None = _text(null=True)
    category: str | None = _text(null=True)
    code: str | None = _text(null=True)
    priority: str | None = _text(null=True)
    requester: str | None = _text(null=True)
    performer: str | None = _text(null=True)
    patient_pseudonym: str | None = _text(null=True)
    identifiers: Any = _codes(null=True)
    authored_at: datetime | None = _utc(null=True)
    updated_at: datetime = _utc()


class ResourceViewerRow(SQLModel, table=True):
    """Who may find what a message is about or where its referral stands, and what it is to them.

    One row for each organisation: a page of its own is read off an index, however many rows of
    others there are.
    """

    __tablename__ = "resource_viewer"
    __table_args__ = (
        Index("ix_viewer_updated", "organisation", "type", "updated_at", "resource_id"),
        Index("ix_viewer_authored", "organisation", "type", "authored_at", "resource_id"),
        KEYED,
    )
    organisation: str = _text(primary=True)
    resource_id: str = _id(primary=True)
    version: int = _int()
    type: str = _text()
    relation: str = _text()
    label: str = _text()
    authored_at: datetime = _utc()
    updated_at: datetime = _utc()


class ResourceIdentifierRow(SQLModel, table=True):
    """The business identifiers of what messages are about, as HMACs."""

    __tablename__ = "resource_identifier"
    __table_args__ = (KEYED,)
    identifier_hmac: str = _text(primary=True)
    resource_id: str = _id(primary=True)


class LeaseRow(SQLModel, table=True):
    """What one process of several does, and until when it is that one's."""

    __tablename__ = "lease"
    __table_args__ = (KEYED,)
    name: str = _text(primary=True)
    holder: str = _id()
    held_until: datetime = _utc()


class CursorRow(SQLModel, table=True):
    """A reader's place in the ledger."""

    __tablename__ = "cursor"
    __table_args__ = (KEYED,)
    name: str = _text(primary=True)
    position: int = _position()


class ClientRow(SQLModel, table=True):
    """Software that may call, and what it may do."""

    __tablename__ = "client"
    __table_args__ = (KEYED,)
    id: str = _text(primary=True)
    name: str = _text()
    algorithms: Any = _codes()
    scopes: Any = _codes()
    created_at: datetime = _utc()
    disabled_at: datetime | None = _utc(null=True)


class ClientKeyRow(SQLModel, table=True):
    """A client's public key. Several may be valid at once, so that keys rotate in peace."""

    __tablename__ = "client_key"
    __table_args__ = (KEYED,)
    client_id: str = _text(primary=True)
    kid: str = _text(primary=True)
    jwk: Any = _codes()
    created_at: datetime = _utc()
    revoked_at: datetime | None = _utc(null=True)


class GrantRow(SQLModel, table=True):
    """That a client may act for an organisation, from and to when."""

    __tablename__ = "grant"
    __table_args__ = (KEYED,)
    client_id: str = _text(primary=True)
    organisation: str = _text(primary=True)
    valid_from: datetime = _utc()
    valid_to: datetime | None = _utc(null=True)
    revoked_at: datetime | None = _utc(null=True)


class WebhookSecretRow(SQLModel, table=True):
    """A secret that signs webhooks to an organisation, sealed; two may be valid at once."""

    __tablename__ = "webhook_secret"
    __table_args__ = (Index("ix_webhook_secret_ods", "ods"), KEYED)
    id: str = _id(primary=True)
    ods: str = _text()
    kek_id: str = _text()
    sealed: bytes = _bytes()
    created_at: datetime = _utc()
    retired_at: datetime | None = _utc(null=True)


class DirectoryHeadRow(SQLModel, table=True):
    """Which version of the directory is in force; read in every accepting transaction."""

    __tablename__ = "directory_head"
    __table_args__ = (STRICT,)
    id: int = _int(primary=True)
    version: int = _int()
    loaded_at: datetime = _utc()


class DirectoryRow(SQLModel, table=True):
    """One entry of the directory in force: an organisation, service, endpoint, contact or
    agreement, as the loaded file states it."""

    __tablename__ = "directory"
    __table_args__ = (KEYED,)
    kind: str = _text(primary=True)
    code: str = _text(primary=True)
    entry: Any = _codes()


def _table(model: type[SQLModel]) -> Table:
    found: Table = SQLModel.metadata.tables[str(model.__tablename__)]
    return found


METADATA = SQLModel.metadata

ledger_head = _table(LedgerHead)
subject = _table(SubjectRow)
message = _table(MessageRow)
event = _table(EventRow)
payload = _table(PayloadRow)
message_key = _table(MessageKeyRow)
attachment = _table(AttachmentRow)
attachment_key = _table(AttachmentKeyRow)
key_check = _table(KeyCheckRow)
referral = _table(ReferralRow)
triage = _table(TriageRow)
thread = _table(ThreadRow)
delivery = _table(DeliveryRow)
attempt = _table(AttemptRow)
receipt = _table(ReceiptRow)
decision = _table(DecisionRow)
deadline = _table(DeadlineRow)
escalation = _table(EscalationRow)
telephone_call = _table(TelephoneCallRow)
work_item = _table(WorkItemRow)
endpoint_state = _table(EndpointStateRow)
pause = _table(PauseRow)
restoration = _table(RestorationRow)
endpoint_refresh = _table(EndpointRefreshRow)
idempotency_key = _table(IdempotencyKeyRow)
jti = _table(JtiRow)
audit = _table(AuditRow)
resource_index = _table(ResourceIndexRow)
resource_viewer = _table(ResourceViewerRow)
resource_identifier = _table(ResourceIdentifierRow)
cursor = _table(CursorRow)
lease = _table(LeaseRow)
client = _table(ClientRow)
client_key = _table(ClientKeyRow)
grant = _table(GrantRow)
webhook_secret = _table(WebhookSecretRow)
directory_head = _table(DirectoryHeadRow)
directory = _table(DirectoryRow)


@cache
def into(table: Table) -> Insert:
    """Return the insertion of whole rows, built once: building costs as much as inserting."""
    return insert(table)
