"""Health: whether the process lives, and whether it can take messages. Open to all, one word."""

import asyncio
from typing import Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from broker.api.calling import broker_of
from broker.api.described import OPEN
from broker.errors import Unavailable
from broker.store import ledger

READY_SECONDS: Final = 1.0

router = APIRouter(tags=["health"])


@router.get("/health/live", summary="Whether the process lives", openapi_extra=OPEN)
async def live() -> Response:
    return PlainTextResponse("live")


@router.get("/health/ready", summary="Whether messages can be taken", openapi_extra=OPEN)
async def ready(request: Request) -> Response:
    """Asks by writing only after a write was refused, so it is cheap, and true again by itself.

    A database that gives no answer within READY_SECONDS cannot take messages.
    """
    store = broker_of(request).store
    try:
        async with asyncio.timeout(READY_SECONDS):
            await store.read(ledger.head)
            await store.prove()
    except (Unavailable, TimeoutError):
        return PlainTextResponse("unavailable", 503)
    return PlainTextResponse("ready")
