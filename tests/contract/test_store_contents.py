"""What is put into the store comes out the same on SQLite and PostgreSQL, or not at all."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select, text, update
from sqlalchemy.exc import StatementError

from broker.errors import Unavailable
from broker.events import Destination, Role, Route, uuid7
from broker.store import clients, keys, ledger, messages, referrals, trail, work
from broker.store import tables as t
from broker.store.keys import Scope, Used
from broker.store.store import Store
from broker.store.tx import DEADLINES, Tx
from broker.vault import FileKeyRing, Tampered, Vault
from tests.databases import SettableClock
from tests.samples import (
    AT,
    FHIR,
    PHARMACY,
    PRACTICE,
    Sample,
    a_message,
    a_vault,
    count,
    record,
    ring_document,
)

# -- columns -------------------------------------------------------------------------------------


def jti_row(name: str, at: datetime) -> Callable[[Tx], Any]:
    return lambda tx: tx.execute(
        insert(t.jti), {"issuer": "client-1", "jti": name, "expires_at": at}
    )


@pytest.mark.parametrize(
    "at",
    [
        datetime(2026, 3, 29, 1, 30, 0, 1, tzinfo=UTC),
        datetime(2026, 11, 23, 10, 0, 0, 999_999, tzinfo=UTC),
        datetime(2026, 11, 23, 10, 0, tzinfo=UTC),
        datetime(2026, 7, 1, 9, 15, 0, 5, tzinfo=timezone(timedelta(hours=1))),
        datetime(1926, 11, 23, 23, 59, 59, 500_000, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
    ids=str,
)
async def test_a_time_comes_back_aware_in_utc_and_to_the_microsecond(
    store: Store, at: datetime
) -> None:
    await store.write(lambda tx: jti_row("a", at)(tx) and None)
    found = store.read_now(lambda c: c.execute(select(t.jti.c.expires_at)).scalar_one())
    assert found == at
    assert found.tzinfo is UTC or found.utcoffset() == timedelta(0)
    assert (found.microsecond, found.hour) == (at.microsecond, at.astimezone(UTC).hour)


async def test_times_sort_and_compare_as_times(store: Store) -> None:
    base = datetime(2026, 11, 23, 10, tzinfo=UTC)
    steps = [timedelta(0), timedelta(microseconds=1), timedelta(seconds=1), timedelta(hours=14)]
    for number, step in enumerate(reversed(steps)):
        await store.write(lambda tx, n=number, s=step: jti_row(str(n), base + s)(tx) and None)

    def read(connection: Connection) -> tuple[list[datetime], int]:
        column = t.jti.c.expires_at
        every = list(connection.execute(select(column).order_by(column)).scalars())
        later = connection.execute(
            select(column).where(column > base.astimezone(timezone(timedelta(hours=5))))
        ).all()
        return every, len(later)

    assert store.read_now(read) == ([base + step for step in steps], 3)


async def test_a_time_without_an_offset_is_refused(store: Store) -> None:
    with pytest.raises(StatementError, match="a time in the store is aware"):
        await store.write(jti_row("a", datetime(2026, 11, 23, 10)))  # noqa: DTZ001
    assert store.read_now(lambda c: count(c, t.jti)) == 0


async def test_an_id_is_lower_case_text_however_it_was_written_or_asked_for(store: Store) -> None:
    plain = uuid7()
    await store.write(lambda tx: record(tx, plain.upper(), message_id=plain.upper()))

    def read(connection: Connection) -> list[Any]:
        found = ledger.events_of(connection, plain.upper())
        return [found[0].subject, found[0].message_id, found[0].id]

    subject, message, event = store.read_now(read)
    assert subject == message == plain
    assert isinstance(event, str)
    assert event == event.lower()


CODES = [
    {},
    [],
    {"kind": "update", "à": "ü\u2028\U0001f600"},
    {"nested": [{"a": [1, -2, 3.5, True, False, None]}, []]},
    ["a", ["b", "acting", "reason"]],
    "only-text",
    "123",
    7,
    False,
    '{"not": "parsed"}',
    {"quote": "\"'\\ \n\t\x7f", "large": 2**53 - 1},
]


@pytest.mark.parametrize("value", CODES, ids=repr)
async def test_codes_come_back_as_they_were(store: Store, value: Any) -> None:
    entry = {"kind": "organisation", "code": "A1", "entry": value}
    await store.write(lambda tx: tx.execute(insert(t.directory), entry) and None)
    found = store.read_now(lambda c: c.execute(select(t.directory.c.entry)).scalar_one())
    assert found == value
    assert type(found) is type(value)


async def test_flags_bytes_and_absent_values_come_back_as_they_were(store: Store) -> None:
    every_byte = bytes(range(256))
    sample = a_message(a_vault(), consent=False, identity_verified=True, practice=None)
    await store.write(sample.put)
    with store.writer.begin() as connection:
        connection.execute(
            update(t.message_key).where(t.message_key.c.id == sample.new.key.id),
            {"wrapped": every_byte},
        )
    row = store.read_now(lambda c: messages.get(c, sample.id))
    assert row is not None
    assert (row.consent, row.identity_verified, row.practice) == (False, True, None)
    assert store.read_now(lambda c: c.execute(select(t.message_key.c.wrapped)).scalar()) == (
        every_byte
    )


async def test_routes_come_back_as_routes(store: Store) -> None:
    routes = (
        Route(Destination("RX1", "macular"), Role.ACTING, "named-provider"),
        Route(Destination(PRACTICE), Role.COPY, "registered-practice"),
    )
    made = await store.write(lambda tx: record(tx, uuid7(), routes=routes))
    found = store.read_now(lambda c: ledger.event(c, made.id))
    assert found is not None
    assert found.routes == routes


# -- messages, payloads and erasure --------------------------------------------------------------


@pytest.fixture
def vault() -> Vault:
    return a_vault()


def opened(store: Store, vault: Vault, owner: str, role: str) -> bytes | None:
    found = store.read_now(lambda c: messages.payload(c, vault, owner, role))
    return None if found is None else found.body


async def test_a_message_is_stored_in_one_piece_and_read_back_whole(
    store: Store, vault: Vault
) -> None:
    sample = a_message(vault, size=4_000, index=12)
    await store.write(sample.put)
    row = store.read_now(lambda c: messages.get(c, sample.id))
    assert row is not None
    assert dict(row._mapping) == sample.new.row | {"conversation": sample.new.event.correlation_id}
    assert opened(store, vault, sample.event_id, "content") == sample.content
    assert opened(store, vault, sample.id, "in") == sample.posted
    assert store.read_now(lambda c: count(c, t.resource_index)) == 12
    found = store.read_now(lambda c: ledger.event(c, sample.event_id))
    assert found is not None
    assert (found.message_id, found.subject_seq) == (sample.id, 1)
    assert store.read_now(lambda c: messages.get(c, uuid7())) is None
    assert opened(store, vault, uuid7(), "content") is None
    assert opened(store, vault, sample.id, "content") is None


async def test_nothing_that_a_message_says_stands_in_the_database_in_the_clear(
    store: Store, vault: Vault
) -> None:
    sample = a_message(vault)
    await store.write(sample.put)
    raw = sample.new.key.raw

    def everything(connection: Connection) -> bytes:
        found = [
            repr(tuple(bytes(v) if isinstance(v, memoryview) else v for v in row)).encode()
            for table in t.METADATA.sorted_tables
            for row in connection.execute(table.select())
        ]
        return b"".join(found)

    stored = store.read_now(everything)
    assert sample.id.encode() in stored
    for secret in (sample.content[:20], sample.posted[:20], raw, raw.hex().encode()):
        assert secret not in stored


async def test_deleting_the_key_erases_the_payloads_and_nothing_else(
    store: Store, vault: Vault
) -> None:
    kept, erased = a_message(vault), a_message(vault)
    for sample in (kept, erased):
        await store.write(sample.put)
    await store.write(
        lambda tx: (
            tx.execute(delete(t.message_key).where(t.message_key.c.id == erased.new.key.id))
            and None
        )
    )
    assert opened(store, vault, erased.event_id, "content") is None
    assert opened(store, vault, erased.id, "in") is None
    assert store.read_now(lambda c: messages.key_of(c, vault, erased.new.key.id)) is None
    assert store.read_now(lambda c: messages.get(c, erased.id)) is not None
    assert opened(store, vault, kept.event_id, "content") == kept.content
    both = store.read_now(
        lambda c: messages.payloads(c, vault, [kept.event_id, erased.event_id], "content")
    )
    assert set(both) == {kept.event_id}


async def test_of_several_versions_the_newest_payload_is_opened(store: Store, vault: Vault) -> None:
    sample = a_message(vault)
    await store.write(sample.put)
    for version, body in ((2, b"second"), (10, b"tenth"), (9, b"ninth")):
        binding = messages.Binding(sample.id, "in", version, PHARMACY, FHIR)
        row = messages.sealed(vault, sample.new.key, binding, body, "", AT)
        await store.write(lambda tx, row=row: messages.put_payloads(tx, [row]))
    assert opened(store, vault, sample.id, "in") == b"tenth"


async def test_a_message_leads_to_the_version_that_replaced_it(store: Store, vault: Vault) -> None:
    first = a_message(vault)
    second = a_message(vault, replaces=first.id, version=2)
    for sample in (first, second):
        await store.write(sample.put)
    row = store.read_now(lambda c: messages.replacement_of(c, first.id))
    assert row is not None
    assert row.id == second.id
    assert store.read_now(lambda c: messages.replacement_of(c, second.id)) is None


async def test_a_reference_is_taken_once_per_organisation(store: Store, vault: Vault) -> None:
    await store.write(a_message(vault, reference="R-1").put)
    await store.write(a_message(vault, reference="R-1", sender="FA002").put)
    with pytest.raises(Unavailable):
        await store.write(a_message(vault, reference="R-1").put)
    assert store.read_now(lambda c: count(c, t.message)) == 2


async def test_an_organisations_messages_are_listed_newest_first_page_by_page(
    store: Store, vault: Vault
) -> None:
    made = []
    for number in range(7):
        at = AT + timedelta(minutes=number // 2)  # two share each minute
        sample = a_message(vault, accepted_at=at)
        made.append((at, sample.id))
        await store.write(sample.put)
    await store.write(a_message(vault, sender="FA002").put)
    await store.write(a_message(vault, kind="notice").put)
    listed: list[tuple[datetime, str]] = []
    while True:
        before = listed[-1] if listed else None
        page = store.read_now(
            lambda c, before=before: trail.sent_by(c, [PHARMACY], before=before, limit=3)
        )
        if not page:
            break
        listed += [(row.accepted_at, row.id) for row in page]
    assert listed == sorted(made, reverse=True)


# -- tampering -----------------------------------------------------------------------------------

p = t.payload.c


def rows_of(samples: list[Sample], role: str) -> list[str]:
    return [sample.event_id if role == "content" else sample.id for sample in samples]


@pytest.mark.parametrize("role", ["content", "in"])
@pytest.mark.parametrize("with_key", [False, True], ids=["bytes", "bytes and key"])
async def test_two_sealed_payloads_that_were_swapped_open_as_neither(
    store: Store, vault: Vault, role: str, with_key: bool
) -> None:
    samples = [a_message(vault), a_message(vault)]
    for sample in samples:
        await store.write(sample.put)
    owners = rows_of(samples, role)
    with store.writer.begin() as connection:
        found = connection.execute(select(p.owner_id, p.sealed).where(p.owner_id.in_(owners)))
        sealed = {row.owner_id: row.sealed for row in found}
        for sample, owner, other in zip(samples[::-1], owners, owners[::-1], strict=True):
            values: dict[str, Any] = {"sealed": sealed[other]}
            if with_key:
                values["key_id"] = sample.new.key.id
            connection.execute(update(t.payload).where(p.owner_id == owner).values(**values))
    for owner in owners:
        with pytest.raises(Tampered):
            opened(store, vault, owner, role)


async def test_the_payloads_of_one_message_do_not_open_as_each_other(
    store: Store, vault: Vault
) -> None:
    sample = a_message(vault)
    await store.write(sample.put)
    with store.writer.begin() as connection:
        posted = connection.execute(select(p.sealed).where(p.role == "in")).scalar_one()
        connection.execute(update(t.payload).where(p.role == "content").values(sealed=posted))
    with pytest.raises(Tampered, match="something else"):
        opened(store, vault, sample.event_id, "content")
    assert opened(store, vault, sample.id, "in") == sample.posted


@pytest.mark.parametrize(
    "change",
    [
        {"organisation": "X99"},
        {"content_type": "text/html"},
        {"version": 2},
        {"role": "content"},
        {"owner_id": "0193d0f0-0000-7000-8000-000000000000"},
        {"size": 1},
    ],
    ids=str,
)
async def test_what_a_payload_is_said_to_be_cannot_be_changed(
    store: Store, vault: Vault, change: dict[str, Any]
) -> None:
    sample = a_message(vault)
    await store.write(sample.put)
    with store.writer.begin() as connection:
        connection.execute(update(t.payload).where(p.role == "in").values(**change))
    owner, role = change.get("owner_id", sample.id), change.get("role", "in")
    with pytest.raises(Tampered):
        opened(store, vault, owner, role)


async def test_any_altered_byte_of_a_payload_or_of_a_key_is_found(
    store: Store, vault: Vault
) -> None:
    sample = a_message(vault, size=300)
    await store.write(sample.put)
    key = t.message_key.c
    places = (p.sealed, p.owner_id == sample.event_id), (key.wrapped, key.id.is_not(None))
    for column, where in places:
        found = select(column).where(where)
        whole = store.read_now(lambda c, found=found: c.execute(found).scalar_one())
        step = max(1, len(whole) // 23)
        for place in {*range(0, len(whole), step), len(whole) - 1}:
            for flip in (0x01, 0x20, 0x80):
                spoilt = bytearray(whole)
                spoilt[place] ^= flip
                with store.writer.connect() as connection:
                    spoil = update(column.table).where(where).values({column: bytes(spoilt)})
                    connection.execute(spoil)
                    with pytest.raises(Tampered):
                        messages.payload(connection, vault, sample.event_id, "content")
                    connection.rollback()
    assert opened(store, vault, sample.event_id, "content") == sample.content


async def test_a_message_outlives_the_rotation_of_the_ring(store: Store, vault: Vault) -> None:
    before = a_message(vault)
    await store.write(before.put)
    both = [*ring_document()["kek"], {"id": "kek-2", "key": "44" * 32}]
    rotated = Vault(FileKeyRing(ring_document(kek=both)))
    after = a_message(rotated)
    await store.write(after.put)
    assert opened(store, rotated, before.id, "in") == before.posted
    assert opened(store, rotated, after.id, "in") == after.posted
    assert after.new.key.kek_id == "kek-2"


# -- remembered answers --------------------------------------------------------------------------


async def test_a_key_is_remembered_for_its_organisation_and_family_of_doors_only(
    store: Store,
) -> None:
    scope = Scope(PHARMACY, "native", "hmac-1")
    used = Used("body-1", uuid7(), 202)
    others = [
        Scope("FA002", "native", "hmac-1"),
        Scope(PHARMACY, "bars", "hmac-1"),
        Scope(PHARMACY, "native", "hmac-2"),
    ]
    await store.write(lambda tx: keys.put(tx, scope, used))
    assert store.read_now(lambda c: keys.find(c, scope)) == used
    for other in others:
        assert store.read_now(lambda c, other=other: keys.find(c, other)) is None
        await store.write(lambda tx, other=other: keys.put(tx, other, Used("x", uuid7(), 202)))
    assert store.read_now(lambda c: keys.find(c, scope)) == used
    with pytest.raises(Unavailable):
        await store.write(lambda tx: keys.put(tx, scope, Used("body-2", uuid7(), 202)))
    assert store.read_now(lambda c: keys.find(c, scope)) == used


# -- callers -------------------------------------------------------------------------------------


async def test_an_assertion_is_used_once_even_by_many_at_the_same_time(
    store: Store, clock: SettableClock
) -> None:
    expires = clock.now() + timedelta(minutes=5)
    answers = await asyncio.gather(
        *(store.write(lambda tx: clients.use_jti(tx, "c1", "j1", expires)) for _ in range(20))
    )
    assert sorted(answers) == [False] * 19 + [True]
    assert await store.write(lambda tx: clients.use_jti(tx, "c2", "j1", expires))
    clock.advance(timedelta(minutes=5))
    assert not await store.write(lambda tx: clients.use_jti(tx, "c1", "j1", expires))
    clock.advance(timedelta(microseconds=1))
    await store.write(lambda tx: clients.use_jti(tx, "c3", "j", expires + timedelta(hours=1)))
    assert store.read_now(lambda c: count(c, t.jti)) == 1  # what expired is not kept


async def test_of_two_processes_that_use_one_assertion_only_one_may(
    database: Any, clock: SettableClock
) -> None:
    stores = [database.open(), database.open()]
    expires = clock.now() + timedelta(minutes=5)
    for number in range(10):
        answers = await asyncio.gather(
            *(
                s.write(lambda tx, n=number: clients.use_jti(tx, "c", f"j{n}", expires))
                for s in stores
            )
        )
        assert sorted(answers) == [False, True]


async def a_client(store: Store) -> None:
    def fn(tx: Tx) -> None:
        clients.put(tx, "c1", "Supplier", ["ES384"], ["pharmacy.write"])
        clients.put_key(tx, "c1", "k1", {"kty": "EC"})
        clients.put_key(tx, "c1", "k2", {"kty": "EC", "crv": "P-384"})
        clients.put_grant(tx, "c1", PHARMACY)

    await store.write(fn)


def stands(store: Store, clock: SettableClock, kid: str = "k1", ods: str = PHARMACY) -> bool:
    found = store.read_now(lambda c: clients.standing(c, "c1", kid, ods, clock.now()))
    return found is not None


async def test_a_callers_standing_ends_the_moment_a_key_or_grant_is_revoked(
    store: Store, clock: SettableClock
) -> None:
    await a_client(store)
    found = store.read_now(lambda c: clients.standing(c, "c1", "k1", PHARMACY, clock.now()))
    assert found == clients.Standing("Supplier", ("pharmacy.write",))
    assert not stands(store, clock, kid="k9")
    assert not stands(store, clock, ods="FA002")

    assert await store.write(lambda tx: clients.revoke_key(tx, "c1", "k1"))
    assert not await store.write(lambda tx: clients.revoke_key(tx, "c1", "k1"))
    assert not stands(store, clock)
    assert stands(store, clock, kid="k2")
    assert store.read_now(lambda c: clients.keys(c, "c1")) == {"k2": {"kty": "EC", "crv": "P-384"}}

    assert await store.write(lambda tx: clients.revoke_grant(tx, "c1", PHARMACY))
    assert not await store.write(lambda tx: clients.revoke_grant(tx, "c1", PHARMACY))
    assert not stands(store, clock, kid="k2")
    assert store.read_now(lambda c: clients.granted(c, "c1", clock.now())) == []

    await store.write(lambda tx: clients.put_grant(tx, "c1", PHARMACY))
    assert stands(store, clock, kid="k2")


async def test_a_grant_holds_from_its_day_to_its_end(store: Store, clock: SettableClock) -> None:
    await a_client(store)
    end = clock.now() + timedelta(days=1)
    await store.write(lambda tx: clients.put_grant(tx, "c1", "FA002", valid_to=end))
    assert stands(store, clock, ods="FA002")
    before = SettableClock(clock.now() - timedelta(microseconds=1))
    assert not stands(store, before, ods="FA002")
    assert store.read_now(lambda c: clients.granted(c, "c1", clock.now())) == [PHARMACY, "FA002"]
    clock.advance(timedelta(days=1))
    assert not stands(store, clock, ods="FA002")
    assert store.read_now(lambda c: clients.granted(c, "c1", clock.now())) == [PHARMACY]


async def test_a_disabled_client_is_nobody(store: Store, clock: SettableClock) -> None:
    await a_client(store)
    with store.writer.begin() as connection:
        connection.execute(update(t.client).values(disabled_at=clock.now()))
    assert not stands(store, clock)
    assert store.read_now(lambda c: clients.get(c, "c1")) is None
    assert len(store.read_now(clients.listing)) == 1


async def test_two_webhook_secrets_are_valid_at_once_and_a_third_retires_the_oldest(
    store: Store, clock: SettableClock, vault: Vault
) -> None:
    ids = [uuid7() for _ in range(4)]
    sealed = {i: vault.seal_secret(f"secret {i}".encode(), i) for i in ids}

    def valid() -> list[str]:
        return [row.id for row in store.read_now(lambda c: clients.secrets(c, PRACTICE))]

    for number, i in enumerate(ids):
        await store.write(lambda tx, i=i: clients.put_secret(tx, i, PRACTICE, *sealed[i]))
        assert valid() == ids[max(0, number - 1) : number + 1][::-1]
        clock.advance(timedelta(seconds=1))
    newest = store.read_now(lambda c: clients.secrets(c, PRACTICE))[0]
    assert vault.open_secret(newest.kek_id, newest.sealed, newest.id) == (
        f"secret {ids[-1]}".encode()
    )
    with pytest.raises(Tampered):
        vault.open_secret(newest.kek_id, newest.sealed, ids[0])
    assert store.read_now(lambda c: clients.secrets(c, "A81002")) == []


# -- deadlines, the work-list, receipts ----------------------------------------------------------


def deadline(message: str, kind: str, due: datetime, version: int = 1) -> dict[str, Any]:
    return {
        "id": uuid7(),
        "message_id": message,
        "kind": kind,
        "version": version,
        "owner": PRACTICE,
        "source": "decided within 5 working days",
        "due_at": due,
        "cleared_at": None,
        "raised_at": None,
    }


async def test_a_deadline_is_raised_once_and_never_after_it_was_met(
    store: Store, clock: SettableClock
) -> None:
    message = uuid7()
    hour = timedelta(hours=1)
    rows = [
        deadline(message, "received", clock.now() + hour),
        deadline(message, "decided", clock.now() + 2 * hour),
        deadline(message, "filed", clock.now() + 2 * hour),
    ]
    await store.write(lambda tx: tx.execute(insert(t.deadline), rows) and None)

    def due() -> list[str]:
        return [r.kind for r in store.read_now(lambda c: work.due_deadlines(c, clock.now(), 10))]

    assert due() == []
    assert store.read_now(work.next_deadline) == rows[0]["due_at"]
    clock.advance(hour)
    assert due() == ["received"]
    assert await store.write(lambda tx: work.raise_deadline(tx, rows[0]["id"]))
    assert not await store.write(lambda tx: work.raise_deadline(tx, rows[0]["id"]))
    assert due() == []
    assert store.read_now(work.next_deadline) == rows[1]["due_at"]
    await store.write(lambda tx: work.clear(tx, message, "decided"))
    assert not await store.write(lambda tx: work.raise_deadline(tx, rows[1]["id"]))
    clock.advance(hour)
    assert due() == ["filed"]


async def test_meeting_a_deadline_late_closes_what_stood_on_a_list_for_it(
    store: Store, clock: SettableClock
) -> None:
    message, due = uuid7(), clock.now()
    row, other = deadline(message, "received", due), deadline(message, "filed", due)
    await store.write(lambda tx: tx.execute(insert(t.deadline), [row, other]) and None)

    def overdue(tx: Tx) -> None:
        for each in (row, other):
            work.raise_deadline(tx, each["id"])
            work.put_item(
                tx,
                f"overdue-{each['kind']}",
                each["id"],
                message_id=message,
                organisation=PHARMACY,
                priority="routine",
            )

    await store.write(overdue)
    await store.write(lambda tx: work.clear(tx, message, "received"))
    items = store.read_now(lambda c: work.items_of(c, message))
    assert [item.code for item in items] == ["overdue-filed"]
    found = store.read_now(lambda c: work.deadlines_of(c, [message]))
    assert {r.kind: r.cleared_at for r in found} == {"received": clock.now(), "filed": None}


@pytest.mark.parametrize(
    ("due_in", "wakes"),
    [(timedelta(hours=-1), True), (timedelta(seconds=59), True), (timedelta(seconds=61), False)],
    ids=["passed already", "within a minute", "later"],
)
async def test_a_new_deadline_wakes_who_watches_only_if_it_falls_soon(
    store: Store, clock: SettableClock, due_in: timedelta, wakes: bool
) -> None:
    heard: set[str] = set()
    store.listen(heard.update)
    row = deadline(uuid7(), "received", clock.now() + due_in)
    await store.write(lambda tx: work.put_deadlines(tx, [row]))
    await store.write(lambda tx: None)  # the writer has told its listeners before it goes on
    assert (DEADLINES in heard) == wakes


async def test_a_deadline_stands_once_per_message_kind_and_version(store: Store) -> None:
    message = uuid7()
    await store.write(
        lambda tx: work.put_deadlines(
            tx, [deadline(message, "received", AT), deadline(message, "received", AT, 2)]
        )
    )
    with pytest.raises(Unavailable):
        await store.write(
            lambda tx: tx.execute(insert(t.deadline), deadline(message, "received", AT)) and None
        )


async def test_an_item_stands_once_is_closed_with_a_reason_and_opens_again(
    store: Store, clock: SettableClock
) -> None:
    delivery, message = uuid7(), uuid7()

    def put(priority: str = "routine", code: str = "delivery-dead") -> Callable[[Tx], None]:
        return lambda tx: work.put_item(
            tx,
            code,
            delivery,
            message_id=message,
            delivery_id=delivery,
            organisation=None,
            priority=priority,
        )

    def listed() -> list[Any]:
        return list(store.read_now(lambda c: work.open_items(c, None, 10)))

    opened_at = clock.now()
    await store.write(put())
    await store.write(put())
    await store.write(put("urgent", "receipt-mismatch"))
    assert [item.code for item in listed()] == ["receipt-mismatch", "delivery-dead"]
    await store.write(lambda tx: work.close_items(tx, "retried", code="delivery-dead"))
    assert [item.code for item in listed()] == ["receipt-mismatch"]
    await store.write(lambda tx: work.close_items(tx, "received", delivery_id=delivery))
    assert listed() == []
    assert len(store.read_now(lambda c: work.items_of(c, message))) == 0

    again = clock.advance(timedelta(hours=1))
    await store.write(put("stat"))
    (item,) = listed()
    assert (item.opened_at, item.closed_at, item.closed_reason) == (again, None, None)
    assert (item.priority, item.priority_rank, item.due_at) == ("stat", 0, again)
    assert again != opened_at
    assert store.read_now(lambda c: count(c, t.work_item)) == 2


async def test_an_organisation_sees_its_own_items_only(store: Store) -> None:
    def fn(tx: Tx) -> None:
        for ods in (PHARMACY, PRACTICE, None):
            work.put_item(
                tx, "overdue", uuid7(), message_id=uuid7(), organisation=ods, priority="asap"
            )

    await store.write(fn)
    own = store.read_now(lambda c: work.open_items(c, [PHARMACY], 9))
    assert [item.organisation for item in own] == [PHARMACY]
    assert len(store.read_now(lambda c: work.open_items(c, None, 9))) == 3


async def test_open_items_go_on_after_a_place_also_among_those_due_at_once(
    store: Store, clock: SettableClock
) -> None:
    def fn(tx: Tx) -> None:
        for priority in ("routine", "stat", "routine", "routine", "urgent"):
            work.put_item(
                tx, "overdue", uuid7(), message_id=uuid7(), organisation=None, priority=priority
            )

    await store.write(fn)
    clock.advance(timedelta(hours=1))
    await store.write(fn)
    every = store.read_now(lambda c: work.open_items(c, None, 100))
    for number, row in enumerate(every, 1):
        place = (row.priority_rank, row.due_at, row.id)
        rest = store.read_now(lambda c, after=place: work.open_items(c, None, 100, after=after))
        assert rest == every[number:]


async def test_the_same_receipt_again_changes_nothing_and_another_is_kept_beside_it(
    store: Store, clock: SettableClock
) -> None:
    delivery = uuid7()

    def receipt(digest: str) -> Callable[[Tx], None]:
        return lambda tx: referrals.put_receipt(
            tx,
            {
                "id": uuid7(),
                "delivery_id": delivery,
                "named_delivery": delivery,
                "named_digest": digest,
                "named_ods": PRACTICE,
                "via": "webhook",
                "matches": digest == "d1",
                "client_id": None,
                "received_at": tx.now,
            },
        )

    for digest in ("d1", "d1", "d2"):
        await store.write(receipt(digest))
        clock.advance(timedelta(seconds=1))
    found = store.read_now(lambda c: referrals.receipts_of(c, [delivery]))
    assert [(row.named_digest, row.matches) for row in found] == [("d1", True), ("d2", False)]


def test_the_database_names_what_it_found_but_never_a_value(store: Store) -> None:
    with pytest.raises(Unavailable) as caught:
        store.read_now(lambda c: c.execute(text("SELECT * FROM absent WHERE x = 'secret'")))
    assert "secret" not in caught.value.detail
    assert "absent" in caught.value.detail
