"""The sweep: every crash point, what reaches it, and where a process is killed there.

Each point is passed many times; at which of them the process dies, a seed chooses. Without
BROKER_TEST_SEED it is the commit, so that every commit is judged at other places and each run of
one commit at the same.
"""

import hashlib
import itertools
import os
import subprocess
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sandbox.client import NeverAnswered
from sandbox.process import NotServing
from sandbox.world import World
from tests.databases import PostgreSQL
from tests.faults import dying
from tests.faults.dying import Story
from tests.faults.judged import found_right
from tests.kafka import Kafka

SQLITE: Final = "sqlite"
ON_KAFKA: Final = "postgresql-kafka"
EVERYWHERE: Final = (SQLITE, ON_KAFKA)
PATIENCE: Final = 180.0


@dataclass(frozen=True, slots=True)
class Case:
    """A crash point, a story that passes it `most` times at least, and the set-ups for it."""

    point: str
    story: Story
    most: int = 1
    on: tuple[str, ...] = EVERYWHERE

    def __str__(self) -> str:
        return f"{self.point}-{self.story.__name__}"

    def nth(self, seed: str) -> int:
        """Return the time at which the process dies there."""
        drawn = hashlib.sha256(f"{seed} {self}".encode()).digest()
        return int.from_bytes(drawn) % self.most + 1


# Those of one story in the order in which it passes them.
CASES: Final = (
    Case("intake.parsed", dying.serving, 9),
    Case("intake.sealed", dying.serving, 9),
    Case("intake.before-answer", dying.serving, 9),
    Case("attachment.synced", dying.serving),
    Case("attachment.named", dying.serving),
    Case("store.recorded", dying.serving, 40),
    Case("store.before-commit", dying.serving, 40),
    Case("store.committed", dying.serving, 40),
    Case("relay.read", dying.serving, 3, (ON_KAFKA,)),
    Case("relay.before-publish", dying.serving, 3, (ON_KAFKA,)),
    Case("relay.published", dying.serving, 3, (ON_KAFKA,)),
    Case("relay.committed", dying.serving, 3, (ON_KAFKA,)),
    Case("hints.read", dying.serving, 3, (ON_KAFKA,)),
    Case("hints.fanned-out", dying.serving, 3, (ON_KAFKA,)),
    Case("hints.committed", dying.serving, 3, (ON_KAFKA,)),
    Case("dispatch.read", dying.serving, 6),
    Case("dispatch.composed", dying.serving, 6),
    Case("dispatch.fanned-out", dying.serving, 6),
    Case("worker.claimed", dying.serving, 2),
    Case("worker.before-send", dying.serving, 5),
    Case("worker.sent", dying.serving, 5),
    Case("worker.settled", dying.serving, 5),
    Case("receipt.before-write", dying.serving, 30),
    Case("receipt.written", dying.serving, 30),
    Case("decision.written", dying.serving, 12),
    Case("withdrawal.written", dying.serving),
    Case("correction.written", dying.serving),
    Case("deadlines.raised", dying.serving),
    Case("replay.begun", dying.making),
    Case("replay.made", dying.making),
    Case("replay.published", dying.resending, 1, (ON_KAFKA,)),
    Case("replay.resent", dying.resending, 8),
    Case("replay.set-back", dying.rebuilding, 1, (ON_KAFKA,)),
    Case("backup.copied", dying.restoring, 1, (SQLITE,)),
    Case("attachments.copied", dying.restoring, 1, (SQLITE,)),
    Case("restore.copied", dying.restoring, 1, (SQLITE,)),
    Case("restore.begun", dying.restoring),
    Case("restore.named", dying.restoring, 1, (SQLITE,)),
    Case("restore.received", dying.restoring),
    Case("restore.compared", dying.restoring),
    Case("restore.reconciled", dying.restoring),
    Case("restore.ended", dying.restoring),
    Case("migrate.backed-up", dying.migrating, 1, (SQLITE,)),
    Case("migrate.applied", dying.migrating),
    Case("migrate.before-commit", dying.migrating, 1, (ON_KAFKA,)),
    Case("migrate.before-commit", dying.upgrading, 1, (SQLITE,)),
)

_DEATHS: Final = 5  # of a broker that serves, before it is judged
# These take back a schema, and with it all that is known of a restored backup.
_ALONE: Final = (dying.migrating, dying.upgrading)


def together(set_up: str) -> list[list[Case]]:
    """Return every case of a set-up, those of one story together: they are judged once."""
    found: list[list[Case]] = []
    here = (case for case in CASES if set_up in case.on)
    for story, told in itertools.groupby(here, key=lambda case: case.story):
        cases = list(told)
        most = _DEATHS if story is dying.serving else len(cases)
        found += [cases[first : first + most] for first in range(0, len(cases), most)]
    return found


def seed() -> str:
    """Return what chooses: BROKER_TEST_SEED, or the commit that is tested."""
    given = os.environ.get("BROKER_TEST_SEED")
    return given or commit()


def commit() -> str:
    """Return the commit of this repository; nothing where it is none."""
    said = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return said.stdout.strip()


# -- where it is swept ---------------------------------------------------------------------------


class OnKafka:
    """Makes worlds on PostgreSQL and Kafka, each with a database and topics of its own."""

    def __init__(self, postgresql: PostgreSQL, kafka: Kafka) -> None:
        self._postgresql = postgresql
        self._kafka = kafka
        self._databases: list[str] = []

    def __call__(self, folder: Path, **given: Any) -> World:
        self._databases.append(self._postgresql.create("template0"))
        settings = {
            "BROKER_DATABASE_URL": self._postgresql.url(self._databases[-1]),
            **self._kafka.topics_of_its_own(2),
            "BROKER_POLL_SECONDS": "1",
        }
        return World(folder, settings=settings, **given)

    def drop(self) -> None:
        """Remove the databases."""
        for name in self._databases:
            self._postgresql.drop(name)


class Worlds:
    """One world for many cases, whose history grows; after a failure, a new one."""

    def __init__(self, folder: Path, make: Callable[..., World] = World) -> None:
        self._folder = folder
        self._make = make
        self._stack = AsyncExitStack()
        self._world: World | None = None
        self._made = 0

    async def take(self, *, is_new: bool = False) -> World:
        """Return a world in which nothing is wrong and whose broker does not run."""
        if self._world is None or is_new:
            self._world = None
            await self._stack.aclose()
            self._made += 1
            made = self._make(self._folder / f"world-{self._made}", patience=PATIENCE)
            world = await self._stack.enter_async_context(made)
        else:
            world, self._world = self._world, None
        if world.broker.pid is not None:
            await world.broker.kill()
        return world

    def give_back(self, world: World) -> None:
        """Say that nothing is wrong in it."""
        self._world = world

    async def aclose(self) -> None:
        await self._stack.aclose()


async def sweep(worlds: Worlds, cases: Sequence[Case], chosen: str) -> None:
    """Have processes die where a seed says, all in one story, and judge what they left. Fails with
    how to repeat it."""
    story = cases[0].story
    crashpoints = [f"{case.point}:{case.nth(chosen)}" for case in cases]
    world = await worlds.take(is_new=story in _ALONE)
    try:
        await story(world, crashpoints)
        await found_right(world)
    except (AssertionError, NotServing, NeverAnswered) as error:
        where = ", ".join(crashpoints)
        raise AssertionError(f"{where}; BROKER_TEST_SEED={chosen}: {error}") from error
    worlds.give_back(world)
