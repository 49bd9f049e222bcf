"""`referral-broker backup` and `restore`: what a copy holds, and what a broker made of one does."""

import asyncio
import json
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import select

from broker import log_memory, restoring
from broker.events import DELIVERY_RECEIVED, REFERRAL_MOVED, Event, uuid7
from broker.log import Record
from broker.main import Broker, open_broker
from broker.relay import Relay
from broker.store import deliveries, ledger, pauses, restorations, schema, trail
from broker.store import tables as t
from broker.store.restorations import STEP
from tests.samples import AT
from tests.shell import PRACTICE, Place, consultation

pytestmark = pytest.mark.slow

T = TypeVar("T")
INBOX = "G99001"
ME = "operator:me"


def within(place: Place, act: Callable[[Broker], Awaitable[T]]) -> T:
    """Do something with the opened broker of a place."""

    async def run() -> T:
        async with open_broker(place.settings) as broker:
            return await act(broker)

    return asyncio.run(run())


def rows(place: Place, message: str) -> list[Any]:
    return list(place.read(lambda c: deliveries.of_message(c, message)))


def audited(place: Place, action: str) -> list[Any]:
    links = place.read(lambda c: list(trail.links(c)))
    return [link.entry for link in links if link.entry.action == action]


def restored(place: Place, tmp_path: Path, backup: Path) -> Place:
    """A broker made of a backup in a folder of its own, with the same keys."""
    made = Place(tmp_path, {**place.variables, "BROKER_DATA_DIR": str(tmp_path / "restored")})
    made.run("restore", "from", str(backup))
    return made


@pytest.fixture
def marked(operated: Place) -> Place:
    """A place whose database came from a backup."""
    operated.post(consultation("RP-1"), consultation("RP-2", INBOX))
    operated.write(lambda tx: restoring.begin(tx, ME))
    return operated


# -- the copy ------------------------------------------------------------------------------------


def test_a_backup_is_whole_its_owners_alone_and_holds_no_key(
    embedded: Place, tmp_path: Path
) -> None:
    (message,) = embedded.post(consultation("RP-1"))
    said = embedded.run("backup", str(tmp_path / "copy.db"))
    assert "The keys are NOT in it" in said and str(embedded.settings.ring_path) in said
    copy = tmp_path / "copy.db"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    schema.demand_whole(copy)
    held = copy.read_bytes()
    ring = json.loads(embedded.settings.ring_path.read_text())
    keys = [one["key"] for kind, listed in ring.items() if kind != "token" for one in listed]
    assert len(keys) == 4
    for key in keys:
        assert key.encode() not in held and bytes.fromhex(key) not in held
    assert message.encode() in held
    assert list(tmp_path.glob("*.part*")) == []
    assert audited(embedded, "database.backed-up")[0].facts == {"file": "copy.db"}


def test_a_backup_goes_into_a_folder_and_over_nothing(embedded: Place, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    embedded.run("backup", str(folder))
    (made,) = folder.iterdir()
    with pytest.raises(AssertionError, match="There is something at"):
        embedded.run("backup", str(made))


def test_a_backup_is_made_beside_a_broker_that_serves(embedded: Place, tmp_path: Path) -> None:
    async def act(_: Broker) -> None:
        await asyncio.to_thread(embedded.run, "backup", str(tmp_path / "copy.db"))

    within(embedded, act)
    schema.demand_whole(tmp_path / "copy.db")


def test_on_postgresql_it_names_the_tools_that_do_it(on_postgresql: Place, tmp_path: Path) -> None:
    for command in (("backup", str(tmp_path)), ("restore", "from", str(tmp_path / "x"))):
        with pytest.raises(AssertionError, match=r"pg_basebackup or pg_dump"):
            on_postgresql.run(*command)


# -- a broker made of it -------------------------------------------------------------------------


def test_it_starts_paused_and_goes_on_only_after_reconciling(
    embedded: Place, tmp_path: Path
) -> None:
    (message,) = embedded.post(consultation("RP-1"))
    embedded.run("backup", str(tmp_path / "copy.db"))
    place = restored(embedded, tmp_path, tmp_path / "copy.db")
    assert [file.name for file in sorted((tmp_path / "restored").glob("broker.db*"))] == [
        "broker.db"
    ]
    assert place.read(pauses.places) == [pauses.EVERYWHERE]

    async def work(broker: Broker) -> int:
        claimed = await broker.worker.run_once()
        await broker.worker.drain(5)
        return claimed

    assert within(place, work) == 0
    (later,) = place.post(consultation("RP-2", INBOX))  # messages are taken, inboxes are read
    assert rows(place, later)[0].held_reason == "receipt"
    with pytest.raises(AssertionError, match="was not compared yet"):
        place.run("restore", "go")
    said = place.run("restore", "reconcile")
    assert "Not done when the backup was made: 1." in said
    assert within(place, work) == 0
    assert place.run("restore", "go") == "It sends again. Deliveries that had waited: 1.\n"
    assert within(place, work) == 1
    assert rows(place, message)[0].attempt == 1
    with pytest.raises(AssertionError, match="Nothing was restored here"):
        place.run("restore", "go")
    assert "The audit chain holds" in place.run("audit", "verify")


@pytest.mark.parametrize("what", ["a text", "half a database", "an empty file", "nothing"])
def test_what_is_no_backup_leaves_the_folder_empty(
    embedded: Place, tmp_path: Path, what: str
) -> None:
    embedded.run("backup", str(tmp_path / "copy.db"))
    whole = (tmp_path / "copy.db").read_bytes()
    if what == "nothing":
        (tmp_path / "copy.db").unlink()
    else:
        cut = {"a text": b"hello", "half a database": whole[: 8 * 4096], "an empty file": b""}
        (tmp_path / "copy.db").write_bytes(cut[what])
    with pytest.raises(AssertionError, match=r"is not a whole database|There is no file"):
        restored(embedded, tmp_path, tmp_path / "copy.db")
    assert list((tmp_path / "restored").glob("broker.db*")) == []


@pytest.mark.parametrize("left", ["broker.db.part", "broker.db.part-wal", "broker.db.part-shm"])
def test_what_a_killed_one_left_behind_is_in_nobodys_way(
    embedded: Place, tmp_path: Path, left: str
) -> None:
    embedded.post(consultation("RP-1"))
    embedded.run("backup", str(tmp_path / "copy.db"))
    (tmp_path / "restored").mkdir()
    (tmp_path / "restored" / left).write_bytes(b"half of something")
    place = restored(embedded, tmp_path, tmp_path / "copy.db")
    assert [one.name for one in (tmp_path / "restored").glob("broker.db*")] == ["broker.db"]
    assert "The audit chain holds" in place.run("audit", "verify")


def test_it_is_never_made_over_another_or_without_its_keys(embedded: Place, tmp_path: Path) -> None:
    embedded.run("backup", str(tmp_path / "copy.db"))
    with pytest.raises(AssertionError, match="There is a database in"):
        embedded.run("restore", "from", str(tmp_path / "copy.db"))
    keyless = Place(tmp_path, {**embedded.variables, "BROKER_KEYS_DIR": str(tmp_path / "none")})
    with pytest.raises(AssertionError, match="There is no key ring"):
        restored(keyless, tmp_path, tmp_path / "copy.db")
    assert list((tmp_path / "restored").glob("broker.db*")) == []


def test_it_can_be_begun_once_and_shows_wherever_an_operator_looks(operated: Place) -> None:
    operated.post(consultation("RP-1"))
    said = operated.run("restore", "begin")
    assert "have every sender send again" in said and "revocations" in said
    with pytest.raises(AssertionError, match="is marked as restored already"):
        operated.run("restore", "begin")
    assert "Paused: every destination. 1 delivery waits there" in operated.run("overdue")
    operated.run("restore", "reconcile")
    operated.run("restore", "go")
    assert operated.read(pauses.places) == []
    (entry,) = audited(operated, "restore.ended")
    assert entry.facts == {"waited": "1"}


def test_no_sequence_that_anybody_may_have_seen_is_given_out_again(marked: Place) -> None:
    first = marked.read(lambda c: ledger.after(c, 0, 1))[0]

    def go_on(tx: Any) -> int:
        names = ("source", "subject", "time", "dataschema", "routes")
        given = {name: getattr(first, name) for name in names}
        return int(tx.record(Event(id=uuid7(), type=REFERRAL_MOVED, **given)))

    assert marked.write(go_on) == first.subject_seq + STEP + 1
    marked.dispatch()  # whoever reads the ledger is not held up by it
    assert marked.read(lambda c: ledger.subject(c, first.subject)).dispatched_seq == STEP + 2


# -- what others hold ----------------------------------------------------------------------------


def test_what_a_receiver_holds_is_received_and_what_it_holds_more_is_named(marked: Place) -> None:
    events = marked.read(lambda c: ledger.after(c, 0, 5))
    (row,) = (one for one in _every(marked) if one.ods == PRACTICE)
    (other,) = (one for one in _every(marked) if one.ods == INBOX)
    lost = uuid7()
    held = [
        {"delivery": row.id, "digest": row.digest, "ods": PRACTICE},
        {"delivery": other.id, "digest": "0" * 64, "ods": INBOX},
        {"delivery": lost, "digest": "1" * 64, "ods": PRACTICE},
    ]
    file = marked.folder / "held.jsonl"
    file.write_text("\n".join(json.dumps(one) for one in held) + "\n")
    told = json.loads(marked.run("restore", "reconcile", "--receipts", str(file), "--json"))
    assert told["received"] == 1
    assert [one["delivery"] for one in told["unknown"]] == [lost]
    assert [one["delivery"] for one in told["false"]] == [other.id]
    assert told["unsent"] == []
    again = json.loads(marked.run("restore", "reconcile", "--receipts", str(file), "--json"))
    assert again["received"] == 0
    (row,) = (one for one in _every(marked) if one.ods == PRACTICE)
    assert (row.state, row.done_reason) == ("done", "receipt")
    recorded = marked.read(lambda c: ledger.after(c, len(events), 5))
    assert [event.type for event in recorded] == [DELIVERY_RECEIVED]


def test_a_file_with_a_line_that_is_no_receipt_changes_nothing(marked: Place) -> None:
    file = marked.folder / "held.jsonl"
    file.write_text('{"delivery": "x", "digest": "y", "ods": "G99002"}\nhello\n')
    with pytest.raises(AssertionError, match="line 2, is no receipt"):
        marked.run("restore", "reconcile", "--receipts", str(file))
    with pytest.raises(AssertionError, match="was not compared yet"):
        marked.run("restore", "go")


def test_what_kafka_has_and_the_ledger_has_not_is_named_and_its_subjects_are_stopped(
    marked: Place,
) -> None:
    """The first message's referral went on after the backup, perhaps to its cancellation; the
    second only had its receipt."""
    first, second = marked.read(lambda c: ledger.after(c, 0, 2))
    lost = [
        a_record(REFERRAL_MOVED, first.subject, 2),
        a_record(DELIVERY_RECEIVED, second.subject, 2),
        a_record(REFERRAL_MOVED, uuid7(), 1),
    ]

    async def act(broker: Broker) -> restoring.Report:
        kept = log_memory.Memory()
        publisher = log_memory.Publisher(kept)
        while await Relay(broker.core, publisher).run_once():
            pass
        await publisher.publish([*lost, *lost])
        reader = log_memory.Reader(kept, "restore")
        return await restoring.reconcile(broker.core, [], reader, ME)

    report = within(marked, act)
    assert [one.record for one in report.lost] == lost
    assert [one.owner is None for one in report.lost] == [False, False, True]
    (stopped,) = report.stopped
    (row,) = (one for one in _every(marked) if one.ods == PRACTICE)
    assert (row.id, row.state, row.code) == (stopped.id, "dead", "steps-lost")
    assert report.unsent == []
    listed = json.loads(marked.run("overdue", "--json"))
    assert {one["code"] for one in listed} == {
        "delivery-dead",
        "destination-paused",
        "quarantined",
    }
    marked.run("restore", "go")
    (row,) = (one for one in _every(marked) if one.ods == PRACTICE)
    assert row.state == "dead"  # until somebody says that it is to go
    marked.run("deliveries", "retry", row.id)
    (row,) = (one for one in _every(marked) if one.ods == PRACTICE)
    assert row.state == "due"


def test_a_step_behind_is_listed_too_but_what_stands_in_an_inbox_is_not(marked: Place) -> None:
    (row,) = (one for one in _every(marked) if one.ods == PRACTICE)

    def behind(tx: Any) -> None:
        later = {**row._mapping, "id": uuid7(), "subject_seq": 2, "state": "held"}
        tx.execute(t.delivery.insert(), later | {"held_reason": "predecessor"})

    marked.write(behind)
    found = marked.read(lambda c: restorations.unsent(c, row.position))
    assert len(found) == 2 and {one.ods for one in found} == {PRACTICE}


def test_reconciling_is_audited_with_what_was_asked(marked: Place) -> None:
    marked.run("restore", "reconcile", "--kafka-is-lost")
    (entry,) = audited(marked, "restore.reconciled")
    assert entry.facts["kafka"] == "not read"
    assert entry.facts["unsent"] == "1"


def a_record(kind: str, subject: str, sequence: int) -> Record:
    return Record(uuid7(), kind, "urn:test", subject, sequence, AT, data=b"sealed")


def _every(place: Place) -> list[Any]:
    return list(place.read(lambda c: c.execute(select(t.delivery)).all()))
