"""Threads of clinical messages. They are posted at their own door, `POST /communications`."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from broker.access import Action
from broker.api.calling import Identity, allow, answer, broker_of, caller_of

router = APIRouter(tags=["communications"])


@router.get("/communications/{message:uuid}/thread", summary="What was said in a message's thread")
async def thread(request: Request, message: Identity) -> Response:
    """Returns what you said and what was said to you, oldest first, and which questions wait."""
    caller = await caller_of(request)
    conversing = broker_of(request).conversing
    relation, label = await conversing.relation(message, caller.organisation)
    allow(caller, Action.READ_THREAD, relation, label=label)
    return answer(await conversing.thread(message, caller.organisation))
