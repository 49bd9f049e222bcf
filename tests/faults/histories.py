"""Hand-made histories: the files of a good run, each spoiled by one fault, or only made odd."""

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.faults import checker
from tests.faults.conftest import History

Entry = dict[str, Any]
Change = Callable[[Entry], list[Entry] | None]

_UPDATES = """
SELECT m.id FROM message m JOIN decision d ON d.message_id = m.id
WHERE m.kind = 'update' AND m.status = 'sent' AND m.replaces IS NULL AND m.correlation_id IN
(SELECT correlation_id FROM message WHERE door <> 'broker' GROUP BY 1 HAVING count(*) = 1)
ORDER BY m.id
"""
# The words that stand for an id in a statement: one thing of each kind, always the same one. An
# update that was asked twice, one whose answer got lost, what was sent for each, what came of it.
_IDS = {
    "update": f"{_UPDATES} LIMIT 1",
    "unknown": f"{_UPDATES} DESC LIMIT 1",
    "delivery": (
        f"SELECT id FROM delivery WHERE role = 'acting' AND message_id IN ({_UPDATES} LIMIT 1)"  # noqa: S608
    ),
    "copy": "SELECT id FROM delivery WHERE role = 'copy'",
    "urgent": "SELECT id FROM delivery WHERE priority = 'stat' AND channel = 'webhook'",
    "filed": (
        "SELECT d.id FROM delivery d JOIN event e ON e.id = d.event_id "
        "WHERE e.facts LIKE '%update-filed%' ORDER BY e.position"
    ),
    "moved": (
        "SELECT d.id FROM delivery d JOIN event e ON e.id = d.event_id "
        "WHERE e.facts LIKE '%referral-moved%' AND d.channel = 'webhook' ORDER BY e.position"
    ),
    "overdue": "SELECT id FROM deadline WHERE raised_at IS NOT NULL AND kind = 'received'",
    "referral": "SELECT subject_id FROM referral WHERE state = 'completed'",
}


class Tampered:
    """A copy of a run, into which faults are put."""

    def __init__(self, history: History, folder: Path) -> None:
        self.database = shutil.copyfile(history.database, folder / "copy.db")
        self.before = shutil.copyfile(history.before, folder / "before.db")
        self.ledgers = [
            shutil.copyfile(ledger, folder / f"{number}.jsonl")
            for number, ledger in enumerate(history.ledgers)
        ]
        self.is_replayed = False

    # -- the broker's word -----------------------------------------------------------------------

    def one(self, kind: str) -> str:
        """Return the id of one thing of a kind."""
        with closing(sqlite3.connect(self.database)) as connection:
            return str(connection.execute(_IDS[kind]).fetchone()[0])

    def sql(self, *statements: str, was: bool = False) -> None:
        """Change the broker's word; `:update`, `:delivery` and the like stand for one of each.

        `was`: its word from before the replay, which is judged too then.
        """
        self.is_replayed |= was
        given = {name: self.one(name) for name in _IDS if any(f":{name}" in s for s in statements)}
        with closing(sqlite3.connect(self.before if was else self.database)) as connection:
            for statement in statements:
                assert connection.execute(statement, given).rowcount > 0, statement
            connection.commit()

    # -- the partners' word ----------------------------------------------------------------------

    def entries(self, what: str, **facts: Any) -> list[Entry]:
        """Return the entries of a kind with these facts, in the order of time."""
        found = [
            entry
            for ledger in self.ledgers
            for line in ledger.read_text().splitlines()
            for entry in [json.loads(line)]
            if _is(entry, what, facts)
        ]
        return sorted(found, key=lambda entry: entry["mono"])

    def rewrite(self, change: Change) -> None:
        """Change the partners' word: `change` gives what stands in an entry's place, None where
        it stays as it is."""
        count = 0
        for ledger in self.ledgers:
            instead: list[Entry] = []
            for line in ledger.read_text().splitlines():
                entry = json.loads(line)
                found = change(entry)
                count += found is not None
                instead += [entry] if found is None else found
            ledger.write_text("".join(json.dumps(one) + "\n" for one in instead))
        assert count, "nothing was changed"

    def drop(self, what: str, **facts: Any) -> None:
        """Let entries never have been written."""
        self.rewrite(lambda entry: [] if _is(entry, what, facts) else None)

    def alter(self, what: str, changes: Entry, **facts: Any) -> None:
        """Let entries say something else."""
        self.rewrite(lambda entry: [{**entry, **changes}] if _is(entry, what, facts) else None)

    def add(self, entry: Entry, **changes: Any) -> None:
        """Let one more be written, like another but for the changes."""
        with self.ledgers[0].open("a") as ledger:
            ledger.write(json.dumps({**entry, **changes}) + "\n")

    def rechain(self) -> None:
        """Number the audit entries anew and chain them, as whoever has the database could."""
        with closing(sqlite3.connect(self.database)) as connection, connection:
            rows = connection.execute("SELECT * FROM audit ORDER BY seq").fetchall()
            connection.execute("DELETE FROM audit")
            last = "0" * 64
            for number, (_, *said, facts, _) in enumerate(rows, start=1):
                text = json.dumps(
                    [last, number, *said, json.loads(facts)], separators=(",", ":"), sort_keys=True
                )
                last = hashlib.sha256(text.encode()).hexdigest()
                row = (number, *said, facts, last)
                connection.execute("INSERT INTO audit VALUES (?,?,?,?,?,?,?,?,?)", row)
            head = "UPDATE ledger_head SET audit_seq = ?, audit_hash = ?"
            connection.execute(head, (len(rows), last))

    def add_op(self, how: str, like: Entry, **changes: Any) -> None:
        """Let one more thing be done at the broker, like another, that ended so."""
        changes = {"op": uuid4().hex, "key": uuid4().hex, **changes}
        self.add(like, **{**changes, "what": "invoke"})
        self.add(like, **{**changes, "what": how, "mono": like["mono"] + 0.001})

    def judge(self) -> checker.Verdict:
        before = self.before if self.is_replayed else None
        return checker.check(self.database, self.ledgers, before=before)


def _is(entry: Entry, what: str, facts: Entry) -> bool:
    return entry["what"] == what and all(entry.get(name) == one for name, one in facts.items())
