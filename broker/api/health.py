"""Health: whether the process lives, and whether it can take messages. Open to all, one word."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from broker.api.calling import broker_of
from broker.api.described import OPEN
from broker.readiness import readiness

router = APIRouter(tags=["health"])


@router.get("/health/live", summary="Whether the process lives", openapi_extra=OPEN)
async def live() -> Response:
    return PlainTextResponse("live")


@router.get("/health/ready", summary="Whether messages can be taken", openapi_extra=OPEN)
async def ready(request: Request) -> Response:
    """`ready`, or `degraded` where messages are taken and wait inside; 503 `unavailable`."""
    broker = broker_of(request)
    found = await readiness(broker.settings, broker.store)
    return PlainTextResponse(found, found.status)
