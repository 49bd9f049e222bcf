"""One unit of writing, and the one place where positions are given out.

What a unit records and audits is numbered after its last statement, under the lock of the ledger's
head: positions have no gap and the audit chain one order, whatever the number of processes.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection as Connection  # what reads are given, for their signatures
from sqlalchemy import CursorResult, Executable, bindparam, select, update
from sqlalchemy.engine import Row

from broker.audit import Entry, chain
from broker.events import Event, SubjectKind
from broker.store import tables as t

LEDGER: Final = "ledger"
DELIVERIES: Final = "deliveries"
DEADLINES: Final = "deadlines"
DIRECTORY: Final = "directory"
EVERY_TOPIC: Final = frozenset({LEDGER, DELIVERIES, DEADLINES, DIRECTORY})

# What every transaction asks, built once: building costs more than asking.
_SUBJECT: Final = t.subject.c.id == bindparam("subject")
_LOCK_SUBJECT: Final = select(t.subject).where(_SUBJECT).with_for_update()
_NEXT_SEQ: Final = (
    update(t.subject)
    .where(_SUBJECT)
    .values(last_seq=t.subject.c.last_seq + 1)
    .returning(t.subject.c.last_seq)
)
_BUMP: Final = (
    update(t.subject)
    .where(_SUBJECT)
    .values(version=t.subject.c.version + 1)
    .returning(t.subject.c.version)
)
LOCK_HEAD: Final = select(t.ledger_head).with_for_update()
_MOVE_HEAD: Final = update(t.ledger_head)


class Tx:
    """One unit of writing. What it records and audits is numbered after its last statement."""

    def __init__(self, connection: Connection, now: datetime) -> None:
        self.connection = connection
        self.now = now
        self.events: list[tuple[Event, int]] = []
        self.entries: list[Entry] = []
        self.wakes: set[str] = set()

    def execute(self, statement: Executable, values: Any = None) -> CursorResult[Any]:
        """Run one statement."""
        return self.connection.execute(statement, values)

    def first(self, statement: Executable, values: Any = None) -> Row[Any] | None:
        """Return the first row, or None."""
        return self.connection.execute(statement, values).first()

    def all(self, statement: Executable, values: Any = None) -> Sequence[Row[Any]]:
        """Return every row."""
        return self.connection.execute(statement, values).all()

    def new_subject(self, subject: str, kind: SubjectKind, owner: str) -> None:
        """Make a subject. Its events begin at 1, its version at 1."""
        self.execute(
            t.into(t.subject),
            {
                "id": subject,
                "kind": kind.value,
                "owner": owner,
                "last_seq": 0,
                "dispatched_seq": 0,
                "version": 1,
                "created_at": self.now,
            },
        )

    def lock_subject(self, subject: str) -> Row[Any] | None:
        """Return the subject's row, held until the end of the transaction."""
        return self.execute(_LOCK_SUBJECT, {"subject": subject}).first()

    def bump(self, subject: str) -> int:
        """Raise the subject's version (its ETag) and return the new one."""
        return int(self.execute(_BUMP, {"subject": subject}).scalar_one())

    def record(self, event: Event) -> int:
        """Queue an event for the ledger; return its place among its subject's events."""
        seq = int(self.execute(_NEXT_SEQ, {"subject": event.subject}).scalar_one())
        self.events.append((event, seq))
        self.wakes.add(LEDGER)
        return seq

    def audit(self, entry: Entry) -> None:
        """Queue an audit entry, written in the same transaction as what it tells of."""
        self.entries.append(entry)

    def wake(self, topic: str) -> None:
        """Say what else to wake once this is committed."""
        self.wakes.add(topic)


def number(
    connection: Connection,
    now: datetime,
    events: list[tuple[Event, int]],
    entries: list[Entry],
) -> None:
    """Lock the head, give out the next positions without a gap, and insert what was queued."""
    head = connection.execute(LOCK_HEAD).one()
    rows = [
        _event_row(event, subject_seq, position)
        for position, (event, subject_seq) in enumerate(events, start=head.position + 1)
    ]
    links = []
    seq, last = head.audit_seq, head.audit_hash
    for entry in entries:
        seq += 1
        last = chain(last, seq, now, entry)
        links.append(_audit_row(entry, seq, now, last))
    if rows:
        connection.execute(t.into(t.event), rows)
    if links:
        connection.execute(t.into(t.audit), links)
    moved = {"position": head.position + len(rows), "audit_seq": seq, "audit_hash": last}
    connection.execute(_MOVE_HEAD, moved)


def _event_row(event: Event, subject_seq: int, position: int) -> dict[str, Any]:
    return {
        "position": position,
        "id": event.id,
        "type": event.type,
        "source": event.source,
        "subject_id": event.subject,
        "subject_seq": subject_seq,
        "time": event.time,
        "dataschema": event.dataschema,
        "message_id": event.message_id,
        "correlation_id": event.correlation_id,
        "causation_id": event.causation_id,
        "traceparent": event.traceparent,
        "priority": event.priority.value,
        "facts": event.facts,
        "routes": [
            [r.destination.ods, r.destination.service, r.role.value, r.reason] for r in event.routes
        ],
    }


def _audit_row(entry: Entry, seq: int, now: datetime, chained: str) -> dict[str, Any]:
    return {
        "seq": seq,
        "time": now,
        "actor": entry.actor,
        "organisation": entry.organisation,
        "action": entry.action,
        "object_kind": entry.object_kind,
        "object_id": entry.object_id,
        "facts": entry.facts,
        "hash": chained,
    }
