"""Replay: from the ledger, what it holds goes out once more under the ids that it had.

Missing deliveries are made, events are published again, and what had gone out is sent again only
where that is asked for, to the place that it was for. Nothing is sent again of which its
destination was told since that it is over, nor what was superseded or given up.
"""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any, Final

from broker import publishing
from broker.audit import Entry
from broker.core import Core
from broker.crashpoints import crashpoint
from broker.dispatch import SENT, Dispatch, overtaken
from broker.errors import NotFound
from broker.events import Destination, Recorded
from broker.log import Publisher, Record
from broker.relay import GROUP as RELAY
from broker.relay import quarantine
from broker.store import deliveries, ledger, resending
from broker.store.deliveries import GIVEN_UP
from broker.store.tx import LEDGER, Connection, Tx
from broker.topics import TOPIC_OF

PAGE: Final = 256


class Fate(StrEnum):
    """What a replay does about a delivery: it makes it (MISSING), lets it be, for it is under way
    or waits for its turn (OPEN), sends it again if that is asked for (GONE_OUT), or never sends it
    again: it is OVER, or its bytes were ERASED."""

    MISSING = "missing"
    OPEN = "open"
    GONE_OUT = "gone out"
    OVER = "over"
    ERASED = "erased"


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events: recorded from `since` to before `until`, of these types, of this message, and
    routed to this place; what is left empty chooses nothing away."""

    since: datetime | None = None
    until: datetime | None = None
    types: frozenset[str] = frozenset()
    to: Destination | None = None
    message: str | None = None

    @property
    def is_all(self) -> bool:
        """Whether it leaves nothing of the ledger out."""
        return self == Wanted()

    def takes(self, place: Destination) -> bool:
        """Whether what goes to a place is meant."""
        return self.to is None or self.to.covers(place)

    def facts(self) -> dict[str, str]:
        """Return it as the audit keeps it."""
        said = {
            "since": self.since.isoformat() if self.since else "",
            "until": self.until.isoformat() if self.until else "",
            "types": " ".join(sorted(self.types)),
            "to": str(self.to or ""),
            "message": self.message or "",
        }
        return {name: value for name, value in said.items() if value}


@dataclass(slots=True)
class Plan:
    """What a replay would find: how many events, the first and last time of them, how many of them
    the relay has published by topic, and the deliveries by destination and fate."""

    events: int = 0
    first: datetime | None = None
    last: datetime | None = None
    topics: Counter[str] = field(default_factory=Counter)
    fates: Counter[tuple[Destination, Fate]] = field(default_factory=Counter)

    def count(self, *fates: Fate) -> int:
        """Return how many deliveries have one of these fates."""
        return sum(count for (_, fate), count in self.fates.items() if fate in fates)


@dataclass(frozen=True, slots=True)
class Done:
    """What a replay did, and which events stand on the work-list now: of these not all deliveries
    could be made, or they could not be published."""

    made: int = 0
    resent: int = 0
    published: int = 0
    in_trouble: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Owed:
    """An event, and the fate of each delivery that it must have."""

    event: Recorded
    fates: Mapping[str, tuple[Destination, Fate]]

    def ids(self, fate: Fate) -> list[str]:
        return [one for one, (_, found) in self.fates.items() if found is fate]


class Replay:
    """Looks at what a choice of events comes to, and carries it out. Safe to repeat: what is there
    is not made twice, and what went out before is recognised by its id."""

    def __init__(self, core: Core, dispatch: Dispatch) -> None:
        self._core = core
        self._dispatch = dispatch

    async def plan(self, wanted: Wanted) -> Plan:
        """Return what a replay would do. Changes nothing."""
        plan = Plan()
        published = await self._published()
        async for page in self._pages(wanted):
            for one in page:
                plan.events += 1
                plan.first = plan.first or one.event.time
                plan.last = one.event.time
                plan.fates.update(one.fates.values())
                if one.event.position <= published:
                    plan.topics[TOPIC_OF[one.event.type]] += 1
        return plan

    async def carry_out(
        self, wanted: Wanted, actor: str, *, resend: bool, publisher: Publisher | None
    ) -> Done:
        """Make what is missing; send again what had gone out, if `resend`; publish again what was
        published, if there is a publisher. Each step is durable and audited before the next.

        Raises Unknown where it is not known what was published: then do it again.
        """
        await self._audit("ledger.replay-begun", actor, wanted)
        crashpoint("replay.begun")
        done, published = Done(), await self._published()
        async for page in self._pages(wanted):
            if publisher is not None:
                known = [one.event for one in page if one.event.position <= published]
                done = _sum(done, await self._publish(publisher, known))
            for one in page:
                done = _sum(done, await self._deliver(one, actor, resend=resend))
        counts = {"made": done.made, "resent": done.resent, "published": done.published}
        await self._audit(
            "ledger.replayed", actor, wanted, {name: str(n) for name, n in counts.items()}
        )
        return done

    async def _audit(
        self, action: str, actor: str, wanted: Wanted, facts: Mapping[str, str] | None = None
    ) -> None:
        entry = Entry(action, actor, "", "ledger", "", wanted.facts() | dict(facts or {}))
        await self._core.store.write(lambda tx: tx.audit(entry))

    async def _published(self) -> int:
        """Return how far the relay has come: what stands after that it publishes itself."""
        return await self._core.store.read(lambda c: ledger.cursor(c, RELAY))

    async def _pages(self, wanted: Wanted) -> AsyncIterator[list[_Owed]]:
        position = 0
        while True:
            found, page = await self._core.store.read(
                partial(self._page, wanted=wanted, after=position)
            )
            if not found:
                return
            yield page
            position = found[-1].position

    def _page(
        self, connection: Connection, wanted: Wanted, after: int
    ) -> tuple[Sequence[Recorded], list[_Owed]]:
        found = ledger.chosen(
            connection,
            after=after,
            limit=PAGE,
            since=wanted.since,
            until=wanted.until,
            types=wanted.types,
            message=wanted.message,
        )
        routed = [
            event
            for event in found
            if wanted.to is None or any(wanted.takes(route.destination) for route in event.routes)
        ]
        rows = {row.id: row for row in resending.of_events(connection, [one.id for one in routed])}
        whole = resending.with_body(connection, list(rows), SENT)
        return found, [self._owed(connection, event, rows, whole, wanted) for event in routed]

    def _owed(
        self,
        connection: Connection,
        event: Recorded,
        rows: Mapping[str, Any],
        whole: set[str],
        wanted: Wanted,
    ) -> _Owed:
        owed = {i: to for i, to in self._dispatch.owed(event).items() if wanted.takes(to)}
        over = overtaken(connection, event) if owed else frozenset()
        return _Owed(
            event,
            {
                one: (to, _fate(rows.get(one), is_over=to in over, is_whole=one in whole))
                for one, to in owed.items()
            },
        )

    async def _publish(self, publisher: Publisher, events: Sequence[Recorded]) -> Done:
        if not events:
            return Done()
        records, unfit = await publishing.sealed(self._core, [Record.of(one) for one in events])
        unfit += await publisher.publish(records)
        crashpoint("replay.published")
        if unfit:
            await self._core.store.write(lambda tx: quarantine(tx, unfit))
        return Done(
            published=len(events) - len(unfit), in_trouble=tuple(one.place for one in unfit)
        )

    async def _deliver(self, one: _Owed, actor: str, *, resend: bool) -> Done:
        event, made, resent = one.event, 0, 0
        trouble: tuple[str, ...] = ()
        if one.ids(Fate.MISSING):
            found = await self._dispatch.again(event.id, actor)
            crashpoint("replay.made")
            made = found.made
            trouble = (event.id,) if found.trouble else ()
        gone = one.ids(Fate.GONE_OUT) if resend else []
        if gone:
            resent = await self._core.store.write(
                lambda tx: sum(_resend(tx, event, delivery, actor) for delivery in gone)
            )
            crashpoint("replay.resent")
        return Done(made=made, resent=resent, in_trouble=trouble)


def _sum(one: Done, other: Done) -> Done:
    return Done(
        one.made + other.made,
        one.resent + other.resent,
        one.published + other.published,
        one.in_trouble + other.in_trouble,
    )


def _fate(row: Any, *, is_over: bool, is_whole: bool) -> Fate:
    if is_over or (row is not None and row.done_reason in {"superseded", GIVEN_UP}):
        return Fate.OVER
    if row is None:
        return Fate.MISSING
    is_sent = row.held_reason == "receipt" and row.channel != "inbox"  # a 2xx without a receipt
    if row.state != "done" and not is_sent:
        return Fate.OPEN
    return Fate.GONE_OUT if is_whole else Fate.ERASED


def _resend(tx: Tx, event: Recorded, delivery: str, actor: str) -> int:
    """Send a delivery again, unless it is not any more what it was when it was chosen."""
    row = deliveries.lock(tx, delivery)
    to = Destination(row.ods, row.service) if row is not None else None
    is_over = to in overtaken(tx.connection, event)
    if _fate(row, is_over=is_over, is_whole=True) is not Fate.GONE_OUT or row is None:
        return 0
    resending.resend(tx, row)
    facts = {"was": row.held_reason or row.done_reason, "sequence": str(row.subject_seq)}
    tx.audit(Entry("delivery.resent", actor, row.ods, "delivery", delivery, facts))
    return 1


def rebuild(tx: Tx, after: int, actor: str) -> None:
    """Have the relay publish again all that stands after a position: it begins with its next batch,
    whether or not it runs now. Raises NotFound where there is no such position."""
    head = ledger.head(tx.connection)
    if not 0 <= after <= head:
        raise NotFound(f"There is no position {after}: the ledger ends at {head}.")
    facts = {"was": str(ledger.cursor(tx.connection, RELAY)), "after": str(after)}
    ledger.set_cursor(tx, RELAY, after)
    crashpoint("replay.set-back")
    tx.audit(Entry("relay.set-back", actor, "", "cursor", RELAY, facts))
    tx.wake(LEDGER)
