"""Deadlines and the work-list: what is overdue, who must look at it, and what cleared it."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Update,
    and_,
    bindparam,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.engine import Row

from broker.events import Priority, uuid7
from broker.store import tables as t
from broker.store.tx import DEADLINES, Tx

dl = t.deadline.c
wi = t.work_item.c


# A deadline that falls this soon wakes who watches; whoever watches looks at least this often.
SOON: Final = timedelta(minutes=1)
DELIVERY_DEAD: Final = "delivery-dead"
FALSE_RECEIPT: Final = "receipt-mismatch"

_DEADLINES_OF: Final = (
    select(t.deadline)
    .where(dl.message_id.in_(bindparam("messages", expanding=True)))
    .order_by(dl.due_at)
)
_RUNNING: Final = select(dl.id, dl.kind).where(
    and_(dl.message_id == bindparam("message"), dl.cleared_at.is_(None))
)
_STOP: Final = update(t.deadline).where(dl.id.in_(bindparam("ids", expanding=True)))
_CLOSE_OF_STOPPED: Final = update(t.work_item).where(
    and_(wi.object_id.in_(bindparam("ids", expanding=True)), wi.closed_at.is_(None))
)
_ITEM: Final = select(wi.id, wi.closed_at).where(
    and_(wi.code == bindparam("code"), wi.object_id == bindparam("object"))
)


def deadline_row(
    message_id: str, version: int, kind: str, owner: str, source: str, due: datetime
) -> dict[str, Any]:
    """Return the row of a clock that starts to run."""
    return {
        "id": uuid7(),
        "message_id": message_id,
        "kind": kind,
        "version": version,
        "owner": owner,
        "source": source,
        "due_at": due,
        "cleared_at": None,
        "raised_at": None,
    }


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
    tx: Tx,
    message_id: str,
    why: str,
    *kinds: str,
    but: Collection[str] = (),
    at: datetime | None = None,
) -> None:
    """Let what is not met of a message's deadlines of these kinds (of all kinds `but` some, if none
    is named) run no longer, without a claim that it was met."""
    _stop(tx, message_id, kinds, but, at, lapsed=why)


def _stop(
    tx: Tx,
    message_id: str,
    kinds: Collection[str],
    but: Collection[str],
    at: datetime | None,
    lapsed: str | None,
) -> None:
    running = tx.all(_RUNNING, {"message": message_id})
    ids = [one.id for one in running if one.kind not in but and (not kinds or one.kind in kinds)]
    if not ids:
        return
    tx.execute(_STOP, {"ids": ids, "cleared_at": at or tx.now, "lapsed": lapsed})
    closed = {"closed_at": tx.now, "closed_reason": lapsed or "met-late"}
    tx.execute(_CLOSE_OF_STOPPED, {"ids": ids, **closed})


def pause(tx: Tx, message_id: str, kind: str, why: str, at: datetime) -> None:
    """Stop a clock of a message that has not passed yet; `resume` lets it run on."""
    tx.execute(
        update(t.deadline)
        .where(
            and_(
                dl.message_id == message_id,
                dl.kind == kind,
                dl.cleared_at.is_(None),
                dl.raised_at.is_(None),
                dl.due_at > at,
            )
        )
        .values(cleared_at=at, lapsed=why)
    )


def resume(tx: Tx, message_id: str, kind: str, why: str, at: datetime) -> None:
    """Let a clock that was paused run on, for as long as it had left."""
    paused = tx.connection.execute(
        select(t.deadline).where(
            and_(dl.message_id == message_id, dl.kind == kind, dl.lapsed == why)
        )
    ).all()
    for row in paused:
        tx.execute(
            update(t.deadline)
            .where(dl.id == row.id)
            .values(cleared_at=None, lapsed=None, due_at=at + (row.due_at - row.cleared_at))
        )
    if paused:
        tx.wake(DEADLINES)


def carry(tx: Tx, old: str, new: str, kinds: Collection[str]) -> None:
    """Let what runs of these kinds for a message run on for the version that replaces it."""
    ids = [one.id for one in tx.all(_RUNNING, {"message": old}) if one.kind in kinds]
    if not ids:
        return
    tx.execute(update(t.deadline).where(dl.id.in_(ids)).values(message_id=new))
    tx.execute(update(t.work_item).where(wi.object_id.in_(ids)).values(message_id=new))


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
    return connection.execute(_DEADLINES_OF, {"messages": list(message_ids)}).all()


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
) -> bool:
    """Put something on the work-list, once per code and object; a closed item is opened again.

    Returns whether it was not open already.
    """
    there = tx.first(_ITEM, {"code": code, "object": object_id})
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
    return there is None or there.closed_at is not None


def close_items(tx: Tx, reason: str, **of: str) -> None:
    """Close the open items that have these values, of a message say, with a coded reason."""
    wanted = {f"of_{name}": value for name, value in of.items()}
    closed = {"closed_at": tx.now, "closed_reason": reason}
    tx.execute(_close(tuple(of)), {**wanted, **closed})


@cache
def _close(by: tuple[str, ...]) -> Update:
    """Close what is open and has these values in these columns."""
    chosen = [t.work_item.c[name] == bindparam(f"of_{name}") for name in by]
    return update(t.work_item).where(and_(wi.closed_at.is_(None), *chosen))


def leave_lists(tx: Tx, reason: str, message_id: str) -> None:
    """Close what is open about a message, whose sender has done with it.

    A dead delivery stays: it blocks its lane, and what follows it too, until an operator retries it
    or gives it up. So does a false receipt: what its receiver holds is not known, and whether it
    understands that it is withdrawn is not known either.
    """
    is_theirs = and_(wi.message_id == message_id, wi.code.not_in((DELIVERY_DEAD, FALSE_RECEIPT)))
    tx.execute(
        update(t.work_item)
        .where(and_(is_theirs, wi.closed_at.is_(None)))
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
