"""Working days in England: weekends, bank holidays, both clock changes, the edges of the day."""

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from fhir_profiles.working_days import (
    end_of_day,
    is_working,
    is_working_day,
    london,
    next_working_day_end,
    working_day_end,
)

LONDON = ZoneInfo("Europe/London")


def at(year: int, month: int, day: int, hour: int, minute: int = 0) -> datetime:
    """A time as a clock on a wall in London shows it."""
    return datetime(year, month, day, hour, minute, tzinfo=LONDON)


def test_the_day_opens_at_eight_and_not_a_minute_before() -> None:
    assert not is_working(at(2026, 10, 1, 7, 59))
    assert is_working(at(2026, 10, 1, 8, 0))


def test_the_day_closes_at_half_past_six_and_that_minute_is_closed() -> None:
    assert is_working(at(2026, 10, 1, 18, 29))
    assert not is_working(at(2026, 10, 1, 18, 30))


def test_opening_hours_follow_the_london_clock_in_summer_and_in_winter() -> None:
    assert is_working(datetime(2026, 7, 1, 7, 0, tzinfo=UTC))
    assert not is_working(datetime(2026, 12, 1, 7, 0, tzinfo=UTC))
    assert not is_working(datetime(2026, 7, 1, 17, 30, tzinfo=UTC))
    assert is_working(datetime(2026, 12, 1, 17, 30, tzinfo=UTC))


def test_friday_is_a_working_day_and_saturday_and_sunday_are_not() -> None:
    assert is_working_day(date(2026, 10, 2))
    assert not is_working_day(date(2026, 10, 3))
    assert not is_working_day(date(2026, 10, 4))


def test_the_next_working_day_of_a_friday_is_monday() -> None:
    assert next_working_day_end(at(2026, 10, 2, 12), 1) == at(2026, 10, 5, 18, 30)


def test_a_message_on_sunday_is_due_on_monday() -> None:
    assert next_working_day_end(at(2026, 10, 4, 12), 1) == at(2026, 10, 5, 18, 30)


def test_several_working_days_step_over_the_weekend() -> None:
    assert next_working_day_end(at(2026, 10, 1, 12), 2) == at(2026, 10, 5, 18, 30)
    assert next_working_day_end(at(2026, 10, 1, 12), 5) == at(2026, 10, 8, 18, 30)


def test_the_day_is_the_london_day_not_the_utc_day() -> None:
    # 23:30 UTC on a summer Thursday is half past midnight on Friday in London.
    assert next_working_day_end(datetime(2026, 7, 2, 23, 30, tzinfo=UTC), 1) == at(
        2026, 7, 6, 18, 30
    )


def test_the_end_is_an_hour_later_in_utc_once_summer_time_ends() -> None:
    # The clocks go back on Sunday 25 October 2026.
    friday = at(2026, 10, 23, 12)
    assert end_of_day(friday.date()) == datetime(2026, 10, 23, 17, 30, tzinfo=UTC)
    assert next_working_day_end(friday, 1) == datetime(2026, 10, 26, 18, 30, tzinfo=UTC)


def test_the_end_is_an_hour_earlier_in_utc_once_summer_time_begins() -> None:
    # The clocks go forward on Sunday 29 March 2026.
    friday = at(2026, 3, 27, 12)
    assert end_of_day(friday.date()) == datetime(2026, 3, 27, 18, 30, tzinfo=UTC)
    assert next_working_day_end(friday, 1) == datetime(2026, 3, 30, 17, 30, tzinfo=UTC)


def test_easter_takes_four_days_out() -> None:
    assert working_day_end(date(2026, 4, 2), 1) == end_of_day(date(2026, 4, 7))


def test_the_summer_bank_holiday_is_englands_not_scotlands() -> None:
    assert is_working_day(date(2026, 8, 3))
    assert not is_working_day(date(2026, 8, 31))


def test_the_second_of_january_is_a_working_day_in_england() -> None:
    assert is_working_day(date(2026, 1, 2))


def test_christmas_with_boxing_day_on_a_saturday_moves_to_monday() -> None:
    # 2026: Christmas Day is a Friday, Boxing Day is kept on Monday 28 December.
    assert next_working_day_end(at(2026, 12, 24, 12), 1) == at(2026, 12, 29, 18, 30)


def test_christmas_at_a_weekend_takes_monday_and_tuesday() -> None:
    assert working_day_end(date(2027, 12, 24), 1) == end_of_day(date(2027, 12, 29))


def test_counting_goes_on_over_new_year() -> None:
    assert working_day_end(date(2026, 12, 31), 1) == end_of_day(date(2027, 1, 4))


def test_every_end_is_aware_and_in_utc() -> None:
    assert end_of_day(date(2026, 7, 1)).tzinfo is UTC
    assert next_working_day_end(at(2026, 7, 1, 12), 3).tzinfo is UTC


def test_london_shows_the_wall_clock_of_the_same_moment() -> None:
    moment = datetime(2026, 7, 2, 23, 30, tzinfo=UTC)
    assert london(moment) == moment
    assert london(moment).date() == date(2026, 7, 3)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        is_working(datetime(2026, 10, 1, 12))  # noqa: DTZ001 - that is the point


def test_counting_no_working_day_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        working_day_end(date(2026, 10, 1), 0)
