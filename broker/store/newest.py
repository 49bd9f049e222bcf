"""Whether the database has this release's schema already: the release before lacks its tables."""

from typing import Final
from weakref import WeakSet

from sqlalchemy import Connection, Engine, inspect

from broker.store import tables as t

_have: Final[WeakSet[Engine]] = WeakSet()


def is_here(connection: Connection) -> bool:
    """Whether it has; once it has it keeps it, so that is asked only until then."""
    if connection.engine not in _have and inspect(connection).has_table(t.triage.name):
        _have.add(connection.engine)
    return connection.engine in _have
