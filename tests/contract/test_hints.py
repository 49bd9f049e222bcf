"""What comes from Kafka is a hint: deliveries are made from the ledger, or none are."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from broker import log_memory
from broker.answers import Answers
from broker.core import Core
from broker.current_directory import CurrentDirectory
from broker.dispatch import Dispatch
from broker.errors import Unavailable
from broker.events import uuid7
from broker.hints import STANDSTILL_SECONDS, Hints, Standstill, Watchdog
from broker.log import Quarantined, Record
from broker.log_sql import Reader
from broker.store import ledger
from broker.store import tables as t
from broker.store.store import Store
from consumers.record_update import RecordUpdate
from tests.contract.test_log import a_record
from tests.samples import a_vault, record

VAULT = a_vault()


class Place:
    """Dispatch as it stands behind Kafka, and the log from which it gets its hints."""

    def __init__(self, store: Store) -> None:
        self.store = store
        core = Core(store, VAULT, CurrentDirectory(store), Answers(store, VAULT), "urn:test")
        self.dispatch = Dispatch(core, (RecordUpdate(),))
        self.log = log_memory.Memory()
        self.hints = Hints(core, self.dispatch, log_memory.Reader(self.log, "dispatch"))

    async def publish_all(self) -> list[Record]:
        """Do what the relay does."""
        batch = await Reader(self.store, "relay").read()
        self.log.entries += batch.records
        await batch.commit()
        return list(batch.records)

    def dispatched(self, subject: str) -> int:
        row = self.store.read_now(lambda c: ledger.subject(c, subject))
        return int(row.dispatched_seq)

    def items(self) -> list[Any]:
        return self.store.read_now(lambda c: list(c.execute(select(t.work_item)).all()))


@pytest.fixture
def place(store: Store) -> Place:
    return Place(store)


async def test_a_hint_is_fanned_out_and_only_then_committed(place: Place) -> None:
    subject = uuid7()
    place.store.write_now(
        lambda tx: (record(tx, subject, routes=()), record(tx, subject, routes=()))[0]
    )
    await place.publish_all()
    seen: list[int] = []
    fan_out = place.dispatch.fan_out

    async def watched(hints: Any) -> int:
        seen.append(place.log.done.get("dispatch", 0))
        return await fan_out(hints)

    place.dispatch.fan_out = watched  # type: ignore[method-assign]
    assert await place.hints.run_once() == 2
    assert place.dispatched(subject) == 2
    assert (seen, place.log.done["dispatch"]) == ([0], 2)


async def test_what_fails_is_read_again_and_not_passed_over(place: Place) -> None:
    subject = uuid7()
    place.store.write_now(lambda tx: record(tx, subject, routes=()))
    await place.publish_all()
    fan_out = place.dispatch.fan_out

    async def fails(_: Any) -> int:
        raise Unavailable("the database is away")

    place.dispatch.fan_out = fails  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await place.hints.run_once()
    assert place.log.done.get("dispatch", 0) == 0
    place.dispatch.fan_out = fan_out  # type: ignore[method-assign]
    await place.hints.run_once()
    assert place.dispatched(subject) == 1


async def test_a_repeat_makes_nothing_twice(place: Place) -> None:
    subject = uuid7()
    place.store.write_now(lambda tx: record(tx, subject, routes=()))
    published = await place.publish_all()
    place.log.entries += published
    await place.hints.run_once()
    assert place.dispatched(subject) == 1
    assert place.items() == []


@pytest.mark.parametrize(
    "forged",
    [
        lambda real: replace(real, id=uuid7()),
        lambda real: replace(real, id="no id of ours"),
        lambda real: replace(real, subject=uuid7()),
        lambda real: replace(real, sequence=7),
    ],
    ids=["an unknown event", "no id", "another subject", "another place"],
)
async def test_what_is_not_in_the_ledger_is_quarantined_and_nothing_is_delivered_for_it(
    place: Place, forged: Any
) -> None:
    subject = uuid7()
    place.store.write_now(lambda tx: record(tx, subject, routes=()))
    (real,) = await place.publish_all()
    place.log.entries[:] = [forged(real)]
    await place.hints.run_once()
    assert place.dispatched(subject) == 0
    (item,) = place.items()
    assert (item.code, item.message_id) == ("quarantined", None)
    (entry,) = place.store.read_now(
        lambda c: list(c.execute(select(t.audit).where(t.audit.c.object_id == item.object_id)))
    )
    assert entry.action == "record.quarantined"
    told = {"place": place.log.records[0].id, "code": "not-in-ledger"}
    assert entry.facts == told | ({"place": "?"} if " " in told["place"] else {})
    assert await place.hints.run_once() == 0  # its place is passed, for it is kept


async def test_what_cannot_be_read_is_on_the_work_list_by_its_place(place: Place) -> None:
    place.log.entries += [Quarantined("fhir.Task.v1-3-41", "not-a-cloudevent")] * 2
    await place.hints.run_once()
    assert [item.code for item in place.items()] == ["quarantined"]
    audited = place.store.read_now(lambda c: list(c.execute(select(t.audit.c.facts))))
    assert [one.facts["place"] for one in audited] == ["fhir.Task.v1-3-41"]


async def test_a_stranger_does_not_hold_up_what_is_real(place: Place) -> None:
    subject = uuid7()
    place.store.write_now(lambda tx: record(tx, subject, routes=()))
    place.log.entries.append(a_record(uuid7()))
    await place.publish_all()
    await place.hints.run_once()
    assert place.dispatched(subject) == 1


# -- who stands still ----------------------------------------------------------------------------


def watched(*looks: dict[str, tuple[int, int]]) -> Watchdog:
    shown = iter(looks)

    async def places() -> dict[str, tuple[int, int]]:
        return next(shown)

    return Watchdog(SimpleNamespace(places=places, is_waited_for=False))


async def test_a_partition_that_holds_records_and_does_not_move_is_a_standstill() -> None:
    dog = watched({"t-0": (5, 9), "t-1": (3, 3)}, {"t-0": (5, 9), "t-1": (4, 9)}, {"t-0": (5, 9)})
    await dog.look(0.0)
    await dog.look(STANDSTILL_SECONDS)
    with pytest.raises(Standstill, match=r"t-0 holds records after 5"):
        await dog.look(STANDSTILL_SECONDS + 1)


async def test_nobody_stands_still_while_the_reader_waits_for_us() -> None:
    """The database may be away for long: to end the process would bring nobody further."""

    async def places() -> dict[str, tuple[int, int]]:
        return {"t-0": (5, 9)}

    reader = SimpleNamespace(places=places, is_waited_for=False)
    dog = Watchdog(reader)
    await dog.look(0.0)
    reader.is_waited_for = True
    await dog.look(STANDSTILL_SECONDS + 1)
    reader.is_waited_for = False
    await dog.look(STANDSTILL_SECONDS + 2)
    await dog.look(2 * STANDSTILL_SECONDS + 2)
    with pytest.raises(Standstill):
        await dog.look(2 * STANDSTILL_SECONDS + 3)


async def test_one_that_moves_or_has_nothing_to_read_is_none() -> None:
    dog = watched({"t-0": (5, 9)}, {"t-0": (6, 9)}, {"t-0": (9, 9)}, {"t-0": (9, 12)})
    for now in (0.0, STANDSTILL_SECONDS, 2 * STANDSTILL_SECONDS + 1, 9 * STANDSTILL_SECONDS):
        await dog.look(now)
