"""What every test may ask for: databases, stores and a clock that can be set."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.store.database import sqlite_url
from broker.store.store import Store
from tests.databases import (
    TEMPLATE,
    Database,
    PostgreSQL,
    SettableClock,
    migrate,
    running_postgresql,
)

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]


@pytest.fixture
def clock() -> SettableClock:
    """A clock that stands still until it is told to move."""
    return SettableClock()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server, one per test process."""
    with running_postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite database to copy."""
    path = tmp_path_factory.mktemp("template") / "broker.db"
    migrate(sqlite_url(path))
    return path


@pytest.fixture
def sqlite_database(
    sqlite_template: Path, tmp_path: Path, clock: SettableClock
) -> Iterator[Database]:
    """A migrated SQLite database."""
    path = tmp_path / "broker.db"
    shutil.copyfile(sqlite_template, path)
    made = Database(sqlite_url(path), clock)
    yield made
    made.close()


@pytest.fixture
def postgresql_database(postgresql: PostgreSQL, clock: SettableClock) -> Iterator[Database]:
    """A migrated PostgreSQL database."""
    name = postgresql.create(TEMPLATE)
    made = Database(postgresql.url(name), clock)
    yield made
    made.close()
    postgresql.drop(name)


@pytest.fixture
def empty_sqlite(tmp_path: Path, clock: SettableClock) -> Iterator[Database]:
    """A SQLite database in which there is nothing."""
    made = Database(sqlite_url(tmp_path / "empty.db"), clock)
    yield made
    made.close()


@pytest.fixture
def empty_postgresql(postgresql: PostgreSQL, clock: SettableClock) -> Iterator[Database]:
    """A PostgreSQL database in which there is nothing."""
    name = postgresql.create("template0")
    made = Database(postgresql.url(name), clock)
    yield made
    made.close()
    postgresql.drop(name)


@pytest.fixture(params=BOTH)
def database(request: pytest.FixtureRequest) -> Database:
    """A migrated database of each kind that the broker runs on."""
    made: Database = request.getfixturevalue(f"{request.param}_database")
    return made


@pytest.fixture(params=BOTH)
def empty_database(request: pytest.FixtureRequest) -> Database:
    """A database of each kind in which there is nothing."""
    made: Database = request.getfixturevalue(f"empty_{request.param}")
    return made


@pytest.fixture
def store(database: Database) -> Store:
    """A store on each kind of database; its clock is `clock`."""
    return database.open()
