"""Connections that keep what they commit, on SQLite and PostgreSQL; anything weaker is refused."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.pool import NullPool, QueuePool

from broker.errors import BrokerError, Unavailable

READERS = 4
BUSY_SECONDS = 5.0
STATEMENT_SECONDS = 15.0  # PostgreSQL: what is asked reads by keys or a page, so takes far less
CONNECT_SECONDS = 5
SILENCE_SECONDS = 10  # without a sign of life a connection to a server counts as lost
GLANCE_SECONDS = 0.2  # a glance is on the event loop: better an error soon than everybody waiting
OLDEST_SQLITE = (3, 37, 0)


class UnsafeDatabase(BrokerError):
    """The database could lose what it has committed. The message says how to mend it."""


def sqlite_url(path: Path) -> str:
    """Return the URL of a SQLite database in a file."""
    return f"sqlite:///{path}"


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines of one store; `listener` only where others may write to it. What is read at a
    `glance` is in no transaction."""

    writer: Engine
    reader: Engine
    glance: Engine
    listener: Engine | None = None

    def dispose(self) -> None:
        """Close every connection."""
        for engine in (self.writer, self.reader, self.glance, self.listener):
            if engine is not None:
                engine.dispose()


def connect(url: str, *, readers: int = READERS) -> Engines:
    """Return engines whose commits survive power loss.

    Raises UnsafeDatabase, or Unavailable where the database cannot be opened.
    """
    try:
        backend = make_url(url).get_backend_name()
    except (ArgumentError, ValueError):
        raise UnsafeDatabase(
            "BROKER_DATABASE_URL cannot be read; write postgresql://USER:PASSWORD@HOST/DATABASE"
        ) from None
    if backend == "sqlite":
        engines = _sqlite(url, readers)
    elif backend == "postgresql":
        engines = _postgres(url, readers)
    else:
        raise UnsafeDatabase(
            f"BROKER_DATABASE_URL names {backend!r}; use sqlite:///… or postgresql://…"
        )
    try:
        with engines.writer.connect() as connection:
            check_durability(connection)
    except BaseException as error:
        engines.dispose()
        if isinstance(error, DBAPIError):
            said = str(error.orig).strip().splitlines() or [type(error).__name__]
            mend = "" if backend == "sqlite" else " Check BROKER_DATABASE_URL and the server."
            raise Unavailable(f"The database cannot be opened: {said[0]}.{mend}") from error
        raise
    return engines


def check_durability(connection: Connection) -> None:
    """Raise UnsafeDatabase unless a commit on this connection survives power loss."""
    if connection.dialect.name == "sqlite":
        journal = connection.execute(text("PRAGMA journal_mode")).scalar_one()
        synchronous = connection.execute(text("PRAGMA synchronous")).scalar_one()
        if journal != "wal" or synchronous < 2:
            raise UnsafeDatabase(
                f"SQLite runs with journal_mode={journal}, synchronous={synchronous}: it must be "
                "WAL and FULL. Is the data directory on a network file system? Move it to a disk."
            )
        return
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        value = connection.execute(text(f"SHOW {setting}")).scalar_one()
        if value not in {"on", "remote_write", "remote_apply"}:
            raise UnsafeDatabase(
                f"PostgreSQL runs with {setting}={value}: accepted messages could be lost. "
                f"Set {setting}=on and start the broker again."
            )


def _sqlite(url: str, readers: int) -> Engines:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise UnsafeDatabase(
            f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or later is needed."
        )
    arguments: dict[str, Any] = {
        "timeout": BUSY_SECONDS,
        "isolation_level": None,
        "check_same_thread": False,
    }
    writer = create_engine(url, connect_args=arguments, poolclass=QueuePool, pool_size=1)
    reader = create_engine(
        url, connect_args=arguments, poolclass=QueuePool, pool_size=readers, max_overflow=0
    )
    brief = {**arguments, "timeout": GLANCE_SECONDS}
    glance = create_engine(url, connect_args=brief, isolation_level="AUTOCOMMIT")
    event.listen(glance, "connect", _prepare_sqlite)
    for engine, begin in ((writer, "BEGIN IMMEDIATE"), (reader, "BEGIN")):
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_with(begin))
    return Engines(writer, reader, glance)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_with(statement: str) -> Any:
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(statement)

    return begin


def _postgres(url: str, readers: int) -> Engines:
    address = make_url(url).set(drivername="postgresql+psycopg")
    patience = {
        "connect_timeout": CONNECT_SECONDS,
        "tcp_user_timeout": SILENCE_SECONDS * 1_000,
        "keepalives_idle": SILENCE_SECONDS // 2,
        "keepalives_interval": 1,
        "keepalives_count": SILENCE_SECONDS // 2,
    }
    arguments = {name: most for name, most in patience.items() if name not in address.query}
    writer = create_engine(address, connect_args=arguments, pool_size=2, pool_pre_ping=True)
    reader = create_engine(
        address,
        connect_args=arguments,
        pool_size=readers,
        max_overflow=0,
        isolation_level="REPEATABLE READ",  # one reading sees one state, as on SQLite
    )
    for engine in (writer, reader):
        event.listen(engine, "connect", _wait_no_longer)
    # One way to the server and back instead of three, on the readers' connections.
    glance = reader.execution_options(isolation_level="AUTOCOMMIT")
    listener = create_engine(address, connect_args=arguments, poolclass=NullPool)
    return Engines(writer, reader, glance, listener)


def _wait_no_longer(connection: Any, _record: Any) -> None:
    for limit, most in (("lock_timeout", BUSY_SECONDS), ("statement_timeout", STATEMENT_SECONDS)):
        connection.execute(f"SET {limit} = {round(most * 1_000)}")
    connection.commit()  # what is set in a transaction that is rolled back is not set


def unpooled(engine: Engine) -> Engine:
    """Return an engine to the same database whose connections are closed after use."""
    return create_engine(engine.url, poolclass=NullPool)


def is_transient(error: BaseException) -> bool:
    """Whether the same transaction, run again, may succeed (deadlock, serialisation)."""
    cause = getattr(error, "orig", None)
    return getattr(cause, "sqlstate", None) in {"40001", "40P01"}


def is_locked(error: BaseException) -> bool:
    """Whether another connection holds what every transaction needs: SQLite's one writing lock, or
    a row of PostgreSQL's, the ledger's head before all."""
    cause = getattr(error, "orig", None)
    is_busy = getattr(cause, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
    return is_busy or getattr(cause, "sqlstate", None) == "55P03"


def is_out_of_reach(error: BaseException) -> bool:
    """Whether no connection to the server could be had, for this transaction or any other."""
    return (
        isinstance(error, OperationalError)
        and getattr(error.orig, "sqlstate", "") is None
        and not error.connection_invalidated
    )
