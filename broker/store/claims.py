"""Claiming and settling: who works on what, in slots per destination, fenced by the attempt."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    and_,
    bindparam,
    exists,
    func,
    literal_column,
    not_,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.engine import Row

from broker.events import Destination, Priority
from broker.store import deliveries, pauses
from broker.store import tables as t
from broker.store.columns import is_sqlite
from broker.store.tx import DELIVERIES, Tx

d = t.delivery.c
LEASE: Final = timedelta(seconds=15)
RENEWED_AFTER: Final = timedelta(seconds=4)  # three times before it ends
PROBE: Final = timedelta(seconds=3)  # less than what is urgent may wait for
BREAKER_AFTER: Final = 5
BREAKER_OPEN: Final = timedelta(seconds=30)
DUE: Final[ColumnElement[str]] = literal_column("'due'")  # as the indexes of what is due say it
_PG_LOCK: Final = 0x436C_6169  # "Clai"


def _is_leased(after: str) -> ColumnElement[bool]:
    """Whether somebody works on a delivery until after a moment, given by this name. Few have a
    lease, so they are found by that, and not among all that are due."""
    return and_(d.lease_until > bindparam(after), func.coalesce(d.state, "") == "due")


# Built once: building costs several times what asking does.
state, a = t.endpoint_state.c, t.attempt.c
_AT: Final = and_(state.ods == bindparam("at_ods"), state.service == bindparam("at_service"))
_LOCK_CLAIMS: Final = select(func.pg_advisory_xact_lock(_PG_LOCK))
_STATES: Final = select(t.endpoint_state).with_for_update()
_STATE: Final = select(t.endpoint_state).where(_AT).with_for_update()
_CHANGE_STATE: Final = update(t.endpoint_state).where(_AT)
_IN_FLIGHT: Final = select(d.ods, d.service, d.lease_until).where(_is_leased("now"))
_FRONT: Final = (
    select(d.id)
    .where(
        and_(
            d.state == DUE,
            d.ods == bindparam("ods"),
            d.service == bindparam("service"),
            d.priority_rank == bindparam("rank"),
            d.due_at <= bindparam("now"),
            or_(d.lease_until.is_(None), d.lease_until <= bindparam("now")),
        )
    )
    .order_by(d.due_at, d.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_CLAIMED: Final = d.id.in_(bindparam("ids", expanding=True))
_TAKE: Final = update(t.delivery).where(_CLAIMED).values(attempt=d.attempt + 1)
_MINE: Final = select(d.id).where(and_(_CLAIMED, d.lease_by == bindparam("worker")))
_RENEW: Final = update(t.delivery).where(d.id.in_(_MINE.with_for_update(skip_locked=True)))
_TAKEN: Final = select(t.delivery).where(_CLAIMED).order_by(d.priority_rank, d.due_at)
_FAILING: Final = and_(
    state.ods == d.ods, state.service == d.service, state.failures >= BREAKER_AFTER
)
_NEXT_DUE: Final = select(
    *(
        select(func.min(d.due_at))
        .where(d.state == DUE, d.priority_rank == priority.rank, d.due_at > bindparam("now"))
        .scalar_subquery()
        for priority in Priority
    ),
    select(func.min(d.lease_until)).where(_is_leased("now")).scalar_subquery(),
    select(func.min(state.open_until)).where(state.open_until > bindparam("now")).scalar_subquery(),
    select(func.min(d.lease_until))
    .where(_is_leased("just_begun"), exists().where(_FAILING))
    .scalar_subquery(),
)
_ATTEMPT: Final = select(a.number).where(
    and_(a.delivery_id == bindparam("delivery"), a.number == bindparam("number"))
)


@dataclass(frozen=True, slots=True)
class Slots:
    """How much may be in flight: in all, and per destination. One slot of each destination and a
    tenth of the pool are for urgent work only."""

    pool: int = 64
    destination: int = 8

    def room(self, rank: int, in_all: int, at_destination: int) -> int:
        """Return how much work of this rank may start at a destination, with so much in flight."""
        pool, destination = self.pool, self.destination
        if rank > 1:
            pool, destination = pool - max(1, pool // 10), destination - 1
        return max(0, min(pool - in_all, destination - at_destination))


@dataclass(slots=True)
class _Load:
    in_flight: int = 0
    just_begun: int = 0
    failures: int = 0
    open_until: datetime | None = None


def claim(tx: Tx, incarnation: str, slots: Slots, limit: int) -> list[Row[Any]]:
    """Lease up to `limit` due deliveries to this worker, most urgent first.

    Counted here, under the destinations' locks, the slots hold over any number of processes. A
    destination whose breaker is open gets one urgent probe every few seconds and nothing else; one
    that is paused gets nothing. How much waits at a destination does not matter to the others.
    """
    loads = _loads(tx)
    paused = pauses.places(tx.connection)
    if pauses.EVERYWHERE in paused:
        return []
    in_all = sum(load.in_flight for load in loads.values())
    claimed: list[str] = []
    for queue in tx.all(_queues(is_sqlite(tx.connection.dialect))):
        if queue.due_at > tx.now:
            continue
        to = Destination(queue.ods, queue.service)
        if any(place.covers(to) for place in paused):
            continue
        load = loads.setdefault((to.ods, to.service), _Load())
        room = _room(slots, load, queue.priority_rank, in_all, tx.now)
        found = _front(tx, queue, min(room, limit - len(claimed)))
        load.in_flight += len(found)
        load.just_begun += len(found)
        in_all += len(found)
        claimed += found
        if len(claimed) == limit:
            break
    if not claimed:
        return []
    lease = {"lease_until": tx.now + LEASE, "lease_by": incarnation}
    tx.execute(_TAKE, {"ids": claimed, **lease})
    return list(tx.all(_TAKEN, {"ids": claimed}))


def renew(tx: Tx, incarnation: str, ids: Collection[str]) -> None:
    """Prolong the leases of what this worker still works on; those that another took stay his.

    By less than a new one lasts: what was renewed is known by it not to have just begun. What is
    locked is being settled, and needs none.
    """
    values = {"ids": list(ids), "worker": incarnation, "lease_until": tx.now + LEASE - PROBE}
    tx.execute(_RENEW, values)


def _room(slots: Slots, load: _Load, rank: int, in_all: int, now: datetime) -> int:
    if load.failures >= BREAKER_AFTER:
        is_open = load.open_until is not None and load.open_until > now
        # What hangs, or was begun by a worker that died, keeps its lease: nothing urgent waits so.
        under_way = load.just_begun if rank <= 1 else is_open or load.in_flight
        return 0 if under_way else min(1, slots.room(rank, in_all, load.in_flight))
    return slots.room(rank, in_all, load.in_flight)


def wait_for_others(tx: Tx) -> None:
    """Let nobody claim until the end of this transaction; on SQLite nobody could anyway."""
    if tx.connection.dialect.name == "postgresql":
        tx.execute(_LOCK_CLAIMS)


def under_way(tx: Tx, to: Destination) -> int:
    """Return how many attempts at a place have begun and not ended."""
    wanted = and_(_is_leased("now"), pauses.stand_at([to]))
    return int(tx.execute(select(func.count()).where(wanted), {"now": tx.now}).scalar_one())


def _loads(tx: Tx) -> dict[tuple[str, str], _Load]:
    wait_for_others(tx)  # a destination that never failed has no row to lock
    loads: dict[tuple[str, str], _Load] = {}
    for row in tx.all(_STATES):
        loads[row.ods, row.service] = _Load(failures=row.failures, open_until=row.open_until)
    # Counted here: a database asked to group them would go through all deliveries in that order.
    for row in tx.all(_IN_FLIGHT, {"now": tx.now}):
        load = loads.setdefault((row.ods, row.service), _Load())
        load.in_flight += 1
        load.just_begun += row.lease_until > tx.now + LEASE - PROBE
    return loads


@cache
def _queues(sqlite: bool) -> Executable:
    """What is due stands in queues, one for each destination and rank: the head of each, most
    urgent first. From head to head by an index, so that what stands behind them costs nothing;
    SQLite must be told which, and compares by it only with what is no column itself."""
    by = "INDEXED BY ix_delivery_queue" if sqlite else ""
    in_turn = "ORDER BY n.ods, n.service, n.priority_rank, n.due_at, n.id LIMIT 1"
    return text(f"""
        WITH RECURSIVE head(id) AS (
            SELECT (SELECT n.id FROM delivery AS n {by} WHERE n.state = 'due' {in_turn})
            UNION ALL
            SELECT (
                SELECT n.id FROM delivery AS n {by} WHERE n.state = 'due'
                AND (n.ods, n.service, n.priority_rank)
                 >= (h.ods, h.service || '', h.priority_rank + 1) {in_turn}
            ) FROM head JOIN delivery AS h ON h.id = head.id
        )
        SELECT h.ods, h.service, h.priority_rank, h.due_at
        FROM head JOIN delivery AS h ON h.id = head.id ORDER BY h.priority_rank, h.due_at
    """).columns(d.ods, d.service, d.priority_rank, d.due_at)  # noqa: S608


def _front(tx: Tx, queue: Row[Any], most: int) -> list[str]:
    """Return the first of a queue that are due and nobody works on, locked."""
    if most <= 0:
        return []
    where = {"ods": queue.ods, "service": queue.service, "rank": queue.priority_rank}
    return list(tx.execute(_FRONT, {**where, "now": tx.now, "most": most}).scalars())


def next_due(connection: Connection, now: datetime) -> datetime | None:
    """Return when, after `now`, there may be something to claim that could not be claimed before.

    A delivery becomes due, a lease ends, or a breaker lets a probe through: once it is no longer
    open, or what is urgent a few seconds after the last attempt was begun. What is due already
    and was not claimed waits for a slot, and whoever frees one wakes the workers.
    """
    values = {"now": now, "just_begun": now + LEASE - PROBE}
    *moments, begun = connection.execute(_NEXT_DUE, values).one()
    if begun is not None:
        moments.append(begun - LEASE + PROBE)
    return min((moment for moment in moments if moment is not None), default=None)


def bring_back(tx: Tx) -> int:
    """Bring back what was put off while the clock was ahead; return how many deliveries that were.

    What is due later only waits for its next attempt, and the one before has ended by now: else the
    clock was ahead when it was made due, and is right again. Nothing is leased, and no breaker is
    open, for longer than from now on.
    """
    wait_for_others(tx)
    soon = tx.now + PROBE  # others have written since this transaction began
    ended = and_(a.delivery_id == d.id, a.number == d.attempt, a.ended_at <= soon)
    is_late = and_(d.state == "due", d.due_at > soon, not_(exists().where(ended)))
    late = tx.execute(update(t.delivery).where(is_late).values(due_at=tx.now)).rowcount
    ends, opens = tx.now + LEASE, tx.now + BREAKER_OPEN
    leased_for_longer = and_(d.state == "due", d.lease_until > ends + PROBE)
    tx.execute(update(t.delivery).where(leased_for_longer).values(lease_until=ends))
    tx.execute(
        update(t.endpoint_state).where(state.open_until > opens + PROBE).values(open_until=opens)
    )
    if late:
        tx.wake(DELIVERIES)
    return late


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
    if tx.first(_ATTEMPT, {"delivery": delivery_id, "number": number}) is None:
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
    deliveries.change(tx, row.id, due_at=due_at, code=code, lease_until=None, lease_by=None)


def bury(tx: Tx, row: Row[Any], code: str) -> None:
    """Give a delivery up for now: it blocks its lane until an operator retries or gives up."""
    tx.wake(DELIVERIES)
    ended = {"settled_at": tx.now, "lease_until": None, "lease_by": None}
    deliveries.change(tx, row.id, state="dead", code=code, **ended)


def note_answer(tx: Tx, ods: str, service: str, *, failed: bool) -> None:
    """Tell the destination's breaker how an attempt went."""
    place = {"at_ods": ods, "at_service": service}
    there = tx.first(_STATE, place)
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
    opens = tx.now + BREAKER_OPEN if failures >= BREAKER_AFTER else None
    known = {"failures": failures, "open_until": opens, "updated_at": tx.now}
    tx.execute(_CHANGE_STATE, place | known)
