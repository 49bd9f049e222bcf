"""Audit entries and the hash chain that makes a change to any of them visible."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

GENESIS = "0" * 64


@dataclass(frozen=True, slots=True)
class Entry:
    """Who did what to what. `facts` are ids, codes, times and digests, never free text."""

    action: str
    actor: str
    organisation: str
    object_kind: str
    object_id: str
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """An entry as it stands in the chain."""

    seq: int
    time: datetime
    entry: Entry
    hash: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What verification found: how many entries hold, and the first one that does not."""

    checked: int
    head: str
    broken_at: int | None = None
    why: str = ""


def chain(previous: str, seq: int, time: datetime, entry: Entry) -> str:
    """Return the hash of an entry: SHA-256 over the previous hash and all that it says.

    Pinned for ever by a golden test; the input is compact JSON with sorted names.
    """
    said = json.dumps(
        [
            previous,
            seq,
            time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            entry.actor,
            entry.organisation,
            entry.action,
            entry.object_kind,
            entry.object_id,
            entry.facts,
        ],
        separators=(",", ":"),
        sort_keys=True,
        ensure_ascii=True,
    )
    return hashlib.sha256(said.encode("ascii")).hexdigest()


def verify(links: Iterable[Link], head_seq: int, head_hash: str) -> Verdict:
    """Check every link against the one before it and the last against the ledger's head."""
    previous, expected = GENESIS, 1
    for link in links:
        if link.seq != expected:
            return Verdict(expected - 1, previous, expected, "this entry is missing")
        if chain(previous, link.seq, link.time, link.entry) != link.hash:
            return Verdict(expected - 1, previous, link.seq, "this entry or one before was altered")
        previous, expected = link.hash, expected + 1
    if expected - 1 > head_seq:
        return Verdict(expected - 1, previous, head_seq + 1, "this entry stands after the head")
    if expected - 1 != head_seq:
        return Verdict(expected - 1, previous, expected, "the end of the chain was cut off")
    if previous != head_hash:
        return Verdict(expected - 1, previous, head_seq, "the head does not match the last entry")
    return Verdict(expected - 1, previous)
