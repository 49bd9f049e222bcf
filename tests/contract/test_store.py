"""The store's contract, kept by SQLite and PostgreSQL alike: durable, in one order, all or none."""

import asyncio
import os
import queue
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import (
    Connection,
    create_engine,
    delete,
    event,
    insert,
    make_url,
    select,
    text,
    update,
)

from broker.audit import chain
from broker.errors import Conflict, Unavailable
from broker.events import Recorded, uuid7
from broker.store import database as db
from broker.store import keys, ledger, trail
from broker.store import tables as t
from broker.store.keys import Scope, Used
from broker.store.store import LARGEST_GROUP, Store
from broker.store.tx import DEADLINES, DELIVERIES, DIRECTORY, LEDGER, Tx
from tests.databases import Database, PostgreSQL
from tests.samples import PHARMACY, a_message, a_vault, an_entry, an_event, count, record

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0


def everything(store: Store) -> list[Recorded]:
    """The whole ledger. Raises LedgerGap."""
    return store.read_now(lambda c: ledger.after(c, 0, 100_000))


def positions(store: Store) -> list[int]:
    return [found.position for found in everything(store)]


async def in_one_group(store: Store, fns: Sequence[Callable[[Tx], Any]]) -> list[Any]:
    """Queue all of these while the writer is busy, so that they are taken up together."""
    started, opened = threading.Event(), threading.Event()

    def hold(tx: Tx) -> None:
        started.set()
        opened.wait(PATIENCE)

    first = asyncio.create_task(store.write(hold))
    await asyncio.to_thread(started.wait, PATIENCE)
    tasks = [asyncio.create_task(store.write(fn)) for fn in fns]
    await asyncio.sleep(0)
    opened.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    await first
    return answers


def commits_of(store: Store) -> list[float]:
    """A list that grows by one with every commit of the writer."""
    times: list[float] = []
    event.listen(store.writer, "commit", lambda connection: times.append(time.monotonic()))
    return times


def tries_of(store: Store, what: str) -> list[str]:
    """A list that grows by one with every `checkout` or `do_connect` of the writer."""
    tries: list[str] = []
    event.listen(store.writer, what, lambda *_: tries.append(what))
    return tries


# -- durable, and in groups ----------------------------------------------------------------------

CHILD = """
import asyncio, os, signal, sys
from broker.store.store import Store
from tests.samples import record

async def main():
    await Store(sys.argv[1]).write(lambda tx: record(tx, sys.argv[2]) and None)
    print("answered", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("point", "answered", "kept"),
    [
        ("", True, 1),
        ("store.committed", False, 1),
        ("store.before-commit", False, 0),
    ],
    ids=["after the answer", "before the answer", "before the commit"],
)
def test_what_was_answered_survives_a_kill_and_what_was_not_is_whole_or_absent(
    database: Database, point: str, answered: bool, kept: int
) -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD, database.url, uuid7()],
        cwd=ROOT,
        env=os.environ | {"CRASHPOINT": point},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert ("answered" in child.stdout) is answered
    store = database.open()
    assert positions(store) == list(range(1, kept + 1))
    assert store.read_now(lambda c: count(c, t.subject)) == kept
    verdict = store.read_now(trail.verify_audit)
    assert (verdict.broken_at, verdict.checked) == (None, kept)


async def test_a_write_is_seen_by_another_process_once_it_returns(database: Database) -> None:
    ours, theirs = database.open(), database.open()
    made = await ours.write(lambda tx: record(tx, uuid7()))
    assert [found.id for found in everything(theirs)] == [made.id]


async def test_many_concurrent_writes_share_few_commits_and_each_gets_its_own_answer(
    store: Store,
) -> None:
    commits = commits_of(store)

    def numbered(number: int) -> Callable[[Tx], int]:
        return lambda tx: record(tx, uuid7()) and number

    answers = await in_one_group(store, [numbered(number) for number in range(200)])
    assert answers == list(range(200))
    assert len(commits) <= 1 + -(-200 // LARGEST_GROUP)
    assert positions(store) == list(range(1, 201))


async def test_what_one_turn_of_the_loop_writes_shares_a_commit(store: Store) -> None:
    commits = commits_of(store)
    await asyncio.gather(*(store.write(lambda tx: record(tx, uuid7())) for _ in range(20)))
    assert len(commits) == 1
    assert positions(store) == list(range(1, 21))


def raises_its_own_answer(tx: Tx) -> None:
    record(tx, uuid7())
    raise Conflict("this contradicts what is known")


def repeats_an_event_id(tx: Tx) -> None:
    twice = record(tx, uuid7())
    record(tx, uuid7(), id=twice.id)


def names_a_time_without_offset(tx: Tx) -> None:
    record(tx, uuid7(), time=datetime(2026, 11, 23, 10))  # noqa: DTZ001


def says_what_is_not_json(tx: Tx) -> None:
    record(tx, uuid7(), facts={"when": object()})


def audits_what_is_not_json(tx: Tx) -> None:
    record(tx, uuid7())
    tx.audit(an_entry(when=object()))  # type: ignore[arg-type]


def breaks_a_rule_of_the_table(tx: Tx) -> None:
    record(tx, uuid7())
    tx.execute(insert(t.key_check), {"key_id": "k", "purpose": None, "check_value": ""})


def speaks_no_sql(tx: Tx) -> None:
    record(tx, uuid7())
    tx.execute(text("SELECT nothing FROM nowhere"))


BAD = [
    raises_its_own_answer,
    repeats_an_event_id,
    names_a_time_without_offset,
    says_what_is_not_json,
    audits_what_is_not_json,
    breaks_a_rule_of_the_table,
    speaks_no_sql,
]


def in_words(bad: Callable[[Tx], None]) -> str:
    return bad.__name__.replace("_", " ")


@pytest.mark.parametrize("bad", BAD, ids=in_words)
async def test_one_failing_write_of_a_group_leaves_no_trace_and_the_others_stand(
    store: Store, bad: Callable[[Tx], None]
) -> None:
    subjects = [uuid7() for _ in range(10)]
    good: list[Callable[[Tx], Any]] = [lambda tx, s=s: record(tx, s).id for s in subjects]
    answers = await in_one_group(store, [*good[:5], bad, *good[5:]])
    failed = answers.pop(5)
    assert isinstance(failed, Exception)
    if bad is raises_its_own_answer:
        assert isinstance(failed, Conflict)
    assert [found.id for found in everything(store)] == answers
    assert {found.subject for found in everything(store)} == set(subjects)
    assert store.read_now(lambda c: count(c, t.subject)) == len(subjects)
    verdict = store.read_now(trail.verify_audit)
    assert (verdict.broken_at, verdict.checked) == (None, len(subjects))


@pytest.mark.parametrize("bad", BAD, ids=in_words)
async def test_a_write_that_fails_alone_leaves_no_trace_and_the_next_one_stands(
    store: Store, bad: Callable[[Tx], None]
) -> None:
    with pytest.raises(Exception) as failed:
        await store.write(bad)
    assert isinstance(failed.value, Conflict) == (bad is raises_its_own_answer)
    assert store.read_now(lambda c: count(c, t.subject)) == 0
    made = await store.write(lambda tx: record(tx, uuid7()))
    assert [(found.position, found.id) for found in everything(store)] == [(1, made.id)]
    assert store.read_now(trail.verify_audit).broken_at is None


async def test_a_commit_that_fails_is_nobodys_success(store: Store) -> None:
    def fail(connection: Connection) -> None:
        raise Unavailable("the disk is gone")

    event.listen(store.writer, "commit", fail)
    answers = await asyncio.gather(
        *(store.write(lambda tx: record(tx, uuid7())) for _ in range(9)), return_exceptions=True
    )
    event.remove(store.writer, "commit", fail)
    assert all(isinstance(answer, Unavailable) for answer in answers), answers
    assert everything(store) == []
    await store.write(lambda tx: record(tx, uuid7()))
    assert positions(store) == [1]


async def test_the_writer_outlives_a_listener_that_fails(store: Store) -> None:
    heard: queue.Queue[set[str]] = queue.Queue()

    def broken(topics: set[str]) -> None:
        raise RuntimeError("Event loop is closed")

    store.listen(broken)
    store.listen(heard.put)
    for _ in range(2):
        async with asyncio.timeout(PATIENCE):
            await store.write(lambda tx: record(tx, uuid7()))
        assert await asyncio.to_thread(heard.get, timeout=PATIENCE) == {LEDGER}


async def test_the_writer_outlives_a_caller_whose_loop_is_gone(store: Store) -> None:
    started, opened = threading.Event(), threading.Event()

    def slow(tx: Tx) -> None:
        started.set()
        opened.wait(PATIENCE)
        record(tx, uuid7())

    def give_up() -> None:
        async def ask() -> None:
            task = asyncio.create_task(store.write(slow))
            await asyncio.to_thread(started.wait, PATIENCE)
            task.cancel()

        asyncio.run(ask())

    await asyncio.to_thread(give_up)
    opened.set()
    await store.write(lambda tx: record(tx, uuid7()))
    assert positions(store) == [1, 2]


async def test_a_failed_write_wakes_nobody(store: Store) -> None:
    heard: list[set[str]] = []
    store.listen(heard.append)
    with pytest.raises(Conflict):
        await store.write(raises_its_own_answer)
    await store.write(lambda tx: tx.audit(an_entry()))
    await store.write(lambda tx: tx.wake("directory"))
    assert heard in ([], [{"directory"}])


async def test_what_is_queued_is_finished_at_closing_and_what_comes_later_is_refused(
    database: Database,
) -> None:
    store = database.open()
    tasks = [asyncio.create_task(store.write(lambda tx: record(tx, uuid7()))) for _ in range(100)]
    await asyncio.sleep(0)
    await asyncio.to_thread(store.close)
    assert len(await asyncio.gather(*tasks)) == 100
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Unavailable):
            await store.write(lambda tx: record(tx, uuid7()))
    assert positions(database.open()) == list(range(1, 101))


def test_a_command_writes_without_a_loop_of_its_own(store: Store) -> None:
    store.write_now(lambda tx: record(tx, uuid7()))
    with pytest.raises(Conflict):
        store.write_now(raises_its_own_answer)
    assert positions(store) == [1]


# -- one order -----------------------------------------------------------------------------------


async def test_positions_are_gap_free_and_in_commit_order_with_failing_writes_between(
    store: Store,
) -> None:
    rounds: list[set[str]] = []
    for _ in range(4):
        fns: list[Callable[[Tx], Any]] = [
            raises_its_own_answer if number % 7 == 3 else lambda tx: record(tx, uuid7()).id
            for number in range(50)
        ]
        answers = await asyncio.gather(*map(store.write, fns), return_exceptions=True)
        rounds.append({answer for answer in answers if isinstance(answer, str)})
    ledger_ids = [found.id for found in everything(store)]
    assert positions(store) == list(range(1, len(ledger_ids) + 1))
    for stored in rounds:
        assert set(ledger_ids[: len(stored)]) == stored
        del ledger_ids[: len(stored)]
    assert ledger_ids == []


async def test_each_subject_counts_its_own_events_without_a_gap(store: Store) -> None:
    subjects = [uuid7() for _ in range(5)]
    await asyncio.gather(*(store.write(lambda tx, s=s: record(tx, s)) for s in subjects))
    fns: list[Callable[[Tx], Any]] = [
        raises_its_own_answer if number % 9 == 4 else lambda tx, s=s: record(tx, s)
        for number in range(20)
        for s in subjects
    ]
    await asyncio.gather(*map(store.write, fns), return_exceptions=True)
    found = everything(store)
    for subject in subjects:
        places = [e.subject_seq for e in found if e.subject == subject]
        assert places == list(range(1, len(places) + 1))
        of_subject = store.read_now(lambda c, s=subject: ledger.events_of(c, s))
        assert [e.subject_seq for e in of_subject] == places


async def test_two_events_of_one_write_keep_their_order(store: Store) -> None:
    subject = uuid7()
    made = await store.write(lambda tx: [record(tx, subject).id for _ in range(3)])
    assert [(e.id, e.subject_seq) for e in everything(store)] == list(
        zip(made, (1, 2, 3), strict=True)
    )


async def test_a_reader_with_a_cursor_never_skips_while_two_processes_write(
    database: Database,
) -> None:
    stores = [database.open(), database.open()]
    reading = database.open()
    total = 240
    seen: list[str] = []

    def follow() -> None:
        at, deadline = [0], time.monotonic() + PATIENCE
        while len(seen) < total and time.monotonic() < deadline:
            found = reading.read_now(lambda c: ledger.after(c, at[-1], 7))
            at.extend(e.position for e in found)
            seen.extend(e.id for e in found)
            time.sleep(0.001)  # lets the writers have the interpreter

    async def write(number: int) -> str:
        # Some writes are slow between their first statement and their end.
        def fn(tx: Tx) -> str:
            made = record(tx, uuid7())
            if number % 40 == 0:
                time.sleep(0.005)
            return made.id

        return await stores[number % 2].write(fn)

    following = asyncio.create_task(asyncio.to_thread(follow))
    written = await asyncio.gather(*(write(number) for number in range(total)))
    await following
    assert len(seen) == total
    assert set(seen) == set(written)
    assert positions(reading) == list(range(1, total + 1))
    verdict = reading.read_now(trail.verify_audit)
    assert (verdict.broken_at, verdict.checked) == (None, total)


async def test_a_gap_in_the_ledger_stops_a_reader(store: Store) -> None:
    for _ in range(3):
        await store.write(lambda tx: record(tx, uuid7()))
    with store.writer.begin() as connection:
        connection.execute(delete(t.event).where(t.event.c.position == 2))
    assert len(store.read_now(lambda c: ledger.after(c, 2, 10))) == 1
    with pytest.raises(ledger.LedgerGap, match="position 2 of the ledger is missing"):
        everything(store)


async def test_a_cursor_only_moves_forwards(store: Store) -> None:
    for position in (5, 9, 3):
        await store.write(lambda tx, p=position: ledger.move_cursor(tx, "dispatch", p))
    assert store.read_now(lambda c: ledger.cursor(c, "dispatch")) == 9
    assert store.read_now(lambda c: ledger.cursor(c, "relay")) == 0


async def test_events_of_named_subjects_are_undispatched_until_marked_and_only_once(
    store: Store,
) -> None:
    one, other = uuid7(), uuid7()
    for subject in (one, other, one):
        await store.write(lambda tx, s=subject: record(tx, s))

    def waiting(hints: dict[str, int]) -> list[tuple[str, int]]:
        found = store.read_now(lambda c: ledger.undispatched(c, hints))
        return [(e.subject, e.subject_seq) for e in found]

    assert waiting({one: 1}) == [(one, 1)]
    assert waiting({one: 2, other: 1}) == [(one, 1), (other, 1), (one, 2)]
    assert waiting({}) == []
    assert await store.write(lambda tx: ledger.mark_dispatched(tx, one, 0, 2))
    assert not await store.write(lambda tx: ledger.mark_dispatched(tx, one, 0, 2))
    assert waiting({one: 2, other: 1}) == [(other, 1)]


async def test_one_reading_sees_one_state_of_the_database(database: Database) -> None:
    reading, writing = database.open(), database.open()
    await writing.write(lambda tx: record(tx, uuid7()))
    going, gone = threading.Event(), threading.Event()

    def read(connection: Connection) -> tuple[int, int]:
        before = ledger.head(connection)
        going.set()
        gone.wait(PATIENCE)
        return before, len(ledger.after(connection, 0, 10))

    found = asyncio.create_task(reading.read(read))
    await asyncio.to_thread(going.wait, PATIENCE)
    await writing.write(lambda tx: record(tx, uuid7()))
    gone.set()
    assert await found == (1, 1)


async def test_a_look_up_sees_what_another_process_has_just_committed(database: Database) -> None:
    looking, writing = database.open(), database.open()
    for number in range(1, 4):
        await writing.write(lambda tx: record(tx, uuid7()))
        assert await looking.look_up(ledger.head) == number


async def test_a_look_up_that_fails_is_unavailable_and_the_next_one_works(store: Store) -> None:
    with pytest.raises(Unavailable, match="The database cannot be read"):
        await store.look_up(lambda c: c.execute(text("SELECT nothing FROM nowhere")))
    assert await store.look_up(ledger.head) == 0


async def test_the_audit_chain_verifies_while_others_write(database: Database) -> None:
    stores = [database.open(), database.open()]
    done = threading.Event()

    def look() -> list[Any]:
        found = []
        while not done.is_set():
            found.append(stores[0].read_now(trail.verify_audit))
            time.sleep(0.001)
        return found

    looking = asyncio.create_task(asyncio.to_thread(look))
    for _ in range(6):
        await asyncio.gather(
            *(stores[n % 2].write(lambda tx: tx.audit(an_entry())) for n in range(20))
        )
    done.set()
    verdicts = await looking
    assert verdicts
    assert [v for v in verdicts if v.broken_at is not None] == []


# -- the audit chain -----------------------------------------------------------------------------

a = t.audit.c


def altered(entry: int, **values: Any) -> Callable[[Connection], Any]:
    return lambda c: c.execute(update(t.audit).where(a.seq == entry).values(**values))


def deleted(*entries: int) -> Callable[[Connection], Any]:
    return lambda c: c.execute(delete(t.audit).where(a.seq.in_(entries)))


def swapped(connection: Connection) -> None:
    rows = connection.execute(select(t.audit).where(a.seq.in_((2, 3))).order_by(a.seq)).all()
    deleted(2, 3)(connection)
    for row, seq in zip(rows, (3, 2), strict=True):
        connection.execute(insert(t.audit), dict(row._mapping) | {"seq": seq})


def closed_up(connection: Connection) -> None:
    deleted(2)(connection)
    for seq in (3, 4, 5, 6):
        altered(seq, seq=seq - 1)(connection)


def added(connection: Connection) -> None:
    last = connection.execute(select(t.audit).where(a.seq == 6)).one()
    entry = an_entry()
    values = {
        "seq": 7,
        "action": entry.action,
        "object_id": entry.object_id,
        "facts": {},
        "hash": chain(last.hash, 7, last.time, entry),
    }
    connection.execute(insert(t.audit), dict(last._mapping) | values)


def beheaded(connection: Connection) -> None:
    connection.execute(update(t.ledger_head).values(audit_hash="0" * 64))


@pytest.mark.parametrize(
    ("tamper", "entry"),
    [
        (altered(1, actor="somebody"), 1),
        (altered(2, organisation="X99"), 2),
        (altered(3, action="message.withdrawn"), 3),
        (altered(3, object_kind="delivery"), 3),
        (altered(4, object_id="another"), 4),
        (altered(4, facts={}), 4),
        (altered(5, time=datetime.fromisoformat("2026-11-23T10:00:00.123457Z")), 5),
        (altered(6, hash="0" * 64), 6),
        (deleted(1), 1),
        (deleted(4), 4),
        (deleted(6), 6),
        (deleted(4, 5, 6), 4),
        (deleted(1, 2, 3, 4, 5, 6), 1),
        (swapped, 2),
        (closed_up, 2),
        (added, 7),
        (beheaded, 6),
    ],
    ids=[
        "actor altered",
        "organisation altered",
        "action altered",
        "kind of object altered",
        "object altered",
        "facts altered",
        "time altered by a microsecond",
        "hash altered",
        "first deleted",
        "one deleted",
        "last cut off",
        "end cut off",
        "all deleted",
        "two swapped",
        "one deleted and the gap closed up",
        "one added",
        "head altered",
    ],
)
async def test_any_change_to_the_audit_chain_is_found_and_names_the_entry(
    store: Store, tamper: Callable[[Connection], Any], entry: int
) -> None:
    for _ in range(3):
        await store.write(lambda tx: [tx.audit(an_entry(n=str(n))) for n in range(2)] and None)
    whole = store.read_now(trail.verify_audit)
    assert (whole.checked, whole.broken_at) == (6, None)
    with store.writer.begin() as connection:
        tamper(connection)
    verdict = store.read_now(trail.verify_audit)
    assert verdict.broken_at == entry
    assert verdict.why


# -- races, a locked database, a full disk -------------------------------------------------------


async def test_of_two_processes_with_the_same_key_one_is_first_and_the_other_sees_it(
    database: Database,
) -> None:
    vault = a_vault()
    stores = [database.open(), database.open()]

    async def accept(store: Store, scope: Scope) -> str:
        sample = a_message(vault, index=0)

        def fn(tx: Tx) -> str:
            used = keys.find(tx.connection, scope)
            if used is not None:
                return used.owner_id
            sample.put(tx)
            keys.put(tx, scope, Used("body", sample.id, 202))
            return sample.id

        return await store.write(fn)

    for number in range(15):
        scope = Scope(PHARMACY, "native", f"key-{number}")
        answers = await asyncio.gather(*(accept(store, scope) for store in stores for _ in "123"))
        assert len(set(answers)) == 1
    assert positions(stores[0]) == list(range(1, 16))
    assert stores[0].read_now(lambda c: count(c, t.message)) == 15


@pytest.mark.postgres
async def test_a_write_that_lost_a_race_is_run_again_and_sees_the_winner(
    postgresql_database: Database,
) -> None:
    slow, quick = postgresql_database.open(), postgresql_database.open()
    scope = Scope(PHARMACY, "native", "key")
    looked, won = threading.Event(), threading.Event()
    runs: list[Used | None] = []

    def lose(tx: Tx) -> str:
        runs.append(keys.find(tx.connection, scope))
        looked.set()
        won.wait(PATIENCE)
        if runs[-1] is None:
            keys.put(tx, scope, Used("slow", uuid7(), 202))
            return "first"
        return runs[-1].body_hmac

    losing = asyncio.create_task(slow.write(lose))
    await asyncio.to_thread(looked.wait, PATIENCE)
    await quick.write(lambda tx: keys.put(tx, scope, Used("quick", uuid7(), 202)))
    won.set()
    assert await losing == "quick"
    assert len(runs) == 2


@pytest.mark.postgres
async def test_a_deadlock_between_two_processes_is_settled_by_running_one_again(
    postgresql_database: Database,
) -> None:
    stores = [postgresql_database.open(), postgresql_database.open()]
    subjects = [uuid7(), uuid7()]
    for subject in subjects:
        await stores[0].write(lambda tx, s=subject: record(tx, s))
    meet = threading.Barrier(2)

    def crosswise(order: list[str]) -> Callable[[Tx], None]:
        runs: list[None] = []

        def fn(tx: Tx) -> None:
            tx.lock_subject(order[0])
            if not runs:
                runs.append(None)
                meet.wait(PATIENCE)
            for subject in order:
                record(tx, subject)

        return fn

    await asyncio.gather(
        stores[0].write(crosswise(subjects)), stores[1].write(crosswise(subjects[::-1]))
    )
    assert positions(stores[0]) == list(range(1, 7))


@pytest.mark.postgres
@pytest.mark.parametrize(("deadlocks", "is_stored"), [(2, True), (3, False)])
async def test_what_deadlocks_is_run_three_times_and_no_oftener(
    postgresql_database: Database, deadlocks: int, is_stored: bool
) -> None:
    """Who was broken off may be back before the other was given the row, and both wait again."""
    store, runs = postgresql_database.open(), list[Tx]()

    def fn(tx: Tx) -> None:
        runs.append(tx)
        record(tx, uuid7())
        if len(runs) <= deadlocks:
            tx.execute(text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$"))

    with nullcontext() if is_stored else pytest.raises(Unavailable):
        await store.write(fn)
    assert len(runs) == 3
    assert positions(store) == [1] * is_stored


@pytest.mark.postgres
async def test_who_waits_for_another_process_keeps_nobody_waiting_who_is_in_his_group(
    postgresql_database: Database,
) -> None:
    """Else two processes with groups wait for each other: a deadlock, and a second for all."""
    store = postgresql_database.open()
    free, held = uuid7(), uuid7()
    for subject in (free, held):
        await store.write(lambda tx, s=subject: record(tx, s))

    with psycopg.connect(postgresql_database.url) as other:
        other.execute("SELECT * FROM subject WHERE id = %s FOR UPDATE", (held,))
        first, waiting, last = (
            asyncio.create_task(store.write(lambda tx, s=subject: record(tx, s)))
            for subject in (free, held, free)
        )
        await asyncio.gather(first, last)
        assert not waiting.done()
    await waiting
    assert positions(store) == [1, 2, 3, 4, 5]


async def test_a_locked_database_is_unavailable_soon_for_all_and_keeps_no_trace(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "BUSY_SECONDS", 0.1)
    store = sqlite_database.open()
    other = sqlite3.connect(sqlite_database.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    tries = tries_of(store, "checkout")
    answers = await asyncio.gather(
        *(store.write(lambda tx: record(tx, uuid7())) for _ in range(60)), return_exceptions=True
    )
    assert len(tries) == 1
    for answer in answers:
        assert isinstance(answer, Unavailable)
        assert answer.detail == "Nothing was stored: database is locked."
        assert answer.retry_after > 0
    other.rollback()
    other.close()
    assert everything(store) == []
    await store.write(lambda tx: record(tx, uuid7()))
    assert positions(store) == [1]


@pytest.mark.postgres
async def test_a_head_that_is_locked_from_outside_is_as_a_locked_database(
    postgresql_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "BUSY_SECONDS", 0.3)
    store = postgresql_database.open()
    with psycopg.connect(postgresql_database.url) as other:
        other.execute("SELECT * FROM ledger_head FOR UPDATE")
        tries = tries_of(store, "checkout")
        answers = await asyncio.gather(
            *(store.write(lambda tx: record(tx, uuid7())) for _ in range(60)),
            return_exceptions=True,
        )
        assert len(tries) == 1
        assert {type(answer) for answer in answers} == {Unavailable}
        assert "Nothing was stored" in str(answers[0]) and "lock timeout" in str(answers[0])
        with pytest.raises(Unavailable, match="lock timeout"):
            await store.prove()
    assert everything(store) == []
    await store.prove()
    await store.write(lambda tx: record(tx, uuid7()))
    assert positions(store) == [1]


async def test_a_full_disk_refuses_what_does_not_fit_and_keeps_all_that_was_accepted(
    sqlite_database: Database,
) -> None:
    store = sqlite_database.open()
    vault = a_vault()
    with store.writer.connect() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 60}")
    accepted, refused = set(), 0
    samples = [a_message(vault, size=size) for size in (6_000, 6_000, 60_000, 1_000) * 12]
    answers = await asyncio.gather(
        *(store.write(sample.put) for sample in samples), return_exceptions=True
    )
    for sample, answer in zip(samples, answers, strict=True):
        if answer is None:
            accepted.add(sample.id)
        else:
            refused += 1
            assert isinstance(answer, Unavailable), answer
            assert answer.detail == "Nothing was stored: database or disk is full."
    assert accepted
    assert refused
    there = everything(store)
    assert {found.message_id for found in there} == accepted
    assert [found.position for found in there] == list(range(1, len(accepted) + 1))
    for table in (t.message, t.message_key, t.subject, t.audit):
        assert store.read_now(lambda c, table=table: count(c, table)) == len(accepted)
    assert store.read_now(lambda c: count(c, t.payload)) == 2 * len(accepted)
    assert store.read_now(trail.verify_audit).broken_at is None
    with store.writer.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    await store.write(a_message(vault, size=60_000).put)
    assert store.read_now(ledger.head) == len(accepted) + 1


async def test_after_a_refusal_it_is_proved_by_writing_that_room_is_there_again(
    sqlite_database: Database,
) -> None:
    store = sqlite_database.open()
    await store.prove()

    def pages(tx: Tx) -> int:
        found: int = tx.execute(text("PRAGMA page_count")).scalar_one()
        return found

    before = await store.write(pages)
    with store.writer.connect() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {before}")
    await store.prove()  # nothing was refused yet, so nothing is asked
    with pytest.raises(Unavailable):
        await store.write(a_message(a_vault(), size=60_000).put)
    await store.write(lambda tx: tx.wake("small things still fit"))
    for _ in range(2):
        with pytest.raises(Unavailable, match="database or disk is full"):
            await store.prove()
    one, other = await asyncio.gather(store.prove(), store.prove(), return_exceptions=True)
    assert isinstance(one, Unavailable) and isinstance(other, Unavailable)
    with store.writer.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    await store.prove()
    proved = await store.write(pages)
    for _ in range(3):
        await store.prove()
    assert await store.write(pages) == proved
    assert store.read_now(lambda c: count(c, t.payload)) == 0


async def test_who_stops_waiting_for_the_proof_leaves_it_under_way_and_nobody_asks_twice(
    sqlite_database: Database,
) -> None:
    store = sqlite_database.open()
    with pytest.raises(Unavailable):
        await store.write(lambda tx: tx.execute(text("SELECT * FROM no_such_table")) and None)
    queued = store._waiting

    async def ask() -> None:
        async with asyncio.timeout(0.1):
            await store.prove()

    with closing(sqlite3.connect(sqlite_database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TimeoutError):
            await ask()
        for _ in range(3):
            with pytest.raises(Unavailable, match="was not"):
                await ask()
        assert store._waiting == queued + 1
        other.execute("ROLLBACK")
    ends = time.monotonic() + PATIENCE
    while store._waiting:
        assert time.monotonic() < ends
        await asyncio.sleep(0.01)
    await ask()


async def test_the_proof_leaves_nothing_on_any_database(database: Database) -> None:
    store = database.open()

    def refuse(tx: Tx) -> None:
        tx.execute(text("SELECT * FROM no_such_table"))

    for _ in range(3):
        with pytest.raises(Unavailable):
            await store.write(refuse)
        await store.prove()
    assert store.read_now(lambda c: count(c, t.payload)) == 0
    assert everything(store) == []


@pytest.mark.postgres
async def test_a_connection_that_was_cut_is_replaced(postgresql_database: Database) -> None:
    store, other = postgresql_database.open(), postgresql_database.open()
    await store.write(lambda tx: record(tx, uuid7()))
    assert await store.look_up(ledger.head) == await store.read(ledger.head) == 1

    def cut(tx: Tx) -> None:
        tx.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
        )

    await other.write(cut)
    assert await store.look_up(ledger.head) == 1
    await other.write(cut)
    assert await store.read(ledger.head) == 1
    await other.write(cut)
    await store.write(lambda tx: record(tx, uuid7()))
    assert positions(store) == [1, 2]


@pytest.mark.postgres
async def test_what_is_looked_up_is_asked_once_more_on_a_new_connection_and_no_oftener(
    postgresql_database: Database,
) -> None:
    store, asked = postgresql_database.open(), list[Connection]()

    def cut_off(connection: Connection) -> None:
        asked.append(connection)
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(Unavailable):
        await store.look_up(cut_off)
    assert len(asked) == 2


@pytest.mark.postgres
async def test_a_connection_lost_while_writing_is_not_said_to_have_stored_nothing(
    postgresql_database: Database,
) -> None:
    store = postgresql_database.open()

    def lose(tx: Tx) -> None:
        record(tx, uuid7())
        tx.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))

    with pytest.raises(Unavailable, match="It is not known whether this was stored") as lost:
        await store.write(lose)
    assert "with the same key" in lost.value.detail
    await store.write(lambda tx: record(tx, uuid7()))
    assert positions(store) == [1]


@pytest.mark.postgres
async def test_a_server_that_is_silent_is_unavailable_in_time_and_all_goes_on_after(
    postgresql: PostgreSQL, postgresql_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.store.store.ANSWER_SECONDS", 0.5)
    store = postgresql_database.open()
    with postgresql.silent():
        for _ in range(3):
            with pytest.raises(Unavailable, match="does not answer"):
                await store.read(ledger.head)
    monkeypatch.undo()
    assert await store.read(ledger.head) == 0


@pytest.mark.postgres
async def test_where_no_connection_can_be_had_all_are_refused_after_one_try(
    postgresql: PostgreSQL, postgresql_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "CONNECT_SECONDS", 2)
    store = postgresql_database.open()
    store.writer.dispose()
    with postgresql.silent():
        tries = tries_of(store, "do_connect")
        answers = await asyncio.gather(
            *(store.write(lambda tx: record(tx, uuid7())) for _ in range(20)),
            return_exceptions=True,
        )
        assert len(tries) == 1
    assert {type(answer) for answer in answers} == {Unavailable}
    await store.write(lambda tx: record(tx, uuid7()))
    assert positions(store) == [1]


@pytest.mark.postgres
async def test_a_statement_that_takes_too_long_is_ended(
    postgresql_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "STATEMENT_SECONDS", 0.2)
    store = postgresql_database.open()

    def sleep(connection: Connection) -> None:
        connection.execute(text("SELECT pg_sleep(20)"))

    with pytest.raises(Unavailable, match="statement timeout"):
        await store.read(sleep)
    with pytest.raises(Unavailable, match="statement timeout"):
        await store.write(lambda tx: sleep(tx.connection))


@pytest.mark.postgres
def test_how_long_a_connection_waits_may_be_said_in_the_url(
    postgresql_database: Database,
) -> None:
    engines = db.connect(f"{postgresql_database.url}&connect_timeout=7")
    for engine in (engines.writer, engines.reader):
        with engine.connect() as connection:
            said = connection.connection.driver_connection.info.get_parameters()  # type: ignore[union-attr]
        assert (said["connect_timeout"], said["tcp_user_timeout"]) == ("7", "10000")
    engines.dispose()


async def test_too_long_a_queue_is_refused_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.store.store.LONGEST_QUEUE", 10)
    store = database.open()
    answers = await in_one_group(store, [lambda tx: record(tx, uuid7()) for _ in range(15)])
    refused = [answer for answer in answers if isinstance(answer, Unavailable)]
    assert len(refused) == 6  # ten wait, the one that holds the writer among them
    assert len(everything(store)) == 9


# -- settings that could lose what was accepted --------------------------------------------------


@pytest.mark.parametrize(
    ("pragma", "found"),
    [
        ("journal_mode=DELETE", "journal_mode=delete"),
        ("journal_mode=MEMORY", "journal_mode=memory"),
        ("synchronous=NORMAL", "synchronous=1"),
        ("synchronous=OFF", "synchronous=0"),
    ],
)
def test_sqlite_that_could_lose_a_commit_is_refused_in_a_sentence(
    sqlite_database: Database, pragma: str, found: str
) -> None:
    engine = create_engine(sqlite_database.url)
    with engine.connect() as connection:
        for statement in ("journal_mode=WAL", "synchronous=FULL"):
            connection.exec_driver_sql(f"PRAGMA {statement}")
        db.check_durability(connection)
        connection.exec_driver_sql(f"PRAGMA {pragma}")
        with pytest.raises(db.UnsafeDatabase, match=f"{found}.* must be WAL and FULL"):
            db.check_durability(connection)
    engine.dispose()


def test_a_database_in_memory_is_refused() -> None:
    with pytest.raises(db.UnsafeDatabase, match="journal_mode=memory"):
        Store("sqlite://")


def test_another_kind_of_database_is_refused_in_a_sentence() -> None:
    with pytest.raises(db.UnsafeDatabase, match="BROKER_DATABASE_URL names 'mysql'; use sqlite"):
        Store("mysql://localhost/broker")


def test_every_connection_of_a_sqlite_store_is_durable(sqlite_database: Database) -> None:
    store = sqlite_database.open()
    for engine in (store.writer, store.reader):
        with engine.connect() as connection:
            db.check_durability(connection)


@pytest.mark.postgres
@pytest.mark.parametrize("setting", ["fsync", "full_page_writes", "synchronous_commit"])
def test_a_postgresql_server_that_could_lose_a_commit_is_refused_in_a_sentence(
    postgresql: PostgreSQL, postgresql_database: Database, setting: str
) -> None:
    postgresql.set(setting, "off")
    try:
        with pytest.raises(db.UnsafeDatabase, match=f"{setting}=off.* Set {setting}=on"):
            postgresql_database.open()
    finally:
        postgresql.set(setting, None)
    postgresql_database.open()


@pytest.mark.postgres
@pytest.mark.parametrize(("value", "is_safe"), [("off", False), ("local", False), ("on", True)])
def test_a_postgresql_session_that_does_not_wait_for_the_disk_is_refused(
    postgresql_database: Database, value: str, is_safe: bool
) -> None:
    store = postgresql_database.open()
    with store.writer.connect() as connection:
        connection.execute(text(f"SET synchronous_commit = {value}"))
        if is_safe:
            db.check_durability(connection)
        else:
            with pytest.raises(db.UnsafeDatabase, match=f"synchronous_commit={value}"):
                db.check_durability(connection)
        connection.rollback()


def test_an_event_stands_in_the_ledger_as_it_was_recorded(store: Store) -> None:
    subject = uuid7()
    event_made = an_event(
        subject, message_id=uuid7(), causation_id=uuid7(), traceparent="00-ab-cd-01"
    )

    def fn(tx: Tx) -> None:
        record(tx, subject)
        tx.record(event_made)

    store.write_now(fn)
    found = store.read_now(lambda c: ledger.event(c, event_made.id))
    assert found is not None
    assert (found.position, found.subject_seq) == (2, 2)
    for name in event_made.__slots__:
        assert getattr(found, name) == getattr(event_made, name), name
    assert store.read_now(lambda c: ledger.event(c, uuid7())) is None


# -- what others commit --------------------------------------------------------------------------

LISTENS = "FROM pg_stat_activity WHERE datname = %s AND starts_with(query, 'LISTEN')"


def listening(
    server: PostgreSQL, database: Database, ears: int = 1
) -> tuple[Store, "queue.SimpleQueue[set[str]]"]:
    """Return a store that hears what others commit, and what it has heard."""
    store = database.open()
    heard: queue.SimpleQueue[set[str]] = queue.SimpleQueue()
    store.listen(heard.put)
    name = make_url(database.url).database
    deadline = time.monotonic() + PATIENCE
    while server.admin.execute(f"SELECT count(*) {LISTENS}", (name,)).fetchone() != (ears,):
        assert time.monotonic() < deadline
    return store, heard


@pytest.mark.postgres
async def test_what_one_process_commits_wakes_every_other_on_postgresql_at_once(
    postgresql: PostgreSQL, postgresql_database: Database
) -> None:
    _, heard = listening(postgresql, postgresql_database)
    other, _ = listening(postgresql, postgresql_database, ears=2)
    await other.write(lambda tx: record(tx, uuid7()) and None)
    assert heard.get(timeout=PATIENCE) == {LEDGER}


@pytest.mark.postgres
async def test_what_a_process_commits_itself_wakes_it_once_on_postgresql(
    postgresql: PostgreSQL, postgresql_database: Database
) -> None:
    store, heard = listening(postgresql, postgresql_database)
    other, _ = listening(postgresql, postgresql_database, ears=2)
    await store.write(lambda tx: record(tx, uuid7()) and None)
    await other.write(lambda tx: tx.wake(DIRECTORY))
    assert [heard.get(timeout=PATIENCE) for _ in range(2)] == [{LEDGER}, {DIRECTORY}]
    assert heard.empty()


@pytest.mark.postgres
async def test_a_store_whose_ears_were_cut_hears_again_and_looks_at_everything(
    postgresql: PostgreSQL, postgresql_database: Database
) -> None:
    _, heard = listening(postgresql, postgresql_database)
    name = make_url(postgresql_database.url).database
    postgresql.admin.execute(f"SELECT pg_terminate_backend(pid) {LISTENS}", (name,))
    assert heard.get(timeout=PATIENCE) == {LEDGER, DELIVERIES, DEADLINES, DIRECTORY}


@pytest.mark.postgres
async def test_a_store_that_is_closed_hears_nothing_more(
    postgresql: PostgreSQL, postgresql_database: Database
) -> None:
    """Whoever listened is gone, and its event loop with it."""
    store, heard = listening(postgresql, postgresql_database)
    other, _ = listening(postgresql, postgresql_database, ears=2)
    store.close()
    await other.write(lambda tx: record(tx, uuid7()) and None)
    with pytest.raises(queue.Empty):
        heard.get(timeout=1.5)
