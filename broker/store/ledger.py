"""Reading the ledger: by position without a gap, and by subject in order."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, func, select, update
from sqlalchemy.engine import Row

from broker.errors import BrokerError
from broker.events import Destination, Priority, Recorded, Role, Route
from broker.store import tables as t
from broker.store.tx import Tx

e, s = t.event.c, t.subject.c

# What dispatch asks for every event, built once: building costs more than asking.
_AFTER: Final = (
    select(t.event)
    .where(e.position > bindparam("after"))
    .order_by(e.position)
    .limit(bindparam("most"))
)
_UNDISPATCHED: Final = (
    select(t.event)
    .join(t.subject, s.id == e.subject_id)
    .where(
        and_(
            e.subject_id.in_(bindparam("subjects", expanding=True)),
            e.subject_seq > s.dispatched_seq,
        )
    )
    .order_by(e.position)
)
_LOCK_DISPATCHED: Final = (
    select(s.id, s.dispatched_seq)
    .where(s.id.in_(bindparam("subjects", expanding=True)))
    .order_by(s.id)
    .with_for_update()
)
_MARK_DISPATCHED: Final = (
    update(t.subject)
    .where(and_(s.id == bindparam("subject"), s.dispatched_seq == bindparam("after")))
    .values(dispatched_seq=bindparam("up_to"))
)
_ONE: Final = select(t.event).where(e.id == bindparam("id"))
_BY_ID: Final = (
    select(t.event).where(e.id.in_(bindparam("ids", expanding=True))).order_by(e.position)
)
_HEAD: Final = select(t.ledger_head.c.position)
_CURSOR: Final = select(t.cursor.c.position).where(t.cursor.c.name == bindparam("group"))
_MOVE_CURSOR: Final = (
    update(t.cursor)
    .where(and_(t.cursor.c.name == bindparam("group"), t.cursor.c.position < bindparam("to")))
    .values(position=bindparam("to"))
)
_ADVANCE_CURSOR: Final = (
    update(t.cursor)
    .where(and_(t.cursor.c.name == bindparam("group"), t.cursor.c.position == bindparam("read")))
    .values(position=bindparam("to"))
)


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
    rows = connection.execute(_AFTER, {"after": position, "most": limit}).all()
    for expected, row in enumerate(rows, start=position + 1):
        if row.position != expected:
            raise LedgerGap(f"position {expected} of the ledger is missing")
    return [recorded(row) for row in rows]


def undispatched(connection: Connection, hints: Mapping[str, int]) -> list[Recorded]:
    """Return the events of these subjects, up to these places, that were not fanned out yet."""
    if not hints:
        return []
    rows = connection.execute(_UNDISPATCHED, {"subjects": list(hints)}).all()
    return [recorded(row) for row in rows if row.subject_seq <= hints[row.subject_id]]


def lock_dispatched(tx: Tx, subjects: Iterable[str]) -> dict[str, int]:
    """Return how far each subject is fanned out, held until the end of the transaction."""
    rows = tx.execute(_LOCK_DISPATCHED, {"subjects": list(subjects)}).all()
    return {row.id: row.dispatched_seq for row in rows}


def mark_dispatched(tx: Tx, subject: str, after_seq: int, up_to: int) -> bool:
    """Say that a subject's events are fanned out; False where another was first."""
    values = {"subject": subject, "after": after_seq, "up_to": up_to}
    return tx.execute(_MARK_DISPATCHED, values).rowcount == 1


def events_of(connection: Connection, subject: str) -> Sequence[Recorded]:
    """Return all events of a subject, in order."""
    rows = connection.execute(
        select(t.event).where(t.event.c.subject_id == subject).order_by(t.event.c.subject_seq)
    ).all()
    return [recorded(row) for row in rows]


def event(connection: Connection, event_id: str) -> Recorded | None:
    """Return one event."""
    row = connection.execute(_ONE, {"id": event_id}).first()
    return None if row is None else recorded(row)


def by_id(connection: Connection, ids: Iterable[str]) -> list[Recorded]:
    """Return the events of these ids, in their order; one that is not in the ledger is absent."""
    rows = connection.execute(_BY_ID, {"ids": list(ids)}).all()
    return [recorded(row) for row in rows]


def subject(connection: Connection, subject_id: str) -> Row[Any]:
    """Return a subject's row."""
    return connection.execute(select(t.subject).where(t.subject.c.id == subject_id)).one()


def time_of(connection: Connection, position: int) -> datetime | None:
    """Return when the event at a position was recorded; None where there is none."""
    found: datetime | None = connection.execute(
        select(e.time).where(e.position == position)
    ).scalar()
    return found


def head(connection: Connection) -> int:
    """Return the last position given out."""
    return int(connection.execute(_HEAD).scalar_one())


def cursor(connection: Connection, group: str) -> int:
    """Return a reader's place in the ledger; 0 where it never read."""
    return int(connection.execute(_CURSOR, {"group": group}).scalar() or 0)


def move_cursor(tx: Tx, group: str, position: int) -> None:
    """Move a reader's place forwards; never backwards."""
    moved = tx.execute(_MOVE_CURSOR, {"group": group, "to": position}).rowcount
    if not moved and tx.execute(_CURSOR, {"group": group}).first() is None:
        tx.execute(t.into(t.cursor), {"name": group, "position": position})


def advance_cursor(tx: Tx, group: str, read: int, position: int) -> None:
    """Move a reader's place on from where it `read`. Where it was set elsewhere meanwhile, that
    stands: what was read is only read again."""
    moved = tx.execute(_ADVANCE_CURSOR, {"group": group, "read": read, "to": position}).rowcount
    if not moved and tx.execute(_CURSOR, {"group": group}).first() is None:
        tx.execute(t.into(t.cursor), {"name": group, "position": position})


def set_cursor(tx: Tx, group: str, position: int) -> None:
    """Set a reader's place, backwards too: it goes on from there."""
    values = {"position": position}
    if not tx.execute(update(t.cursor).where(t.cursor.c.name == group).values(values)).rowcount:
        tx.execute(t.into(t.cursor), {"name": group} | values)


def chosen(
    connection: Connection,
    *,
    after: int,
    limit: int,
    since: datetime | None,
    until: datetime | None,
    types: Collection[str],
    message: str | None,
) -> list[Recorded]:
    """Return events after a position, in order: of these types (of every type, if none is named),
    recorded from `since` to before `until`, carrying this message."""
    wanted = [e.position > after]
    if since is not None:
        wanted.append(e.time >= since)
    if until is not None:
        wanted.append(e.time < until)
    if types:
        wanted.append(e.type.in_(sorted(types)))
    if message is not None:
        wanted.append(e.message_id == message)
    rows = connection.execute(
        select(t.event).where(and_(*wanted)).order_by(e.position).limit(limit)
    ).all()
    return [recorded(row) for row in rows]


def types_after(connection: Connection, position: int) -> dict[str, int]:
    """Return how many events of each type stand after a position."""
    rows = connection.execute(
        select(e.type, func.count()).where(e.position > position).group_by(e.type).order_by(e.type)
    )
    return dict(rows.all())


def owners(connection: Connection, subjects: Collection[str]) -> dict[str, str]:
    """Return whose these subjects are, by subject; one that is not here is absent."""
    rows = connection.execute(select(s.id, s.owner).where(s.id.in_(list(subjects))))
    return dict(rows.all())
