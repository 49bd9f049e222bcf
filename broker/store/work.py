"""Deadlines and the work-list: what is overdue, who must look at it, and what cleared it."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, update
from sqlalchemy.engine import Row

from broker.events import Priority, uuid7
from broker.store import tables as t
from broker.store.tx import DEADLINES, Tx

dl = t.deadline.c
wi = t.work_item.c


# A deadline that falls this soon wakes who watches; whoever watches looks at least this often.
SOON: Final = timedelta(minutes=1)
DELIVERY_DEAD: Final = "delivery-dead"


def put_deadlines(tx: Tx, rows: Sequence[dict[str, Any]]) -> None:
    """Store deadlines."""
    tx.execute(t.into(t.deadline), list(rows))
    if any(row["due_at"] <= tx.now + SOON for row in rows):
        tx.wake(DEADLINES)


def due_deadlines(connection: Connection, now: datetime, limit: int) -> Sequence[Row[Any]]:
    """Return deadlines that have passed, were not met and were not yet raised."""
    return connection.execute(
        select(t.deadline)
        .where(and_(dl.cleared_at.is_(None), dl.raised_at.is_(None), dl.due_at <= now))
        .order_by(dl.due_at)
        .limit(limit)
    ).all()


def next_deadline(connection: Connection) -> datetime | None:
    """Return when the next open deadline passes, or None."""
    found: datetime | None = connection.execute(
        select(func.min(dl.due_at)).where(and_(dl.cleared_at.is_(None), dl.raised_at.is_(None)))
    ).scalar()
    return found


def raise_deadline(tx: Tx, deadline_id: str) -> bool:
    """Mark a deadline as raised; False where it was met or raised meanwhile."""
    return (
        tx.execute(
            update(t.deadline)
            .where(and_(dl.id == deadline_id, dl.cleared_at.is_(None), dl.raised_at.is_(None)))
            .values(raised_at=tx.now)
        ).rowcount
        == 1
    )


def clear(
    tx: Tx,
    message_id: str,
    *kinds: str,
    but: Collection[str] = (),
    at: datetime | None = None,
) -> None:
    """Meet a message's deadlines of these kinds (of all kinds `but` some, if none is named), and
    close what stood on a list for them."""
    _stop(tx, message_id, kinds, but, at, lapsed=None)


def lapse(
    tx: Tx, message_id: str, why: str, *, but: Collection[str] = (), at: datetime | None = None
) -> None:
    """Let what is not met of a message's deadlines (`but` of these kinds) run no longer, without a
    claim that it was met."""
    _stop(tx, message_id, (), but, at, lapsed=why)


def _stop(
    tx: Tx,
    message_id: str,
    kinds: Collection[str],
    but: Collection[str],
    at: datetime | None,
    lapsed: str | None,
) -> None:
    wanted = [dl.message_id == message_id, dl.cleared_at.is_(None), dl.kind.not_in(but)]
    if kinds:
        wanted.append(dl.kind.in_(kinds))
    ids = list(tx.execute(select(dl.id).where(and_(*wanted))).scalars())
    if not ids:
        return
    stopped = update(t.deadline).where(dl.id.in_(ids))
    tx.execute(stopped.values(cleared_at=at or tx.now, lapsed=lapsed))
    tx.execute(
        update(t.work_item)
        .where(and_(wi.object_id.in_(ids), wi.closed_at.is_(None)))
        .values(closed_at=tx.now, closed_reason=lapsed or "met-late")
    )


def reopen(tx: Tx, message_id: str, met_at: datetime) -> None:
    """Open the deadlines again that a decision met which is now undone."""
    tx.execute(
        update(t.deadline)
        .where(and_(dl.message_id == message_id, dl.cleared_at == met_at))
        .values(cleared_at=None, lapsed=None, raised_at=None)
    )
    tx.wake(DEADLINES)


def deadlines_of(connection: Connection, message_ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Return the deadlines of these messages, soonest first."""
    return connection.execute(
        select(t.deadline).where(dl.message_id.in_(list(message_ids))).order_by(dl.due_at)
    ).all()


def put_item(
    tx: Tx,
    code: str,
    object_id: str,
    *,
    message_id: str | None,
    delivery_id: str | None = None,
    organisation: str | None,
    priority: str,
    due_at: datetime | None = None,
) -> None:
    """Put something on the work-list, once per code and object; a closed item is opened again."""
    there = tx.first(
        select(wi.id, wi.closed_at).where(and_(wi.code == code, wi.object_id == object_id))
    )
    if there is None:
        tx.execute(
            t.into(t.work_item),
            {
                "id": uuid7(),
                "code": code,
                "object_id": object_id,
                "message_id": message_id,
                "delivery_id": delivery_id,
                "organisation": organisation,
                "priority": priority,
                "priority_rank": Priority(priority).rank,
                "due_at": due_at or tx.now,
                "opened_at": tx.now,
                "closed_at": None,
                "closed_reason": None,
            },
        )
    elif there.closed_at is not None:
        tx.execute(
            update(t.work_item)
            .where(wi.id == there.id)
            .values(
                priority=priority,
                priority_rank=Priority(priority).rank,
                due_at=due_at or tx.now,
                opened_at=tx.now,
                closed_at=None,
                closed_reason=None,
            )
        )


def close_items(tx: Tx, reason: str, *, code: str | None = None, **of: str) -> None:
    """Close the open items of a message, delivery or object, with a coded reason."""
    wanted: list[ColumnElement[bool]] = [wi.closed_at.is_(None)]
    if code is not None:
        wanted.append(wi.code == code)
    wanted += [t.work_item.c[name] == value for name, value in of.items()]
    tx.execute(
        update(t.work_item).where(and_(*wanted)).values(closed_at=tx.now, closed_reason=reason)
    )


def leave_lists(tx: Tx, reason: str, message_id: str) -> None:
    """Close what is open about a message, whose sender has done with it. A dead delivery stays: it
    blocks its lane, and what follows it too, until an operator retries it or gives it up."""
    tx.execute(
        update(t.work_item)
        .where(and_(wi.message_id == message_id, wi.code != DELIVERY_DEAD, wi.closed_at.is_(None)))
        .values(closed_at=tx.now, closed_reason=reason)
    )


def open_items(
    connection: Connection,
    codes: Collection[str] | None,
    limit: int,
    *,
    after: tuple[int, datetime, str] | None = None,
) -> Sequence[Row[Any]]:
    """Return what is open, most urgent first: that of these ODS codes, or all for operators.

    With `after` (the rank, due time and id of an item), only what comes after it. `event_id` is
    what could not be fanned out.
    """
    wanted: list[ColumnElement[bool]] = [wi.closed_at.is_(None)]
    if codes is not None:
        wanted.append(wi.organisation.in_(sorted(codes)))
    if after is not None:
        rank, due_at, item_id = after
        later = or_(wi.due_at > due_at, and_(wi.due_at == due_at, wi.id > item_id))
        wanted.append(or_(wi.priority_rank > rank, and_(wi.priority_rank == rank, later)))
    return connection.execute(
        select(t.work_item, t.event.c.id.label("event_id"))
        .outerjoin(t.event, t.event.c.id == wi.object_id)
        .where(and_(*wanted))
        .order_by(wi.priority_rank, wi.due_at, wi.id)
        .limit(limit)
    ).all()


def items_of(connection: Connection, message_id: str) -> Sequence[Row[Any]]:
    """Return the open items of a message."""
    return connection.execute(
        select(t.work_item).where(and_(wi.message_id == message_id, wi.closed_at.is_(None)))
    ).all()
