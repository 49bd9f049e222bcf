"""What every route needs: who calls, whether it may, and its body within limits."""

import difflib
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import BeforeValidator
from starlette.requests import Request
from starlette.responses import Response

from broker import access
from broker.access import Action, Caller
from broker.errors import (
    Forbidden,
    NotFound,
    Problem,
    Refused,
    TooLarge,
    UnsupportedMediaType,
)
from broker.main import Broker
from broker.referral import Relation
from fhir_profiles import strict_json

JSON: Final = "application/json"

# A path that does not hold a UUID is not there, like one that holds another's.
Identity = Annotated[str, BeforeValidator(str)]


def broker_of(request: Request) -> Broker:
    """Return the broker that serves this request."""
    found: Broker = request.app.state.broker
    return found


async def caller_of(request: Request) -> Caller:
    """Return who calls, proved by its token. Raises Unauthenticated."""
    return await broker_of(request).authority.authenticate(request.headers.get("authorization"))


def allow(
    caller: Caller,
    action: Action,
    relation: Relation = Relation.NONE,
    *,
    label: str = "N",
    purpose: str = "direct-care",
    door: str = "",
) -> None:
    """Raise Forbidden or, where even that would tell too much, NotFound."""
    decision = access.decide(
        caller,
        action,
        relation=relation,
        agreement=None,
        purpose=purpose,
        label=label,
        door=door,
        now=datetime.now(UTC),
    )
    if decision.allowed:
        return
    if decision.as_not_found:
        raise NotFound(decision.reason)
    raise Forbidden(decision.reason)


async def only_known_parameters(request: Request) -> None:
    """Raise Refused where a query names what its route does not read.

    A filter that is misspelt would filter nothing, and everything would look like its answer.
    """
    if not request.query_params:
        return
    known = [one.alias for one in request.scope["route"].dependant.query_params]
    problems = []
    for name in sorted(set(request.query_params) - set(known)):
        near = difflib.get_close_matches(name, known, n=1)
        todo = f"Did you mean {near[0]}?" if near else "Take it out; nothing is read from it."
        problems.append(
            Problem(name[:40], "unknown-parameter", "There is no such parameter here.", todo)
        )
    if problems:
        raise Refused("A parameter is wrong.", problems)


async def body_of(
    request: Request, *, empty: bool = False, types: Collection[str] = (JSON,)
) -> bytes:
    """Return the body, of one of these content types, whole and within the limit.

    Raises UnsupportedMediaType, TooLarge before anything is read from it.
    """
    limit = broker_of(request).settings.max_body
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    length = request.headers.get("content-length", "")
    if _is_number(length) and int(length) > limit:
        raise _too_large(limit)
    if request.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMediaType("Send the body as it is, without Content-Encoding.")
    may_be_none = empty and length in {"", "0"}  # nothing says how long one in chunks is
    parts = bytearray()
    if content_type not in types and not may_be_none:
        raise _wrong_type(types, content_type)
    async for part in request.stream():
        parts += part
        if len(parts) > limit:
            raise _too_large(limit)
    if parts and content_type not in types:
        raise _wrong_type(types, content_type)
    return bytes(parts)


def _wrong_type(types: Collection[str], given: str) -> Refused:
    return UnsupportedMediaType(f"Send {next(iter(types))}; this was {given or 'nothing'}.")


def _too_large(limit: int) -> Refused:
    return TooLarge(f"The body is over {limit} bytes; nothing was stored.")


def version_of(request: Request) -> int | None:
    """Return the version that an If-Match names, or None where there is none."""
    given = request.headers.get("if-match")
    if given is None:
        return None
    bare = given.removeprefix("W/").strip('"')
    # A tag that was never given out matches no version.
    return int(bare) if _is_number(bare) and len(bare) < 10 else -1


def _is_number(text: str) -> bool:
    """Whether `int` can read it: `²` is a digit too."""
    return text.isascii() and text.isdigit()


def answer(
    body: Any,
    status: int = 200,
    *,
    version: int | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Return a JSON answer that no cache keeps, with its version as ETag."""
    sent = {"Cache-Control": "no-store", **(headers or {})}
    if version is not None:
        sent["ETag"] = f'W/"{version}"'
    content = body if isinstance(body, bytes) else strict_json.dumps(body)
    return Response(content, status, sent, media_type=JSON)
