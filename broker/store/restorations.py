"""That a database came from a backup: what it begins anew with, and how far it is reconciled."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, and_, or_, select, text, update
from sqlalchemy.engine import Row

from broker.events import uuid7
from broker.store import ledger
from broker.store import tables as t
from broker.store.tx import Tx

STEP: Final = 1_000_000
"""By how much the sequence of each subject is raised: more than any could have gone on since."""

d, r, s = t.delivery.c, t.restoration.c, t.subject.c


def current(connection: Connection) -> Row[Any] | None:
    """Return the restoration that is under way, or None."""
    return connection.execute(select(t.restoration).where(r.ended_at.is_(None))).first()


def begin(tx: Tx) -> Row[Any]:
    """Note that this came from a backup, and raise the sequence of every subject beyond any that
    can have been given out after it."""
    if tx.connection.dialect.name == "postgresql":  # there may be a million subjects
        tx.execute(text("SET LOCAL statement_timeout = 0"))
    values = {
        "id": uuid7(),
        "position": ledger.head(tx.connection),
        "step": STEP,
        "begun_at": tx.now,
        "reconciled_at": None,
        "ended_at": None,
    }
    tx.execute(t.into(t.restoration), values)
    tx.execute(update(t.subject).values(last_seq=s.last_seq + STEP))
    return tx.execute(select(t.restoration).where(r.id == values["id"])).one()


def note_reconciled(tx: Tx, restoration: str) -> None:
    """Note that what others hold was compared."""
    tx.execute(update(t.restoration).where(r.id == restoration).values(reconciled_at=tx.now))


def end(tx: Tx, restoration: str) -> None:
    """Note that it is over."""
    tx.execute(update(t.restoration).where(r.id == restoration).values(ended_at=tx.now))


def unsent(
    connection: Connection, position: int, *, subject: str | None = None
) -> Sequence[Row[Any]]:
    """Return what was not done when the backup was made, of all or one subject: it may have been
    sent since. The steps behind the first of each lane are among them."""
    wanted = and_(
        d.position <= position,
        d.channel != "inbox",
        or_(d.state == "due", d.held_reason == "predecessor"),
    )
    if subject is not None:
        wanted = and_(wanted, d.subject_id == subject)
    return connection.execute(
        select(t.delivery).where(wanted).order_by(d.priority_rank, d.position, d.id)
    ).all()
