"""A copy of any database as one SQLite file, for the judge, which reads nothing else.

General: it knows no table. What PostgreSQL has its own types for comes out as it stands in the
broker's SQLite tables: ids and times as text, times in UTC with microseconds, JSON compact with
sorted names, flags as 0 and 1, bytes as they are.
"""

import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psycopg
from psycopg import sql

_AT_ONCE = 1000


def _utc(value: datetime) -> str:
    return f"{value.astimezone(UTC).isoformat(timespec='microseconds')[:-6]}Z"


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


# PostgreSQL's type: SQLite's type, and what becomes of a value.
_TYPES: Mapping[str, tuple[str, Callable[[Any], Any]]] = MappingProxyType(
    {
        "text": ("TEXT", str),
        "character varying": ("TEXT", str),
        "uuid": ("TEXT", str),
        "integer": ("INTEGER", int),
        "bigint": ("INTEGER", int),
        "boolean": ("INTEGER", int),
        "bytea": ("BLOB", bytes),
        "jsonb": ("TEXT", _json),
        "timestamp with time zone": ("TEXT", _utc),
    }
)


def copy_of(database: Path | str, copy: Path) -> Path:
    """Copy a database as it stands, whoever writes to it meanwhile, and return the copy.

    `database` is a SQLite file or a postgresql:// URL. The copy shows one moment: SQLite's backup
    does, and so does one snapshot of PostgreSQL's. A type that is not known raises KeyError.
    """
    copy.unlink(missing_ok=True)
    with closing(sqlite3.connect(copy)) as made:
        if isinstance(database, Path):
            with closing(sqlite3.connect(database)) as found:
                found.backup(made)
        else:
            with psycopg.connect(database) as server:
                server.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                server.read_only = True
                for table in _tables(server):
                    _copy_table(server, made, table)
            made.commit()
    return copy


def _tables(server: psycopg.Connection) -> list[str]:
    found = server.execute(
        "SELECT table_name FROM information_schema.tables "
        "WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' ORDER BY 1"
    )
    return [name for (name,) in found]


def _copy_table(server: psycopg.Connection, made: sqlite3.Connection, table: str) -> None:
    columns = server.execute(
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = current_schema() AND table_name = %s ORDER BY ordinal_position",
        (table,),
    ).fetchall()
    kinds = [_TYPES[kind] for _, kind in columns]
    said = ", ".join(
        f'"{name}" {kind}' for (name, _), (kind, _) in zip(columns, kinds, strict=True)
    )
    made.execute(f'CREATE TABLE "{table}" ({said}) STRICT')
    places = ", ".join("?" for _ in columns)
    with server.cursor(f"copying {table}") as rows:
        rows.itersize = _AT_ONCE
        rows.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table)))
        made.executemany(
            f'INSERT INTO "{table}" VALUES ({places})',  # noqa: S608
            (
                tuple(
                    None if value is None else become(value)
                    for value, (_, become) in zip(row, kinds, strict=True)
                )
                for row in rows
            ),
        )
