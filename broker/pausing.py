"""Pausing a destination: no attempt begins there until it is resumed, and what is under way ends.

Everything stands in its inbox as ever, and deadlines go on: whoever pauses is told how much of it
is urgent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from broker.audit import Entry
from broker.errors import NotFound
from broker.events import Destination, Priority
from broker.store import claims, pauses, work
from broker.store.tx import Connection, Tx

PAUSED: Final = "destination-paused"


@dataclass(frozen=True, slots=True)
class Paused:
    """A place at which nothing is attempted, and what waits there by priority. `item` is the pause
    as it stands on the work-list."""

    to: Destination
    since: datetime
    waiting: Mapping[str, int]
    item: str

    @property
    def urgent(self) -> int:
        """How many of those that wait must not wait long."""
        return sum(n for name, n in self.waiting.items() if Priority(name).is_urgent)

    @property
    def where(self) -> str:
        """The place, for people."""
        return "every destination" if self.to == pauses.EVERYWHERE else str(self.to)

    @property
    def words(self) -> str:
        """Say what waits, and how much of it is urgent."""
        total = sum(self.waiting.values())
        if not total:
            return "Nothing waits there."
        many = f"{total} {'delivery waits' if total == 1 else 'deliveries wait'} there"
        if not self.urgent:
            return f"{many}, none of them urgent."
        return f"{many}, {self.urgent} of them URGENT: see that somebody telephones."


def pause(tx: Tx, to: Destination, actor: str) -> bool:
    """Let no attempt begin at a place from now on; False where it was paused already.

    Durable on return of the transaction, and so for every process: whoever claims waits for it.
    Raises WrongSchema where the schema has no pauses yet.
    """
    claims.wait_for_others(tx)
    item = pauses.put(tx, to)
    if item is None:
        return False
    (found,) = (one for one in listing(tx.connection) if one.item == item)
    priority = Priority.URGENT if found.urgent else Priority.ROUTINE
    work.put_item(tx, PAUSED, item, message_id=None, organisation=None, priority=priority.value)
    facts = {"waiting": str(sum(found.waiting.values())), "urgent": str(found.urgent)}
    tx.audit(Entry("destination.paused", actor, to.ods, "endpoint", str(to), facts))
    return True


def resume(tx: Tx, to: Destination, actor: str) -> int:
    """Let attempts at a place begin again; return how many deliveries had waited.

    Raises NotFound where it is not paused itself.
    """
    waited = sum(pauses.waiting(tx.connection, [to]).values())
    item = pauses.end(tx, to)
    if item is None:
        raise NotFound(f"{to} is not paused.")
    work.close_items(tx, "resumed", code=PAUSED, object_id=item)
    facts = {"waited": str(waited)}
    tx.audit(Entry("destination.resumed", actor, to.ods, "endpoint", str(to), facts))
    return waited


def listing(connection: Connection) -> list[Paused]:
    """Return every pause with what waits for its end, the oldest first."""
    found = []
    for row in pauses.listing(connection):
        to = Destination(row.ods, row.service)
        found.append(Paused(to, row.since, pauses.waiting(connection, [to]), row.id))
    return found
