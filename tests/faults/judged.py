"""A world whose history is judged: wait until it has settled, then ask the checker."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg

from sandbox.ledger import Ledger, until
from sandbox.world import World
from tests.faults import checker
from tests.faults.copying import copy_of

SETTLES_WITHIN = 90.0

_UNDISPATCHED = """
SELECT 'events are not fanned out: ' || (h.position - coalesce(c.position, 0))
FROM ledger_head h LEFT JOIN cursor c ON c.name = 'dispatch'
WHERE h.position > coalesce(c.position, 0)
UNION ALL
SELECT 'events are not published: ' || (h.position - c.position)
FROM ledger_head h JOIN cursor c ON c.name = 'relay' WHERE h.position > c.position
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


def database(world: World) -> Path | str:
    """Return where a world's database is: SQLite's file, or PostgreSQL's URL."""
    return world.database_url or world.folder / "data" / "broker.db"


def ask(world: World, question: str, *values: Any) -> list[tuple[Any, ...]]:
    """Look into the database of a world from outside, while it runs or after."""
    where = database(world)
    if isinstance(where, str):
        with psycopg.connect(where) as server:
            return list(server.execute(question.replace("?", "%s"), values).fetchall())
    with closing(sqlite3.connect(f"file:{where}?mode=ro", uri=True, timeout=30)) as found:
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
    world: World,
    *,
    is_decided: bool = True,
    seconds: float = SETTLES_WITHIN,
    excused: Sequence[str] = ("misbehaved", "lied"),
) -> None:
    """Wait until nothing is under way any more; fails with what is left.

    What its receiver says that it did not take, or lied about, is not waited for, or only the
    latter where only that is `excused`.
    """
    left: list[str] = []

    def quiet() -> bool:
        bad = {
            str(entry.get("delivery"))
            for partner in world.partners
            for what in excused
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
    """Judge a world as it stands now, by copies of its files only.

    Its head is published then: whatever is judged later has to hold it still.
    """
    copy = copy_of(database(world), world.folder / "judged.db")
    heads = heads_of(world)
    files = [*(partner.ledger.path for partner in world.partners), *ledgers]
    verdict = checker.check(copy, [*files, *([heads] if heads.exists() else [])], down=down)
    publish_head(world, copy)
    return verdict


def heads_of(world: World) -> Path:
    """Return where the heads of a world's audit chain are published: outside of the broker."""
    return world.folder / "heads.jsonl"


def publish_head(world: World, copy: Path | None = None) -> None:
    """Write down, where the broker cannot, how far the audit chain goes: of a copy, or now."""
    asked = "SELECT audit_seq, audit_hash FROM ledger_head"
    if copy is None:
        ((seq, last),) = ask(world, asked)
    else:
        with closing(sqlite3.connect(copy)) as found:
            seq, last = found.execute(asked).fetchone()
    with closing(Ledger(heads_of(world), "auditor")) as ledger:
        ledger.write("head", audit_seq=seq, hash=last)


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
