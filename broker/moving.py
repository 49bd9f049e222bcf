"""Moves of a referral: one function for every move, by the table in `broker.referral`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Final

from sqlalchemy import Connection

from broker import deadlines, move_content, notices, referral, telling
from broker.access import Caller
from broker.answers import ROLE, Answer, Answers, Claimed
from broker.audit import Entry
from broker.composition import CONTENT, FHIR_JSON, JSON, SCHEMA
from broker.crashpoints import crashpoint
from broker.current_directory import CurrentDirectory
from broker.directory import Directory
from broker.errors import Gone, NotFound, PreconditionRequired, Refused, Stale
from broker.events import REFERRAL_MOVED, Destination, Event, Priority, caused_id, digest
from broker.reading import read_object
from broker.referral import Audience, Relation, State
from broker.store import messages, referrals, work
from broker.store.messages import NewMessage
from broker.store.store import Store, Tx
from broker.telling import About, Teller
from broker.vault import Binding, MessageKey, Vault
from fhir_profiles import strict_json

SAID: Final = "move"


@dataclass(frozen=True, slots=True)
class Asked:
    """A move that somebody asks for: which, with what content, and against which version."""

    caller: Caller
    subject: str
    move: str
    key: str | None
    body: bytes = field(repr=False)
    version: int | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    row: Any
    about: About
    key: MessageKey
    repeated: Answer | None


@dataclass(frozen=True, slots=True)
class _Made:
    """A move that the state machine allows, ready to be written."""

    move: referral.Move
    content: Mapping[str, Any]
    organisation: str
    client: str
    state: State
    event_id: str
    said: bytes
    said_hmac: str
    now: datetime

    def changes(self, row: Any) -> dict[str, Any]:
        """Return what changes in the referral's row, and its version after."""
        return {
            "state": self.state.value,
            "state_before": row.state,
            "last_move": self.move.name,
            "last_move_by": self.organisation,
            "last_move_at": self.now,
            "last_move_hmac": self.said_hmac,
            "last_event_id": self.event_id,
            "version": row.version + 1,
        }

    def facts(self, row: Any) -> dict[str, str]:
        """Return the move as ids and codes."""
        facts = {
            "move": self.move.name,
            "from": row.state,
            "to": self.state.value,
            "by": self.organisation,
        }
        reason = self.content.get("reason")
        return {**facts, "reason": reason} if isinstance(reason, str) else facts


class Moving:
    """Moves referrals. The state machine decides; this writes it down and tells who must hear."""

    def __init__(
        self,
        store: Store,
        vault: Vault,
        directory: CurrentDirectory,
        answers: Answers,
        *,
        source: str,
    ) -> None:
        self._store = store
        self._vault = vault
        self._directory = directory
        self._answers = answers
        self._source = source

    async def view(self, subject: str, organisation: str) -> tuple[dict[str, Any], int]:
        """Return where a referral stands for this organisation, and its version."""
        row = await self._store.read(lambda c: referrals.get(c, subject))
        if row is None:
            raise NotFound("There is no such referral for this organisation.")
        directory = await self._directory.current()
        return self._view(row, organisation, directory, datetime.now(UTC)), row.version

    def relation(self, row: Any, organisation: str, directory: Directory) -> Relation:
        """Return what an organisation is to a referral; a successor stands for its predecessor."""
        receiver = directory.resolve_successor(row.receiver)
        if organisation == row.receiver or (receiver and receiver.ods == organisation):
            return Relation.ACTING
        sender = directory.resolve_successor(row.sender)
        if organisation == row.sender or (sender and sender.ods == organisation):
            return Relation.SENDER
        return Relation.COPY if organisation == row.practice else Relation.NONE

    async def move(self, asked: Asked) -> Answer:
        """Make a move; durable on return. The answer is the referral as it then stands.

        A repeat of the last move by the same organisation with the same content gets the same
        answer, whatever its If-Match. Raises NotFound, Refused, PreconditionRequired, Stale,
        Conflict.
        """
        move = referral.MOVES.get(asked.move)
        if move is None or move.door is not referral.Door.MOVE:
            doors = [m.name for m in referral.MOVES.values() if m.door is referral.Door.MOVE]
            raise NotFound(f"There is no move {asked.move!r}. There are: {', '.join(doors)}.")
        request = f"POST /referrals/{asked.subject}/{asked.move}"
        organisation = asked.caller.organisation
        async with self._answers.claim(organisation, asked.key, request, asked.body) as claimed:
            return claimed.known or await self._move(asked, move, claimed)

    async def _move(self, asked: Asked, move: referral.Move, claimed: Claimed) -> Answer:
        content = read_object(asked.body) if asked.body else {}
        problems = move_content.check(move.carries, content)
        if problems:
            raise Refused(f"{len(problems)} problems found; nothing was stored.", problems)
        found = await self._store.read(lambda c: self._find(c, asked.subject))
        if found is None:
            raise NotFound("There is no such referral for this organisation.")
        organisation = asked.caller.organisation
        said = strict_json.dumps({name: content[name] for name in sorted(content)})
        said_hmac = self._vault.mac(f"move|{move.name}", said)
        if found.repeated is not None and _is_repeat(found.row, move, organisation, said_hmac):
            return found.repeated
        self._check_version(asked, found.row)
        now = datetime.now(UTC)
        directory = await self._directory.current()
        by = self.relation(found.row, organisation, directory)
        state = referral.apply(
            State(found.row.state), move, by, _context(found.row, organisation, now)
        )
        made = _Made(
            move=move,
            content=content,
            organisation=organisation,
            client=asked.caller.client_id,
            state=state,
            event_id=caused_id(asked.subject, "moving", organisation, move.name, found.row.version),
            said=said,
            said_hmac=said_hmac,
            now=now,
        )
        changed = SimpleNamespace(**{**found.row._asdict(), **made.changes(found.row)})
        view = self._view(changed, organisation, directory, now)
        answer = Answer(200, strict_json.dumps(view), changed.version)
        kept = self._answers.seal(found.key, made.event_id, organisation, answer, now)
        told = self._told(found, made, by, directory)
        payloads = self._payloads(found, made, directory)

        def write(tx: Tx) -> None:
            self._write(tx, found.row, made, told, payloads)
            self._answers.keep(tx, claimed, kept)

        await self._store.write(write)
        crashpoint("decision.written")
        return answer

    def _check_version(self, asked: Asked, row: Any) -> None:
        if asked.version is None:
            raise PreconditionRequired(
                "Say which version you decided on: send If-Match with the ETag of "
                f"GET /referrals/{asked.subject}."
            )
        if asked.version != row.version:
            raise Stale(
                f"The referral has moved on: it is at version {row.version}, you decided on "
                f"{asked.version}. Read it again, then decide."
            )

    def _find(self, connection: Connection, subject: str) -> _Found | None:
        row = referrals.get(connection, subject)
        if row is None:
            return None
        about = telling.about(connection, self._vault, row.message_id)
        if about is None:
            return None
        key = messages.key_of(connection, self._vault, about.message.key_id)
        if key is None:
            raise Gone("This referral has been erased under the retention rules.")
        last = row.last_event_id
        known = messages.payload(connection, self._vault, last, ROLE) if last else None
        repeated = Answer(200, known.body, row.version) if known else None
        return _Found(row, about, key, repeated)

    def _told(
        self, found: _Found, made: _Made, by: Relation, directory: Directory
    ) -> list[NewMessage]:
        """Draw up the notice to each who hears of this move: never the one that made it."""
        row = found.row
        places = {
            Audience.SENDER: (Destination(row.sender), "sent the referral"),
            Audience.RECEIVER: (
                Destination(row.receiver, row.receiver_service),
                "was asked to take the patient on",
            ),
            Audience.PRACTICE: (Destination(row.practice or ""), "keeps the patient's record"),
        }
        to: dict[str, tuple[Destination, str]] = {}
        for audience in referral.told(made.move, by):
            destination, why = places[audience]
            if destination.ods and destination.ods != made.organisation:
                to.setdefault(destination.ods, (destination, why))
        reason, advice = _words(made.move, made.content)
        return Teller(self._vault, directory, self._source, made.now).moves(
            found.about,
            cause=made.event_id,
            state=made.state.value,
            receiver=row.receiver,
            by=made.organisation,
            to=to.values(),
            reason=reason,
            advice=advice,
            supersedes=made.state is State.CANCELLED,
        )

    def _payloads(self, found: _Found, made: _Made, directory: Directory) -> list[dict[str, Any]]:
        """Seal the move's Task and what was said with it under the referral's own key."""
        reason, advice = _words(made.move, made.content)
        task = Teller(self._vault, directory, self._source, made.now).task(
            found.about,
            made.event_id,
            state=made.state.value,
            receiver=found.row.receiver,
            reason=reason,
            advice=advice,
        )
        return [
            messages.sealed(
                self._vault,
                found.key,
                Binding(made.event_id, role, 1, made.organisation, content_type),
                body,
                digest(body),
                made.now,
            )
            for role, content_type, body in (
                (CONTENT, FHIR_JSON, task.body),
                (SAID, JSON, made.said),
            )
        ]

    def _write(
        self,
        tx: Tx,
        read: Any,
        made: _Made,
        told: Sequence[NewMessage],
        payloads: Sequence[dict[str, Any]],
    ) -> None:
        subject = tx.lock_subject(read.subject_id)
        if subject is None or subject.version != read.version:
            raise Stale("The referral moved while you decided. Read it again, then decide.")
        changes = made.changes(read)
        del changes["version"]
        referrals.change(tx, read.subject_id, **changes)
        tx.bump(read.subject_id)
        messages.put_payloads(tx, payloads)
        tx.record(
            Event(
                id=made.event_id,
                type=REFERRAL_MOVED,
                source=self._source,
                subject=read.subject_id,
                time=tx.now,
                dataschema=SCHEMA,
                causation_id=read.last_event_id,
                priority=Priority(read.priority),
                facts={**made.facts(read), "about": read.message_id},
            )
        )
        tx.audit(
            Entry(
                "referral.moved",
                made.client,
                made.organisation,
                "referral",
                read.subject_id,
                made.facts(read),
            )
        )
        if made.move.goes_back:
            work.reopen(tx, read.message_id, read.last_move_at)
        elif referral.STAGES[made.state].is_terminal:
            work.clear(tx, read.message_id, at=made.now)
        elif made.state not in {State.REQUESTED, State.RECEIVED}:
            work.clear(tx, read.message_id, deadlines.DeadlineKind.DECIDED, at=made.now)
        notices.put(tx, told)

    def _view(
        self, row: Any, organisation: str, directory: Directory, now: datetime
    ) -> dict[str, Any]:
        by = self.relation(row, organisation, directory)
        state = State(row.state)
        moves = referral.allowed(state, by, _context(row, organisation, now))
        stage = referral.STAGES[state]
        return {
            "id": row.subject_id,
            "state": row.state,
            "state_in_words": stage.words,
            "waits_for": stage.waits_for.words if stage.waits_for else None,
            "allowed_moves": [
                {
                    "move": move.name,
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
                for move in moves
                if move.door is referral.Door.MOVE
            ],
            "message": row.message_id,
            "sender": row.sender,
            "receiver": row.receiver,
            "service": row.receiver_service or None,
            "priority": row.priority,
            "pathway": row.pathway,
            "version": row.version,
            "last_move": row.last_move,
            "last_moved_at": row.last_move_at.isoformat() if row.last_move_at else None,
        }


def _words(move: referral.Move, content: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return (reason, advice) of a move as a person reads them."""
    reason: str | None = None
    said: list[str] = []
    for item in move.carries:
        value = content.get(item.name)
        if not isinstance(value, str):
            continue
        if item.codes is not None:
            reason = item.codes[value]
        elif item.name == "practice_actions":
            said.append(f"For the practice: {value}")
        else:
            said.append(value)
    return reason, "\n".join(said) or None


def _is_repeat(row: Any, move: referral.Move, organisation: str, said_hmac: str) -> bool:
    last = (row.last_move, row.last_move_by, row.last_move_hmac)
    return last == (move.name, organisation, said_hmac)


def _context(row: Any, organisation: str, now: datetime) -> referral.Context:
    return referral.Context(
        now=now,
        organisation=organisation,
        moved_by=row.last_move_by or "",
        moved_at=row.last_move_at,
        before=State(row.state_before) if row.state_before else None,
    )
