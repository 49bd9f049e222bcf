"""The ceilings: what the same HTTP stack does with the same bodies when it keeps no promise.

Nothing is checked, sealed or stored here, and nobody is asked who he is. It is also the receiver
of `recovery`, which confirms what it does not keep.
"""

from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from sandbox.world import WEBHOOK_PRACTICE

PLACE_WIDTH: Final = 12

app = FastAPI(openapi_url=None)
_posted: list[str] = []
_confirmed: dict[str, int] = {}


@app.post("/empty")
async def empty(request: Request) -> Response:
    """Read the body and say that it was read: the ceiling of `intake`."""
    await request.body()
    return Response(status_code=202)


@app.post("/memory")
async def post(request: Request) -> Response:
    """Put the message into a list: with the inbox below, the ceiling of `end-to-end`."""
    await request.body()
    name = f"{len(_posted):0{PLACE_WIDTH}}"
    _posted.append(name)
    return JSONResponse({"messages": [{"id": name}]}, 202)


@app.get("/inbox")
async def inbox(after: str = "", limit: int = 50) -> Response:
    """List what was posted after a place, shaped like the broker's inbox."""
    place = int(after) + 1 if after else 0
    page = _posted[place : place + limit]
    following = page[-1] if len(page) == limit else None
    return JSONResponse({"deliveries": [{"message": name} for name in page], "next": following})


@app.post("/inbound")
async def inbound(request: Request) -> Response:
    """Confirm a delivery at once."""
    await request.body()
    delivery, digest = request.headers["webhook-id"], request.headers["referral-broker-digest"]
    _confirmed[delivery] = _confirmed.get(delivery, 0) + 1
    return JSONResponse({"delivery": delivery, "digest": digest, "ods": WEBHOOK_PRACTICE})


@app.get("/confirmed")
async def confirmed() -> Response:
    """Say how many deliveries came, and how often one came again."""
    calls = sum(_confirmed.values())
    return JSONResponse({"deliveries": len(_confirmed), "again": calls - len(_confirmed)})
