"""The outermost layer: a correlation id for every request, security headers, counts, no query
strings and nothing of a body in any log line. Pure ASGI."""

import re
import time
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker.events import uuid7
from broker.telemetry import REQUESTS

HEADER: Final = b"x-correlation-id"
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
        given = next((value for name, value in scope["headers"] if name == HEADER), b"")
        correlation = given.decode() if _PLAIN.fullmatch(given) else uuid7()
        structlog.contextvars.bind_contextvars(request_id=correlation)
        started = time.perf_counter()
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (HEADER, correlation.encode()),
                    *_SECURITY,
                ]
            await send(message)

        try:
            await self._app(scope, receive, answer)
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
