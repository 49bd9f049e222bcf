"""The referral's state machine: one table that says every move, who may make it and who is told.

Nothing about a referral's life is decided anywhere else. `apply` is the only way from one state to
the next. Pure: the time and the history that a rule needs come in as `Context`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from broker.errors import Conflict, Problem, Refused
from broker.events import Priority, Role
from broker.move_content import (
    CANCELLATION_REASONS,
    DIAGNOSES,
    PATIENT_AGREES,
    REJECTION_REASONS,
    Item,
)
from fhir_profiles.pathways.catalogue import catalogue
from fhir_profiles.working_days import london


class State(StrEnum):
    """Where a referral stands."""

    REQUESTED = "requested"
    RECEIVED = "received"
    ACCEPTED = "accepted"
    INFORMATION_REQUESTED = "information-requested"
    REDIRECTED = "redirected"
    BOOKED = "booked"
    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"
    REJECTED = "rejected"
    CANCELLED = "cancelled"
    DECLINED_BY_PATIENT = "declined-by-patient"
    DECEASED = "deceased"
    DID_NOT_ATTEND = "did-not-attend"
    NO_CONTACT = "no-contact"
    EXPIRED = "expired"
    RESOLVED = "resolved"


class Relation(StrEnum):
    """What an organisation is to a message or referral. BROKER is this software: never a caller."""

    SENDER = "sender"
    ACTING = "acting-receiver"
    COPY = "copy-receiver"
    NOTICE = "notice-receiver"
    BROKER = "broker"
    NONE = "none"

    @property
    def words(self) -> str:
        return "receiver" if self is Relation.ACTING else self.value.replace("-", " ")


# What getting a message in a role makes of who gets it.
RELATIONS: Final = MappingProxyType(
    {
        Role.ACTING: Relation.ACTING,
        Role.COPY: Relation.COPY,
        Role.NOTICE: Relation.NOTICE,
    }
)


class Audience(StrEnum):
    """Who hears of a move by notice, as the catalogue of pathways calls them."""

    SENDER = "sender"
    RECEIVER = "receiver"
    PRACTICE = "practice"


class Door(StrEnum):
    """How a move comes in."""

    MOVE = "POST /referrals/{id}/{move}"
    RECEIPT = "PUT /inbox/{delivery}/receipt"
    CORRECTION = "PUT of the whole body"
    TIME = "by itself, when its time is up"


class Guard(StrEnum):
    """A condition on a move beyond state and relation."""

    DECIDER_SAME_DAY = "only the organisation that decided, on the same London day"
    PROPOSED = "only where a lower priority is proposed"
    LOWERED = "only where a lower priority is proposed, or was set"
    SUSPECTED_CANCER = "only of a suspected cancer"
    KNOWN_SERVICES = "only on a pathway of the catalogue, which says who else takes it"


@dataclass(frozen=True, slots=True)
class Stage:
    """What one state means: in words, to FHIR, and whose turn it is.

    `taken_on`: somebody at the receiver is acting on it, so nothing may end or change it unseen.
    """

    words: str
    task_status: str
    waits_for: Relation | None
    taken_on: bool = False

    @property
    def is_terminal(self) -> bool:
        return self.task_status in _FINAL


# FHIR R4 Task.status of which a Task never leaves; the machine's own state is the businessStatus.
_FINAL: Final = frozenset({"completed", "rejected", "cancelled", "failed"})

# A rejected or expired referral waits for its sender: the patient still needs somewhere to go.
STAGES: Final[Mapping[State, Stage]] = MappingProxyType(
    {
        State.REQUESTED: Stage("requested", "requested", Relation.ACTING),
        State.RECEIVED: Stage("received", "received", Relation.ACTING),
        State.ACCEPTED: Stage("accepted", "accepted", Relation.ACTING, taken_on=True),
        State.INFORMATION_REQUESTED: Stage("more information asked", "on-hold", Relation.SENDER),
        State.REDIRECTED: Stage("redirected", "requested", Relation.ACTING),
        State.BOOKED: Stage("booked", "accepted", Relation.ACTING, taken_on=True),
        State.IN_PROGRESS: Stage("in progress", "in-progress", Relation.ACTING, taken_on=True),
        State.COMPLETED: Stage("completed", "completed", None, taken_on=True),
        State.REJECTED: Stage("rejected", "rejected", Relation.SENDER),
        State.CANCELLED: Stage("cancelled", "cancelled", None),
        State.DECLINED_BY_PATIENT: Stage("declined by the patient", "cancelled", None),
        State.DECEASED: Stage("patient deceased", "cancelled", None),
        State.DID_NOT_ATTEND: Stage("did not attend", "on-hold", Relation.ACTING, taken_on=True),
        State.NO_CONTACT: Stage("no contact made", "on-hold", Relation.ACTING, taken_on=True),
        State.EXPIRED: Stage("closed without contact", "failed", Relation.SENDER),
        State.RESOLVED: Stage("seen to by its sender", "rejected", None),
    }
)

OPEN: Final = frozenset(state for state, stage in STAGES.items() if not stage.is_terminal)


@dataclass(frozen=True, slots=True)
class Move:
    """One row of the table. `to` None keeps the state; `goes_back` returns to the one before."""

    name: str
    sources: frozenset[State]
    to: State | None
    by: frozenset[Relation]
    door: Door
    carries: tuple[Item, ...] = ()
    guard: Guard | None = None
    goes_back: bool = False


def _levels(but: Priority) -> Mapping[str, str]:
    return {one.value: one.words for one in Priority if one is not but}


_NOTE: Final = Item("note", "a note", required=False)
_ACTIONS: Final = Item("practice_actions", "what the practice is asked to do", required=False)

_S = State
_RECEIVER: Final = frozenset({Relation.ACTING})
_SENDER: Final = frozenset({Relation.SENDER})
_EITHER: Final = _RECEIVER | _SENDER
_BROKER: Final = frozenset({Relation.BROKER})
_UNDECIDED: Final = frozenset({_S.RECEIVED, _S.INFORMATION_REQUESTED})
_WAITING: Final = frozenset({_S.ACCEPTED, _S.BOOKED, _S.DID_NOT_ATTEND, _S.NO_CONTACT})

# A receipt is level 2: it is shown on the trail, not told. An amendment is itself delivered anew to
# everyone who got the old version, so it needs no notice. Who hears of the others is said by the
# catalogue of pathways.
_ROWS: Final = (
    Move(
        "receive",
        frozenset({_S.REQUESTED, _S.REDIRECTED}),
        _S.RECEIVED,
        _RECEIVER,
        Door.RECEIPT,
    ),
    Move("accept", _UNDECIDED, _S.ACCEPTED, _RECEIVER, Door.MOVE, (_NOTE,)),
    Move(
        "reject",
        _UNDECIDED | _WAITING,
        _S.REJECTED,
        _RECEIVER,
        Door.MOVE,
        (
            Item("reason", "why it is rejected", codes=REJECTION_REASONS),
            Item("advice", "what the sender should do instead"),
            _ACTIONS,
        ),
    ),
    Move(
        "complete",
        _WAITING | {_S.IN_PROGRESS, _S.EXPIRED},
        _S.COMPLETED,
        _RECEIVER,
        Door.MOVE,
        (
            Item("outcome", "what was found and done"),
            Item(
                "diagnosis",
                "of a suspected cancer what the patient was told, unless that was said before",
                required=False,
                codes=DIAGNOSES,
            ),
            _ACTIONS,
        ),
    ),
    Move(
        "cancel",
        OPEN,
        _S.CANCELLED,
        _SENDER,
        Door.MOVE,
        (Item("reason", "why it is cancelled", codes=CANCELLATION_REASONS), _NOTE),
    ),
    Move("amend", OPEN, None, _SENDER, Door.CORRECTION),
    Move(
        "reinstate",
        frozenset({_S.REJECTED}),
        None,
        _RECEIVER,
        Door.MOVE,
        (_NOTE,),
        guard=Guard.DECIDER_SAME_DAY,
        goes_back=True,
    ),
    Move(
        "request-information",
        frozenset({_S.RECEIVED}),
        _S.INFORMATION_REQUESTED,
        _RECEIVER,
        Door.MOVE,
        carries=(Item("question", "what the sender should answer"),),
    ),
    Move(
        "answer",
        frozenset({_S.INFORMATION_REQUESTED}),
        _S.RECEIVED,
        _SENDER,
        Door.MOVE,
        carries=(Item("answer", "the answer to the receiver's question"),),
    ),
    Move(
        "redirect",
        _UNDECIDED | {_S.ACCEPTED},
        _S.REDIRECTED,
        _RECEIVER,
        Door.MOVE,
        carries=(
            Item("destination", "the organisation, or organisation/service, that takes it on"),
            Item("advice", "why it goes there"),
            Item(
                "patient_agrees",
                "whether the patient agrees; must be yes where the patient chose the provider",
                required=False,
                codes=PATIENT_AGREES,
            ),
        ),
        guard=Guard.KNOWN_SERVICES,
    ),
    Move(
        "upgrade",
        _UNDECIDED | _WAITING,
        None,
        _RECEIVER,
        Door.MOVE,
        carries=(
            Item("priority", "how urgent it is", codes=_levels(but=Priority.ROUTINE)),
            _NOTE,
        ),
    ),
    Move(
        "downgrade",
        _UNDECIDED | _WAITING,
        None,
        _RECEIVER,
        Door.MOVE,
        carries=(
            Item("priority", "how urgent it is", codes=_levels(but=Priority.STAT)),
            Item("clinical_reason", "why it can wait longer, as a clinician judges it"),
            Item("clinician", "who judged it: name and role"),
        ),
    ),
    Move("agree", OPEN, None, _SENDER, Door.MOVE, (_NOTE,), guard=Guard.PROPOSED),
    Move(
        "object",
        OPEN,
        None,
        _SENDER,
        Door.MOVE,
        (Item("objection", "why it cannot wait longer"),),
        guard=Guard.LOWERED,
    ),
    Move(
        "book",
        _WAITING,
        _S.BOOKED,
        _RECEIVER,
        Door.MOVE,
        carries=(
            Item("starts_at", "when the appointment begins, with its offset", is_time=True),
            Item("place", "where it is"),
            Item("instructions", "what the patient is to do or bring", required=False),
            _NOTE,
        ),
    ),
    Move(
        "diagnosed",
        _WAITING | {_S.IN_PROGRESS},
        None,
        _RECEIVER,
        Door.MOVE,
        (Item("diagnosis", "what the patient was told", codes=DIAGNOSES), _NOTE, _ACTIONS),
        guard=Guard.SUSPECTED_CANCER,
    ),
    Move("start", _WAITING, _S.IN_PROGRESS, _RECEIVER, Door.MOVE, (_NOTE,)),
    Move(
        "did-not-attend",
        frozenset({_S.BOOKED}),
        _S.DID_NOT_ATTEND,
        _RECEIVER,
        Door.MOVE,
        carries=(_NOTE, _ACTIONS),
    ),
    Move(
        "no-contact",
        frozenset({_S.RECEIVED, _S.ACCEPTED, _S.BOOKED, _S.DID_NOT_ATTEND}),
        _S.NO_CONTACT,
        _RECEIVER,
        Door.MOVE,
        carries=(_NOTE, _ACTIONS),
    ),
    Move("decline", OPEN, _S.DECLINED_BY_PATIENT, _EITHER, Door.MOVE, (_NOTE,)),
    Move("deceased", OPEN, _S.DECEASED, _EITHER, Door.MOVE, (_NOTE,)),
    Move(
        "resolve",
        frozenset({_S.REJECTED, _S.EXPIRED}),
        _S.RESOLVED,
        _SENDER,
        Door.MOVE,
        (Item("note", "what is done for the patient instead"),),
    ),
    Move(
        "expire",
        frozenset({_S.REQUESTED, _S.RECEIVED, _S.REDIRECTED}),
        _S.EXPIRED,
        _BROKER,
        Door.TIME,
        (_NOTE,),
    ),
)

MOVES: Final[Mapping[str, Move]] = MappingProxyType({move.name: move for move in _ROWS})


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule may ask about beside state and relation.

    `organisation` is who moves; `moved_by`, `moved_at` and `before` are of the last move that
    changed the state: who made it, when, and out of which state. Both codes are the open
    organisation's (`Directory.resolve_successor`), so that a successor may undo what it inherits.
    `pathway` is the referral's. It `is_lowered` where it is taken for less urgent than its sender
    asked, and that `is_proposed` where the sender has yet to agree. It `is_diagnosed` where the
    patient was told what was found.
    """

    now: datetime
    organisation: str = ""
    moved_by: str = ""
    moved_at: datetime | None = None
    before: State | None = None
    pathway: str = ""
    is_lowered: bool = False
    is_proposed: bool = False
    is_diagnosed: bool = False


def allowed(state: State, relation: Relation, context: Context) -> tuple[Move, ...]:
    """Return the moves that this party may make now, of those whose door is open."""
    return tuple(move for move in _ROWS if not _why_not(state, move, relation, context))


def apply(state: State, move: Move, by: Relation, context: Context) -> State:
    """Return the state after the move, or raise Conflict saying why not and what is allowed."""
    why_not = _why_not(state, move, by, context)
    if why_not:
        raise Conflict(f"{why_not} {_may(state, by, context)}")
    if move.goes_back:
        return _back(context.before)
    return state if move.to is None else move.to


def needs_receivers_eye(state: State) -> bool:
    """Tell whether an amendment in this state changes what somebody has already taken on."""
    stage = STAGES[state]
    return stage.taken_on and not stage.is_terminal


def check_diagnosis(move: Move, content: Mapping[str, object], context: Context) -> None:
    """Raise Refused where what ends a suspected cancer does not say what the patient was told, or
    where that is said of anything else."""
    entry = catalogue().entries.get(context.pathway)
    is_suspected = entry is not None and entry.suspected_cancer
    if move.name != "complete" or is_suspected is ("diagnosis" in content):
        return
    if not is_suspected:
        detail, todo = "It was not referred as a suspected cancer.", "Leave it out."
        raise Refused.all_of([Problem("diagnosis", "not-suspected", detail, todo)])
    if not context.is_diagnosed:
        detail = (
            "It was referred as a suspected cancer: nothing says yet what the patient was told."
        )
        todo = f"Give one of: {', '.join(DIAGNOSES)}; or send it on to another place."
        raise Refused.all_of([Problem("diagnosis", "missing", detail, todo)])


def told(move: Move, by: Relation, pathway: str) -> frozenset[Audience]:
    """Return who hears of the move on a pathway: never the party that made it.

    Where the practice is itself sender or receiver, the caller must still compare organisations.
    """
    own = {Relation.SENDER: Audience.SENDER, Relation.ACTING: Audience.RECEIVER}.get(by)
    return frozenset(map(Audience, catalogue().told(pathway, move.name))) - {own}


def as_table() -> list[tuple[str, ...]]:
    """Return the whole machine as rows of words, the headings first."""
    rows: list[tuple[str, ...]] = [
        ("move", "from", "to", "by", "carries", "condition", "told", "how")
    ]
    for move in _ROWS:
        carries = [item.name if item.required else f"{item.name}?" for item in move.carries]
        rows.append(
            (
                move.name,
                ", ".join(state for state in State if state in move.sources),
                _target(move),
                ", ".join(relation.words for relation in Relation if relation in move.by),
                ", ".join(carries),
                move.guard or "",
                ", ".join(catalogue().defaults.told.get(move.name, ())),
                move.door,
            )
        )
    return rows


# What a rejected referral is again once reinstated: never more than can still be known true. A
# booking can no longer be vouched for; what is not listed must be decided anew.
_BACK: Final = {
    State.INFORMATION_REQUESTED: State.INFORMATION_REQUESTED,
    State.ACCEPTED: State.ACCEPTED,
    State.BOOKED: State.ACCEPTED,
    State.DID_NOT_ATTEND: State.ACCEPTED,
}


def _back(before: State | None) -> State:
    return State.RECEIVED if before is None else _BACK.get(before, State.RECEIVED)


def _why_not(state: State, move: Move, by: Relation, context: Context) -> str:
    """Return why this party may not make this move now, or nothing."""
    if by not in move.by:
        who = " or the ".join(relation.words for relation in Relation if relation in move.by)
        return f"Only the {who} may {move.name}."
    if state not in move.sources:
        return f"This referral is {STAGES[state].words}: {move.name} is not possible."
    if move.guard is Guard.DECIDER_SAME_DAY:
        if not context.moved_by or context.organisation != context.moved_by:
            return f"Only the organisation that made the decision may {move.name}."
        if context.moved_at is None or not _same_london_day(context.moved_at, context.now):
            return f"The decision may be undone on the same London day only: {move.name} is late."
    if move.guard is Guard.KNOWN_SERVICES and context.pathway not in catalogue().entries:
        return f"Nothing says who else takes a referral for this: {move.name} is not possible."
    if move.guard is Guard.PROPOSED and not context.is_proposed:
        return f"No lower priority is proposed: {move.name} is not possible."
    if move.guard is Guard.LOWERED and not (context.is_proposed or context.is_lowered):
        return f"No lower priority is proposed or was set: {move.name} is not possible."
    if move.guard is Guard.SUSPECTED_CANCER:
        entry = catalogue().entries.get(context.pathway)
        if entry is None or not entry.suspected_cancer:
            return f"It was not referred as a suspected cancer: {move.name} is not possible."
    return ""


def _may(state: State, by: Relation, context: Context) -> str:
    names = [
        move.name if move.door is Door.MOVE else f"{move.name} ({move.door})"
        for move in allowed(state, by, context)
    ]
    return f"Allowed now: {', '.join(names) or 'nothing more by you'}."


def _same_london_day(one: datetime, other: datetime) -> bool:
    return london(one).date() == london(other).date()


def _target(move: Move) -> str:
    if move.goes_back:
        return "what it was before"
    return move.to or "as it was"
