"""The clocks, and the words in which a person reads them."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.deadlines import (
    Deadline,
    DeadlineKind,
    deadlines_for,
    in_words,
    is_overdue,
    overdue,
    started,
)
from broker.events import Kind, Priority, Role
from broker.ports import Clinical
from broker.referral import Relation
from fhir_profiles.working_days import london

MONDAY = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
ACTING = Role.ACTING


def dues(
    kind: Kind, role: Role, priority: Priority, happened: datetime | date = MONDAY
) -> dict[str, str]:
    found = deadlines_for(kind, role, priority, happened, MONDAY)
    return {deadline.kind: in_words(deadline.due) for deadline in found}


def test_a_same_day_referral_is_received_in_one_hour_decided_in_four_and_telephoned() -> None:
    assert dues(Kind.REFERRAL, ACTING, Priority.STAT) == {
        "received": "by 11:00 on Monday 23 November",
        "decided": "by 14:00 on Monday 23 November",
        "telephone": "by 11:00 on Monday 23 November",
    }


def test_an_urgent_referral_is_received_in_four_hours_and_decided_in_one_working_day() -> None:
    assert dues(Kind.REFERRAL, ACTING, Priority.URGENT) == {
        "received": "by 14:00 on Monday 23 November",
        "decided": "by 18:30 on Tuesday 24 November",
    }


def test_a_7_day_referral_is_received_in_one_working_day_and_decided_in_two() -> None:
    assert dues(Kind.REFERRAL, ACTING, Priority.ASAP) == {
        "received": "by 18:30 on Tuesday 24 November",
        "decided": "by 18:30 on Wednesday 25 November",
    }


def test_a_routine_referral_is_received_the_next_working_day_and_decided_in_five() -> None:
    assert dues(Kind.REFERRAL, ACTING, Priority.ROUTINE) == {
        "received": "by 18:30 on Tuesday 24 November",
        "decided": "by 18:30 on Monday 30 November",
    }


def test_an_update_is_filed_within_five_working_days_and_never_decided() -> None:
    assert dues(Kind.UPDATE, ACTING, Priority.ROUTINE) == {
        "received": "by 18:30 on Tuesday 24 November",
        "filed": "by 18:30 on Monday 30 November",
    }


@pytest.mark.parametrize("kind", [Kind.UPDATE, Kind.REFERRAL])
@pytest.mark.parametrize("priority", list(Priority))
def test_a_copy_has_a_receipt_clock_only_whatever_its_urgency(
    kind: Kind, priority: Priority
) -> None:
    assert dues(kind, Role.COPY, priority) == {"copy-received": "by 18:30 on Tuesday 24 November"}


def test_a_notice_needs_only_its_receipt() -> None:
    assert dues(Kind.NOTICE, Role.NOTICE, Priority.STAT) == {
        "notice-received": "by 18:30 on Tuesday 24 November"
    }


def test_hours_run_through_the_night_and_working_days_over_weekends_and_holidays() -> None:
    christmas_eve = datetime(2026, 12, 24, 18, 0, tzinfo=UTC)
    stat = deadlines_for(Kind.REFERRAL, ACTING, Priority.URGENT, christmas_eve, christmas_eve)
    words = {deadline.kind: in_words(deadline.due) for deadline in stat}
    assert words["received"] == "by 22:00 on Thursday 24 December"
    # 25 December is a holiday, 26 a Saturday, 28 the holiday in its stead.
    assert words["decided"] == "by 18:30 on Tuesday 29 December"


def test_clocks_start_at_the_clinical_event_and_the_telephone_clock_at_acceptance() -> None:
    accepted = MONDAY + timedelta(hours=5)
    found = deadlines_for(Kind.UPDATE, ACTING, Priority.STAT, MONDAY, accepted)
    by_kind = {deadline.kind: deadline for deadline in found}
    assert by_kind["received"].due == MONDAY + timedelta(hours=1)
    assert by_kind["telephone"].due == accepted + timedelta(hours=1)
    assert by_kind["telephone"].owner is Relation.SENDER
    assert [d.kind for d in overdue(found, accepted)] == ["received"]


def test_a_correction_is_stored_and_filed_anew_but_the_patient_waits_no_longer_for_it() -> None:
    friday = MONDAY - timedelta(days=3)
    first = {
        one.kind: one
        for one in deadlines_for(Kind.REFERRAL, ACTING, Priority.URGENT, friday, MONDAY)
    }
    found = deadlines_for(
        Kind.REFERRAL, ACTING, Priority.URGENT, friday, MONDAY, is_correction=True
    )
    corrected = {one.kind: one for one in found}
    assert in_words(corrected["received"].due) == "by 14:00 on Monday 23 November"
    assert corrected["decided"] == first["decided"]
    [filed] = [
        one
        for one in deadlines_for(
            Kind.UPDATE, ACTING, Priority.ROUTINE, friday, MONDAY, is_correction=True
        )
        if one.kind == "filed"
    ]
    assert in_words(filed.due) == "by 18:30 on Monday 30 November"


def test_a_date_without_a_time_starts_at_acceptance_if_it_is_today_in_london() -> None:
    assert started(date(2026, 11, 23), MONDAY) == MONDAY
    # 23:30 UTC on 30 June is already 1 July in London.
    late = datetime(2026, 6, 30, 23, 30, tzinfo=UTC)
    assert started(date(2026, 7, 1), late) == late


def test_a_time_that_utc_cannot_say_starts_at_acceptance() -> None:
    assert started(datetime.fromisoformat("0001-01-01T00:00:00+14:00"), MONDAY) == MONDAY


def test_a_date_before_today_starts_at_eight_in_london_on_that_date() -> None:
    assert started(date(2026, 11, 20), MONDAY) == datetime(2026, 11, 20, 8, tzinfo=UTC)
    assert started(date(2026, 7, 1), MONDAY) == datetime(2026, 7, 1, 7, tzinfo=UTC)


def test_a_senders_clock_that_runs_ahead_buys_no_time() -> None:
    assert started(MONDAY + timedelta(minutes=9), MONDAY) == MONDAY
    assert started(date(2027, 1, 1), MONDAY) == MONDAY


def test_what_is_past_at_acceptance_is_overdue_at_once() -> None:
    found = deadlines_for(Kind.REFERRAL, ACTING, Priority.STAT, date(2026, 11, 20), MONDAY)
    assert [deadline.kind for deadline in overdue(found, MONDAY)] == ["received", "decided"]


def test_a_deadline_is_overdue_at_its_very_moment() -> None:
    assert is_overdue(MONDAY, MONDAY)
    assert not is_overdue(MONDAY, MONDAY - timedelta(microseconds=1))


def test_the_pathways_own_clocks_are_the_acting_receivers() -> None:
    seen = Clinical("seen", datetime(2026, 11, 30, 18, 30, tzinfo=UTC), "RCOphth wet AMD")
    found = deadlines_for(Kind.REFERRAL, ACTING, Priority.ASAP, MONDAY, MONDAY, (seen,))
    assert found[-1] == Deadline("seen", seen.due, "RCOphth wet AMD", Relation.ACTING)
    assert deadlines_for(Kind.UPDATE, Role.COPY, Priority.ASAP, MONDAY, MONDAY, (seen,)) == (
        deadlines_for(Kind.UPDATE, Role.COPY, Priority.ASAP, MONDAY, MONDAY)
    )


def test_each_deadline_names_its_rule() -> None:
    found = deadlines_for(Kind.REFERRAL, ACTING, Priority.STAT, MONDAY, MONDAY)
    assert [deadline.source for deadline in found] == [
        "received within 1 hour of the clinical event",
        "decided within 4 hours of the clinical event",
        "telephone within 1 hour of acceptance",
    ]
    routine = deadlines_for(Kind.UPDATE, ACTING, Priority.ROUTINE, MONDAY, MONDAY)
    assert [deadline.source for deadline in routine] == [
        "received by the end of the next working day after the clinical event",
        "filed within 5 working days of the clinical event",
    ]


def test_a_deadline_reads_as_a_person_says_it_in_london_time() -> None:
    assert in_words(datetime(2026, 7, 1, 17, 30, tzinfo=UTC)) == "by 18:30 on Wednesday 1 July"
    assert in_words(MONDAY) == "by 10:00 on Monday 23 November"


def test_a_pathway_and_a_reason_bring_clocks_of_their_own_with_their_sources() -> None:
    found = deadlines_for(
        Kind.REFERRAL,
        ACTING,
        Priority.ASAP,
        date(2026, 11, 23),
        MONDAY,
        pathway="suspected-wet-amd",
        reason="suspected-wet-amd",
    )
    assert {one.kind: (in_words(one.due), one.source) for one in found if "(" in one.source} == {
        "seen": (
            "by 18:30 on Monday 30 November",
            "seen within 7 days of the clinical event (RCOphth)",
        ),
        "treated": (
            "by 18:30 on Monday 7 December",
            "treated within 14 days of the clinical event (RCOphth)",
        ),
    }


def test_days_are_counted_from_the_london_date_of_the_clinical_event() -> None:
    late = datetime(2026, 10, 1, 23, 30, tzinfo=UTC)  # 2 October in London
    accepted = datetime(2026, 10, 2, 9, 0, tzinfo=UTC)
    kind, pathway = Kind.REFERRAL, "suspected-wet-amd"
    found = deadlines_for(
        kind, ACTING, Priority.ASAP, late, accepted, pathway=pathway, reason=pathway
    )
    (seen,) = [one.due for one in found if one.kind == "seen"]
    assert seen == datetime(2026, 10, 9, 17, 30, tzinfo=UTC)


MOMENTS = st.timedeltas(timedelta(0), timedelta(days=1095)).map(
    lambda since: datetime(2025, 1, 1, tzinfo=UTC) + since
)


@given(
    kind=st.sampled_from(list(Kind)),
    role=st.sampled_from(list(Role)),
    priority=st.sampled_from(list(Priority)),
    accepted=MOMENTS,
    ago=st.timedeltas(timedelta(0), timedelta(days=20)),
    timed=st.booleans(),
)
def test_deadlines_are_one_of_each_kind_and_no_less_urgent_message_is_sooner(
    kind: Kind,
    role: Role,
    priority: Priority,
    accepted: datetime,
    ago: timedelta,
    timed: bool,
) -> None:
    moment = accepted - ago
    happened = moment if timed else london(moment).date()
    found = deadlines_for(kind, role, priority, happened, accepted)
    kinds = [deadline.kind for deadline in found]
    assert len(set(kinds)) == len(kinds)
    assert all(deadline.due.tzinfo is UTC for deadline in found)
    if not (role is Role.ACTING and kind is Kind.NOTICE):
        assert any(deadline.kind.endswith("received") for deadline in found)
    assert (DeadlineKind.DECIDED in kinds) == (kind is Kind.REFERRAL and role is Role.ACTING)
    if priority is not Priority.ROUTINE:
        calmer = list(Priority)[list(Priority).index(priority) + 1]
        later = {d.kind: d.due for d in deadlines_for(kind, role, calmer, happened, accepted)}
        for deadline in found:
            assert deadline.due <= later.get(deadline.kind, deadline.due)


@given(accepted=MOMENTS, ago=st.timedeltas(timedelta(0), timedelta(days=20)))
def test_a_date_alone_never_gives_a_later_start_than_the_working_moment_it_stands_for(
    accepted: datetime, ago: timedelta
) -> None:
    moment = london(accepted - ago)
    start = started(moment.date(), accepted)
    assert start <= accepted
    if moment.date() != london(accepted).date() and moment.hour >= 8:
        assert start <= moment
