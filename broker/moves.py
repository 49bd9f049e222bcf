"""One move of a referral: judged by the state machine, drawn up, written with all that follows.

Used by whoever asks for a move: the doors of `broker.moving`, and corrections, which cancel.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any, Final

from broker import deadlines, notices, referral, telling, triage
from broker.audit import Entry
from broker.composition import CONTENT, FHIR_JSON, JSON, SCHEMA
from broker.directory import Directory
from broker.errors import Gone, Stale
from broker.events import (
    REFERRAL_MOVED,
    Destination,
    Event,
    Kind,
    caused_id,
    digest,
)
from broker.move_clocks import Step
from broker.move_content import moment
from broker.ports import Endpoint
from broker.referral import Audience, Move, Relation, State
from broker.routing import recheck
from broker.store import messages, referrals, resources, triages
from broker.store.messages import NewMessage
from broker.store.tx import Connection, Tx
from broker.telling import About, Teller
from broker.triage import Triage
from broker.vault import Binding, MessageKey, Vault
from fhir_profiles import codes, strict_json

SAID: Final = "move"
BROKER: Final = "broker"
"""Who moves what nobody else does: no organisation's code."""
# What a referral's row says of its triage, in a table of its own.
TRIAGE: Final = ("priority_asked", "priority_proposed", "diagnosed_at")


@dataclass(frozen=True, slots=True)
class Found:
    """A referral as it stands, with its newest message in the clear."""

    row: Any
    about: About
    key: MessageKey

    def is_about_another(self, vault: Vault, nhs_number: str | None) -> bool:
        """Whether this patient and the referral's are both known, and are not the same."""
        message = self.about.message
        if nhs_number is None or message.patient_pseudonym is None:
            return False
        key_id, pseudonym = vault.pseudonym(nhs_number)
        return bool(message.pseudonym_key == key_id and message.patient_pseudonym != pseudonym)


def find(connection: Connection, vault: Vault, subject: str) -> Found | None:
    """Read a referral for a move; None where there is none. Raises Gone."""
    row = referrals.get(connection, subject)
    if row is None:
        return None
    about = telling.about(connection, vault, row.message_id)
    if about is None:
        return None
    key = messages.key_of(connection, vault, about.message.key_id)
    if key is None:
        raise Gone("This referral has been erased under the retention rules.")
    return Found(row, about, key)


def relations(row: Any, organisation: str, directory: Directory) -> tuple[Relation, ...]:
    """Return all that an organisation is to a referral, the closest first: a trust may refer to a
    service of its own. A successor stands for its predecessor.

    What was given as the practice, and is none, is nothing to it.
    """
    if organisation == BROKER:
        return (Relation.BROKER,)
    found = []
    for ods, relation in (
        (row.receiver, Relation.ACTING),
        (row.sender, Relation.SENDER),
        (row.practice if directory.practice(row.practice) else None, Relation.COPY),
    ):
        if ods is None:
            continue
        successor = directory.resolve_successor(ods)
        if organisation == ods or (successor is not None and successor.ods == organisation):
            found.append(relation)
    return tuple(found) or (Relation.NONE,)


def relation(row: Any, organisation: str, directory: Directory) -> Relation:
    """Return what an organisation is to a referral: of several, the closest."""
    return relations(row, organisation, directory)[0]


def context(row: Any, organisation: str, directory: Directory, now: datetime) -> referral.Context:
    """Return what the state machine may ask about beside state and relation.

    A successor stands for what it inherited, also for what its predecessor decided.
    """
    mover = directory.resolve_successor(row.last_move_by) if row.last_move_by else None
    return referral.Context(
        now=now,
        organisation=organisation,
        moved_by=mover.ods if mover is not None else row.last_move_by or "",
        moved_at=row.last_move_at,
        before=State(row.state_before) if row.state_before else None,
        pathway=row.pathway,
        is_lowered=triage.of(row).is_lowered,
        is_proposed=row.priority_proposed is not None,
        is_diagnosed=row.diagnosed_at is not None,
    )


def said_hmac(vault: Vault, move: Move, content: Mapping[str, Any]) -> str:
    """Return the HMAC by which a repeat of a move with the same content is known."""
    return vault.mac(f"move|{move.name}", _sorted(content))


def _sorted(content: Mapping[str, Any]) -> bytes:
    return strict_json.dumps({name: content[name] for name in sorted(content)})


@dataclass(frozen=True, slots=True)
class Redirection:
    """The version of a referral that goes on to another place, in the stead of the `old` one."""

    message: NewMessage
    to: Destination
    old: Any
    read_first: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """A move that the state machine allows, drawn up and sealed. `write` makes it so."""

    found: Found
    move: Move
    state: State
    organisation: str
    client: str
    event_id: str
    source: str
    now: datetime
    said_hmac: str
    reason: str | None
    read_first: Sequence[str]
    told: Sequence[NewMessage] = field(repr=False)
    practice: str | None
    payloads: Sequence[dict[str, Any]] = field(repr=False)
    triage: Triage
    is_diagnosed: bool = False
    starts_at: datetime | None = None
    redirection: Redirection | None = None

    @property
    def row_after(self) -> Any:
        """The referral's row as it is once this is written."""
        row = self.found.row
        before = vars(row) if isinstance(row, SimpleNamespace) else row._asdict()
        return SimpleNamespace(**{**before, **self._changes()})

    @property
    def clocks(self) -> Step:
        """What becomes of the referral's clocks."""
        return Step(
            row=self.found.row,
            message=self.found.about.message,
            move=self.move,
            state=self.state,
            taken=self.triage,
            now=self.now,
            starts_at=self.starts_at,
            is_diagnosed=self.is_diagnosed,
        )

    def write(self, tx: Tx) -> None:
        """Write the move and all that follows from it. Raises Stale if another was first."""
        before = self.found.row
        subject = tx.lock_subject(before.subject_id)
        if subject is None or subject.version != before.version:
            raise Stale("The referral moved while you decided. Read it again, then decide.")
        changes = self._changes()
        for name in ("version", *TRIAGE):
            del changes[name]
        referrals.change(tx, before.subject_id, **changes)
        self._triage(tx)
        tx.bump(before.subject_id)
        messages.put_payloads(tx, self.payloads)
        resources.put_task(tx, self._task(tx.now))
        facts = self._facts()
        tx.record(
            Event(
                id=self.event_id,
                type=REFERRAL_MOVED,
                source=self.source,
                subject=before.subject_id,
                time=tx.now,
                dataschema=SCHEMA,
                causation_id=before.last_event_id,
                priority=self.triage.priority,
                facts={**facts, "about": before.message_id},
            )
        )
        tx.audit(
            Entry(
                "referral.moved",
                self.client,
                self.organisation,
                "referral",
                before.subject_id,
                facts,
            )
        )
        self.clocks.write(tx)
        if self.redirection is not None:
            messages.release_reference(tx, self.redirection.old.id)
            messages.put(tx, self.redirection.message)
            messages.retire(tx, self.redirection.old.id, "replaced")
        notices.put(tx, self.told)

    def _triage(self, tx: Tx) -> None:
        """Write how urgent it is taken now: what was composed of it before says what it was."""
        before, after = self.found.row, self._changes()
        said = {name: after[name] for name in TRIAGE}
        if said != {name: getattr(before, name) for name in TRIAGE}:
            triages.put(tx, before.subject_id, **said)
        if after["priority"] != before.priority:
            messages.set_priority(tx, before.message_id, after["priority"])

    def _task(self, now: datetime) -> resources.TaskRow:
        """Return the referral's Task as it stands now, under the referral's own id and version."""
        row, message = self.row_after, self.found.about.message
        state = codes.system("referral-state")
        same = {"version": row.version, "type": resources.TASK, "updated_at": now}
        index = {
            **same,
            "id": row.subject_id,
            "message_id": row.message_id,
            "event_id": self.event_id,
            "subject_id": row.subject_id,
            "status": state.properties[self.state]["task-status"],
            "category": resources.tokens([f"{state.url}|{self.state.value}"]),
            "code": None,
            "priority": row.priority,
            "requester": row.sender,
            "performer": row.receiver,
            "patient_pseudonym": message.patient_pseudonym,
            "identifiers": None,
            "authored_at": message.accepted_at,
        }
        viewer = {**same, "resource_id": row.subject_id, "label": message.label}
        viewer["authored_at"] = message.accepted_at
        parties = {  # of one that is several of these, the closest; who sends it on sees this last
            self.practice: Relation.COPY,
            self.found.row.receiver: Relation.ACTING,
            row.sender: Relation.SENDER,
            row.receiver: Relation.ACTING,
        }
        return resources.TaskRow(
            index,
            [
                {**viewer, "organisation": ods, "relation": relation.value}
                for ods, relation in parties.items()
                if ods is not None
            ],
        )

    def _changes(self) -> dict[str, Any]:
        row = self.found.row
        changes = {
            "state": self.state.value,
            "state_before": row.state,
            "last_move": self.move.name,
            "last_move_by": self.organisation,
            "last_move_at": self.now,
            "last_move_hmac": self.said_hmac,
            "last_event_id": self.event_id,
            "version": row.version + 1,
            "priority": self.triage.priority.value,
            **self.triage.kept,
            "diagnosed_at": self.now if self.is_diagnosed else row.diagnosed_at,
        }
        if self.redirection is None:
            return changes
        to = self.redirection.to
        return changes | {
            "message_id": self.redirection.message.row["id"],
            "receiver": to.ods,
            "receiver_service": to.service,
            "redirected_to": str(to),
        }

    def _facts(self) -> dict[str, str]:
        facts = {
            "move": self.move.name,
            "from": self.found.row.state,
            "to": self.state.value,
            "by": self.organisation,
        }
        if self.redirection is not None:
            facts["destination"] = str(self.redirection.to)
        if self.move.name in triage.MOVES:
            facts["priority"] = self.triage.priority.value
            if self.triage.proposed:
                facts["proposed"] = self.triage.proposed.value
        return {**facts, "reason": self.reason} if self.reason else facts


@dataclass(frozen=True, slots=True)
class Mover:
    """Draws moves up: with whose keys, in whose name, by which directory, and at which time."""

    vault: Vault
    directory: Directory
    source: str
    now: datetime

    def check(self, found: Found, move: Move, organisation: str) -> tuple[Relation, State]:
        """Return what who moves a referral is to it, and its state after. Raises Conflict."""
        row = found.row
        held = relations(row, organisation, self.directory)
        by = next((one for one in held if one in move.by), held[0])
        seen = context(row, organisation, self.directory, self.now)
        return by, referral.apply(State(row.state), move, by, seen)

    def ready(
        self,
        found: Found,
        move: Move,
        content: Mapping[str, Any],
        organisation: str,
        client: str,
        untold: frozenset[str] = frozenset(),
        redirection: Redirection | None = None,
    ) -> Ready:
        """Draw a move up. Raises Conflict where the state machine forbids it.

        `untold` are organisations that know of it already.
        """
        row = found.row
        by, state = self.check(found, move, organisation)
        taken = triage.after(row, move.name, content)
        event_id = caused_id(row.subject_id, "moving", organisation, move.name, row.version)
        reason, advice = _words(move, content)
        said = triage.words(triage.of(row), taken) if move.name in triage.MOVES else None
        if said is not None:
            advice = f"{said}\n{advice}" if advice else said
        teller = Teller(self.vault, self.directory, self.source, self.now)
        receiver = row.receiver if redirection is None else redirection.to.ods
        audience = self._audience(row, move, by, organisation)
        to = [one for one in audience if one[0].ods not in untold]
        told = teller.moves(
            found.about,
            cause=event_id,
            state=state.value,
            receiver=receiver,
            by=organisation if by is not Relation.BROKER else row.receiver,
            to=to,
            reason=reason,
            advice=advice,
            priority=taken.priority,
            supersedes=state is State.CANCELLED,
        )
        task = teller.task(
            found.about,
            event_id,
            state=state.value,
            receiver=receiver,
            reason=reason,
            advice=advice,
            priority=taken.priority,
        )
        code = content.get("reason")
        return Ready(
            found=found,
            move=move,
            state=state,
            organisation=organisation,
            client=client,
            event_id=event_id,
            source=self.source,
            now=self.now,
            said_hmac=said_hmac(self.vault, move, content),
            reason=code if isinstance(code, str) else None,
            told=told,
            practice=row.practice if self.directory.practice(row.practice) else None,
            triage=taken,
            is_diagnosed="diagnosis" in content,
            starts_at=moment(content["starts_at"]) if "starts_at" in content else None,
            read_first=[
                *([said] if said is not None else ()),
                *(redirection.read_first if redirection is not None else ()),
                *self._unheard(row, move, by, {organisation, *untold, *(p.ods for p, _ in to)}),
            ],
            redirection=redirection,
            payloads=[
                self._sealed(found.key, event_id, organisation, CONTENT, FHIR_JSON, task.body),
                self._sealed(found.key, event_id, organisation, SAID, JSON, _sorted(content)),
            ],
        )

    def _audience(
        self, row: Any, move: Move, by: Relation, organisation: str
    ) -> list[tuple[Destination, str]]:
        """Return each who hears of a move, once, and never the one that made it."""
        places = {
            Audience.SENDER: (Destination(row.sender), "sent the referral"),
            Audience.RECEIVER: (
                Destination(row.receiver, row.receiver_service),
                "was asked to take the patient on",
            ),
        }
        practice = self.directory.practice(row.practice)
        if practice is not None:
            place = Destination(practice.ods)
            if isinstance(recheck(place, Kind.NOTICE, self.directory), Endpoint):
                places[Audience.PRACTICE] = (place, "keeps the patient's record")
        to: dict[str, tuple[Destination, str]] = {}
        for audience in sorted(referral.told(move, by, row.pathway)):
            if audience in places and places[audience][0].ods != organisation:
                to.setdefault(places[audience][0].ods, places[audience])
        return list(to.values())

    def _unheard(
        self,
        row: Any,
        move: Move,
        by: Relation,
        hears: Collection[str],
    ) -> list[str]:
        """Say that the practice, which should hear of a move, does not: else nobody would know."""
        practice = self.directory.practice(row.practice)
        if Audience.PRACTICE not in referral.told(move, by, row.pathway):
            return []
        if practice is None:
            return [
                "The patient's practice hears nothing of this: it is not known here. If it must "
                "act, see to it that it is told."
            ]
        if practice.ods in hears:
            return []
        number = f" on {practice.telephone}" if practice.telephone else ""
        return [
            f"{practice.name} hears nothing of this: it takes no notices from here. If it must "
            f"act, telephone it{number}."
        ]

    def _sealed(
        self,
        key: MessageKey,
        event_id: str,
        organisation: str,
        role: str,
        content_type: str,
        body: bytes,
    ) -> dict[str, Any]:
        binding = Binding(event_id, role, 1, organisation, content_type)
        return messages.sealed(self.vault, key, binding, body, digest(body), self.now)


def _words(move: Move, content: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return (reason, advice) of a move as a person reads them."""
    reason: str | None = None
    said: list[str] = []
    for item in move.carries:
        value = content.get(item.name)
        if not isinstance(value, str):
            continue
        if item.codes is not None:
            reason = item.codes[value]
        elif item.is_time:
            at = deadlines.at_in_words(datetime.fromisoformat(value))
            said.append(f"{item.name.replace('_', ' ').capitalize()} {at}")
        elif item.name == "practice_actions":
            said.append(f"For the practice: {value}")
        else:
            said.append(value)
    return reason, "\n".join(said) or None
