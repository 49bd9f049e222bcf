"""A destination that is paused: nothing is claimed there, and all else goes on, on SQLite and
PostgreSQL."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from broker import pausing
from broker.errors import NotFound
from broker.events import Destination, Priority, uuid7
from broker.store import claims, gauges, pauses, trail, work
from broker.store import tables as t
from broker.store.claims import Slots
from broker.store.store import Store
from broker.store.tx import DELIVERIES
from tests.databases import Database, SettableClock
from tests.samples import PRACTICE, a_delivery, recorded

WIDE = Slots(pool=1_000, destination=100)
ME, OPERATOR = uuid7(), "operator:me"
HERE, SERVICE, ELSEWHERE = Destination(PRACTICE), Destination(PRACTICE, "EYES"), Destination("RX1")


def due(store: Store, clock: SettableClock, to: Destination, **row: Any) -> str:
    """Lay a due delivery to a place down; return its id."""
    made = a_delivery(recorded(uuid7(), 1, 1), clock.now(), ods=to.ods, service=to.service, **row)
    store.write_now(lambda tx: tx.execute(t.delivery.insert(), made))
    return str(made["id"])


def claim(store: Store) -> list[str]:
    rows = store.write_now(lambda tx: claims.claim(tx, ME, WIDE, 100))
    return [row.id for row in rows]


def pause(store: Store, to: Destination) -> bool:
    return store.write_now(lambda tx: pausing.pause(tx, to, OPERATOR))


def test_nothing_is_claimed_at_a_place_that_is_paused_until_it_is_resumed(
    store: Store, clock: SettableClock
) -> None:
    here, there = due(store, clock, HERE, priority_rank=0), due(store, clock, ELSEWHERE)
    assert pause(store, HERE)
    assert not pause(store, HERE)
    assert claim(store) == [there]
    woken: list[set[str]] = []
    store.listen(woken.append)
    assert store.write_now(lambda tx: pausing.resume(tx, HERE, OPERATOR)) == 1
    assert DELIVERIES in woken[0]
    assert claim(store) == [here]


def test_an_organisation_is_paused_with_its_services_and_a_service_alone(
    store: Store, clock: SettableClock
) -> None:
    whole, service = due(store, clock, HERE), due(store, clock, SERVICE)
    pause(store, SERVICE)
    assert claim(store) == [whole]
    pause(store, HERE)
    store.write_now(lambda tx: pausing.resume(tx, SERVICE, OPERATOR))
    assert claim(store) == []
    store.write_now(lambda tx: pausing.resume(tx, HERE, OPERATOR))
    assert claim(store) == [service]


def test_everything_can_be_paused_at_once(store: Store, clock: SettableClock) -> None:
    every = {due(store, clock, HERE), due(store, clock, ELSEWHERE)}
    pause(store, pauses.EVERYWHERE)
    assert claim(store) == []
    (found,) = store.read_now(pausing.listing)
    assert (found.where, sum(found.waiting.values())) == ("every destination", 2)
    store.write_now(lambda tx: pausing.resume(tx, pauses.EVERYWHERE, OPERATOR))
    assert set(claim(store)) == every


def test_what_is_under_way_ends_and_is_counted_until_then(
    store: Store, clock: SettableClock
) -> None:
    due(store, clock, SERVICE)
    (delivery,) = claim(store)
    pause(store, HERE)
    assert store.write_now(lambda tx: claims.under_way(tx, HERE)) == 1
    assert store.write_now(lambda tx: claims.under_way(tx, ELSEWHERE)) == 0
    clock.advance(claims.LEASE + timedelta(seconds=1))  # whoever had it is gone
    assert store.write_now(lambda tx: claims.under_way(tx, HERE)) == 0
    assert claim(store) == []
    row = store.read_now(lambda c: c.execute(select(t.delivery)).one())
    assert (row.id, row.state) == (delivery, "due")


def test_how_much_of_what_waits_is_urgent_is_told_wherever_the_pause_stands(
    store: Store, clock: SettableClock
) -> None:
    for priority in (Priority.STAT, Priority.URGENT, Priority.ROUTINE):
        due(store, clock, HERE, priority=priority.value, priority_rank=priority.rank)
    due(store, clock, ELSEWHERE)
    pause(store, HERE)
    (found,) = store.read_now(pausing.listing)
    assert found.words == (
        "3 deliveries wait there, 2 of them URGENT: see that somebody telephones."
    )
    shown = store.read_now(lambda c: gauges.read(c, clock.now(), []))
    assert shown.paused == {"stat": 1, "urgent": 1, "routine": 1}
    assert shown.overdue == {pausing.PAUSED: 1}
    (item,) = store.read_now(lambda c: work.open_items(c, None, 10))
    assert (item.code, item.object_id, item.priority) == (pausing.PAUSED, found.item, "urgent")
    store.write_now(lambda tx: pausing.resume(tx, HERE, OPERATOR))
    assert store.read_now(lambda c: work.open_items(c, None, 10)) == []
    entries = [link.entry for link in store.read_now(lambda c: list(trail.links(c)))]
    assert [(one.action, one.object_id, one.facts) for one in entries] == [
        ("destination.paused", PRACTICE, {"waiting": "3", "urgent": "2"}),
        ("destination.resumed", PRACTICE, {"waited": "3"}),
    ]


def test_what_waited_is_due_at_once_with_all_its_time(store: Store, clock: SettableClock) -> None:
    later = due(store, clock, HERE, due_at=clock.now() + timedelta(hours=1))
    pause(store, HERE)
    resumed_at = clock.advance(timedelta(minutes=10))
    store.write_now(lambda tx: pausing.resume(tx, HERE, OPERATOR))
    row = store.read_now(lambda c: c.execute(select(t.delivery)).one())
    assert (row.id, row.due_at, row.first_due_at) == (later, resumed_at, resumed_at)


def test_a_place_that_is_not_paused_is_not_resumed(store: Store) -> None:
    pause(store, HERE)
    with pytest.raises(NotFound, match="EYES is not paused"):
        store.write_now(lambda tx: pausing.resume(tx, SERVICE, OPERATOR))


@pytest.mark.postgres
def test_a_pause_waits_for_whoever_claims_so_that_nothing_begins_after_it(
    postgresql_database: Database, clock: SettableClock
) -> None:
    store, other = postgresql_database.open(), postgresql_database.open()
    due(store, clock, HERE)
    claiming, done = threading.Event(), threading.Event()
    order: list[str] = []

    def slowly(tx: Any) -> None:
        assert len(claims.claim(tx, ME, WIDE, 1)) == 1
        claiming.set()
        done.wait(0.5)
        order.append("claimed")

    thread = threading.Thread(target=lambda: store.write_now(slowly))
    thread.start()
    assert claiming.wait(5)
    pause(other, HERE)
    order.append("paused")
    thread.join()
    assert order == ["claimed", "paused"]
    assert other.write_now(lambda tx: claims.under_way(tx, HERE)) == 1
