"""The relay, on SQLite and PostgreSQL: what is recorded is published, in order, at least once."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from joserfc import jwe
from joserfc.jwk import OctKey
from sqlalchemy import delete, select, update

from broker import log_memory
from broker.answers import Answers
from broker.core import Core
from broker.current_directory import CurrentDirectory
from broker.errors import Unavailable
from broker.events import uuid7
from broker.log import Quarantined, Record, Unknown
from broker.relay import BATCH, GROUP, LEASE, Relay
from broker.store import gauges, ledger
from broker.store import tables as t
from broker.store.store import Store
from broker.store.tx import Tx
from broker.topics import TOPIC_OF
from tests.databases import Database, SettableClock
from tests.samples import Sample, a_message, a_vault, record

VAULT = a_vault()


def core(store: Store) -> Core:
    return Core(store, VAULT, CurrentDirectory(store), Answers(store, VAULT), "urn:test")


@dataclass
class Kafka:
    """What stands in the place of Kafka: it may be away, or lose its answer once it has written."""

    log: log_memory.Memory = field(default_factory=log_memory.Memory)
    fails: list[str] = field(default_factory=list)
    closed: bool = False

    async def publish(self, records: Sequence[Record]) -> Sequence[Quarantined]:
        trouble = self.fails.pop(0) if self.fails else ""
        if trouble == "away":
            raise Unknown("away")
        said = await log_memory.Publisher(self.log, largest=2_000).publish(records)
        if trouble == "unanswered":
            raise Unknown("unanswered")
        return said

    async def close(self) -> None:
        self.closed = True


def relay_of(store: Store) -> tuple[Relay, Kafka]:
    kafka = Kafka()
    return Relay(core(store), kafka), kafka


def accept(store: Store, **changes: object) -> Sample:
    sample = a_message(VAULT, **changes)  # type: ignore[arg-type]
    store.write_now(sample.put)
    return sample


def opened(record: Record) -> tuple[dict[str, str], bytes]:
    """Open a record as a stranger would who has the key of its topic: (header, data)."""
    key_id, raw = VAULT.topic_key(TOPIC_OF[record.type])
    known = jwe.JWERegistry(algorithms=["dir", "A256GCM"], strict_check_header=False)
    found = jwe.decrypt_compact(record.data, OctKey.import_key(raw), registry=known)
    assert found.protected["kid"] == key_id and found.plaintext is not None
    return dict(found.protected), found.plaintext


async def test_what_was_accepted_is_published_with_its_content_for_whoever_has_the_key(
    store: Store,
) -> None:
    sample = accept(store)
    relay, kafka = relay_of(store)
    assert await relay.run_once() == 1
    (published,) = kafka.log.records
    event = sample.new.event
    assert (published.id, published.subject, published.sequence) == (event.id, event.subject, 1)
    header, data = opened(published)
    assert data == sample.content
    assert header["event"] == event.id and header["cty"] == "application/fhir+json"
    assert sample.content not in published.data
    assert await relay.run_once() == 0
    assert store.read_now(lambda c: ledger.cursor(c, GROUP)) == 1


async def test_the_key_of_one_topic_opens_no_other(store: Store) -> None:
    keys = {VAULT.topic_key(topic) for topic in set(TOPIC_OF.values())}
    assert len({raw for _, raw in keys}) == len({name for name, _ in keys}) == 5


async def test_an_event_without_content_is_published_with_its_facts(store: Store) -> None:
    subject = uuid7()
    event = store.write_now(lambda tx: record(tx, subject, facts={"code": "gone", "to": "FA001"}))
    relay, kafka = relay_of(store)
    await relay.run_once()
    header, data = opened(kafka.log.records[0])
    assert header["cty"] == "application/json"
    assert json.loads(data)["facts"] == {"code": "gone", "to": "FA001"}
    assert kafka.log.records[0].id == event.id


async def test_what_is_not_known_to_be_written_is_published_again_under_the_same_id(
    store: Store,
) -> None:
    sent = [accept(store) for _ in range(3)]
    relay, kafka = relay_of(store)
    kafka.fails = ["away", "unanswered"]
    for _ in range(2):
        with pytest.raises(Unknown):
            await relay.run_once()
    assert store.read_now(lambda c: ledger.cursor(c, GROUP)) == 0
    assert await relay.run_once() == 3
    wanted = [one.event_id for one in sent]
    assert [one.id for one in kafka.log.records] == wanted + wanted


async def test_more_than_a_batch_goes_out_in_the_order_of_the_ledger(store: Store) -> None:
    subjects = [uuid7() for _ in range(4)]

    def write(tx: Tx) -> None:
        for place in range(BATCH + 10):
            record(tx, subjects[place % 4])

    store.write_now(write)
    relay, kafka = relay_of(store)
    assert [await relay.run_once() for _ in range(3)] == [BATCH, 10, 0]
    for subject in subjects:
        order = [one.sequence for one in kafka.log.records if one.subject == subject]
        assert order == list(range(1, len(order) + 1))


async def test_what_cannot_be_published_is_on_the_work_list_and_the_rest_goes_on(
    store: Store,
) -> None:
    huge, altered, good = accept(store, size=4_000), accept(store), accept(store)

    def alter(tx: Tx) -> None:
        owner = t.payload.c.owner_id == altered.event_id
        (row,) = tx.all(select(t.payload).where(owner))
        tx.execute(update(t.payload).where(owner).values(sealed=row.sealed[:-4] + b"AAAA"))

    store.write_now(alter)
    relay, kafka = relay_of(store)
    assert await relay.run_once() == 3
    assert [one.id for one in kafka.log.records] == [good.event_id]
    items = store.read_now(lambda c: list(c.execute(select(t.work_item)).all()))
    assert {(one.code, one.object_id, one.message_id) for one in items} == {
        ("not-published", sample.event_id, sample.id) for sample in (huge, altered)
    }


async def test_what_was_erased_is_published_without_its_content(store: Store) -> None:
    sample = accept(store)
    key = t.message_key.c.id == sample.new.key.id
    store.write_now(lambda tx: tx.execute(delete(t.message_key).where(key)))
    relay, kafka = relay_of(store)
    assert await relay.run_once() == 1
    header, data = opened(kafka.log.records[0])
    assert header["cty"] == "application/json"
    assert sample.content not in data


# -- several of them -----------------------------------------------------------------------------


async def test_one_of_two_relays_publishes_and_the_other_takes_over_when_its_lease_ends(
    database: Database, clock: SettableClock
) -> None:
    store = database.open()
    (one, here), (other, there) = relay_of(store), relay_of(database.open())
    accept(store)
    assert await one.run_once() == 1
    accept(store)
    assert await other.run_once() == 0
    clock.advance(2 * LEASE)  # nothing is heard of the first any more
    other = Relay(core(store), there)
    assert await other.run_once() == 1
    assert len(here.log.records) == len(there.log.records) == 1


async def test_a_relay_that_ends_in_order_lets_another_take_over_at_once(
    database: Database,
) -> None:
    store = database.open()
    (one, kafka), (other, _) = relay_of(store), relay_of(store)
    accept(store)
    await one.run_once()
    await one.close()
    assert kafka.closed
    accept(store)
    assert await other.run_once() == 1


async def test_two_relays_at_once_only_repeat(store: Store) -> None:
    """A relay that was paused goes on as if it were the one: its readers drop what they have."""
    sent = [accept(store) for _ in range(2)]
    kafka = Kafka()
    one = Relay(core(store), kafka)
    kafka.fails = ["unanswered"]
    with pytest.raises(Unknown):
        await one.run_once()
    await one.close()
    other = Relay(core(store), kafka)
    assert await other.run_once() == 2
    one._is_held, one._asks_at = True, float("inf")  # it was asleep, and does not know
    assert await one.run_once() == 0  # the cursor has moved, for all of them
    assert [record.id for record in kafka.log.records] == 2 * [one.event_id for one in sent]


async def test_where_the_database_is_away_a_relay_still_ends(store: Store) -> None:
    relay, kafka = relay_of(store)
    await relay.run_once()

    async def away(_: object) -> None:
        raise Unavailable("away")

    store.write = away  # type: ignore[method-assign,assignment]
    await relay.close()
    assert kafka.closed


# -- how far it is -------------------------------------------------------------------------------


async def test_how_far_the_relay_is_behind_is_seen_in_events_and_in_seconds(
    store: Store, clock: SettableClock
) -> None:
    def behind() -> gauges.Behind:
        return store.read_now(lambda c: gauges.behind(c, [GROUP], clock.now()))[GROUP]

    assert behind() == gauges.Behind(0, 0.0)
    store.write_now(lambda tx: record(tx, uuid7(), time=clock.now()))
    clock.advance(LEASE)
    store.write_now(lambda tx: record(tx, uuid7(), time=clock.now()))
    assert behind() == gauges.Behind(2, LEASE.total_seconds())
    relay, _ = relay_of(store)
    await relay.run_once()
    assert behind() == gauges.Behind(0, 0.0)
