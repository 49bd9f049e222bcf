"""`POST /FHIR/R4/$process-message`: the front door of BaRS."""

import time
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from broker.access import Action
from broker.api.calling import JSON, allow, body_of, broker_of, caller_of
from broker.api.described import Schema, header
from broker.api.outcomes import BASE, CONTENT_TYPE, MEDIA_TYPE
from broker.bars import headers
from broker.bars.receiving import Arrived
from broker.errors import NotImplementedHere, Refused
from broker.events import read_traceparent
from broker.telemetry import INTAKE_SECONDS

PATH: Final = f"{BASE}/$process-message"
_BUNDLE: Final[Schema] = {"content": {MEDIA_TYPE: {"schema": {"type": "object"}}}}
_TAKES: Final[Schema] = {
    "parameters": [
        header(headers.REQUEST_ID, "New for each message, the same on retry.", format="uuid"),
        header(headers.CORRELATION_ID, "The same for the whole case.", format="uuid"),
        header(headers.TARGET, 'The service: Base64 of {"system": …, "value": …}.'),
        header(headers.ORGANISATION, "Base64 of your own FHIR Organization.", required=False),
        header(headers.PRACTITIONER, "Base64 of a FHIR PractitionerRole.", required=False),
        header(headers.SOFTWARE, "Base64 of a FHIR Device.", required=False),
    ],
    "requestBody": {"required": True, **_BUNDLE},
    "responses": {"200": {"description": "The message that answers it.", **_BUNDLE}},
}
router = APIRouter(tags=["FHIR"])


@router.post(PATH, summary="Send a BaRS message", openapi_extra=_TAKES)
async def process_message(request: Request) -> Response:
    """Takes a message Bundle (BaRS Core 1.x) and answers with one, whose second Encounter, planned,
    says how far it has got and under which reference it is found."""
    caller = await caller_of(request)
    allow(caller, Action.PROCESS_MESSAGE)
    if "async" in request.query_params:
        raise NotImplementedHere("BaRS answers at once: send it without ?async.")
    said = headers.read(request.headers, caller.organisation)
    started = time.perf_counter()
    outcome = "failed"
    try:
        body = await body_of(request, types=(MEDIA_TYPE, JSON))
        traceparent = read_traceparent(request.headers.get("traceparent"))
        made = await broker_of(request).bars.process(Arrived(caller, said, body, traceparent))
        outcome = "accepted"
    except Refused as refused:
        outcome = refused.code
        raise
    finally:
        INTAKE_SECONDS.labels("bars", outcome).observe(time.perf_counter() - started)
    return Response(made.body, made.status, {"Cache-Control": "no-store"}, media_type=CONTENT_TYPE)
