"""Receipts: a destination's proof that it stored a delivery, and what follows from it.

The same for a webhook's answer, a PUT in the inbox and a BaRS answer. Level 2 of three: a
receipt says that the bytes are stored, not that anybody acted.
"""

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import structlog

from broker import notices, referral, telling
from broker.audit import Entry
from broker.core import Core
from broker.crashpoints import crashpoint
from broker.deadlines import RECEIPT_CLOCKS
from broker.directory import Directory
from broker.errors import Stale
from broker.events import (
    DELIVERY_RECEIVED,
    REFERRAL_MOVED,
    Destination,
    Event,
    Kind,
    Priority,
    Role,
    caused_id,
    uuid7,
)
from broker.ports import Receipt
from broker.store import deliveries, referrals, work
from broker.store.messages import NewMessage
from broker.store.tx import Connection, Tx
from broker.telling import About, Teller
from broker.vault import Tampered

log = structlog.get_logger()


def matches(receipt: Receipt, row: Any, directory: Directory) -> bool:
    """Whether a receipt names this very delivery, these very bytes and who may confirm it."""
    named = (receipt.delivery, receipt.digest) == (row.id, row.digest)
    return named and receipt.ods in signers(row, directory)


def signers(row: Any, directory: Directory) -> set[str]:
    """Return whose code a receipt may name: the destination's, or that of who stands for it."""
    successor = directory.resolve_successor(row.ods)
    return {row.ods} if successor is None else {row.ods, successor.ods}


async def late_word(core: Core, row: Any) -> list[NewMessage] | None:
    """Draw up the word to the sender that what it was told was missing has arrived after all.

    None where it was told nothing (`settle` sees to it that this still holds when it writes); an
    empty list where the message cannot be opened: the receipt counts all the same.
    """
    if row.role == Role.NOTICE or row.received_at is not None:
        return None

    def read(connection: Connection) -> tuple[About, Any] | None:
        kind = RECEIPT_CLOCKS[Role(row.role)]
        about = telling.raised(connection, core.vault, row.message_id, kind)
        return None if about is None else (about, deliveries.get(connection, row.id))

    try:
        found = await core.store.look_up(read)
    except Tampered:
        log.error("late-word.tampered", delivery_id=row.id)
        return []
    if found is None:
        return None
    about, current = found
    known = await core.directory.current()
    who = known.name(Destination(row.ods, row.service))
    after = "it was given up" if current.done_reason == deliveries.GIVEN_UP else "its deadline"
    return Teller(core.vault, known, core.source, datetime.now(UTC)).notices(
        about,
        cause=row.id,
        topic="received-late",
        text=f"{who} has now stored your {about.message.kind}, after {after}.",
        by=row.ods,
        to=[(Destination(about.message.sender), "was told that it had not been received")],
    )


async def reference_word(core: Core, row: Any, reference: str | None) -> list[NewMessage]:
    """Draw up the word to the sender by which reference its receiver knows what it was sent.

    Empty where there is nothing to tell, or the message cannot be opened: the receipt counts all
    the same.
    """
    if reference is None or row.role == Role.NOTICE or row.received_at is not None:
        return []
    try:
        about = await core.store.read(lambda c: telling.about(c, core.vault, row.message_id))
    except Tampered:
        log.error("reference-word.tampered", delivery_id=row.id)
        return []
    if about is None:
        return []
    known = await core.directory.current()
    who = known.name(Destination(row.ods, row.service))
    return Teller(core.vault, known, core.source, datetime.now(UTC)).notices(
        about,
        cause=row.id,
        topic="receiver-reference",
        text=f"{who} has your {about.message.kind}; its reference is {reference}.",
        by=row.ods,
        to=[(Destination(about.message.sender), "sent what its receiver has a reference for")],
    )


async def take(core: Core, row: Any, receipt: Receipt, *, via: str, client: str) -> bool:
    """Write a receipt that came by itself. Durable on return; safe to repeat.

    Returns whether it matches.
    """
    good = matches(receipt, row, await core.directory.current())
    while True:
        late = await late_word(core, row) if good else None

        def write(tx: Tx, late: Sequence[NewMessage] | None = late) -> bool:
            locked = deliveries.lock(tx, row.id)
            settle(
                tx,
                locked,
                receipt,
                good=good,
                via=via,
                client=client,
                source=core.source,
                late=late,
            )
            return good

        with contextlib.suppress(Stale):
            return await core.store.write(write)


def settle(
    tx: Tx,
    row: Any,
    receipt: Receipt,
    *,
    good: bool,
    via: str,
    client: str,
    source: str,
    late: Sequence[NewMessage] | None,
    word: Sequence[NewMessage] = (),
) -> None:
    """Write a receipt and what follows from it; `good` is whether it `matches`.

    The caller has locked the delivery (`deliveries.lock`). A second matching receipt changes
    nothing. One that does not match is kept as evidence, counts as a bare 2xx, and is on the
    work-list at once, unless the delivery was already proved stored. `late` is what `late_word`
    drew up; raises Stale where the sender was told of a missed deadline since. `word` are notices
    that go with the receipt: with the first that matches, and so once.
    """
    crashpoint("receipt.before-write")
    referrals.put_receipt(
        tx,
        {
            "id": uuid7(),
            "delivery_id": row.id,
            "named_delivery": receipt.delivery[:64],
            "named_digest": receipt.digest[:128],
            "named_ods": receipt.ods[:32],
            "via": via,
            "matches": good,
            "client_id": client,
            "received_at": tx.now,
        },
    )
    if not good:
        _mismatch(tx, row, client)
        return
    if row.received_at is not None:
        _receive_again(tx, row, client)
        return
    if row.state == "done":
        deliveries.note_received(tx, row.id)  # given up or superseded, and it arrived after all
    else:
        deliveries.finish(tx, row, "receipt")
    tx.audit(Entry("delivery.received", client, row.ods, "delivery", row.id, {"via": via}))
    work.close_items(tx, "received", delivery_id=row.id)
    deliveries.meet_clock(tx, row.message_id, row.role)
    _record_received(tx, row, via, source)
    # Only now: whoever raises the deadline meanwhile has done so, or finds it met.
    if late is None and _sender_was_told(tx, row):
        raise Stale("Its deadline has passed meanwhile.")
    notices.put(tx, [*(late or ()), *word])
    if row.role == Role.ACTING and row.kind == Kind.REFERRAL:
        _receive(tx, row, source)
    crashpoint("receipt.written")


def _receive_again(tx: Tx, row: Any, client: str) -> None:
    """End a delivery that was sent again. That it was received was recorded the first time."""
    if row.state != "done":
        deliveries.finish(tx, row, "receipt")
        tx.audit(Entry("delivery.received-again", client, row.ods, "delivery", row.id))
        work.close_items(tx, "received", delivery_id=row.id)


def _sender_was_told(tx: Tx, row: Any) -> bool:
    if row.role == Role.NOTICE or row.message_id is None:
        return False
    clock = RECEIPT_CLOCKS[Role(row.role)]
    return any(
        one.kind == clock and one.raised_at is not None
        for one in work.deadlines_of(tx.connection, [row.message_id])
    )


def _mismatch(tx: Tx, row: Any, client: str) -> None:
    tx.audit(Entry("receipt.mismatched", client, row.ods, "delivery", row.id))
    if row.received_at is not None and row.state == "done":
        return  # nothing that is said later could close an item again
    if row.state == "due" or row.held_reason == "receipt":
        deliveries.hold_for_receipt(tx, row, "receipt-mismatch")
    work.put_item(
        tx,
        work.FALSE_RECEIPT,
        row.id,
        message_id=row.message_id,
        delivery_id=row.id,
        organisation=None,
        priority=row.priority,
    )


def _record_received(tx: Tx, row: Any, via: str, source: str) -> None:
    facts = {
        "delivery": row.id,
        "about": row.message_id or "",
        "to": row.ods,
        "service": row.service,
        "digest": row.digest,
        "via": via,
    }
    tx.record(_followed(tx, row, DELIVERY_RECEIVED, "received", source, facts))


def _followed(tx: Tx, row: Any, kind: str, what: str, source: str, facts: dict[str, str]) -> Event:
    """Return the event that follows from a receipt, which is the same one however often."""
    return Event(
        id=caused_id(row.id, "receipts", row.ods, what),
        type=kind,
        source=source,
        subject=row.subject_id,
        time=tx.now,
        dataschema="",
        causation_id=row.event_id,
        priority=Priority(row.priority),
        facts=facts,
    )


def _receive(tx: Tx, row: Any, source: str) -> None:
    """The acting receiver's receipt is itself a move: requested to received."""
    found = referrals.get(tx.connection, row.subject_id)
    if found is None or found.state not in referral.MOVES["receive"].sources:
        return
    if (row.ods, row.service) != (found.receiver, found.receiver_service):
        return  # of a place that has sent it on
    facts = {
        "move": "receive",
        "from": found.state,
        "to": referral.State.RECEIVED.value,
        "by": row.ods,
        "about": row.message_id or "",
    }
    event = _followed(tx, row, REFERRAL_MOVED, "receive", source, facts)
    referrals.change(
        tx,
        row.subject_id,
        state=referral.State.RECEIVED.value,
        state_before=found.state,
        last_move="receive",
        last_move_by=row.ods,
        last_move_at=tx.now,
        last_move_hmac=None,
        last_event_id=event.id,
    )
    tx.bump(row.subject_id)
    tx.record(event)
