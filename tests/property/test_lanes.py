"""Lanes under any order of events: reordered, repeated, late, dead, given up, superseded.

Every step is done twice: by the store, on SQLite, and by a model that knows nothing but the rule of
house.md, section 5: of a lane only the lowest unfinished step is due.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Engine, select

from broker.events import Priority, Recorded, caused_id
from broker.store import claims, deliveries
from broker.store import tables as t
from broker.store.claims import LEASE, Slots
from broker.store.tx import Tx
from tests.databases import Database
from tests.samples import AT, a_delivery, recorded

T = TypeVar("T")
SUBJECTS = ["01a20000-0000-7000-8000-000000000001", "01a20000-0000-7000-8000-000000000002"]
PLACES = ["A81001", "RX1"]
CONSUMERS = ["record_update", "notice_delivery"]
WIDE = Slots(pool=1_000, destination=1_000)
Lane = tuple[str, str]


@dataclass
class Step:
    """What the model knows of one delivery."""

    id: str
    lane: Lane
    seq: int
    consumer: str
    is_inbox: bool
    rank: int
    due_at: datetime
    status: str = "open"  # open, receipt, dead, done
    reason: str | None = None
    attempt: int = 0
    was_collected: bool = False
    leased_until: datetime | None = None


class Lanes(RuleBasedStateMachine):
    engine: ClassVar[Engine]

    def __init__(self) -> None:
        super().__init__()
        self.now = AT
        self.connection = self.engine.connect()
        self.steps: list[Step] = []
        self.fanned_out: list[tuple[Recorded, list[dict[str, Any]]]] = []
        self.seqs = dict.fromkeys(SUBJECTS, 0)
        self.attempts: list[tuple[Step, int]] = []
        self.were_first: set[str] = set()

    def teardown(self) -> None:
        try:
            self.run_dry()
        finally:
            # Nothing is ever committed: the next run begins with an empty database.
            self.connection.rollback()
            self.connection.close()

    # -- the model -------------------------------------------------------------------------------

    def lane(self, lane: Lane) -> list[Step]:
        found = [step for step in self.steps if step.lane == lane]
        return sorted(found, key=lambda step: (step.seq, step.consumer))

    def head(self, lane: Lane) -> Step | None:
        """The lowest unfinished step; inbox steps that come to the fore no longer block."""
        for step in self.lane(lane):
            if step.status == "dead":
                return step
            if step.status == "open":
                if not step.is_inbox:
                    if step.id not in self.were_first:
                        self.were_first.add(step.id)
                        step.due_at = self.now
                        step.rank = self.most_urgent(lane)
                    return step
                step.status = "receipt"
        return None

    def most_urgent(self, lane: Lane) -> int:
        return min(step.rank for step in self.lane(lane) if step.status in {"open", "dead"})

    def is_due(self, step: Step) -> bool:
        return step.status == "open" and self.head(step.lane) is step

    def expected(self, step: Step) -> tuple[str, str | None]:
        head = self.head(step.lane)
        if step.status == "open":
            return ("due", None) if head is step else ("held", "predecessor")
        if step.status == "receipt":
            return "held", "receipt"
        return step.status, step.reason

    def end(self, step: Step, reason: str) -> None:
        step.status, step.reason, step.leased_until = "done", reason, None

    # -- what can happen -------------------------------------------------------------------------

    def write(self, fn: Callable[[Tx], T]) -> T:
        return fn(Tx(self.connection, self.now))

    def settle(self, step: Step, fn: Callable[[Tx, Any], Any]) -> None:
        def settle(tx: Tx) -> None:
            row = deliveries.lock(tx, step.id)
            assert row is not None
            fn(tx, row)

        self.write(settle)

    @rule(
        subject=st.sampled_from(SUBJECTS),
        places=st.lists(st.sampled_from(PLACES), min_size=1, unique=True),
        consumers=st.lists(st.sampled_from(CONSUMERS), min_size=1, unique=True),
        inboxes=st.sets(st.sampled_from(PLACES)),
        priority=st.sampled_from(Priority),
        cancels=st.booleans(),
    )
    def an_event_is_fanned_out(
        self,
        subject: str,
        places: list[str],
        consumers: list[str],
        inboxes: set[str],
        priority: Priority,
        cancels: bool,
    ) -> None:
        self.seqs[subject] += 1
        event = recorded(
            subject,
            self.seqs[subject],
            len(self.fanned_out) + 1,
            id=caused_id(subject, "lanes", "", "event", self.seqs[subject]),
            facts={"supersedes": "unsent"} if cancels else {},
            priority=priority,
        )
        rows = [
            a_delivery(
                event,
                self.now,
                ods=ods,
                consumer=consumer,
                channel="inbox" if ods in inboxes else "webhook",
            )
            for ods in places
            for consumer in consumers
        ]
        self.fanned_out.append((event, rows))
        if cancels:
            lanes = {(ods, subject) for ods in places}
            for step in self.steps:
                is_unsent = step.attempt == 0 and not step.was_collected
                if step.lane in lanes and step.status == "open" and is_unsent:
                    self.end(step, "superseded")
        for ods in places:
            waited_for = self.head((ods, subject))
            if waited_for is not None and priority.rank < waited_for.rank:
                waited_for.rank = priority.rank
                waited_for.due_at = min(waited_for.due_at, self.now)
        for row in rows:
            step = Step(
                id=row["id"],
                lane=(row["ods"], subject),
                seq=event.subject_seq,
                consumer=row["consumer"],
                is_inbox=row["channel"] == "inbox",
                rank=priority.rank,
                due_at=self.now,
            )
            self.steps.append(step)
        assert self.write(lambda tx: deliveries.insert_new(tx, rows, event)) == len(rows)

    @precondition(lambda self: self.fanned_out)
    @rule(data=st.data())
    def an_event_is_fanned_out_again(self, data: st.DataObject) -> None:
        event, rows = data.draw(st.sampled_from(self.fanned_out))
        assert self.write(lambda tx: deliveries.insert_new(tx, rows, event)) == 0

    @rule(limit=st.integers(1, 5))
    def a_worker_claims(self, limit: int) -> None:
        free = {
            step.id: step
            for step in self.steps
            if self.is_due(step)
            and step.due_at <= self.now
            and (step.leased_until is None or step.leased_until <= self.now)
        }
        claimed = self.write(lambda tx: claims.claim(tx, SUBJECTS[0], WIDE, limit))
        assert len(claimed) == min(limit, len(free))
        for row in claimed:
            step = free[row.id]
            # Order: all that comes before it in its lane is done or proved sent.
            before = self.lane(step.lane)
            assert all(s.status in {"done", "receipt"} for s in before[: before.index(step)])
            step.attempt += 1
            step.leased_until = self.now + LEASE
            assert row.attempt == step.attempt
            self.attempts.append((step, step.attempt))

    @precondition(lambda self: self.attempts)
    @rule(
        data=st.data(),
        outcome=st.sampled_from(["received", "answered", "again", "dead"]),
        once=st.booleans(),
    )
    def an_attempt_is_settled(self, data: st.DataObject, outcome: str, once: bool) -> None:
        step, attempt = data.draw(st.sampled_from(self.attempts))
        if once:
            self.attempts.remove((step, attempt))
        row = self.write(lambda tx: deliveries.get(tx.connection, step.id))
        holds = self.is_due(step) and step.attempt == attempt
        assert claims.holds(row, attempt) is holds
        if outcome == "received":
            self.receipt(step)
        elif holds and outcome == "answered":
            self.settle(step, lambda tx, row: deliveries.hold_for_receipt(tx, row, None))
            step.status, step.leased_until = "receipt", None
        elif holds and outcome == "again":
            later = self.now + timedelta(seconds=5)
            self.settle(step, lambda tx, row: claims.try_again(tx, row, later, "timed-out"))
            step.due_at, step.leased_until = later, None
        elif holds:
            self.settle(step, lambda tx, row: claims.bury(tx, row, "answered-4xx"))
            step.status, step.leased_until = "dead", None

    def receipt(self, step: Step) -> None:
        if step.status != "done":
            self.settle(step, lambda tx, row: deliveries.finish(tx, row, "receipt"))
            self.end(step, "receipt")

    @precondition(lambda self: self.steps)
    @rule(data=st.data())
    def a_receipt_comes_at_any_time(self, data: st.DataObject) -> None:
        self.receipt(data.draw(st.sampled_from(self.steps)))

    @precondition(lambda self: any(step.status == "open" for step in self.steps))
    @rule(data=st.data())
    def a_destination_collects(self, data: st.DataObject) -> None:
        step = data.draw(st.sampled_from([s for s in self.steps if s.status == "open"]))
        self.write(lambda tx: deliveries.collect(tx, step.id))
        step.was_collected = True

    @precondition(lambda self: self.steps)
    @rule(data=st.data())
    def an_operator_retries_anything(self, data: st.DataObject) -> None:
        step = data.draw(st.sampled_from(self.steps))
        self.settle(step, lambda tx, row: deliveries.retry(tx, row))
        if step.status == "dead" or self.is_due(step):
            step.status, step.due_at = "open", self.now

    @precondition(lambda self: any(step.status == "dead" for step in self.steps))
    @rule(data=st.data())
    def an_operator_gives_up(self, data: st.DataObject) -> None:
        dead = [step for step in self.steps if step.status == "dead"]
        self.give_up(data.draw(st.sampled_from(dead)))

    def give_up(self, step: Step) -> None:
        self.settle(step, lambda tx, row: deliveries.finish(tx, row, "given-up"))
        self.end(step, "given-up")

    @rule(seconds=st.sampled_from([1, 5, 59, 60, 3_600]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    # -- what must always be so ------------------------------------------------------------------

    @invariant()
    def the_store_stands_as_the_model_does(self) -> None:
        found = {row.id: row for row in self.connection.execute(select(t.delivery)).all()}
        assert found.keys() == {step.id for step in self.steps}, "something was lost"
        for step in self.steps:
            row = found[step.id]
            assert (row.state, row.held_reason or row.done_reason) == self.expected(step)
            assert row.attempt == step.attempt
        for lane in {step.lane for step in self.steps}:
            head = self.head(lane)
            rows = [found[step.id] for step in self.lane(lane)]
            assert sum(row.state == "due" for row in rows) <= 1
            waiting = [step for step in self.lane(lane) if step.status in {"open", "dead"}]
            assert (head is None) == (not waiting), "something is stuck"
            if head is not None:
                assert found[head.id].priority_rank <= min(step.rank for step in waiting)

    def run_dry(self) -> None:
        """Whatever happened before: once nothing blocks, every lane runs to its end, in order."""
        for step in self.steps:
            if step.status == "dead":
                self.give_up(step)
        for _ in self.steps:
            self.now += timedelta(hours=1)
            self.attempts.clear()
            self.a_worker_claims(100)
            for step, _ in self.attempts:
                self.receipt(step)
        self.the_store_stands_as_the_model_does()
        assert all(step.status in {"done", "receipt"} for step in self.steps)


def test_lanes_keep_their_order_and_never_stick_whatever_happens(
    sqlite_database: Database,
) -> None:
    class Here(Lanes):
        engine = sqlite_database.open().writer

    run_state_machine_as_test(
        Here, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
    )
