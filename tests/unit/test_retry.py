"""The retry policies, held to what house.md section 5 promises."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import Reject, Retry
from broker.events import Priority
from broker.retry import PERMANENT, POLICIES, Verdict, code_of, decide, judge, policy_of

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
ROUTINE = POLICIES[Priority.ROUTINE]
URGENT = POLICIES[Priority.URGENT]


def test_a_policy_reads_as_a_sentence() -> None:
    assert str(ROUTINE) == (
        "tried again after 5 seconds, then after twice as long each time up to 1 hour, each wait "
        "shortened by up to 20% at random; given up 72 hours after it was first due"
    )
    assert "up to 5 minutes" in str(URGENT)


def test_same_day_and_urgent_share_the_short_cap_and_the_others_the_long_one() -> None:
    assert set(POLICIES) == set(Priority)
    assert POLICIES[Priority.STAT].cap == URGENT.cap == timedelta(minutes=5)
    assert POLICIES[Priority.ASAP].cap == ROUTINE.cap == timedelta(hours=1)


def test_a_rank_that_was_inherited_has_the_policy_of_its_priority() -> None:
    assert all(policy_of(priority.rank) is POLICIES[priority] for priority in Priority)


def test_waits_begin_at_five_seconds_and_double_up_to_the_cap() -> None:
    waits = [ROUTINE.delay(attempt, 0.0).total_seconds() for attempt in range(1, 13)]
    assert waits == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]
    assert [URGENT.delay(n, 0.0).total_seconds() for n in (6, 7, 8)] == [160, 300, 300]


def test_jitter_only_shortens_a_wait() -> None:
    assert ROUTINE.delay(1, 0.5) == timedelta(seconds=4.5)
    assert ROUTINE.delay(20, 0.999) < ROUTINE.cap


def test_an_attempt_count_in_the_millions_does_not_overflow() -> None:
    assert ROUTINE.delay(5_000_000, 0.0) == ROUTINE.cap


def test_an_attempt_before_the_first_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="from 1"):
        ROUTINE.delay(0, 0.0)


def test_a_passing_failure_is_due_again_with_its_code() -> None:
    decision = decide(ROUTINE, Retry("timed-out"), attempt=1, first_due=NOW, now=NOW, random=0.0)
    assert not decision.is_dead
    assert decision.due_at == NOW + timedelta(seconds=5)
    assert decision.code == "timed-out"


@pytest.mark.parametrize("status", sorted(PERMANENT))
def test_a_refusal_of_the_content_is_dead_at_once_even_if_raised_as_passing(status: int) -> None:
    failure = Retry("answered-4xx", status=status)
    assert decide(ROUTINE, failure, attempt=1, first_due=NOW, now=NOW, random=0.0).is_dead


def test_a_reject_is_dead_at_once_whatever_its_status() -> None:
    for status in (None, 200, 503):
        failure = Reject("receipt-mismatch", status=status)
        decision = decide(URGENT, failure, attempt=1, first_due=NOW, now=NOW, random=0.0)
        assert decision.is_dead
        assert decision.code == "receipt-mismatch"


def test_it_is_given_up_after_72_hours_and_not_a_second_before() -> None:
    failure = Retry("connection-failed")
    just_before = NOW + timedelta(hours=72, seconds=-1)
    last = decide(ROUTINE, failure, attempt=80, first_due=NOW, now=just_before, random=0.0)
    assert last.due_at == NOW + timedelta(hours=72)
    at_last = NOW + timedelta(hours=72)
    assert decide(ROUTINE, failure, attempt=81, first_due=NOW, now=at_last, random=0.0).is_dead


def test_a_retry_after_is_respected_within_the_cap() -> None:
    soon = Retry("answered-4xx", status=429, not_before=NOW + timedelta(minutes=3))
    assert decide(
        URGENT, soon, attempt=1, first_due=NOW, now=NOW, random=0.0
    ).due_at == NOW + timedelta(minutes=3)
    tomorrow = Retry("answered-5xx", status=503, not_before=NOW + timedelta(days=1))
    assert decide(
        URGENT, tomorrow, attempt=1, first_due=NOW, now=NOW, random=0.0
    ).due_at == NOW + timedelta(minutes=5)
    past = Retry("answered-5xx", status=503, not_before=NOW - timedelta(days=1))
    assert decide(
        URGENT, past, attempt=1, first_due=NOW, now=NOW, random=0.0
    ).due_at == NOW + timedelta(seconds=5)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [(200, Verdict.OK), (202, Verdict.OK), (299, Verdict.OK)]
    + [(s, Verdict.REJECT) for s in (400, 410, 413, 415, 422)]
    + [
        (s, Verdict.RETRY)
        for s in (
            199,
            300,
            301,
            302,
            307,
            401,
            403,
            404,
            408,
            409,
            425,
            429,
            500,
            501,
            503,
            599,
            999,
        )
    ],
)
def test_each_status_is_judged_as_the_house_says(status: int, verdict: Verdict) -> None:
    assert judge(status) is verdict


def test_each_status_that_is_no_success_has_its_code() -> None:
    assert [code_of(status) for status in (300, 399, 400, 499, 500, 999, 199)] == [
        "redirected",
        "redirected",
        "answered-4xx",
        "answered-4xx",
        "answered-5xx",
        "answered-5xx",
        "answered-5xx",
    ]


@given(
    attempt=st.integers(1, 10_000),
    age=st.timedeltas(timedelta(0), timedelta(hours=100)),
    random=st.floats(0, 1, exclude_max=True),
    patience=st.none() | st.timedeltas(timedelta(days=-1), timedelta(days=9)),
    priority=st.sampled_from(list(Priority)),
)
def test_a_delivery_is_always_either_dead_or_due_within_the_cap(
    attempt: int,
    age: timedelta,
    random: float,
    patience: timedelta | None,
    priority: Priority,
) -> None:
    policy = POLICIES[priority]
    now = NOW + age
    failure = Retry("answered-5xx", not_before=None if patience is None else now + patience)
    decision = decide(policy, failure, attempt=attempt, first_due=NOW, now=now, random=random)
    if decision.due_at is None:
        assert age >= timedelta(hours=72)
    else:
        assert now < decision.due_at <= now + policy.cap
        assert decision.due_at <= NOW + timedelta(hours=72)
