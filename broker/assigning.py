"""Which subject each message of a correction belongs to: one that it corrects, or one of its own.

What has no place is not sent: its referral has had its course, and the sender is told so.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from broker import moves, referral
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
from broker.preparing import Plan, Planned, Slot, new_slot
from broker.referral import State
from broker.retracting import Retractor
from broker.sent import Sent
from broker.store import work
from broker.store.tx import Connection

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
        if want.kind is Kind.UPDATE and old.kind == Kind.UPDATE:
            facts = {"reason": "update", "about": old.id}
            unclocked = CALLED if old.id in called and _acting(one) in sent.places else NOTHING
            slots[want.key] = Slot(
                old.subject_id, None, UPDATE_SUBMITTED, old.id, old.version + 1, facts, unclocked
            )
            continue
        live = next((found for found in sent.referrals if _same_place(found, one)), None)
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
        elif sent.ended and _has_had_its_course(sent.ended[-1], want, before.get(want.key)):
            said.append(retractor.standing(sent.ended[-1], "is not made again"))
        else:
            slots[want.key] = new_slot(want, planned.needs.subject)
    return Assigned(slots, amended, said)


def following(planned: Plan, sent: Sent) -> Plan:
    """Return a plan in which what was sent on since goes to where it is now."""
    now_at = {
        place: Destination(found.row.receiver, found.row.receiver_service)
        for found in sent.referrals
        for place in [sent.sent_to.get(found.row.subject_id)]
        if place is not None
    }
    followed = [
        replace(one, routes=tuple(_followed(one.routes, now_at[_acting(one)])))
        if one.want.kind is Kind.REFERRAL and _acting(one) in now_at
        else one
        for one in planned.planned
    ]
    return replace(planned, planned=tuple(followed))


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
    is_decided = state not in moves.UNDECIDED  # and no acceptance will come again
    unclocked = frozenset({DeadlineKind.DECIDED}) if is_decided else NOTHING
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
