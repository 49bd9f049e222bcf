"""Acknowledgements: a practice files an update or rejects it, and the sender hears which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from broker import deadlines, notices, telling
from broker.access import Caller
from broker.audit import Entry
from broker.composition import JSON
from broker.core import Core
from broker.crashpoints import crashpoint
from broker.errors import Conflict, NotFound, Problem, Refused
from broker.events import (
    UPDATE_ACKNOWLEDGED,
    Destination,
    Event,
    Kind,
    Priority,
    Role,
    caused_id,
    digest,
)
from broker.reading import unknown_code
from broker.store import deliveries, messages, referrals, work
from broker.store.messages import NewMessage
from broker.store.tx import Connection, Tx
from broker.telling import About, Teller
from broker.vault import Binding
from fhir_profiles import codes, strict_json

REASONS: Final = "rejection-reason"
# This reason leaves the patient's record without the update: it stays on the sender's list.
STAYS_OPEN: Final = "not-registered-here"
LONGEST_NOTE: Final = 4_000
NOTE: Final = "note"


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What a receiver decided about an update."""

    outcome: str
    reason: str | None = None
    note: str = ""


def read(body: Mapping[str, Any]) -> Acknowledgement:
    """Read what was put. Raises Refused with every problem at once."""
    reasons = codes.system(REASONS)
    problems = [
        Problem(
            name, "unknown-field", f"There is no field {name}.", "It has: outcome, reason, note."
        )
        for name in body
        if name not in {"outcome", "reason", "note"}
    ]
    outcome, reason, note = body.get("outcome"), body.get("reason"), body.get("note", "")
    listed = ", ".join(reasons.displays)
    if outcome not in ("filed", "rejected"):  # a tuple: what was put may be anything
        problems.append(unknown_code("outcome", outcome, "Give filed or rejected."))
    elif outcome == "filed" and reason is not None:
        problems.append(
            Problem("reason", "not-allowed", "A filed update has no reason.", "Leave it out.")
        )
    elif outcome == "rejected" and (not isinstance(reason, str) or reason not in reasons):
        problems.append(unknown_code("reason", reason, f"Give one of: {listed}."))
    if not isinstance(note, str) or len(note) > LONGEST_NOTE:
        problems.append(
            Problem("note", "invalid", f"note is a text of up to {LONGEST_NOTE}.", "Shorten it.")
        )
    if problems:
        raise Refused.all_of(problems)
    return Acknowledgement(str(outcome), reason, str(note))


@dataclass(frozen=True, slots=True)
class _Found:
    delivery: Any
    about: About
    decision: Any
    note_key: Any


class Acknowledging:
    """Takes the decisions of receivers about updates."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def decide(
        self, caller: Caller, delivery_id: str, said: Acknowledgement
    ) -> dict[str, Any]:
        """Write a decision; durable on return. The same again gets the same answer."""
        found = await self._core.store.read(lambda c: self._find(c, delivery_id))
        if found is None:
            raise NotFound("There is no such delivery in this inbox.")
        if found.delivery.kind != Kind.UPDATE:
            raise Conflict(
                f"This is a {found.delivery.kind}: only an update is filed or rejected. A referral "
                "is decided with POST /referrals/{id}/{move}; a notice needs its receipt only."
            )
        now = datetime.now(UTC)
        event_id = caused_id(delivery_id, "acknowledging", found.delivery.ods, "decision")
        directory = await self._core.directory.current()
        teller = Teller(self._core.vault, directory, self._core.source, now)
        who = Destination(found.delivery.ods, found.delivery.service)
        if caller.organisation != who.ods:  # its successor, in its place
            who = Destination(caller.organisation)
        told = self._notices(teller, found, said, event_id, directory.name(who))
        note = self._sealed_note(found, said, event_id, now)
        said_hmac = self._core.vault.mac(f"acknowledgement|{delivery_id}", _content(said))

        def write(tx: Tx) -> dict[str, Any]:
            return self._write(tx, caller, delivery_id, said, said_hmac, event_id, told, note)

        answer = await self._core.store.write(write)
        crashpoint("decision.written")
        return answer

    def _find(self, connection: Connection, delivery_id: str) -> _Found | None:
        row = deliveries.get(connection, delivery_id)
        if row is None or row.message_id is None:
            return None
        about = telling.about(connection, self._core.vault, row.message_id)
        if about is None:
            return None
        key = messages.key_of(connection, self._core.vault, about.message.key_id)
        return _Found(row, about, referrals.decision(connection, delivery_id), key)

    def _notices(
        self,
        teller: Teller,
        found: _Found,
        said: Acknowledgement,
        event_id: str,
        who: str,
    ) -> list[NewMessage]:
        row, message = found.delivery, found.about.message
        if said.outcome == "filed":
            topic, reason = "update-filed", None
            text = f"{who} filed your update in the patient's record."
        else:
            topic, reason = "update-rejected", (REASONS, said.reason or "")
            display = codes.system(REASONS).display(said.reason or "")
            text = f"{who} rejected your update: {display}."
        return teller.notices(
            found.about,
            cause=event_id,
            topic=topic,
            text=text,
            by=row.ods,
            to=[(Destination(message.sender), "sent the update")],
            reason=reason,
            advice=said.note or None,
        )

    def _sealed_note(
        self, found: _Found, said: Acknowledgement, event_id: str, now: datetime
    ) -> list[dict[str, Any]]:
        if found.note_key is None:
            return []
        body = _content(said)
        binding = Binding(event_id, NOTE, 1, found.delivery.ods, JSON)
        return [messages.sealed(self._core.vault, found.note_key, binding, body, digest(body), now)]

    def _write(
        self,
        tx: Tx,
        caller: Caller,
        delivery_id: str,
        said: Acknowledgement,
        said_hmac: str,
        event_id: str,
        told: Sequence[NewMessage],
        note: Sequence[dict[str, Any]],
    ) -> dict[str, Any]:
        row = deliveries.lock(tx, delivery_id)
        if row is None:
            raise NotFound("There is no such delivery in this inbox.")
        known = referrals.decision(tx.connection, delivery_id)
        if known is not None:
            if known.said_hmac != said_hmac:
                raise Conflict(
                    f"This update was already {known.outcome}. A decision stands once made, with "
                    "its reason and its note; nothing of this one was stored. What the sender must "
                    "still know, tell by telephone."
                )
            return _answer(delivery_id, known.outcome, known.reason, known.decided_at)
        if row.received_at is None:
            raise Conflict(
                "Nothing proves yet that you stored this delivery. First "
                f"PUT /inbox/{delivery_id}/receipt, then decide."
            )
        facts = {"outcome": said.outcome, "reason": said.reason or "", "by": row.ods}
        self._record(tx, caller, row, said, said_hmac, event_id, facts)
        messages.put_payloads(tx, note)
        tx.audit(Entry("update.decided", caller.client_id, row.ods, "delivery", delivery_id, facts))
        if row.role == Role.ACTING:
            work.clear(tx, row.message_id, deadlines.DeadlineKind.FILED)
        if said.reason == STAYS_OPEN:
            _keep_open(tx, row)
        notices.put(tx, told)
        return _answer(delivery_id, said.outcome, said.reason, tx.now)

    def _record(
        self,
        tx: Tx,
        caller: Caller,
        row: Any,
        said: Acknowledgement,
        said_hmac: str,
        event_id: str,
        facts: Mapping[str, str],
    ) -> None:
        referrals.put_decision(
            tx,
            {
                "delivery_id": row.id,
                "message_id": row.message_id,
                "subject_id": row.subject_id,
                "organisation": caller.organisation,
                "client_id": caller.client_id,
                "outcome": said.outcome,
                "reason": said.reason,
                "said_hmac": said_hmac,
                "event_id": event_id,
                "decided_at": tx.now,
            },
        )
        tx.record(
            Event(
                id=event_id,
                type=UPDATE_ACKNOWLEDGED,
                source=self._core.source,
                subject=row.subject_id,
                time=tx.now,
                dataschema="",
                causation_id=row.event_id,
                priority=Priority(row.priority),
                facts={**facts, "about": row.message_id or "", "delivery": row.id},
            )
        )
        tx.bump(row.subject_id)


def _content(said: Acknowledgement) -> bytes:
    return strict_json.dumps({"outcome": said.outcome, "reason": said.reason, "note": said.note})


def _keep_open(tx: Tx, row: Any) -> None:
    """Leave a rejected update on its sender's list until it is sent again or closed.

    Only one that stands: nobody sends again or closes a withdrawal, or what was replaced or closed.
    """
    message = messages.get(tx.connection, row.message_id)
    if message is None or message.status != "sent" or message.body_hmac is None:
        return
    work.put_item(
        tx,
        STAYS_OPEN,
        row.message_id,
        message_id=row.message_id,
        delivery_id=row.id,
        organisation=message.sender,
        priority=row.priority,
    )


def _answer(
    delivery_id: str, outcome: str, reason: str | None, decided_at: datetime
) -> dict[str, Any]:
    return {
        "delivery": delivery_id,
        "outcome": outcome,
        "reason": reason,
        "decided_at": decided_at.isoformat(),
    }
