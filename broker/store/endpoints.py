"""Endpoints that an operator refreshed: the mark that every process reads before it calls one."""

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, and_, bindparam, select, update

from broker.store import tables as t
from broker.store.tx import Tx

e = t.endpoint_refresh.c
_REFRESHED_AT: Final = select(e.refreshed_at).where(
    and_(e.ods == bindparam("ods"), e.service == bindparam("service"))
)


def refresh(tx: Tx, ods: str, service: str) -> None:
    """Have forgotten what is known of what an endpoint offers, by every process."""
    chosen = update(t.endpoint_refresh).where(and_(e.ods == ods, e.service == service))
    if not tx.execute(chosen.values(refreshed_at=tx.now)).rowcount:
        row = {"ods": ods, "service": service, "refreshed_at": tx.now}
        tx.execute(t.into(t.endpoint_refresh), row)


def refreshed_at(connection: Connection, ods: str, service: str) -> datetime | None:
    """Return when an endpoint was last refreshed, or None."""
    values = {"ods": ods, "service": service}
    found: datetime | None = connection.execute(_REFRESHED_AT, values).scalar()
    return found
