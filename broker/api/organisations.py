"""Organisations: what a place takes, said beforehand."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from broker.access import Action
from broker.api.calling import allow, answer, broker_of, caller_of
from broker.api.services import closures_of
from broker.directory import Directory
from broker.errors import NotFound
from broker.events import Destination

router = APIRouter(tags=["directory"])


@router.get("/organisations/{ods}", summary="What an organisation takes, before you send")
async def read(request: Request, ods: str) -> Response:
    """Returns whether it is open, and of each place what it takes: which kinds of message, on which
    pathways (`all`: any), which referrals it is offered for, when it is staffed, and when or why it
    takes no new referral."""
    caller = await caller_of(request)
    allow(caller, Action.READ_ORGANISATION)
    directory = await broker_of(request).directory.current()
    found = directory.organisations.get(ods.strip().upper())
    if found is None:
        raise NotFound(f"{ods[:12]} is not in the directory. Check the ODS code.")
    places = [Destination(found.ods)]
    places += [service.destination for service in directory.services_of(found.ods)]
    now = datetime.now(UTC)
    return answer(
        {
            "ods": found.ods,
            "name": found.name,
            "pillar": found.pillar,
            "icb": found.icb,
            "status": found.status.value,
            "successor": found.successor,
            "telephone": found.telephone or None,
            "takes": [_place(directory, place, now) for place in places],
        }
    )


def _place(directory: Directory, place: Destination, now: datetime) -> dict[str, Any]:
    service = directory.service(place)
    connection = directory.connections.get(place)
    taking = connection if directory.is_open(place.ods) else None
    return {
        "service": place.service or None,
        "name": directory.name(place),
        "connected": connection is not None,
        "kinds": [kind.value for kind in taking.takes] if taking else [],
        "pathways": list(taking.pathways) if taking else [],
        "offers": [asdict(offer) for offer in service.offers] if service else None,
        "opening_hours": [asdict(hours) for hours in service.opening_hours] if service else None,
        "closures": closures_of(service) if service else [],
        "paused": (service.paused or None) if service else None,
        "telephone": directory.telephone(place) or None,
        "whom_to_telephone_now": directory.whom_to_telephone(place, now),
    }
