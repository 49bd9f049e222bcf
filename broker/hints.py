"""What Kafka's records are to dispatch: hints. The deliveries are made from the ledger alone.

An offset is committed only when the delivery rows exist. What names no event of the ledger is
nobody's instruction: it is put on the work-list, and nothing is delivered for it.
"""

import uuid
from collections.abc import Sequence
from typing import Final, Protocol

import structlog

from broker.audit import Entry
from broker.core import Core
from broker.crashpoints import crashpoint
from broker.dispatch import Dispatch
from broker.errors import Fatal
from broker.events import Priority
from broker.log import Quarantined, Reader, Record
from broker.store import ledger, work
from broker.store.tx import Connection, Tx
from fhir_profiles import identifiers

NOT_IN_LEDGER: Final = "not-in-ledger"
QUARANTINED: Final = "quarantined"
STANDSTILL_SECONDS: Final = 60.0
_PLACES: Final = uuid.UUID("0d1cbb1e-8f43-5a0e-9b3e-6f6f6b1f7a52")

log = structlog.get_logger()


class Hints:
    """Fans out what a log brings. Any number may run, each with a reader of the same group."""

    def __init__(self, core: Core, dispatch: Dispatch, reader: Reader) -> None:
        self._core = core
        self._dispatch = dispatch
        self._reader = reader

    async def run_once(self) -> int:
        """Fan out the next batch; return how many records it was. Raises Unavailable; then the
        batch comes again."""
        batch = await self._reader.read()
        if not batch:
            return 0
        crashpoint("hints.read")
        strange = [*batch.quarantined]
        known = await self._core.store.read(lambda c: _known(c, batch.records))
        hints: dict[str, int] = {}
        for record in batch.records:
            if known.get(record.id) == (record.subject, record.sequence):
                hints[record.subject] = max(record.sequence, hints.get(record.subject, 0))
            else:
                strange.append(Quarantined(record.id, NOT_IN_LEDGER))
        if strange:
            await self._core.store.write(lambda tx: quarantine(tx, strange))
        if hints:
            await self._dispatch.fan_out(hints)
        crashpoint("hints.fanned-out")
        await batch.commit()
        crashpoint("hints.committed")
        return len(batch.records) + len(batch.quarantined)


def _known(connection: Connection, records: Sequence[Record]) -> dict[str, tuple[str, int]]:
    ids = [one for record in records if (one := identifiers.uuid(record.id)) is not None]
    found = ledger.by_id(connection, ids)
    return {event.id: (event.subject, event.subject_seq) for event in found}


def quarantine(tx: Tx, strange: Sequence[Quarantined]) -> None:
    """Put what cannot be used on the work-list, once for each place, which audit and log name."""
    for one in strange:
        item = str(uuid.uuid5(_PLACES, one.place))
        if not work.put_item(
            tx, QUARANTINED, item, message_id=None, organisation=None, priority=Priority.ASAP.value
        ):
            continue
        # An id that is none of ours is a stranger's text, and may say anything.
        is_strange = one.code == NOT_IN_LEDGER and identifiers.uuid(one.place) is None
        facts = {"place": "?" if is_strange else one.place, "code": one.code}
        tx.audit(Entry("record.quarantined", "dispatch", "", "record", item, facts))
        log.error("log.quarantined", item=item, **facts)


class Standstill(Fatal):
    """A reader of Kafka gets nothing although there is something to read: it must start anew."""


class Places(Protocol):
    """What a group has committed, and where it ends, by partition; and whether its reader waits for
    whoever handles what it gave out."""

    @property
    def is_waited_for(self) -> bool: ...

    async def places(self) -> dict[str, tuple[int, int]]: ...


class Watchdog:
    """Sees that a group stands still: a partition holds records, and none is committed for
    STANDSTILL_SECONDS though its reader could give out more. Where that waits for us, because the
    database is away, another process would not get further."""

    def __init__(self, reader: Places) -> None:
        self._reader = reader
        self._seen: dict[str, tuple[int, float]] = {}

    async def look(self, now: float) -> None:
        """Look at every partition; `now` is a monotonic time. Raises Standstill, or Unavailable
        where Kafka does not answer: then nobody stands still."""
        if self._reader.is_waited_for:
            self._seen.clear()
            return
        places = await self._reader.places()
        for place, (done, end) in places.items():
            before, since = self._seen.pop(place, (-1, now))
            if done >= end:
                continue
            self._seen[place] = (done, since if done == before else now)
            if done == before and now - since > STANDSTILL_SECONDS:
                raise Standstill(
                    f"{place} holds records after {done}, and none was taken for "
                    f"{STANDSTILL_SECONDS:g} s: the process ends, to be started again."
                )
