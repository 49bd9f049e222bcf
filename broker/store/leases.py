"""Leases: which process of several does what only one should, by the database's clock."""

from datetime import timedelta

from sqlalchemy import and_, delete, or_, update

from broker.store import tables as t
from broker.store.tx import Tx

le = t.lease.c


def take(tx: Tx, name: str, holder: str, span: timedelta) -> bool:
    """Take a lease, or prolong it; False while another holds it."""
    until = tx.now + span
    free = and_(le.name == name, or_(le.holder == holder, le.held_until < tx.now))
    if tx.execute(update(t.lease).where(free).values(holder=holder, held_until=until)).rowcount:
        return True
    if tx.first(t.lease.select().where(le.name == name)) is not None:
        return False
    tx.execute(t.into(t.lease), {"name": name, "holder": holder, "held_until": until})
    return True


def give_back(tx: Tx, name: str, holder: str) -> None:
    """Let another have it at once, if it is held."""
    tx.execute(delete(t.lease).where(and_(le.name == name, le.holder == holder)))
