"""POST /oauth2/token: the one door that is open to callers who have no token yet.

Rules: RFC 6749 sections 3.2 and 5 (form, each field once, `no-store`, errors as JSON).
"""

from typing import Any, Final
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from broker.api.described import OPEN
from broker.assertion import ASSERTION_TYPE, REFUSALS
from broker.auth import Authority, TokenAnswer

LARGEST_FORM: Final = 16_384
_MOST_FIELDS: Final = 32
_FORM: Final = "application/x-www-form-urlencoded"
_NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}

_REQUEST: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            _FORM: {
                "schema": {
                    "type": "object",
                    "required": ["grant_type", "client_assertion_type", "client_assertion"],
                    "properties": {
                        "grant_type": {"const": "client_credentials"},
                        "client_assertion_type": {"const": ASSERTION_TYPE},
                        "client_assertion": {
                            "type": "string",
                            "description": "A JWT signed by the client (RS384, RS512 or ES384), "
                            "good once: iss and sub the client id, aud this URL, exp within 5 "
                            "minutes, jti, and organisation: the ODS code to act for.",
                        },
                        "scope": {
                            "type": "string",
                            "description": "Fewer scopes than the client holds, one space between.",
                        },
                    },
                }
            }
        },
    }
}
_TOKEN: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["access_token", "token_type", "expires_in", "scope", "organisation"],
    "properties": {
        "access_token": {"type": "string"},
        "token_type": {"const": "Bearer"},
        "expires_in": {"type": "integer", "description": "Seconds."},
        "scope": {"type": "string"},
        "organisation": {"type": "string", "description": "The ODS code it is good for."},
    },
}
_ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["error", "error_description"],
    "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
}


def _described(description: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


router = APIRouter()


@router.post(
    "/oauth2/token",
    tags=["signing in"],
    summary="Get an access token",
    openapi_extra=_REQUEST | OPEN,
    response_class=JSONResponse,
    responses={
        200: _described("An access token, good for 5 minutes.", _TOKEN),
        400: _described("The request is wrong.", _ERROR),
        401: _described("The client has not proved who it is.", _ERROR),
        413: _described("The form is too large.", _ERROR),
    },
)
async def token(request: Request) -> JSONResponse:
    """Give a token to a client that proves itself with a signed JWT (RFC 7523)."""
    authority: Authority = request.app.state.broker.authority
    answer = await _answer(request, authority)
    return JSONResponse(answer.body, answer.status, headers=_NO_STORE)


async def _answer(request: Request, authority: Authority) -> TokenAnswer:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != _FORM or "content-encoding" in request.headers:
        return _refused(400)
    body = await _read(request)
    if body is None:
        return _refused(413, f"Send {LARGEST_FORM} bytes at most: the fields named in /docs.")
    form = read_form(body)
    return _refused(400) if form is None else await authority.issue(form)


def _refused(status: int, sentence: str = "") -> TokenAnswer:
    error, usual = REFUSALS["form"]
    return TokenAnswer(status, {"error": error, "error_description": sentence or usual}, "form")


async def _read(request: Request) -> bytes | None:
    """Return the body, or None once it is over the limit: no more of it is kept than that."""
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_FORM:
                return None
    except ClientDisconnect:
        return b""
    return bytes(body)


def read_form(body: bytes) -> dict[str, str] | None:
    """Return a form's fields, or None unless it is UTF-8 and has each of them once.

    A field without a value counts as left out (RFC 6749 section 3.2).
    """
    try:
        fields = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError:
        return None
    form = dict(fields)
    if len(form) != len(fields):
        return None
    return {name: value for name, value in form.items() if value}
