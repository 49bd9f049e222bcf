"""Resources are found by those who may see them, in one statement and off one index, on both."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event as listening

from broker.events import uuid7
from broker.search import Called, Holds, Is, Search, Test, When
from broker.store import messages, resources
from broker.store import tables as t
from broker.store.resources import TaskRow, put_task
from broker.store.store import Store
from broker.vault import Vault
from tests.databases import Database
from tests.samples import AT, a_message, a_vault

HOUR = timedelta(hours=1)
OF = "Communication"
LAST = datetime.max.replace(tzinfo=UTC)


async def stored(
    store: Store, number: int, *viewers: tuple[str, str], label: str = "N", **index: Any
) -> str:
    """Store a message that was accepted so many hours after the first; return its resource."""
    sample = a_message(a_vault(), index=1)
    when = AT + number * HOUR
    (row,) = sample.new.index
    await store.write(sample.put)

    def write(tx: Any) -> None:
        values = {"type": OF, "updated_at": when, "authored_at": when, **index}
        chosen = t.resource_index.update().where(t.resource_index.c.id == row["id"])
        tx.execute(chosen.values(**values))
        for organisation, relation in viewers or (("FPH01", "sender"),):
            tx.execute(
                t.into(t.resource_viewer),
                {
                    "organisation": organisation,
                    "resource_id": row["id"],
                    "version": 1,
                    "type": OF,
                    "relation": relation,
                    "label": label,
                    "authored_at": when,
                    "updated_at": when,
                },
            )

    await store.write(write)
    return str(row["id"])


def page(
    store: Store, search: Search, *codes: str, after: tuple[datetime, str] | None = None
) -> list[str]:
    rows = store.read_now(lambda c: resources.page(c, codes or ("FPH01",), search, after))
    return [row.resource_id for row in rows]


async def test_pages_follow_each_other_whatever_is_stored_meanwhile(store: Store) -> None:
    ids = [await stored(store, number // 2) for number in range(6)]
    for descending in (True, False):
        search = Search(OF, count=2, descending=descending)
        read: list[str] = []
        after = None
        while len(read) < 6:
            rows = store.read_now(
                lambda c, s=search, a=after: resources.page(c, ("FPH01",), s, a)  # type: ignore[misc]
            )
            read += [row.resource_id for row in rows[:2]]
            after = rows[1].updated_at, rows[1].resource_id
        assert sorted(read) == sorted(ids)
        moments = [ids.index(one) // 2 for one in read]
        assert moments == sorted(moments, reverse=descending)


async def test_who_may_see_it_is_told_by_relation_and_label(store: Store) -> None:
    parties = ("A", "sender"), ("B", "acting-receiver"), ("C", "copy-receiver")
    open_ = await stored(store, 1, *parties)
    closed = await stored(store, 2, *parties, label="R")
    strange = await stored(store, 3, ("A", "none"), ("D", "broker"))
    everything = Search(OF)
    assert page(store, everything, "A") == [closed, open_]
    assert page(store, everything, "B") == [closed, open_]
    assert page(store, everything, "C") == [open_]
    assert page(store, everything, "D") == page(store, everything, "E") == []
    assert page(store, everything, "A", "C") == [closed, open_]  # once, for both of them
    assert strange
    for codes, number in ((("A",), 2), (("C",), 1), (("A", "C"), 2), (("D",), 0)):
        found = store.read_now(lambda c, o=codes: resources.count(c, o, everything))  # type: ignore[misc]
        assert found == number


@pytest.mark.parametrize(
    ("test", "is_found"),
    [
        (Is("status", ("completed", "x")), True),
        (Is("status", ("x",)), False),
        (Holds("category", ("s|one",)), True),
        (Holds("category", ("two",)), True),
        (Holds("category", ("s|",)), True),
        (Holds("category", ("s|on",)), False),
        (Holds("category", ("%",)), False),
        (Holds("category", ("_wo",)), False),
        (Holds("category", ("TWO",)), False),
        (Holds("category", ("S|one",)), False),
        (Holds("category", (*map(str, range(499)), "two")), True),
        (Is("id", tuple(map(str, (uuid4() for _ in range(500))))), False),
        (Is("patient_pseudonym", ("p1",)), True),
        (Is("patient_pseudonym", ("p2",)), False),
        (Called(("h1", "h2")), True),
        (Called(("h2",)), False),
        *(
            (When("authored_at", ((prefix, AT + start * HOUR, AT + end * HOUR),)), is_found)
            for prefix, start, end, is_found in (
                ("eq", 0, 2, True),
                ("eq", 2, 3, False),
                ("eq", 0, 1, False),
                ("ne", 2, 3, True),
                ("ne", 1, 2, False),
                ("gt", 0, 1, True),
                ("gt", 0, 2, False),
                ("sa", 0, 1, True),
                ("ge", 1, 2, True),
                ("ge", 2, 3, False),
                ("lt", 2, 3, True),
                ("lt", 1, 2, False),
                ("eb", 2, 3, True),
                ("le", 1, 2, True),
                ("le", 0, 1, False),
            )
        ),
        (When("authored_at", (("eq", AT, AT),) * 499 + (("ge", AT, LAST),)), True),
        (When("authored_at", (("le", AT, LAST),)), True),
        (When("authored_at", (("sa", AT, LAST),)), False),
    ],
)
async def test_a_filter_finds_what_it_says(store: Store, test: Test, is_found: bool) -> None:
    one = await stored(
        store, 1, status="completed", category="\ns|one\nr|two\n", patient_pseudonym="p1"
    )
    called = {"identifier_hmac": "h1", "resource_id": one}
    await store.write(lambda tx: tx.execute(t.into(t.resource_identifier), called) and None)
    assert page(store, Search(OF, (test,))) == ([one] if is_found else [])


async def test_what_stands_no_longer_or_was_erased_is_not_found(store: Store) -> None:
    ids = [await stored(store, number) for number in range(4)]
    for place, change in enumerate(("replaced", "withdrawn", None)):
        (row,) = store.read_now(lambda c, p=place: resources.versions(c, OF, ids[p]))  # type: ignore[misc]
        message = store.read_now(lambda c, r=row: messages.get(c, r.message_id))  # type: ignore[misc]
        key, own = t.message_key, t.message
        chosen: Any = key.delete().where(key.c.id == message.key_id)
        if change is not None:
            chosen = own.update().where(own.c.id == message.id).values(status=change)
        await store.write(lambda tx, s=chosen: tx.execute(s) and None)  # type: ignore[misc]
    assert page(store, Search(OF)) == [ids[3]]


async def test_each_move_makes_a_version_of_a_task_and_is_found_by_all_parties(
    store: Store,
) -> None:
    sample = a_message(a_vault())
    await store.write(sample.put)
    task = uuid7()

    def row(version: int, parties: tuple[str, ...]) -> TaskRow:
        when = AT + version * HOUR
        same = {"version": version, "type": "Task", "updated_at": when, "authored_at": AT}
        index = dict.fromkeys(column.name for column in t.resource_index.columns)
        index |= same | {"id": task, "message_id": sample.id, "event_id": uuid7()}  # type: ignore[dict-item]
        index |= {"subject_id": task, "status": f"v{version}"}  # type: ignore[dict-item]
        viewer = same | {"resource_id": task, "label": "N", "relation": "sender"}
        return TaskRow(index, [viewer | {"organisation": one} for one in parties])

    await store.write(lambda tx: put_task(tx, row(2, ("A", "B"))))
    await store.write(lambda tx: put_task(tx, row(3, ("A", "B", "C"))))
    for code in "ABC":
        assert page(store, Search("Task", (Is("status", ("v3",)),)), code) == [task]
        assert page(store, Search("Task", (Is("status", ("v2",)),)), code) == []
    found = store.read_now(lambda c: resources.versions(c, "Task", task))
    assert [one.version for one in found] == [3, 2]


async def test_a_page_is_read_off_one_index_and_nothing_is_sorted(
    sqlite_database: Database,
) -> None:
    store = sqlite_database.open()
    plans: list[str] = []
    statements: list[tuple[str, Any]] = []
    for search in (
        Search(OF),
        Search(OF, order="authored_at", descending=False),
        Search(OF, (Is("patient_pseudonym", ("p",)),)),
        Search(OF, (Called(("h",)),)),
    ):
        statements.clear()

        def seen(*given: Any) -> None:
            statements.append((given[2], given[3]))

        listening.listen(store.reader, "before_cursor_execute", seen)
        page(store, search, after=(AT, uuid7()))
        listening.remove(store.reader, "before_cursor_execute", seen)
        sql, values = next(one for one in statements if "resource_viewer" in one[0])
        with store.reader.connect() as connection:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values).all()
        plans.append("\n".join(str(row[3]) for row in rows))
    first, second, patient, called = plans
    assert "ix_viewer_updated" in first and "ix_viewer_authored" in second
    assert all("TEMP B-TREE" not in plan for plan in (first, second))
    assert "ix_resource_patient" in patient
    assert "identifier_hmac=?" in called


def test_an_identifier_is_found_under_its_system_in_any_spelling() -> None:
    vault: Vault = a_vault()
    one = resources.identifier_hmac(vault, "https://x.example/Id/", "A1")
    assert one == resources.identifier_hmac(vault, "http://X.example/id", "A1")
    assert one != resources.identifier_hmac(vault, "https://x.example/Id/", "a1")
