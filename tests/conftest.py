"""What every test may ask for: databases, stores, a clock that can be set, Kafka."""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling, Scheduling

from broker.store.database import sqlite_url
from broker.store.store import Store
from tests import minutes
from tests.databases import (
    TEMPLATE,
    Database,
    PostgreSQL,
    SettableClock,
    migrate,
    running_postgresql,
)
from tests.kafka import Kafka, running_kafka

BOTH = ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]
PUBLISHED = "planted bugs"
PREFIXES = (f"test-{number}." for number in itertools.count(1))


class OneKafka(LoadScopeScheduling):
    """Gives all tests that have Kafka in their name to one worker, any other to whoever is free."""

    def _split_scope(self, nodeid: str) -> str:
        return "kafka" if "kafka" in nodeid.lower() else nodeid


def pytest_configure(config: pytest.Config) -> None:
    """Have what each line of tests takes added up, where the run asks for it."""
    minutes.watch(config)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Stand in for xdist's own `loadgroup`, which does not see its marks under pytest 9.2
    (pytest-xdist issue 1386)."""
    return OneKafka(config, log) if config.getoption("dist") == "loadgroup" else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables whose rows tests published (`record_property("planted bugs", row)`)."""
    rows = [
        row
        for reports in terminalreporter.stats.values()
        for report in reports
        for name, row in getattr(report, "user_properties", ())
        if name == PUBLISHED and report.when == "call"
    ]
    if rows:
        terminalreporter.section(PUBLISHED)
        head = ("| planted bug | found by | after |", "|---|---|---|")
        terminalreporter.write_line("\n".join([*head, *sorted(rows)]))


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


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """A Kafka of one node. A test that asks for it has Kafka in its name (`OneKafka`) and the marks
    `tests.kafka.MARKS`, calls topics and groups by `topic_prefix`, and harms inside `harmed()`."""
    with running_kafka(1) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def kafka_cluster() -> Iterator[Kafka]:
    """A Kafka of three nodes, of which one may be lost. For the rest as `kafka`."""
    with running_kafka(3) as cluster:
        yield cluster


@pytest.fixture
def topic_prefix() -> str:
    """What the names of topics and groups begin with that no other test has."""
    return next(PREFIXES)
