"""Services: who takes a pathway, so that the patient can choose before anything is sent."""

import re
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from broker import choosing, routing
from broker.access import Action
from broker.api.calling import allow, answer, broker_of, caller_of
from broker.directory import Directory
from broker.directory_entries import Service
from broker.errors import Problem, Refused
from broker.ports import Endpoint
from broker.reading import unknown_code
from fhir_profiles.pathways.catalogue import catalogue

router = APIRouter(tags=["directory"])

_AREA: Final = re.compile("[A-Za-z]{1,2}")


@router.get("/services", summary="The services that take a pathway, to choose from")
async def choices(
    request: Request,
    # Who calls must be known before what is asked for is looked at: so it is looked at below.
    pathway: Annotated[
        str | None, Query(description="the id of a pathway, as GET /pathways has it; needed")
    ] = None,
    area: Annotated[
        str | None,
        Query(
            alias="postcode-area",
            description="the letters that a postcode begins with, such as LS; no more of it",
        ),
    ] = None,
) -> Response:
    """Returns the services of open organisations that take the pathway, in the area or anywhere:
    first those that take a new referral now, the lowest rank first. To each, for what it is
    offered, when it is staffed, and `why_not` where it takes none now: post to one that does, by
    its `organisation` and `service`. The patient's own practice is on no list."""
    allow(await caller_of(request), Action.LIST_SERVICES)
    entry = catalogue().entries.get(pathway or "")
    problems = []
    if entry is None:
        todo = "Send one of those that GET /pathways lists."
        problems.append(unknown_code("pathway", pathway, todo))
    if area is not None and not _AREA.fullmatch(area):
        todo = (
            "Send the one or two letters that a postcode begins with, such as LS. The rest of it "
            "says where a patient lives, and belongs in no address."
        )
        problems.append(Problem("postcode-area", "invalid", "This is no postcode area.", todo))
    if entry is None or problems:
        raise Refused("A parameter is wrong.", problems)
    directory = await broker_of(request).directory.current()
    now = datetime.now(UTC)
    found = [
        _told(one, offers, entry.id, directory, now)
        for one in directory.entries.services
        if directory.is_open(one.organisation)
        and (area is None or area.upper() in one.postcode_areas)
        and (offers := [offer for offer in one.offers if offer.receiver_type in entry.receivers])
    ]
    found.sort(key=lambda one: (not one["takes_new"], one["rank"], one["name"]))
    return answer({"pathway": entry.id, "services": found})


def _told(
    service: Service, offers: list[Any], pathway: str, directory: Directory, now: datetime
) -> dict[str, Any]:
    place = service.destination
    reached = routing.takes_new(place, pathway, directory, now)
    shut = choosing.shut(place, directory, now)
    takes_new = isinstance(reached, Endpoint)
    return {
        "organisation": place.ods,
        "service": place.service,
        "name": directory.name(place),
        "takes_new": takes_new,
        "why_not": None if takes_new else reached,
        "why_not_in_words": f"It {shut.words}." if shut is not None else None,
        "rank": min(offer.rank for offer in offers),
        "offers": [asdict(offer) for offer in offers],
        "postcode_areas": list(service.postcode_areas),
        "opening_hours": [asdict(hours) for hours in service.opening_hours],
        "closures": closures_of(service),
        "staffed_now": service.is_staffed(now),
        "telephone": service.telephone,
    }


def closures_of(service: Service) -> list[dict[str, Any]]:
    """Return from when to when a service is closed, as every answer tells it."""
    return [
        {
            "first_day": one.first_day.isoformat(),
            "last_day": one.last_day.isoformat() if one.last_day is not None else None,
            "reason": one.reason,
        }
        for one in service.closures
    ]
