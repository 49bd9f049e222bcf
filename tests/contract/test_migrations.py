"""Migrating, on SQLite and PostgreSQL: whole or not at all, one at a time, safe to repeat."""

import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, delete, inspect, select, text, update

from broker.audit import GENESIS, Entry
from broker.events import uuid7
from broker.store import columns, ledger, schema, trail
from broker.store import database as db
from broker.store import tables as t
from tests.databases import Database
from tests.samples import count, record

VERSION = text("UPDATE alembic_version SET version_num = :to")


@contextmanager
def engine_of(database: Database) -> Iterator[Engine]:
    """The writing engine of a database that is perhaps not migrated yet."""
    engines = db.connect(database.url)
    try:
        yield engines.writer
    finally:
        engines.dispose()


def set_revision(engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        connection.execute(VERSION, {"to": revision})


def test_an_empty_database_is_migrated_to_this_release(empty_database: Database) -> None:
    with engine_of(empty_database) as engine:
        assert schema.current(engine) is None
        assert schema.is_empty(engine)
        with pytest.raises(schema.WrongSchema, match=r"is empty\. Run: referral-broker migrate"):
            schema.check(engine)
        assert schema.migrate(engine) == schema.revisions()
        assert schema.current(engine) == schema.revisions()[-1]
        schema.check(engine)
        assert set(inspect(engine).get_table_names()) == {*t.METADATA.tables, "alembic_version"}
        with engine.connect() as connection:
            head = connection.execute(select(t.ledger_head)).one()
        assert tuple(head) == (1, 0, 0, GENESIS)


def test_migrating_twice_changes_nothing(empty_database: Database) -> None:
    with engine_of(empty_database) as engine:
        schema.migrate(engine)
    store = empty_database.open()
    store.write_now(lambda tx: record(tx, uuid7()))
    assert schema.migrate(store.writer) == []
    assert store.read_now(ledger.head) == 1
    assert store.read_now(lambda c: count(c, t.ledger_head)) == 1
    store.write_now(lambda tx: record(tx, uuid7()))
    assert store.read_now(trail.verify_audit).checked == 2


def differs(context: Any, inspected: Any, declared: Any, found: Any, wanted: Any) -> bool | None:
    """Compare our own column types by what they come down to; leave others to alembic."""
    if type(wanted).__module__ != columns.__name__:
        return None
    dialect = context.dialect
    down = wanted.load_dialect_impl(dialect).compile(dialect=dialect)
    return bool(down != found.compile(dialect=dialect))


def test_the_migrated_schema_is_the_one_that_the_code_declares(database: Database) -> None:
    store = database.open()
    with store.writer.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": differs})
        assert compare_metadata(context, t.METADATA) == []
        connection.execute(text("ALTER TABLE cursor ADD COLUMN extra TEXT"))
        connection.execute(text("DROP INDEX ix_delivery_due"))
        found = {difference[0] for difference in compare_metadata(context, t.METADATA)}
        assert found == {"remove_column", "add_index"}
        connection.rollback()


def test_on_sqlite_tables_are_strict_and_kept_exactly_as_declared(
    sqlite_database: Database, tmp_path: Path
) -> None:
    declared = sqlite3.connect(tmp_path / "declared.db")
    with engine_of(Database(db.sqlite_url(tmp_path / "declared.db"), sqlite_database.clock)) as e:
        t.METADATA.create_all(e)
    migrated = sqlite3.connect(sqlite_database.path)

    def statements(connection: sqlite3.Connection) -> dict[str, list[str]]:
        rows = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name <> ?",
            ("alembic_version",),
        )
        return {name: sorted(re.split(r",\s*\n|\n", sql)) for name, sql in rows}

    def plain(found: dict[str, list[str]]) -> dict[str, list[str]]:
        return {name: [part.strip(" \t,") for part in parts] for name, parts in found.items()}

    wanted = plain(statements(declared))
    assert plain(statements(migrated)) == wanted
    assert all("STRICT" in " ".join(wanted[name]) for name in t.METADATA.tables)
    declared.close()
    migrated.close()


def test_of_two_that_migrate_at_once_one_does_it_and_the_other_waits(
    empty_database: Database,
) -> None:
    ready = threading.Barrier(2)

    def migrate() -> list[str]:
        with engine_of(empty_database) as engine:
            ready.wait(10)
            return schema.migrate(engine)

    with engine_of(empty_database), ThreadPoolExecutor(2) as pool:
        runs = [run.result() for run in [pool.submit(migrate) for _ in range(2)]]
    assert sorted(runs) == [[], schema.revisions()]
    store = empty_database.open()
    assert store.read_now(lambda c: count(c, t.ledger_head)) == 1
    schema.check(store.writer)


@pytest.mark.postgres
def test_whoever_migrates_waits_longer_for_another_than_a_message_would(
    empty_postgresql: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "BUSY_SECONDS", 0.1)
    with engine_of(empty_postgresql) as engine, ThreadPoolExecutor(1) as pool:
        with psycopg.connect(empty_postgresql.url) as other:
            other.execute("SELECT pg_advisory_xact_lock(%s)", [schema._PG_LOCK])
            run = pool.submit(schema.migrate, engine)
            time.sleep(0.5)
            assert not run.done()
        assert run.result() == schema.revisions()


def test_a_migration_that_fails_leaves_nothing_behind(
    empty_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine_of(empty_database) as engine:
        with monkeypatch.context() as patch:
            # The last thing that migrating does goes wrong.
            patch.setattr(schema, "GENESIS", object())
            with pytest.raises(Exception, match="object"):
                schema.migrate(engine)
        assert inspect(engine).get_table_names() == []
        assert schema.current(engine) is None
        assert schema.migrate(engine) == schema.revisions()


def test_a_schema_of_a_newer_release_is_refused_in_a_sentence(database: Database) -> None:
    store = database.open()
    set_revision(store.writer, "9999")
    for refused in (schema.migrate, schema.check):
        with pytest.raises(schema.WrongSchema) as caught:
            refused(store.writer)
        assert str(caught.value) == (
            "The database is at 9999, which this release does not know: it was made by a newer "
            "one. Install that release or restore the backup made before the upgrade."
        )
    assert schema.current(store.writer) == "9999"


def test_a_release_runs_on_its_own_schema_and_the_one_before(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = database.open()
    first = schema.revisions()[0]
    set_revision(store.writer, first)
    monkeypatch.setattr(schema, "revisions", lambda: [first, "0002"])
    schema.check(store.writer)
    monkeypatch.setattr(schema, "revisions", lambda: [first, "0002", "0003"])
    with pytest.raises(
        schema.WrongSchema,
        match=rf"is at {first}; this release runs on 0002 or 0003\. Run: referral-broker migrate",
    ):
        schema.check(store.writer)


async def test_a_database_is_empty_until_anything_was_done_with_it(database: Database) -> None:
    store = database.open()
    assert schema.is_empty(store.writer)
    await store.write(
        lambda tx: tx.audit(Entry("directory.loaded", "operator", "", "directory", "1"))
    )
    assert not schema.is_empty(store.writer)


def test_a_head_that_is_there_is_never_reset(database: Database) -> None:
    store = database.open()
    with store.writer.begin() as connection:
        connection.execute(update(t.ledger_head).values(position=7))
    assert schema.migrate(store.writer) == []
    assert store.read_now(ledger.head) == 7
    with store.writer.begin() as connection:
        connection.execute(delete(t.ledger_head))
    assert schema.migrate(store.writer) == []
    assert store.read_now(ledger.head) == 0


def test_a_backup_is_a_whole_and_consistent_copy_even_while_others_write(
    sqlite_database: Database, tmp_path: Path
) -> None:
    store = sqlite_database.open(now=lambda: datetime.now(UTC))
    for _ in range(5):
        store.write_now(lambda tx: record(tx, uuid7()))
    stopped = threading.Event()

    def write() -> int:
        written = 0
        while not stopped.is_set():
            store.write_now(lambda tx: record(tx, uuid7()))
            written += 1
        return written

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            copies = [schema.back_up(store.writer, tmp_path / f"copy-{n}.db") for n in range(3)]
        finally:
            stopped.set()
        written = writing.result()
    for path in copies:
        copy = Database(db.sqlite_url(path), sqlite_database.clock)
        held = copy.open()
        head = held.read_now(ledger.head)
        assert 5 <= head <= 5 + written
        assert len(held.read_now(lambda c: ledger.after(c, 0, 100_000))) == head
        assert held.read_now(trail.verify_audit).checked == head
        schema.check(held.writer)
        copy.close()


def test_a_backup_stands_under_its_name_only_once_it_is_whole(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds `before-upgrade-….db` after a crash may rely on it."""
    store, target = sqlite_database.open(), tmp_path / "copy.db"

    def killed(path: Path) -> None:
        assert path.stat().st_size and not target.exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(schema, "demand_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            schema.back_up(store.writer, target)
    assert list(tmp_path.glob("copy.db*")) == []
    (tmp_path / "copy.db.part").write_bytes(b"left behind by one that was killed")
    schema.back_up(store.writer, target)
    schema.demand_whole(target)
    assert [path.name for path in tmp_path.glob("copy.db*")] == ["copy.db"]


def test_a_backup_never_overwrites_another(sqlite_database: Database, tmp_path: Path) -> None:
    store = sqlite_database.open()
    target = tmp_path / "copy.db"
    schema.back_up(store.writer, target)
    before = target.read_bytes()
    store.write_now(lambda tx: record(tx, uuid7()))
    with pytest.raises(Exception, match="is there already"):
        schema.back_up(store.writer, target)
    assert target.read_bytes() == before
