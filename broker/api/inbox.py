"""The inbox: a destination lists what stands there for it, collects, gives its receipt, decides."""

import time
from collections.abc import Collection
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from broker import receipts
from broker.access import Action, Caller
from broker.acknowledging import read as read_acknowledgement
from broker.api.calling import Identity, allow, answer, body_of, broker_of, caller_of
from broker.api.described import closed, one_of, takes, text
from broker.dispatch import SENT
from broker.errors import Conflict, Gone, Problem, Refused
from broker.events import Kind, Priority, Role
from broker.main import Broker
from broker.outbound import RECEIPT, names_something, receipt_of
from broker.ports import Receipt
from broker.reading import read_object
from broker.referral import RELATIONS, Relation
from broker.store import deliveries, messages
from broker.store.tx import Connection
from fhir_profiles import codes

router = APIRouter(tags=["inbox"])
FIRST = "00000000-0000-0000-0000-000000000000"
PLACE = r"^([0-9]{1,18}\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.[0-9]{1,12})?$"
LOOK_SECONDS = 300


@router.get("/inbox", summary="List what stands in your inbox, oldest first")
async def list_inbox(
    request: Request,
    after: Annotated[str, Query(description="`next` of the page before", pattern=PLACE)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    state: Literal["open", "all"] = "open",
    service: Annotated[str | None, Query(max_length=64)] = None,
    priority: Annotated[
        Priority | None, Query(description="Only what is at least this urgent")
    ] = None,
) -> Response:
    """Lists every delivery that has no receipt yet (`state=all`: every one), in ledger order.

    `next` leads through one look, page by page. Begin each look without it: what comes may stand
    before what was listed. Five minutes after a look began, the `next` of open deliveries leads to
    the beginning. What cannot wait behind a long inbox is asked for by itself: `priority=stat`, or
    `priority=urgent` with it.
    """
    caller = await caller_of(request)
    allow(caller, Action.LIST_INBOX)
    broker = broker_of(request)
    directory = await broker.directory.current()
    codes = directory.stands_for(caller.organisation)
    if service is not None:
        _check_service(service, {one.code for ods in codes for one in directory.services_of(ods)})
    began = _began(after, is_kept=state == "all")
    rows = await broker.store.look_up(
        lambda c: deliveries.inbox(
            c,
            codes,
            after=_place(c, after if began else ""),
            limit=limit,
            every=state == "all",
            service=service,
            rank=priority.rank if priority else None,
        )
    )
    last = rows[-1] if len(rows) == limit else None
    following = f"{last.position}.{last.id}.{began or round(time.time())}" if last else None
    return answer({"deliveries": [_listed(row) for row in rows], "next": following})


def _began(after: str, *, is_kept: bool) -> int | None:
    """Return when the look began that `next` of a page belongs to; None where a new one begins.

    What several processes fan out, what was held for a human and what a successor inherits appears
    before the place of a reader who kept his `next`: he would never see it.
    """
    began = int(after.rpartition(".")[2]) if after else None
    is_over = began is not None and not is_kept and time.time() - began > LOOK_SECONDS
    return None if is_over else began


def _place(connection: Connection, after: str) -> tuple[int, str]:
    """Return the place in the inbox that `next` of a page named.

    One that names no delivery at that position is of what was lost when a backup was restored:
    then the list begins anew, for what came since may stand before it.
    """
    position, identity, _ = after.split(".") if after else ("", "", "")
    row = deliveries.get(connection, identity) if identity else None
    if row is None or row.position != int(position):
        return 0, FIRST
    return row.position, row.id


def _check_service(service: str, known: Collection[str]) -> None:
    """Raise Refused for a service that is not theirs: its empty list would hide what waits."""
    if service not in known:
        todo = f"Give one of: {', '.join(sorted(known))}." if known else "Take it out."
        problem = Problem("service", "not-in-list", "You have no such service.", todo)
        raise Refused("A parameter is wrong.", [problem])


def _listed(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "url": f"/inbox/{row.id}",
        "kind": row.kind,
        "role": row.role,
        "organisation": row.ods,
        "priority": row.priority,
        "service": row.service or None,
        "digest": row.digest,
        "subject": row.subject_id,
        "sequence": row.subject_seq,
        "message": row.message_id,
        "created_at": row.created_at.isoformat(),
        "collected_at": row.collected_at.isoformat() if row.collected_at else None,
        "received_at": row.received_at.isoformat() if row.received_at else None,
    }


async def _own(broker: Broker, caller: Caller, delivery_id: str, action: Action) -> Any:
    """Return a delivery of the caller's own inbox. Anything else is not there."""
    row: Any = await broker.store.look_up(lambda c: deliveries.get(c, delivery_id))
    codes = (await broker.directory.current()).stands_for(caller.organisation)
    is_shown = row is not None and row.ods in codes and row.held_reason not in deliveries.HIDDEN
    relation = RELATIONS[Role(row.role)] if is_shown else Relation.NONE
    allow(caller, action, relation, label=row.label if is_shown else "N")
    return row


@router.get("/inbox/{delivery:uuid}", summary="Collect one delivery: a FHIR message Bundle")
async def collect(request: Request, delivery: Identity) -> Response:
    """Returns the same bytes for ever. Collecting proves nothing: give the receipt once stored."""
    caller = await caller_of(request)
    broker = broker_of(request)
    row = await _own(broker, caller, delivery, Action.COLLECT)
    sent = await broker.store.look_up(lambda c: messages.payload(c, broker.vault, delivery, SENT))
    if sent is None:
        raise Gone("This delivery has been erased under the retention rules.")
    if row.collected_at is None:
        await broker.store.write(lambda tx: deliveries.collect(tx, delivery))
    headers = {
        "Cache-Control": "no-store",
        "Referral-Broker-Kind": row.kind,
        "Referral-Broker-Digest": f"sha-256={row.digest}",
        "Referral-Broker-Receipt": f"{broker.settings.base_url}/inbox/{delivery}/receipt",
    }
    return Response(sent.body, 200, headers, media_type=sent.content_type)


@router.put(
    "/inbox/{delivery:uuid}/receipt",
    summary="Prove that you have stored a delivery",
    openapi_extra=takes(
        body=closed(
            delivery=text("Its id."),
            digest=text("SHA-256 of the bytes that you stored, in hexadecimal."),
            ods=text("Your own ODS code."),
        )
    ),
)
async def receipt(request: Request, delivery: Identity) -> Response:
    """Safe to repeat."""
    caller = await caller_of(request)
    broker = broker_of(request)
    row = await _own(broker, caller, delivery, Action.GIVE_RECEIPT)
    named = _receipt(read_object(await body_of(request)))
    if not await receipts.take(broker.core, row, named, via="inbox", client=caller.client_id):
        signers = receipts.signers(row, await broker.directory.current())
        raise Conflict(
            "The receipt does not match and is kept as evidence. This delivery is "
            f"{row.id}, of digest {row.digest}, for {row.ods}.",
            [
                Problem(
                    name, "mismatch", f"{name} is not what was delivered.", f"Expected {right}."
                )
                for name, given, right, known in (
                    ("delivery", named.delivery, row.id, {row.id}),
                    ("digest", named.digest, row.digest, {row.digest}),
                    ("ods", named.ods, row.ods, signers),
                )
                if given not in known
            ],
        )
    return answer({"delivery": delivery, "received": True})


def _receipt(body: dict[str, Any]) -> Receipt:
    named = receipt_of(body)
    problems = [
        Problem(name, "missing", f"{name} is missing.", "Give it as a short text.")
        for name in RECEIPT
        if not names_something(body.get(name))
    ]
    problems += [
        Problem(name, "unknown-field", f"There is no field {name}.", "Leave it out.")
        for name in body
        if name not in RECEIPT
    ]
    if named is None or problems:
        raise Refused.all_of(problems)
    return named


@router.put(
    "/inbox/{delivery:uuid}/acknowledgement",
    summary="File an update or reject it",
    openapi_extra=takes(
        body=closed(
            "reason note",
            outcome=one_of(["filed", "rejected"]),
            reason=one_of(codes.system("rejection-reason").displays, "Of a rejection."),
            note=text(),
        )
    ),
)
async def acknowledge(request: Request, delivery: Identity) -> Response:
    """A rejection needs its reason. The sender is told."""
    caller = await caller_of(request)
    broker = broker_of(request)
    row = await _own(broker, caller, delivery, Action.ACKNOWLEDGE)
    if row.kind != Kind.UPDATE:
        raise Conflict(
            f"This is a {row.kind}: only an update is filed or rejected. A referral is decided "
            "with POST /referrals/{id}/{move}; a notice needs its receipt only."
        )
    said = read_acknowledgement(read_object(await body_of(request)))
    return answer(await broker.acknowledging.decide(caller, delivery, said))
