"""What the gauges of /metrics show, read in one look at the database: counts and ages only."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, func, select

from broker.store import ledger
from broker.store import tables as t

d = t.delivery.c
wi = t.work_item.c

UNFINISHED: Final = ("due", "held", "dead")


@dataclass(frozen=True, slots=True)
class Gauges:
    """Seconds that the oldest due delivery has waited, by priority; counts by state and by code;
    and how many events a reader of the ledger has yet to read."""

    queue_age: Mapping[str, float]
    deliveries: Mapping[str, int]
    overdue: Mapping[str, int]
    lag: int


def read(connection: Connection, now: datetime, group: str) -> Gauges:
    """Return every gauge at this moment; what there is none of is left out.

    A delivery's age counts from when it was first due, so one that is tried again and again is
    seen to age. `group` is the reader of the ledger whose lag is wanted.
    """
    oldest = connection.execute(
        select(d.priority, func.min(d.first_due_at, type_=d.first_due_at.type))
        .where(d.state == "due")
        .group_by(d.priority)
    )
    states = connection.execute(
        select(d.state, func.count()).where(d.state.in_(UNFINISHED)).group_by(d.state)
    )
    codes = connection.execute(
        select(wi.code, func.count()).where(wi.closed_at.is_(None)).group_by(wi.code)
    )
    return Gauges(
        queue_age={name: max(0.0, (now - since).total_seconds()) for name, since in oldest},
        deliveries=dict(states.all()),
        overdue=dict(codes.all()),
        lag=max(0, ledger.head(connection) - ledger.cursor(connection, group)),
    )
