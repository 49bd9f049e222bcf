"""The log as outsiders read it: its records, and the ports of what writes and reads one.

The ledger is the truth; a log is made of it and can be made again. At least once: who reads drops
what is not above the last `sequence` of its subject.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from broker.errors import BrokerError
from broker.events import Recorded


@dataclass(frozen=True, slots=True)
class Record:
    """One event as it is published, by CloudEvents' names. `sequence` is its place among its
    subject's events; `data` is sealed, and is empty where a log holds only that it happened."""

    id: str
    type: str
    source: str
    subject: str
    sequence: int
    time: datetime
    dataschema: str = ""
    correlation_id: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None
    data: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, event: Recorded) -> "Record":
        """Return what a log says of an event, without its data: nothing of a patient is in it."""
        return cls(
            id=event.id,
            type=event.type,
            source=event.source,
            subject=event.subject,
            sequence=event.subject_seq,
            time=event.time,
            dataschema=event.dataschema,
            correlation_id=event.correlation_id,
            causation_id=event.causation_id,
            traceparent=event.traceparent,
        )


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Something that cannot be read as a record, or not be published as one: its place (or the
    event's id) and why, in a code. What it held is in no field."""

    place: str
    code: str


class Unknown(BrokerError):
    """It is not known which of these records were written: publish them again, under their ids."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What was read, in the order of each subject. `commit` says that all of it is done with:
    what was read and not committed is read again."""

    records: Sequence[Record]
    quarantined: Sequence[Quarantined]
    commit: Callable[[], Awaitable[None]] = field(repr=False)

    def __bool__(self) -> bool:
        return bool(self.records or self.quarantined)


class Publisher(Protocol):
    """Writes to a log."""

    async def publish(self, records: Sequence[Record]) -> Sequence[Quarantined]:
        """Write these, in the order of each subject. Durable on return, but for what is returned:
        that can never be written. Safe to repeat. Raises Unknown."""
        ...

    async def close(self) -> None:
        """Let go of it within seconds, also where nothing answers."""
        ...


class Reader(Protocol):
    """Reads a log, as one of a group: what one of them has committed none of them reads again."""

    async def read(self) -> Batch:
        """Return what comes next; an empty batch where nothing has come. Raises Unavailable."""
        ...

    async def lag(self) -> int:
        """Return how many records the group has not committed. Raises Unavailable."""
        ...

    async def close(self) -> None:
        """Let go of it within seconds, also where nothing answers."""
        ...
