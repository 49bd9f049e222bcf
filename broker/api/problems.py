"""How errors are told at the native doors: RFC 9457, with every problem at once."""

from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from broker.errors import ANSWERS, BrokerError, Refused, Unavailable
from fhir_profiles import faults, strict_json

log = structlog.get_logger()
MEDIA_TYPE = "application/problem+json"
TODO = "See /docs for what may be sent."
_CODES = {
    400: "malformed",
    404: "not-found",
    408: "timed-out",
    413: "too-large",
    415: "unsupported-media-type",
}


def problem(
    status: int,
    title: str,
    detail: str,
    code: str,
    problems: list[dict[str, str]] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Return a problem document."""
    body: dict[str, Any] = {
        "type": f"https://referral-broker.example/problems/{code}",
        "title": title,
        "status": status,
        "code": code,
        "detail": detail,
        "problems": problems or [],
    }
    return Response(strict_json.dumps(body), status, headers, media_type=MEDIA_TYPE)


async def refused(_: Request, error: Exception) -> Response:
    """Answer a Refused by the one table in `broker.errors`."""
    assert isinstance(error, Refused)  # noqa: S101  the handler is registered for this class
    answer = ANSWERS[error.code]
    headers = {"Cache-Control": "no-store"}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if answer.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    found = [
        {"field": one.field, "code": one.code, "detail": one.detail, "todo": one.todo}
        for one in error.problems
    ]
    return problem(answer.status, answer.title, error.detail, error.code, found, headers)


async def unavailable(_: Request, error: Exception) -> Response:
    """Answer that it cannot be taken now and when to try again; the detail says what was kept."""
    assert isinstance(error, Unavailable)  # noqa: S101  the handler is registered for this class
    return _unavailable(error)


def stopping() -> Response:
    """Answer what the end of the process cuts off: perhaps before its body came, perhaps after."""
    return _unavailable(
        Unavailable(
            "The broker is stopping. Send it again as it was, with the same Idempotency-Key: it is "
            "not taken twice."
        )
    )


def _unavailable(error: Unavailable) -> Response:
    answer = ANSWERS["unavailable"]
    headers = {"Retry-After": str(error.retry_after)}
    return problem(answer.status, answer.title, error.detail, error.code, headers=headers)


async def http(_: Request, error: Exception) -> Response:
    """Answer what the framework refuses: unknown paths, wrong methods."""
    assert isinstance(error, HTTPException)  # noqa: S101  the handler is registered for this class
    code = _CODES.get(error.status_code, "refused")
    detail = f"{error.detail}. The doors are listed at /docs."
    headers = dict(error.headers or {})
    return problem(error.status_code, str(error.detail), detail, code, headers=headers)


async def parameters(_: Request, error: Exception) -> Response:
    """Answer query parameters and path parts that cannot be read."""
    assert isinstance(error, RequestValidationError)  # noqa: S101  registered for this class
    found = [
        {"field": one.field, "code": one.code, "detail": one.detail, "todo": one.todo or TODO}
        for one in (faults.to_fault({**line, "loc": line["loc"][1:]}) for line in error.errors())
    ]
    answer = ANSWERS["invalid"]
    return problem(answer.status, answer.title, "A parameter is wrong.", "invalid", found)


async def failed(_: Request, error: Exception) -> Response:
    """Answer a bug of ours without a word of what was being worked on."""
    log.error("request.failed", error=type(error).__name__)
    return problem(
        500,
        "The broker failed",
        "This is a fault of the broker; it has been logged. Send the request again with the same "
        "Idempotency-Key: if it was taken, you get its answer.",
        "internal",
    )


def install(app: FastAPI) -> None:
    """Tell every error the same way."""
    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(Unavailable, unavailable)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, parameters)
    app.add_exception_handler(BrokerError, failed)
    app.add_exception_handler(Exception, failed)
