"""Proof that the key ring given at start-up is the one that the data was sealed with."""

from sqlalchemy import Connection, select

from broker.store import tables as t
from broker.store.tx import Tx


def checks(connection: Connection) -> dict[str, str]:
    """Return the check value of every key that was ever used here, by key id."""
    return {row.key_id: row.check_value for row in connection.execute(select(t.key_check))}


def put_checks(tx: Tx, fresh: dict[str, tuple[str, str]]) -> None:
    """Remember new keys by their (purpose, check value)."""
    tx.execute(
        t.into(t.key_check),
        [
            {"key_id": key_id, "purpose": purpose, "check_value": value}
            for key_id, (purpose, value) in fresh.items()
        ],
    )
