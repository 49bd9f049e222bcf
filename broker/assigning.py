"""Which subject each message of a correction belongs to: one that it corrects, or one of its own.

What has no place is not sent: its referral has had its course, and the sender is told so.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from broker import move_clocks, moves, referral, triage
from broker.deadlines import DeadlineKind
from broker.directory import BARS, Directory
from broker.errors import Conflict
from broker.events import (
    REFERRAL_AMENDED,
    UPDATE_SUBMITTED,
    Destination,
    Kind,
    Priority,
    Role,
    Route,
)
from broker.moves import Found
from broker.ports import Want
from broker.preparing import Plan, Planned, Slot, asked_as, new_slot
from broker.referral import State
from broker.retracting import Retractor
from broker.sent import Sent
from broker.store import work
from broker.store.tx import Connection
from broker.vault import Vault

CALLED: Final = frozenset({DeadlineKind.TELEPHONE})
NOTHING: Final = frozenset[DeadlineKind]()


@dataclass(frozen=True, slots=True)
class Assigned:
    """Where the wanted messages belong and which referrals go on, each by the message's key.

    `said` is what the sender must be told of the rest.
    """

    slots: Mapping[str, Slot]
    amended: Mapping[str, Found]
    said: Sequence[str]


def called(connection: Connection, sent: Sent) -> set[str]:
    """Return which of the versions that stand are same-day and were telephoned about, or follow
    one that was: somebody there knows, and is not asked for again."""
    standing = (sent.message, *(found.about.message for found in sent.referrals))
    same_day = {one.id for one in standing if one.priority == Priority.STAT}
    rows = work.deadlines_of(connection, sorted(same_day))
    return same_day - {
        row.message_id
        for row in rows
        if row.kind == DeadlineKind.TELEPHONE and (row.cleared_at is None or row.lapsed)
    }


def assign(
    planned: Plan,
    sent: Sent,
    before: Mapping[str, Want],
    called: Collection[str],
    retractor: Retractor,
) -> Assigned:
    """Return where each wanted message belongs. `before` is what the version to be replaced asked
    for, by key, if a referral of it has ended; `called`: see there.

    Raises Conflict where a referral would go elsewhere, or can no longer be amended.
    """
    old, directory = sent.message, retractor.directory
    slots: dict[str, Slot] = {}
    amended: dict[str, Found] = {}
    said: list[str] = []
    for one in planned.planned:
        want = one.want
        name = asked_as(retractor.vault, old.correlation_id, want.key)
        if want.kind is Kind.UPDATE and old.kind == Kind.UPDATE:
            facts = {"reason": "update", "about": old.id}
            unclocked = CALLED if old.id in called and _acting(one) in sent.places else NOTHING
            slots[want.key] = Slot(
                old.subject_id, None, UPDATE_SUBMITTED, old.id, old.version + 1, facts, unclocked
            )
            continue
        # One post may ask the same place for several things, each a referral of its own.
        asked = _asked_as(sent, sent.referrals, name)
        live = next((found for found in asked if _same_place(found, one)), None)
        ended = next(_asked_as(sent, reversed(sent.ended), name), None)
        if live is not None:
            slots[want.key] = _amendment(live, called, directory)
            amended[want.key] = live
            if referral.needs_receivers_eye(State(live.row.state)):
                name = directory.name(Destination(live.row.receiver, live.row.receiver_service))
                said.append(
                    f"{name} has already taken the patient on: make sure that somebody there sees "
                    "the amendment."
                )
        elif old.kind == Kind.REFERRAL:
            raise _elsewhere(sent, one, directory)
        elif ended is not None and _has_had_its_course(ended, want, before.get(want.key)):
            said.append(retractor.standing(ended, "is not made again"))
        else:
            slots[want.key] = new_slot(want, planned.needs.subject)
    return Assigned(slots, amended, said)


def following(planned: Plan, sent: Sent, vault: Vault) -> Plan:
    """Return a plan in which what was sent on since goes to where it is now."""
    followed = []
    for one in planned.planned:
        name = asked_as(vault, sent.message.correlation_id, one.want.key)
        sent_on = (
            Destination(found.row.receiver, found.row.receiver_service)
            for found in _asked_as(sent, sent.referrals, name)
            if one.want.kind is Kind.REFERRAL
            and sent.sent_to.get(found.row.subject_id) == _acting(one)
        )
        place = next(sent_on, None)
        if place is not None:
            one = replace(one, routes=tuple(_followed(one.routes, place)), candidates=())
        followed.append(one)
    return replace(planned, planned=tuple(followed))


def taken(planned: Plan, amended: Mapping[str, Found]) -> Plan:
    """Return a plan in which what amends a referral is as urgent as its receiver takes it."""
    return replace(
        planned,
        planned=tuple(
            replace(one, want=replace(one.want, priority=now), asked=one.want.priority)
            if one.want.key in amended
            and (now := triage.amended(amended[one.want.key].row, one.want.priority).priority)
            is not one.want.priority
            else one
            for one in planned.planned
        ),
    )


def _followed(routes: Iterable[Route], place: Destination) -> Iterator[Route]:
    for route in routes:
        if route.role is Role.ACTING:
            yield Route(place, Role.ACTING, "Its receiver has sent it on to there.")
        elif route.destination.ods != place.ods:
            yield route


def _amendment(live: Found, called: Collection[str], directory: Directory) -> Slot:
    """Return the next place on a referral that goes on. Raises Conflict where it cannot."""
    last, state = live.about.message, State(live.row.state)
    referral.apply(
        state,
        referral.MOVES["amend"],
        referral.Relation.SENDER,
        moves.context(live.row, live.row.sender, directory, last.accepted_at),
    )
    is_decided = state not in move_clocks.UNDECIDED  # and no acceptance will come again
    unclocked = move_clocks.UNSEEN | {DeadlineKind.DECIDED} if is_decided else NOTHING
    return Slot(
        subject=live.row.subject_id,
        subject_kind=None,
        event_type=REFERRAL_AMENDED,
        replaces=last.id,
        version=last.version + 1,
        facts={"reason": "update", "about": last.id},
        unclocked=unclocked | (CALLED if last.id in called else NOTHING),
    )


def _has_had_its_course(ended: Found, want: Want, before: Want | None) -> bool:
    """Whether this asks for no more than the version before did, whose referral waits for nobody.

    A rejected or expired one waits for its sender; a higher urgency or another rule is new.
    """
    return (
        before is not None
        and want.reason_code == before.reason_code
        and want.priority.rank >= before.priority.rank
        and referral.STAGES[State(ended.row.state)].waits_for is None
    )


def _asked_as(sent: Sent, found: Iterable[Found], name: str) -> Iterator[Found]:
    """Yield those that were asked for as this; what does not say so was the only one."""
    return (one for one in found if sent.asked_as[one.row.subject_id] in {name, ""})


def _same_place(found: Found, one: Planned) -> bool:
    acting = _acting(one)
    return (found.row.receiver, found.row.receiver_service) == (acting.ods, acting.service)


def _acting(one: Planned) -> Destination:
    return next(route.destination for route in one.routes if route.role is Role.ACTING)


def check_can_be_changed(planned: Plan, assigned: Assigned, known: Directory) -> None:
    """Raise Conflict where a referral that stands would change at a place that speaks BaRS, which
    has no message for that."""
    slots, amended = assigned.slots, assigned.amended.values()
    places = {Destination(one.row.receiver, one.row.receiver_service) for one in amended}
    places |= {
        route.destination
        for one in planned.planned
        if one.want.key in slots and slots[one.want.key].event_type == REFERRAL_AMENDED
        for route in one.routes
        if route.role is Role.ACTING
    }
    for place in places:
        if known.channel(place) == BARS:
            raise Conflict(
                f"{known.name(place)} cannot be sent a changed referral. Cancel this one, then "
                "send what is right as a new one, under a reference of its own."
            )


def _elsewhere(sent: Sent, one: Planned, directory: Directory) -> Conflict:
    anew = "refer anew, under a new reference"
    if not sent.referrals:
        return Conflict(f"This referral has ended; it cannot be amended. To send it, {anew}.")
    row = sent.referrals[0].row
    was = directory.name(Destination(row.receiver, row.receiver_service))
    return Conflict(
        f"With this body the referral would go to {directory.name(_acting(one))} instead of "
        f"{was}. Cancel it with POST /referrals/{row.subject_id}/cancel (referred-elsewhere) and "
        f"{anew}."
    )
