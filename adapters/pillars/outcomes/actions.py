"""What is to be done after an outcome: by whom, and how soon. Of the practice it is a message."""

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from hashlib import sha256
from typing import Any, Final, Literal

from pydantic import Field

from adapters.pillars import tasks
from adapters.pillars.tasks import Task
from broker.events import Priority, highest
from fhir_profiles import glance, values
from fhir_profiles.blocks import URGENCIES, Block, Finding, Urgency, rule
from fhir_profiles.pathways.parts import LEVELS
from fhir_profiles.resources import When
from fhir_profiles.values import DueDate, Line, Text
from fhir_profiles.working_days import london

_LEVELS: Final = tuple(map(Priority, LEVELS))
# Of a body that cannot be read, so near a day is taken for urgent.
_SOON: Final = 7


class Action(Block):
    """Something that somebody is asked to do."""

    id: Line | None = Field(default=None, examples=["bloods"])
    """Your own name for it within this message, by which a correction finds it again. Without one
    it is found by its words."""
    whom: Literal["practice", "referrer", "other"] = "practice"
    """Who is asked. What the practice is asked to do is a referral of its own, with its deadline;
    the others read it in the message."""
    who: Line | None = Field(default=None, examples=["Community heart failure nurses"])
    """Who it is, if `whom` is `other`."""
    what: Text = Field(examples=["Please check the kidney function."])
    """What is asked."""
    urgency: Urgency | None = Field(default=None, examples=["within-7-days"])
    """How soon. Send this, or `by`, or both: what is sooner counts."""
    by: DueDate | None = None
    """The day by which it is to be done."""

    @property
    def key(self) -> str:
        """What tells it from the others of the same message, in every version of it."""
        told = f"id {self.id}" if self.id is not None else f"what {self.what}"
        return f"action {sha256(told.encode()).hexdigest()[:16]}"

    def priority(self, today: date) -> Priority:
        """Return how soon it is to be done, seen from a day."""
        wanted = [Priority(URGENCIES[self.urgency])] if self.urgency is not None else []
        if self.by is not None:
            levels = ((one, tasks.day(today, one)) for one in _LEVELS)
            wanted.append(next(one for one, day in levels if day is None or self.by <= day))
        return highest(*wanted)

    def task(self, seen_at: When, priority: Priority) -> Task:
        """Return it as what the practice is asked to do, at this level."""
        return Task(self.key, priority, self.by or tasks.day(seen_at, priority), self.what)

    @property
    def in_words(self) -> str:
        """It as a person reads it: who, by when, what."""
        whom = {"practice": "The practice", "referrer": "Who referred"}.get(self.whom, self.who)
        soon = (
            Priority(URGENCIES[self.urgency]).words if self.urgency is not None else None,
            f"by {self.by.day} {self.by:%B %Y}" if self.by is not None else None,
        )
        return f"{whom}, {', '.join(filter(None, soon))}: {self.what}"

    @rule
    def _says_how_soon(self, _: datetime) -> Iterator[Finding]:
        if self.urgency is None and self.by is None:
            yield Finding(
                ("urgency",), "missing", "It is not said how soon.", "Send `urgency` or `by`."
            )

    @rule
    def _says_who(self, _: datetime) -> Iterator[Finding]:
        if self.whom == "other" and self.who is None:
            yield Finding(("who",), "missing", "It is not said who is asked.", "Send `who`.")


def today_of(now: datetime) -> date:
    """Return the day in London."""
    return london(now).date()


def glanced(raw: Mapping[str, Any]) -> Priority | None:
    """Return how soon the soonest action of a body is wanted, as far as it can be read; None
    without one. A day is taken for urgent unless it is plainly later. Never raises."""
    said = raw.get("actions")
    if not said:
        return None
    seen = values.date_or_time(raw.get("seen_at"))
    wanted = [Priority.ROUTINE]
    for one in glance.blocks(said):
        wanted.append(Priority(glance.urgency(one.get("urgency"))))
        if one.get("by") is not None:
            wanted.append(_glanced_day(values.date_or_time(one["by"]), seen))
    return highest(*wanted)


def _glanced_day(by: date | datetime | None, seen: date | datetime | None) -> Priority:
    days = [one.date() if isinstance(one, datetime) else one for one in (by, seen) if one]
    is_later = len(days) == 2 and (days[0] - days[1]).days > _SOON
    return Priority.ROUTINE if is_later else Priority.URGENT
