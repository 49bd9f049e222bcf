"""Threads of clinical messages: which subject each is about."""

from collections.abc import Sequence

from sqlalchemy import Connection, select

from broker.errors import Unavailable
from broker.store import newest
from broker.store import tables as t
from broker.store.tx import Tx


def put(tx: Tx, thread: str, about: str) -> None:
    """Write what a new thread is about. Raises Unavailable where the schema has no place for it
    yet."""
    if not newest.is_here(tx.connection):
        raise Unavailable("This cannot be kept yet: an upgrade is under way. Try again later.")
    tx.execute(t.into(t.thread), {"subject_id": thread, "about_subject": about})


def about(connection: Connection, subject: str) -> Sequence[str]:
    """Return the subjects of the threads that are about this one, the oldest first."""
    if not newest.is_here(connection):
        return ()
    wanted = select(t.thread.c.subject_id).where(t.thread.c.about_subject == subject)
    found = connection.execute(wanted.order_by(t.thread.c.subject_id)).scalars()
    return [str(one) for one in found]
