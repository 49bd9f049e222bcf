"""What a notice says, drawn up from the message it is about: opened once, addressed to each party.

Reads first, then composes; nothing here writes. The notices it returns are stored by the caller in
the transaction of what they tell of.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from broker import notices, routing
from broker.composition import CONTENT
from broker.deadlines import DeadlineKind
from broker.directory import Directory
from broker.events import Destination, Kind, Priority, highest
from broker.ports import Endpoint
from broker.store import messages, work
from broker.store.messages import NewMessage
from broker.store.tx import Connection
from broker.vault import Vault
from fhir_profiles import focus, strict_json
from fhir_profiles.bars import incoming
from fhir_profiles.bars.incoming import Target
from fhir_profiles.message import Site

BARS_DOOR: Final = "bars"
"""The door of messages whose content is what came in, with its header."""


@dataclass(frozen=True, slots=True)
class About:
    """The message that something is told of, with its content in the clear."""

    message: Any
    content: bytes | None

    @property
    def original(self) -> focus.Original:
        kind = "ServiceRequest" if self.message.kind == Kind.REFERRAL else "Communication"
        return focus.Original(self.message.id, kind, content=self.content)


def about(connection: Connection, vault: Vault, message_id: str) -> About | None:
    """Open the message that something is to be told of; None where there is none."""
    message = messages.get(connection, message_id)
    if message is None or message.event_id is None:
        return None
    content = messages.payload(connection, vault, message.event_id, CONTENT)
    return About(message, content.body if content else None)


def raised(
    connection: Connection, vault: Vault, message_id: str | None, kind: DeadlineKind
) -> About | None:
    """Open a message whose sender was told that a deadline of this kind passed; else None."""
    if message_id is None:
        return None
    was_raised = any(
        row.kind == kind and row.raised_at is not None
        for row in work.deadlines_of(connection, [message_id])
    )
    return about(connection, vault, message_id) if was_raised else None


def source_of(content: bytes | None) -> Target | None:
    """Return where the sender of a BaRS message is to be answered, as its header says it."""
    return None if content is None else incoming.read(strict_json.loads(content)).source


def replies_to(sender: Destination, source: Target | None, known: Directory) -> Destination:
    """Return where a BaRS sender is told: at its `source`, if that is its own and takes notices."""
    asked = known.by_target(source.system, source.value) if source is not None else None
    if asked is None or asked.ods != sender.ods:
        return sender
    is_reached = isinstance(routing.recheck(asked, Kind.NOTICE, known), Endpoint)
    return asked if is_reached else sender


@dataclass(frozen=True, slots=True)
class Teller:
    """Draws notices up: with whose keys, in whose name, and at which time."""

    vault: Vault
    directory: Directory
    source: str
    at: datetime

    def notices(
        self,
        what: About,
        *,
        cause: str,
        topic: str,
        text: str,
        by: str,
        to: Iterable[tuple[Destination, str]],
        reason: tuple[str, str] | None = None,
        advice: str | None = None,
    ) -> list[NewMessage]:
        """Return a Communication to each of `to` (destination, why it is told)."""
        made = []
        for place, why in to:
            destination = self._reached(what, place)
            message_id, _ = notices.ids(cause, destination, topic)
            content = focus.notice(
                message_id,
                topic=topic,
                text=text,
                sent=self.at,
                sender=self._site(by),
                receiver=self._site(destination.ods),
                original=what.original,
                subject=what.message.subject_id,
                reason=reason,
                advice=advice,
            )
            made.append(self._message(what, cause, topic, destination, by, content, why))
        return made

    def moves(
        self,
        what: About,
        *,
        cause: str,
        state: str,
        receiver: str,
        by: str,
        to: Iterable[tuple[Destination, str]],
        reason: str | None = None,
        advice: str | None = None,
        priority: Priority | None = None,
        supersedes: bool = False,
    ) -> list[NewMessage]:
        """Return the Task that tells a referral's move, to each of `to`.

        `priority` is how urgent it is taken after that, if not as its message says. One that
        supersedes ends what was not yet sent to them of this referral.
        """
        topic = "referral-moved"
        made = []
        for place, why in to:
            destination = self._reached(what, place)
            message_id, _ = notices.ids(cause, destination, topic)
            content = self.task(
                what,
                message_id,
                state=state,
                receiver=receiver,
                reason=reason,
                advice=advice,
                priority=priority,
            )
            made.append(
                self._message(
                    what, cause, topic, destination, by, content, why, priority, supersedes
                )
            )
        return made

    def task(
        self,
        what: About,
        message_id: str,
        *,
        state: str,
        receiver: str,
        reason: str | None = None,
        advice: str | None = None,
        priority: Priority | None = None,
    ) -> focus.Content:
        """Return a referral's Task in the state that it has now."""
        return focus.task(
            message_id,
            referral=what.message.subject_id,
            state=state,
            moved=self.at,
            requester=self._site(what.message.sender),
            owner=self._site(receiver),
            original=what.original,
            reason=reason,
            advice=advice,
            priority=(priority or Priority(what.message.priority)).value,
        )

    def _reached(self, what: About, place: Destination) -> Destination:
        """Return where a party is told: a BaRS sender at the address that it asked to be answered
        at, where that is its own and takes notices."""
        if place != Destination(what.message.sender) or what.message.door != BARS_DOOR:
            return place
        return replies_to(place, source_of(what.content), self.directory)

    def _message(
        self,
        what: About,
        cause: str,
        topic: str,
        to: Destination,
        by: str,
        content: focus.Content,
        why: str,
        priority: Priority | None = None,
        supersedes: bool = False,
    ) -> NewMessage:
        return notices.prepare(
            self.vault,
            what.message,
            cause=cause,
            topic=topic,
            to=to,
            by=by,
            content=content.body,
            focus=content.focus,
            reason=why,
            source=self.source,
            now=self.at,
            priority=highest(Priority(what.message.priority), *([priority] if priority else [])),
            supersedes=supersedes,
        )

    def _site(self, ods: str) -> Site:
        party = self.directory.party(Destination(ods))
        return Site(party.ods, party.name)
