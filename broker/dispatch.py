"""Dispatch: from events in the ledger to one delivery row per consumer, event and destination.

A wake-up is a hint, a slow poll the safety net; `fan_out` always works from the ledger and may be
repeated: what is there already is skipped.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from broker import similar
from broker.audit import Entry
from broker.bars import originals
from broker.composition import CONTENT, FHIR_JSON
from broker.core import Core
from broker.crashpoints import crashpoint
from broker.directory import BARS, Directory
from broker.errors import NotFound
from broker.events import Destination, Kind, Recorded, Route, delivered_as, delivery_id, digest
from broker.ports import Addressed, Consumer, Original
from broker.store import deliveries, ledger, messages, work
from broker.store.messages import Opened
from broker.store.tx import Connection, Tx
from broker.vault import Binding

GROUP: Final = "dispatch"
BATCH: Final = 64
SENT: Final = "sent"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Source:
    """What is needed of one event to make its deliveries; `original` is what a notice tells of,
    where somebody is told who speaks BaRS, and `alike` what is to be looked out for."""

    event: Recorded
    message: Any
    content: Opened | None
    original: Original | None = None
    alike: Sequence[similar.Other] = ()


@dataclass(slots=True)
class _Prepared:
    """The (delivery row, sealed body row) for each destination of an event, and under which code
    a person must look at it if one could not be made."""

    event: Recorded
    rows: list[tuple[dict[str, Any], dict[str, Any]]]
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class FannedOut:
    """What fanning an event out again brought: how many deliveries were missing and are made, and
    under which code it still stands on the work-list, if it does."""

    made: int
    trouble: str | None


class Dispatch:
    """Fans events out. Any number may run: the subject's row says what is done."""

    def __init__(self, core: Core, consumers: Sequence[Consumer]) -> None:
        self._core = core
        self._consumers = consumers

    @property
    def types(self) -> frozenset[str]:
        """The types of event of which something is delivered."""
        return frozenset().union(*(consumer.types for consumer in self._consumers))

    def owed(self, event: Recorded) -> dict[str, Destination]:
        """Return the deliveries that an event must have, by id, whether or not they are there."""
        return {
            delivery_id(consumer.name, event.id, route.destination): route.destination
            for consumer, route in self._takers(event)
        }

    async def run_once(self) -> int:
        """Fan out what stands after the cursor; return how many events were passed.

        The cursor moves only once the delivery rows exist.
        """
        position, recorded, sources = await self._core.store.look_up(self._next)
        if not recorded:
            return 0
        crashpoint("dispatch.read")
        up_to = recorded[-1].position
        await self._make(sources, up_to)
        return up_to - position

    async def fan_out(self, hints: Mapping[str, int]) -> int:
        """Make the deliveries of these subjects' events up to these places. Safe to repeat."""
        sources = await self._core.store.read(lambda connection: self._load(connection, hints))
        return await self._make(sources)

    async def again(self, event_id: str, actor: str) -> FannedOut:
        """Make what is missing of an event's deliveries. Durable on return. Safe to repeat.

        What is there already stays as it was composed. A step made late takes its place in its
        lane as every step does: where later ones have gone already it is simply due, but what
        was cancelled, withdrawn or replaced meanwhile is not sent any more. Raises NotFound.
        """
        store = self._core.store
        event = await store.read(lambda connection: ledger.event(connection, event_id))
        if event is None:
            raise NotFound(f"There is no event {event_id}.")
        await self.fan_out({event.subject: event.subject_seq})  # nothing before it is passed over
        sources = await store.read(lambda connection: self._sources(connection, [event]))
        (prepared,) = await self._drawn_up(sources)
        made = await store.write(lambda tx: _write_again(tx, prepared, actor))
        return FannedOut(made, prepared.trouble)

    async def _make(self, sources: Sequence[_Source], up_to: int | None = None) -> int:
        prepared = await self._drawn_up(sources)
        crashpoint("dispatch.composed")

        def write(tx: Tx) -> int:
            made = _write(tx, prepared)
            if up_to is not None:
                ledger.move_cursor(tx, GROUP, up_to)
            return made

        made = await self._core.store.write(write)
        crashpoint("dispatch.fanned-out")
        for one in prepared:
            if one.rows:
                log.info(
                    "event.fanned-out",
                    correlation_id=one.event.correlation_id,
                    event_id=one.event.id,
                    position=one.event.position,
                    count=len(one.rows),
                )
        return made

    async def _drawn_up(self, sources: Sequence[_Source]) -> list[_Prepared]:
        directory = await self._core.directory.current()
        whole = await self._with_originals(sources, directory)
        return [self._prepare(source, directory) for source in whole]

    async def _with_originals(
        self, sources: Sequence[_Source], directory: Directory
    ) -> Sequence[_Source]:
        """Return the sources with what their notices tell of, where BaRS must repeat it."""
        told = [one.event for one in sources if originals.is_wanted(one.event, directory)]
        if not told:
            return sources
        vault = self._core.vault
        found = await self._core.store.read(
            lambda connection: originals.find(connection, vault, directory, told, self._went_as)
        )
        return [replace(one, original=found.get(one.event.id)) for one in sources]

    def _went_as(self, event: Recorded, route: Route) -> str | None:
        """Return the id of the delivery of an event to one place."""
        takers = (consumer for consumer, taken in self._takers(event) if taken == route)
        taker = next(takers, None)
        return None if taker is None else delivery_id(taker.name, event.id, route.destination)

    def _next(self, connection: Connection) -> tuple[int, list[Recorded], list[_Source]]:
        position = ledger.cursor(connection, GROUP)
        recorded = ledger.after(connection, position, BATCH)
        hints: dict[str, int] = {}
        for event in recorded:
            hints[event.subject] = max(hints.get(event.subject, 0), event.subject_seq)
        return position, recorded, self._load(connection, hints)

    def _load(self, connection: Connection, hints: Mapping[str, int]) -> list[_Source]:
        return self._sources(connection, ledger.undispatched(connection, hints))

    def _sources(self, connection: Connection, found: Sequence[Recorded]) -> list[_Source]:
        wanted = {event.id: event.message_id for event in found if self._takers(event)}
        contents = self._contents(connection, wanted)
        rows = messages.by_id(connection, filter(None, wanted.values()))
        sources = []
        for event in found:
            message, content = rows.get(event.message_id or ""), contents.get(event.id)
            alike: Sequence[similar.Other] = ()
            if message is not None and content is not None:
                alike = similar.before(connection, self._core.vault, event, message, content.body)
            sources.append(_Source(event, message, content, alike=alike))
        return sources

    def _contents(self, connection: Connection, events: Iterable[str]) -> Mapping[str, Opened]:
        """Open what is to be sent; what cannot be opened is left out, and holds up nothing else."""
        found = messages.opened(connection, self._core.vault, events, CONTENT)
        return {one: opened for one, opened in found.items() if isinstance(opened, Opened)}

    def _takers(self, event: Recorded) -> Iterable[tuple[Consumer, Route]]:
        return [
            (consumer, route)
            for consumer in self._consumers
            if event.type in consumer.types
            for route in consumer.destinations(event)
        ]

    def _prepare(self, source: _Source, directory: Directory) -> _Prepared:
        """Make the deliveries of an event; what cannot be made holds up nothing else."""
        event = source.event
        prepared = _Prepared(event, [])
        seen: set[str] = set()
        for consumer, route in self._takers(event):
            if source.message is None or source.content is None:
                # Erased or altered before it was fanned out: there is nothing that could be sent.
                log.error("dispatch.unreadable", event_id=event.id, position=event.position)
                prepared.trouble = "unreadable"
                continue
            identity = delivery_id(consumer.name, event.id, route.destination)
            if identity in seen:
                continue
            seen.add(identity)
            try:
                made = self._delivery(source, source.content, consumer, route, identity, directory)
            except Exception as error:  # a consumer's bug is kept on the work-list
                log.error(
                    "dispatch.not-composed",
                    event_id=event.id,
                    position=event.position,
                    error=type(error).__name__,
                )
                prepared.trouble = "not-composed"
            else:
                prepared.rows.append(made)
        return prepared

    def _delivery(
        self,
        source: _Source,
        content: Opened,
        consumer: Consumer,
        route: Route,
        identity: str,
        directory: Directory,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        event, message = source.event, source.message
        kind = delivered_as(Kind(message.kind), route.role)
        bars = None
        if directory.channel(route.destination) == BARS:
            bars = originals.ends(directory, message, route.destination, source.original)
        body = consumer.compose(
            event,
            content.body,
            Addressed(
                delivery=identity,
                receiver=directory.party(route.destination),
                role=route.role,
                sender=directory.party(Destination(message.sender)),
                kind=kind,
                bars=bars,
                alike=tuple(
                    similar.told(source.alike, message.sender, route.destination, directory)
                ),
            ),
        )
        sent = messages.sealed(
            self._core.vault,
            content.key,
            Binding(identity, SENT, 1, route.destination.ods, FHIR_JSON),
            body,
            digest(body),
            datetime.now(UTC),
        )
        return _row(source, consumer, route, identity, kind, directory, sent), sent


def _row(
    source: _Source,
    consumer: Consumer,
    route: Route,
    identity: str,
    kind: Kind,
    directory: Directory,
    sent: dict[str, Any],
) -> dict[str, Any]:
    event, message = source.event, source.message
    to = route.destination
    return {
        "id": identity,
        "event_id": event.id,
        "position": event.position,
        "subject_id": event.subject,
        "subject_seq": event.subject_seq,
        "message_id": message.id,
        "kind": kind.value,
        "consumer": consumer.name,
        "ods": to.ods,
        "service": to.service,
        "role": route.role.value,
        "reason": route.reason,
        "channel": directory.channel(to),
        "priority": event.priority.value,
        "priority_rank": event.priority.rank,
        "state": "due",
        "held_reason": None,
        "done_reason": None,
        "code": None,
        "attempt": 0,
        "lease_until": None,
        "lease_by": None,
        "digest": sent["digest"],
        "label": message.label,
        "consent": message.consent,
        "agreement": message.agreement,
        "purpose": message.purpose,
        "collected_at": None,
        "received_at": None,
        "settled_at": None,
    }


def _write(tx: Tx, prepared: Sequence[_Prepared]) -> int:
    made = 0
    bodies: list[dict[str, Any]] = []
    dispatched = ledger.lock_dispatched(tx, {one.event.subject for one in prepared})
    for one in prepared:
        event = one.event
        before = dispatched.get(event.subject, event.subject_seq)
        if before >= event.subject_seq:
            continue
        made += deliveries.insert_new(tx, [row | _made_at(tx) for row, _ in one.rows], event)
        bodies += [sent for _, sent in one.rows]
        if one.trouble is not None:
            _note_trouble(tx, one, one.trouble)
        ledger.mark_dispatched(tx, event.subject, before, event.subject_seq)
        dispatched[event.subject] = event.subject_seq
    messages.put_payloads(tx, bodies)
    return made


def _write_again(tx: Tx, one: _Prepared, actor: str) -> int:
    event = one.event
    ledger.lock_dispatched(tx, [event.subject])
    there = deliveries.known(tx, [row["id"] for row, _ in one.rows])
    missing = [(row, sent) for row, sent in one.rows if row["id"] not in there]
    over = overtaken(tx.connection, event) if missing else frozenset()
    ended = {"state": "done", "done_reason": "superseded", "settled_at": tx.now}
    rows = [
        row | _made_at(tx) | (ended if Destination(row["ods"], row["service"]) in over else {})
        for row, _ in missing
    ]
    made = deliveries.insert_new(tx, rows, event)
    messages.put_payloads(tx, [sent for _, sent in missing])
    for row in rows:
        if row["state"] == "done":
            deliveries.meet_clock(tx, event.message_id, row["role"])
    if one.trouble is None:
        work.close_items(tx, "fanned-out", object_id=event.id)
    else:
        _note_trouble(tx, one, one.trouble)
    facts = {"made": str(made), "code": one.trouble or ""}
    tx.audit(Entry("event.fanned-out", actor, "", "event", event.id, facts))
    return made


def overtaken(connection: Connection, event: Recorded) -> frozenset[Destination]:
    """Return the places that must not get this any more: they were told since that it is over, or
    a whole new version went there."""
    message = messages.get(connection, event.message_id or "")
    if message is not None and message.status in {"withdrawn", "replaced"}:
        return frozenset(route.destination for route in event.routes)
    return frozenset(
        route.destination
        for later in ledger.events_of(connection, event.subject)
        if later.subject_seq > event.subject_seq and later.facts.get("supersedes") == "unsent"
        for route in later.routes
    )


def _made_at(tx: Tx) -> dict[str, Any]:
    return {"created_at": tx.now, "due_at": tx.now, "first_due_at": tx.now}


def _note_trouble(tx: Tx, one: _Prepared, code: str) -> None:
    event = one.event
    work.put_item(
        tx,
        code,
        event.id,
        message_id=event.message_id,
        organisation=None,
        priority=event.priority.value,
    )
