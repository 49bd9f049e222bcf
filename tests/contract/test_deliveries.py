"""The rules of house.md, section 5: lanes, slots, breakers and leases, on SQLite and PostgreSQL."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, select
from sqlalchemy.engine import Row

from broker.events import Priority, SubjectKind, uuid7
from broker.store import claims, deliveries, work
from broker.store import tables as t
from broker.store.claims import BREAKER_AFTER, BREAKER_OPEN, LEASE, PROBE, RENEWED_AFTER, Slots
from broker.store.store import Store
from broker.store.tx import DELIVERIES, Tx
from tests.databases import Database, SettableClock
from tests.samples import PRACTICE, a_delivery, recorded

T = TypeVar("T")
HOSPITAL = "RX1"
WIDE = Slots(pool=1_000, destination=100)
ME = uuid7()


@dataclass
class Post:
    """Fans events out to one destination and settles what is claimed, one call for each."""

    store: Store
    clock: SettableClock
    position: int = 0
    seqs: dict[str, int] = field(default_factory=dict)

    def write(self, fn: Callable[[Tx], T]) -> T:
        return self.store.write_now(fn)

    def subject(self) -> str:
        made = uuid7()
        self.write(lambda tx: tx.new_subject(made, SubjectKind.REFERRAL, "FA001"))
        return made

    def send(
        self,
        subject: str,
        *consumers: str,
        facts: dict[str, str] | None = None,
        priority: Priority = Priority.ROUTINE,
        **row: Any,
    ) -> str:
        """Fan the subject's next event out; return the id of its (first) delivery."""
        self.position += 1
        self.seqs[subject] = seq = self.seqs.get(subject, 0) + 1
        event = recorded(
            subject,
            seq,
            self.position,
            facts=facts or {},
            priority=priority,
            message_id=uuid7(),
        )
        rows = [
            a_delivery(event, self.clock.now(), consumer=consumer, **row)
            for consumer in consumers or ("record_update",)
        ]
        assert self.write(lambda tx: deliveries.insert_new(tx, rows, event)) == len(rows)
        assert self.write(lambda tx: deliveries.insert_new(tx, rows, event)) == 0
        return str(rows[0]["id"])

    def get(self, delivery: str) -> Row[Any]:
        row = self.store.read_now(lambda c: deliveries.get(c, delivery))
        assert row is not None
        return row

    def state(self, delivery: str) -> str:
        """`due`, `dead`, `held: receipt`, `done: superseded` …"""
        row = self.get(delivery)
        reason = row.held_reason or row.done_reason
        return f"{row.state}: {reason}" if reason else str(row.state)

    def states(self, *ids: str) -> list[str]:
        return [self.state(delivery) for delivery in ids]

    def claim(self, limit: int = 100, slots: Slots = WIDE) -> list[str]:
        return [row.id for row in self.write(lambda tx: claims.claim(tx, ME, slots, limit))]

    def settle(self, delivery: str, fn: Callable[[Tx, Row[Any]], Any]) -> None:
        def settle(tx: Tx) -> None:
            row = deliveries.lock(tx, delivery)
            assert row is not None
            fn(tx, row)

        self.write(settle)

    def finish(self, delivery: str, reason: str = "receipt") -> None:
        self.settle(delivery, lambda tx, row: deliveries.finish(tx, row, reason))

    def hold(self, delivery: str) -> None:
        self.settle(delivery, lambda tx, row: deliveries.hold_for_receipt(tx, row, None))

    def bury(self, delivery: str) -> None:
        self.settle(delivery, lambda tx, row: claims.bury(tx, row, "answered-4xx"))

    def retry(self, delivery: str) -> None:
        self.settle(delivery, lambda tx, row: deliveries.retry(tx, row))

    def again(self, delivery: str, due_at: datetime) -> None:
        self.settle(delivery, lambda tx, row: claims.try_again(tx, row, due_at, "timed-out"))

    def fail(self, delivery: str) -> None:
        """Let an attempt fail, to be made again after five seconds."""

        def settle(tx: Tx, row: Row[Any]) -> None:
            claims.put_attempt(tx, delivery, row.attempt, tx.now, "retrying", "timed-out", None)
            claims.try_again(tx, row, tx.now + timedelta(seconds=5), "timed-out")

        self.settle(delivery, settle)

    def answer(self, *, failed: bool, ods: str = PRACTICE) -> None:
        self.write(lambda tx: claims.note_answer(tx, ods, "", failed=failed))


@pytest.fixture
def post(store: Store, clock: SettableClock) -> Post:
    return Post(store, clock)


# -- lanes ---------------------------------------------------------------------------------------


def test_only_the_first_unfinished_step_of_a_lane_is_due(post: Post) -> None:
    lane = post.subject()
    steps = [post.send(lane) for _ in range(3)]
    assert post.states(*steps) == ["due", "held: predecessor", "held: predecessor"]
    assert post.claim() == steps[:1]
    post.finish(steps[0])
    assert post.states(*steps) == ["done: receipt", "due", "held: predecessor"]
    assert post.claim() == steps[1:2]


def test_other_destinations_and_other_subjects_are_other_lanes(post: Post) -> None:
    lane, other = post.subject(), post.subject()
    first = post.send(lane)
    beside = [
        post.send(lane, ods=HOSPITAL),
        post.send(lane, ods=HOSPITAL, service="eyes"),
        post.send(other),
    ]
    second = post.send(lane)
    assert post.states(*beside) == ["due"] * 3
    assert post.states(first, second) == ["due", "held: predecessor"]


def test_a_lane_goes_over_all_consumers(post: Post) -> None:
    lane = post.subject()
    first = post.send(lane, "referral_delivery")
    second = post.send(lane, "notice_delivery")
    assert post.states(first, second) == ["due", "held: predecessor"]


def test_of_two_consumers_of_one_event_only_one_step_is_due(post: Post) -> None:
    lane = post.subject()
    post.send(lane, "record_update", "notice_delivery")
    assert len(post.claim()) == 1
    later = post.send(lane, "record_update", "notice_delivery")
    order = []
    while True:
        claimed = post.claim()
        due = [row for row in post.store.read_now(lambda c: all_rows(c)) if row.state == "due"]
        assert len(due) <= 1
        if not due:
            break
        order.append((due[0].subject_seq, due[0].consumer))
        assert set(claimed) <= {due[0].id}
        post.finish(due[0].id)
    assert order == [
        (1, "notice_delivery"),
        (1, "record_update"),
        (2, "notice_delivery"),
        (2, "record_update"),
    ]
    assert post.state(later) == "done: receipt"


def all_rows(connection: Any) -> Any:
    return connection.execute(select(t.delivery)).all()


def test_a_bare_2xx_holds_for_the_receipt_and_blocks_nothing(post: Post) -> None:
    lane = post.subject()
    first, second = post.send(lane), post.send(lane)
    post.claim()
    post.hold(first)
    assert post.states(first, second) == ["held: receipt", "due"]
    assert post.claim() == [second]
    post.finish(first)
    assert post.states(first, second) == ["done: receipt", "due"]
    assert post.get(first).received_at == post.clock.now()


def test_inbox_steps_wait_for_their_receipt_from_the_start_and_never_block(post: Post) -> None:
    lane = post.subject()
    steps = [post.send(lane, channel="inbox") for _ in range(2)]
    pushed = post.send(lane)
    assert post.states(*steps, pushed) == ["held: receipt", "held: receipt", "due"]
    assert post.claim() == [pushed]


def test_inbox_steps_behind_a_push_are_let_through_with_it(post: Post) -> None:
    lane = post.subject()
    pushed = post.send(lane)
    steps = [post.send(lane, channel="inbox") for _ in range(2)]
    last = post.send(lane)
    assert post.states(*steps, last) == ["held: predecessor"] * 3
    post.claim()
    post.finish(pushed)
    assert post.states(*steps, last) == ["held: receipt", "held: receipt", "due"]


def test_a_dead_step_blocks_its_lane_until_it_is_retried(post: Post) -> None:
    lane = post.subject()
    first, second = post.send(lane), post.send(lane)
    post.claim()
    post.bury(first)
    third = post.send(lane)
    assert post.states(first, second, third) == ["dead", *["held: predecessor"] * 2]
    assert post.claim() == []
    later = post.clock.advance(timedelta(hours=80))
    post.retry(first)
    row = post.get(first)
    assert (row.state, row.due_at, row.first_due_at, row.settled_at) == ("due", later, later, None)
    assert post.claim() == [first]
    post.finish(first)
    assert post.states(first, second, third) == ["done: receipt", "due", "held: predecessor"]


def test_giving_a_dead_step_up_is_final_and_lets_the_lane_go_on(post: Post) -> None:
    lane = post.subject()
    first, second = post.send(lane), post.send(lane)
    post.claim()
    post.bury(first)
    post.finish(first, "given-up")
    assert post.states(first, second) == ["done: given-up", "due"]
    post.retry(first)
    assert post.states(first, second) == ["done: given-up", "due"]


@pytest.mark.parametrize("what", ["predecessor", "receipt"])
def test_an_operators_retry_never_makes_a_second_step_of_a_lane_due(post: Post, what: str) -> None:
    lane = post.subject()
    first, second = post.send(lane), post.send(lane)
    post.claim()
    if what == "receipt":
        post.hold(first)
    target = first if what == "receipt" else second
    post.retry(target)
    assert post.state(target) == f"held: {what}"


def test_a_receipt_out_of_turn_finishes_its_own_step_only(post: Post) -> None:
    lane = post.subject()
    first, second, third = (post.send(lane) for _ in range(3))
    post.finish(second)  # collected from the inbox before it was pushed
    assert post.states(first, second, third) == ["due", "done: receipt", "held: predecessor"]
    post.claim()
    post.finish(first)
    assert post.state(third) == "due"


def test_a_receipt_unblocks_a_dead_step(post: Post) -> None:
    lane = post.subject()
    first, second = post.send(lane), post.send(lane)
    post.claim()
    post.bury(first)
    post.finish(first)
    assert post.states(first, second) == ["done: receipt", "due"]


def test_the_head_of_a_lane_inherits_the_highest_priority_behind_it(post: Post) -> None:
    lane, other = post.subject(), post.subject()
    elsewhere = post.send(other, priority=Priority.ASAP)
    first = post.send(lane)
    second = post.send(lane, priority=Priority.ASAP)
    third = post.send(lane, priority=Priority.STAT)
    assert post.get(first).priority_rank == Priority.STAT.rank
    assert post.get(first).priority == "routine"
    assert post.claim(limit=1) == [first]
    post.finish(first)
    assert post.get(second).priority_rank == Priority.STAT.rank
    assert post.claim(limit=1) == [second]
    post.finish(second)
    assert post.get(third).priority_rank == Priority.STAT.rank
    fourth = post.send(lane, priority=Priority.ROUTINE)
    assert post.get(third).priority_rank == Priority.STAT.rank
    post.claim(limit=1)
    post.finish(third)
    assert post.get(fourth).priority_rank == Priority.ROUTINE.rank
    assert post.claim(limit=1) == [elsewhere]


def test_a_head_that_waits_to_be_tried_again_is_tried_at_once_for_what_is_more_urgent(
    post: Post,
) -> None:
    heard: list[set[str]] = []
    lane = post.subject()
    first = post.send(lane)
    post.claim()
    later = post.clock.now() + timedelta(minutes=55)
    post.again(first, later)
    post.send(lane)
    assert post.get(first).due_at == later  # what is no more urgent hurries nothing
    assert post.claim() == []
    post.store.listen(heard.append)
    post.send(lane, priority=Priority.STAT)
    assert {DELIVERIES} in heard
    assert post.get(first).due_at == post.clock.now()
    assert post.claim() == [first]


CANCEL = {"supersedes": "unsent"}


def test_a_cancel_supersedes_what_was_not_sent_and_is_sent_itself(post: Post) -> None:
    lane = post.subject()
    steps = [post.send(lane) for _ in range(3)]
    cancel = post.send(lane, facts=CANCEL)
    assert post.states(*steps, cancel) == ["done: superseded"] * 3 + ["due"]
    assert post.claim() == [cancel]


def a_clock(post: Post, message: str, kind: str) -> None:
    """Let a clock run for a message; it passes in an hour."""
    row = {"id": uuid7(), "message_id": message, "kind": kind, "version": 1, "owner": PRACTICE}
    times = {"due_at": post.clock.now() + timedelta(hours=1), "cleared_at": None, "raised_at": None}
    post.write(lambda tx: work.put_deadlines(tx, [row | times | {"source": ""}]))


def running(post: Post, message: str) -> set[str]:
    """The clocks of a message that nothing has met."""
    rows = post.store.read_now(lambda c: work.deadlines_of(c, [message]))
    return {row.kind for row in rows if row.cleared_at is None}


def test_the_clock_of_what_a_cancel_supersedes_runs_no_longer(post: Post) -> None:
    lane, message = post.subject(), uuid7()
    for kind in ("notice-received", "received"):
        a_clock(post, message, kind)
    notice = post.send(lane, message_id=message, role="notice")
    post.send(lane, facts=CANCEL)
    assert post.state(notice) == "done: superseded"
    assert running(post, message) == {"received"}


def test_a_clock_runs_on_while_somebody_else_in_its_role_has_yet_to_confirm(post: Post) -> None:
    lane, message = post.subject(), uuid7()
    a_clock(post, message, "notice-received")
    post.send(lane, message_id=message, role="notice")
    other = post.send(post.subject(), message_id=message, role="notice", ods=HOSPITAL)
    post.send(lane, facts=CANCEL)
    assert running(post, message) == {"notice-received"}
    post.finish(other)
    post.write(lambda tx: deliveries.meet_clock(tx, message, "notice"))
    assert running(post, message) == set()


def test_a_cancel_waits_for_what_may_have_been_sent(post: Post) -> None:
    lane = post.subject()
    steps = [post.send(lane) for _ in range(3)]
    post.claim()
    cancel = post.send(lane, facts=CANCEL)
    assert post.states(*steps, cancel) == [
        "due",
        "done: superseded",
        "done: superseded",
        "held: predecessor",
    ]
    post.again(steps[0], post.clock.now())
    assert post.claim() == steps[:1]
    post.finish(steps[0])
    assert post.state(cancel) == "due"


def attempted(post: Post, delivery: str, code: str | None) -> None:
    """Write down that the attempt that is under way has ended with a code."""

    def settle(tx: Tx, row: Row[Any]) -> None:
        claims.put_attempt(tx, row.id, row.attempt, tx.now, "retrying", code, None)
        claims.try_again(tx, row, tx.now, code or "")

    post.settle(delivery, settle)


@pytest.mark.parametrize("code", deliveries.UNSENT)
def test_a_cancel_supersedes_what_was_tried_and_surely_never_sent(post: Post, code: str) -> None:
    lane = post.subject()
    step = post.send(lane)
    for _ in range(2):
        assert post.claim() == [step]
        attempted(post, step, code)
    cancel = post.send(lane, facts=CANCEL)
    assert post.states(step, cancel) == ["done: superseded", "due"]


@pytest.mark.parametrize("code", ["connection-lost", "timed-out", "answered-5xx", None])
def test_a_cancel_waits_for_what_one_of_its_attempts_may_have_sent(
    post: Post, code: str | None
) -> None:
    lane = post.subject()
    step = post.send(lane)
    for ended in (code, "not-connected"):
        post.claim()
        if ended is not None:  # else its process was killed meanwhile
            attempted(post, step, ended)
        post.clock.advance(LEASE)
    cancel = post.send(lane, facts=CANCEL)
    assert post.states(step, cancel) == ["due", "held: predecessor"]


def test_a_dead_step_that_surely_was_never_sent_is_nobodys_work_after_a_cancel(post: Post) -> None:
    lane = post.subject()
    step = post.send(lane)
    post.claim()
    attempted(post, step, "not-connected")
    post.bury(step)
    item: dict[str, Any] = {"message_id": None, "organisation": None, "priority": "routine"}
    post.write(lambda tx: work.put_item(tx, "delivery-dead", step, delivery_id=step, **item))
    cancel = post.send(lane, facts=CANCEL)
    assert post.states(step, cancel) == ["done: superseded", "due"]
    assert post.store.read_now(lambda c: work.open_items(c, None, 10)) == []


def test_a_cancel_leaves_alone_what_has_arrived_or_stands_to_be_collected(post: Post) -> None:
    lane = post.subject()
    arrived, held = post.send(lane), post.send(lane)
    for step, settle in ((arrived, post.finish), (held, post.hold)):
        post.claim()
        settle(step)
    standing = post.send(lane, channel="inbox")
    cancel = post.send(lane, facts=CANCEL)
    assert post.states(arrived, held, standing, cancel) == [
        "done: receipt",
        "held: receipt",
        "held: receipt",
        "due",
    ]


def test_a_cancel_leaves_alone_what_was_collected_before_it_was_pushed(post: Post) -> None:
    lane = post.subject()
    first, second = post.send(lane), post.send(lane)
    post.write(lambda tx: deliveries.collect(tx, first))
    cancel = post.send(lane, facts=CANCEL)
    assert post.states(first, second, cancel) == ["due", "done: superseded", "held: predecessor"]


def test_what_was_collected_goes_on_when_a_cancel_ends_the_step_before_it(post: Post) -> None:
    lane = post.subject()
    first, second = post.send(lane), post.send(lane)
    post.write(lambda tx: deliveries.collect(tx, second))
    cancel = post.send(lane, facts=CANCEL)
    assert post.states(first, second, cancel) == ["done: superseded", "due", "held: predecessor"]


def test_a_cancel_is_not_stuck_behind_what_a_person_still_holds_back(post: Post) -> None:
    lane = post.subject()
    held = post.send(lane, state="held", held_reason="human")
    cancel = post.send(lane, facts=CANCEL)
    assert post.states(held, cancel) == ["done: superseded", "due"]


def test_a_cancel_leaves_a_dead_step_to_the_operator(post: Post) -> None:
    lane = post.subject()
    first = post.send(lane)
    post.claim()
    post.bury(first)
    cancel = post.send(lane, facts=CANCEL)
    assert post.states(first, cancel) == ["dead", "held: predecessor"]


def test_what_is_held_for_a_person_blocks_its_lane(post: Post) -> None:
    lane = post.subject()
    held = post.send(lane, state="held", held_reason="human")
    behind = post.send(lane)
    assert post.states(held, behind) == ["held: human", "held: predecessor"]
    assert post.claim() == []


def test_new_and_promoted_steps_wake_the_worker(post: Post) -> None:
    heard: list[set[str]] = []
    lane = post.subject()
    post.store.listen(heard.append)
    first = post.send(lane)
    post.send(lane)
    post.claim()
    heard.clear()
    post.finish(first)
    post.write(lambda tx: None)
    assert heard == [{DELIVERIES}]


# -- the inbox -----------------------------------------------------------------------------------


def test_every_delivery_stands_in_its_inbox_unless_a_person_holds_it_back(post: Post) -> None:
    states = {
        "due": post.send(post.subject()),
        "receipt": post.send(post.subject(), channel="inbox"),
        "human": post.send(post.subject(), state="held", held_reason="human"),
        "consent": post.send(post.subject(), state="held", held_reason="consent"),
        "label": post.send(post.subject(), state="held", held_reason="label"),
    }
    lane = post.subject()
    states["dead"], states["predecessor"] = post.send(lane), post.send(lane)
    post.claim()
    post.bury(states["dead"])
    done = post.send(post.subject())
    post.finish(done)
    post.send(post.subject(), ods=HOSPITAL)

    def listed(*, every: bool) -> list[str]:
        found: list[str] = []
        after = (0, "")
        while True:
            page = post.store.read_now(
                lambda c, after=after: deliveries.inbox(
                    c, {PRACTICE}, after=place(after), limit=2, every=every
                )
            )
            if not page:
                return found
            found += [row.id for row in page]
            after = (page[-1].position, page[-1].id)

    shown = [states[name] for name in ("due", "receipt", "dead", "predecessor")]
    assert listed(every=False) == shown
    assert listed(every=True) == [*shown, done]


def place(after: tuple[int, str]) -> tuple[int, str]:
    """The start of an inbox is before every id."""
    return after[0], after[1] or "00000000-0000-0000-0000-000000000000"


def test_collecting_proves_nothing_and_the_first_time_is_kept(post: Post) -> None:
    delivery = post.send(post.subject(), channel="inbox")
    first = post.clock.now()
    post.write(lambda tx: deliveries.collect(tx, delivery))
    post.clock.advance(timedelta(hours=1))
    post.write(lambda tx: deliveries.collect(tx, delivery))
    row = post.get(delivery)
    assert (row.collected_at, row.received_at, row.state) == (first, None, "held")


# -- slots and breakers --------------------------------------------------------------------------


def many(post: Post, number: int, **row: Any) -> list[str]:
    return [post.send(post.subject(), **row) for _ in range(number)]


def test_a_destination_has_only_its_slots_and_keeps_one_for_urgent_work(post: Post) -> None:
    slots = Slots(pool=100, destination=4)
    many(post, 6)
    elsewhere = many(post, 2, ods=HOSPITAL)
    claimed = post.claim(slots=slots)
    assert len(claimed) == 3 + 2
    assert set(elsewhere) < set(claimed)
    assert post.claim(slots=slots) == []
    urgent = many(post, 2, priority=Priority.URGENT)
    assert len(post.claim(slots=slots)) == 1
    freed = next(delivery for delivery in claimed if delivery not in elsewhere)
    post.finish(freed)
    claimed = post.claim(slots=slots)
    assert len(claimed) == 1
    assert set(claimed) < set(urgent)


@pytest.fixture
def counted(sqlite_database: Database, clock: SettableClock) -> Post:
    """On SQLite, which counts its steps."""
    return Post(sqlite_database.open(), clock)


def test_what_waits_at_one_destination_costs_the_others_nothing(counted: Post) -> None:
    """One that is away for hours has thousands due; each look of a worker comes past it."""
    post = counted
    slots = Slots(pool=100, destination=4)
    many(post, 10)
    post.claim(slots=slots)

    def look() -> int:
        many(post, 1, ods=HOSPITAL)
        found: list[str] = []
        steps = post.write(lambda tx: steps_of(tx, lambda: found.extend(claimed(tx))))
        now = post.clock.now()
        steps += post.store.read_now(lambda c: steps_of(c, lambda: claims.next_due(c, now)))
        assert [post.get(one).ods for one in found] == [HOSPITAL]
        post.finish(found[0])
        return steps

    def claimed(tx: Tx) -> list[str]:
        return [row.id for row in claims.claim(tx, ME, slots, 100)]

    few = look()
    many(post, 300)
    assert look() < 1.1 * few


def test_what_an_inbox_no_longer_holds_costs_its_reader_nothing(counted: Post) -> None:
    post = counted

    def look() -> int:
        found: list[Any] = []

        def read(connection: Connection) -> None:
            first = (0, "00000000-0000-0000-0000-000000000000")
            found.extend(
                deliveries.inbox(connection, [PRACTICE], after=first, limit=50, every=False)
            )

        steps = post.store.read_now(lambda c: steps_of(c, lambda: read(c)))
        assert [row.id for row in found] == standing
        return steps

    standing = many(post, 3, channel="inbox")
    few = look()
    for delivery in many(post, 300, channel="inbox"):
        post.finish(delivery)
    assert look() < 1.1 * few


def steps_of(given: Tx | Connection, do: Callable[[], object]) -> int:
    """Return how many steps of its machine, in tens, SQLite needs for something."""
    connection = given.connection if isinstance(given, Tx) else given
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    driver.set_progress_handler(count, 10)
    try:
        do()
    finally:
        driver.set_progress_handler(None, 0)
    return counted


def test_a_tenth_of_the_pool_is_for_urgent_work_only(post: Post) -> None:
    slots = Slots(pool=20, destination=8)
    for number in range(5):
        many(post, 5, ods=f"X{number}")
    assert len(post.claim(slots=slots)) == 18
    assert post.claim(slots=slots) == []
    for number in range(5):
        many(post, 1, ods=f"X{number}", priority=Priority.STAT)
    assert len(post.claim(slots=slots)) == 2
    assert post.claim(slots=slots) == []


def test_urgent_work_is_claimed_first_and_no_more_than_asked_for(post: Post) -> None:
    routine = many(post, 2)
    asap = many(post, 1, priority=Priority.ASAP)
    post.clock.advance(timedelta(seconds=1))
    stat, urgent = many(post, 1, priority=Priority.STAT), many(post, 1, priority=Priority.URGENT)
    assert post.claim(limit=2) == stat + urgent
    assert post.claim(limit=2)[0] == asap[0]
    assert len(post.claim(limit=5)) == 1
    assert post.claim() == []
    assert post.get(routine[0]).attempt == 1


def test_a_full_destination_hides_no_other_from_the_worker(post: Post) -> None:
    many(post, 30)
    post.clock.advance(timedelta(seconds=1))
    elsewhere = many(post, 2, ods=HOSPITAL)
    claimed = post.claim(limit=6, slots=Slots(pool=100, destination=4))
    assert len(claimed) == 5
    assert set(elsewhere) < set(claimed)


def test_the_breaker_opens_after_five_failures_and_lets_one_urgent_probe_through(
    post: Post,
) -> None:
    many(post, 3)
    for _ in range(BREAKER_AFTER - 1):
        post.answer(failed=True)
    post.answer(failed=False)
    for _ in range(BREAKER_AFTER - 1):
        post.answer(failed=True)
    assert len(post.claim(limit=1)) == 1  # four in a row are not yet five
    post.answer(failed=True)
    assert post.claim() == []

    post.clock.advance(LEASE)
    (expired,) = [r.id for r in post.store.read_now(all_rows) if r.attempt == 1]
    post.finish(expired)
    for _ in range(BREAKER_AFTER):
        post.answer(failed=True)
    assert post.claim() == []
    urgent = many(post, 2, priority=Priority.URGENT)
    assert len(many(post, 1, ods=HOSPITAL)) == 1
    claimed = post.claim()
    assert len(claimed) == 2  # one probe, and the other destination's
    probe = next(delivery for delivery in claimed if delivery in urgent)
    assert post.claim() == []
    post.finish(probe)
    post.answer(failed=False)
    assert len(post.claim()) == 3


def test_what_a_worker_that_died_had_begun_keeps_an_urgent_probe_away_for_moments_only(
    post: Post,
) -> None:
    begun = many(post, 2)
    assert set(post.claim()) == set(begun)  # and its worker is never heard of again
    for _ in range(BREAKER_AFTER):
        post.answer(failed=True)
    urgent = many(post, 2, priority=Priority.URGENT)
    assert post.claim() == []
    assert next_due(post) == post.clock.now() + PROBE
    for _ in urgent:
        post.clock.advance(PROBE)
        assert len(post.claim()) == 1
        assert post.claim() == []


def test_after_a_while_an_open_breaker_lets_one_routine_probe_through(post: Post) -> None:
    many(post, 3)
    for _ in range(BREAKER_AFTER):
        post.answer(failed=True)
    post.clock.advance(BREAKER_OPEN - timedelta(microseconds=1))
    assert post.claim() == []
    post.clock.advance(timedelta(microseconds=1))
    (probe,) = post.claim()
    assert post.claim() == []
    post.again(probe, post.clock.now())
    post.answer(failed=True)
    assert post.claim() == []
    post.clock.advance(BREAKER_OPEN)
    (probe,) = post.claim()
    post.finish(probe)
    post.answer(failed=False)
    assert len(post.claim()) == 2


@pytest.mark.postgres
def test_slots_hold_over_two_processes_that_claim_at_once(
    postgresql_database: Database, clock: SettableClock
) -> None:
    stores = [postgresql_database.open(), postgresql_database.open()]
    many(Post(stores[0], clock), 20)
    slots = Slots(pool=100, destination=4)
    claimed: list[int] = []
    other_begun, done = threading.Event(), threading.Event()

    def first(tx: Tx) -> int:
        found = claims.claim(tx, ME, slots, 10)
        threading.Thread(target=second).start()
        other_begun.wait(10)
        done.wait(0.2)  # the other would be through by now if nothing held it up
        return len(found)

    def second() -> None:
        def claim(tx: Tx) -> int:
            other_begun.set()
            return len(claims.claim(tx, uuid7(), slots, 10))

        claimed.append(stores[1].write_now(claim))
        done.set()

    claimed.append(stores[0].write_now(first))
    assert done.wait(10)
    assert sum(claimed) == 3


# -- leases --------------------------------------------------------------------------------------


def holds(post: Post, delivery: str, attempt: int) -> bool:
    return claims.holds(post.get(delivery), attempt)


def test_a_lease_keeps_others_off_until_it_ends_and_a_stale_attempt_no_longer_counts(
    post: Post,
) -> None:
    delivery = post.send(post.subject())
    assert post.claim() == [delivery]
    row = post.get(delivery)
    assert (row.attempt, row.lease_by, row.lease_until) == (1, ME, post.clock.now() + LEASE)
    assert holds(post, delivery, 1)
    post.clock.advance(LEASE - timedelta(microseconds=1))
    assert post.claim() == []
    post.clock.advance(timedelta(microseconds=1))
    assert post.claim() == [delivery]
    assert not holds(post, delivery, 1)
    assert holds(post, delivery, 2)


def test_a_lease_that_is_renewed_keeps_others_off_and_one_that_another_took_is_left_to_him(
    post: Post,
) -> None:
    kept, taken = post.send(post.subject()), post.send(post.subject())
    assert set(post.claim()) == {kept, taken}
    post.clock.advance(RENEWED_AFTER)
    post.write(lambda tx: claims.renew(tx, ME, [kept]))
    post.clock.advance(LEASE - RENEWED_AFTER)
    other = uuid7()
    assert [r.id for r in post.write(lambda tx: claims.claim(tx, other, WIDE, 9))] == [taken]
    theirs = post.get(taken).lease_until
    post.clock.advance(RENEWED_AFTER)
    post.write(lambda tx: claims.renew(tx, ME, [kept, taken]))
    assert post.get(taken).lease_until == theirs
    post.clock.advance(LEASE - PROBE - timedelta(microseconds=1))
    assert post.claim() == [taken]
    post.clock.advance(timedelta(microseconds=1))
    assert post.claim() == [kept]


def test_a_lease_that_ran_out_and_that_nobody_took_can_be_renewed(post: Post) -> None:
    delivery = post.send(post.subject())
    post.claim()
    post.clock.advance(LEASE * 2)
    post.write(lambda tx: claims.renew(tx, ME, [delivery]))
    assert post.claim() == []
    assert holds(post, delivery, 1)


def test_what_was_renewed_does_not_hold_up_an_urgent_probe_as_what_has_just_begun_does(
    post: Post,
) -> None:
    sent = {post.send(post.subject(), priority=Priority.URGENT) for _ in range(2)}
    for _ in range(BREAKER_AFTER):
        post.answer(failed=True)
    [hanging] = post.claim()
    post.clock.advance(RENEWED_AFTER)
    post.write(lambda tx: claims.renew(tx, ME, [hanging]))
    [probe] = post.claim()
    assert {hanging, probe} == sent


@pytest.mark.parametrize("ahead", [timedelta(minutes=2), timedelta(hours=2)])
def test_what_was_put_off_while_the_clock_was_ahead_comes_back_once_it_is_right(
    post: Post, ahead: timedelta
) -> None:
    post.clock.advance(ahead)
    failed, leased = (post.send(post.subject()) for _ in range(2))
    assert len(post.claim()) == 2
    post.fail(failed)
    untried = post.send(post.subject())
    for _ in range(BREAKER_AFTER):
        post.answer(failed=True)
    post.clock.advance(-ahead)
    assert post.claim() == []
    assert post.write(claims.bring_back) == 3
    assert post.write(claims.bring_back) == 0
    every = {failed, leased, untried}
    assert {post.get(one).due_at for one in every} == {post.clock.now()}
    post.clock.advance(max(BREAKER_OPEN, LEASE))
    post.answer(failed=False)
    assert set(post.claim()) == every


def test_what_waits_for_its_next_attempt_is_not_brought_back(post: Post) -> None:
    delivery = post.send(post.subject())
    post.claim()
    post.fail(delivery)
    later = post.get(delivery).due_at
    assert later > post.clock.now()
    assert post.write(claims.bring_back) == 0
    assert post.get(delivery).due_at == later
    post.clock.advance(later - post.clock.now())
    assert post.claim() == [delivery]


@pytest.mark.parametrize("settled", ["finish", "hold", "bury"])
def test_an_attempt_counts_no_more_once_its_delivery_was_settled(post: Post, settled: str) -> None:
    delivery = post.send(post.subject())
    post.claim()
    getattr(post, settled)(delivery)
    assert not holds(post, delivery, 1)
    row = post.get(delivery)
    assert (row.lease_by, row.lease_until) == (None, None)
    post.clock.advance(LEASE * 2)
    assert post.claim() == []


def test_nothing_holds_a_delivery_that_is_not_there() -> None:
    assert not claims.holds(None, 1)


def test_a_failed_attempt_is_due_again_at_its_time_and_not_before(post: Post) -> None:
    delivery = post.send(post.subject())
    post.claim()
    later = post.clock.now() + timedelta(minutes=5)
    post.again(delivery, later)
    assert post.claim() == []
    assert next_due(post) == later
    post.clock.advance(timedelta(minutes=5))
    assert post.claim() == [delivery]
    row = post.get(delivery)
    assert (row.attempt, row.code) == (2, "timed-out")


def next_due(post: Post) -> datetime | None:
    return post.store.read_now(lambda c: claims.next_due(c, post.clock.now()))


def test_the_worker_knows_when_there_is_something_to_do_again(post: Post) -> None:
    assert next_due(post) is None
    now = post.clock.now()
    delivery = post.send(post.subject())
    post.send(post.subject(), channel="inbox")
    assert next_due(post) is None  # due already: whoever frees a slot wakes the workers
    post.claim()
    assert next_due(post) == now + LEASE
    post.finish(delivery)
    assert next_due(post) is None


def test_an_attempt_is_written_once_and_never_changed(post: Post) -> None:
    delivery = post.send(post.subject())
    started = post.clock.now()
    for outcome in ("retrying", "received"):
        post.clock.advance(timedelta(seconds=1))
        post.write(
            lambda tx, outcome=outcome: claims.put_attempt(
                tx, delivery, 1, started, outcome, "timed-out", None
            )
        )
    post.write(lambda tx: claims.put_attempt(tx, delivery, 2, started, "received", None, 200))
    found = post.store.read_now(lambda c: deliveries.attempts_of(c, [delivery]))
    assert sorted((row.number, row.outcome) for row in found) == [(1, "retrying"), (2, "received")]
    assert post.store.read_now(lambda c: deliveries.attempts_of(c, [])) == []


# -- for people ----------------------------------------------------------------------------------


@pytest.fixture
def mixed(post: Post) -> Iterator[list[str]]:
    made = [post.send(post.subject()), post.send(post.subject(), ods=HOSPITAL)]
    post.claim()
    post.bury(made[0])
    yield made


def test_operators_list_deliveries_by_state_and_destination(post: Post, mixed: list[str]) -> None:
    def listed(state: str | None, ods: str | None) -> set[str]:
        rows = post.store.read_now(lambda c: deliveries.listing(c, state=state, ods=ods, limit=10))
        return {row.id for row in rows}

    assert listed(None, None) == set(mixed)
    assert listed("dead", None) == {mixed[0]}
    assert listed(None, HOSPITAL) == {mixed[1]}
    assert listed("dead", HOSPITAL) == set()


def test_what_is_not_done_is_counted_by_where_it_goes(post: Post) -> None:
    first = post.send(post.subject(), ods=PRACTICE)
    for ods in (PRACTICE, HOSPITAL):
        post.send(post.subject(), ods=ods)
    count = deliveries.open_by_organisation
    assert post.store.read_now(count) == {PRACTICE: 2, HOSPITAL: 1}
    post.store.write_now(
        lambda tx: deliveries.finish(tx, deliveries.lock(tx, first), "given-up", code=None)
    )
    assert post.store.read_now(count) == {PRACTICE: 1, HOSPITAL: 1}


def test_a_message_knows_its_deliveries_and_its_recipients(post: Post) -> None:
    message = uuid7()
    ids = [post.send(post.subject(), message_id=message, ods=ods) for ods in (PRACTICE, HOSPITAL)]
    found = post.store.read_now(lambda c: deliveries.of_message(c, message))
    assert [row.id for row in found] == ids
    assert post.store.read_now(lambda c: deliveries.recipients(c, message)) == {PRACTICE, HOSPITAL}
    assert post.store.read_now(lambda c: deliveries.recipients(c, uuid7())) == set()


def test_a_delivery_that_is_not_there_cannot_be_locked(post: Post) -> None:
    assert post.write(lambda tx: deliveries.lock(tx, uuid7())) is None
