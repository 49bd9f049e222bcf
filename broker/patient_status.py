"""What a patient may be told of a message: one line, and what happens next.

Every word that can be said stands in a table here, so that nothing of the message's own can be: no
pathway, place, reason, advice or time. It never says that all is well, for nobody here knows that.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from broker import deadlines
from broker.access import UNRESTRICTED
from broker.events import Kind, Role
from broker.referral import STAGES, State
from broker.store import deliveries
from broker.trails import Trail

WORSE: Final = (
    "If you feel worse or are worried, contact your GP practice or call 111. "
    "In an emergency call 999."
)
_ASK: Final = "Contact the team that sent it and ask what to do next."


@dataclass(frozen=True, slots=True)
class Said:
    """What is read out."""

    line: str
    next: str


_WAITING: Final = Said(
    "A referral has been made for you.",
    "The service still has to look at it. If you hear nothing, contact the team that referred you.",
)
_ENDED: Final = Said(
    "This referral has ended.",
    "If you have questions, or still need help, contact the team that referred you.",
)
_BACK: Final = Said(
    "The team that referred you needs to look at your referral again.",
    "They should contact you. If you hear nothing, contact them.",
)
_TALK: Final = Said(
    "The service needs to arrange things with you.",
    "Contact the service, or the team that referred you.",
)
REFERRAL: Final = MappingProxyType(
    {
        State.REQUESTED: _WAITING,
        State.RECEIVED: _WAITING,
        State.ACCEPTED: Said(
            "The service has agreed to your referral.",
            "They should contact you. If you hear nothing, contact the team that referred you.",
        ),
        State.INFORMATION_REQUESTED: Said(
            "The service has asked the team that referred you for more information.",
            "If you hear nothing, contact the team that referred you.",
        ),
        State.REDIRECTED: Said(
            "Your referral has been sent on to another service.",
            "They will look at it. If you hear nothing, contact the team that referred you.",
        ),
        State.BOOKED: Said(
            "An appointment has been booked.",
            "If you do not know when or where it is, contact the team that referred you.",
        ),
        State.IN_PROGRESS: Said(
            "The service is dealing with your referral.",
            "If you have questions, contact the service or the team that referred you.",
        ),
        State.COMPLETED: Said(
            "The service has finished with this referral.",
            "If you have questions, contact the service or the team that referred you.",
        ),
        State.REJECTED: _BACK,
        State.EXPIRED: _BACK,
        State.RESOLVED: Said(
            "This referral has ended.",
            "The team that referred you has other plans. If you hear nothing, contact them.",
        ),
        State.CANCELLED: _ENDED,
        State.DECLINED_BY_PATIENT: _ENDED,
        # Whoever reads the screen may not know it yet.
        State.DECEASED: _ENDED,
        State.DID_NOT_ATTEND: _TALK,
        State.NO_CONTACT: _TALK,
    }
)
FILED: Final = Said(
    "Your GP practice has added this to your record.", "If you have questions, contact them."
)
NOT_FILED: Final = Said("Your GP practice has not added this to your record.", _ASK)
UPDATE: Final = Said(
    "A message about your care has been made for your GP practice.",
    "The practice still has to look at it. If you have questions, contact the team that sent it.",
)
UNSENT: Final = Said("This was not sent.", _ASK)
TAKEN_BACK: Final = Said("This is no longer in use.", _ASK)
PRIVATE: Final = Said("This cannot be shown here.", _ASK)
LATE: Final = "This is taking longer than it should. Contact the team that sent it."


def said(trail: Trail, now: datetime, *, sent_on: bool = False) -> dict[str, Any]:
    """Say it; who has sent a referral on is told that, and nothing of what came after."""
    return asdict(_said(trail, now, sent_on)) | {"if_worse": WORSE}


def _said(trail: Trail, now: datetime, sent_on: bool) -> Said:
    status = trail.message.status
    if trail.message.label not in UNRESTRICTED:
        return PRIVATE
    if status == "withheld":
        return UNSENT
    # Closing a referral's message ends only the wait for its copy: the referral itself goes on.
    if status in {"withdrawn", "replaced"} or (status == "closed" and trail.referral is None):
        return TAKEN_BACK
    if sent_on:
        return REFERRAL[State.REDIRECTED]
    if trail.referral is not None:
        state = State(trail.referral.state)
        stands, ended = REFERRAL[state], STAGES[state].is_terminal
    else:
        stands = _update(trail)
        ended = stands in (FILED, NOT_FILED)
    return Said(stands.line, LATE) if not ended and _is_late(trail, now) else stands


def _update(trail: Trail) -> Said:
    if trail.message.kind == Kind.REFERRAL:
        return _WAITING
    acting = {row.id for row in trail.deliveries if row.role == Role.ACTING}
    for decision in trail.decisions:
        if decision.delivery_id in acting:
            return FILED if decision.outcome == "filed" else NOT_FILED
    return UPDATE


def _is_late(trail: Trail, now: datetime) -> bool:
    """Whether anything but a copy is overdue, undeliverable, or waits for somebody's eye."""
    acting = [row for row in trail.deliveries if row.role == Role.ACTING]
    others = {row.id for row in trail.deliveries} - {row.id for row in acting}
    return (
        any(row.delivery_id not in others for row in trail.items)
        or any(row.state == "dead" or row.done_reason == deliveries.GIVEN_UP for row in acting)
        or any(
            row.cleared_at is None
            and row.kind != deadlines.DeadlineKind.COPY_RECEIVED
            and deadlines.is_overdue(row.due_at, now)
            for row in trail.deadlines
        )
    )
