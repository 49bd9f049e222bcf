"""Where nothing is attempted: set by operators, heeded by every claim. What stands there stays."""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    delete,
    func,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.engine import Row

from broker.events import Destination, uuid7
from broker.store import tables as t
from broker.store.tx import DELIVERIES, Tx

EVERYWHERE: Final = Destination("")

d, p = t.delivery.c, t.pause.c
_LISTING: Final = select(t.pause).order_by(p.since, p.ods, p.service)


def listing(connection: Connection) -> Sequence[Row[Any]]:
    """Return every pause, the oldest first."""
    return connection.execute(_LISTING).all()


def places(connection: Connection) -> list[Destination]:
    """Return where nothing is attempted."""
    return [Destination(row.ods, row.service) for row in listing(connection)]


def stand_at(paused: Sequence[Destination]) -> ColumnElement[bool]:
    """Whether a delivery goes to one of these places, or to a service of it."""
    return or_(
        *(
            true()
            if to == EVERYWHERE
            else and_(d.ods == to.ods, true() if not to.service else d.service == to.service)
            for to in paused
        )
    )


def put(tx: Tx, to: Destination) -> str | None:
    """Pause a place; return the pause's id, or None where it is paused already."""
    there = tx.first(select(p.id).where(and_(p.ods == to.ods, p.service == to.service)))
    if there is not None:
        return None
    row = {"id": uuid7(), "ods": to.ods, "service": to.service, "since": tx.now}
    tx.execute(t.into(t.pause), row)
    return str(row["id"])


def end(tx: Tx, to: Destination) -> str | None:
    """End the pause of a place; return its id, or None where it is not paused itself.

    What waited is due at once and its 72 hours begin anew: they were none of its doing.
    """
    chosen = and_(p.ods == to.ods, p.service == to.service)
    there = tx.first(select(p.id).where(chosen))
    if there is None:
        return None
    tx.execute(delete(t.pause).where(chosen))
    is_idle = or_(d.lease_until.is_(None), d.lease_until <= tx.now)
    tx.execute(
        update(t.delivery)
        .where(and_(d.state == "due", is_idle, stand_at([to])))
        .values(due_at=tx.now, first_due_at=tx.now)
    )
    tx.wake(DELIVERIES)
    return str(there.id)


def waiting(connection: Connection, paused: Sequence[Destination]) -> dict[str, int]:
    """Return how many deliveries wait at these places, by their own priority: those that are due,
    and the steps behind them."""
    if not paused:
        return {}
    is_waiting = or_(d.state == "due", d.held_reason == "predecessor")
    rows = connection.execute(
        select(d.priority, func.count())
        .where(and_(is_waiting, stand_at(paused)))
        .group_by(d.priority)
    )
    return dict(rows.all())
