"""What the judge reads: the partners' ledgers and a copy of the database, both files, in memory.

It opens nothing that is sealed: columns, digests, nonces and times are all it needs.
"""

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from .verdict import Verdict

Entry = dict[str, Any]
Row = sqlite3.Row
Lane = tuple[str, str, str]

SENT_BY_PARTIES = ("update", "referral")
_ENDS = ("ok", "fail", "unknown")
_LONGEST = 16
# What a person needs to follow a message; nothing that is about a patient.
_SHOWN = ("does", "door", "key", "reference", "status", "messages", "delivery", "kind", "via")
_SHOWN += ("message", "about", "topic", "referral", "outcome", "reason", "how", "answer", "why")


class Copy:
    """A copy of the broker's database, every table by its name, without the bytes in it."""

    def __init__(self, path: Path) -> None:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            self.tables: dict[str, list[Row]] = {
                name: _read(connection, name) for (name,) in names.fetchall()
            }

    def rows(self, table: str, order: str = "") -> list[Row]:
        """Return a table's rows, in the order of a column where one is named."""
        found = self.tables[table]
        return sorted(found, key=lambda row: row[order]) if order else found


@dataclass(frozen=True, slots=True)
class Op:
    """One thing that a client did at the broker: what it began, and how that ended.

    `how`: ok, fail (refused for good: it did not happen) or unknown (it may have or not).
    """

    partner: str
    begun: Entry
    how: str
    ended: Entry = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return str(self.begun.get("digest", ""))

    @property
    def key(self) -> str:
        return str(self.begun.get("key", ""))

    @property
    def is_post(self) -> bool:
        return str(self.begun.get("door", "")).startswith("POST")

    @property
    def messages(self) -> list[str]:
        """The messages that it was answered with."""
        return self.ended.get("messages", []) if self.how == "ok" else []


class History:
    """Everything in memory, with the indexes that more than one rule needs."""

    def __init__(
        self,
        database: Path,
        ledgers: Iterable[Path],
        *,
        before: Path | None = None,
        down: Iterable[str] = (),
    ) -> None:
        copy = self.copy = Copy(database)
        self.before = None if before is None else Copy(before)
        self.down = frozenset(down)
        self.entries = _entries(ledgers)
        self.said: dict[str, list[Entry]] = defaultdict(list)
        for entry in self.entries:
            self.said[entry["what"]].append(entry)
        self.messages = {row["id"]: row for row in copy.rows("message")}
        self.events = copy.rows("event", "position")
        self.event_of = {row["id"]: row for row in self.events}
        self.deliveries = {row["id"]: row for row in copy.rows("delivery")}
        self.payloads = {(row["owner_id"], row["role"]): row for row in copy.rows("payload")}
        self.receipts = copy.rows("receipt")
        self.decisions = {row["delivery_id"]: row for row in copy.rows("decision")}
        self.items = copy.rows("work_item")
        self.deadlines = copy.rows("deadline")
        self.audit = copy.rows("audit", "seq")
        self.head = copy.rows("ledger_head")[0]
        ops = _ops(self.entries)
        self.posts = [op for op in ops if op.begun.get("does") == "post"]
        self.decided = [op for op in ops if op.begun.get("does") == "decide"]
        self.by_digest: dict[tuple[str, str], list[Op]] = defaultdict(list)
        self.answered: dict[str, list[Op]] = defaultdict(list)
        for op in self.posts:
            self.by_digest[op.partner, op.digest].append(op)
            for message in op.messages:
                self.answered[message].append(op)
        self.first_stored: dict[tuple[str, str], Entry] = {}
        for entry in self.said["received"]:
            self.first_stored.setdefault((entry["partner"], entry["delivery"]), entry)

    def verdict(self) -> Verdict:
        """Return a verdict that says nothing yet."""
        counts = Counter(
            {
                "messages": len(self.messages),
                "events": len(self.events),
                "deliveries": len(self.deliveries),
                "audit entries": len(self.audit),
                "posts": len(self.posts),
                "posts with unknown outcome": sum(op.how == "unknown" for op in self.posts),
                "stored by receivers": len(self.said["received"]),
                "come again and recognised": len(self.said["received-again"]),
            }
        )
        return Verdict(counts, self.about)

    # -- what belongs together -------------------------------------------------------------------

    def is_caused(self, message: Row) -> bool:
        """Whether another event brought a message about: a notice, a withdrawal."""
        event = self.event_of.get(message["event_id"])
        return event is not None and event["causation_id"] is not None

    def origin(self, message: Row) -> str | None:
        """Return the digest of what was posted, where a message still has it."""
        posted = self.payloads.get((message["id"], "in"))
        if posted is not None:
            return str(posted["digest"])
        content = self.payloads.get((message["event_id"], "content"))
        if content is not None and (message["sender"], content["digest"]) in self.by_digest:
            return str(content["digest"])  # posted as FHIR, it is its own content
        return None

    def posts_of(self, message: Row) -> list[Op]:
        """Return the posts that were answered with a message, else, whatever became of them, those
        that carried what it holds."""
        if message["id"] in self.answered:
            return self.answered[message["id"]]
        digest = self.origin(message)
        return [] if digest is None else self.by_digest.get((message["sender"], digest), [])

    def routes(self, event_id: str | None) -> list[list[str]]:
        """Return where the broker decided that an event goes: (ODS code, service, role, why)."""
        event = self.event_of.get(event_id or "")
        return json.loads(event["routes"]) if event is not None else []

    @staticmethod
    def lane(row: Row) -> Lane:
        """Return the lane of a delivery: its destination and its subject."""
        return row["ods"], row["service"], row["subject_id"]

    @cached_property
    def open_items(self) -> set[str | None]:
        """The deliveries and messages that are on somebody's work-list."""
        found = [row for row in self.items if row["closed_at"] is None]
        return {row[name] for row in found for name in ("delivery_id", "message_id")} - {None}

    @cached_property
    def unreadable(self) -> set[str]:
        """The events that the broker could not open and somebody knows of."""
        return {row["object_id"] for row in self.items if row["code"] == "unreadable"}

    @cached_property
    def given_up(self) -> set[str]:
        """The messages of which an operator gave a delivery up: that stops its clock too."""
        found = {row["object_id"] for row in self.audit if row["action"] == "delivery.given-up"}
        return {row["message_id"] for row in self.deliveries.values() if row["id"] in found}

    @cached_property
    def last_word(self) -> datetime:
        """The last moment that anybody wrote anything down."""
        written = [*(entry["at"] for entry in self.entries), *(row["time"] for row in self.audit)]
        return max(map(datetime.fromisoformat, written))

    # -- for a person to follow ------------------------------------------------------------------

    def about(self, ids: Sequence[str]) -> tuple[str, ...]:
        """Return what the ledgers and the audit say of these ids, in the order of time.

        What was begun is shown with how it ended.
        """
        entries = {place for one in ids for place in self._mentions.get(one, ())}
        ops = {self.entries[place].get("op") for place in entries} - {None}
        entries |= {place for op in ops for place in self._mentions[op]}
        lines = [_in_words(self.entries[place]) for place in entries]
        lines += [
            f"{row['time']} broker {row['action']} {row['object_id']} {row['facts']}"
            for row in self.audit
            if row["object_id"] in ids
        ]
        cut = [f"… and {len(lines) - _LONGEST} more"] if len(lines) > _LONGEST else []
        return (*sorted(lines)[:_LONGEST], *cut)

    @cached_property
    def _mentions(self) -> dict[str, set[int]]:
        found: dict[str, set[int]] = defaultdict(set)
        for place, entry in enumerate(self.entries):
            for name in ("op", *_SHOWN):
                value = entry.get(name)
                for one in value if isinstance(value, list) else [value]:
                    if isinstance(one, str):
                        found[one].add(place)
        return found


def _read(connection: sqlite3.Connection, table: str) -> list[Row]:
    """Return a table's rows; its BLOBs are sealed, and too many to be held in memory."""
    columns = connection.execute("SELECT name, type FROM pragma_table_info(?)", (table,)).fetchall()
    kept = ", ".join(f'"{name}"' for name, kind in columns if kind != "BLOB")
    return connection.execute(f'SELECT {kept} FROM "{table}"').fetchall()  # noqa: S608


def _entries(ledgers: Iterable[Path]) -> list[Entry]:
    """Return every entry in the order of time. A torn last line was never acted upon."""
    found = [
        json.loads(line) for path in ledgers for line in path.read_bytes().split(b"\n")[:-1] if line
    ]
    return sorted(found, key=lambda entry: entry["mono"])


def _ops(entries: Iterable[Entry]) -> list[Op]:
    """Join what was begun with how it ended; what has no end is unknown."""
    open_: dict[tuple[str, str], Entry] = {}
    begun: dict[tuple[str, str], Entry] = {}
    found: list[Op] = []
    for entry in entries:
        place = (entry["partner"], entry.get("op", ""))
        if entry["what"] == "invoke":
            open_[place] = begun[place] = entry
        elif entry["what"] in _ENDS:
            open_.pop(place, None)
            found.append(Op(entry["partner"], begun.get(place, entry), entry["what"], entry))
    return found + [Op(entry["partner"], entry, "unknown") for entry in open_.values()]


def _in_words(entry: Entry) -> str:
    facts = " ".join(f"{name}={entry[name]}" for name in _SHOWN if entry.get(name))
    return f"{entry['at']} {entry['partner']} {entry['what']} {facts}"
