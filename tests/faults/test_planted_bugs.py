"""The fault run finds every bug that is planted into the product, and none where none is.

Each bug is a patch in tests/faults/planted: a copy of the product gets it, the broker's processes
run that copy, and everybody else stays sound. What found it, and when, is published by the run.
"""

import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from sandbox.world import World
from tests.databases import PostgreSQL
from tests.faults.planted import planting, runs
from tests.faults.planted.planting import BUGS, Planted
from tests.faults.planted.runs import Found
from tests.kafka import MARKS, Kafka

PAGE: Final = planting.ROOT / "docs" / "checker.md"
PATIENCE: Final = 60.0

ON_POSTGRESQL: Final = (
    "group-commit-answers-early",
    "lost-wake-up-without-poll",
    "position-outside-the-head",
)
ON_KAFKA: Final = ("commit-past-poison",)
ON_SQLITE: Final = tuple(sorted(BUGS.keys() - {*ON_POSTGRESQL, *ON_KAFKA}))

Run = Callable[[World], Awaitable[Found]]


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """A copy of the product without a bug in it."""
    return planting.sound(tmp_path_factory.mktemp("planted") / "sound")


@pytest.fixture
def database_url(postgresql: PostgreSQL) -> Iterator[str]:
    """Where a database is in which there is nothing."""
    name = postgresql.create("template0")
    yield postgresql.url(name)
    postgresql.drop(name)


# -- the patches ---------------------------------------------------------------------------------


def test_the_ten_planted_bugs_still_apply_each_by_itself(sound: Planted) -> None:
    assert len(BUGS) == 10
    for bug in BUGS.values():
        planting.apply(bug, sound, "--check")


def test_a_patch_that_does_not_apply_says_what_is_to_be_done(tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    (folder / "broker").mkdir(parents=True)
    (folder / "broker" / "worker.py").write_text("# all of it is new\n")
    with pytest.raises(planting.DoesNotApply, match=r"stale-endpoint does[^!]* patch anew"):
        planting.apply(BUGS["stale-endpoint"], Planted(folder))


def test_each_bug_says_what_it_is_what_it_does_to_a_patient_and_by_what_it_is_found() -> None:
    for bug in BUGS.values():
        assert tuple(bug.heading) == planting.HEADINGS, bug.name
        assert bug.found_by <= planting.NAMES_OF_FINDS, bug.name


def test_the_page_about_the_judge_has_each_planted_bug_in_the_words_of_its_patch() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.split(" | ")[0][2:] in BUGS]
    assert rows == [bug.row for bug in BUGS.values()]


# -- the runs ------------------------------------------------------------------------------------


async def finds(
    name: str,
    sound: Planted,
    world: Callable[[dict[str, str]], World],
    run: Run,
    folder: Path,
    publish: Callable[[str, object], None],
) -> None:
    """Run with a bug, or with none where it has the name of none; fail unless that is found."""
    bug = BUGS.get(name)
    made = sound if bug is None else planting.planted(bug, sound, folder / "planted")
    async with world(made.environment) as there:
        began = time.monotonic()
        found = await run(there)
        seconds = time.monotonic() - began
        pids = {process.pid for process in there.processes}
    assert pids <= made.ran_in, "another broker was judged than the copy"
    by = ", ".join(sorted(found.by)) or "nothing"
    row = f"| {name} | {by} | {seconds:.0f} s |"
    (folder / "found.md").write_text(f"{row}\n\n{found}\n")
    publish("planted bugs", row)
    if bug is None:
        assert not found.by and not found.missed, str(found)
    else:
        assert found.by & bug.found_by, f"{name} was not found: {found}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["none-on-sqlite", *ON_SQLITE])
async def test_a_fault_run_on_sqlite_finds_what_is_planted(
    name: str,
    sound: Planted,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    def world(environment: dict[str, str]) -> World:
        settings = {**environment, **runs.FIRST_DEATH}
        return World(tmp_path / "world", settings=settings, patience=PATIENCE)

    await finds(name, sound, world, runs.on_sqlite, tmp_path, record_property)


@pytest.mark.slow
@pytest.mark.postgres
@pytest.mark.parametrize("name", ["none-on-postgresql", *ON_POSTGRESQL])
async def test_a_fault_run_on_postgresql_finds_what_is_planted(
    name: str,
    sound: Planted,
    tmp_path: Path,
    database_url: str,
    record_property: Callable[[str, object], None],
) -> None:
    def world(environment: dict[str, str]) -> World:
        settings = {
            **environment,
            "BROKER_DATABASE_URL": database_url,
            "BROKER_POLL_SECONDS": "2",
        }
        roles = runs.ROLES_ON_POSTGRESQL
        return World(tmp_path / "world", settings=settings, roles=roles, patience=PATIENCE)

    await finds(name, sound, world, runs.on_postgresql, tmp_path, record_property)


def _marked(name: str) -> object:
    return pytest.param(name, marks=[*MARKS, pytest.mark.postgres], id=f"kafka-{name}")


@pytest.mark.parametrize("name", [_marked(name) for name in ("none-on-kafka", *ON_KAFKA)])
async def test_a_fault_run_on_kafka_finds_what_is_planted(
    name: str,
    sound: Planted,
    tmp_path: Path,
    database_url: str,
    kafka: Kafka,
    record_property: Callable[[str, object], None],
) -> None:
    def world(environment: dict[str, str]) -> World:
        settings = {
            **environment,
            **runs.SLOW_POLL,
            "BROKER_DATABASE_URL": database_url,
            **kafka.topics_of_its_own(2),
        }
        roles = runs.ROLES_ON_KAFKA
        return World(tmp_path / "world", settings=settings, roles=roles, patience=PATIENCE)

    await finds(name, sound, world, runs.on_kafka, tmp_path, record_property)
