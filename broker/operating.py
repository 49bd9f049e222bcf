"""What an operator does about what does not go through: try a delivery again, give it up, or make
it after all.

Giving up is final for that step: its lane goes on, and the sender of the message is told. The
reason is sealed with the message; only codes stand in columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from broker import notices, registry, telling
from broker.answers import Answers
from broker.audit import Entry
from broker.composition import JSON
from broker.core import Core
from broker.current_directory import CurrentDirectory
from broker.deadlines import RECEIPT_CLOCKS
from broker.directory import Directory
from broker.dispatch import Dispatch, FannedOut
from broker.errors import Conflict, NotFound, Problem, Refused
from broker.events import Destination, Kind, Role, caused_id, digest
from broker.store import deliveries, messages, work
from broker.store.deliveries import GIVEN_UP
from broker.store.messages import NewMessage
from broker.store.store import Store
from broker.store.tx import Tx
from broker.telling import About, Teller
from broker.vault import Binding, MessageKey, Vault
from fhir_profiles import strict_json

REASON: Final = "give-up"
LONGEST_REASON: Final = 4_000


@dataclass(frozen=True, slots=True)
class GivenUp:
    """What giving up brought: whether the sender is told, and whether the reason could be kept."""

    delivery: str
    organisation: str
    sender_is_told: bool
    reason_is_kept: bool


def retry(tx: Tx, delivery_id: str, actor: str) -> None:
    """Make a delivery that is dead, or waits for its next attempt, due at once.

    Raises NotFound, or Conflict where there is nothing to attempt.
    """
    row = deliveries.lock(tx, delivery_id)
    if row is None:
        raise _not_there(delivery_id)
    if row.state not in {"dead", "due"}:
        raise Conflict(f"The delivery {delivery_id} is not tried again: {_why_not(row)}")
    deliveries.retry(tx, row)
    work.close_items(tx, "retried", code="delivery-dead", delivery_id=delivery_id)
    facts = {"was": row.state, "code": row.code or ""}
    tx.audit(Entry("delivery.retried", actor, row.ods, "delivery", delivery_id, facts))


def give_up(
    store: Store,
    vault: Vault,
    directory: Directory,
    delivery_id: str,
    reason: str,
    *,
    actor: str,
    source: str,
) -> GivenUp:
    """End a delivery for good. Durable on return, and what waited behind it goes on.

    Raises NotFound, Refused without a reason, Conflict where it has ended already.
    """
    if not reason.strip() or len(reason) > LONGEST_REASON:
        problem = Problem("reason", "invalid", f"It is a text of up to {LONGEST_REASON} letters.")
        raise Refused("Giving up needs a reason; nothing was changed.", [problem])
    row = store.read_now(lambda connection: deliveries.get(connection, delivery_id))
    if row is None:
        raise _not_there(delivery_id)
    about, key = store.read_now(lambda connection: _message(connection, vault, row.message_id))
    now = datetime.now(UTC)
    told = _notices(Teller(vault, directory, source, now), row, about)
    kept = [_sealed(vault, key, row, reason, actor, now)] if key is not None else []
    store.write_now(lambda tx: _give_up(tx, delivery_id, actor, told, kept))
    return GivenUp(delivery_id, row.ods, bool(told), bool(kept))


async def fan_out(
    store: Store, vault: Vault, event_id: str, *, actor: str, source: str
) -> FannedOut:
    """Make the deliveries of an event that could not be made before. Durable on return.

    Raises NotFound.
    """
    core = Core(store, vault, CurrentDirectory(store), Answers(store, vault), source)
    consumers = tuple(registry.load().consumers.values())
    return await Dispatch(core, consumers).again(event_id, actor)


def _message(
    connection: Any, vault: Vault, message_id: str | None
) -> tuple[About | None, MessageKey | None]:
    about = telling.about(connection, vault, message_id) if message_id is not None else None
    if about is None or about.message.key_id is None:
        return about, None
    return about, messages.key_of(connection, vault, about.message.key_id)


def _notices(teller: Teller, row: Any, about: About | None) -> list[NewMessage]:
    """Tell the sender; but never send a notice about a notice."""
    if about is None or about.message.kind == Kind.NOTICE:
        return []
    to = Destination(row.ods, row.service)
    text = (
        f"The broker has given up delivering your {about.message.kind} to "
        f"{teller.directory.name(to)}: nothing proves that it is stored there. Please make sure "
        f"that the patient is seen to. {teller.directory.whom_to_telephone(to, teller.at)}"
    )
    return teller.notices(
        about,
        cause=caused_id(row.id, "operating", row.ods, GIVEN_UP),
        topic="delivery-failed",
        text=text,
        by=row.ods,
        to=[(Destination(about.message.sender), "sent the message that was given up")],
    )


def _sealed(
    vault: Vault, key: MessageKey, row: Any, reason: str, actor: str, now: datetime
) -> dict[str, Any]:
    body = strict_json.dumps({"reason": reason, "by": actor})
    binding = Binding(row.id, REASON, 1, row.ods, JSON)
    return messages.sealed(vault, key, binding, body, digest(body), now)


def _give_up(
    tx: Tx,
    delivery_id: str,
    actor: str,
    told: Sequence[NewMessage],
    kept: Sequence[dict[str, Any]],
) -> None:
    row = deliveries.lock(tx, delivery_id)
    if row is None:
        raise _not_there(delivery_id)
    if row.state == "done":
        raise Conflict(f"The delivery {delivery_id} is not given up: {_why_not(row)}")
    deliveries.finish(tx, row, GIVEN_UP, code=row.code)
    messages.put_payloads(tx, kept)
    facts = {"was": row.held_reason or row.state, "code": row.code or ""}
    tx.audit(Entry("delivery.given-up", actor, row.ods, "delivery", delivery_id, facts))
    work.close_items(tx, GIVEN_UP, delivery_id=delivery_id)
    if row.message_id is not None:
        _stop_clock(tx, row)
    notices.put(tx, told)


def _stop_clock(tx: Tx, row: Any) -> None:
    """Once nothing in this role is waited for any more, its receipt is overdue no longer: the
    sender is told now, and told again only if a late receipt comes after all."""
    waited_for = [
        other
        for other in deliveries.of_message(tx.connection, row.message_id)
        if other.role == row.role and other.id != row.id and other.state != "done"
    ]
    if waited_for:
        return
    clock = RECEIPT_CLOCKS[Role(row.role)]
    for deadline in work.deadlines_of(tx.connection, [row.message_id]):
        if deadline.kind == clock:
            work.raise_deadline(tx, deadline.id)
            work.close_items(tx, GIVEN_UP, object_id=deadline.id)


def _why_not(row: Any) -> str:
    if row.state == "done":
        return f"it is done ({row.done_reason})."
    if row.held_reason == "predecessor":
        return "it waits for the step before it, which must be retried or given up first."
    if row.held_reason == "receipt":  # sent or not, it stands there: so much is always true
        return "it stands in the inbox of its destination, waiting to be confirmed as stored."
    return f"it is held ({row.held_reason})."


def _not_there(delivery_id: str) -> NotFound:
    return NotFound(f"There is no delivery {delivery_id}.")
