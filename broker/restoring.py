"""After a backup was restored: nothing is sent until what others hold was compared with it.

Messages are taken meanwhile, inboxes are read and receipts given. `begin` makes it so before
anything runs, `reconcile` compares, `go` is an operator's word that it may send again.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from broker import hints, pausing, receipts
from broker.audit import Entry
from broker.core import Core
from broker.crashpoints import crashpoint
from broker.errors import Conflict
from broker.events import DELIVERY_DIED, DELIVERY_RECEIVED, UPDATE_ACKNOWLEDGED
from broker.hints import NOT_IN_LEDGER
from broker.log import Quarantined, Reader, Record
from broker.ports import Receipt
from broker.store import claims, deliveries, ledger, pauses, restorations, work
from broker.store.tx import Connection, Tx
from fhir_profiles import identifiers

VIA: Final = "restore"
TOLD: Final = frozenset({DELIVERY_RECEIVED, DELIVERY_DIED, UPDATE_ACKNOWLEDGED})
"""Types of event after which a delivery may go out as before: nothing was revoked by them."""


@dataclass(frozen=True, slots=True)
class Lost:
    """An event that was published and is not in the ledger. `owner` is whose subject it is, where
    the ledger knows the subject."""

    record: Record
    owner: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """What reconciling found.

    `received`: how many deliveries receivers proved to hold; `unknown`: receipts for deliveries
    that the ledger does not have, which were made after the backup; `false`: receipts that name
    other bytes or another place. `lost`: what was published after the backup. `stopped`: deliveries
    of subjects that went on since, which are dead until somebody retries them or gives them up;
    `unsent`: the rows of those that go out with `go`.
    """

    received: int
    unknown: Sequence[Receipt]
    false: Sequence[Receipt]
    lost: Sequence[Lost]
    stopped: Sequence[Any]
    unsent: Sequence[Any]


def begin(tx: Tx, actor: str) -> None:
    """Mark a database that came from a backup: nothing is sent from it, and no sequence is given
    out that anybody may have seen. Raises Conflict where that was done."""
    if restorations.current(tx.connection) is not None:
        raise Conflict("This is marked as restored already: referral-broker restore reconcile")
    pausing.pause(tx, pauses.EVERYWHERE, actor)
    row = restorations.begin(tx)
    facts = {"position": str(row.position), "step": str(row.step)}
    tx.audit(Entry("restore.begun", actor, "", "restoration", row.id, facts))
    crashpoint("restore.begun")


def go(tx: Tx, actor: str) -> int:
    """Let everything be sent again; return how many deliveries had waited.

    Raises Conflict where nothing was restored, or it was not reconciled.
    """
    row = _current(tx.connection)
    if row.reconciled_at is None:
        raise Conflict("What others hold was not compared yet: referral-broker restore reconcile")
    waited = pausing.resume(tx, pauses.EVERYWHERE, actor)
    restorations.end(tx, row.id)
    tx.audit(Entry("restore.ended", actor, "", "restoration", row.id, {"waited": str(waited)}))
    crashpoint("restore.ended")
    return waited


async def reconcile(
    core: Core, given: Iterable[Receipt], reader: Reader | None, actor: str
) -> Report:
    """Compare the ledger with what receivers and Kafka hold. Sends nothing; safe to repeat.

    `reader` reads every topic from its beginning. Raises Conflict where nothing was restored, and
    Unavailable where Kafka does not answer.
    """
    row = await core.store.read(_current)
    received, unknown, false = await _take(core, given, actor)
    crashpoint("restore.received")
    lost = [one async for one in _lost(core, reader)] if reader is not None else []
    crashpoint("restore.compared")

    def write(tx: Tx) -> tuple[list[Any], Sequence[Any]]:
        stopped = _stop(tx, row.position, lost)
        hints.quarantine(tx, [Quarantined(one.record.id, NOT_IN_LEDGER) for one in lost])
        restorations.note_reconciled(tx, row.id)
        unsent = restorations.unsent(tx.connection, row.position)
        counts = {
            "received": received,
            "unknown": len(unknown),
            "false": len(false),
            "lost": len(lost),
            "stopped": len(stopped),
            "unsent": len(unsent),
        }
        facts = {name: str(count) for name, count in counts.items()}
        facts["kafka"] = "read" if reader is not None else "not read"
        tx.audit(Entry("restore.reconciled", actor, "", "restoration", row.id, facts))
        return stopped, unsent

    stopped, unsent = await core.store.write(write)
    crashpoint("restore.reconciled")
    return Report(received, unknown, false, lost, stopped, unsent)


def _current(connection: Connection) -> Any:
    row = restorations.current(connection)
    if row is None:
        raise Conflict("Nothing was restored here, or it goes on already.")
    return row


async def _take(
    core: Core, given: Iterable[Receipt], actor: str
) -> tuple[int, list[Receipt], list[Receipt]]:
    """Write the receipts that receivers hold: (how many were news, for no delivery, false)."""
    received, unknown, false = 0, [], []
    for receipt in given:
        name = identifiers.uuid(receipt.delivery)
        row: Any = (
            await core.store.read(partial(deliveries.get, delivery_id=name))
            if name is not None
            else None
        )
        if row is None:
            unknown.append(receipt)
        elif row.received_at is not None and row.state == "done":
            continue
        elif await receipts.take(core, row, receipt, via=VIA, client=actor):
            received += 1
        else:
            false.append(receipt)
    return received, unknown, false


async def _lost(core: Core, reader: Reader) -> AsyncIterator[Lost]:
    """Yield each event that was published and that the ledger does not have, once."""
    seen: set[str] = set()
    while True:
        batch = await reader.read()
        if not batch:
            if await reader.lag() <= 0:
                return
            continue
        fresh = [one for one in batch.records if one.id not in seen]
        seen.update(one.id for one in fresh)
        for one in await core.store.read(partial(_unknown, records=fresh)):
            yield one
        await batch.commit()


def _unknown(connection: Connection, records: Sequence[Record]) -> list[Lost]:
    ids = [one for record in records if (one := identifiers.uuid(record.id)) is not None]
    there = {event.id for event in ledger.by_id(connection, ids)}
    absent = {record.id: record for record in records if record.id not in there}
    owners = ledger.owners(
        connection, [one.subject for one in absent.values() if identifiers.uuid(one.subject)]
    )
    return [Lost(record, owners.get(record.subject)) for record in absent.values()]


def _stop(tx: Tx, position: int, lost: Sequence[Lost]) -> list[Any]:
    """Bury what is due of a subject that went on after the backup: it may have been cancelled or
    replaced, so a person decides about each."""
    stopped = []
    for subject in sorted(
        {one.record.subject for one in lost if one.owner and one.record.type not in TOLD}
    ):
        tx.lock_subject(subject)
        for row in restorations.unsent(tx.connection, position, subject=subject):
            if row.state != "due":
                continue
            claims.bury(tx, row, "steps-lost")
            work.put_item(
                tx,
                work.DELIVERY_DEAD,
                row.id,
                message_id=row.message_id,
                delivery_id=row.id,
                organisation=None,
                priority=row.priority,
            )
            stopped.append(row)
    return stopped
