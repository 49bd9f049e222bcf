"""Messages: what became of each, an organisation's own list, what is overdue, telephone calls."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from pydantic import AwareDatetime
from starlette.requests import Request
from starlette.responses import Response

from broker import patient_status, tracking, trails
from broker.access import Action, Caller
from broker.api.calling import Identity, allow, answer, body_of, broker_of, caller_of
from broker.api.described import KEY, closed, one_of, takes, text
from broker.calls import LONGEST_NOTE, OUTCOMES, REACHED, Called
from broker.errors import NotFound, Problem, Refused
from broker.events import Priority
from broker.main import Broker
from broker.referral import Relation
from broker.retracting import CLOSURES, Retraction
from broker.store import trail, work
from broker.trails import NO_WORDS, Trail

router = APIRouter(tags=["messages"])
AS_GIVEN: Final = "Use `next` as it was given."


async def _seen(broker: Broker, caller: Caller, action: Action, message: str) -> Trail:
    """Return a message's trail if the caller is to it what the action demands."""
    found = await broker.store.read(lambda c: trails.read(c, message))
    if found is None:
        allow(caller, action)
        raise NotFound("There is nothing here for this caller.")
    codes = (await broker.directory.current()).stands_for(caller.organisation)
    relation = trails.relation(found, codes)
    allow(caller, action, relation, label=found.message.label)
    return found


@router.get("/messages/{message:uuid}", summary="What became of a message")
async def track(request: Request, message: Identity) -> Response:
    """Returns one line a person can read and the whole trail in data; as ETag its version."""
    caller = await caller_of(request)
    broker = broker_of(request)
    found = await _seen(broker, caller, Action.TRACK, message)
    directory = await broker.directory.current()
    is_sender = found.message.sender in directory.stands_for(caller.organisation)
    words = NO_WORDS
    if is_sender:
        words = await broker.store.read(lambda c: trails.words(c, broker.vault, found))
    view = tracking.view(found, caller.organisation, directory, datetime.now(UTC), words)
    return answer(view, version=found.version)


@router.get("/messages/{message:uuid}/status", summary="What the patient may be told of it")
async def status(request: Request, message: Identity) -> Response:
    """Returns one plain line, what happens next, and what to do if worse: fit to be read out."""
    caller = await caller_of(request)
    broker = broker_of(request)
    found = await _seen(broker, caller, Action.TRACK, message)
    own = (await broker.directory.current()).stands_for(caller.organisation)
    is_acting = trails.relation(found, own) is Relation.ACTING
    sent_on = is_acting and tracking.sent_on_at(found, own) > 0
    return answer(patient_status.said(found, datetime.now(UTC), sent_on=sent_on))


@router.get("/messages", summary="Your organisation's own messages, newest first")
async def listing(
    request: Request,
    before: Annotated[str, Query(description="`next` of the page before", max_length=80)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    kind: Literal["update", "referral"] | None = None,
    status: Literal["sent", "withheld", "replaced", "withdrawn", "closed"] | None = None,
    reference: Annotated[str | None, Query(max_length=200)] = None,
    since: Annotated[AwareDatetime | None, Query()] = None,
) -> Response:
    """Pages are stable while messages arrive: each goes on exactly where the last one ended.

    What an organisation sent that is closed and that you succeed is yours.
    """
    caller = await caller_of(request)
    allow(caller, Action.LIST_MESSAGES)
    place = _place("before", before) if before else None
    broker = broker_of(request)
    codes = (await broker.directory.current()).stands_for(caller.organisation)
    hmacs = [broker.intake.reference(code, reference) for code in codes] if reference else []
    rows = await broker.store.read(
        lambda c: trail.sent_by(
            c,
            codes,
            before=place,
            limit=limit,
            kind=kind,
            status=status,
            reference_hmacs=hmacs,
            since=_utc("since", since, "Give a time with its offset.") if since else None,
        )
    )
    following = f"{rows[-1].accepted_at.isoformat()}~{rows[-1].id}" if len(rows) == limit else None
    return answer({"messages": [tracking.listed(row) for row in rows], "next": following})


def _place(name: str, given: str) -> tuple[datetime, str]:
    """Return the place in a list that a `next` names. Raises Refused."""
    moment, _, identity = given.partition("~")
    try:
        at, identity = datetime.fromisoformat(moment.replace(" ", "+")), str(UUID(identity))
    except ValueError:
        raise _unreadable(name, AS_GIVEN) from None
    return _utc(name, at, AS_GIVEN), identity


def _utc(name: str, moment: datetime, todo: str) -> datetime:
    """Return a moment in UTC. Raises Refused where it has no offset or leaves the calendar."""
    try:
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except OverflowError:
        pass
    raise _unreadable(name, todo)


def _unreadable(name: str, todo: str) -> Refused:
    found = Problem(name, "invalid", f"{name} cannot be read.", todo)
    return Refused("A parameter is wrong.", [found])


@router.get("/overdue", summary="What of yours is overdue or needs somebody to look at it")
async def overdue(
    request: Request,
    after: Annotated[str, Query(description="`next` of the page before", max_length=80)] = "",
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Response:
    """Most urgent first. An item goes when what it waits for has happened.

    Pages are stable: each goes on exactly where the last one ended.
    """
    caller = await caller_of(request)
    allow(caller, Action.LIST_OVERDUE)
    place = _item_place(after)
    broker = broker_of(request)
    codes = (await broker.directory.current()).stands_for(caller.organisation)
    rows = await broker.store.read(lambda c: work.open_items(c, codes, limit, after=place))
    following = None
    if len(rows) == limit:
        last = rows[-1]
        following = f"{last.priority_rank}~{last.due_at.isoformat()}~{last.id}"
    return answer({"items": [item(row) for row in rows], "next": following})


def _item_place(after: str) -> tuple[int, datetime, str] | None:
    if not after:
        return None
    rank, _, place = after.partition("~")
    if rank not in {str(priority.rank) for priority in Priority}:
        raise _unreadable("after", AS_GIVEN)
    return int(rank), *_place("after", place)


def item(row: Any) -> dict[str, Any]:
    """Return an item of the work-list as it is shown."""
    return {
        "code": row.code,
        "message": row.message_id,
        "delivery": row.delivery_id,
        "priority": row.priority,
        "due_at": row.due_at.isoformat(),
        "opened_at": row.opened_at.isoformat(),
        "url": f"/messages/{row.message_id}" if row.message_id else None,
    }


@router.post(
    "/messages/{message:uuid}/telephone-calls",
    status_code=201,
    summary="Record that you telephoned",
    openapi_extra=takes(
        KEY,
        body=closed(
            "called_at note",
            outcome=one_of(OUTCOMES, f"Only these meet the duty: {', '.join(REACHED)}."),
            called_at=text("If not just now.", format="date-time"),
            note=text(maxLength=LONGEST_NOTE),
        ),
    ),
)
async def telephoned(request: Request, message: Identity) -> Response:
    """Answers whether the call meets the duty to telephone; if not, what does."""
    caller = await caller_of(request)
    broker = broker_of(request)
    found = await _seen(broker, caller, Action.RECORD_CALL, message)
    made = await broker.calls.record(
        Called(
            caller=caller,
            message=found.message,
            key=request.headers.get("idempotency-key"),
            body=await body_of(request),
        )
    )
    return answer(made.body, made.status)


@router.post(
    "/messages/{message:uuid}/withdrawal",
    status_code=202,
    summary="Withdraw what was entered in error",
    openapi_extra=takes(KEY, body=closed(), required=False),
)
async def withdraw(request: Request, message: Identity) -> Response:
    """At any time, also after it was filed. Whoever got it is told; the body is empty."""
    caller = await caller_of(request)
    await _seen(broker_of(request), caller, Action.WITHDRAW, message)
    made = await broker_of(request).retracting.withdraw(await _retraction(request, caller, message))
    return answer(made.body, made.status)


@router.post(
    "/messages/{message:uuid}/closure",
    summary="Close the loop of an update or copy",
    openapi_extra=takes(KEY, body=closed(reason=one_of(CLOSURES))),
)
async def close(request: Request, message: Identity) -> Response:
    """The reason says what became of it another way. It leaves every list.

    Of a referral it closes only that its copy was rejected as not registered here.
    """
    caller = await caller_of(request)
    await _seen(broker_of(request), caller, Action.CLOSE, message)
    made = await broker_of(request).retracting.close(await _retraction(request, caller, message))
    return answer(made.body, made.status)


async def _retraction(request: Request, caller: Caller, message: str) -> Retraction:
    return Retraction(
        caller=caller,
        message=message,
        key=request.headers.get("idempotency-key"),
        body=await body_of(request, empty=True),
    )
