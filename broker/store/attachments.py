"""Attachments: what was uploaded, which messages name it, and under whose keys its own key is."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, and_, delete, inspect, or_, select, update
from sqlalchemy.engine import Row

from broker.store import tables as t
from broker.store.deliveries import HIDDEN
from broker.store.tx import Tx
from broker.vault import Binding, MessageKey, Vault

a, k, d = t.attachment.c, t.attachment_key.c, t.delivery.c
# What an attachment's own key is to it, in the binding of the sealed key. Never changed.
ROLE: Final = "attachment-key"


@dataclass(frozen=True, slots=True)
class ContentKey:
    """The key that the file of an attachment is sealed under, and what it is bound to."""

    attachment: str
    organisation: str
    content_type: str
    raw: bytes = field(repr=False)

    def sealed(self, vault: Vault, key: MessageKey) -> dict[str, Any]:
        """Return the row by which whoever has a message's key can open the file too."""
        binding = _binding(self.attachment, self.organisation, self.content_type)
        sealed = vault.seal(key, self.raw, binding)
        return {"attachment_id": self.attachment, "key_id": key.id, "sealed": sealed}


def _binding(attachment: str, organisation: str, content_type: str) -> Binding:
    return Binding(attachment, ROLE, 1, organisation, content_type)


def put(tx: Tx, row: dict[str, Any], key: dict[str, Any]) -> None:
    """Store that an upload is there, and its key under the upload's own."""
    tx.execute(t.into(t.attachment), row)
    put_keys(tx, [key])


def put_keys(tx: Tx, rows: Sequence[dict[str, Any]]) -> None:
    """Let these messages open what they name."""
    if rows:
        tx.execute(t.into(t.attachment_key), list(rows))


def found(connection: Connection, ids: Iterable[str]) -> dict[str, Row[Any]]:
    """Return the rows of these attachments; one that is not there is absent."""
    if not is_there(connection):
        return {}
    wanted = select(t.attachment).where(a.id.in_(list(ids)))
    return {row.id: row for row in connection.execute(wanted)}


def claim(tx: Tx, ids: Collection[str]) -> dict[str, Row[Any]]:
    """Return the rows of these attachments, held until the end of the transaction."""
    wanted = select(t.attachment).where(a.id.in_(sorted(ids))).order_by(a.id).with_for_update()
    return {row.id: row for row in tx.all(wanted)}


def set_claimed(tx: Tx, ids: Collection[str]) -> None:
    """Say that a message names these: from now on they open by the keys of messages alone."""
    mine = and_(a.id.in_(sorted(ids)), a.claimed_at.is_(None))
    tx.execute(update(t.attachment).where(mine).values(claimed_at=tx.now))
    tx.execute(delete(t.attachment_key).where(and_(k.attachment_id.in_(ids), k.key_id.in_(ids))))


def content_key(
    connection: Connection, vault: Vault, attachment: str, messages: Collection[str] | None = None
) -> ContentKey | None:
    """Return an attachment's own key, by any of these messages or of all that name it; None where
    they were erased."""
    where = k.attachment_id == attachment
    if messages is not None:
        where = and_(where, k.key_id.in_(sorted(messages)))
    return next(iter(_content_keys(connection, vault, where, 1)), None)


def carried(connection: Connection, vault: Vault, message: str) -> list[ContentKey]:
    """Return the keys of all that a message names."""
    return _content_keys(connection, vault, k.key_id == message, None)


def _content_keys(
    connection: Connection, vault: Vault, where: Any, limit: int | None
) -> list[ContentKey]:
    rows = connection.execute(
        select(
            k.sealed,
            k.key_id,
            a.id,
            a.organisation,
            a.content_type,
            t.message_key.c.kek_id,
            t.message_key.c.wrapped,
        )
        .join(t.attachment, a.id == k.attachment_id)
        .join(t.message_key, t.message_key.c.id == k.key_id)
        .where(where)
        .order_by(k.attachment_id, k.key_id)
        .limit(limit)
    ).all()
    return [
        ContentKey(
            row.id,
            row.organisation,
            row.content_type,
            vault.open(
                vault.unwrap(row.key_id, row.kek_id, row.wrapped),
                row.sealed,
                _binding(row.id, row.organisation, row.content_type),
            ),
        )
        for row in rows
    ]


def addressed(
    connection: Connection, attachment: str, organisations: Collection[str]
) -> Sequence[Any]:
    """Return (role, label, message_id) of what stands in the inboxes of these organisations of any
    message that names an attachment."""
    return connection.execute(
        select(d.role, d.label, d.message_id)
        .join(t.attachment_key, k.key_id == d.message_id)
        .where(
            and_(
                k.attachment_id == attachment,
                d.ods.in_(sorted(organisations)),
                or_(d.held_reason.is_(None), d.held_reason.not_in(HIDDEN)),
            )
        )
    ).all()


def unclaimed(connection: Connection, now: datetime, limit: int) -> list[str]:
    """Return uploads that no message named in time, oldest first."""
    lapsed = and_(a.claimed_at.is_(None), a.expires_at <= now)
    wanted = select(a.id).where(lapsed).order_by(a.expires_at).limit(limit)
    return list(connection.execute(wanted).scalars())


def forget(tx: Tx, ids: Collection[str]) -> list[str]:
    """Forget those of these uploads that no message names yet, with their keys and what their
    sender was answered; return which."""
    gone = [one for one, row in claim(tx, ids).items() if row.claimed_at is None]
    for table, column in (
        (t.attachment_key, k.attachment_id),
        (t.attachment, a.id),
        (t.payload, t.payload.c.owner_id),
        (t.message_key, t.message_key.c.id),
    ):
        tx.execute(delete(table).where(column.in_(gone)))
    return gone


def known(connection: Connection, ids: Collection[str]) -> set[str]:
    """Return which of these there are."""
    return set(connection.execute(select(a.id).where(a.id.in_(list(ids)))).scalars())


def is_there(connection: Connection) -> bool:
    """Whether the schema has a place for attachments: that of the release before has none."""
    return inspect(connection).has_table(t.attachment.name)


def every(connection: Connection) -> Sequence[Any]:
    """Return (id, size, claimed_at) of all there are: none where the schema knows of none."""
    if not is_there(connection):
        return ()
    return connection.execute(select(a.id, a.size, a.claimed_at).order_by(a.id)).all()
