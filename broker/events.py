"""Events: immutable recorded facts about a subject, their types, ids and pinned encoding.

Names follow CloudEvents 1.0. Nothing here may change once released: the derivations of ids are
held by golden tests.
"""

import hashlib
import os
import re
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What a message is: for the record, a request to take a patient on, or word of something."""

    UPDATE = "update"
    REFERRAL = "referral"
    NOTICE = "notice"


class SubjectKind(StrEnum):
    """What an event is about."""

    REFERRAL = "referral"
    CONSULTATION = "consultation"
    THREAD = "thread"
    DOCUMENT = "document"


class Priority(StrEnum):
    """FHIR request-priority. `rank` 0 is the most urgent."""

    STAT = "stat"
    URGENT = "urgent"
    ASAP = "asap"
    ROUTINE = "routine"

    @property
    def rank(self) -> int:
        return _RANKS[self]

    @property
    def words(self) -> str:
        return _WORDS[self]

    @property
    def is_urgent(self) -> bool:
        """Whether it may use the slots that are kept for urgent work."""
        return self.rank <= 1


_RANKS = {Priority.STAT: 0, Priority.URGENT: 1, Priority.ASAP: 2, Priority.ROUTINE: 3}
_WORDS = {
    Priority.STAT: "same day",
    Priority.URGENT: "urgent",
    Priority.ASAP: "within 7 days",
    Priority.ROUTINE: "routine",
}


def highest(*priorities: Priority) -> Priority:
    """Return the most urgent of them."""
    return min(priorities, key=lambda priority: priority.rank)


class Role(StrEnum):
    """Why a destination is told: it must act, it gets a copy, or it hears of something."""

    ACTING = "acting"
    COPY = "copy"
    NOTICE = "notice"


def delivered_as(kind: Kind, role: Role) -> Kind:
    """Return what a message is to the place that gets it: a copy of a referral is for the record,
    not a request to act."""
    return Kind.UPDATE if role is Role.COPY else kind


UPDATE_SUBMITTED: Final = "record.update.submitted.v1"
UPDATE_WITHDRAWN: Final = "record.update.withdrawn.v1"
UPDATE_ACKNOWLEDGED: Final = "record.update.acknowledged.v1"
REFERRAL_SUBMITTED: Final = "referral.request.submitted.v1"
REFERRAL_AMENDED: Final = "referral.request.amended.v1"
REFERRAL_REDIRECTED: Final = "referral.request.redirected.v1"
REFERRAL_MOVED: Final = "referral.task.moved.v1"
NOTICE_ISSUED: Final = "notice.message.issued.v1"
DELIVERY_RECEIVED: Final = "broker.delivery.received.v1"
DELIVERY_DIED: Final = "broker.delivery.died.v1"

ALL_TYPES: Final = frozenset(
    {
        UPDATE_SUBMITTED,
        UPDATE_WITHDRAWN,
        UPDATE_ACKNOWLEDGED,
        REFERRAL_SUBMITTED,
        REFERRAL_AMENDED,
        REFERRAL_REDIRECTED,
        REFERRAL_MOVED,
        NOTICE_ISSUED,
        DELIVERY_RECEIVED,
        DELIVERY_DIED,
    }
)

DELIVERY_NAMESPACE: Final = uuid.UUID("7f0c4c9e-5c0b-5b53-9c11-6d0f6c1f2a01")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Destination:
    """An organisation and, where it has several, the service there. Both are directory codes."""

    ods: str
    service: str = ""

    def __str__(self) -> str:
        return f"{self.ods}/{self.service}" if self.service else self.ods

    def covers(self, other: "Destination") -> bool:
        """Whether it names the other: that very service, or the organisation with all of them."""
        return self.ods == other.ods and self.service in {"", other.service}


@dataclass(frozen=True, slots=True)
class Route:
    """One destination of an event, fixed when the event is recorded, with the reason why."""

    destination: Destination
    role: Role
    reason: str


@dataclass(frozen=True, slots=True)
class Event:
    """A fact about a subject, by CloudEvents' names. It holds ids, codes and times only: its
    `data`, the FHIR content, is sealed in the store as the payload `content` of the event's id.
    """

    id: str
    type: str
    source: str
    subject: str
    time: datetime
    dataschema: str
    message_id: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None
    priority: Priority = Priority.ROUTINE
    facts: dict[str, str] = field(default_factory=dict)
    routes: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event as it stands in the ledger."""

    position: int
    id: str
    type: str
    source: str
    subject: str
    subject_seq: int
    time: datetime
    dataschema: str
    message_id: str | None
    correlation_id: str | None
    causation_id: str | None
    traceparent: str | None
    priority: Priority
    facts: dict[str, str]
    routes: tuple[Route, ...]


_POOLED: Final = 4_000
_pool = b""
_pool_lock = threading.Lock()


def _random_bytes(count: int) -> bytes:
    """Return bytes of the system's generator, fetched many at a time: each call to it is slow."""
    global _pool
    with _pool_lock:
        if len(_pool) < count:
            _pool = os.urandom(_POOLED)
        taken, _pool = _pool[:count], _pool[count:]
    return taken


def _forget() -> None:
    """A forked process must not give out its parent's bytes again."""
    global _pool
    _pool = b""


os.register_at_fork(after_in_child=_forget)


def uuid7() -> str:
    """Return a new RFC 9562 UUIDv7: random, roughly in the order of making."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | int.from_bytes(_random_bytes(10), "big")
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    digits = f"{value:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def caused_id(cause: str, consumer: str, destination: str, kind: str, ordinal: int = 0) -> str:
    """Return the id of what `cause` brings about: the same for ever, so a repeat is recognised.

    UUIDv8 (RFC 9562) of SHA-256 over the five parts, each preceded by its length in bytes.
    """
    digest = hashlib.sha256()
    for part in (cause, consumer, destination, kind, str(ordinal)):
        encoded = part.encode("utf-8")
        digest.update(len(encoded).to_bytes(4, "big"))
        digest.update(encoded)
    value = int.from_bytes(digest.digest()[:16], "big")
    value = (value & ~(0xF << 76)) | (0x8 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return str(uuid.UUID(int=value))


def delivery_id(consumer: str, event_id: str, destination: Destination) -> str:
    """Return the id of one consumer's obligation for one event towards one destination."""
    return str(uuid.uuid5(DELIVERY_NAMESPACE, f"{consumer}|{event_id}|{destination}"))


def digest(body: bytes) -> str:
    """Return the SHA-256 of the plaintext, in hexadecimal, as receipts name it."""
    return hashlib.sha256(body).hexdigest()


def read_traceparent(given: str | None) -> str | None:
    """Return a caller's trace context, or None where it is none (W3C Trace Context, version 00).

    It is kept and sent on in the clear, so nothing that could be a sentence may pass for one.
    """
    return given if given is not None and _TRACEPARENT.fullmatch(given) else None
