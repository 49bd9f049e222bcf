"""Referrals and decisions: where each stands, and the last move for its repeats."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    and_,
    bindparam,
    null,
    select,
    update,
)
from sqlalchemy.engine import Row

from broker.store import newest
from broker.store import tables as t
from broker.store.tx import Tx

_NAMED: Final = ("delivery_id", "named_delivery", "named_digest", "named_ods")
_SAME_RECEIPT: Final = select(t.receipt.c.id).where(
    and_(*(t.receipt.c[name] == bindparam(name) for name in _NAMED))
)
_CHANGE: Final = update(t.referral).where(t.referral.c.subject_id == bindparam("this"))
_TRIAGE: Final = [column for column in t.triage.c if column.name != "subject_id"]
_FROM: Final = t.referral.join(t.subject, t.subject.c.id == t.referral.c.subject_id)


def _get(came_from: FromClause, triage: Sequence[ColumnElement[Any]]) -> Select[Any]:
    return (
        select(t.referral, t.subject.c.version, t.subject.c.last_seq, *triage)
        .select_from(came_from)
        .where(t.referral.c.subject_id == bindparam("this"))
    )


_GET: Final = _get(
    _FROM.outerjoin(t.triage, t.triage.c.subject_id == t.referral.c.subject_id), _TRIAGE
)
_GET_BEFORE: Final = _get(_FROM, [null().label(column.name) for column in _TRIAGE])


def put(tx: Tx, row: dict[str, Any]) -> None:
    """Open a referral."""
    tx.execute(t.into(t.referral), row)


def get(connection: Connection, subject: str) -> Row[Any] | None:
    """Return a referral with its version (ETag), and what was made of its priority."""
    statement = _GET if newest.is_here(connection) else _GET_BEFORE
    return connection.execute(statement, {"this": subject}).first()


def labelled(connection: Connection, subject: str) -> Row[Any] | None:
    """Return a referral with its message's label: what access to it is decided by."""
    return connection.execute(
        select(t.referral, t.message.c.label)
        .join(t.message, t.message.c.id == t.referral.c.message_id)
        .where(t.referral.c.subject_id == subject)
    ).first()


def change(tx: Tx, subject: str, **values: Any) -> None:
    """Change a referral's row. The caller has locked its subject."""
    tx.execute(_CHANGE, {"this": subject, **values})


def put_decision(tx: Tx, row: dict[str, Any]) -> None:
    """Write a decision about an update."""
    tx.execute(t.into(t.decision), row)


def decision(connection: Connection, delivery_id: str) -> Row[Any] | None:
    """Return what was decided about a delivery."""
    return connection.execute(
        select(t.decision).where(t.decision.c.delivery_id == delivery_id)
    ).first()


def decisions_of(connection: Connection, message_id: str) -> Sequence[Row[Any]]:
    """Return every decision about a message."""
    return connection.execute(
        select(t.decision)
        .where(t.decision.c.message_id == message_id)
        .order_by(t.decision.c.decided_at)
    ).all()


def put_receipt(tx: Tx, row: dict[str, Any]) -> None:
    """Keep a receipt, matching or not; the same one again changes nothing."""
    if tx.first(_SAME_RECEIPT, {name: row[name] for name in _NAMED}) is None:
        tx.execute(t.into(t.receipt), row)


def receipts_of(connection: Connection, ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Return the receipts of these deliveries, in order."""
    return connection.execute(
        select(t.receipt)
        .where(t.receipt.c.delivery_id.in_(list(ids)))
        .order_by(t.receipt.c.received_at)
    ).all()


def put_call(tx: Tx, row: dict[str, Any]) -> None:
    """Record a telephone call about a message."""
    tx.execute(t.into(t.telephone_call), row)


def calls_of(connection: Connection, message_id: str) -> Sequence[Row[Any]]:
    """Return the telephone calls about a message."""
    return connection.execute(
        select(t.telephone_call)
        .where(t.telephone_call.c.message_id == message_id)
        .order_by(t.telephone_call.c.called_at)
    ).all()
