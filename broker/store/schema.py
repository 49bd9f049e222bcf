"""The schema: migrating it under a lock, and refusing to run on one that does not fit."""

import os
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, insert, select, text

from broker.audit import GENESIS
from broker.errors import BrokerError
from broker.store import database
from broker.store import tables as t

MIGRATIONS: Final = Path(__file__).parent / "migrations"
_PG_LOCK: Final = 0x5265_6642  # "RefB"


class WrongSchema(BrokerError):
    """The database's schema is not one this release runs on. The message says how to mend it."""


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def revisions() -> list[str]:
    """Return every revision, oldest first."""
    found = ScriptDirectory.from_config(_config()).walk_revisions()
    return [script.revision for script in found][::-1]


def current(engine: Engine) -> str | None:
    """Return the database's revision, or None where nothing was ever migrated."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def is_empty(engine: Engine) -> bool:
    """Whether nothing was ever done here: whatever is done leaves an audit entry, for ever."""
    if current(engine) is None:
        return True
    with engine.connect() as connection:
        return connection.execute(select(t.audit.c.seq).limit(1)).first() is None


def migrate(engine: Engine) -> list[str]:
    """Bring the schema to this release's. One at a time under a lock; safe to repeat.

    Returns the revisions that were applied.
    """
    with engine.connect() as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            for limit in ("lock_timeout", "statement_timeout"):  # a migration takes what it takes
                connection.execute(text(f"SET LOCAL {limit} = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _PG_LOCK})
        before = MigrationContext.configure(connection).get_current_revision()
        every = revisions()
        if before is not None and before not in every:
            raise WrongSchema(_newer(before))
        todo = every[every.index(before) + 1 :] if before is not None else every
        if todo:
            command.upgrade(_config(connection), "head")
        if connection.execute(select(t.ledger_head.c.id)).first() is None:
            head = {"id": 1, "position": 0, "audit_seq": 0, "audit_hash": GENESIS}
            connection.execute(insert(t.ledger_head), head)
        return todo


def check(engine: Engine) -> None:
    """Raise WrongSchema unless this release runs on the database's schema (N or N-1)."""
    found, every = current(engine), revisions()
    if found is None:
        raise WrongSchema("The database is empty. Run: referral-broker migrate")
    if found not in every:
        raise WrongSchema(_newer(found))
    if found not in every[-2:]:
        raise WrongSchema(
            f"The database is at {found}; this release runs on {' or '.join(every[-2:])}. "
            "Run: referral-broker migrate"
        )


def back_up(engine: Engine, target: Path) -> Path:
    """Copy a SQLite database, whole and consistent, before it is migrated."""
    with database.unpooled(engine).connect() as connection:
        connection.exec_driver_sql("VACUUM INTO ?", (str(target),))
    for path in (target, target.parent):  # SQLite leaves it to us that the copy survives
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return target


def _newer(found: str) -> str:
    return (
        f"The database is at {found}, which this release does not know: it was made by a newer "
        "one. Install that release or restore the backup made before the upgrade."
    )
