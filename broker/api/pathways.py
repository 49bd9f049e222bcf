"""The catalogue of pathways: what may be sent to whom, said beforehand."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from broker.access import Action
from broker.api.calling import allow, answer, caller_of
from broker.errors import NotFound
from fhir_profiles import codes
from fhir_profiles.pathways.catalogue import ITEMS, OUTCOMES, RECEIVERS, catalogue
from fhir_profiles.pathways.entry import Entry, Reason
from fhir_profiles.pathways.parts import LEVELS, Clocks, Level, Pillar, at_least_as_urgent, words

router = APIRouter(tags=["directory"])


@router.get("/pathways", summary="Every pathway, and who may send it to whom")
async def read_all(
    request: Request,
    sender: Annotated[Pillar | None, Query(description="a pillar: only what it may send")] = None,
) -> Response:
    """Returns every pathway of the catalogue, in the order of their ids."""
    await _allow(request)
    entries = catalogue().entries.values()
    found = [one for one in entries if sender is None or sender in one.senders]
    return answer({"pathways": [_told(one) for one in found]})


@router.get("/pathways/{pathway}", summary="One pathway of the catalogue")
async def read(request: Request, pathway: str) -> Response:
    """Returns who may send it, what it must hold at least, why a patient is referred on it, by when
    what must have happened, what must not wait for a message, how it may end, and who hears."""
    await _allow(request)
    entry = catalogue().entries.get(pathway)
    if entry is None:
        raise NotFound("The catalogue has no such pathway. GET /pathways lists them.")
    return answer(_told(entry))


async def _allow(request: Request) -> None:
    allow(await caller_of(request), Action.READ_PATHWAYS)


def _told(entry: Entry) -> dict[str, Any]:
    levels = [level for level in LEVELS if at_least_as_urgent(level, entry.urgency)]
    return {
        "id": entry.id,
        "name": entry.name,
        "version": entry.version,
        "source": entry.source,
        "local": entry.local,
        "senders": entry.senders,
        "local_senders": entry.local_senders,
        "self_referral": entry.self_referral,
        "suspected_cancer": entry.suspected_cancer,
        "lowered_by_agreement": entry.lowered_by_agreement,
        "receivers": _words(RECEIVERS, entry.receivers),
        "urgency": entry.urgency,
        "urgency_in_words": words(entry.urgency),
        "minimum": _words(ITEMS, entry.minimum),
        "reasons": [_reason(entry, one) for one in entry.reasons],
        "red_flags": [one.model_dump() for one in entry.red_flags],
        "deadlines": {level: _clocks(catalogue().clocks(entry.id, level)) for level in levels},
        "closes_unseen": str(entry.closes_unseen) if entry.closes_unseen else None,
        "outcomes": _words(OUTCOMES, entry.outcomes),
        "told": {**catalogue().defaults.told, **entry.told},
        "outcome_to": catalogue().outcome_to(entry.id),
    }


def _reason(entry: Entry, reason: Reason) -> dict[str, Any]:
    urgency: Level = reason.urgency or entry.urgency
    return {
        "code": reason.code,
        "words": reason.words,
        "snomed": reason.snomed,
        "urgency": urgency,
        "receiver": reason.receiver or entry.receivers[0],
        "emergency": reason.emergency,
        "deadlines": _clocks(reason.clocks),
        "source": reason.source,
        "local": reason.local,
    }


def _clocks(clocks: Clocks) -> dict[str, Any]:
    return {
        kind: {"within": str(span), "source": span.source or None, "local": span.local}
        for kind, span in clocks.items()
    }


def _words(system: str, named: tuple[str, ...]) -> dict[str, str]:
    return {code: codes.system(system).display(code) for code in named}
