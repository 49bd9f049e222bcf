"""A year of referrals under a simulated clock: no loop stays open in silence, and none that closed
is ever raised.

What everybody does is drawn up here, with what should come of it; the broker has this clock alone.
"""

import heapq
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import time_machine
from sqlalchemy import Connection, select

from broker.calls import Called
from broker.deadlines import DeadlineKind
from broker.events import NOTICE_ISSUED
from broker.referral import STAGES, State
from broker.store import messages, referrals, work
from broker.store import tables as t
from tests.integration.driven import ADAPTERS, Driven, Sent, driven

BEGINS: Final = datetime(2027, 3, 1, 9, 0, tzinfo=UTC)  # the clocks change twice in a year from it
YEAR: Final = timedelta(days=365)
WEEK: Final = timedelta(days=7)
AT_ONCE: Final = (2.0, 300.0)
"""Seconds in which a partner's system says that it has stored something."""
NOT_PATIENTS: Final = frozenset({DeadlineKind.COPY_RECEIVED, DeadlineKind.NOTICE_RECEIVED})
# What the parties do, one after the other, until the loop is closed.
LIVES: Final = (
    ("accept", "complete"),
    ("accept", "book", "start", "complete"),
    ("accept", "book", "did-not-attend", "book", "start", "complete"),
    ("accept", "no-contact", "book", "start", "complete"),
    ("request-information", "answer", "accept", "start", "complete"),
    ("upgrade", "accept", "start", "complete"),
    ("reject", "resolve"),
    ("accept", "reject", "resolve"),
    ("accept", "decline"),
    ("cancel",),
)


@dataclass
class Life:
    """One referral, and what is left to be done of it; after so many moves somebody falls silent,
    and with 0 the receiver's system too."""

    left: list[str]
    silent_after: int | None
    sent: Sent | None = None
    made: int = 0

    @property
    def message(self) -> str:
        assert self.sent is not None
        return self.sent.message

    @property
    def is_silent(self) -> bool:
        return self.silent_after is not None and self.made >= self.silent_after


@dataclass
class Simulation:
    """A broker that is driven, what is to happen when, and the one clock."""

    world: Driven
    clock: time_machine.Traveller
    chance: random.Random
    lives: dict[str, Life] = field(default_factory=dict)
    agenda: list[tuple[datetime, int, Callable[[], Awaitable[None]]]] = field(default_factory=list)
    planned: int = 0

    def at(self, when: datetime, does: Callable[[], Awaitable[None]]) -> None:
        self.planned += 1
        heapq.heappush(self.agenda, (when, self.planned, does))

    async def run(self, until: datetime) -> None:
        """Let everything happen in its order, and the broker look whenever a deadline passes."""
        while True:
            due = await self.world.broker.safety.next_due()
            if self.agenda and (due is None or self.agenda[0][0] < due):
                when, _, does = heapq.heappop(self.agenda)
            elif due is not None and due < until:
                when, does = due, self.look
            else:
                break
            if when >= until:
                break
            self.clock.move_to(max(when, datetime.now(UTC)))
            await does()
            await self.deliver()
        self.clock.move_to(until)

    async def look(self) -> None:
        assert await self.world.broker.safety.run_once()

    async def deliver(self) -> None:
        """Fan out what was recorded; each partner's system confirms what it gets."""
        for row in await self.world.deliver():
            life = self.lives.get(row.subject_id)
            if life is not None and life.silent_after == 0 and row.role == "acting":
                continue
            seconds = self.chance.uniform(*AT_ONCE)
            self.at(datetime.now(UTC) + timedelta(seconds=seconds), partial(self.confirm, row))

    async def confirm(self, row: Any) -> None:
        await self.world.confirm(row)
        life = self.lives.get(row.subject_id)
        if life is not None and row.role == "acting" and life.made == 0:
            await self.plan(life)

    # -- the people ------------------------------------------------------------------------------

    async def refer(self, name: str, pathway: str, life: Life) -> None:
        """Post a referral as its pillar does; what is for today is telephoned about."""
        life.sent = await self.world.refer(name, pathway, f"year-{len(self.lives):06}")
        self.lives[life.sent.subject] = life
        if life.sent.priority == "stat":
            minutes = self.chance.uniform(1, 50)
            self.at(datetime.now(UTC) + timedelta(minutes=minutes), partial(self.call, life.sent))

    async def call(self, sent: Sent) -> None:
        broker = self.world.broker
        row = await broker.store.read(lambda c: messages.get(c, sent.message))
        said = {"called_at": datetime.now(UTC).isoformat(), "outcome": "spoke-to-clinician"}
        body = json.dumps(said).encode()
        await broker.calls.record(Called(self.world.by(sent.sender), row, sent.message, body))

    async def plan(self, life: Life) -> None:
        """Let whoever's turn it is act well before anything that waits for it passes."""
        if not life.left or life.is_silent:
            return
        rows = await self.world.broker.store.read(lambda c: work.deadlines_of(c, [life.message]))
        due = min(
            one.due_at
            for one in rows
            if one.cleared_at is None and one.kind not in {*NOT_PATIENTS, DeadlineKind.TELEPHONE}
        )
        now = datetime.now(UTC)
        self.at(now + self.chance.uniform(0.1, 0.8) * (due - now), partial(self.move, life))

    async def move(self, life: Life) -> None:
        assert life.sent is not None
        name = life.left.pop(0)
        row = await self.world.row(life.sent.subject)
        content = {}
        if name == "book":
            soon = datetime.now(UTC) + timedelta(hours=self.chance.uniform(0.1, 2))
            content = {"starts_at": soon.isoformat(), "place": "Clinic 1"}
        if name == "upgrade" and row.priority == "stat":
            name = life.left.pop(0)
        await self.world.move(life.sent.subject, name, **content)
        life.made += 1
        await self.plan(life)


@asynccontextmanager
async def simulated(folder: Path, seed: int) -> AsyncIterator[Simulation]:
    with time_machine.travel(BEGINS, tick=False) as clock:
        async with driven(folder) as world:
            yield Simulation(world, clock, random.Random(seed))  # noqa: S311 - nobody's secret


async def lived(world: Simulation, count: int, span: timedelta, silent: float) -> None:
    """Let so many referrals begin within a span, of which a part falls silent; then all of a year
    passes."""
    chance = world.chance
    every = [(name, pathway) for name, one in ADAPTERS.items() for pathway in one.examples]
    for number in range(count):
        name, pathway = every[number % len(every)] if number < len(every) else chance.choice(every)
        steps = list(chance.choice(LIVES))
        after = chance.randrange(len(steps)) if chance.random() < silent else None
        begins = BEGINS + chance.random() * span
        world.at(begins, partial(world.refer, name, pathway, Life(steps, after)))
    await world.run(BEGINS + YEAR)


@dataclass(frozen=True)
class Book:
    """What the database says of one referral in the end."""

    state: State
    deadlines: list[Any]
    listed: int


async def book(world: Simulation, life: Life) -> Book:
    def read(connection: Connection) -> Book:
        assert life.sent is not None
        row = referrals.get(connection, life.sent.subject)
        assert row is not None
        rows = work.deadlines_of(connection, [life.message])
        ids = {one.id for one in rows}
        items = [one for one in work.items_of(connection, life.message) if one.object_id in ids]
        return Book(State(row.state), list(rows), len(items))

    return await world.world.broker.store.read(read)


async def told_of(world: Simulation, topic: str) -> Counter[str]:
    """Count the notices on a topic by what caused them."""

    def read(connection: Connection) -> Counter[str]:
        e = t.event.c
        rows = connection.execute(select(e.facts, e.causation_id).where(e.type == NOTICE_ISSUED))
        return Counter(row.causation_id for row in rows if row.facts["topic"] == topic)

    return await world.world.broker.store.read(read)


@pytest.mark.slow
async def test_each_open_loop_is_raised_once_for_each_deadline_and_no_closed_one_ever(
    tmp_path: Path,
) -> None:
    async with simulated(tmp_path, seed=1) as world:
        await lived(world, count=120, span=timedelta(days=200), silent=0.4)
        raised = await told_of(world, "deadline-passed")
        silent = closed = listed = 0
        for life in world.lives.values():
            found = await book(world, life)
            running = [one for one in found.deadlines if one.cleared_at is None]
            for one in found.deadlines:
                if one.kind == DeadlineKind.REMINDED:
                    assert raised[one.id] == 0
                    continue
                passed = one.cleared_at is None and one.due_at < datetime.now(UTC)
                assert (one.raised_at is not None) is passed, (life, one)
                assert raised[one.id] == (1 if passed and one.kind != "telephone" else 0)
            if life.left:
                silent += 1
                assert STAGES[found.state].waits_for is not None
                assert running, (life, found)  # and what of that has passed was raised
                assert bool(found.listed) is any(one.raised_at is not None for one in running)
                listed += bool(found.listed)
            else:
                closed += 1
                assert STAGES[found.state].waits_for is None
                assert not running, (life, running)
                assert not found.listed
        assert silent + closed == 120
        assert min(listed, closed) > 30


@pytest.mark.slow
async def test_in_an_ordinary_week_hardly_anything_is_raised(tmp_path: Path) -> None:
    async with simulated(tmp_path, seed=2) as world:
        await lived(world, count=200, span=WEEK, silent=0.0)
        assert all(not life.left for life in world.lives.values())
        raised = await told_of(world, "deadline-passed")
        items = await world.world.broker.store.read(lambda c: work.open_items(c, None, 10))
        assert list(items) == []
        assert raised.total() * 1_000 <= 5 * len(world.lives)
