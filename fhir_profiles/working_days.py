"""Working days as England keeps them: 08:00 to 18:30 in London, no weekends, no bank holidays.

Pure: a moment comes in, a moment goes out; nothing here reads a clock. The bank holidays are those
of England and Wales (library `holidays`).
"""

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import holidays

LONDON: Final = ZoneInfo("Europe/London")
OPENS: Final = time(8, 0)
CLOSES: Final = time(18, 30)


def london(moment: datetime) -> datetime:
    """Return the same moment as a clock on a wall in London shows it. Refuses naive times."""
    if moment.tzinfo is None:
        raise ValueError("A moment without a time zone could be any of 24 hours; give it one.")
    return moment.astimezone(LONDON)


def is_working_day(day: date) -> bool:
    """Tell whether practices and services are open on this date at all."""
    return day.weekday() < 5 and day not in _bank_holidays(day.year)


def is_working(moment: datetime) -> bool:
    """Tell whether this moment is within working hours; opening counts, closing does not."""
    local = london(moment)
    return is_working_day(local.date()) and OPENS <= local.time() < CLOSES


def start_of(happened: date | datetime) -> datetime:
    """Return a moment: of a date alone 08:00 in London, when its working day begins."""
    if isinstance(happened, datetime):
        return happened
    return datetime.combine(happened, OPENS, LONDON).astimezone(UTC)


def end_of_day(day: date) -> datetime:
    """Return 18:30 in London on this date, a working day or not, as aware UTC."""
    return datetime.combine(day, CLOSES, LONDON).astimezone(UTC)


def working_day_end(day: date, days: int) -> datetime:
    """Return the end (18:30 London) of the n-th working day after this date, as aware UTC.

    The date itself never counts, whether it is a working day or not.
    """
    if days < 1:
        raise ValueError("Count at least one working day onwards.")
    while days:
        day += timedelta(days=1)
        days -= is_working_day(day)
    return end_of_day(day)


def next_working_day_end(moment: datetime, days: int) -> datetime:
    """Return the end (18:30 London) of the n-th working day after the London date of `moment`."""
    return working_day_end(london(moment).date(), days)


@lru_cache(maxsize=64)
def _bank_holidays(year: int) -> frozenset[date]:
    return frozenset(holidays.country_holidays("GB", subdiv="ENG", years=year))
