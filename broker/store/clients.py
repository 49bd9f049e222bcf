"""Callers: clients, their public keys, their grants, used assertions, and webhook secrets."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, and_, bindparam, delete, or_, select, update
from sqlalchemy.engine import Row

from broker.store import tables as t
from broker.store.tx import Tx

g, k, c, s = t.grant.c, t.client_key.c, t.client.c, t.webhook_secret.c

# Asked for every request or delivery, so built once.
_SECRETS: Final = (
    select(t.webhook_secret)
    .where(and_(s.ods == bindparam("ods"), s.retired_at.is_(None)))
    .order_by(s.created_at.desc(), s.id.desc())
    .limit(2)
)
_STANDING: Final = (
    select(c.name, c.scopes)
    .join(t.client_key, and_(k.client_id == c.id, k.kid == bindparam("kid")))
    .join(t.grant, and_(g.client_id == c.id, g.organisation == bindparam("organisation")))
    .where(
        and_(
            c.id == bindparam("client"),
            c.disabled_at.is_(None),
            k.revoked_at.is_(None),
            g.revoked_at.is_(None),
            g.valid_from <= bindparam("now"),
            or_(g.valid_to.is_(None), g.valid_to > bindparam("now")),
        )
    )
)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a caller still is and may do at this moment."""

    name: str
    scopes: tuple[str, ...]


def get(connection: Connection, client_id: str) -> Row[Any] | None:
    """Return a client that is not disabled."""
    return connection.execute(
        select(t.client).where(and_(t.client.c.id == client_id, t.client.c.disabled_at.is_(None)))
    ).first()


def listing(connection: Connection) -> Sequence[Row[Any]]:
    """Return every client."""
    return connection.execute(select(t.client).order_by(t.client.c.id)).all()


def keys(connection: Connection, client_id: str) -> dict[str, dict[str, Any]]:
    """Return a client's public keys that are not revoked, by key id."""
    rows = connection.execute(
        select(t.client_key.c.kid, t.client_key.c.jwk).where(
            and_(t.client_key.c.client_id == client_id, t.client_key.c.revoked_at.is_(None))
        )
    ).all()
    return {row.kid: row.jwk for row in rows}


def granted(connection: Connection, client_id: str, now: datetime) -> list[str]:
    """Return the organisations a client may act for now."""
    g = t.grant.c
    return list(
        connection.execute(
            select(g.organisation)
            .where(
                and_(
                    g.client_id == client_id,
                    g.revoked_at.is_(None),
                    g.valid_from <= now,
                    or_(g.valid_to.is_(None), g.valid_to > now),
                )
            )
            .order_by(g.organisation)
        ).scalars()
    )


def standing(
    connection: Connection, client_id: str, kid: str, organisation: str, now: datetime
) -> Standing | None:
    """Return the client if it, the key it signed in with and its grant all still hold."""
    values = {"client": client_id, "kid": kid, "organisation": organisation, "now": now}
    row = connection.execute(_STANDING, values).first()
    return None if row is None else Standing(row.name, tuple(row.scopes))


def may_any(
    connection: Connection, organisations: Collection[str], scope: str, now: datetime
) -> bool:
    """Whether any client may do this now for one of these organisations."""
    rows = connection.execute(
        select(c.scopes)
        .join(t.grant, g.client_id == c.id)
        .where(
            and_(
                g.organisation.in_(sorted(organisations)),
                c.disabled_at.is_(None),
                g.revoked_at.is_(None),
                g.valid_from <= now,
                or_(g.valid_to.is_(None), g.valid_to > now),
            )
        )
    ).scalars()
    return any(scope in held for held in rows)


def put(tx: Tx, client_id: str, name: str, algorithms: list[str], scopes: list[str]) -> None:
    """Register a client, or change its name, algorithms and scopes."""
    values = {"name": name, "algorithms": algorithms, "scopes": scopes, "disabled_at": None}
    changed = tx.execute(update(t.client).where(t.client.c.id == client_id).values(**values))
    if not changed.rowcount:
        tx.execute(t.into(t.client), {"id": client_id, "created_at": tx.now, **values})


def disable(tx: Tx, client_id: str) -> bool:
    """Shut a client out, at once, with its keys and grants; False where there is none.

    Registered again, it begins with nothing.
    """
    c, k, g = t.client.c, t.client_key.c, t.grant.c
    for table, where in (
        (t.client_key, and_(k.client_id == client_id, k.revoked_at.is_(None))),
        (t.grant, and_(g.client_id == client_id, g.revoked_at.is_(None))),
    ):
        tx.execute(update(table).where(where).values(revoked_at=tx.now))
    where = and_(c.id == client_id, c.disabled_at.is_(None))
    return tx.execute(update(t.client).where(where).values(disabled_at=tx.now)).rowcount == 1


def put_key(tx: Tx, client_id: str, kid: str, jwk: dict[str, Any]) -> None:
    """Add a public key; one with the same id is replaced."""
    where = and_(t.client_key.c.client_id == client_id, t.client_key.c.kid == kid)
    changed = tx.execute(update(t.client_key).where(where).values(jwk=jwk, revoked_at=None))
    if not changed.rowcount:
        tx.execute(
            t.into(t.client_key),
            {
                "client_id": client_id,
                "kid": kid,
                "jwk": jwk,
                "created_at": tx.now,
                "revoked_at": None,
            },
        )


def revoke_key(tx: Tx, client_id: str, kid: str) -> bool:
    """Revoke a key, at once; False where there is none."""
    where = and_(
        t.client_key.c.client_id == client_id,
        t.client_key.c.kid == kid,
        t.client_key.c.revoked_at.is_(None),
    )
    return tx.execute(update(t.client_key).where(where).values(revoked_at=tx.now)).rowcount == 1


def put_grant(tx: Tx, client_id: str, organisation: str, valid_to: datetime | None = None) -> None:
    """Grant a client to act for an organisation from now on."""
    g = t.grant.c
    where = and_(g.client_id == client_id, g.organisation == organisation)
    values = {"valid_from": tx.now, "valid_to": valid_to, "revoked_at": None}
    if not tx.execute(update(t.grant).where(where).values(**values)).rowcount:
        tx.execute(
            t.into(t.grant), {"client_id": client_id, "organisation": organisation, **values}
        )


def revoke_grant(tx: Tx, client_id: str, organisation: str) -> bool:
    """Withdraw a grant, at once; False where there is none."""
    g = t.grant.c
    where = and_(g.client_id == client_id, g.organisation == organisation, g.revoked_at.is_(None))
    return tx.execute(update(t.grant).where(where).values(revoked_at=tx.now)).rowcount == 1


def use_jti(tx: Tx, issuer: str, jti: str, expires_at: datetime) -> bool:
    """Use an assertion's id up; False where it was used before."""
    tx.execute(delete(t.jti).where(t.jti.c.expires_at < tx.now))
    j = t.jti.c
    if tx.first(select(j.jti).where(and_(j.issuer == issuer, j.jti == jti))) is not None:
        return False
    tx.execute(t.into(t.jti), {"issuer": issuer, "jti": jti, "expires_at": expires_at})
    return True


def put_secret(tx: Tx, secret_id: str, ods: str, kek_id: str, sealed: bytes) -> None:
    """Add a webhook secret; of those before it only the newest stays valid."""
    s = t.webhook_secret.c
    valid = tx.all(
        select(s.id).where(and_(s.ods == ods, s.retired_at.is_(None))).order_by(s.created_at, s.id)
    )
    for row in valid[:-1]:
        tx.execute(update(t.webhook_secret).where(s.id == row.id).values(retired_at=tx.now))
    tx.execute(
        t.into(t.webhook_secret),
        {
            "id": secret_id,
            "ods": ods,
            "kek_id": kek_id,
            "sealed": sealed,
            "created_at": tx.now,
            "retired_at": None,
        },
    )


def secrets(connection: Connection, ods: str) -> Sequence[Row[Any]]:
    """Return an organisation's valid webhook secrets, newest first: two at most."""
    return connection.execute(_SECRETS, {"ods": ods}).all()
