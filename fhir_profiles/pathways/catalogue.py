"""The catalogue of pathways: every entry, read and checked once, and what holds for all of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Final

from fhir_profiles import codes
from fhir_profiles.pathways import documents
from fhir_profiles.pathways.entry import Defaults, Entry, Reason
from fhir_profiles.pathways.parts import Clocks, Escalation, Level, Party, Reader, Span

RECEIVERS: Final = "service-type"
PRACTICE: Final = "general-practice"
"""Of the types of service, the patient's own practice."""
OUTCOMES: Final = "referral-outcome"
ITEMS: Final = "referral-item"
TOPICS: Final = "update-topic"
_NONE: Final = (TOPICS, "communication-kind")
"""What stands where a message has no pathway."""


@dataclass(frozen=True, slots=True)
class Due:
    """When something must have happened (aware, UTC), and by which span."""

    at: datetime
    span: Span


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Every pathway by its id, and what holds where an entry says nothing."""

    entries: Mapping[str, Entry]
    reasons: Mapping[str, Reason]
    defaults: Defaults

    def clocks(self, pathway: str, level: Level) -> Clocks:
        """Return every clock of a message on a pathway, at this level."""
        entry = self.entries.get(pathway)
        return {**self.defaults.clocks[level], **(entry.clocks.get(level, {}) if entry else {})}

    def due(
        self, pathway: str, level: Level, reason: str, starts: Mapping[str, datetime]
    ) -> dict[str, Due]:
        """Return when each clock ends: of the level's and the reason's the sooner one.

        `starts` says from when each runs; one that is not in it does not.
        """
        own = self.reasons.get(reason)
        found: dict[str, Due] = {}
        for clocks in (own.clocks if own is not None else {}, self.clocks(pathway, level)):
            for clock, span in clocks.items():
                if clock in starts:
                    due = Due(span.due(starts[clock]), span)
                    found[clock] = min(found.get(clock, due), due, key=lambda one: one.at)
        return found

    def escalation(self, pathway: str, level: Level) -> tuple[Escalation, ...]:
        """Return who else hears of a deadline that passed, the sooner first."""
        entry = self.entries.get(pathway)
        usual = self.defaults.escalation.get(level, ())
        return entry.escalation.get(level, usual) if entry else usual

    def told(self, pathway: str, move: str) -> tuple[Party, ...]:
        """Return who hears of a move on a pathway, beside who makes it."""
        entry = self.entries.get(pathway)
        usual = self.defaults.told.get(move, ())
        return entry.told.get(move, usual) if entry else usual

    def outcome_to(self, pathway: str) -> tuple[Reader, ...]:
        """Return who gets an outcome on a pathway."""
        entry = self.entries.get(pathway)
        return (entry.outcome_to if entry else ()) or self.defaults.outcome_to

    def window(self, pathway: str) -> Span | None:
        """Return how long after a message another of the same patient on its pathway is flagged.

        None for what is no pathway: readings for the record come as often as they are taken, and
        what is said to and fro as often as it is said.
        """
        entry = self.entries.get(pathway)
        if entry is None and (not pathway or any(pathway in codes.system(it) for it in _NONE)):
            return None
        return (entry.window if entry is not None else None) or self.defaults.window

    def takers(self, entry: Entry) -> tuple[str, ...]:
        """Return the types of service that a referral on a pathway may be sent on to: its own
        receivers, then those of its group. A practice only where it is one of its own."""
        others = [
            receiver
            for one in self.entries.values()
            if one.group == entry.group
            for receiver in one.receivers
            if receiver != PRACTICE
        ]
        return tuple(dict.fromkeys((*entry.receivers, *others)))


@cache
def catalogue() -> Catalogue:
    """Return the catalogue. Raises ValueError, naming the file and what is wrong with it."""
    entries = {name: _entry(name) for name in documents.entries()}
    reasons: dict[str, Reason] = {}
    for entry in entries.values():
        for reason in entry.reasons:
            if reasons.setdefault(reason.code, reason) != reason:
                raise ValueError(
                    f"two entries of the catalogue differ about the reason {reason.code}"
                )
    return Catalogue(entries, reasons, Defaults.model_validate(documents.read("defaults.yaml")))


def system_of(reason: str) -> str:
    """Return the name of the code system that a reason stands in."""
    return "eye-condition" if reason in codes.system("eye-condition") else "referral-reason"


def service_words(receiver: str) -> str:
    """Return what a type of service is called, as it stands in a sentence."""
    display = codes.system(RECEIVERS).display(receiver)
    return f"{display[:1].lower()}{display[1:]}"


def _entry(name: str) -> Entry:
    try:
        entry = Entry.model_validate(documents.entries()[name])
        unknown = sorted(_unknown(name, entry))
        if unknown:
            raise ValueError("; ".join(unknown))
    except ValueError as error:
        raise ValueError(f"fhir_profiles/pathways/entries/{name}.yaml: {error}") from error
    return entry


def _unknown(name: str, entry: Entry) -> Iterator[str]:
    """Say which names of an entry nothing defines."""
    if entry.id != name:
        yield f"its id is {entry.id}"
    for part, system in (
        (entry.receivers, RECEIVERS),
        (entry.outcomes, OUTCOMES),
        (entry.minimum, ITEMS),
    ):
        known = codes.system(system)
        yield from (f"{one} is not in {system}.json" for one in part if one not in known)
