"""How errors are told: at the native doors by RFC 9457, under `/FHIR/R4` as an OperationOutcome;
with every problem at once."""

from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from broker.api import outcomes
from broker.api.told import Told
from broker.errors import ANSWERS, BrokerError, Problem, Refused, Unavailable
from fhir_profiles import faults, strict_json

log = structlog.get_logger()
MEDIA_TYPE: Final = "application/problem+json"
TODO: Final = "See /docs for what may be sent."
_AGAIN: Final = "Send it again as it was, with the same"
_CODES: Final = {
    400: "malformed",
    404: "not-found",
    405: "method-not-allowed",
    408: "timed-out",
    413: "too-large",
    415: "unsupported-media-type",
}


def answer(scope: Scope, told: Told) -> Response:
    """Tell it in the words of the door that was knocked at."""
    return outcomes.outcome(told) if outcomes.is_fhir(scope["path"]) else problem(told)


def problem(told: Told) -> Response:
    """Return a problem document."""
    usual = ANSWERS.get(told.code)
    status = told.status or (usual.status if usual else 500)
    native = told.code if usual is None or usual.is_native else "refused"
    body: dict[str, Any] = {
        "type": f"https://referral-broker.example/problems/{native}",
        "title": told.title or (usual.title if usual else ""),
        "status": status,
        "code": native,
        "detail": told.detail,
        "problems": [one.as_json() for one in told.problems],
    }
    return Response(strict_json.dumps(body), status, dict(told.headers), media_type=MEDIA_TYPE)


async def refused(request: Request, error: Exception) -> Response:
    """Answer a Refused by the one table in `broker.errors`."""
    assert isinstance(error, Refused)  # noqa: S101  the handler is registered for this class
    headers = {"Cache-Control": "no-store"}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if ANSWERS[error.code].status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    told = Told(error.code, error.detail, error.problems, headers)
    return answer(request.scope, told)


async def unavailable(request: Request, error: Exception) -> Response:
    """Answer that it cannot be taken now and when to try again; the detail says what was kept."""
    assert isinstance(error, Unavailable)  # noqa: S101  the handler is registered for this class
    return answer(request.scope, _unavailable(error.detail, error.retry_after))


def stopping(scope: Scope) -> Response:
    """Answer what the end of the process cuts off: perhaps before its body came, perhaps after."""
    key = _key(scope)
    detail = f"The broker is stopping. {_AGAIN} {key}: it is not taken twice."
    return answer(scope, _unavailable(detail, 5))


def _unavailable(detail: str, retry_after: int) -> Told:
    return Told("unavailable", detail, headers={"Retry-After": str(retry_after)})


async def http(request: Request, error: Exception) -> Response:
    """Answer what the framework refuses: unknown paths, wrong methods."""
    assert isinstance(error, HTTPException)  # noqa: S101  the handler is registered for this class
    absent = outcomes.absent(request, error) if outcomes.is_fhir(request.scope["path"]) else None
    if absent is not None:
        return answer(request.scope, absent)
    said = str(error.detail)
    told = Told(
        _CODES.get(error.status_code, "refused"),
        f"{said}. The doors are listed at /docs.",
        headers=dict(error.headers or {}),
        status=error.status_code,
        title=said,
    )
    return answer(request.scope, told)


async def parameters(request: Request, error: Exception) -> Response:
    """Answer query parameters and path parts that cannot be read."""
    assert isinstance(error, RequestValidationError)  # noqa: S101  registered for this class
    found = [
        Problem(one.field, one.code, one.detail, one.todo or TODO)
        for one in (faults.to_fault({**line, "loc": line["loc"][1:]}) for line in error.errors())
    ]
    code = "bad-request" if outcomes.is_fhir(request.scope["path"]) else "invalid"
    return answer(request.scope, Told(code, "A parameter is wrong.", found))


async def failed(request: Request, error: Exception) -> Response:
    """Answer a bug of ours without a word of what was being worked on."""
    log.error("request.failed", error=type(error).__name__)
    detail = (
        "This is a fault of the broker; it has been logged. Send the request again with the same "
        f"{_key(request.scope)}: if it was taken, you get its answer."
    )
    return answer(request.scope, Told("internal", detail))


def _key(scope: Scope) -> str:
    """Return the header by which a repeat is known at this door."""
    return "X-Request-Id" if scope["path"].startswith(f"{outcomes.BASE}/$") else "Idempotency-Key"


def install(app: FastAPI) -> None:
    """Tell every error the same way."""
    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(Unavailable, unavailable)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, parameters)
    app.add_exception_handler(BrokerError, failed)
    app.add_exception_handler(Exception, failed)
