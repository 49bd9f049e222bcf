"""What the parts of an entry are made of: strict models, spans of time, levels and codes."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fhir_profiles.working_days import end_of_day, london, next_working_day_end

Pillar = Literal[
    "general-practice",
    "pharmacy",
    "optometry",
    "dentistry",
    "community",
    "secondary-care",
    "urgent-care",
]
Level = Literal["stat", "urgent", "asap", "routine"]
Clock = Literal[
    "received",
    "decided",
    "answered",
    "filed",
    "sent",
    "contacted",
    "seen",
    "treated",
    "diagnosed",
    "arranged",
    "attended",
    "followed-up",
    "concluded",
    "resolved",
]
Party = Literal["sender", "receiver", "practice"]
# Who gets an outcome: who referred, the registered practice, and who else looks after the patient.
Reader = Literal["referrer", "practice", "optometrist", "dentist"]
Group = Literal["pharmacy", "eye", "dental", "hospital", "community"]
# From the most urgent to the least.
LEVELS: Final[tuple[Level, ...]] = ("stat", "urgent", "asap", "routine")
_WORDS: Final[Mapping[Level, str]] = {
    "stat": "same day",
    "urgent": "urgent",
    "asap": "within 7 days",
    "routine": "routine",
}
SLUG: Final = r"^[a-z0-9]+(-[a-z0-9]+)*$"


def words(level: Level) -> str:
    """Return the level as a person says it."""
    return _WORDS[level]


def at_least_as_urgent(one: Level, other: Level) -> bool:
    """Tell whether `one` is `other` or more urgent."""
    return LEVELS.index(one) <= LEVELS.index(other)


class Strict(BaseModel):
    """What every part is: frozen, without unknown fields, its names written with hyphens."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=lambda name: name.replace("_", "-")
    )


class Sourced(Strict):
    """What comes from somewhere."""

    source: str = Field(min_length=1)
    local: bool = False


class Span(Strict):
    """How long something may take. Exactly one measure; days end at 18:30 in London."""

    hours: int | None = Field(None, ge=1)
    days: int | None = Field(None, ge=0)
    working_days: int | None = Field(None, ge=1)
    source: str = ""
    local: bool = False

    @model_validator(mode="after")
    def _one_measure(self) -> Self:
        if sum(one is not None for one in (self.hours, self.days, self.working_days)) != 1:
            raise ValueError("a span has either `hours`, `days` or `working-days`")
        return self

    def due(self, start: datetime) -> datetime:
        """Return when it ends, as aware UTC. What is for a day that is over by then is for the
        next one."""
        if self.hours is not None:
            return start.astimezone(UTC) + timedelta(hours=self.hours)
        if self.working_days is not None:
            return next_working_day_end(start, self.working_days)
        day = london(start).date()
        end = end_of_day(day + timedelta(days=self.days or 0))
        return end if end > start else end_of_day(day + timedelta(days=1))

    def since(self, end: datetime) -> datetime:
        """Return from when on something lies within it, looking back from `end`: hours and days
        to the minute. Raises ValueError for working days."""
        if self.working_days is not None:
            raise ValueError("what is looked back over has `hours` or `days`")
        return end.astimezone(UTC) - timedelta(hours=self.hours or 0, days=self.days or 0)

    def __str__(self) -> str:
        for number, unit in (
            (self.hours, "hour"),
            (self.days, "day"),
            (self.working_days, "working day"),
        ):
            if number is not None:
                return f"{number} {unit}" if number == 1 else f"{number} {unit}s"
        return ""


Clocks = Mapping[Clock, Span]


class Escalation(Strict):
    """Who else hears of a deadline that is still not met so long after it was raised."""

    after: Span
    tell: tuple[Party, ...] = Field(min_length=1)


class Coded(Strict):
    """A code of the catalogue's own, with its words."""

    code: str = Field(pattern=SLUG)
    words: str = Field(min_length=1)
