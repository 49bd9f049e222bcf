"""Reading for people: the audit chain and the lists of an organisation's own messages."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, or_, select
from sqlalchemy.engine import Row

from broker.audit import Entry, Link, Verdict, verify
from broker.store import tables as t

m = t.message.c


def links(connection: Connection) -> Iterator[Link]:
    """Yield the audit chain in order, a page at a time."""
    at = 0
    while True:
        rows = connection.execute(
            select(t.audit).where(t.audit.c.seq > at).order_by(t.audit.c.seq).limit(1_000)
        ).all()
        if not rows:
            return
        for row in rows:
            at = row.seq
            yield Link(
                row.seq,
                row.time,
                Entry(
                    row.action,
                    row.actor,
                    row.organisation,
                    row.object_kind,
                    row.object_id,
                    row.facts,
                ),
                row.hash,
            )


def verify_audit(connection: Connection) -> Verdict:
    """Check the whole chain against the ledger's head."""
    head = connection.execute(select(t.ledger_head)).one()
    return verify(links(connection), head.audit_seq, head.audit_hash)


def sent_by(
    connection: Connection,
    codes: Collection[str],
    *,
    before: tuple[datetime, str] | None,
    limit: int,
    kind: str | None = None,
    status: str | None = None,
    reference_hmacs: Collection[str] = (),
    since: datetime | None = None,
) -> Sequence[Row[Any]]:
    """Return the messages that these ODS codes sent, newest first; stable while others arrive."""
    wanted = [m.sender.in_(sorted(codes)), m.kind != "notice"]
    if before is not None:
        at, message_id = before
        wanted.append(or_(m.accepted_at < at, and_(m.accepted_at == at, m.id < message_id)))
    if kind is not None:
        wanted.append(m.kind == kind)
    if status is not None:
        wanted.append(m.status == status)
    if reference_hmacs:
        wanted.append(m.reference_hmac.in_(sorted(reference_hmacs)))
    if since is not None:
        wanted.append(m.accepted_at >= since)
    return connection.execute(
        select(t.message)
        .where(and_(*wanted))
        .order_by(m.accepted_at.desc(), m.id.desc())
        .limit(limit)
    ).all()
