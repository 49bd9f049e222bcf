"""Filling a database: all rows that one message left, again and again, by the database itself.

The broker makes the first of them, as it makes any: taken, fanned out, collected, confirmed, filed.
Its copies have ids, keys, positions and patients of their own; one in a hundred is of the same
parties. They cannot be opened, and the audit's hashes are copies too: for measuring alone.
"""

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, Connection, Table, func, select, text, update

from broker.store import database
from broker.store import tables as t
from broker.store.columns import Id, is_sqlite

PAYLOAD_BYTES: Final = 500
SHARE: Final = 100
CHUNK: Final = 20_000
# What a message leaves behind. All else is of processes, of callers and of the directory.
_LEFT: Final[tuple[Table, ...]] = (
    *(t.subject, t.message, t.event, t.payload, t.message_key, t.delivery, t.attempt, t.receipt),
    *(t.decision, t.deadline, t.work_item, t.idempotency_key, t.audit),
    *(t.resource_index, t.resource_viewer, t.resource_identifier),
)
_PARTIES: Final = frozenset({"ods", "organisation", "sender"})
_UNIQUE: Final = frozenset({"reference_hmac", "key_hmac", "identifier_hmac", "patient_pseudonym"})
_IDS: Final = frozenset({"object_id", "owner_id"})


def fill(url: str, copies: int) -> int:
    """Copy what is there so many times; return how many rows there are then.

    It is to be what one message left, and nobody may use the database meanwhile.
    """
    engines = database.connect(url)
    try:
        with engines.writer.connect() as connection:
            with connection.begin():
                head = connection.execute(select(t.ledger_head)).one()
                said = _Said(
                    is_sqlite(connection.dialect),
                    {"position": head.position, "seq": head.audit_seq},
                )
                rows = sum(_set_aside(connection, table) for table in _LEFT)
            for first in range(1, copies + 1, CHUNK):
                span = {"first": first, "last": min(first + CHUNK - 1, copies)}
                with connection.begin():
                    for table in _LEFT:
                        connection.execute(text(said.again(table)), span)
            with connection.begin():
                end = (copies + 1) * head.position
                audited = (copies + 1) * head.audit_seq
                connection.execute(update(t.ledger_head).values(position=end, audit_seq=audited))
                connection.execute(update(t.cursor).values(position=end))
                connection.execute(text("ANALYZE"))
        return rows * (copies + 1)
    finally:
        engines.dispose()


def _set_aside(connection: Connection, table: Table) -> int:
    name = table.name
    connection.execute(text(f"CREATE TEMP TABLE one_{name} AS SELECT * FROM {name}"))  # noqa: S608
    return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


@dataclass(frozen=True)
class _Said:
    """What is asked of the database, in its own words; `strides` are how far apart copies stand."""

    sqlite: bool
    strides: dict[str, int]

    def again(self, table: Table) -> str:
        """Return the statement that copies a table's rows for each k from :first to :last."""
        names = ", ".join(column.name for column in table.columns)
        values = ", ".join(self._value(column) for column in table.columns)
        return (
            f"WITH RECURSIVE n(k) AS (SELECT {self._number(':first')} UNION ALL "  # noqa: S608
            f"SELECT k + 1 FROM n WHERE k < {self._number(':last')}) "
            f"INSERT INTO {table.name} ({names}) SELECT {values} FROM one_{table.name} AS one, n"
        )

    def _number(self, name: str) -> str:
        return f"CAST({name} AS BIGINT)"

    def _value(self, column: Column[Any]) -> str:
        name = f"one.{column.name}"
        if column.name in self.strides:
            return f"{name} + n.k * {self.strides[column.name]}"
        if isinstance(column.type, Id):
            return self._id(name) if self.sqlite else f"CAST({self._id(name)} AS uuid)"
        if column.name in _IDS:
            return self._id(name)
        if column.name in _UNIQUE:
            return f"substr({name}, 13) || {self._hex('n.k', 12)}"
        if column.name in _PARTIES:
            other = f"substr({name}, 1, 1) || {self._hex('n.k % 700', 5)}"
            return f"CASE WHEN n.k % {SHARE} = 0 THEN {name} ELSE {other} END"
        if column.name == "sealed":
            return f"substr({name}, 1, {PAYLOAD_BYTES})"
        return name

    def _id(self, name: str) -> str:
        """A UUID of this copy: of one made by time copies follow each other, others are strewn."""
        old = name if self.sqlite else f"CAST({name} AS text)"
        strewn = self._hex("(n.k * 2654435761) & 4294967295", 8)
        begins = (
            f"CASE substr({old}, 15, 1) WHEN '5' THEN {strewn} || substr({old}, 9, 16) "
            f"ELSE substr({old}, 1, 24) END"
        )
        return f"CASE length({old}) WHEN 36 THEN {begins} || {self._hex('n.k', 12)} ELSE {old} END"

    def _hex(self, number: str, width: int) -> str:
        if self.sqlite:
            return f"printf('%0{width}x', {number})"
        return f"lpad(to_hex({number}), {width}, '0')"
