"""CloudEvents 1.0 over Kafka in binary mode: what stands in a record's key, headers and value.

Key: the subject. Headers: the attributes below and no others, in UTF-8 (CloudEvents Kafka protocol
binding 1.0.2, section 3.2; `sequence`, `correlationid`, `causationid` and `traceparent` are
extension attributes). Value: the sealed data, JWE in compact form (RFC 7516).
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from broker.log import Record

SPECVERSION: Final = "1.0"
JOSE: Final = "application/jose"
CONTENT_TYPE: Final = "content-type"
# Header, attribute, and whether every record has it.
ATTRIBUTES: Final = (
    ("ce_id", "id", True),
    ("ce_type", "type", True),
    ("ce_source", "source", True),
    ("ce_subject", "subject", True),
    ("ce_sequence", "sequence", True),
    ("ce_time", "time", True),
    ("ce_dataschema", "dataschema", False),
    ("ce_correlationid", "correlation_id", False),
    ("ce_causationid", "causation_id", False),
    ("ce_traceparent", "traceparent", False),
)
HEADERS: Final = frozenset({"ce_specversion", CONTENT_TYPE, *(name for name, *_ in ATTRIBUTES)})
"""The headers that a record may have."""

Header = tuple[str, bytes]


class Undecodable(Exception):
    """What stands in a log is no record of ours. `code` says why, from a closed list."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def key(record: Record) -> bytes:
    """Return the key: records of one subject share a partition, so they keep their order."""
    return record.subject.encode()


def headers(record: Record) -> list[Header]:
    """Return the headers of a record."""
    found = [("ce_specversion", SPECVERSION.encode()), (CONTENT_TYPE, JOSE.encode())]
    for name, attribute, _ in ATTRIBUTES:
        value = getattr(record, attribute)
        if isinstance(value, datetime):
            value = value.astimezone(UTC).isoformat(timespec="microseconds")
        if value:
            found.append((name, str(value).encode()))
    return found


def read(key: bytes | None, headers: Iterable[Header], value: bytes | None) -> Record:
    """Read a record. Raises Undecodable, also where its key and its subject are not the same."""
    try:
        found = {name: value.decode() for name, value in headers}
        if found.get("ce_specversion") != SPECVERSION:
            raise Undecodable("not-a-cloudevent")
        missing = [name for name, _, is_wanted in ATTRIBUTES if is_wanted and not found.get(name)]
        if missing:
            raise Undecodable("attribute-missing")
        time = datetime.fromisoformat(found["ce_time"])
        if time.tzinfo is None:
            raise Undecodable("attribute-malformed")
        record = Record(
            id=found["ce_id"],
            type=found["ce_type"],
            source=found["ce_source"],
            subject=found["ce_subject"],
            sequence=int(found["ce_sequence"]),
            time=time,
            dataschema=found.get("ce_dataschema", ""),
            correlation_id=found.get("ce_correlationid"),
            causation_id=found.get("ce_causationid"),
            traceparent=found.get("ce_traceparent"),
            data=value or b"",
        )
    except (ValueError, AttributeError):
        raise Undecodable("attribute-malformed") from None
    if key != record.subject.encode():
        raise Undecodable("another-key")
    return record
