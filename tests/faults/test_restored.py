"""A broker whose disk is gone is made anew of a backup that was taken while it ran.

What was accepted before the backup reaches everybody once in effect; what came after it is lost
here, and every trace that others have of it is named before anything is sent.
"""

import asyncio
import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from sandbox.ledger import Entry, until
from sandbox.world import INBOX_PRACTICE, WEBHOOK_PRACTICE, World
from tests.faults import checker, copying, judged

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

PATIENCE: Final = 60.0
HASTY: Final = {"BROKER_POLL_SECONDS": "0.3"}


def everything(world: World) -> list[Any]:
    """An update to each practice, and a referral to the hospital."""
    pharmacy, optometrist = world.pharmacy, world.optometrist
    return [
        pharmacy.submit(pharmacy.consultation(practice=INBOX_PRACTICE)),
        pharmacy.submit(pharmacy.consultation(practice=WEBHOOK_PRACTICE)),
        optometrist.submit(optometrist.referral(practice=WEBHOOK_PRACTICE)),
    ]


def messages(replies: Iterable[Any]) -> set[str]:
    """The ids of the messages that were answered."""
    return {one["id"] for reply in replies for one in reply.json["messages"]}


def held(world: World) -> list[Entry]:
    """What every partner's own ledger says that it stored."""
    return [entry for partner in world.partners for entry in partner.ledger.entries("received")]


async def received(world: World, wanted: set[str]) -> None:
    """Wait until each of these messages is stored somewhere."""
    got = await until(lambda: wanted <= {one["message"] for one in held(world)}, PATIENCE)
    assert got, "not delivered"


def before_only(
    world: World, folder: Path, lost: set[str], gone: set[str], at: str, crashed: str
) -> list[Path]:
    """Copy the partners' ledgers without what was said before the crash about messages or
    deliveries that were lost, and without what was decided between the backup and the crash.

    A decision that is made again has the same notice, under the same ids: who had it from before
    the crash knows it, and here it is as if it came for the first time.
    """
    files = []

    def is_of_before(entry: Entry) -> bool:
        return entry["at"] < crashed and (
            entry.get("message") in lost or entry.get("delivery") in gone
        )

    for partner in world.partners:
        entries = partner.ledger.entries()
        ops = {
            entry["op"]
            for entry in entries
            if "op" in entry
            and (
                set(entry.get("messages") or ()) & lost
                or entry.get("delivery") in gone
                or (entry["does"] == "decide" and at < entry["at"] < crashed)
            )
        }
        kept = [
            entry for entry in entries if entry.get("op") not in ops and not is_of_before(entry)
        ]
        known = {entry["delivery"] for entry in kept if entry["what"] == "received"}
        for entry in kept:
            if entry["what"] == "received-again" and entry["delivery"] not in known:
                entry["what"] = "received"
                known.add(entry["delivery"])
        files.append(folder / f"{partner.ods}.jsonl")
        files[-1].write_text("".join(json.dumps(entry) + "\n" for entry in kept))
    return files


async def test_nothing_of_before_the_backup_is_lost_and_what_came_after_it_is_named(
    tmp_path: Path,
) -> None:
    async with World(tmp_path, settings=HASTY, starts_partners=False) as world:
        for partner in world.partners:
            if partner is not world.webhook_practice:  # what is sent to it waits for it
                await partner.start()
        early = await asyncio.gather(*everything(world), *everything(world))
        backup = tmp_path / "backup.db"
        (code, said), *_ = await asyncio.gather(
            world.cli("backup", str(backup)), *everything(world)
        )
        assert code == 0, said
        copied = copying.copy_of(backup, tmp_path / "backup-as-made.db")
        kept = {row[0] for row in rows(copied, "SELECT id FROM message")}
        made_at = max(row[0] for row in rows(copied, "SELECT time FROM audit"))
        assert messages(early) <= kept
        undone = {row[0] for row in rows(copied, "SELECT id FROM delivery WHERE state = 'due'")}
        assert len(undone) >= 4

        await world.webhook_practice.start()
        late = await asyncio.gather(*everything(world))
        await received(world, messages(early) | messages(late))
        await world.webhook_practice.stop()
        nowhere = world.pharmacy.consultation(practice=WEBHOOK_PRACTICE)
        unheard = await world.pharmacy.submit(nowhere)
        await world.broker.kill()
        crashed = datetime.now(UTC).isoformat()
        (tmp_path / "data").rename(tmp_path / "gone")

        lost = (messages(late) | messages([unheard])) - kept
        lost |= {one["message"] for one in held(world)} - kept
        gone = {one["delivery"] for one in held(world) if one["message"] in lost}
        before = {one["delivery"] for one in held(world)} - gone
        code, said = await world.cli("restore", "from", str(backup))
        assert code == 0, said
        await world.broker.start()
        await world.webhook_practice.start()

        # It takes messages meanwhile, and sends nothing: what no receiver had, its sender repeats.
        repeated = await world.pharmacy.submit(nowhere)
        assert repeated.status == 202
        # One receiver forgets to say of one delivery that it has it.
        forgotten = next(iter(sorted(undone & before)))
        receipts = tmp_path / "held.jsonl"
        receipts.write_text(
            "".join(
                json.dumps(
                    {name: one[name] for name in ("delivery", "digest")} | {"ods": one["partner"]}
                )
                + "\n"
                for one in held(world)
                if one["delivery"] != forgotten
            )
        )
        code, said = await world.cli("restore", "reconcile", "--receipts", str(receipts), "--json")
        assert code == 0, said
        told = json.loads(said[said.index("{\n") :])
        assert {one["delivery"] for one in told["unknown"]} == gone
        assert told["false"] == []
        assert forgotten in {one["delivery"] for one in told["unsent"]}
        assert not messages([repeated]) & {one["message"] for one in held(world)}
        again = [*again_of(world)]

        code, said = await world.cli("restore", "go")
        assert code == 0, said
        await received(world, messages([repeated]))
        await judged.settled(world, is_decided=False)
        files = before_only(world, tmp_path, lost, gone, made_at, crashed)
        copy = copying.copy_of(judged.database(world), tmp_path / "judged.db")
        judged.demand_nothing_wrong(checker.check(copy, files))
        # Nothing went out blindly: what receivers had said that they have did not come again.
        assert {one["delivery"] for one in again_of(world) if one not in again} == {forgotten}


def again_of(world: World) -> list[Entry]:
    """What came to the practice that is called once more."""
    return world.webhook_practice.ledger.entries("received-again")


def rows(database: Path, question: str) -> list[tuple[Any, ...]]:
    """Ask a copy of a database."""
    with closing(sqlite3.connect(database)) as found:
        return found.execute(question).fetchall()
