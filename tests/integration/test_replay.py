"""`referral-broker replay`: what it counts, what it does, and what it never does."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from sqlalchemy import delete, select

from broker import log_memory, receipts
from broker.core import Core
from broker.errors import NotFound
from broker.events import UPDATE_SUBMITTED, Destination, Event, uuid7
from broker.main import Broker, open_broker
from broker.ports import Receipt
from broker.relay import GROUP, Relay
from broker.replay import Fate, Replay, Wanted, rebuild
from broker.store import claims, deliveries, ledger, messages, trail
from broker.store import tables as t
from broker.store.claims import Slots
from tests.shell import PRACTICE, Place, consultation

pytestmark = pytest.mark.slow

T = TypeVar("T")
OTHER = "G99001"
WIDE = Slots(pool=1_000, destination=100)
KAFKA = {"BROKER_KAFKA_SERVERS": "127.0.0.1:1", "BROKER_KAFKA_SECURITY": "PLAINTEXT"}


def within(place: Place, act: Callable[[Broker], Awaitable[T]]) -> T:
    """Do something with the opened broker of a place."""

    async def run() -> T:
        async with open_broker(place.settings) as broker:
            return await act(broker)

    return asyncio.run(run())


def rows(place: Place, message: str) -> list[Any]:
    return list(place.read(lambda c: deliveries.of_message(c, message)))


def finish(place: Place, message: str, reason: str = "receipt") -> str:
    """End the deliveries of a message; return the id of the first."""
    found = rows(place, message)
    for one in found:
        place.write(lambda tx, i=one.id: deliveries.finish(tx, deliveries.lock(tx, i), reason))
    return str(found[0].id)


def audited(place: Place, action: str) -> list[Any]:
    links = place.read(lambda c: list(trail.links(c)))
    return [link.entry for link in links if link.entry.action == action]


def lose(place: Place, message: str) -> None:
    """Take a message's deliveries away, as no fault of ours is known to."""
    ids = [one.id for one in rows(place, message)]

    def write(tx: Any) -> None:
        tx.execute(delete(t.delivery).where(t.delivery.c.id.in_(ids)))
        tx.execute(delete(t.payload).where(t.payload.c.owner_id.in_(ids)))

    place.write(write)


def test_a_dry_run_counts_by_destination_and_changes_nothing(operated: Place) -> None:
    sent, lost, waiting = operated.post(
        consultation("RP-1"), consultation("RP-2"), consultation("RP-3", OTHER)
    )
    finish(operated, sent)
    lose(operated, lost)
    before = operated.read(ledger.head), len(operated.read(lambda c: list(trail.links(c))))
    said = operated.run("replay", "--since", "2020-01-01", "--resend")
    assert "3 events are chosen" in said
    assert "1 missing: made, as they should have been." in said
    assert "1 had gone out: sent again, under their own ids." in said
    assert "1 under way, waiting or dead: left as they are" in said
    assert "Nothing has been done. To do it, say the same with --yes." in said
    told = json.loads(operated.run("replay", "--since", "2020-01-01", "--json"))
    assert told["destinations"] == {PRACTICE: {"missing": 1, "gone_out": 1}, OTHER: {"open": 1}}
    assert told["done"] is None
    assert rows(operated, lost) == []
    assert rows(operated, waiting)[0].state == "held"
    after = operated.read(ledger.head), len(operated.read(lambda c: list(trail.links(c))))
    assert after == before


def test_it_chooses_by_time_type_destination_and_message(operated: Place) -> None:
    one, other = operated.post(consultation("RP-1"), consultation("RP-2", OTHER))

    def chosen(*options: str) -> int:
        return int(json.loads(operated.run("replay", *options, "--json"))["events"])

    assert chosen("--message", one) == 1
    assert chosen("--to", OTHER.lower()) == 1
    assert chosen("--to", "TPX01") == 0
    assert chosen("--type", UPDATE_SUBMITTED) == 2
    assert chosen("--type", "referral.request.submitted.v1") == 0
    (first, second) = operated.read(lambda c: ledger.after(c, 0, 2))
    assert chosen("--until", first.time.isoformat()) == 0
    assert chosen("--since", second.time.isoformat(), "--message", other) == 1
    assert chosen("--since", "2020-06-01T02:00", "--until", "2020-06-01T03:00") == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "Say which events"),
        (("--since", "yesterday"), "is no time"),
        (("--type", "referral"), "There is no type"),
        (("--message", "12"), "There is no message"),
        (("--to", PRACTICE, "--publish"), "There is no Kafka"),
        (("--topics",), "There is no Kafka"),
        (("--topics", "--resend"), "--topics is about the whole ledger"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(
    operated: Place, options: tuple[str, ...], said: str
) -> None:
    with pytest.raises(AssertionError, match=said):
        operated.run("replay", *options)


def test_what_is_missing_is_made_and_audited(operated: Place) -> None:
    (message,) = operated.post(consultation("RP-1"))
    (was,) = rows(operated, message)
    lose(operated, message)
    assert "1 made, 0 sent again" in operated.run("replay", "--message", message, "--yes")
    (made,) = rows(operated, message)
    assert (made.id, made.state, made.subject_seq) == (was.id, "due", was.subject_seq)
    assert [one.facts["made"] for one in audited(operated, "event.fanned-out")] == ["1"]
    assert audited(operated, "ledger.replayed")[0].facts["message"] == message
    assert "0 made, 0 sent again" in operated.run("replay", "--message", message, "--yes")


def test_what_had_gone_out_is_sent_again_only_if_asked_under_its_own_id_to_its_own_place(
    operated: Place,
) -> None:
    (message,) = operated.post(consultation("RP-1"))
    delivery = finish(operated, message)
    operated.run("replay", "--message", message, "--yes")
    assert rows(operated, message)[0].state == "done"
    assert "1 sent again" in operated.run("replay", "--message", message, "--resend", "--yes")
    (row,) = rows(operated, message)
    assert (row.id, row.state, row.ods) == (delivery, "due", PRACTICE)
    assert row.received_at is not None  # that it was received once stays proved
    (entry,) = audited(operated, "delivery.resent")
    assert (entry.object_id, entry.facts) == (delivery, {"was": "receipt", "sequence": "1"})
    assert "0 sent again" in operated.run("replay", "--message", message, "--resend", "--yes")


def test_what_was_sent_without_a_receipt_counts_as_gone_out(operated: Place) -> None:
    (message,) = operated.post(consultation("RP-1"))
    (row,) = rows(operated, message)
    operated.write(lambda tx: deliveries.hold_for_receipt(tx, deliveries.lock(tx, row.id), None))
    operated.run("replay", "--message", message, "--resend", "--yes")
    assert rows(operated, message)[0].state == "due"


def test_in_an_inbox_it_stands_again_without_a_receipt(operated: Place) -> None:
    (message,) = operated.post(consultation("RP-1", OTHER))
    finish(operated, message)
    operated.run("replay", "--to", OTHER, "--resend", "--yes", "--since", "2020-01-01")
    (row,) = rows(operated, message)
    assert (row.state, row.held_reason) == ("held", "receipt")


@pytest.mark.parametrize("reason", ["superseded", "given-up"])
def test_what_was_superseded_or_given_up_is_never_sent_again(operated: Place, reason: str) -> None:
    (message,) = operated.post(consultation("RP-1"))
    finish(operated, message, reason)
    said = operated.run("replay", "--message", message, "--resend", "--yes")
    assert "1 cancelled, withdrawn, superseded, given up or erased: never sent again." in said
    assert rows(operated, message)[0].done_reason == reason


@pytest.mark.parametrize("status", ["withdrawn", "replaced"])
def test_what_was_withdrawn_or_replaced_is_never_sent_again(operated: Place, status: str) -> None:
    (message,) = operated.post(consultation("RP-1"))
    finish(operated, message)
    operated.write(lambda tx: messages.set_status(tx, message, status))
    operated.run("replay", "--message", message, "--resend", "--yes")
    assert rows(operated, message)[0].state == "done"


def test_what_was_cancelled_is_never_sent_again(operated: Place) -> None:
    (message,) = operated.post(consultation("RP-1"))
    finish(operated, message)
    (first,) = operated.read(lambda c: ledger.after(c, 0, 1))

    def cancel(tx: Any) -> None:
        found = ledger.event(tx.connection, first.id)
        assert found is not None
        given = {
            name: getattr(found, name)
            for name in ("type", "source", "subject", "time", "dataschema", "routes")
        }
        tx.record(Event(id=uuid7(), facts={"supersedes": "unsent"}, **given))

    operated.write(cancel)
    plan = within(operated, lambda b: replaying(b).plan(Wanted(message=message)))
    assert plan.fates[Destination(PRACTICE), Fate.OVER] == 1
    operated.run("replay", "--message", message, "--resend", "--yes")
    assert rows(operated, message)[0].state == "done"


def test_what_was_erased_is_not_sent_again(operated: Place) -> None:
    (message,) = operated.post(consultation("RP-1"))
    delivery = finish(operated, message)
    operated.write(lambda tx: tx.execute(delete(t.payload).where(t.payload.c.owner_id == delivery)))
    plan = within(operated, lambda b: replaying(b).plan(Wanted(message=message)))
    assert plan.fates == {(Destination(PRACTICE), Fate.ERASED): 1}


def replaying(broker: Broker) -> Replay:
    return Replay(broker.core, broker.dispatch)


# -- publishing again ------------------------------------------------------------------------------


def test_events_are_published_again_under_the_same_ids_and_sequences(operated: Place) -> None:
    one, _ = operated.post(consultation("RP-1"), consultation("RP-2", OTHER))

    async def act(broker: Broker) -> tuple[Any, Any]:
        kept = log_memory.Memory()
        publisher = log_memory.Publisher(kept)
        while await Relay(broker.core, publisher).run_once():
            pass
        first = [replace(record, data=b"") for record in kept.records]
        kept.entries.clear()
        done = await replaying(broker).carry_out(
            Wanted(message=one), "operator:me", resend=False, publisher=publisher
        )
        assert done.published == 1
        return first[:1], [replace(record, data=b"") for record in kept.records]

    before, again = within(operated, act)
    assert again == before


def test_what_the_relay_has_not_published_yet_is_left_to_it(operated: Place) -> None:
    (message,) = operated.post(consultation("RP-1"))

    async def act(broker: Broker) -> Any:
        kept = log_memory.Memory()
        wanted = Wanted(message=message)
        publisher = log_memory.Publisher(kept)
        await replaying(broker).carry_out(wanted, "operator:me", resend=False, publisher=publisher)
        return kept.records

    assert within(operated, act) == []


def test_every_topic_is_built_again_also_by_a_relay_that_was_in_the_middle_of_a_batch(
    operated: Place,
) -> None:
    operated.post(*(consultation(f"RP-{number}") for number in range(3)))

    class SetBack(log_memory.Publisher):
        """Loses everything while the relay publishes, and an operator sets it back."""

        is_lost = False

        async def publish(self, records: Any) -> Any:
            unfit = await super().publish(records)
            if not self.is_lost:
                self.is_lost = True
                kept.entries.clear()
                await core.store.write(lambda tx: rebuild(tx, 0, "operator:me"))
            return unfit

    kept = log_memory.Memory()
    core: Core

    async def act(broker: Broker) -> None:
        nonlocal core
        core = broker.core
        # It has published two before.
        await core.store.write(lambda tx: ledger.set_cursor(tx, GROUP, 2))
        relay = Relay(core, SetBack(kept))
        while await relay.run_once():
            pass

    within(operated, act)
    events = operated.read(lambda c: ledger.after(c, 0, 10))
    assert [record.id for record in kept.records] == [event.id for event in events]
    assert operated.read(lambda c: ledger.cursor(c, GROUP)) == 3
    assert audited(operated, "relay.set-back")[0].facts == {"was": "2", "after": "0"}


def test_the_relay_is_not_set_beyond_the_end(operated: Place) -> None:
    with pytest.raises(NotFound, match="the ledger ends at 0"):
        operated.write(lambda tx: rebuild(tx, 1, "operator:me"))


def test_the_command_sets_the_relay_back_only_with_yes(on_postgresql: Place) -> None:
    on_postgresql.post(consultation("RP-1"), consultation("RP-2"))
    on_postgresql.write(lambda tx: ledger.set_cursor(tx, GROUP, 2))
    with_kafka = Place(on_postgresql.folder, {**on_postgresql.variables, **KAFKA})
    said = with_kafka.run("replay", "--topics")
    assert "2 events would be published again" in said and "--yes" in said
    assert on_postgresql.read(lambda c: ledger.cursor(c, GROUP)) == 2
    assert "from position 2 to 2" in with_kafka.run("replay", "--topics", "--after", "1", "--yes")
    assert on_postgresql.read(lambda c: ledger.cursor(c, GROUP)) == 1


# -- what follows ----------------------------------------------------------------------------------


def test_a_delivery_sent_again_ends_with_its_next_receipt_and_is_not_recorded_twice(
    operated: Place,
) -> None:
    (message,) = operated.post(consultation("RP-1", OTHER))
    (row,) = rows(operated, message)

    async def confirm(broker: Broker) -> bool:
        receipt = Receipt(row.id, row.digest, row.ods)
        return await receipts.take(broker.core, row, receipt, via="inbox", client="gp")

    assert within(operated, confirm)
    first = rows(operated, message)[0].received_at
    head = operated.read(ledger.head)
    operated.run("replay", "--message", message, "--resend", "--yes")
    assert within(operated, confirm)
    (row,) = rows(operated, message)
    assert (row.state, row.done_reason, row.received_at) == ("done", "receipt", first)
    assert operated.read(ledger.head) == head
    assert len(audited(operated, "delivery.received")) == 1
    assert len(audited(operated, "delivery.received-again")) == 1


def test_a_false_receipt_of_what_was_sent_again_is_on_the_work_list(operated: Place) -> None:
    (message,) = operated.post(consultation("RP-1"))
    delivery = finish(operated, message)
    operated.run("replay", "--message", message, "--resend", "--yes")

    async def lie(broker: Broker) -> bool:
        row = rows(operated, message)[0]
        receipt = Receipt(delivery, "0" * 64, row.ods)
        return await receipts.take(broker.core, row, receipt, via="webhook", client="worker")

    assert not within(operated, lie)
    (row,) = rows(operated, message)
    assert (row.held_reason, row.code) == ("receipt", "receipt-mismatch")
    open_codes = operated.read(
        lambda c: (
            c.execute(select(t.work_item.c.code).where(t.work_item.c.closed_at.is_(None)))
            .scalars()
            .all()
        )
    )
    assert open_codes == ["receipt-mismatch"]


def test_several_steps_of_a_lane_go_again_in_their_order(operated: Place) -> None:
    (message,) = operated.post(consultation("RP-1"))
    (event,) = operated.read(lambda c: ledger.after(c, 0, 1))
    finish(operated, message)

    def second(tx: Any) -> None:
        (row,) = deliveries.of_message(tx.connection, message)
        later = {**row._mapping, "id": "0190f1a2-0000-7000-8000-00000000000b"}
        later |= {"subject_seq": 2, "state": "due", "done_reason": None, "message_id": None}
        tx.execute(t.delivery.insert(), later)

    operated.write(second)
    operated.run("replay", "--message", message, "--resend", "--yes")
    every = operated.read(
        lambda c: c.execute(
            select(t.delivery.c.state, t.delivery.c.held_reason)
            .where(t.delivery.c.subject_id == event.subject)
            .order_by(t.delivery.c.subject_seq)
        ).all()
    )
    assert [tuple(one) for one in every] == [("due", None), ("held", "predecessor")]
    claimed = operated.write(lambda tx: claims.claim(tx, event.id, WIDE, 10))
    assert [row.message_id for row in claimed] == [message]
