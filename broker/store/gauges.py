"""What the gauges of /metrics show, read in one look at the database: counts and ages only."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, and_, func, select

from broker.store import ledger, pauses
from broker.store import tables as t

d = t.delivery.c
wi = t.work_item.c
dl = t.deadline.c

UNFINISHED: Final = ("due", "held", "dead")


@dataclass(frozen=True, slots=True)
class Behind:
    """How many events a reader of the ledger has yet to read, and for how many seconds the oldest
    of them has been there."""

    events: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Gauges:
    """Seconds that the oldest due delivery has waited, by priority; counts by state and by code;
    what waits where nothing is attempted, by priority; how far each reader of the ledger is behind;
    and deadlines that passed and are not met, by (door, pathway, clock)."""

    behind: Mapping[str, Behind]
    queue_age: Mapping[str, float]
    deliveries: Mapping[str, int]
    overdue: Mapping[str, int]
    paused: Mapping[str, int]
    late: Mapping[tuple[str, str, str], int]


def read(connection: Connection, now: datetime, groups: Iterable[str]) -> Gauges:
    """Return every gauge at this moment; what there is none of is left out.

    A delivery's age counts from when it was first due, so one that is tried again and again is
    seen to age. `groups` are the readers of the ledger that are wanted.
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
    late = connection.execute(
        select(t.message.c.door, t.message.c.pathway, dl.kind, func.count())
        .join(t.message, t.message.c.id == dl.message_id)
        .where(and_(dl.cleared_at.is_(None), dl.raised_at.is_not(None)))
        .group_by(t.message.c.door, t.message.c.pathway, dl.kind)
    )
    return Gauges(
        behind=behind(connection, groups, now),
        queue_age={name: max(0.0, (now - since).total_seconds()) for name, since in oldest},
        deliveries=dict(states.all()),
        overdue=dict(codes.all()),
        paused=pauses.waiting(connection, pauses.places(connection)),
        late={(door, pathway, clock): count for door, pathway, clock, count in late},
    )


def behind(connection: Connection, groups: Iterable[str], now: datetime) -> dict[str, Behind]:
    """Return how far each of these readers of the ledger is behind at this moment."""
    return {group: _behind(connection, group, now) for group in groups}


def _behind(connection: Connection, group: str, now: datetime) -> Behind:
    position = ledger.cursor(connection, group)
    oldest = ledger.time_of(connection, position + 1)
    if oldest is None:
        return Behind(0, 0.0)
    return Behind(ledger.head(connection) - position, max(0.0, (now - oldest).total_seconds()))
