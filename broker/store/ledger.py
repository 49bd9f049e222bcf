"""Reading the ledger: by position without a gap, and by subject in order."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, and_, insert, or_, select, update
from sqlalchemy.engine import Row

from broker.errors import BrokerError
from broker.events import Destination, Priority, Recorded, Role, Route
from broker.store import tables as t
from broker.store.store import Tx


class LedgerGap(BrokerError):
    """A position is missing from the ledger: the database was altered or restored in part."""


def recorded(row: Row[Any]) -> Recorded:
    """Return an event as it stands in the ledger."""
    return Recorded(
        position=row.position,
        id=row.id,
        type=row.type,
        source=row.source,
        subject=row.subject_id,
        subject_seq=row.subject_seq,
        time=row.time,
        dataschema=row.dataschema,
        message_id=row.message_id,
        correlation_id=row.correlation_id,
        causation_id=row.causation_id,
        traceparent=row.traceparent,
        priority=Priority(row.priority),
        facts=row.facts,
        routes=tuple(
            Route(Destination(ods, service), Role(role), reason)
            for ods, service, role, reason in row.routes
        ),
    )


def after(connection: Connection, position: int, limit: int) -> list[Recorded]:
    """Return the events after a position, in order. Raises LedgerGap where one is missing."""
    rows = connection.execute(
        select(t.event)
        .where(t.event.c.position > position)
        .order_by(t.event.c.position)
        .limit(limit)
    ).all()
    for expected, row in enumerate(rows, start=position + 1):
        if row.position != expected:
            raise LedgerGap(f"position {expected} of the ledger is missing")
    return [recorded(row) for row in rows]


def undispatched(connection: Connection, hints: Mapping[str, int]) -> list[Recorded]:
    """Return the events of these subjects, up to these places, that were not fanned out yet."""
    if not hints:
        return []
    wanted = [
        and_(t.event.c.subject_id == subject, t.event.c.subject_seq <= up_to)
        for subject, up_to in hints.items()
    ]
    rows = connection.execute(
        select(t.event)
        .join(t.subject, t.subject.c.id == t.event.c.subject_id)
        .where(and_(or_(*wanted), t.event.c.subject_seq > t.subject.c.dispatched_seq))
        .order_by(t.event.c.position)
    ).all()
    return [recorded(row) for row in rows]


def lock_dispatched(tx: Tx, subjects: Iterable[str]) -> dict[str, int]:
    """Return how far each subject is fanned out, held until the end of the transaction."""
    s = t.subject.c
    rows = tx.all(
        select(s.id, s.dispatched_seq)
        .where(s.id.in_(list(subjects)))
        .order_by(s.id)
        .with_for_update()
    )
    return {row.id: row.dispatched_seq for row in rows}


def mark_dispatched(tx: Tx, subject: str, after_seq: int, up_to: int) -> bool:
    """Say that a subject's events are fanned out; False where another was first."""
    return (
        tx.execute(
            update(t.subject)
            .where(and_(t.subject.c.id == subject, t.subject.c.dispatched_seq == after_seq))
            .values(dispatched_seq=up_to)
        ).rowcount
        == 1
    )


def events_of(connection: Connection, subject: str) -> Sequence[Recorded]:
    """Return all events of a subject, in order."""
    rows = connection.execute(
        select(t.event).where(t.event.c.subject_id == subject).order_by(t.event.c.subject_seq)
    ).all()
    return [recorded(row) for row in rows]


def event(connection: Connection, event_id: str) -> Recorded | None:
    """Return one event."""
    row = connection.execute(select(t.event).where(t.event.c.id == event_id)).first()
    return None if row is None else recorded(row)


def subject(connection: Connection, subject_id: str) -> Row[Any]:
    """Return a subject's row."""
    return connection.execute(select(t.subject).where(t.subject.c.id == subject_id)).one()


def head(connection: Connection) -> int:
    """Return the last position given out."""
    return int(connection.execute(select(t.ledger_head.c.position)).scalar_one())


def cursor(connection: Connection, group: str) -> int:
    """Return a reader's place in the ledger; 0 where it never read."""
    place = connection.execute(select(t.cursor.c.position).where(t.cursor.c.name == group)).scalar()
    return int(place or 0)


def move_cursor(tx: Tx, group: str, position: int) -> None:
    """Move a reader's place forwards; never backwards."""
    moved = tx.execute(
        update(t.cursor)
        .where(and_(t.cursor.c.name == group, t.cursor.c.position < position))
        .values(position=position)
    ).rowcount
    if not moved and tx.first(select(t.cursor).where(t.cursor.c.name == group)) is None:
        tx.execute(insert(t.cursor), {"name": group, "position": position})
