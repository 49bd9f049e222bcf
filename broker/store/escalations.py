"""Deadlines that passed and are still not met: when who else hears of each, step by step."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, select, update
from sqlalchemy.engine import Row

from broker.store import newest
from broker.store import tables as t
from broker.store.tx import DEADLINES, Tx

e, dl = t.escalation.c, t.deadline.c
_OF: ColumnElement[bool] = and_(
    e.deadline_id == dl.id, e.told_at.is_(None), dl.cleared_at.is_(None)
)


def put(tx: Tx, deadline_id: str, step: int, due: datetime) -> None:
    """Note when the next step of a deadline is due. Safe to repeat; the schema before has none."""
    if not newest.is_here(tx.connection):
        return
    this = and_(e.deadline_id == deadline_id, e.step == step)
    if not tx.execute(update(t.escalation).where(this).values(due_at=due, told_at=None)).rowcount:
        values = {"deadline_id": deadline_id, "step": step, "due_at": due, "told_at": None}
        tx.execute(t.into(t.escalation), values)
    tx.wake(DEADLINES)


def due(connection: Connection, now: datetime, limit: int) -> Sequence[Row[Any]]:
    """Return the steps that are due of deadlines that are still not met, with the deadlines."""
    if not newest.is_here(connection):
        return []
    return connection.execute(
        select(t.deadline, e.step)
        .where(and_(_OF, e.due_at <= now))
        .order_by(e.due_at, e.deadline_id)
        .limit(limit)
    ).all()


def next_due(connection: Connection) -> datetime | None:
    """Return when the next step is due, or None."""
    if not newest.is_here(connection):
        return None
    found: datetime | None = connection.execute(
        select(func.min(e.due_at, type_=e.due_at.type)).where(_OF)
    ).scalar()
    return found


def told(tx: Tx, deadline_id: str, step: int) -> bool:
    """Mark a step as done; False where another was first, or the deadline was met meanwhile."""
    still = select(dl.id).where(and_(dl.id == deadline_id, dl.cleared_at.is_(None))).exists()
    this = and_(e.deadline_id == deadline_id, e.step == step, e.told_at.is_(None), still)
    done = tx.execute(update(t.escalation).where(this).values(told_at=tx.now))
    return done.rowcount == 1
