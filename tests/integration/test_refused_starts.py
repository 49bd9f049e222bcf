"""A broker on PostgreSQL that must not start says why and what to do, in one sentence, and ends."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from broker.opening import open_ring, open_store
from broker.settings import Settings
from broker.store import schema
from broker.vault import FileKeyRing
from sandbox.process import command, environment, free_port
from tests.databases import TEMPLATE, PostgreSQL, migrate_to

pytestmark = [pytest.mark.slow, pytest.mark.postgres]

ENDS_WITHIN = 60.0
PASSWORD = "a-wrong-password-6120"


@dataclass
class Place:
    """A database with the ring that belongs to it, and how a process there is set."""

    folder: Path
    server: PostgreSQL
    database: str

    @property
    def url(self) -> str:
        return self.server.url(self.database)

    @property
    def settings(self) -> Settings:
        return Settings(keys_dir=self.folder / "keys", database_url=self.url)

    def refused(self, *said: str, role: str = "worker", **variables: str) -> None:
        """Start a process, and demand that it ends with 2 and one sentence that says all this."""
        given = {
            "BROKER_DATABASE_URL": self.url,
            "BROKER_KEYS_DIR": str(self.folder / "keys"),
            "BROKER_ADMIN_PORT": "0",
            "BROKER_PUBLIC_URL": "https://broker.example",
            **variables,
        }
        ran = subprocess.run(
            command("serve", "--role", role),
            env=environment(given),
            capture_output=True,
            text=True,
            timeout=ENDS_WITHIN,
            check=False,
        )
        assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
        assert ran.stderr.count("\n") == 1, ran.stderr
        assert PASSWORD not in ran.stderr
        for words in said:
            assert words in ran.stderr


@pytest.fixture
def place(postgresql: PostgreSQL, tmp_path: Path) -> Iterator[Place]:
    """A database that was migrated and sealed with a ring, where a broker would start."""
    made = Place(tmp_path, postgresql, postgresql.create(TEMPLATE))
    FileKeyRing.create(made.settings.ring_path)
    with open_store(made.settings) as store:
        open_ring(made.settings, store)
    yield made
    postgresql.drop(made.database)


@pytest.fixture
def empty_place(postgresql: PostgreSQL, tmp_path: Path) -> Iterator[Place]:
    """A database in which there is nothing."""
    made = Place(tmp_path, postgresql, postgresql.create("template0"))
    yield made
    postgresql.drop(made.database)


@pytest.mark.parametrize("setting", ["fsync", "synchronous_commit", "full_page_writes"])
def test_a_server_that_could_lose_a_commit_is_not_started_on(place: Place, setting: str) -> None:
    place.server.set(setting, "off")
    try:
        place.refused(f"PostgreSQL runs with {setting}=off", f"Set {setting}=on and start")
    finally:
        place.server.set(setting, None)


# -- the schema ----------------------------------------------------------------------------------


def test_an_empty_database_is_first_to_be_migrated(empty_place: Place) -> None:
    empty_place.refused("The database is empty. Run: referral-broker migrate")


def test_a_schema_before_the_one_before_is_first_to_be_migrated(empty_place: Place) -> None:
    oldest, *_, before, now = schema.revisions()
    migrate_to(empty_place.url, oldest)
    empty_place.refused(
        f"is at {oldest}; this release runs on {before} or {now}. Run: referral-broker migrate"
    )


def test_a_schema_of_a_newer_release_wants_that_release(place: Place) -> None:
    with psycopg.connect(place.url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    place.refused("The database is at 9999", "Install that release")


# -- the key ring ----------------------------------------------------------------------------------


def test_without_a_key_ring_none_is_made(place: Place) -> None:
    place.settings.ring_path.unlink()
    place.refused("There is no key ring at", "ring.json")
    assert not place.settings.ring_path.exists()


def test_another_key_ring_than_the_databases_own_is_not_taken(place: Place) -> None:
    place.settings.ring_path.unlink()
    FileKeyRing.create(place.settings.ring_path)
    place.refused("lacks the key", "Restore the ring that has it")


# -- the way to the database -----------------------------------------------------------------------


@contextmanager
def asking_for_a_password(server: PostgreSQL, user: str) -> Iterator[None]:
    """While it lasts this user has to give a password."""
    rules = server.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    server.admin.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'the-right-one-2981'")
    rules.write_text(f"local all {user} scram-sha-256\n{before}")
    server.admin.execute("SELECT pg_reload_conf()")
    try:
        yield
    finally:
        rules.write_text(before)
        server.admin.execute("SELECT pg_reload_conf()")
        server.admin.execute(f"DROP ROLE {user}")


def test_a_wrong_password_is_said_to_be_one_and_not_repeated(place: Place) -> None:
    with asking_for_a_password(place.server, "stranger"):
        url = place.url.replace("//broker@", f"//stranger:{PASSWORD}@")
        place.refused(
            "The database cannot be opened",
            "password authentication failed",
            "Check BROKER_DATABASE_URL",
            BROKER_DATABASE_URL=url,
        )


@pytest.mark.parametrize("host", ["127.0.0.1:1", "nowhere.invalid"])
def test_a_server_that_is_not_there_is_said_not_to_be(place: Place, host: str) -> None:
    place.refused(
        "The database cannot be opened",
        "Check BROKER_DATABASE_URL",
        BROKER_DATABASE_URL=f"postgresql://broker:{PASSWORD}@{host}/broker",
    )


# -- what a process is to do -----------------------------------------------------------------------


def test_a_role_that_there_is_not_or_that_cannot_run_here_says_which_can(place: Place) -> None:
    place.refused("There is no role 'sender': it is one of all, api, relay", role="sender")
    place.refused("A relay publishes to Kafka, and BROKER_KAFKA_SERVERS is empty", role="relay")
    place.refused(
        "An embedded broker is one process", "set BROKER_DATABASE_URL", BROKER_DATABASE_URL=""
    )


def test_a_worker_must_know_where_receivers_give_their_receipts(place: Place) -> None:
    """Its own host is not the API's: each receipt would go astray."""
    place.refused("set BROKER_PUBLIC_URL", "as the API's processes have it", BROKER_PUBLIC_URL="")


def test_two_processes_of_one_host_do_not_share_an_admin_port(place: Place) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):  # as the first of them has it
        place.refused(
            f"127.0.0.1:{port} cannot be listened on: Address already in use",
            "set BROKER_ADMIN_PORT",
            BROKER_ADMIN_PORT=str(port),
        )
