"""What the tests of commands share: a place to run them in, on each kind of database."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from broker.vault import FileKeyRing
from tests.conftest import BOTH
from tests.databases import TEMPLATE, PostgreSQL
from tests.shell import DIRECTORY, Place


def settings_in(folder: Path) -> dict[str, str]:
    """The settings of a broker that keeps its things in a folder."""
    return {
        "BROKER_DATA_DIR": str(folder / "data"),
        "BROKER_KEYS_DIR": str(folder / "keys"),
        "BROKER_ALLOW_PLAIN_HTTP": "true",
    }


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Place]:
    """A place with the example directory, whose database is SQLite's."""
    place = Place(tmp_path, settings_in(tmp_path))
    place.run("migrate")
    place.run("directory", "load", str(DIRECTORY))
    yield place
    structlog.reset_defaults()


@pytest.fixture
def on_postgresql(postgresql: PostgreSQL, tmp_path: Path) -> Iterator[Place]:
    """A place with the example directory, whose database is PostgreSQL's."""
    name = postgresql.create(TEMPLATE)
    FileKeyRing.create(tmp_path / "keys" / "ring.json")
    url = {"BROKER_DATABASE_URL": postgresql.url(name)}
    place = Place(tmp_path, {**settings_in(tmp_path), **url})
    place.run("directory", "load", str(DIRECTORY))
    yield place
    structlog.reset_defaults()
    postgresql.drop(name)


@pytest.fixture(params=BOTH)
def operated(request: pytest.FixtureRequest) -> Place:
    """A place of each kind."""
    kind = "embedded" if request.param == "sqlite" else "on_postgresql"
    made: Place = request.getfixturevalue(kind)
    return made
