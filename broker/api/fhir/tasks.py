"""A referral moved by FHIR: its Task, as it is to be from now on."""

from hashlib import sha256

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from broker.access import Action
from broker.api.calling import body_of, broker_of, caller_of, version_of
from broker.api.described import KEY, VERSION
from broker.api.fhir import bundles, negotiation
from broker.api.fhir.types import Moved
from broker.api.outcomes import BASE, MEDIA_TYPE
from broker.api.referrals import allow_about
from broker.errors import NotFound
from broker.moving import NOT_HERE, Asked
from broker.search_values import identity
from fhir_profiles import strict_json

router = APIRouter(prefix=BASE, tags=["FHIR resources"])


@router.put(
    "/{moved:moved}/{id:id}",
    summary="Move a referral",
    openapi_extra={
        "parameters": [VERSION, KEY | {"required": False}],
        "requestBody": {"required": True, "content": {MEDIA_TYPE: {"schema": {"type": "object"}}}},
    },
)
async def update(request: Request, moved: Moved, id: str) -> Response:  # noqa: A002 - FHIR's word
    """The Task of a referral, as it is to be: the same moves as `POST /referrals/{id}/{move}`. Its
    state is `businessStatus`, why is `statusReason`, what is said a `note`, all else an `input`."""
    caller, broker = await caller_of(request), broker_of(request)
    subject = identity(id)
    if subject is None:
        raise NotFound(NOT_HERE)
    await allow_about(broker, caller, Action.UPDATE_TASK, subject)
    bundles.unread(request, request.query_params, ())
    negotiation.readable(request)
    body = await body_of(request, types=negotiation.JSON)
    version = version_of(request)
    # Whoever sends no key says by the version which change this is.
    key = sha256(b"%s|%d|%s" % (subject.encode(), version or 0, body)).hexdigest()
    versions = await broker.finding.versions(caller, moved, subject)
    stands = strict_json.loads(await broker.finding.body(versions[0])) if versions else {}
    await broker.moving.update(
        Asked(
            caller=caller,
            subject=subject,
            move="",
            key=request.headers.get("idempotency-key", key),
            body=body,
            version=version,
        ),
        stands,
    )
    now = (await broker.finding.versions(caller, moved, subject))[0]
    return negotiation.answer(await broker.finding.body(now), version=now.number)
