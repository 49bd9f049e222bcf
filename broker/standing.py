"""Where a referral stands: its state, whose turn it is, and by which door each move is made."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from broker import moves, referral
from broker.directory import Directory
from broker.events import Role
from broker.referral import Door, Move, State
from broker.store import deliveries, messages
from broker.store.tx import Connection
from fhir_profiles.pathways.catalogue import catalogue


def ways(connection: Connection, row: Any, doors: Mapping[str, str]) -> dict[Door, str]:
    """Return where the moves are made that have a door elsewhere; `doors` are the pillars' by name.

    What has not yet reached its receiver's inbox cannot be confirmed there.
    """
    found: dict[Door, str] = {}
    for one in deliveries.of_message(connection, row.message_id):
        if one.role == Role.ACTING:
            found[Door.RECEIPT] = f"/inbox/{one.id}/receipt"
    message = messages.get(connection, row.message_id)
    if message is not None and message.door in doors:
        posted = messages.posted_with(connection, message)
        found[Door.CORRECTION] = f"{doors[message.door]}/{posted}"
    return found


def view(
    row: Any,
    organisation: str,
    directory: Directory,
    now: datetime,
    ways: Mapping[Door, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return where a referral stands, and what this organisation may do about it, and how."""
    state = State(row.state)
    stage = referral.STAGES[state]
    context = moves.context(row, organisation, directory, now)
    allowed = {
        move.name: move
        for by in moves.relations(row, organisation, directory)
        for move in referral.allowed(state, by, context)
    }
    return {
        "id": row.subject_id,
        "state": row.state,
        "state_in_words": stage.words,
        "waits_for": stage.waits_for.words if stage.waits_for else None,
        "allowed_moves": [
            _shown(move, method, url)
            for move in allowed.values()
            for method, url in [_way(move, row.subject_id, ways)]
            if url is not None
        ],
        "convert": _conversion(row, stage.waits_for is not None),
        "message": row.message_id,
        "sender": row.sender,
        "receiver": row.receiver,
        "service": row.receiver_service or None,
        "priority": row.priority,
        "priority_asked": row.priority_asked or row.priority,
        "priority_proposed": row.priority_proposed,
        "pathway": row.pathway,
        "version": row.version,
        "last_move": row.last_move,
        "last_moved_at": row.last_move_at.isoformat() if row.last_move_at else None,
    }


def _conversion(row: Any, is_open: bool) -> str | None:
    """Return where a referral is made of it, if it is a request for advice that waits."""
    entry = catalogue().entries.get(row.pathway)
    if entry is None or not entry.becomes_referral or not is_open:
        return None
    return f"/referrals/{row.subject_id}/convert"


def _way(move: Move, subject: str, ways: Mapping[Door, str]) -> tuple[str, str | None]:
    if move.door is Door.MOVE:
        return "POST", f"/referrals/{subject}/{move.name}"
    return "PUT", ways.get(move.door)


def _shown(move: Move, method: str, url: str) -> dict[str, Any]:
    return {
        "move": move.name,
        "method": method,
        "url": url,
        "carries": [
            {
                "name": item.name,
                "what": item.words,
                "required": item.required,
                "one_of": dict(item.codes) if item.codes else None,
            }
            for item in move.carries
        ],
    }
