"""Claiming and settling: who works on what, in slots per destination, fenced by the attempt."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, and_, func, or_, select, tuple_, update
from sqlalchemy.engine import Row

from broker.store import tables as t
from broker.store.tx import DELIVERIES, Tx

d = t.delivery.c
LEASE: Final = timedelta(seconds=60)
BREAKER_AFTER: Final = 5
BREAKER_OPEN: Final = timedelta(seconds=30)
_PG_LOCK: Final = 0x436C_6169  # "Clai"


@dataclass(frozen=True, slots=True)
class Slots:
    """How much may be in flight: in all, and per destination. One slot of each destination and a
    tenth of the pool are for urgent work only."""

    pool: int = 64
    destination: int = 8

    def free_for(self, rank: int, in_all: int, at_destination: int) -> bool:
        """Whether work of this rank may start, with so much in flight."""
        if rank <= 1:
            return in_all < self.pool and at_destination < self.destination
        reserved = max(1, self.pool // 10)
        return in_all < self.pool - reserved and at_destination < self.destination - 1


@dataclass(slots=True)
class _Load:
    in_flight: int = 0
    failures: int = 0
    open_until: datetime | None = None


def claim(tx: Tx, incarnation: str, slots: Slots, limit: int) -> list[Row[Any]]:
    """Lease up to `limit` due deliveries to this worker, most urgent first.

    Counted here, under the destinations' locks, the slots hold over any number of processes. A
    destination whose breaker is open gets one urgent probe at a time and nothing else.
    """
    loads = _loads(tx)
    in_all = sum(load.in_flight for load in loads.values())
    claimed: list[Row[Any]] = []
    full: set[tuple[str, str]] = set()
    while len(claimed) < limit:
        rows = _candidates(tx, full, {row.id for row in claimed}, limit)
        if not rows:
            break
        for row in rows:
            key = (row.ods, row.service)
            if key in full:
                continue
            load = loads.setdefault(key, _Load())
            if not _may(slots, load, row.priority_rank, in_all, tx.now):
                full.add(key)
                continue
            load.in_flight += 1
            in_all += 1
            claimed.append(row)
            if len(claimed) == limit:
                break
        if len(rows) < limit:
            break
    if not claimed:
        return []
    ids = [row.id for row in claimed]
    tx.execute(
        update(t.delivery)
        .where(d.id.in_(ids))
        .values(lease_until=tx.now + LEASE, lease_by=incarnation, attempt=d.attempt + 1)
    )
    leased = select(t.delivery).where(d.id.in_(ids)).order_by(d.priority_rank, d.due_at)
    return list(tx.all(leased))


def _may(slots: Slots, load: _Load, rank: int, in_all: int, now: datetime) -> bool:
    if load.failures >= BREAKER_AFTER:
        is_open = load.open_until is not None and load.open_until > now
        if load.in_flight or (is_open and rank > 1):
            return False
        return slots.free_for(rank, in_all, 0)
    return slots.free_for(rank, in_all, load.in_flight)


def _loads(tx: Tx) -> dict[tuple[str, str], _Load]:
    if tx.connection.dialect.name == "postgresql":
        # A destination that never failed has no row to lock: claims wait for each other.
        tx.execute(select(func.pg_advisory_xact_lock(_PG_LOCK)))
    loads: dict[tuple[str, str], _Load] = {}
    for row in tx.all(select(t.endpoint_state).with_for_update()):
        loads[row.ods, row.service] = _Load(0, row.failures, row.open_until)
    counted = tx.all(
        select(d.ods, d.service, func.count().label("n"))
        .where(and_(d.lease_until > tx.now, d.state == "due"))
        .group_by(d.ods, d.service)
    )
    for row in counted:
        loads.setdefault((row.ods, row.service), _Load()).in_flight = row.n
    return loads


def _candidates(
    tx: Tx, full: set[tuple[str, str]], taken: set[str], limit: int
) -> Sequence[Row[Any]]:
    wanted = [
        d.state == "due",
        d.due_at <= tx.now,
        or_(d.lease_until.is_(None), d.lease_until <= tx.now),
    ]
    if full:
        wanted.append(tuple_(d.ods, d.service).not_in(sorted(full)))
    if taken:
        wanted.append(d.id.not_in(sorted(taken)))
    return tx.all(
        select(d.id, d.ods, d.service, d.priority_rank)
        .where(and_(*wanted))
        .order_by(d.priority_rank, d.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )


def next_due(connection: Connection, now: datetime) -> datetime | None:
    """Return when, after `now`, there may be something to claim that could not be claimed before.

    A delivery becomes due, a lease ends, or a breaker lets a probe through. What is due already
    and was not claimed waits for a slot, and whoever frees one wakes the workers.
    """
    times = connection.execute(
        select(
            select(func.min(d.due_at)).where(d.state == "due", d.due_at > now).scalar_subquery(),
            select(func.min(d.lease_until))
            .where(d.state == "due", d.lease_until > now)
            .scalar_subquery(),
            select(func.min(t.endpoint_state.c.open_until))
            .where(t.endpoint_state.c.open_until > now)
            .scalar_subquery(),
        )
    ).one()
    return min((moment for moment in times if moment is not None), default=None)


def release_all(tx: Tx) -> int:
    """End every lease: for the one process that serves a database, when it starts."""
    return tx.execute(
        update(t.delivery).where(d.lease_until.is_not(None)).values(lease_until=None, lease_by=None)
    ).rowcount


def holds(row: Row[Any] | None, attempt: int) -> bool:
    """Whether this attempt is still the one whose outcome counts."""
    return row is not None and row.state == "due" and row.attempt == attempt


def put_attempt(
    tx: Tx,
    delivery_id: str,
    number: int,
    started_at: datetime,
    outcome: str,
    code: str | None,
    status: int | None,
) -> None:
    """Write what became of an attempt; a repeat of the same one changes nothing."""
    there = tx.first(
        select(t.attempt.c.number).where(
            and_(t.attempt.c.delivery_id == delivery_id, t.attempt.c.number == number)
        )
    )
    if there is None:
        tx.execute(
            t.into(t.attempt),
            {
                "delivery_id": delivery_id,
                "number": number,
                "started_at": started_at,
                "ended_at": tx.now,
                "outcome": outcome,
                "code": code,
                "http_status": status,
            },
        )


def try_again(tx: Tx, row: Row[Any], due_at: datetime, code: str) -> None:
    """Make a failed delivery due again later."""
    tx.wake(DELIVERIES)
    tx.execute(
        update(t.delivery)
        .where(d.id == row.id)
        .values(due_at=due_at, code=code, lease_until=None, lease_by=None)
    )


def bury(tx: Tx, row: Row[Any], code: str) -> None:
    """Give a delivery up for now: it blocks its lane until an operator retries or gives up."""
    tx.wake(DELIVERIES)
    tx.execute(
        update(t.delivery)
        .where(d.id == row.id)
        .values(state="dead", code=code, settled_at=tx.now, lease_until=None, lease_by=None)
    )


def note_answer(tx: Tx, ods: str, service: str, *, failed: bool) -> None:
    """Tell the destination's breaker how an attempt went."""
    where = and_(t.endpoint_state.c.ods == ods, t.endpoint_state.c.service == service)
    there = tx.first(select(t.endpoint_state).where(where).with_for_update())
    if there is None:
        if failed:
            tx.execute(
                t.into(t.endpoint_state),
                {
                    "ods": ods,
                    "service": service,
                    "failures": 1,
                    "open_until": None,
                    "updated_at": tx.now,
                },
            )
        return
    failures = there.failures + 1 if failed else 0
    if failures == there.failures == 0:
        return
    tx.execute(
        update(t.endpoint_state)
        .where(where)
        .values(
            failures=failures,
            open_until=tx.now + BREAKER_OPEN if failures >= BREAKER_AFTER else None,
            updated_at=tx.now,
        )
    )
