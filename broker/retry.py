"""When a failed delivery is tried again, and when it is given up: pure, and readable as a sentence.

Rules: house.md section 5 (failure). A clinical deadline that passes changes nothing here: it is
raised elsewhere, and the attempts go on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from broker.errors import DeliveryCode, Reject, Retry
from broker.events import Priority

PERMANENT: Final = frozenset({400, 410, 413, 415, 422})
"""Statuses by which a destination says that this very content will never be taken."""


class Verdict(StrEnum):
    """What a HTTP status means for the delivery."""

    OK = "ok"
    RETRY = "retry"
    REJECT = "reject"


def judge(status: int) -> Verdict:
    """Tell whether a final HTTP status is success, a passing failure or a refusal for good.

    Everything that is neither a 2xx nor in `PERMANENT` may pass: a 404 or 401 is far more often a
    deployment or a key gone wrong at the other end than a word about this patient's message.
    """
    if 200 <= status < 300:
        return Verdict.OK
    return Verdict.REJECT if status in PERMANENT else Verdict.RETRY


def code_of(status: int) -> DeliveryCode:
    """Return the code under which a status that is not a success is kept."""
    if 300 <= status < 400:
        return "redirected"
    return "answered-4xx" if 400 <= status < 500 else "answered-5xx"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to wait between attempts, and for how long in all."""

    first: timedelta
    cap: timedelta
    jitter: float
    give_up_after: timedelta

    def delay(self, attempt: int, random: float) -> timedelta:
        """Return how long to wait after attempt number `attempt` (from 1); never over the cap.

        `random` is in [0, 1). Jitter only shortens, so that the cap stays a promise.
        """
        if attempt < 1:
            raise ValueError("Attempts are counted from 1.")
        # 2.0 ** 64 first delays is beyond any cap: the exponent is bounded so that an attempt
        # count in the thousands cannot overflow.
        doubled = self.first.total_seconds() * 2.0 ** min(attempt - 1, 64)
        seconds = min(doubled, self.cap.total_seconds())
        return timedelta(seconds=seconds * (1.0 - self.jitter * random))

    def __str__(self) -> str:
        return (
            f"tried again after {_words(self.first)}, then after twice as long each time up to "
            f"{_words(self.cap)}, each wait shortened by up to {self.jitter:.0%} at random; "
            f"given up {_words(self.give_up_after)} after it was first due"
        )


_ROUTINE: Final = RetryPolicy(
    first=timedelta(seconds=5),
    cap=timedelta(hours=1),
    jitter=0.2,
    give_up_after=timedelta(hours=72),
)
_URGENT: Final = RetryPolicy(
    first=timedelta(seconds=5),
    cap=timedelta(minutes=5),
    jitter=0.2,
    give_up_after=timedelta(hours=72),
)

POLICIES: Final[Mapping[Priority, RetryPolicy]] = MappingProxyType(
    {
        Priority.STAT: _URGENT,
        Priority.URGENT: _URGENT,
        Priority.ASAP: _ROUTINE,
        Priority.ROUTINE: _ROUTINE,
    }
)


def policy_of(rank: int) -> RetryPolicy:
    """Return the policy for a priority's rank: a delivery's own, or the one it has inherited."""
    return next(policy for priority, policy in POLICIES.items() if priority.rank == rank)


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a failed attempt: again at `due_at`, or dead if there is none."""

    code: DeliveryCode
    due_at: datetime | None

    @property
    def is_dead(self) -> bool:
        return self.due_at is None


def decide(
    policy: RetryPolicy,
    failure: Retry | Reject,
    *,
    attempt: int,
    first_due: datetime,
    now: datetime,
    random: float,
) -> Decision:
    """Decide what becomes of a delivery whose attempt number `attempt` has just failed.

    Dead at once: a Reject, or a status in `PERMANENT`. Dead: `give_up_after` since `first_due`.
    Else due again, never before a Retry-After unless that lies beyond the cap. The last attempt is
    due exactly when the time is up, so the whole of it is used.
    """
    if isinstance(failure, Reject) or failure.status in PERMANENT:
        return Decision(failure.code, None)
    gives_up = first_due + policy.give_up_after
    if now >= gives_up:
        return Decision(failure.code, None)
    due_at = now + policy.delay(attempt, random)
    if failure.not_before is not None:
        # A destination may ask for patience, not for silence: an urgent referral must not wait a
        # day because a proxy says so.
        due_at = max(due_at, min(failure.not_before, now + policy.cap))
    return Decision(failure.code, min(due_at, gives_up))


def _words(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    for size, unit in ((3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size and seconds % size == 0:
            count = seconds // size
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return f"{span.total_seconds():g} seconds"
