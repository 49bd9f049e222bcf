"""Organisations: what a place takes, said beforehand."""

from datetime import UTC, datetime

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from broker.access import Action
from broker.api.calling import allow, answer, broker_of, caller_of
from broker.errors import NotFound
from broker.events import Destination

router = APIRouter(tags=["directory"])


@router.get("/organisations/{ods}", summary="What an organisation takes, before you send")
async def read(request: Request, ods: str) -> Response:
    """Returns whether it is open, its services, and which kinds of message each place takes."""
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
            "takes": [
                {
                    "service": place.service or None,
                    "name": directory.name(place),
                    "connected": place in directory.connections,
                    "kinds": [kind.value for kind in directory.connections[place].takes]
                    if place in directory.connections and found.is_open
                    else [],
                    "telephone": directory.telephone(place) or None,
                    "whom_to_telephone_now": directory.whom_to_telephone(place, now),
                }
                for place in places
            ],
        }
    )
