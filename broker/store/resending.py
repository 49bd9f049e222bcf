"""Deliveries that had gone out, made due again under their own id, at their place in their lane."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, and_, or_, select, update
from sqlalchemy.engine import Row

from broker.store import deliveries
from broker.store import tables as t
from broker.store.tx import Tx

d = t.delivery.c


def of_events(connection: Connection, ids: Collection[str]) -> Sequence[Row[Any]]:
    """Return every delivery of these events."""
    return connection.execute(
        select(t.delivery).where(d.event_id.in_(list(ids))).order_by(d.position, d.id)
    ).all()


def with_body(connection: Connection, ids: Collection[str], role: str) -> set[str]:
    """Return which of these deliveries still have the bytes that were sent."""
    p = t.payload.c
    wanted = and_(p.owner_id.in_(list(ids)), p.role == role)
    return set(connection.execute(select(p.owner_id).where(wanted)).scalars())


def resend(tx: Tx, row: Row[Any]) -> None:
    """Have a delivery go out again, its 72 hours begun anew. The caller has locked it.

    It stands in its lane as it did: later steps that are not under way wait for it, and it waits
    for earlier ones. In an inbox it stands again as what has no receipt.
    """
    deliveries.change(
        tx,
        row.id,
        state="held",
        held_reason="predecessor",
        done_reason=None,
        code=None,
        due_at=tx.now,
        first_due_at=tx.now,
        settled_at=None,
    )
    lane = deliveries.lane_of(row)
    is_under_way = and_(d.lease_until.is_not(None), d.lease_until > tx.now)
    tx.execute(
        update(t.delivery)
        .where(
            and_(
                deliveries.IN_LANE,
                d.state == "due",
                or_(
                    d.subject_seq > row.subject_seq,
                    and_(d.subject_seq == row.subject_seq, d.consumer > row.consumer),
                ),
                ~is_under_way,
            )
        )
        .values(state="held", held_reason="predecessor"),
        lane,
    )
    deliveries.promote(tx, lane)
