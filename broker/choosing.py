"""What there is to choose from where a referral is to go, and what rules each service out.

A closed service, or one that has paused, takes no new referral. What it was sent before goes on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from broker.directory import Directory
from broker.directory_entries import Service
from broker.events import Destination
from fhir_profiles.working_days import london


class Verdict(StrEnum):
    """What became of a candidate: it was chosen, or ruled out by this."""

    CHOSEN = "chosen"
    CLOSED = "service-closed"
    PAUSED = "service-paused"
    RANKED_LOWER = "ranked-lower"


WORDS: Final[Mapping[Verdict, str]] = MappingProxyType(
    {
        Verdict.CHOSEN: "It was chosen.",
        Verdict.CLOSED: "It was closed.",
        Verdict.PAUSED: "It took no new referral.",
        Verdict.RANKED_LOWER: "Another of a lower rank comes first.",
    }
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A service that offers what is sought where it is sought, at its rank."""

    destination: Destination
    rank: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Shut:
    """Why a service takes no new referral, to go on after its name."""

    verdict: Verdict
    words: str


def shut(place: Destination, directory: Directory, now: datetime) -> Shut | None:
    """Return why a place takes no new referral now; None if it does.

    One that is closed for the night takes them: they wait until it opens.
    """
    service = directory.service(place)
    if service is None:
        return None
    closure = service.closure(london(now).date())
    if closure is not None:
        return Shut(Verdict.CLOSED, f"is {closure.words} and takes no new referral")
    if service.paused:
        return Shut(Verdict.PAUSED, f"takes no new referral for now ({service.paused})")
    return None


def verdict(service: Service, chosen: Destination, directory: Directory, now: datetime) -> Verdict:
    """Return what became of a candidate beside the one that was chosen."""
    if service.destination == chosen:
        return Verdict.CHOSEN
    why = shut(service.destination, directory, now)
    return why.verdict if why is not None else Verdict.RANKED_LOWER


def written(candidates: Iterable[Candidate]) -> str:
    """Return candidates as an event keeps them: codes only. `read` gives them back."""
    return " ".join(f"{one.destination}:{one.rank}:{one.verdict}" for one in candidates)


def read(said: str) -> list[Candidate]:
    """Return what `written` wrote."""
    candidates = []
    for one in said.split():
        place, rank, code = one.split(":")
        ods, _, service = place.partition("/")
        candidates.append(Candidate(Destination(ods, service), int(rank), Verdict(code)))
    return candidates


def told(candidates: Iterable[Candidate], directory: Directory) -> list[dict[str, Any]]:
    """Return candidates as a sender reads them."""
    return [
        {
            "organisation": one.destination.ods,
            "service": one.destination.service,
            "name": directory.name(one.destination),
            "rank": one.rank,
            "verdict": one.verdict,
            "in_words": WORDS[one.verdict],
        }
        for one in candidates
    ]
