"""What the gauges of /metrics show, read in one look at the database. Nothing here is of a patient."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select

from broker.store import ledger
from broker.store import tables as t

d = t.delivery.c
wi = t.work_item.c


@dataclass(frozen=True, slots=True)
class Gauges:
    """Seconds the oldest due delivery has waited by priority, and counts by state and code."""

    queue_age: Mapping[str, float]
    deliveries: Mapping[str, int]
    overdue: Mapping[str, int]
    lag: int


def read(connection: Connection, now: datetime, group: str) -> Gauges:
    """Return every gauge at this moment; what there is none of is left out.

    A delivery's age counts from when it was first due, so that one which is tried again and again
    is seen to age. `group` is the reader of the ledger whose lag is measured.
    """
    oldest = connection.execute(
        select(d.priority, func.min(d.first_due_at, type_=d.first_due_at.type))
        .where(d.state == "due")
        .group_by(d.priority)
    ).all()
    states = connection.execute(
        select(d.state, func.count()).where(d.state.in_(("due", "held", "dead"))).group_by(d.state)
    ).all()
    codes = connection.execute(
        select(wi.code, func.count()).where(wi.closed_at.is_(None)).group_by(wi.code)
    ).all()
    return Gauges(
        queue_age={name: max(0.0, (now - since).total_seconds()) for name, since in oldest},
        deliveries={state: count for state, count in states},
        overdue={code: count for code, count in codes},
        lag=max(0, ledger.head(connection) - ledger.cursor(connection, group)),
    )
