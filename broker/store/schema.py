"""The schema: migrating it under a lock, and refusing to run on one that does not fit."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from broker.audit import GENESIS
from broker.crashpoints import crashpoint
from broker.errors import BrokerError
from broker.folders import sync_file
from broker.store import database
from broker.store import tables as t

T = TypeVar("T")
MIGRATIONS: Final = Path(__file__).parent / "migrations"
DRAFT: Final = ".part"
_PG_LOCK: Final = 0x5265_6642  # "RefB"


class NotADatabase(BrokerError):
    """A file cannot be what it should be: a copy of a broker's database."""


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
        ahead = every[every.index(before) + 1 :] if before is not None else every
        if ahead:
            command.upgrade(_config(connection), "head")
        if connection.execute(select(t.ledger_head.c.id)).first() is None:
            head = {"id": 1, "position": 0, "audit_seq": 0, "audit_hash": GENESIS}
            connection.execute(insert(t.ledger_head), head)
        if ahead:
            crashpoint("migrate.before-commit")
        return ahead


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


def back_up(engine: Engine, target: Path, beside: Callable[[Path], None] = lambda _: None) -> Path:
    """Copy a SQLite database, whole and as at one moment, whoever writes to it meanwhile.

    The copy is proved whole, and durable on return; it stands under its name only then, and after
    `beside` has put beside it what the copy at its path names. Raises FileExistsError where
    something is there already.
    """
    if target.exists():
        raise FileExistsError(errno.EEXIST, "it is there already", str(target))
    draft = draft_of(target)
    try:
        with database.unpooled(engine).connect() as connection:
            connection.exec_driver_sql("VACUUM INTO ?", (str(draft),))
        demand_whole(draft)
        crashpoint("backup.copied")
        beside(draft)
        sync_file(draft)  # SQLite leaves it to us that the copy survives
        draft.rename(target)
        sync_file(target)
    finally:
        remove(draft)
    return target


def look_into(path: Path, fn: Callable[[Connection], T]) -> T:
    """Return what `fn` reads in a SQLite database that nobody serves from. Changes nothing."""
    engine = create_engine(database.sqlite_url(path), poolclass=NullPool)
    with engine.connect() as connection:
        return fn(connection)


def draft_of(target: Path) -> Path:
    """Return an empty file that only its owner can read, beside the database that it is to become.

    What a process left there that was killed is gone, and with it what SQLite would read into the
    next one."""
    draft = target.with_name(f"{target.name}{DRAFT}")
    remove(draft)
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    return draft


def remove(path: Path) -> None:
    """Remove a SQLite database and its log, if they are there."""
    for tail in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + tail).unlink(missing_ok=True)


def demand_whole(path: Path) -> None:
    """Raise NotADatabase unless a file is a whole database of a broker's, page by page."""
    engine = create_engine(database.sqlite_url(path), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one()
        if found == "ok" and current(engine) is None:  # SQLite takes an empty file for a whole one
            found = "it is empty"
    except DBAPIError as error:
        found = str(error.orig)
    if found != "ok":
        raise NotADatabase(f"{path} is not a whole database: {found}.")


def _newer(found: str) -> str:
    return (
        f"The database is at {found}, which this release does not know: it was made by a newer "
        "one. Install that release or restore the backup made before the upgrade."
    )
