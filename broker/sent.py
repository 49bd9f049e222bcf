"""A message as it stands, with all that hangs on it; and how a version of it stops standing."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from broker import moves, referral, telling
from broker.errors import Conflict, Stale
from broker.events import Destination, Kind, Role, Route
from broker.moves import Found
from broker.preparing import ABOUT, WANT
from broker.store import ledger, messages, referrals
from broker.store.tx import Connection, Tx
from broker.telling import About
from broker.vault import Vault


@dataclass(frozen=True, slots=True)
class Sent:
    """A message as it stands: its row, its content, where it went, and what was joined to it.

    `referrals` may still move, `sent_to` is where their sender sent each that was sent on since, by
    its subject; `ended` have had their course. Both in the order of their messages.
    `asked_as` is, by the subject of each, as what it was asked for (`preparing.asked_as`); ""
    where that is not known. `answers` is the row of the referral whose loop the message closes.
    `first_at` is when its first version was accepted.
    """

    message: Any
    version: int
    about: About
    routes: tuple[Route, ...]
    referrals: tuple[Found, ...]
    sent_to: Mapping[str, Destination]
    ended: tuple[Found, ...]
    asked_as: Mapping[str, str]
    answers: Any | None
    first_at: datetime

    @property
    def under_way(self) -> frozenset[Destination]:
        """Where the referrals of it that go on are, and where they were sent first."""
        now = (Destination(one.row.receiver, one.row.receiver_service) for one in self.referrals)
        return frozenset((*now, *self.sent_to.values()))

    @property
    def places(self) -> list[Destination]:
        return [route.destination for route in self.routes]


def read(
    connection: Connection, vault: Vault, message_id: str, own: Collection[str]
) -> Sent | None:
    """Read a message that is to be corrected or taken back; None where there is none.

    `own` are the ODS codes that the caller answers for: what they sent under it is joined to it.
    Raises Conflict where nothing was sent under it.
    """
    known = messages.get(connection, message_id)
    if known is not None and known.event_id is None:
        raise Conflict(
            "Nothing was sent under this message: there is nothing to take back, close or correct. "
            "To send it after all, post it under a reference of its own."
        )
    about = telling.about(connection, vault, message_id)
    if about is None:
        return None
    message = about.message
    event = ledger.event(connection, message.event_id)
    subject = ledger.subject(connection, message.subject_id)
    together = messages.joined(connection, message.correlation_id)
    joined = [
        found
        for other in together
        if other.kind == Kind.REFERRAL and other.sender in own and other.status == "sent"
        for found in [moves.find(connection, vault, other.subject_id)]
        if found is not None
    ]
    routes = event.routes if event else ()
    live = tuple(found for found in joined if found.row.state in referral.OPEN)
    ended = tuple(found for found in joined if found.row.state not in referral.OPEN)
    first_at = together[0].accepted_at
    sent_to = {
        one.row.subject_id: _first_place(connection, one.row.subject_id)
        for one in live
        if one.row.redirected_to is not None
    }
    asked_as = {
        one.row.subject_id: ledger.events_of(connection, one.row.subject_id)[0].facts.get(WANT, "")
        for one in joined
    }
    closed = event.facts.get(ABOUT) if event else None
    answers = referrals.get(connection, closed) if closed else None
    return Sent(
        message, subject.version, about, routes, live, sent_to, ended, asked_as, answers, first_at
    )


def _first_place(connection: Connection, subject: str) -> Destination:
    """Return where a referral was sent first; an amendment of its sender goes nowhere else."""
    first = ledger.events_of(connection, subject)[0]
    return next(route.destination for route in first.routes if route.role is Role.ACTING)


def check_standing(message: Any) -> None:
    """Raise Conflict unless this was posted, and is the version that stands."""
    if message.body_hmac is None:
        raise Conflict(
            f"Message {message.id} is itself the word about another one: a notice or a withdrawal "
            "is not changed, withdrawn or closed."
        )
    if message.status not in {"sent", "closed"}:
        raise Conflict(
            f"Message {message.id} is {message.status}; only the version that stands can be "
            "changed. GET /messages?reference=… finds it."
        )


def lock(tx: Tx, sent: Sent) -> None:
    """Hold the message's subject. Raises Stale if it changed since it was read."""
    subject = tx.lock_subject(sent.message.subject_id)
    if subject is None or subject.version != sent.version:
        raise Stale("The message changed meanwhile. Read it again, then decide.")


def retire(tx: Tx, old: Any, status: str) -> None:
    """Let a version stand no longer, and count that as a change of its subject."""
    messages.retire(tx, old.id, status)
    tx.bump(old.subject_id)
