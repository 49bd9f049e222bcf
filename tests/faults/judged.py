"""A world whose history is judged: wait until it has settled, then ask the checker."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sandbox.ledger import until
from sandbox.world import World
from tests.faults import checker

SETTLES_WITHIN = 90.0

_UNDISPATCHED = """
SELECT 'events are not fanned out: ' || (h.position - coalesce(c.position, 0))
FROM ledger_head h LEFT JOIN cursor c ON c.name = 'dispatch'
WHERE h.position > coalesce(c.position, 0)
"""
_UNDELIVERED = """
SELECT id || ' to ' || ods || ' is ' || state || ' ' || coalesce(held_reason, '') FROM delivery
WHERE state = 'due' OR held_reason = 'receipt' OR (state = 'held' AND held_reason = 'predecessor')
"""
_UNDECIDED = """
SELECT d.id || ' at ' || d.ods || ' is not decided' FROM delivery d
WHERE d.kind = 'update' AND d.received_at IS NOT NULL
AND NOT EXISTS (SELECT 1 FROM decision WHERE delivery_id = d.id)
UNION ALL
SELECT subject_id || ' at ' || receiver || ' is ' || state FROM referral
WHERE state IN ('requested', 'received')
"""


def database(world: World) -> Path:
    """Return where a world's database is."""
    return world.folder / "data" / "broker.db"


def ask(world: World, question: str, *values: Any) -> list[tuple[Any, ...]]:
    """Look into the database of a world from outside, while it runs or after."""
    with closing(sqlite3.connect(f"file:{database(world)}?mode=ro", uri=True, timeout=30)) as found:
        return found.execute(question, values).fetchall()


async def seen(
    world: World,
    question: str,
    *values: Any,
    is_right: Callable[[Any], Any] = bool,
    seconds: float = SETTLES_WITHIN,
) -> list[tuple[Any, ...]]:
    """Wait until the database of a world answers a question rightly; return that answer."""
    answers: list[list[tuple[Any, ...]]] = [[]]

    def look() -> bool:
        answers[0] = ask(world, question, *values)
        return bool(is_right(answers[0]))

    assert await until(look, seconds), f"after {seconds:g} s still {answers[0]}"
    return answers[0]


async def settled(
    world: World, *, is_decided: bool = True, seconds: float = SETTLES_WITHIN
) -> None:
    """Wait until nothing is under way any more; fails with what is left.

    What its receiver says that it did not take, or lied about, is not waited for.
    """
    left: list[str] = []

    def quiet() -> bool:
        bad = {
            str(entry.get("delivery"))
            for partner in world.partners
            for what in ("misbehaved", "lied")
            for entry in partner.ledger.entries(what)
        }
        left[:] = [one for (one,) in ask(world, _UNDISPATCHED)]
        undelivered = [str(one) for (one,) in ask(world, _UNDELIVERED)]
        left.extend(one for one in undelivered if one.partition(" ")[0] not in bad)
        if is_decided:
            left.extend(one for (one,) in ask(world, _UNDECIDED))
        return not left

    ends = asyncio.get_running_loop().time() + seconds
    while not quiet():
        assert asyncio.get_running_loop().time() < ends, "not settled:\n" + "\n".join(left[:20])
        await asyncio.sleep(0.2)


def judge(
    world: World, *, down: Sequence[str] = (), ledgers: Sequence[Path] = ()
) -> checker.Verdict:
    """Judge a world as it stands now, by copies of its files only."""
    copy = checker.copy_of(database(world), world.folder / "judged.db")
    files = [*(partner.ledger.path for partner in world.partners), *ledgers]
    return checker.check(copy, files, down=down)


async def found_right(world: World, *, is_decided: bool = True, said: str = "") -> None:
    """Wait until a world has settled and demand that the checker finds nothing.

    A partner may decide between the two, so what is found has to be found again and again.
    """
    for _ in range(5):
        await settled(world, is_decided=is_decided)
        verdict = judge(world)
        if not verdict.violations:
            return
    raise AssertionError(f"{said} {verdict}")


def demand_nothing_wrong(verdict: checker.Verdict) -> None:
    """Fail with every violation that the checker found."""
    assert not verdict.violations, str(verdict)
