"""Serial point: events a second that all processes together can put into one ledger.

Each process has a store of its own and writes the smallest there is, again and again: an event and
its audit entry, for many subjects at once. Nothing is checked, sealed or sent, so what is left is
the lock of the ledger's head and the commit under it (docs/adr/0001). The ceiling is one connection
that changes one row and commits, again and again. The figure is the events of the best number of
processes for each of its commits: above 1, for commits are shared.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, text

from benchmarks import rig, setups
from benchmarks.setups import Fresh
from broker.audit import Entry
from broker.events import REFERRAL_MOVED, Event, Priority, SubjectKind, uuid7
from broker.store import database
from broker.store.store import Store
from broker.store.tx import Tx
from broker.telemetry import set_up_logging
from tests.databases import migrate

NAME: Final = "serial-point"
AIM: Final = 1.0
SUBJECTS: Final = 64
PROCESSES: Final = {setups.SQLITE: (1,), setups.POSTGRESQL: (1, 2, 4)}
_CHANGE: Final = text("UPDATE bare SET n = n + 1")
_SUBJECTS_THERE: Final = text("SELECT count(*) FROM subject")


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark."""
    parser = rig.options(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    setups.run(parser, arguments, _run, on=(setups.SQLITE, setups.POSTGRESQL))


async def _run(chosen: argparse.Namespace, fresh: Fresh) -> None:
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place:
        machine = rig.machine(Path(place))
        url = fresh().get("BROKER_DATABASE_URL") or database.sqlite_url(Path(place) / "broker.db")
        migrate(url)
        rounds = [_round(url, number, chosen) for number in range(chosen.rounds)]
    ratio = round(statistics.median(one["ratio"] for one in rounds), 2)
    rig.Result(
        setups.named(NAME, chosen.on), ratio, f"≥ {AIM}", ratio >= AIM, {"rounds": rounds}
    ).tell(chosen.results, machine)


def _round(url: str, number: int, chosen: argparse.Namespace) -> dict[str, Any]:
    bare = _bare(url, chosen.seconds)
    events = {
        processes: _together(url, processes, chosen.seconds) for processes in PROCESSES[chosen.on]
    }
    one = {
        "bare_commits_per_second": round(bare, 1),
        "events_per_second": {processes: round(each, 1) for processes, each in events.items()},
        "ratio": round(max(events.values()) / bare, 3),
    }
    print(f"round {number + 1}: {one}", flush=True)
    return one


def _bare(url: str, seconds: float) -> float:
    engines = database.connect(url)
    try:
        with engines.writer.connect() as connection:
            connection.execute(text("CREATE TABLE bare AS SELECT 0 AS n"))
            connection.commit()
            done, begun = 0, time.perf_counter()
            while time.perf_counter() - begun < seconds:
                connection.execute(_CHANGE)
                connection.commit()
                done += 1
            each_second = done / (time.perf_counter() - begun)
            connection.execute(text("DROP TABLE bare"))
            connection.commit()
            return each_second
    finally:
        engines.dispose()


def _together(url: str, processes: int, seconds: float) -> float:
    engines = database.connect(url)
    with engines.reader.connect() as connection:
        there = _subjects(connection) + processes * SUBJECTS
    engines.dispose()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        running = [pool.submit(record, url, there, seconds) for _ in range(processes)]
        return sum(one.result() for one in running)


def record(url: str, begins_with: int, seconds: float) -> float:
    """Record events for so long, once there are so many subjects; return how many a second. The
    work of one process."""
    set_up_logging("warning")
    store = Store(url)
    try:
        return asyncio.run(_record(store, begins_with, seconds))
    finally:
        store.close()


async def _record(store: Store, begins_with: int, seconds: float) -> float:
    subjects = [uuid7() for _ in range(SUBJECTS)]
    await store.write(lambda tx: _begin(tx, subjects))
    while await store.look_up(_subjects) < begins_with:  # noqa: ASYNC110 - other processes'
        await asyncio.sleep(0.01)
    begun = time.perf_counter()

    async def of_one(subject: str) -> int:
        done = 0
        while time.perf_counter() - begun < seconds:
            await store.write(lambda tx: _write(tx, subject))
            done += 1
        return done

    done = sum(await asyncio.gather(*map(of_one, subjects)))
    return done / (time.perf_counter() - begun)


def _subjects(connection: Connection) -> int:
    return int(connection.execute(_SUBJECTS_THERE).scalar_one())


def _begin(tx: Tx, subjects: Sequence[str]) -> None:
    for subject in subjects:
        tx.new_subject(subject, SubjectKind.REFERRAL, "G99001")


def _write(tx: Tx, subject: str) -> None:
    tx.audit(Entry("referral.moved", "benchmark", "G99001", "referral", subject))
    tx.record(
        Event(
            id=uuid7(),
            type=REFERRAL_MOVED,
            source="//broker.test",
            subject=subject,
            time=tx.now,
            dataschema="",
            priority=Priority.ROUTINE,
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
