"""Messages, their keys, payloads and index: written in one piece, read back whole."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, select, update
from sqlalchemy.engine import Row

from broker.events import Event, SubjectKind
from broker.store import attachments, work
from broker.store import tables as t
from broker.store.tx import Tx
from broker.vault import Binding, MessageKey, Tampered, Vault

m, p = t.message.c, t.payload.c

# What is asked for every message, built once: building costs more than asking.
# `conversation` is the correlation id of its event: what its sender calls the whole case.
_GET: Final = (
    select(t.message, t.event.c.correlation_id.label("conversation"))
    .outerjoin(t.event, t.event.c.id == m.event_id)
    .where(m.id == bindparam("message"))
)
_BY_ID: Final = select(t.message).where(m.id.in_(bindparam("messages", expanding=True)))
_OF_REFERENCE: Final = select(m.id).where(
    and_(m.sender == bindparam("sender"), m.reference_hmac == bindparam("reference_hmac"))
)
_PAYLOADS: Final = (
    select(t.payload, t.message_key.c.kek_id, t.message_key.c.wrapped)
    .join(t.message_key, t.message_key.c.id == p.key_id)
    .where(and_(p.owner_id.in_(bindparam("owners", expanding=True)), p.role == bindparam("role")))
    .order_by(p.version)
)


@dataclass(frozen=True, slots=True)
class Opened:
    """A payload in the clear, with what is known of it and the key that it was sealed with."""

    body: bytes
    content_type: str
    digest: str
    key: MessageKey
    version: int


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message ready to be stored: everything sealed, every id given.

    A `subject_kind` makes the subject; without one the message joins a subject that is there.
    """

    row: dict[str, Any]
    key: MessageKey
    payloads: Sequence[dict[str, Any]]
    event: Event
    subject_kind: SubjectKind | None = None
    index: Sequence[dict[str, Any]] = ()
    viewers: Sequence[dict[str, Any]] = ()
    identifiers: Sequence[dict[str, Any]] = ()
    deadlines: Sequence[dict[str, Any]] = ()
    attachments: Sequence[dict[str, Any]] = ()


def put(tx: Tx, new: NewMessage) -> None:
    """Store a message with its key, payloads, indexes, deadlines and event, in one piece."""
    if new.subject_kind is not None:
        tx.new_subject(new.event.subject, new.subject_kind, new.row["sender"])
    put_key(tx, new.key)
    tx.execute(t.into(t.message), new.row)
    tx.execute(t.into(t.payload), list(new.payloads))
    for table, rows in (
        (t.resource_index, new.index),
        (t.resource_viewer, new.viewers),
        (t.resource_identifier, new.identifiers),
    ):
        if rows:
            tx.execute(t.into(table), list(rows))
    if new.deadlines:
        work.put_deadlines(tx, new.deadlines)
    attachments.put_keys(tx, new.attachments)
    tx.record(new.event)


def put_key(tx: Tx, key: MessageKey) -> None:
    """Store a message's wrapped key."""
    tx.execute(t.into(t.message_key), {"id": key.id, "kek_id": key.kek_id, "wrapped": key.wrapped})


def put_payloads(tx: Tx, payloads: Sequence[dict[str, Any]]) -> None:
    """Store sealed payloads of a key that is there already."""
    if payloads:
        tx.execute(t.into(t.payload), list(payloads))


def put_payload(tx: Tx, row: dict[str, Any]) -> None:
    """Store a sealed payload of a key that is there already, unless it is there itself."""
    there = and_(p.owner_id == row["owner_id"], p.role == row["role"], p.version == row["version"])
    if tx.first(select(p.owner_id).where(there)) is None:
        tx.execute(t.into(t.payload), row)


def sealed(
    vault: Vault,
    key: MessageKey,
    binding: Binding,
    body: bytes,
    digest: str,
    now: datetime,
) -> dict[str, Any]:
    """Return a payload row with its bytes sealed as belonging to `binding`."""
    return {
        "owner_id": binding.owner,
        "role": binding.role,
        "version": binding.version,
        "key_id": key.id,
        "organisation": binding.organisation,
        "content_type": binding.content_type,
        "digest": digest,
        "size": len(body),
        "sealed": vault.seal(key, body, binding),
        "created_at": now,
    }


def get(connection: Connection, message_id: str) -> Row[Any] | None:
    """Return a message's row."""
    return connection.execute(_GET, {"message": message_id}).first()


def by_id(connection: Connection, message_ids: Iterable[str]) -> dict[str, Row[Any]]:
    """Return the rows of these messages; one that is not there is absent."""
    wanted = list(message_ids)
    if not wanted:
        return {}
    rows = connection.execute(_BY_ID, {"messages": wanted}).all()
    return {row.id: row for row in rows}


def key_of(connection: Connection, vault: Vault, key_id: str) -> MessageKey | None:
    """Return a message's key, or None where the message was erased."""
    row = connection.execute(
        select(t.message_key.c.kek_id, t.message_key.c.wrapped).where(t.message_key.c.id == key_id)
    ).first()
    return None if row is None else vault.unwrap(key_id, row.kek_id, row.wrapped)


def payload(connection: Connection, vault: Vault, owner: str, role: str) -> Opened | None:
    """Open the newest payload of an owner in a role; None where it was erased."""
    found = payloads(connection, vault, [owner], role)
    return found.get(owner)


def payloads(
    connection: Connection, vault: Vault, owners: Iterable[str], role: str
) -> dict[str, Opened]:
    """Open the newest payload in a role of each owner; an erased one is absent. Raises Tampered."""
    wanted = list(owners)
    if not wanted:
        return {}
    rows = connection.execute(_PAYLOADS, {"owners": wanted, "role": role}).all()
    return {row.owner_id: open_row(vault, row) for row in rows}


def opened(
    connection: Connection, vault: Vault, owners: Iterable[str], role: str
) -> dict[str, Opened | Tampered]:
    """Open the newest payload in a role of each owner, or say that it does not open; an erased one
    is absent."""
    found: dict[str, Opened | Tampered] = {}
    for row in connection.execute(_PAYLOADS, {"owners": list(owners), "role": role}).all():
        try:
            found[row.owner_id] = open_row(vault, row)
        except Tampered as error:
            found[row.owner_id] = error
    return found


def open_row(vault: Vault, row: Row[Any]) -> Opened:
    """Open a payload row that was selected with its key. Raises Tampered."""
    key = vault.unwrap(row.key_id, row.kek_id, row.wrapped)
    binding = Binding(row.owner_id, row.role, row.version, row.organisation, row.content_type)
    body = vault.open(key, row.sealed, binding)
    if len(body) != row.size:
        raise Tampered(f"{binding.role} of {binding.owner} has another length than recorded")
    return Opened(body, row.content_type, row.digest, key, row.version)


def set_status(tx: Tx, message_id: str, status: str, reason: str | None = None) -> None:
    """Say that a message was replaced, withdrawn or closed; the message itself stays."""
    tx.execute(
        update(t.message)
        .where(t.message.c.id == message_id)
        .values(status=status, closed_reason=reason)
    )


def set_priority(tx: Tx, message_id: str, priority: str) -> None:
    """Let a message be as urgent as it is taken now."""
    tx.execute(update(t.message).where(m.id == message_id).values(priority=priority))


def exists(tx: Tx, message_id: str) -> bool:
    """Whether a message is stored already."""
    return tx.first(select(m.id).where(m.id == message_id)) is not None


def put_withheld(tx: Tx, row: dict[str, Any]) -> None:
    """Store that a message was not sent, and nothing else of it."""
    tx.execute(t.into(t.message), row | {"clinical_at": tx.now, "accepted_at": tx.now})


def of_reference(connection: Connection, sender: str, reference_hmac: str | None) -> str | None:
    """Return the message that stands for a sender's own reference, or None."""
    values = {"sender": sender, "reference_hmac": reference_hmac}
    found: str | None = connection.execute(_OF_REFERENCE, values).scalar()
    return found


def of_resource(connection: Connection, kind: str, resource_id: str) -> str | None:
    """Return the message that a FHIR resource of this type came with, by the id it was given."""
    r = t.resource_index.c
    wanted = and_(r.id == resource_id, r.type == kind)
    found: str | None = connection.execute(select(r.message_id).where(wanted).limit(1)).scalar()
    return found


def release_reference(tx: Tx, message_id: str) -> None:
    """Let another version stand for the reference of this one."""
    tx.execute(update(t.message).where(t.message.c.id == message_id).values(reference_hmac=None))


def retire(tx: Tx, message_id: str, status: str) -> None:
    """Let a version stand no longer: its clocks stop and it leaves its sender's lists."""
    set_status(tx, message_id, status)
    work.lapse(tx, message_id, status)
    work.leave_lists(tx, status, message_id)


def replacement_of(connection: Connection, message_id: str) -> Row[Any] | None:
    """Return the version that replaced a message, or None. Its withdrawal is no version of it."""
    return connection.execute(
        select(t.message).where(and_(m.replaces == message_id, m.body_hmac.is_not(None))).limit(1)
    ).first()


def posted_with(connection: Connection, message: Row[Any]) -> str:
    """Return the message of the same post that carries its reference: the one to correct.

    Whoever sent it: where its sender has closed, a successor may have corrected it.
    """
    if message.reference_hmac is not None:
        return str(message.id)
    wanted = and_(
        m.correlation_id == message.correlation_id,
        m.door == message.door,
        m.reference_hmac.is_not(None),
    )
    found: str | None = connection.execute(select(m.id).where(wanted).limit(1)).scalar()
    return found or message.id


def joined(connection: Connection, correlation_id: str) -> Sequence[Row[Any]]:
    """Return every message of a correlation, oldest first."""
    return connection.execute(
        select(t.message)
        .where(t.message.c.correlation_id == correlation_id)
        .order_by(t.message.c.accepted_at, t.message.c.id)
    ).all()
