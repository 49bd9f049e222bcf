"""The worker's own rules, on SQLite and PostgreSQL."""

from datetime import timedelta
from typing import Any

import pytest

from broker.answers import Answers
from broker.core import Core
from broker.current_directory import CurrentDirectory
from broker.events import SubjectKind, uuid7
from broker.store import deliveries
from broker.store.claims import Slots
from broker.store.store import Store
from broker.worker import Worker
from tests.databases import SettableClock
from tests.samples import a_delivery, a_vault, recorded

VAULT = a_vault()


def worker_of(store: Store) -> Worker:
    core = Core(store, VAULT, CurrentDirectory(store), Answers(store, VAULT), "urn:test")
    nobody_is_called: Any = None
    return Worker(core, {}, nobody_is_called, slots=Slots())


def put_off(store: Store, clock: SettableClock, by: timedelta) -> None:
    """Leave a delivery that is not due yet."""
    subject = uuid7()
    store.write_now(lambda tx: tx.new_subject(subject, SubjectKind.REFERRAL, "FA001"))
    event = recorded(subject, 1, 1, message_id=uuid7())
    row = a_delivery(event, clock.now() + by)
    store.write_now(lambda tx: deliveries.insert_new(tx, [row], event))


@pytest.mark.parametrize("ahead", [timedelta(minutes=1), timedelta(hours=1)])
async def test_a_worker_that_sees_the_clock_set_back_brings_back_what_was_put_off_as_it_claims(
    store: Store, clock: SettableClock, ahead: timedelta
) -> None:
    worker = worker_of(store)
    clock.advance(ahead)
    put_off(store, clock, timedelta(seconds=5))
    assert await worker.run_once() == 0
    clock.advance(-ahead)
    assert await worker.run_once() == 1
    await worker.drain(5)


async def test_a_worker_leaves_what_is_due_later_while_the_clock_goes_on(
    store: Store, clock: SettableClock
) -> None:
    worker = worker_of(store)
    put_off(store, clock, timedelta(seconds=5))
    for _ in range(3):
        assert await worker.run_once() == 0
        clock.advance(timedelta(seconds=1))
