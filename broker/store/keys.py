"""Remembered answers: which keys were used, by whom, for what body, and with what answer."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, and_, bindparam, select

from broker.store import tables as t
from broker.store.tx import Tx

k = t.idempotency_key.c

# Built once: what it asks never changes, and it is asked for every request.
_FIND: Final = select(k.body_hmac, k.owner_id, k.status).where(
    and_(
        k.organisation == bindparam("organisation"),
        k.family == bindparam("family"),
        k.key_hmac == bindparam("key_hmac"),
    )
)


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose key it is: an organisation's, at a family of doors (native, fhir, bars)."""

    organisation: str
    family: str
    key_hmac: str


@dataclass(frozen=True, slots=True)
class Used:
    """What a key was used for, and the message or event whose answer it got."""

    body_hmac: str
    owner_id: str
    status: int


def find(connection: Connection, scope: Scope) -> Used | None:
    """Return what a key was used for, or None."""
    row = connection.execute(
        _FIND,
        {
            "organisation": scope.organisation,
            "family": scope.family,
            "key_hmac": scope.key_hmac,
        },
    ).first()
    return None if row is None else Used(row.body_hmac, row.owner_id, row.status)


def put(tx: Tx, scope: Scope, used: Used) -> None:
    """Use a key up, for ever."""
    tx.execute(
        t.into(t.idempotency_key),
        {
            "organisation": scope.organisation,
            "family": scope.family,
            "key_hmac": scope.key_hmac,
            "body_hmac": used.body_hmac,
            "owner_id": used.owner_id,
            "status": used.status,
            "created_at": tx.now,
        },
    )
