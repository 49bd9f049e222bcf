"""The ceilings: what the same HTTP stack does with the same bodies when it keeps no promise.

Nothing is checked, sealed or stored here, and nobody is asked who he is.
"""

from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

PLACE_WIDTH: Final = 12

app = FastAPI(openapi_url=None)
_posted: list[str] = []


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
