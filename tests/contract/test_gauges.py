"""What /metrics reads from the store, on every database the broker runs on."""

from datetime import timedelta

from broker.dispatch import GROUP
from broker.events import uuid7
from broker.store import gauges, ledger, work
from broker.store import tables as t
from broker.store.store import Store
from broker.store.tx import Tx
from tests.databases import SettableClock
from tests.samples import a_delivery, record, recorded


def test_an_empty_store_has_nothing_to_show(store: Store, clock: SettableClock) -> None:
    found = store.read_now(lambda connection: gauges.read(connection, clock.now(), [GROUP]))
    assert found == gauges.Gauges({GROUP: gauges.Behind(0, 0.0)}, {}, {}, {}, {}, {})


def test_ages_are_of_the_longest_due_and_counts_are_of_what_is_not_done(
    store: Store, clock: SettableClock
) -> None:
    now = clock.now()

    def write(tx: Tx) -> None:
        for state, priority, minutes in (
            ("due", "routine", 10),
            ("due", "routine", 3),
            ("due", "stat", 1),
            ("due", "urgent", -5),
            ("dead", "routine", 99),
            ("held", "routine", 99),
            ("done", "stat", 99),
        ):
            since = now - timedelta(minutes=minutes)
            row = a_delivery(recorded(uuid7(), 1, 1), now, state=state, priority=priority)
            tx.execute(t.delivery.insert(), row | {"first_due_at": since})
        for code, object_id in (("delivery-dead", uuid7()), ("delivery-dead", uuid7())):
            work.put_item(
                tx, code, object_id, message_id=None, organisation=None, priority="routine"
            )
        work.close_items(tx, "retried", object_id=object_id)

    store.write_now(write)
    found = store.read_now(lambda connection: gauges.read(connection, now, [GROUP]))
    assert found.queue_age == {"routine": 600.0, "stat": 60.0, "urgent": 0.0}
    assert found.deliveries == {"due": 4, "dead": 1, "held": 1}
    assert found.overdue == {"delivery-dead": 1}


def test_the_lag_is_what_the_reader_has_yet_to_read(store: Store, clock: SettableClock) -> None:
    def write(tx: Tx) -> None:
        for _ in range(3):
            record(tx, uuid7())

    def lag() -> int:
        return store.read_now(lambda c: gauges.read(c, clock.now(), [GROUP])).behind[GROUP].events

    store.write_now(write)
    assert lag() == 3
    store.write_now(lambda tx: ledger.move_cursor(tx, GROUP, 2))
    assert lag() == 1
