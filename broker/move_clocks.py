"""What a move does to the clocks of its referral: which it meets, ends, stops, and begins."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from broker import deadlines, referral
from broker.deadlines import CLINICAL, Deadline, DeadlineKind
from broker.events import Kind, Priority, Role
from broker.referral import Move, Relation, State
from broker.store import work
from broker.store.tx import Tx
from broker.telling import BARS_DOOR
from broker.triage import Triage

WAITS: Final = "waits-for-answer"
# While a referral stands so, its receiver has yet to decide on it.
UNDECIDED: Final = frozenset(
    {State.REQUESTED, State.RECEIVED, State.INFORMATION_REQUESTED, State.REDIRECTED}
)
# What must come next where a referral stands so, and whose turn it is; but for what was asked of a
# receiver, whose clocks begin with the message.
STANDING: Final[Mapping[State, tuple[DeadlineKind, Relation]]] = MappingProxyType(
    {
        State.RECEIVED: (DeadlineKind.DECIDED, Relation.ACTING),
        State.INFORMATION_REQUESTED: (DeadlineKind.ANSWERED, Relation.SENDER),
        State.ACCEPTED: (DeadlineKind.ARRANGED, Relation.ACTING),
        State.BOOKED: (DeadlineKind.ATTENDED, Relation.ACTING),
        State.IN_PROGRESS: (DeadlineKind.CONCLUDED, Relation.ACTING),
        State.DID_NOT_ATTEND: (DeadlineKind.FOLLOWED_UP, Relation.ACTING),
        State.NO_CONTACT: (DeadlineKind.FOLLOWED_UP, Relation.ACTING),
        State.REJECTED: (DeadlineKind.RESOLVED, Relation.SENDER),
        State.EXPIRED: (DeadlineKind.RESOLVED, Relation.SENDER),
    }
)
OWN: Final = frozenset(kind for kind, _ in STANDING.values()) - {
    DeadlineKind.DECIDED,
    DeadlineKind.ANSWERED,
}
"""The clocks of a state alone: they begin with it and end with it."""
# Of what nobody has seen yet.
UNSEEN: Final = frozenset({DeadlineKind.REMINDED, DeadlineKind.CLOSED})
# What has happened to the patient where a referral stands so.
_HAPPENED: Final[Mapping[State, frozenset[DeadlineKind]]] = MappingProxyType(
    {
        State.BOOKED: frozenset({DeadlineKind.CONTACTED}),
        State.IN_PROGRESS: frozenset({DeadlineKind.CONTACTED, DeadlineKind.SEEN}),
    }
)


@dataclass(frozen=True, slots=True)
class Step:
    """A move as its clocks see it: `row` is the referral before it and `message` its newest one;
    `state` and how urgent it is `taken` are after it. `starts_at` is a booking's."""

    row: Any
    message: Any
    move: Move
    state: State
    taken: Triage
    now: datetime
    starts_at: datetime | None = None
    is_diagnosed: bool = False

    @property
    def level(self) -> Priority:
        """How urgent it is taken."""
        return self.taken.priority

    def write(self, tx: Tx) -> None:
        """Let the clocks follow."""
        row, now = self.row, self.now
        enters = self.move.to is not None or self.move.goes_back
        if enters and row.state == State.INFORMATION_REQUESTED:
            self._answered(tx)
        if enters and self.state is not State.RECEIVED:
            work.lapse(tx, row.message_id, self.state.value, *UNSEEN, at=now)
        if self.is_diagnosed:
            work.clear(tx, row.message_id, DeadlineKind.DIAGNOSED, at=now)
        if self.move.goes_back:
            work.reopen(tx, row.message_id, row.last_move_at)
        elif referral.STAGES[self.state].is_terminal:
            self._end(tx)
        if enters:
            self._stand(tx)
        elif self.level is not Priority(row.priority):
            self._reclock(tx)
        if self.state not in UNDECIDED and not referral.STAGES[self.state].is_terminal:
            work.clear(tx, row.message_id, *_happened(self.state), at=now)

    def _answered(self, tx: Tx) -> None:
        """The question is answered, or decided on without: the decision's clock runs on."""
        message_id = self.row.message_id
        work.resume(tx, message_id, DeadlineKind.DECIDED, WAITS, self.now)
        if self.state is State.RECEIVED:
            work.clear(tx, message_id, DeadlineKind.ANSWERED, at=self.now)
        else:
            work.lapse(tx, message_id, self.state.value, DeadlineKind.ANSWERED, at=self.now)

    def _end(self, tx: Tx) -> None:
        """Its copy may still be on its way. What was waited for after a decision has happened where
        the referral is completed, but that the patient was told what was found; where it ended
        otherwise, it never will."""
        message_id, state = self.row.message_id, self.state
        if state is State.CANCELLED:
            work.lapse(tx, message_id, state.value)
            return
        copy = {DeadlineKind.COPY_RECEIVED}
        if state is State.COMPLETED:
            work.clear(tx, message_id, but={DeadlineKind.DIAGNOSED, *copy}, at=self.now)
        elif state is not State.EXPIRED:
            met = (DeadlineKind.RECEIVED, DeadlineKind.DECIDED, DeadlineKind.RESOLVED)
            work.clear(tx, message_id, *met, at=self.now)
        work.lapse(tx, message_id, state.value, but=copy, at=self.now)

    def _stand(self, tx: Tx) -> None:
        """End the clock of the state that is left, and begin that of the one that is entered."""
        row = self.row
        kind, owner = STANDING.get(self.state, (None, Relation.NONE))
        left = OWN - {kind}
        if self.move.goes_back or self.state is State.NO_CONTACT:  # it did not come about
            work.lapse(tx, row.message_id, self.state.value, *left, at=self.now)
        else:
            work.clear(tx, row.message_id, *left, at=self.now)
        if kind is None or (owner is Relation.SENDER and self._is_deaf(kind)):
            return
        if self.starts_at is not None:  # booked anew
            work.lapse(tx, row.message_id, self.state.value, kind, at=self.now)
        if kind not in _running(tx, row.message_id):
            since = max(self.starts_at or self.now, self.now)
            self._begin(tx, deadlines.standing(kind, row.pathway, self.level, since, owner))
        if kind is DeadlineKind.ANSWERED and deadlines.may_wait(row.pathway, self.level):
            # The sender's own clock runs until it answers. Only that of the decision may wait for
            # it, and none that is urgent: the patient's condition does not.
            work.pause(tx, row.message_id, DeadlineKind.DECIDED, WAITS, self.now)

    def _is_deaf(self, kind: DeadlineKind) -> bool:
        """Whether a sender has no way to say what is waited for: by BaRS it cannot."""
        return kind is DeadlineKind.RESOLVED and self.message.door == BARS_DOOR

    def _reclock(self, tx: Tx) -> None:
        """Let the clocks be those of another priority: of a higher one each that ends sooner, of a
        lower one those that were the old priority's own.

        They count from the clinical event; but those of a priority that is higher than the sender's
        own from now, for nobody knew of it before.
        """
        row, was = self.row, Priority(self.row.priority)
        more = self.level.rank < was.rank
        if more and not deadlines.may_wait(row.pathway, self.level):
            work.resume(tx, row.message_id, DeadlineKind.DECIDED, WAITS, self.now)
        rows = work.deadlines_of(tx.connection, [row.message_id])
        running = {one.kind: one for one in rows if one.cleared_at is None}
        met = {one.kind for one in rows if one.cleared_at is not None and one.lapsed is None}
        is_raised = self.level.rank < self.taken.asked.rank
        old = self._clocks(was, self.message.clinical_at)
        new = self._clocks(self.level, self.now if is_raised else self.message.clinical_at)
        for kind in (*(CLINICAL - met - _happened(self.state)), *self._own()):
            runs, wanted = running.get(kind), new.get(kind)
            if more:
                changes = wanted is not None and (runs is None or wanted.due < runs.due_at)
            else:  # what a move began, or the old priority did; no reason's and no sender's own
                changes = runs is not None and (
                    runs.version != self.message.version
                    or (kind in old and old[kind].due == runs.due_at)
                )
            if not changes:
                continue
            if runs is not None:
                work.lapse(tx, row.message_id, self.level.value, kind, at=self.now)
            if wanted is not None:
                self._begin(tx, wanted)

    def _own(self) -> frozenset[DeadlineKind]:
        """The clock of the state itself, where it runs since a move; an appointment has its own."""
        kind, _ = STANDING[self.state]
        return frozenset({kind}) - {DeadlineKind.DECIDED, DeadlineKind.ATTENDED}

    def _clocks(self, level: Priority, happened: datetime) -> Mapping[str, Deadline]:
        row, message = self.row, self.message
        found = deadlines.deadlines_for(
            Kind.REFERRAL,
            Role.ACTING,
            level,
            happened,
            max(message.accepted_at, happened),
            pathway=row.pathway,
            is_correction=message.replaces is not None,
        )
        kind, owner = STANDING[self.state]
        since = max(row.last_move_at, happened)
        own = deadlines.standing(kind, row.pathway, level, since, owner)
        return {own.kind: own, **{one.kind: one for one in found}}

    def _begin(self, tx: Tx, due: Deadline) -> None:
        row = self.row
        owner = row.sender if due.owner is Relation.SENDER else row.receiver
        said = work.deadline_row(row.message_id, row.version, due.kind, owner, due.source, due.due)
        work.put_deadlines(tx, [said])


def _happened(state: State) -> frozenset[DeadlineKind]:
    if state in UNDECIDED:
        return frozenset()
    return frozenset({DeadlineKind.DECIDED}) | _HAPPENED.get(state, frozenset())


def _running(tx: Tx, message_id: str) -> set[str]:
    rows = work.deadlines_of(tx.connection, [message_id])
    return {one.kind for one in rows if one.cleared_at is None}
