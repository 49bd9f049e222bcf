"""By when what must have happened to a message, from one table; pure, no clock is read.

Hours are hours of the day and night: a same-day message at six in the evening is not less urgent
than one at noon. Working days end at 18:30 in London and the day on which a clock starts never
counts. A deadline that passes stops nothing: it is shown to those who must act.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from broker.events import Kind, Priority, Role
from broker.ports import Clinical
from broker.referral import Relation
from fhir_profiles.working_days import LONDON, OPENS, london, next_working_day_end


class DeadlineKind(StrEnum):
    """What must have happened. Pathways add their own (seen, treated …)."""

    RECEIVED = "received"
    COPY_RECEIVED = "copy-received"
    NOTICE_RECEIVED = "notice-received"
    DECIDED = "decided"
    FILED = "filed"
    TELEPHONE = "telephone"


class Start(StrEnum):
    """From when a clock runs."""

    EVENT = "the clinical event"
    ACCEPTANCE = "acceptance"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: which messages it is for, and how long they have. Exactly one of hours and days."""

    clock: DeadlineKind
    kinds: frozenset[Kind]
    role: Role
    priorities: frozenset[Priority]
    hours: int = 0
    working_days: int = 0
    start: Start = Start.EVENT
    owner: Relation = Relation.ACTING

    def __str__(self) -> str:
        if self.hours:
            span = f"{self.hours} hour" if self.hours == 1 else f"{self.hours} hours"
            return f"{self.clock} within {span} of {self.start}"
        if self.working_days == 1:
            return f"{self.clock} by the end of the next working day after {self.start}"
        return f"{self.clock} within {self.working_days} working days of {self.start}"


_K = DeadlineKind
_ANY: Final = frozenset(Priority)
_SAME_DAY: Final = frozenset({Priority.STAT})
_URGENT: Final = frozenset({Priority.URGENT})
_SOON: Final = frozenset({Priority.ASAP})
_ROUTINE: Final = frozenset({Priority.ROUTINE})
_UPDATE: Final = frozenset({Kind.UPDATE})
_REFERRAL: Final = frozenset({Kind.REFERRAL})
_SENT: Final = _UPDATE | _REFERRAL
_ALL: Final = frozenset(Kind)
_ACTING: Final = Role.ACTING

# A copy has no filed-by clock: nobody has to act on it.
RULES: Final = (
    Rule(_K.RECEIVED, _SENT, _ACTING, _SAME_DAY, hours=1),
    Rule(_K.RECEIVED, _SENT, _ACTING, _URGENT, hours=4),
    Rule(_K.RECEIVED, _SENT, _ACTING, _SOON, working_days=1),
    Rule(_K.RECEIVED, _SENT, _ACTING, _ROUTINE, working_days=1),
    Rule(_K.COPY_RECEIVED, _ALL, Role.COPY, _ANY, working_days=1, owner=Relation.COPY),
    Rule(_K.NOTICE_RECEIVED, _ALL, Role.NOTICE, _ANY, working_days=1, owner=Relation.NOTICE),
    Rule(_K.DECIDED, _REFERRAL, _ACTING, _SAME_DAY, hours=4),
    Rule(_K.DECIDED, _REFERRAL, _ACTING, _URGENT, working_days=1),
    Rule(_K.DECIDED, _REFERRAL, _ACTING, _SOON, working_days=2),
    Rule(_K.DECIDED, _REFERRAL, _ACTING, _ROUTINE, working_days=5),
    Rule(_K.FILED, _UPDATE, _ACTING, _ANY, working_days=5),
    Rule(
        _K.TELEPHONE,
        _SENT,
        _ACTING,
        _SAME_DAY,
        hours=1,
        start=Start.ACCEPTANCE,
        owner=Relation.SENDER,
    ),
)

# What whoever must act has to do, after "must".
DUTIES: Final[dict[str, str]] = {
    _K.RECEIVED: "confirm that it is stored",
    _K.COPY_RECEIVED: "confirm that the copy is stored",
    _K.NOTICE_RECEIVED: "confirm that the notice is stored",
    _K.DECIDED: "decide on it",
    _K.FILED: "file or reject it",
    _K.TELEPHONE: "telephone and record the call",
}

# Which clock a receipt meets, by what the message is to whoever gives it.
RECEIPT_CLOCKS: Final[Mapping[Role, DeadlineKind]] = MappingProxyType(
    {
        Role.ACTING: _K.RECEIVED,
        Role.COPY: _K.COPY_RECEIVED,
        Role.NOTICE: _K.NOTICE_RECEIVED,
    }
)


# What a correction asks for anew: nobody can have stored or filed it before it was there. The
# patient waits as long as before, so the decision's clock runs on from the clinical event.
_ANEW: Final = frozenset({*RECEIPT_CLOCKS.values(), _K.FILED})


@dataclass(frozen=True, slots=True)
class Deadline:
    """What must have happened by `due` (aware, UTC), by which rule, and whose turn it is."""

    kind: str
    due: datetime
    source: str
    owner: Relation


def deadlines_for(
    kind: Kind,
    role: Role,
    priority: Priority,
    happened: datetime | date,
    accepted_at: datetime,
    clocks: Iterable[Clinical] = (),
    *,
    is_correction: bool = False,
) -> tuple[Deadline, ...]:
    """Return every deadline of one message towards one role; at most one of each kind.

    The pathway's own clocks are the acting receiver's. What is past already is returned too: it is
    overdue at once, and the answer must say so.
    """
    event = started(happened, accepted_at)

    def start(rule: Rule) -> datetime:
        at_once = rule.start is Start.ACCEPTANCE or (is_correction and rule.clock in _ANEW)
        return accepted_at if at_once else event

    ours = tuple(
        Deadline(rule.clock, _due(rule, start(rule)), str(rule), rule.owner)
        for rule in RULES
        if kind in rule.kinds and role is rule.role and priority in rule.priorities
    )
    if role is not Role.ACTING:
        return ours
    return ours + tuple(
        Deadline(clock.kind, clock.due.astimezone(UTC), clock.source, Relation.ACTING)
        for clock in clocks
    )


def started(happened: datetime | date, accepted_at: datetime) -> datetime:
    """Return when the clocks of a clinical event start; never later than its acceptance.

    A date without a time starts at acceptance if it is today in London, else at 08:00 London on
    that date: the earliest moment of its working day, so that no deadline is ever too late.
    """
    if isinstance(happened, datetime):
        moment = happened
    elif happened == london(accepted_at).date():
        moment = accepted_at
    else:
        moment = datetime.combine(happened, OPENS, LONDON)
    # A sender's clock that runs ahead must not buy time.
    try:
        return min(moment, accepted_at).astimezone(UTC)
    except OverflowError:  # at the calendar's own ends there is no UTC
        return accepted_at


def is_overdue(due: datetime, now: datetime) -> bool:
    """Tell whether the time is up; at the deadline itself it is."""
    return now >= due


def overdue(deadlines: Iterable[Deadline], now: datetime) -> tuple[Deadline, ...]:
    """Return those whose time is up, the longest overdue first."""
    late = (deadline for deadline in deadlines if is_overdue(deadline.due, now))
    return tuple(sorted(late, key=lambda deadline: deadline.due))


def duty(kind: str, who: str, due: datetime) -> str:
    """Say in one sentence who must do what, and by when."""
    if kind in DUTIES:
        return f"{who} must {DUTIES[kind]} {in_words(due)}."
    return f"The patient must be {kind} by {who} {in_words(due)}."


def in_words(due: datetime) -> str:
    """Say a deadline as a person reads it: `by 18:30 on Monday 23 November`, London time."""
    local = london(due)
    return f"by {local:%H:%M} on {local:%A} {local.day} {local:%B}"


def as_table() -> list[tuple[str, ...]]:
    """Return the rules as rows of words, the headings first."""
    rows: list[tuple[str, ...]] = [("message", "towards", "priority", "rule", "whose turn")]
    for rule in RULES:
        kinds = ", ".join(kind for kind in Kind if kind in rule.kinds)
        levels = ", ".join(level.words for level in Priority if level in rule.priorities)
        rows.append((kinds, rule.role, levels, str(rule), rule.owner.words))
    return rows


def _due(rule: Rule, start: datetime) -> datetime:
    if rule.hours:
        return start.astimezone(UTC) + timedelta(hours=rule.hours)
    return next_working_day_end(start, rule.working_days)
