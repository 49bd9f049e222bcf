"""The directory in the database: replaced whole, with a version that every acceptance checks."""

from typing import Final

from sqlalchemy import Connection, delete, select, update

from broker.directory import Directory
from broker.directory_file import from_rows, rows
from broker.store import tables as t
from broker.store.tx import DIRECTORY, Tx

_VERSION: Final = select(t.directory_head.c.version)  # built once: asked for every request


def version(connection: Connection) -> int:
    """Return the version in force; 0 where none was ever loaded."""
    return int(connection.execute(_VERSION).scalar() or 0)


def load(connection: Connection) -> tuple[int, Directory]:
    """Return the directory in force with its version."""
    entries = connection.execute(
        select(t.directory).order_by(t.directory.c.kind, t.directory.c.code)
    ).all()
    found = from_rows((row.kind, row.code, row.entry) for row in entries)
    return version(connection), found


def replace(tx: Tx, new: Directory) -> int:
    """Put a directory in force as a whole; return its version."""
    tx.execute(delete(t.directory))
    entries = [{"kind": kind, "code": key, "entry": entry} for kind, key, entry in rows(new)]
    if entries:
        tx.execute(t.into(t.directory), entries)
    before = version(tx.connection)
    values = {"version": before + 1, "loaded_at": tx.now}
    if before:
        tx.execute(update(t.directory_head).values(**values))
    else:
        tx.execute(t.into(t.directory_head), {"id": 1, **values})
    tx.wake(DIRECTORY)
    return before + 1
