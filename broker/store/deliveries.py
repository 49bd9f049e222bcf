"""Delivery rows: made once, ordered in lanes, settled in one transaction.

States: due, held (predecessor, receipt, human, consent, label), done (receipt, superseded,
given-up), dead. A lane is (destination, subject); only its lowest unfinished step is due.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Select,
    and_,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.engine import Row

from broker.deadlines import RECEIPT_CLOCKS
from broker.errors import DeliveryCode
from broker.events import Recorded, Role
from broker.store import tables as t
from broker.store import work
from broker.store.tx import DELIVERIES, Tx

GIVEN_UP: Final = "given-up"
"""Why a step is done that nobody tries any more, and nothing proves to be stored."""

d = t.delivery.c

# Held for one of these a delivery is not shown to its destination.
HIDDEN = ("human", "consent", "label")

UNSENT: Final[tuple[DeliveryCode, ...]] = (
    "address-refused",
    "closed",
    "connection-failed",
    "does-not-take",
    "no-token",
    "not-connected",
    "not-offered",
)
"""Codes of attempts that ended before anything was sent; one that is lost may have sent all."""

UNFINISHED: Final = or_(
    d.state == "due",
    d.state == "dead",
    and_(d.state == "held", d.held_reason != "receipt"),
)
"""Whether a step still blocks its lane: anything but done and held for its receipt."""

IN_LANE: Final = and_(
    d.ods == bindparam("lane_ods"),
    d.service == bindparam("lane_service"),
    d.subject_id == bindparam("lane_subject"),
)
"""Whether a step belongs to the lane whose values `lane` returns."""

# Built once: building costs several times what asking does.
_KNOWN: Final = select(d.id).where(d.id.in_(bindparam("ids", expanding=True)))
_THIS: Final = d.id == bindparam("this")
_GET: Final = select(t.delivery).where(_THIS)
_LOCK: Final = _GET.with_for_update()
_SUBJECT: Final = select(d.subject_id).where(_THIS)
_CHANGE: Final = update(t.delivery).where(_THIS)
_COLLECT: Final = _CHANGE.where(d.collected_at.is_(None))
_RETRY: Final = _CHANGE.where(or_(d.state == "dead", d.state == "due"))
_HEAD: Final = (
    select(t.delivery).where(and_(IN_LANE, UNFINISHED)).order_by(d.subject_seq, d.consumer).limit(1)
)
_MOST_URGENT: Final = select(func.min(d.priority_rank)).where(and_(IN_LANE, UNFINISHED))
# What was superseded is not waited for; what was given up is, for it may yet be found.
_WAITED_FOR: Final = (
    select(d.id)
    .where(
        and_(
            d.message_id == bindparam("message"),
            d.role == bindparam("role"),
            d.received_at.is_(None),
            or_(d.done_reason.is_(None), d.done_reason != "superseded"),
        )
    )
    .limit(1)
)


def known(tx: Tx, ids: Sequence[str]) -> set[str]:
    """Return which of these deliveries are there already."""
    return set(tx.execute(_KNOWN, {"ids": ids}).scalars())


def insert_new(tx: Tx, rows: Sequence[dict[str, Any]], event: Recorded) -> int:
    """Add the deliveries of one event, each at its place in its lane; skip those already there.

    The caller has locked the event's subject.
    """
    if not rows:
        return 0
    there = known(tx, [row["id"] for row in rows])
    fresh = [dict(row) for row in rows if row["id"] not in there]
    begun: set[tuple[str, str]] = set()  # lanes that have a step of this very event already
    for row in sorted(fresh, key=lambda row: str(row["consumer"])):
        if event.facts.get("supersedes") == "unsent":
            _supersede(tx, row)
        _place(tx, row, is_second=(row["ods"], row["service"]) in begun)
        if row["state"] != "done" and row["held_reason"] != "receipt":
            begun.add((row["ods"], row["service"]))
    if fresh:
        tx.execute(t.into(t.delivery), fresh)
        if any(row["state"] == "due" for row in fresh):
            tx.wake(DELIVERIES)
    return len(fresh)


def lane(ods: str, service: str, subject: str) -> dict[str, str]:
    """Return the values of one lane, for statements that ask for what is IN_LANE."""
    return {"lane_ods": ods, "lane_service": service, "lane_subject": subject}


def lane_of(row: Row[Any]) -> dict[str, str]:
    """Return the values of the lane that a delivery stands in."""
    return lane(row.ods, row.service, row.subject_id)


def change(tx: Tx, delivery_id: str, **values: Any) -> None:
    """Change a delivery's row. The caller has locked its subject, or has it leased."""
    tx.execute(_CHANGE, {"this": delivery_id, **values})


def _place(tx: Tx, row: dict[str, Any], *, is_second: bool) -> None:
    """Decide whether a new step is due, waits for the step before it, or waits for its receipt.

    A second step of the same event waits for the first, as if it came after it.
    """
    if row["state"] != "due":
        return
    if is_second:
        row["state"], row["held_reason"] = "held", "predecessor"
        return
    if row["subject_seq"] > 1:
        head = tx.first(_HEAD, lane(row["ods"], row["service"], row["subject_id"]))
        if head is not None:
            row["state"], row["held_reason"] = "held", "predecessor"
            if row["priority_rank"] < head.priority_rank:
                # The head of a lane inherits the highest priority that waits behind it, and is
                # tried at once, as that step would have been: it may be an hour from its turn.
                due_at = min(head.due_at, tx.now)
                change(tx, head.id, priority_rank=row["priority_rank"], due_at=due_at)
                tx.wake(DELIVERIES)
            return
    if row["channel"] == "inbox":
        row["state"], row["held_reason"] = "held", "receipt"


def _supersede(tx: Tx, row: dict[str, Any]) -> None:
    """End every step of the lane that was never sent: what follows says all there is to say.

    What stands in an inbox to be collected, or was collected, counts as sent; so does an attempt of
    which it is not written down that it ended before anything was sent.
    """
    a = t.attempt.c
    unsent = select(func.count()).where(and_(a.delivery_id == d.id, a.code.in_(UNSENT)))
    its_lane = lane(row["ods"], row["service"], row["subject_id"])
    ended = tx.all(
        update(t.delivery)
        .where(
            and_(
                IN_LANE,
                d.subject_seq < row["subject_seq"],
                d.attempt == unsent.scalar_subquery(),
                d.collected_at.is_(None),
                UNFINISHED,
            )
        )
        .values(state="done", held_reason=None, done_reason="superseded", settled_at=tx.now)
        .returning(d.id, d.message_id, d.role),
        its_lane,
    )
    for one in ended:
        work.close_items(tx, "superseded", delivery_id=one.id)
        meet_clock(tx, one.message_id, one.role)
    if ended:
        promote(tx, its_lane)


def meet_clock(tx: Tx, message_id: str | None, role: str) -> None:
    """Meet the clock of a message's receipts in one role, once none is waited for any more."""
    if message_id is None:
        return
    if tx.first(_WAITED_FOR, {"message": message_id, "role": role}) is None:
        work.clear(tx, message_id, RECEIPT_CLOCKS[Role(role)])


def promote(tx: Tx, of_lane: Mapping[str, str]) -> None:
    """Make the next step of a lane due, once nothing before it blocks."""
    while True:
        head = tx.first(_HEAD, of_lane)
        if head is None or head.state != "held" or head.held_reason != "predecessor":
            return
        if head.channel == "inbox":
            change(tx, head.id, held_reason="receipt")
            continue
        change(
            tx,
            head.id,
            state="due",
            held_reason=None,
            due_at=tx.now,
            first_due_at=tx.now,
            priority_rank=tx.execute(_MOST_URGENT, of_lane).scalar_one(),
        )
        tx.wake(DELIVERIES)
        return


def get(connection: Connection, delivery_id: str) -> Row[Any] | None:
    """Return a delivery's row."""
    return connection.execute(_GET, {"this": delivery_id}).first()


def lock(tx: Tx, delivery_id: str) -> Row[Any] | None:
    """Return a delivery's row with its subject locked, or None."""
    subject = tx.execute(_SUBJECT, {"this": delivery_id}).scalar()
    if subject is None:
        return None
    tx.lock_subject(subject)
    return tx.first(_LOCK, {"this": delivery_id})


def finish(tx: Tx, row: Row[Any], reason: str, *, code: str | None = None) -> None:
    """End a delivery and let its lane go on."""
    tx.wake(DELIVERIES)
    values: dict[str, Any] = {
        "state": "done",
        "held_reason": None,
        "done_reason": reason,
        "settled_at": tx.now,
        "lease_until": None,
        "lease_by": None,
        "code": code,
    }
    if reason == "receipt":
        values["received_at"] = row.received_at or tx.now  # one sent again was received before
    change(tx, row.id, **values)
    promote(tx, lane_of(row))


def note_received(tx: Tx, delivery_id: str) -> None:
    """Note the receipt of a delivery that had ended without one; it stays as it ended."""
    change(tx, delivery_id, received_at=tx.now)


def hold_for_receipt(tx: Tx, row: Row[Any], code: str | None) -> None:
    """Sent, but not proved stored: not sent again, and no block to what follows."""
    tx.wake(DELIVERIES)
    ended = {"code": code, "lease_until": None, "lease_by": None}
    change(tx, row.id, state="held", held_reason="receipt", **ended)
    promote(tx, lane_of(row))


def collect(tx: Tx, delivery_id: str) -> None:
    """Note that a destination has fetched a delivery; that proves nothing was stored."""
    tx.execute(_COLLECT, {"this": delivery_id, "collected_at": tx.now})


# What an inbox shows of a delivery, and whose it is.
_LISTED: Final = select(
    d.id,
    d.position,
    d.kind,
    d.role,
    d.ods,
    d.priority,
    d.service,
    d.digest,
    d.subject_id,
    d.subject_seq,
    d.message_id,
    d.created_at,
    d.collected_at,
    d.received_at,
)
_IN_INBOX: Final = and_(
    d.ods.in_(bindparam("codes", expanding=True)),
    or_(
        d.position > bindparam("position"),
        and_(d.position == bindparam("position"), d.id > bindparam("id")),
    ),
    or_(d.held_reason.is_(None), d.held_reason.not_in(HIDDEN)),
)


@cache
def _inbox(every: bool, service: bool, urgent: bool) -> Select[Any]:
    wanted = [_IN_INBOX]
    if not every:
        wanted.append(d.state != literal_column("'done'"))  # as its index says it
    if service:
        wanted.append(d.service == bindparam("service"))
    if urgent:
        wanted.append(d.priority_rank <= bindparam("rank"))
    return _LISTED.where(and_(*wanted)).order_by(d.position, d.id).limit(bindparam("most"))


def inbox(
    connection: Connection,
    codes: Collection[str],
    *,
    after: tuple[int, str],
    limit: int,
    every: bool,
    service: str | None = None,
    rank: int | None = None,
) -> Sequence[Row[Any]]:
    """Return what stands in the inbox of these ODS codes after a place in it, in ledger order.

    Without `every`, only what has no receipt yet; with `rank`, only what is at least as urgent.
    """
    position, delivery_id = after
    values = {"codes": sorted(codes), "position": position, "id": delivery_id, "most": limit}
    if service is not None:
        values["service"] = service
    if rank is not None:
        values["rank"] = rank
    statement = _inbox(every, service is not None, rank is not None)
    return connection.execute(statement, values).all()


def of_message(connection: Connection, message_id: str) -> Sequence[Row[Any]]:
    """Return every delivery of a message, in order."""
    return connection.execute(
        select(t.delivery).where(d.message_id == message_id).order_by(d.position, d.id)
    ).all()


def recipients(connection: Connection, message_id: str) -> set[str]:
    """Return the organisations a message was or is to be delivered to."""
    return set(
        connection.execute(select(d.ods).where(d.message_id == message_id).distinct()).scalars()
    )


def attempts_of(connection: Connection, ids: Sequence[str]) -> Sequence[Row[Any]]:
    """Return every attempt at these deliveries, in order."""
    if not ids:
        return []
    return connection.execute(
        select(t.attempt)
        .where(t.attempt.c.delivery_id.in_(list(ids)))
        .order_by(t.attempt.c.started_at)
    ).all()


def listing(
    connection: Connection, *, state: str | None, ods: str | None, limit: int
) -> Sequence[Row[Any]]:
    """Return deliveries for operators, most urgent first."""
    wanted = []
    if state is not None:
        wanted.append(d.state == state)
    if ods is not None:
        wanted.append(d.ods == ods)
    return connection.execute(
        select(t.delivery)
        .where(and_(True, *wanted))
        .order_by(d.priority_rank, d.due_at)
        .limit(limit)
    ).all()


def open_by_organisation(connection: Connection) -> dict[str, int]:
    """Return how many deliveries are not done, by the ODS code that they go to."""
    rows = connection.execute(
        select(d.ods, func.count()).where(d.state != "done").group_by(d.ods).order_by(d.ods)
    )
    return dict(rows.all())


def retry(tx: Tx, row: Row[Any]) -> None:
    """Make a dead or waiting delivery due now, with its 72 hours begun anew.

    One that is done, or held, stays so: its lane may have gone on.
    """
    due = {"state": "due", "held_reason": None, "settled_at": None}
    tx.execute(_RETRY, {"this": row.id, "due_at": tx.now, "first_due_at": tx.now, **due})
    tx.wake(DELIVERIES)
