"""FHIR resources created: a ServiceRequest or Communication, with what it refers to."""

from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from broker.access import Action
from broker.answers import Answer
from broker.api.calling import allow, body_of, broker_of, caller_of
from broker.api.described import KEY, Schema, header
from broker.api.fhir import bundles, negotiation
from broker.api.fhir.types import Created
from broker.api.outcomes import BASE, MEDIA_TYPE
from broker.creating import MADE, Wished
from broker.errors import BadRequest, Problem
from broker.events import read_traceparent
from fhir_profiles import strict_json

CONDITION: Final = "If-None-Exist"
_TAKES: Final[Schema] = {
    "parameters": [
        KEY | {"required": False},
        header(CONDITION, "identifier=system|value of what you send.", required=False),
        header("Prefer", "return=minimal: no body in the answer.", required=False),
    ],
    "requestBody": {"required": True, "content": {MEDIA_TYPE: {"schema": {"type": "object"}}}},
}

router = APIRouter(prefix=BASE, tags=["FHIR resources"])


@router.post(
    "/{created:created}",
    status_code=MADE,
    summary="Send a referral or a message",
    openapi_extra=_TAKES,
)
async def create(request: Request, created: Created) -> Response:
    """What it refers to is contained in it. It goes to its one performer or recipient."""
    made = await _made(request)
    said = strict_json.loads(made.body)
    base = broker_of(request).settings.base_url + BASE
    headers = {"Location": f"{base}/{created}/{said['id']}/_history/1"}
    if negotiation.prefers(request, "return=minimal"):
        return negotiation.answer(b"", made.status, version=1, headers=headers)
    return negotiation.answer(made.body, made.status, version=1, headers=headers)


@router.post("", summary="Send a referral or a message as a transaction", openapi_extra=_TAKES)
async def transact(request: Request) -> Response:
    """A transaction of which each entry creates one resource: one ServiceRequest or Communication,
    and what it refers to."""
    return negotiation.answer((await _made(request)).body)


async def _made(request: Request) -> Answer:
    caller = await caller_of(request)
    allow(caller, Action.CREATE_RESOURCE)
    # A condition in the query that nobody read would create the same thing twice.
    if set(request.query_params) - bundles.GENERAL:
        said = f"A condition is given in the header {CONDITION}."
        raise BadRequest("", [Problem("http.query", "not-supported", said)])
    negotiation.readable(request)
    return await broker_of(request).creating.create(
        Wished(
            caller=caller,
            path=request.url.path,
            body=await body_of(request, types=negotiation.JSON),
            key=request.headers.get("idempotency-key"),
            condition=request.headers.get(CONDITION, ""),
            traceparent=read_traceparent(request.headers.get("traceparent")),
        )
    )
