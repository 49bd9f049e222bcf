"""FHIR resources as they are found: by id, and page by page by those who may see them."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Select,
    and_,
    false,
    func,
    literal,
    or_,
    select,
    tuple_,
    union,
    update,
)
from sqlalchemy.engine import Row
from sqlalchemy.sql.elements import ColumnElement

from broker import access
from broker.search import Called, Holds, Is, Search, Test, When
from broker.store import tables as t
from broker.store.tx import Tx
from broker.vault import Vault
from fhir_profiles.systems import normal

r, v, n = t.resource_index.c, t.resource_viewer.c, t.resource_identifier.c
_own: Final = t.resource_index.alias("own").c
STANDS_NO_LONGER: Final = ("replaced", "withdrawn")
TASK: Final = "Task"
_COLUMNS: Final = (
    v.resource_id,
    v.authored_at,
    v.updated_at,
    v.type,
    r.version,
    r.subject_id,
    r.event_id,
    r.message_id,
    t.message.c.status.label("message_status"),
)
Place = tuple[datetime, str]


def identifier_hmac(vault: Vault, system: str, value: str) -> str:
    """Return what a business identifier is found by; its system in any spelling."""
    return vault.mac("identifier", f"{normal(system)}|{value}".encode())


def tokens(found: Iterable[str]) -> str | None:
    """Return codes as one column holds them: each between line breaks, which no code has."""
    every = "\n".join(dict.fromkeys(found))
    return f"\n{every}\n" if every else None


# -- writing -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TaskRow:
    """Where a referral stands after a move: the next version of its Task, and who may find it."""

    row: dict[str, Any]
    viewers: Sequence[dict[str, Any]]


def put_task(tx: Tx, task: TaskRow) -> None:
    """Store a new version of a referral's Task; whoever found the one before finds this one."""
    tx.execute(t.into(t.resource_index), task.row)
    for viewer in task.viewers:
        key = and_(v.organisation == viewer["organisation"], v.resource_id == viewer["resource_id"])
        again = {name: viewer[name] for name in ("version", "relation", "updated_at")}
        if not tx.execute(update(t.resource_viewer).where(key).values(**again)).rowcount:
            tx.execute(t.into(t.resource_viewer), viewer)


# -- reading -------------------------------------------------------------------------------------


def versions(connection: Connection, type_: str, resource_id: str) -> Sequence[Any]:
    """Return the rows of every version of a resource, newest first."""
    return connection.execute(
        select(t.resource_index, t.message.c.status.label("message_status"))
        .join(t.message, t.message.c.id == r.message_id)
        .where(and_(r.id == resource_id, r.type == type_))
        .order_by(r.version.desc())
    ).all()


def is_standing(resource_id: str, row: Row[Any]) -> bool:
    """Whether it is the Task that says where a referral stands: that has the referral's own id.

    A Task that came in with a message is a part of it like any other.
    """
    return bool(row.type == TASK and resource_id == row.subject_id)


def seen_as(connection: Connection, row: Row[Any], codes: Collection[str]) -> Sequence[Any]:
    """Return what these organisations are to what a resource stands in: (relation, label, version)
    rows. Of a referral's Task they see none later than that version: of one that they sent on."""
    focus = select(r.id).where(and_(r.message_id == row.message_id, r.authored_at.is_not(None)))
    found = v.resource_id == row.id if is_standing(row.id, row) else v.resource_id.in_(focus)
    return connection.execute(
        select(v.relation, v.label, v.version).where(and_(v.organisation.in_(sorted(codes)), found))
    ).all()


def page(
    connection: Connection, codes: Collection[str], search: Search, after: Place | None
) -> Sequence[Any]:
    """Return the rows that these organisations may see of a search, one more than fit on a page.

    Each page begins exactly where the last one ended, whatever has been stored since. Who may see
    it is part of the one statement.
    """
    limit = search.count + 1
    each = [_ordered(_seen(one, search, after), search).limit(limit) for one in sorted(codes)]
    if len(each) == 1:
        return connection.execute(each[0]).all()
    # One that took another's place sees what either may see, once.
    both = union(*(select(one.subquery()) for one in each)).subquery()
    place = both.c[search.order], both.c.resource_id
    sort = [one.desc() if search.descending else one.asc() for one in place]
    return connection.execute(select(both).order_by(*sort).limit(limit)).all()


def count(connection: Connection, codes: Collection[str], search: Search) -> int:
    """Return how many there are in all of what is searched."""
    ids = union(*(_seen(code, search, None).with_only_columns(v.resource_id) for code in codes))
    return int(connection.execute(select(func.count()).select_from(ids.subquery())).scalar_one())


def _ordered(statement: Select[Any], search: Search) -> Select[Any]:
    place = (v[search.order], v.resource_id)
    return statement.order_by(*(one.desc() if search.descending else one.asc() for one in place))


def _seen(organisation: str, search: Search, after: Place | None) -> Select[Any]:
    relations, restricted = access.readable()
    wanted = [
        v.organisation == organisation,
        v.type == search.type,
        or_(
            and_(v.label.in_(sorted(access.UNRESTRICTED)), v.relation.in_(sorted(relations))),
            v.relation.in_(sorted(restricted)),
        ),
        *(_condition(test, search.type) for test in search.tests),
    ]
    if search.type != TASK:  # a referral that was amended stands where it stood
        wanted.append(t.message.c.status.not_in(STANDS_NO_LONGER))
    if after is not None:
        place = tuple_(v[search.order], v.resource_id)
        given = tuple_(*_bound(search.order, after))
        wanted.append(place < given if search.descending else place > given)
    return (
        select(*_COLUMNS)
        .join(t.resource_index, and_(r.id == v.resource_id, r.version == v.version))
        .join(t.message, t.message.c.id == r.message_id)
        .join(t.message_key, t.message_key.c.id == t.message.c.key_id)  # gone where it was erased
        .where(and_(*wanted))
    )


def _bound(order: str, after: Place) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    return literal(after[0], v[order].type), literal(after[1], v.resource_id.type)


def _condition(test: Test, type_: str) -> ColumnElement[bool]:
    match test:
        case Is(column="id"):
            return v.resource_id.in_(test.values)
        case Is(column="patient_pseudonym"):
            # Looked up first: a patient has few, an organisation has many.
            known = and_(_own.patient_pseudonym.in_(test.values), _own.type == type_)
            return v.resource_id.in_(select(_own.id).where(known))
        case Is():
            return r[test.column].in_(test.values)
        case Holds():
            return or_(*(_holds(r[test.column], token) for token in test.tokens))
        case Called():
            called = select(n.resource_id).where(n.identifier_hmac.in_(test.hmacs))
            return v.resource_id.in_(called)
        case When():
            return or_(*(_when(v[test.column], *span) for span in test.spans))
    return false()


def _holds(column: Any, token: str) -> ColumnElement[bool]:
    system, bar, code = token.rpartition("|")
    if not bar:
        sought = f"|{code}\n"
    elif not code:
        sought = f"\n{system}|"
    else:
        sought = f"\n{token}\n"
    # Not LIKE: for SQLite A is a there, and for PostgreSQL it is not.
    return func.replace(column, sought, "") != column  # type: ignore[no-any-return]


def _when(column: Any, prefix: str, start: datetime, end: datetime) -> ColumnElement[bool]:
    """Compare with a span, by R4 section 3.1.1.4.7: what is stored is a moment."""
    within = and_(column >= start, column < end)
    found: ColumnElement[bool] = {
        "eq": within,
        "ne": or_(column < start, column >= end),
        "gt": column >= end,
        "sa": column >= end,
        "ge": column >= start,
        "lt": column < start,
        "eb": column < start,
        "le": column < end,
    }[prefix]
    return found
