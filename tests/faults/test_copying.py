"""A copy of a PostgreSQL database is the SQLite file that the judge reads, cell by cell."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, delete, insert, select

from broker.store.database import sqlite_url
from broker.store.tables import METADATA
from tests.databases import Database
from tests.faults import checker
from tests.faults.conftest import History
from tests.faults.copying import copy_of
from tests.faults.histories import Tampered

pytestmark = [pytest.mark.slow, pytest.mark.postgres]


def _fill(server: Database, copy: Path) -> None:
    """Put into a PostgreSQL database what a run left in SQLite, by the broker's own tables."""
    given = create_engine(sqlite_url(copy))
    taken = create_engine(server.url.replace("postgresql://", "postgresql+psycopg://"))
    with given.connect() as found, taken.begin() as made:
        for table in METADATA.sorted_tables:
            rows = [row._asdict() for row in found.execute(select(table))]
            made.execute(delete(table))
            if rows:
                made.execute(insert(table), rows)
    given.dispose()
    taken.dispose()


def _contents(copy: Path) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(copy)) as connection:
        found = {}
        for table in METADATA.sorted_tables:
            names = ", ".join(f'"{column.name}"' for column in table.columns)
            rows = connection.execute(f'SELECT {names} FROM "{table.name}"')  # noqa: S608
            found[table.name] = sorted(rows.fetchall(), key=repr)
        return found


def test_a_run_is_the_same_and_judged_the_same_from_either_database(
    good_run: History, postgresql_database: Database, tmp_path: Path
) -> None:
    _fill(postgresql_database, good_run.database)
    copy = copy_of(postgresql_database.url, tmp_path / "from-postgresql.db")
    assert _contents(copy) == _contents(good_run.database)
    verdict = checker.check(copy, good_run.ledgers, before=good_run.before)
    assert str(verdict) == str(good_run.judge())


def test_a_bad_run_is_found_out_the_same_from_either_database(
    good_run: History, postgresql_database: Database, tmp_path: Path
) -> None:
    run = Tampered(good_run, tmp_path)
    run.sql("DELETE FROM decision", "UPDATE receipt SET named_ods = 'ZZZ99'")
    _fill(postgresql_database, run.database)
    copy = copy_of(postgresql_database.url, tmp_path / "from-postgresql.db")
    verdict = checker.check(copy, run.ledgers)
    assert verdict.invariants >= {"I1", "I18"}
    assert sorted(map(str, verdict.violations)) == sorted(map(str, run.judge().violations))
