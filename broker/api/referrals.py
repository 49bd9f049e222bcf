"""Referrals: where one stands, and the moves of whoever's turn it is."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from broker import moves
from broker.access import Action, Caller
from broker.api.calling import Identity, allow, answer, body_of, broker_of, caller_of, version_of
from broker.api.described import KEY, VERSION, takes
from broker.main import Broker
from broker.moving import Asked
from broker.store import referrals
from fhir_profiles import strict_json

router = APIRouter(tags=["referrals"])


async def allow_about(broker: Broker, caller: Caller, action: Action, referral: str) -> None:
    """Raise unless the caller is to this referral what the action demands."""
    row = await broker.store.read(lambda c: referrals.labelled(c, referral))
    if row is None:
        allow(caller, action)
        return
    directory = await broker.directory.current()
    relation = moves.relation(row, caller.organisation, directory)
    allow(caller, action, relation, label=row.label)


@router.get("/referrals/{referral:uuid}", summary="Where a referral stands, and what you may do")
async def read(request: Request, referral: Identity) -> Response:
    """Returns state, allowed moves with their doors and, as ETag, the version a move must name."""
    caller = await caller_of(request)
    broker = broker_of(request)
    await allow_about(broker, caller, Action.READ_REFERRAL, referral)
    doors = {adapter.name: adapter.door for adapter in broker.adapters.values()}
    view, version = await broker.moving.view(referral, caller.organisation, doors)
    return answer(view, version=version)


@router.post(
    "/referrals/{referral:uuid}/convert",
    status_code=202,
    summary="Make a referral of a request for advice",
    openapi_extra=takes(VERSION, KEY, body={"type": "object"}),
)
async def convert(request: Request, referral: Identity) -> Response:
    """Everything that was said goes along. The body names pathway, reason and a reference of its
    own, and any field of the form of whoever asked that the request did not say."""
    caller = await caller_of(request)
    broker = broker_of(request)
    await allow_about(broker, caller, Action.CONVERT_REFERRAL, referral)
    made = await broker.converting.convert(await _asked(request, caller, referral, ""))
    return answer(made.body, made.status)


@router.post(
    "/referrals/{referral:uuid}/{move}",
    summary="Make a move: accept, reject, complete …",
    openapi_extra=takes(VERSION, KEY, body={"type": "object"}, required=False),
)
async def make(request: Request, referral: Identity, move: str) -> Response:
    """Each of the `allowed_moves` of the referral says what its body holds."""
    caller = await caller_of(request)
    broker = broker_of(request)
    await allow_about(broker, caller, Action.MOVE_REFERRAL, referral)
    made = await broker.moving.move(await _asked(request, caller, referral, move))
    version = strict_json.loads(made.body)["version"]
    return answer(made.body, made.status, version=version)


async def _asked(request: Request, caller: Caller, referral: str, move: str) -> Asked:
    return Asked(
        caller=caller,
        subject=referral,
        move=move,
        key=request.headers.get("idempotency-key"),
        body=await body_of(request, empty=bool(move)),
        version=version_of(request),
    )
