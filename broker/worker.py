"""The worker: claims due deliveries, attempts each once, and settles what became of it.

No lock is held across the network. Wake-ups are immediate; polling is the safety net.
"""

import asyncio
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from broker import answered, receipts
from broker.audit import Entry
from broker.core import Core
from broker.crashpoints import crashpoint
from broker.directory import BARS
from broker.dispatch import SENT
from broker.errors import Reject, Retry, Stale, Unavailable
from broker.events import (
    DELIVERY_DIED,
    Destination,
    Event,
    Kind,
    Priority,
    Recorded,
    Role,
    caused_id,
    digest,
    uuid7,
)
from broker.ports import Consumer, Delivery, Endpoint, Outcome, Outlet
from broker.retry import decide, policy_of
from broker.routing import recheck
from broker.store import claims, deliveries, endpoints, ledger, messages, work
from broker.store.claims import RENEWED_AFTER, Slots
from broker.store.messages import NewMessage, Opened
from broker.store.tx import Connection, Tx
from broker.telemetry import ATTEMPTS
from broker.vault import MessageKey, Tampered

log = structlog.get_logger()
CLIENT: Final = "worker"
SETTLE_AGAIN: Final = 1.0  # seconds, as all of these
SETTLE_WITHIN: Final = 60.0
SET_BACK: Final = 1.0
FULL_SECONDS: Final = 1.0
OURS: Final = "handler-failed"


@dataclass(frozen=True, slots=True)
class _Loaded:
    event: Recorded | None
    body: Opened | None
    sender: str
    refreshed_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Said:
    """What an attempt was answered: an outcome or a failure, and the key to keep the answer by."""

    outcome: Outcome
    failure: Retry | Reject | None
    key: MessageKey | None

    @property
    def answer(self) -> bytes | None:
        if isinstance(self.failure, Reject):
            return self.failure.answer
        return self.outcome.answer if self.failure is None else None


@dataclass(frozen=True, slots=True)
class _Words:
    """The notices that go with a receipt: that it was late, and the receiver's own reference."""

    late: Sequence[NewMessage] | None = None
    reference: Sequence[NewMessage] = ()


@dataclass(frozen=True, slots=True)
class _Begun:
    """A delivery that is attempted, and since when, by the monotonic clock."""

    delivery: str
    at: float


class Worker:
    """Works on deliveries that are due. Any number may run, in any number of processes."""

    def __init__(
        self, core: Core, consumers: Mapping[str, Consumer], outlet: Outlet, *, slots: Slots
    ) -> None:
        self._core = core
        self._consumers = consumers
        self._outlet = outlet
        self._slots = slots
        self._incarnation = uuid7()
        self._running: dict[asyncio.Task[None], _Begun] = {}
        self._lead = -math.inf  # of the database's clock over the one that nobody sets
        self._random = random.SystemRandom()

    async def run_once(self) -> int:
        """Claim what is due and start on it; return how much was claimed."""
        room = self._slots.pool - len(self._running)
        if room <= 0:
            # Not for ever: if all of them hang, the loop must still see that it is to stop.
            await asyncio.wait(
                self._running, timeout=FULL_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            return 1
        long = self._long_under_way()

        def claim(tx: Tx) -> tuple[list[Any], int, float]:
            lead = tx.now.timestamp() - time.monotonic()
            # What is slow may look as if the clock was set back, and does no harm.
            late = claims.bring_back(tx) if lead < self._lead - SET_BACK else 0
            if long:  # its lease may have run out while nothing could be written
                claims.renew(tx, self._incarnation, long)
            rows = claims.claim(tx, self._incarnation, self._slots, min(room, 32))
            return rows, late, lead

        rows, late, self._lead = await self._core.store.write(claim)
        _tell_of_a_clock_ahead(late)
        if rows:
            crashpoint("worker.claimed")
        for row in rows:
            task = asyncio.create_task(self._attempt(row), name=f"delivery {row.id}")
            self._running[task] = _Begun(row.id, time.monotonic())
            task.add_done_callback(self._running.pop)
        return len(rows)

    async def next_due(self) -> datetime | None:
        """Return when there is something to do again, or None."""
        now = datetime.now(UTC)
        return await self._core.store.read(lambda c: claims.next_due(c, now))

    async def take_over(self) -> None:
        """End the leases of a process that is gone, where this is the only one there can be."""
        await self._core.store.write(claims.release_all)

    async def keep_leases(self) -> int:
        """Prolong the leases of attempts that take long; there is never more to do at once. So a
        lease can be short, and what a killed worker had claimed is soon another's."""
        if long := self._long_under_way():
            await self._core.store.write(lambda tx: claims.renew(tx, self._incarnation, long))
        return 0

    def _long_under_way(self) -> list[str]:
        since = time.monotonic() - RENEWED_AFTER.total_seconds()
        return [begun.delivery for begun in self._running.values() if begun.at <= since]

    async def mind_the_clock(self) -> int:
        """Bring back what was put off while the database's clock was ahead; return how much.

        Done again and again; a worker that sees that the clock was set back does it as it claims.
        """
        late = await self._core.store.write(claims.bring_back)
        _tell_of_a_clock_ahead(late)
        return late

    async def drain(self, seconds: float) -> None:
        """Let running attempts end; what has not ended by then is tried again after its lease."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _attempt(self, row: Any) -> None:
        """Attempt one delivery and settle it. Whatever happens is written down."""
        started = datetime.now(UTC)
        failure: Retry | Reject | None = None
        outcome = Outcome()
        inbox = False
        correlation_id: str | None = None
        key: MessageKey | None = None
        try:
            delivery, key = await self._load(row)
            correlation_id = delivery.event.correlation_id
            if delivery.endpoint.channel == "inbox":
                inbox = True
            else:
                crashpoint("worker.before-send")
                outcome = await self._consumers[row.consumer].handle(delivery, self._outlet)
                crashpoint("worker.sent")
        except (Retry, Reject) as error:
            failure = error
        except Tampered:
            log.error("worker.tampered", delivery_id=row.id)
            failure = Reject("payload-erased")
        except asyncio.CancelledError:
            raise
        except Exception as error:  # a handler's bug is a failed attempt, kept and retried
            log.error("worker.handler-failed", delivery_id=row.id, error=type(error).__name__)
            failure = Retry(OURS)
        log.info(
            "delivery.attempted",
            correlation_id=correlation_id,
            delivery_id=row.id,
            organisation=row.ods,
            attempt=row.attempt,
            status=outcome.status if failure is None else failure.status,
            code=failure.code if failure is not None else None,
        )
        await self._write_down(row, started, _Said(outcome, failure, key), inbox=inbox)
        crashpoint("worker.settled")

    async def _write_down(self, row: Any, started: datetime, said: _Said, *, inbox: bool) -> None:
        """Settle an attempt, if need be again and again for SETTLE_WITHIN.

        A disk that is full or a database that is locked must not make the broker forget what it
        was answered. After that nobody holds its lease, and the delivery is attempted again.
        """
        until = time.monotonic() + SETTLE_WITHIN
        receipt = said.outcome.receipt
        while True:
            try:
                directory = await self._core.directory.current()
                good = receipt is not None and receipts.matches(receipt, row, directory)
                words = await self._words(row, said) if good else _Words()
                await self._core.store.write(
                    lambda tx, good=good, words=words: self._settle(  # type: ignore[misc]
                        tx, row, started, said, inbox=inbox, good=good, words=words
                    )
                )
            except Unavailable:
                if time.monotonic() >= until:
                    log.error("worker.unsettled", delivery_id=row.id)
                    return
                await asyncio.sleep(SETTLE_AGAIN)
            except Stale:
                continue
            else:
                return

    async def _words(self, row: Any, said: _Said) -> _Words:
        status, body = said.outcome.status or 0, said.answer or b""
        answer = answered.Answered(row.attempt, status, body)
        return _Words(
            await receipts.late_word(self._core, row),
            await receipts.reference_word(self._core, row, answer.reference),
        )

    async def _load(self, row: Any) -> tuple[Delivery, MessageKey]:
        """Read what is to be sent and look the endpoint up afresh. Raises Retry or Reject.

        What was composed for BaRS goes out by BaRS, and nothing else does: a body in the words of
        another standard could be taken for something that it is not.
        """

        def read(connection: Connection) -> _Loaded:
            message = messages.get(connection, row.message_id) if row.channel == BARS else None
            return _Loaded(
                ledger.event(connection, row.event_id),
                messages.payload(connection, self._core.vault, row.id, SENT),
                message.sender if message is not None else "",
                endpoints.refreshed_at(connection, row.ods, row.service) if message else None,
            )

        loaded = await self._core.store.look_up(read)
        if loaded.event is None or loaded.body is None:
            raise Reject("payload-erased")
        if digest(loaded.body.body) != row.digest:
            raise Tampered(f"what is to be sent as {row.id} is not what was composed")
        directory = await self._core.directory.current()
        to = Destination(row.ods, row.service)
        endpoint = recheck(to, Kind(row.kind), directory)
        if not isinstance(endpoint, Endpoint):
            raise Retry(endpoint)
        if (endpoint.channel == BARS) != (row.channel == BARS):
            raise Retry("does-not-take")
        delivery = Delivery(
            id=row.id,
            event=loaded.event,
            kind=Kind(row.kind),
            destination=to,
            role=Role(row.role),
            attempt=row.attempt,
            digest=row.digest,
            body=loaded.body.body,
            endpoint=replace(endpoint, refreshed_at=loaded.refreshed_at),
            sender=directory.party(Destination(loaded.sender)),
            target=directory.target(to),
        )
        return delivery, loaded.body.key

    def _settle(
        self,
        tx: Tx,
        claimed: Any,
        started: datetime,
        said: _Said,
        *,
        inbox: bool,
        good: bool,
        words: _Words,
    ) -> None:
        """Write the outcome: done, due again or dead, with what follows from it."""
        row = deliveries.lock(tx, claimed.id)
        if row is None:
            return
        held = claims.holds(row, claimed.attempt)
        if inbox:
            if held:
                deliveries.hold_for_receipt(tx, row, None)
            return
        if said.answer is not None and said.key is not None:
            answered.put(tx, self._core.vault, said.key, claimed, said.answer)
        if said.failure is None:
            self._answered(tx, row, claimed, started, said.outcome, words, good=good, held=held)
        else:
            self._failed(tx, row, claimed, started, said.failure, held=held)

    def _answered(
        self,
        tx: Tx,
        row: Any,
        claimed: Any,
        started: datetime,
        outcome: Outcome,
        words: _Words,
        *,
        good: bool,
        held: bool,
    ) -> None:
        code = None
        if outcome.receipt is not None:
            receipts.settle(
                tx,
                row,
                outcome.receipt,
                good=good,
                via=outcome.via,
                client=CLIENT,
                source=self._core.source,
                late=words.late,
                word=words.reference,
            )
            name = "received" if good else "answered"
            code = None if good else "receipt-mismatch"
        else:
            name = "answered"
            if held:
                deliveries.hold_for_receipt(tx, row, None)
        claims.put_attempt(tx, row.id, claimed.attempt, started, name, code, outcome.status)
        claims.note_answer(tx, row.ods, row.service, failed=False)
        for event in outcome.follow_ups:
            tx.record(event)
        ATTEMPTS.labels(name, code or "").inc()

    def _failed(
        self,
        tx: Tx,
        row: Any,
        claimed: Any,
        started: datetime,
        failure: Retry | Reject,
        *,
        held: bool,
    ) -> None:
        decision = decide(
            policy_of(row.priority_rank),
            failure,
            attempt=claimed.attempt,
            first_due=row.first_due_at,
            now=tx.now,
            random=self._random.random(),
        )
        name = "failed" if decision.is_dead else "retrying"
        claims.put_attempt(tx, row.id, claimed.attempt, started, name, failure.code, failure.status)
        ATTEMPTS.labels(name, failure.code).inc()
        # Neither a refusal of one message nor a failure of ours says whether the destination is up.
        if isinstance(failure, Retry) and failure.code != OURS:
            claims.note_answer(tx, row.ods, row.service, failed=True)
        if not held:
            return
        if decision.due_at is not None:
            claims.try_again(tx, row, decision.due_at, failure.code)
            return
        claims.bury(tx, row, failure.code)
        tx.audit(
            Entry("delivery.died", CLIENT, row.ods, "delivery", row.id, {"code": failure.code})
        )
        work.put_item(
            tx,
            "delivery-dead",
            row.id,
            message_id=row.message_id,
            delivery_id=row.id,
            organisation=None,
            priority=row.priority,
        )
        tx.record(
            Event(
                id=caused_id(row.id, CLIENT, row.ods, "died", claimed.attempt),
                type=DELIVERY_DIED,
                source=self._core.source,
                subject=row.subject_id,
                time=tx.now,
                dataschema="",
                causation_id=row.event_id,
                priority=Priority(row.priority),
                facts={"delivery": row.id, "code": failure.code, "to": row.ods},
            )
        )


def _tell_of_a_clock_ahead(late: int) -> None:
    if late:
        log.warning("worker.clock-was-ahead", deliveries=late)
