"""Tracking: what became of a message, in one line that a person can read, and in data.

The sender sees the whole trail; a receiver its own deliveries and the moves that it is told of;
anybody else nothing. No status claims more than was proved.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from broker import deadlines, referral
from broker.acknowledging import STAYS_OPEN
from broker.deadlines import DeadlineKind
from broker.directory import BARS, Directory
from broker.events import Destination, Kind, Priority, Recorded, Role
from broker.moves import BROKER
from broker.preparing import candidates
from broker.referral import MOVES, STAGES, Audience, Relation, State
from broker.retracting import CLOSURES
from broker.store import deliveries
from broker.trails import NO_WORDS, Trail, relation
from fhir_profiles import codes

# Here the trail of its deliveries says more of a referral than its state does.
_UNTOUCHED: Final = frozenset({State.REQUESTED, State.RECEIVED})
# Of what was withheld these are not known: nothing was read of it but whose it is.
_SENT_ON: Final = "You have sent the referral on to another place."
UNSAID: Final = frozenset(
    {"priority", "priority_in_words", "clinical_at", "pathway", "identity_verified"}
)


def view(
    trail: Trail,
    organisation: str,
    directory: Directory,
    now: datetime,
    words: Mapping[str, Mapping[str, Any]] = NO_WORDS,
) -> dict[str, Any]:
    """Return what an organisation may see of a message; `words` are for its sender alone."""
    message = trail.message
    own = directory.stands_for(organisation)
    role = relation(trail, own)
    is_sender = role is Relation.SENDER
    shown = [row for row in trail.deliveries if is_sender or row.ods in own]
    sent_on = role is Relation.ACTING and sent_on_at(trail, own)
    moves = [move for move in trail.moves if not sent_on or move.position <= sent_on]
    view: dict[str, Any] = {
        "id": message.id,
        "kind": message.kind,
        "status": message.status,
        "line": line(trail, directory, now)
        if is_sender
        else _SENT_ON
        if sent_on
        else _receivers_line(trail, shown),
        "priority": message.priority,
        "priority_in_words": Priority(message.priority).words,
        "sender": message.sender,
        "accepted_at": _time(message.accepted_at),
        "version": message.version,
        "deliveries": [_delivery(trail, row, directory, words) for row in shown],
        "moves": [_move(move, words) for move in moves if _is_told(move, role, message)],
    }
    if trail.referral is not None and not sent_on:
        view["referral"] = f"/referrals/{trail.referral.subject_id}"
        view["state"] = trail.referral.state
    if is_sender:
        view |= {
            "clinical_at": _time(message.clinical_at),
            "pathway": message.pathway,
            "identity_verified": message.identity_verified,
            "warnings": message.warnings,
            "replaces": message.replaces,
            "closed_reason": message.closed_reason,
            "deadlines": [_deadline(row, directory, now) for row in trail.deadlines],
            "next": _next(trail, directory, now),
            "candidates": candidates(trail.facts, directory),
            "telephone_calls": [
                {
                    "called_at": _time(row.called_at),
                    "outcome": row.outcome,
                    "note": words.get(row.id, {}).get("note") or None,
                }
                for row in trail.calls
            ],
            "open_items": [
                {"code": row.code, "since": _time(row.opened_at)} for row in trail.items
            ],
            "joined": [
                {"id": one.id, "kind": one.kind, "url": f"/messages/{one.id}"}
                for one in trail.joined
                if one.sender in own
            ],
        }
    return _known(message, view)


def sent_on_at(trail: Trail, own: Collection[str]) -> int:
    """Return where in the ledger these sent a referral on that is no longer theirs; else 0.

    What became of it afterwards is not for them.
    """
    if trail.referral is None or trail.referral.receiver in own:
        return 0
    moved = (one for one in reversed(trail.moves) if one.facts["move"] == "redirect")
    return next((one.position for one in moved if one.facts.get("by") in own), 0)


def _known(message: Any, shown: dict[str, Any]) -> dict[str, Any]:
    """Leave out what is not known of a message: columns hold something all the same."""
    if message.status != "withheld":
        return shown
    return {name: value for name, value in shown.items() if name not in UNSAID}


def _is_told(event: Recorded, role: Relation, message: Any) -> bool:
    """Whether a party of this message is told of a move: the two it is between see every one."""
    if message.kind != Kind.REFERRAL:
        return False
    if role in {Relation.SENDER, Relation.ACTING}:
        return True
    move = MOVES[event.facts["move"]]
    return Audience.PRACTICE in referral.told(move, Relation.BROKER, message.pathway)


def line(trail: Trail, directory: Directory, now: datetime) -> str:
    """Say in one line where a message stands, and who must act next by when."""
    message = trail.message
    if message.status == "withheld":
        is_referral = message.kind == Kind.REFERRAL
        refused = "being referred" if is_referral else "the practice being told"
        return f"Nothing was sent: the patient did not consent to {refused}."
    said = _standing(trail, directory)
    if message.status == "withdrawn":
        return f"This version was withdrawn as entered in error. {said}"
    if message.status == "replaced":
        return f"This version was replaced by /messages/{trail.replaced_by}. {said}"
    if message.status == "closed":
        return f"You closed it: {CLOSURES[message.closed_reason]}. {said}"
    waiting = _first(trail)
    if _waits_for_its_sender(trail):
        said = f"{said} It is the sender's turn."
    elif waiting is not None:
        who = directory.name_now(Destination(waiting.owner))
        late = "Overdue" if deadlines.is_overdue(waiting.due_at, now) else "Next"
        said = f"{said} {late}: {deadlines.duty(waiting.kind, who, waiting.due_at)}"
    return said


def _waits_for_its_sender(trail: Trail) -> bool:
    """Whether nobody but the sender can still do something: given up, rejected, not registered."""
    acting = [row for row in trail.deliveries if row.role == Role.ACTING]
    if any(row.done_reason == deliveries.GIVEN_UP and row.received_at is None for row in acting):
        return True
    if trail.referral is not None:
        return STAGES[State(trail.referral.state)].waits_for is Relation.SENDER
    return any(one.code == STAYS_OPEN for one in trail.items)


def _standing(trail: Trail, directory: Directory) -> str:
    message = trail.message
    acting = [row for row in trail.deliveries if row.role == Role.ACTING]
    names = ", ".join(directory.name_now(Destination(row.ods, row.service)) for row in acting)
    if trail.referral is not None and trail.referral.state not in _UNTOUCHED:
        by = trail.moves[-1].facts.get("by") if trail.moves else None
        moved = f", by {directory.name(Destination(by))}" if by and by != BROKER else ""
        return f"{STAGES[State(trail.referral.state)].words.capitalize()}{moved}."
    ids = {row.id for row in acting}
    for decision in trail.decisions:
        if decision.delivery_id not in ids:
            continue  # of a copy: that says nothing of what is asked of the acting receiver
        who = directory.name(Destination(decision.organisation))
        if decision.outcome == "filed":
            return f"{who} filed it in the patient's record."
        reason = codes.system("rejection-reason").display(decision.reason)
        return f"{who} rejected it: {reason}."
    if not acting:
        return "Accepted; not yet on its way." if message.event_id else "Nothing was sent."
    if all(row.received_at is not None for row in acting):
        confirmed = {one.delivery_id for one in trail.receipts if one.matches and one.via != BARS}
        if all(row.id in confirmed for row in acting):
            return f"{names} has stored it; nobody has acted on it yet."
        return f"{names} has it, by its endpoint's word; nobody has acted on it yet."
    if any(row.done_reason == deliveries.GIVEN_UP for row in acting):
        return f"It could not be delivered to {names} and was given up."
    if any(row.state == "dead" for row in acting):
        return f"It could not be delivered to {names}; it waits for an operator."
    if any(row.collected_at is not None for row in acting):
        return f"{names} has collected it but not confirmed that it is stored."
    answered = {one.delivery_id for one in trail.attempts if one.outcome == "answered"}
    if any(row.id in answered and row.held_reason == "receipt" for row in acting):
        return f"{names} was sent it but has not confirmed that it is stored."
    return f"Accepted; waiting for {names} to take it."


def _receivers_line(trail: Trail, shown: Sequence[Any]) -> str:
    """Say whether it still stands, and what its receiver has done with it."""
    said = [_receivers_part(trail, shown)]
    if trail.message.status in {"withdrawn", "replaced"}:
        said.insert(0, "It stands no longer: its sender has withdrawn or replaced it.")
    elif trail.referral is not None and trail.referral.state not in _UNTOUCHED:
        said.insert(0, f"The referral is {STAGES[State(trail.referral.state)].words}.")
    return " ".join(said)


def _receivers_part(trail: Trail, shown: Sequence[Any]) -> str:
    ids = {row.id for row in shown}
    for decision in trail.decisions:
        if decision.delivery_id in ids:
            return f"You have {decision.outcome} it."
    if all(row.received_at is not None for row in shown):
        return "You have confirmed that you stored it."
    return "It waits for your receipt."


def _first(trail: Trail) -> Any | None:
    """Return the deadline that comes first among those not met; of two at once, no copy's."""
    running = [row for row in trail.deadlines if row.cleared_at is None]
    waiting = [row for row in running if row.kind != DeadlineKind.REMINDED]
    copy = DeadlineKind.COPY_RECEIVED
    return min(waiting, key=lambda row: (row.due_at, row.kind == copy)) if waiting else None


def _next(trail: Trail, directory: Directory, now: datetime) -> dict[str, Any] | None:
    """Return who must act next, and by when: a deadline, or the sender without one."""
    if trail.message.status == "sent" and _waits_for_its_sender(trail):
        sender = trail.message.sender
        name = directory.name_now(Destination(sender))
        return dict.fromkeys(NEXT) | {"whose_turn": sender, "name": name, "overdue": False}
    waiting = _first(trail)
    return None if waiting is None else _deadline(waiting, directory, now)


NEXT: Final = (
    *("kind", "by", "in_words", "whose_turn", "name", "rule"),
    *("met_at", "lapsed", "overdue"),
)


def _deadline(row: Any, directory: Directory, now: datetime) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "by": _time(row.due_at),
        "in_words": deadlines.in_words(row.due_at),
        "whose_turn": row.owner,
        "name": directory.name_now(Destination(row.owner)),
        "rule": row.source,
        "met_at": None if row.lapsed else _time(row.cleared_at),
        "lapsed": row.lapsed,
        "overdue": row.cleared_at is None and deadlines.is_overdue(row.due_at, now),
    }


def _delivery(
    trail: Trail, row: Any, directory: Directory, words: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    decision = next((one for one in trail.decisions if one.delivery_id == row.id), None)
    return {
        "id": row.id,
        "organisation": row.ods,
        "service": row.service or None,
        "name": directory.name(Destination(row.ods, row.service)),
        "role": row.role,
        "reason": row.reason,
        "channel": row.channel,
        "state": row.state,
        "held_reason": row.held_reason,
        "done_reason": row.done_reason,
        "code": row.code,
        # The three levels of delivered, never mixed up.
        "accepted_at": _time(trail.message.accepted_at),
        "collected_at": _time(row.collected_at),
        "received_at": _time(row.received_at),
        "acknowledged_at": _time(decision.decided_at) if decision else None,
        "outcome": decision.outcome if decision else None,
        "outcome_reason": decision.reason if decision else None,
        "note": words.get(decision.event_id, {}).get("note") or None if decision else None,
        "attempts": [
            {
                "number": one.number,
                "at": _time(one.started_at),
                "outcome": one.outcome,
                "code": one.code,
                "http_status": one.http_status,
            }
            for one in trail.attempts
            if one.delivery_id == row.id
        ],
        # By which a BaRS receiver knows it: for the sender to read out.
        "reference": words.get(row.id, {}).get("reference"),
        "receipts": [
            {"at": _time(one.received_at), "via": one.via, "matches": one.matches}
            for one in trail.receipts
            if one.delivery_id == row.id
        ],
    }


def _move(event: Recorded, words: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    facts = event.facts
    return {
        "move": facts.get("move"),
        "from": facts.get("from"),
        "to": facts.get("to"),
        "by": facts.get("by"),
        "reason": facts.get("reason"),
        "priority": facts.get("priority"),
        "proposed": facts.get("proposed"),
        "said": words.get(event.id, {}),
        "at": _time(event.time),
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def listed(row: Any) -> dict[str, Any]:
    """Return a message as a list shows it."""
    shown = {
        "id": row.id,
        "kind": row.kind,
        "status": row.status,
        "priority": row.priority,
        "pathway": row.pathway,
        "accepted_at": _time(row.accepted_at),
        "url": f"/messages/{row.id}",
    }
    return _known(row, shown)
