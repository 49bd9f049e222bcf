"""By when what must have happened to a message; pure, no clock is read.

How long each thing may take stands in the catalogue of pathways; here stands which messages a clock
is for, from when it runs and whose turn it is. Hours are hours of the day and night: a same-day
message at six in the evening is not less urgent than one at noon. Working days end at 18:30 in
London and the day on which a clock starts never counts. A deadline that passes stops nothing: it is
shown to those who must act.
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
from fhir_profiles.pathways.catalogue import Due, catalogue
from fhir_profiles.pathways.parts import Span
from fhir_profiles.working_days import london, start_of


class DeadlineKind(StrEnum):
    """What must have happened: each a clock of the catalogue, but for the first three and the
    last, for which whoever asks for it says when."""

    COPY_RECEIVED = "copy-received"
    NOTICE_RECEIVED = "notice-received"
    TELEPHONE = "telephone"
    RECEIVED = "received"
    DECIDED = "decided"
    ANSWERED = "answered"
    FILED = "filed"
    CONTACTED = "contacted"
    SEEN = "seen"
    TREATED = "treated"
    DIAGNOSED = "diagnosed"
    ARRANGED = "arranged"
    ATTENDED = "attended"
    FOLLOWED_UP = "followed-up"
    CONCLUDED = "concluded"
    RESOLVED = "resolved"
    REMINDED = "reminded"
    CLOSED = "closed"
    DONE = "done"


CLINICAL: Final = frozenset(
    {
        DeadlineKind.DECIDED,
        DeadlineKind.CONTACTED,
        DeadlineKind.SEEN,
        DeadlineKind.TREATED,
        DeadlineKind.DIAGNOSED,
        DeadlineKind.DONE,
    }
)
"""What the patient waits for: these clocks run on wherever a referral goes."""


class Start(StrEnum):
    """From when a clock runs."""

    EVENT = "the clinical event"
    ACCEPTANCE = "acceptance"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: which messages a clock is for. Without a `span` of its own the catalogue has it."""

    clock: DeadlineKind
    kinds: frozenset[Kind]
    role: Role = Role.ACTING
    priorities: frozenset[Priority] = frozenset(Priority)
    start: Start = Start.EVENT
    owner: Relation = Relation.ACTING
    span: Span | None = None


_K = DeadlineKind
_UPDATE: Final = frozenset({Kind.UPDATE})
_REFERRAL: Final = frozenset({Kind.REFERRAL})
_SENT: Final = _UPDATE | _REFERRAL
_ALL: Final = frozenset(Kind)
_NEXT_DAY: Final = Span.model_validate({"working-days": 1})
_HOUR: Final = Span.model_validate({"hours": 1})
_REMINDED_BEFORE: Final = timedelta(hours=2)

# A copy has no filed-by clock: nobody has to act on it.
RULES: Final = (
    Rule(_K.RECEIVED, _SENT),
    Rule(_K.COPY_RECEIVED, _ALL, Role.COPY, owner=Relation.COPY, span=_NEXT_DAY),
    Rule(_K.NOTICE_RECEIVED, _ALL, Role.NOTICE, owner=Relation.NOTICE, span=_NEXT_DAY),
    Rule(_K.DECIDED, _REFERRAL),
    Rule(_K.CONTACTED, _REFERRAL),
    Rule(_K.SEEN, _REFERRAL),
    Rule(_K.TREATED, _REFERRAL),
    Rule(_K.DIAGNOSED, _REFERRAL),
    Rule(_K.FILED, _UPDATE),
    Rule(
        _K.TELEPHONE,
        _SENT,
        priorities=frozenset({Priority.STAT}),
        start=Start.ACCEPTANCE,
        owner=Relation.SENDER,
        span=_HOUR,
    ),
)

# What whoever must act has to do, after "must".
DUTIES: Final[dict[str, str]] = {
    _K.RECEIVED: "confirm that it is stored",
    _K.COPY_RECEIVED: "confirm that the copy is stored",
    _K.NOTICE_RECEIVED: "confirm that the notice is stored",
    _K.DECIDED: "decide on it",
    _K.ANSWERED: "answer the question",
    _K.FILED: "file or reject it",
    _K.TELEPHONE: "telephone and record the call",
    _K.ARRANGED: "book or see the patient",
    _K.ATTENDED: "say whether the patient came",
    _K.FOLLOWED_UP: "reach the patient, or end the referral",
    _K.CONCLUDED: "say what came of it",
    _K.RESOLVED: "say what is done for the patient instead",
    _K.REMINDED: "see the patient, or be reminded of it",
    _K.CLOSED: "see the patient, or the referral closes",
    _K.DONE: "do what is asked",
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
    pathway: str = "",
    reason: str = "",
    is_correction: bool = False,
) -> tuple[Deadline, ...]:
    """Return every deadline of one message towards one role; at most one of each kind.

    `clocks` are what the sender itself asked for, and the acting receiver's. What is past already
    is returned too: it is overdue at once, and the answer must say so.
    """
    event = started(happened, accepted_at)
    rules = {
        rule.clock: rule
        for rule in RULES
        if kind in rule.kinds and role is rule.role and priority in rule.priorities
    }
    starts: dict[str, datetime] = {
        clock: accepted_at
        if rule.start is Start.ACCEPTANCE or (is_correction and clock in _ANEW)
        else event
        for clock, rule in rules.items()
    }
    due = catalogue().due(pathway, priority.value, reason, starts)
    found: dict[str, Deadline] = {}
    for clock, rule in rules.items():
        own = Due(rule.span.due(starts[clock]), rule.span) if rule.span else due.get(clock)
        if own is not None:
            found[clock.value] = Deadline(clock, own.at, _said(rule, own.span), rule.owner)
    for asked in clocks if role is Role.ACTING else ():
        by = asked.due.astimezone(UTC)
        found[asked.kind] = Deadline(asked.kind, by, asked.source, Relation.ACTING)
    return tuple(found.values())


def _said(rule: Rule, span: Span) -> str:
    """Say by which rule, and where that comes from."""
    within = f"within {span} of {rule.start}"
    if span.working_days == 1:
        within = f"by the end of the next working day after {rule.start}"
    source = f" ({span.source})" if span.source else ""
    return f"{rule.clock} {within}{source}"


def started(happened: datetime | date, accepted_at: datetime) -> datetime:
    """Return when the clocks of a clinical event start; never later than its acceptance.

    A date without a time starts at acceptance if it is today in London, else at 08:00 London on
    that date: the earliest moment of its working day, so that no deadline is ever too late.
    """
    if not isinstance(happened, datetime) and happened == london(accepted_at).date():
        return accepted_at.astimezone(UTC)
    # A sender's clock that runs ahead must not buy time.
    try:
        return min(start_of(happened), accepted_at).astimezone(UTC)
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


def standing(
    kind: DeadlineKind, pathway: str, level: Priority, since: datetime, owner: Relation
) -> Deadline:
    """Return by when a referral must have left the state that it is in `since` then."""
    (due,) = catalogue().due(pathway, level.value, "", {kind.value: since}).values()
    source = f" ({due.span.source})" if due.span.source else ""
    return Deadline(kind, due.at, f"{kind} within {due.span}{source}", owner)


def unseen(
    pathway: str, accepted_at: datetime, closes_at: datetime, *, closes_alone: bool
) -> tuple[Clinical, ...]:
    """Return the clocks of a referral whose patient makes contact: when its receiver is reminded,
    who `closes_at` then, and when it closes by itself or, where it may not, is raised."""
    entry = catalogue().entries.get(pathway)
    if entry is None or entry.closes_unseen is None:
        return ()
    span = entry.closes_unseen
    due = span.due(accepted_at)
    kind = DeadlineKind.CLOSED if closes_alone else DeadlineKind.CONTACTED
    source = f" ({span.source})" if span.source else ""
    left = closes_at - accepted_at
    before = min(_REMINDED_BEFORE, left / 2)
    return (
        Clinical(kind, due, f"{kind} within {span} of acceptance{source}"),
        Clinical(DeadlineKind.REMINDED, closes_at - before, "before the place next closes"),
    )


def may_wait(pathway: str, level: Priority) -> bool:
    """Whether the clock of a decision may wait for an answer: not if urgent or suspected cancer."""
    entry = catalogue().entries.get(pathway)
    return not level.is_urgent and not (entry is not None and entry.suspected_cancer)


def at_in_words(moment: datetime) -> str:
    """Say a time as a person reads it: `10:30 on Monday 30 November`, London time."""
    local = london(moment)
    return f"{local:%H:%M} on {local:%A} {local.day} {local:%B}"


def in_words(due: datetime) -> str:
    """Say a deadline as a person reads it: `by 18:30 on Monday 23 November`, London time."""
    return f"by {at_in_words(due)}"
