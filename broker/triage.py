"""How urgent a referral is taken: what its sender asked for, and what its receiver makes of it.

A receiver may take a referral for more urgent than it was sent. It may take it for less with a
clinician's reason, and its sender may object; where too much hangs on it (what is for the same day,
a suspected cancer, whatever the catalogue names) a lower priority is but proposed, and nothing
changes until the sender agrees. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from broker.errors import Problem, Refused
from broker.events import Priority, highest
from fhir_profiles.pathways.catalogue import catalogue

MOVES: Final = frozenset({"upgrade", "downgrade", "agree", "object"})
"""The moves that are about the priority."""


@dataclass(frozen=True, slots=True)
class Triage:
    """How urgent a referral is taken, what its sender `asked` for, and which lower priority its
    receiver has `proposed`, if any."""

    priority: Priority
    asked: Priority
    proposed: Priority | None = None

    @property
    def is_lowered(self) -> bool:
        """Whether it is taken for less urgent than its sender asked."""
        return self.priority.rank > self.asked.rank

    @property
    def kept(self) -> dict[str, str | None]:
        """What is kept of it beside the priority itself."""
        return {
            "priority_asked": None if self.asked is self.priority else self.asked.value,
            "priority_proposed": self.proposed.value if self.proposed else None,
        }


def of(row: Any) -> Triage:
    """Return how urgent a referral is taken, as its row says."""
    return Triage(
        Priority(row.priority),
        Priority(row.priority_asked or row.priority),
        Priority(row.priority_proposed) if row.priority_proposed else None,
    )


def after(row: Any, move: str, content: Mapping[str, Any]) -> Triage:
    """Return how urgent a referral is taken after a move, of whatever kind, that the state machine
    allows. Raises Refused where the priority that the move carries is none that it can lead to."""
    now = of(row)
    match move:
        case "upgrade":
            return Triage(_named(content, now.priority, more=True), now.asked)
        case "downgrade":
            lower = _named(content, now.priority, more=False)
            if lower.rank > now.asked.rank and needs_agreement(row.pathway, now.asked):
                return Triage(now.priority, now.asked, lower)
            return Triage(lower, now.asked)
        case "agree":
            return Triage(now.proposed or now.priority, now.asked)
        case "object":
            return Triage(now.priority if now.proposed else now.asked, now.asked)
        case "redirect":  # who proposed it has it no longer
            return Triage(now.priority, now.asked)
    return now


def needs_agreement(pathway: str, asked: Priority) -> bool:
    """Whether a referral is taken for less urgent than its sender asked only if the sender agrees.

    So it is on a pathway that the catalogue does not have.
    """
    entry = catalogue().entries.get(pathway)
    return asked is Priority.STAT or entry is None or entry.lowered_by_agreement


def amended(row: Any, asked: Priority) -> Triage:
    """Return how urgent a referral is taken once its sender has amended it.

    Whoever repeats what it asked for does not undo its receiver's word; who asks for something
    else is heard, but never lowers what its receiver took for more urgent.
    """
    now = of(row)
    if asked is now.asked:
        return now
    priority = asked if now.is_lowered else highest(asked, now.priority)
    return Triage(asked if now.priority is now.asked else priority, asked)


def words(before: Triage, after: Triage) -> str:
    """Say what a move has made of the priority, for those who are told of it."""
    if after.proposed:
        return (
            f"Proposed: {after.proposed.words} instead of {after.priority.words}. Until the "
            "sender agrees it stays as it is, and so do its deadlines."
        )
    if after.priority is not before.priority:
        said = f"It is now {after.priority.words}; it was {before.priority.words}."
        return f"{said} The sender may object." if after.is_lowered else said
    return f"It stays {after.priority.words}, with its deadlines."


def _named(content: Mapping[str, Any], now: Priority, *, more: bool) -> Priority:
    named = Priority(content["priority"])
    if named is now or (named.rank < now.rank) is not more:
        wanted = [one for one in Priority if one is not now and (one.rank < now.rank) is more]
        which = ", ".join(wanted) or "none: it cannot be changed so"
        problem = Problem(
            "priority",
            "not-more-urgent" if more else "not-less-urgent",
            f"It is {now.words} already.",
            f"What is {'more' if more else 'less'} urgent: {which}.",
        )
        raise Refused.all_of([problem])
    return named
