"""The referral state machine under moves reordered, repeated, late and made by anybody."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.errors import Conflict
from broker.referral import MOVES, STAGES, Context, Move, Relation, State, allowed, apply

LONDON = ZoneInfo("Europe/London")
ORGANISATIONS = {"TPX01": Relation.SENDER, "RXX01": Relation.ACTING, "G99001": Relation.COPY}
TERMINAL = {state for state, stage in STAGES.items() if stage.is_terminal}


class Referral(RuleBasedStateMachine):
    """A referral, its history, and organisations that try everything at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2026, 3, 28, 20, 0, tzinfo=UTC)  # the night the clocks go forward
        self.state = State.REQUESTED
        self.before: State | None = None
        self.moved_by = ""
        self.moved_at: datetime | None = None
        self.history: list[tuple[str, State, State]] = []
        self.last: tuple[Move, Relation, str] | None = None

    def context(self, organisation: str) -> Context:
        return Context(self.now, organisation, self.moved_by, self.moved_at, self.before)

    def attempt(self, move: Move, relation: Relation, organisation: str) -> bool:
        context = self.context(organisation)
        offered = move in allowed(self.state, relation, context)
        try:
            after = apply(self.state, move, relation, context)
        except Conflict as refused:
            assert not offered
            assert "Allowed now: " in refused.detail
            return False
        assert offered
        self.history.append((move.name, self.state, after))
        if after is not self.state:
            self.before, self.moved_by, self.moved_at = self.state, organisation, self.now
        self.state = after
        self.last = (move, relation, organisation)
        return True

    @rule(minutes=st.integers(0, 60 * 30))
    def time_passes(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule(name=st.sampled_from(sorted(MOVES)), organisation=st.sampled_from(sorted(ORGANISATIONS)))
    def somebody_tries_a_move(self, name: str, organisation: str) -> None:
        self.attempt(MOVES[name], ORGANISATIONS[organisation], organisation)

    @rule(data=st.data(), organisation=st.sampled_from(["RXX01", "TPX01"]))
    def a_party_makes_a_move_it_was_offered(self, data: st.DataObject, organisation: str) -> None:
        offered = allowed(self.state, ORGANISATIONS[organisation], self.context(organisation))
        if offered:
            move = data.draw(st.sampled_from(offered))
            assert self.attempt(move, ORGANISATIONS[organisation], organisation)

    @rule()
    def the_broker_tries_to_let_it_expire(self) -> None:
        self.attempt(MOVES["expire"], Relation.BROKER, "")

    @rule(name=st.sampled_from(sorted(MOVES)))
    def a_stranger_tries_a_move(self, name: str) -> None:
        assert not self.attempt(MOVES[name], Relation.NONE, "ZZZ99")

    @rule()
    def another_organisation_tries_to_reinstate(self) -> None:
        assert not self.attempt(MOVES["reinstate"], Relation.ACTING, "RYY01")

    @precondition(lambda self: self.last is not None)
    @rule()
    def the_last_move_comes_again(self) -> None:
        assert self.last is not None
        move, relation, organisation = self.last
        state = self.state
        repeated = self.attempt(move, relation, organisation)
        # Only moves that leave the state as it is can be made twice running: nothing toggles.
        assert self.state is state or not repeated
        assert not repeated or move.name in {"amend", "book", "upgrade", "downgrade"}

    @invariant()
    def what_is_over_was_left_only_by_reinstating_on_the_same_day(self) -> None:
        for name, source, _ in self.history:
            assert source not in TERMINAL or (source, name) in {
                *((State.REJECTED, name) for name in ("reinstate", "resolve")),
                *((State.EXPIRED, name) for name in ("complete", "resolve")),
            }

    @invariant()
    def nothing_was_decided_before_it_was_received(self) -> None:
        seen = {State.REQUESTED}
        for _, source, after in self.history:
            assert source in seen
            # A consultation that names a referral is itself the proof that it was received.
            if (STAGES[after].taken_on and source is not State.EXPIRED) or after is State.REJECTED:
                assert State.RECEIVED in seen
            seen.add(after)

    @invariant()
    def a_reinstated_referral_is_no_further_than_it_was(self) -> None:
        for earlier, later in zip(self.history, self.history[1:], strict=False):
            if later[0] == "reinstate":
                assert earlier[0] == "reject"
                assert later[2] is earlier[1] or not (
                    STAGES[later[2]].taken_on and not STAGES[earlier[1]].taken_on
                )

    @invariant()
    def reinstating_is_offered_on_the_day_of_the_rejection_only(self) -> None:
        offered = MOVES["reinstate"] in allowed(self.state, Relation.ACTING, self.context("RXX01"))
        if offered:
            assert self.state is State.REJECTED
            assert self.moved_by == "RXX01"
            assert self.moved_at is not None
            assert self.moved_at.astimezone(LONDON).date() == self.now.astimezone(LONDON).date()


Referral.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestAReferralUnderAnythingThatHappens = Referral.TestCase
