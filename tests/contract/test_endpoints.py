"""The mark of an endpoint that was refreshed, on SQLite and PostgreSQL."""

from datetime import timedelta

from broker.store import endpoints
from broker.store.store import Store
from tests.databases import SettableClock


def test_an_endpoint_has_the_mark_of_the_last_time_that_it_was_refreshed(
    store: Store, clock: SettableClock
) -> None:
    marks = []
    for _ in range(2):
        clock.advance(timedelta(minutes=1))
        store.write_now(lambda tx: endpoints.refresh(tx, "FPH01", "PHARMACY-FIRST"))
        marks.append(store.read_now(lambda c: endpoints.refreshed_at(c, "FPH01", "PHARMACY-FIRST")))
    assert marks[0] is not None and marks[1] == marks[0] + timedelta(minutes=1)
    assert store.read_now(lambda c: endpoints.refreshed_at(c, "FPH01", "")) is None
