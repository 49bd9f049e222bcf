"""The doors of attachments: upload one before the message that names it, fetch what names you."""

from base64 import b64encode
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from broker.access import Action
from broker.api.calling import Identity, allow, answer, broker_of, caller_of
from broker.api.described import KEY, closed, text
from broker.attachments.kinds import Kind
from broker.attachments.uploading import LIMIT
from broker.errors import BadRequest, TooLarge, UnsupportedMediaType

router = APIRouter(tags=["attachments"])
_BINARY: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}
_UPLOADED: Final = closed(
    id=text("By this a message names it."),
    sha256=text("SHA-256 of what was stored, in hexadecimal. Compare it with your own."),
    content_type=text("What it is, by its content."),
    size={"type": "integer"},
    expires_at=text("Until then a message must have named it.", format="date-time"),
)


@router.post(
    "/attachments",
    status_code=201,
    summary="Upload an image or document, for a message to name",
    openapi_extra={
        "parameters": [KEY],
        "requestBody": {"required": True, "content": dict.fromkeys(Kind, _BINARY)},
        "responses": {"201": {"content": {"application/json": {"schema": _UPLOADED}}}},
    },
)
async def upload(request: Request) -> Response:
    """Takes PNG, JPEG, TIFF, DICOM and PDF, told by their content, up to 25 MiB; no PDF with a
    script or another file in it. Send the file itself as the body."""
    caller = await caller_of(request)
    allow(caller, Action.UPLOAD)
    length = request.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length) > LIMIT:
        raise TooLarge(f"An attachment has at most {LIMIT} bytes; nothing was stored.")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise UnsupportedMediaType("Send the file as it is, without Content-Encoding.")
    if request.headers.get("content-type", "").strip().lower().startswith("multipart/"):
        raise UnsupportedMediaType("Send the file itself as the body, not a form that holds it.")
    key = request.headers.get("idempotency-key")
    try:
        made = await broker_of(request).uploading.upload(caller, key, request.stream())
    except ClientDisconnect:  # nobody is there to be answered
        raise BadRequest("The upload broke off; nothing was stored.") from None
    return answer(made.body, made.status)


@router.get(
    "/attachments/{attachment:uuid}",
    summary="Fetch an attachment of a message that is addressed to you",
    openapi_extra={"responses": {"200": {"content": dict.fromkeys(Kind, _BINARY)}}},
)
async def fetch(request: Request, attachment: Identity) -> Response:
    """Always a download: the bytes that were uploaded, with their SHA-256 as `Repr-Digest`."""
    caller = await caller_of(request)
    fetching = broker_of(request).fetching
    seen = await fetching.seen(attachment, caller.organisation)
    allow(caller, Action.FETCH, seen.relation, label=seen.label)
    key = await fetching.fetch(caller, seen)
    kind = Kind(seen.row.content_type)
    headers = {
        "Cache-Control": "no-store",
        "Content-Disposition": f'attachment; filename="{attachment}.{kind.suffix}"',
        "Content-Length": str(seen.row.size),
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Repr-Digest": f"sha-256=:{_base64(seen.row.digest)}:",  # RFC 9530
    }
    return StreamingResponse(fetching.content(seen.row, key), headers=headers, media_type=kind)


def _base64(digest: str) -> str:
    return b64encode(bytes.fromhex(digest)).decode()
