"""The outermost layer: a correlation id for every request, a request's own id said back, security
headers, counts, no query strings and nothing of a body in any log line. No body is waited for
longer than BODY_SECONDS (of a file LONG_BODY_SECONDS), and who is cut off because the process stops
is told so. Pure ASGI."""

import asyncio
import re
import time
from typing import Final

import structlog
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.api import problems
from broker.events import uuid7
from broker.telemetry import REQUESTS

HEADER: Final = b"x-correlation-id"
OWN: Final = b"x-request-id"
BODY_SECONDS: Final = 60.0
# Of what is streamed to disk, 25 MiB at most: a practice's line may take minutes for it.
LONG_BODY_SECONDS: Final = 300.0
_LONG_BODIES: Final = frozenset({"/attachments"})
_PLAIN: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# What a caller makes up is counted as one: each label's value is kept for good, and logged.
_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_SECURITY: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (
        b"content-security-policy",
        b"default-src 'self'; img-src 'self' data:; "
        b"style-src 'self' 'unsafe-inline'; frame-ancestors 'none'",
    ),
]

log = structlog.get_logger()


class Edge:
    """Wraps the application. Every answer carries the correlation id of its request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        correlation = _plain(scope, HEADER) or uuid7().encode()
        own = _plain(scope, OWN)
        structlog.contextvars.bind_contextvars(request_id=correlation.decode())
        started = time.perf_counter()
        status = 500
        is_answered = False

        async def answer(message: Message) -> None:
            nonlocal status, is_answered
            if message["type"] == "http.response.start":
                status, is_answered = message["status"], True
                message["headers"] = [
                    *message["headers"],
                    (HEADER, correlation),
                    *([(OWN, own)] if own else []),
                    *_SECURITY,
                ]
            await send(message)

        try:
            await self._app(scope, _in_time(receive, scope["path"]), answer)
        except asyncio.CancelledError:  # the server has no more patience: it stops
            if is_answered:
                raise
            await problems.stopping(scope)(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            REQUESTS.labels(method, route, str(status)).inc()
            log.info(
                "request",
                method=method,
                route=route,
                status=status,
                milliseconds=round((time.perf_counter() - started) * 1000, 1),
            )
            structlog.contextvars.unbind_contextvars("request_id")


def _plain(scope: Scope, header: bytes) -> bytes:
    """Return a header that may be repeated in an answer and in a log, or nothing."""
    given: bytes = next((value for name, value in scope["headers"] if name == header), b"")
    return given if _PLAIN.fullmatch(given) else b""


def _in_time(receive: Receive, path: str) -> Receive:
    """Return a `receive` that raises a 408 where the whole body has not come within its time."""
    seconds = LONG_BODY_SECONDS if path in _LONG_BODIES else BODY_SECONDS
    ends = asyncio.get_running_loop().time() + seconds
    is_whole = False

    async def received() -> Message:
        nonlocal is_whole
        if is_whole:
            return await receive()
        try:
            async with asyncio.timeout_at(ends):
                message = await receive()
        except TimeoutError:
            said = f"The body did not come within {seconds:g} seconds"
            raise HTTPException(408, said, {"Connection": "close"}) from None
        is_whole = not message.get("more_body", False)
        return message

    return received
