"""Column types that mean the same on SQLite and PostgreSQL.

SQLite's tables are STRICT, so every type must come down to TEXT, INTEGER or BLOB there.
"""

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, Boolean, DateTime, Integer, LargeBinary, Text
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine


def is_sqlite(dialect: Dialect) -> bool:
    """Whether the dialect is SQLite's."""
    return dialect.name == "sqlite"


class Id(TypeDecorator[str]):
    """A UUID, always a lower-case hyphenated str in Python; text(36) on SQLite, uuid elsewhere."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return Text() if is_sqlite(dialect) else UUID(as_uuid=False)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else value.lower()


class Utc(TypeDecorator[datetime]):
    """An aware UTC time with microseconds; fixed-width text on SQLite, so that it sorts."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return Text() if is_sqlite(dialect) else DateTime(timezone=True)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time in the store is aware; this one has no offset")
        utc = value.astimezone(UTC)
        if not is_sqlite(dialect):
            return utc
        return f"{utc.isoformat(timespec='microseconds')[:-6]}Z"  # half the time of strftime

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if isinstance(value, str):
            return datetime.fromisoformat(value)
        found: datetime = value
        return found.astimezone(UTC)


class Flag(TypeDecorator[bool]):
    """True or false; 0 or 1 on SQLite."""

    impl = Integer
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return Integer() if is_sqlite(dialect) else Boolean()

    def process_bind_param(self, value: bool | None, dialect: Dialect) -> Any:
        return None if value is None else (int(value) if is_sqlite(dialect) else value)

    def process_result_value(self, value: Any, dialect: Dialect) -> bool | None:
        return None if value is None else bool(value)


class Codes(TypeDecorator[Any]):
    """Ids and codes as JSON; never free text and never anything demographic."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return Text() if is_sqlite(dialect) else JSONB(none_as_null=True)

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        if value is None:
            return None
        if is_sqlite(dialect):
            return json.dumps(value, separators=(",", ":"), sort_keys=True)
        return value

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return json.loads(value) if value is not None and is_sqlite(dialect) else value


class Sealed(TypeDecorator[bytes]):
    """Bytes that the vault has sealed, or a digest or keyed pseudonym."""

    impl = LargeBinary
    cache_ok = True


class Position(TypeDecorator[int]):
    """A place in the ledger or the audit chain; gap-free, numbered by the store."""

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return Integer() if is_sqlite(dialect) else BigInteger()
