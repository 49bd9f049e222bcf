"""What was made of a referral's priority, and when its patient was told what was found."""

from typing import Any

from sqlalchemy import update

from broker.errors import Unavailable
from broker.store import newest
from broker.store import tables as t
from broker.store.tx import Tx


def put(tx: Tx, subject: str, **values: Any) -> None:
    """Write what holds of a referral now. The caller has locked its subject. Raises Unavailable
    where the schema has no place for it yet."""
    if not newest.is_here(tx.connection):
        raise Unavailable("This cannot be kept yet: an upgrade is under way. Try again later.")
    changed = tx.execute(update(t.triage).where(t.triage.c.subject_id == subject).values(**values))
    if not changed.rowcount:
        tx.execute(t.into(t.triage), {"subject_id": subject, **values})
