"""The judge: reads what everybody wrote down, files only, and says what cannot be.

    python -m tests.faults.checker COPY.db LEDGER.jsonl... [--down ODS]

It compares the partners' own ledgers with a copy of the broker's database. It imports nothing of
the broker and nothing of the sandbox: what it knows of either is written down here a second time,
so that no fault of theirs can blind it. It reads columns and plain ledgers, never what is sealed.

Whoever copies the database uses `copy_of`: SQLite's backup sees one state, the journal included.
"""

import argparse
import hashlib
import json
import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
Row = sqlite3.Row

_SENT_BY_PARTIES = ("update", "referral")
_NOT_TAKEN = ("misbehaved", "lied")


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that cannot be: which rule it breaks, and what was seen."""

    rule: str
    said: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.said}"


@dataclass(slots=True)
class Verdict:
    """What was counted, and every violation."""

    counts: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)

    def flag(self, rule: str, said: str) -> None:
        """Write a violation down."""
        self.violations.append(Violation(rule, said))

    @property
    def rules(self) -> set[str]:
        """The rules that were broken."""
        return {one.rule for one in self.violations}

    def __str__(self) -> str:
        counted = ", ".join(f"{count} {name}" for name, count in sorted(self.counts.items()))
        found = "".join(f"\n  {one}" for one in self.violations)
        return f"{counted}; {len(self.violations)} violations{found}"


def copy_of(database: Path, copy: Path) -> Path:
    """Copy a database as it stands, whoever writes to it meanwhile, and return the copy."""
    copy.unlink(missing_ok=True)
    with sqlite3.connect(database) as found, sqlite3.connect(copy) as made:
        found.backup(made)
    found.close()
    made.close()
    return copy


def check(database: Path, ledgers: Iterable[Path], *, down: Iterable[str] = ()) -> Verdict:
    """Judge a history that has settled. `down`: destinations that nobody could reach."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        judge = _Judge(connection, _read(ledgers), frozenset(down))
    finally:
        connection.close()
    for rule in (
        judge.ledger_is_whole,
        judge.audit_chain_holds,
        judge.what_was_answered_is_kept,
        judge.nothing_came_from_nowhere,
        judge.repeats_are_recognised,
        judge.everybody_routed_to_has_it,
        judge.receivers_hold_what_was_sent,
        judge.received_is_proved,
        judge.lanes_are_in_order,
        judge.decisions_are_kept,
    ):
        rule()
    return judge.verdict


def _read(ledgers: Iterable[Path]) -> list[Entry]:
    """Return every entry, partner by partner. A torn last line was never acted upon."""
    return [
        json.loads(line) for path in ledgers for line in path.read_bytes().split(b"\n")[:-1] if line
    ]


class _Judge:
    """Everything in memory, and one method per rule."""

    def __init__(
        self, connection: sqlite3.Connection, entries: list[Entry], down: frozenset[str]
    ) -> None:
        def rows(table: str, order: str = "1") -> list[Row]:
            return connection.execute(f"SELECT * FROM {table} ORDER BY {order}").fetchall()  # noqa: S608

        self.verdict = Verdict()
        self.down = down
        self.messages = {row["id"]: row for row in rows("message")}
        self.events = rows("event", "position")
        self.event_of = {row["id"]: row for row in self.events}
        self.deliveries = {row["id"]: row for row in rows("delivery")}
        self.subjects = {row["id"]: row for row in rows("subject")}
        self.payloads = {(row["owner_id"], row["role"]): row for row in rows("payload")}
        self.message_keys = {row["id"] for row in rows("message_key")}
        self.receipts = rows("receipt")
        self.decisions = {row["delivery_id"]: row for row in rows("decision")}
        self.items = rows("work_item")
        self.keys = rows("idempotency_key")
        self.audit = rows("audit", "seq")
        self.head = rows("ledger_head")[0]
        self.cursor = {row["name"]: row["position"] for row in rows("cursor")}
        self.said: dict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            self.said[entry["what"]].append(entry)
        self.first_stored: dict[tuple[str, str], Entry] = {}
        for entry in self.said["received"]:
            self.first_stored.setdefault((entry["partner"], entry["delivery"]), entry)
        self.verdict.counts.update(
            {
                "messages": len(self.messages),
                "events": len(self.events),
                "deliveries": len(self.deliveries),
                "audit entries": len(self.audit),
                "answered 202": sum(e["status"] == 202 for e in self.said["answered"]),
                "stored by receivers": len(self.said["received"]),
                "come again and recognised": len(self.said["received-again"]),
            }
        )

    # -- the broker's own books ------------------------------------------------------------------

    def ledger_is_whole(self) -> None:
        """Positions have no gap and end at the head; each subject's events are numbered 1, 2 …"""
        flag = self.verdict.flag
        positions = [row["position"] for row in self.events]
        if positions != list(range(1, len(positions) + 1)):
            flag("ledger", f"positions are not 1 to {len(positions)}")
        if self.head["position"] != len(positions):
            flag("ledger", f"the head is at {self.head['position']} of {len(positions)} events")
        places: dict[str, list[int]] = defaultdict(list)
        for row in self.events:
            places[row["subject_id"]].append(row["subject_seq"])
        for subject, found in places.items():
            there = self.subjects.get(subject)
            if there is None:
                flag("ledger", f"subject {subject} has events and no row")
                continue
            if sorted(found) != list(range(1, there["last_seq"] + 1)):
                flag("ledger", f"subject {subject}: events {sorted(found)} of {there['last_seq']}")
            if found != sorted(found):
                flag("ledger", f"subject {subject}: events stand in another order than numbered")
            if there["dispatched_seq"] != there["last_seq"]:
                flag("undispatched", f"subject {subject} has events that were not fanned out")
        if self.cursor.get("dispatch", 0) != self.head["position"]:
            flag("undispatched", "dispatch has not read to the end of the ledger")

    def audit_chain_holds(self) -> None:
        """Each entry's hash covers the one before it, and the head names the last."""
        previous = "0" * 64
        for number, row in enumerate(self.audit, start=1):
            said = json.dumps(
                [
                    previous,
                    row["seq"],
                    row["time"],
                    row["actor"],
                    row["organisation"],
                    row["action"],
                    row["object_kind"],
                    row["object_id"],
                    json.loads(row["facts"]),
                ],
                separators=(",", ":"),
                sort_keys=True,
            )
            if row["seq"] != number or hashlib.sha256(said.encode()).hexdigest() != row["hash"]:
                self.verdict.flag("audit", f"the chain breaks at entry {number}")
                return
            previous = row["hash"]
        if (self.head["audit_seq"], self.head["audit_hash"]) != (len(self.audit), previous):
            self.verdict.flag("audit", "the head does not name the last entry")

    # -- senders ---------------------------------------------------------------------------------

    def what_was_answered_is_kept(self) -> None:
        """Each message of each 202: its row, its event, its payloads, its audit entry."""
        audited = {row["object_id"] for row in self.audit if row["action"] == "message.accepted"}
        for entry in self._answered():
            for message in entry["messages"]:
                row = self.messages.get(message)
                if row is None:
                    self.verdict.flag("lost", f"{message} was answered {entry['status']}: no row")
                elif row["sender"] != entry["partner"]:
                    self.verdict.flag("lost", f"{message} stands as sent by {row['sender']}")
        for row in self.messages.values():
            if row["status"] == "withheld":
                continue
            for what, there in (
                ("event", row["event_id"] in self.event_of),
                ("content", (row["event_id"], "content") in self.payloads),
                ("key", row["key_id"] in self.message_keys),
                ("posted bytes", row["door"] == "broker" or (row["id"], "in") in self.payloads),
                ("audit entry", row["door"] == "broker" or row["id"] in audited),
            ):
                if not there:
                    self.verdict.flag("lost", f"message {row['id']} has no {what}")
        for row in self.deliveries.values():
            sent = self.payloads.get((row["id"], "sent"))
            if sent is None or sent["digest"] != row["digest"]:
                self.verdict.flag("lost", f"delivery {row['id']} has no bytes of its digest")

    def nothing_came_from_nowhere(self) -> None:
        """Each stored message was answered to its sender, or is one whose answer got lost."""
        answered = {m for entry in self._answered() for m in entry["messages"]}
        ended = {(e["partner"], e["key"]) for e in self.said["answered"] if e["status"] < 500}
        open_ = Counter(
            e["partner"] for e in self.said["sending"] if (e["partner"], e["key"]) not in ended
        )
        unknown: dict[str, set[str]] = defaultdict(set)
        for row in self.messages.values():
            if row["kind"] in _SENT_BY_PARTIES and row["id"] not in answered:
                unknown[row["sender"]].add(row["correlation_id"])
        for sender, found in unknown.items():
            if len(found) > open_[sender]:
                self.verdict.flag(
                    "phantom",
                    f"{len(found)} posts of {sender} are stored, of which it knows nothing; "
                    f"{open_[sender]} of its posts have no answer",
                )

    def repeats_are_recognised(self) -> None:
        """One key, one answer; one reference, one message; one row for each key that was used."""
        by_key: dict[tuple[str, str], set[tuple[str, ...]]] = defaultdict(set)
        by_reference: dict[tuple[str, str, str], set[tuple[str, ...]]] = defaultdict(set)
        for entry in self._answered():
            made = tuple(entry["messages"])
            by_key[entry["partner"], entry["key"]].add(made)
            if entry["door"].startswith("POST") and entry.get("reference"):
                place = (entry["partner"], entry["door"], entry["reference"])
                by_reference[place].add(made)
        for place, found in (*by_key.items(), *by_reference.items()):
            if len(found) > 1:
                self.verdict.flag("doubled", f"{place} was answered with {sorted(found)}")
        owners = Counter(row["owner_id"] for row in self.keys if row["status"] == 202)
        for entry in self._answered():
            if entry["door"].startswith("POST") and entry.get("reference") and entry["messages"]:
                used = owners[entry["messages"][0]]
                if used != 1:
                    self.verdict.flag(
                        "key", f"the key of {entry['messages'][0]} has {used} rows, not one"
                    )

    # -- receivers -------------------------------------------------------------------------------

    def everybody_routed_to_has_it(self) -> None:
        """Each route of each message has one delivery, and that one came to a known end."""
        unreadable = {row["object_id"] for row in self.items if row["code"] == "unreadable"}
        made: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
        for row in self.deliveries.values():
            made[row["event_id"], row["ods"], row["service"]].append(row)
        for message in self.messages.values():
            event = self.event_of.get(message["event_id"])
            for ods, service, *_ in json.loads(event["routes"]) if event else ():
                found = made.get((event["id"], ods, service), [])
                if len(found) != 1 and not (event["id"] in unreadable and not found):
                    self.verdict.flag(
                        "unrouted", f"{message['id']} has {len(found)} deliveries to {ods}"
                    )
        listed = {row["delivery_id"] for row in self.items if row["closed_at"] is None}
        trouble = {e.get("delivery") for what in _NOT_TAKEN for e in self.said[what]}
        dead = {
            self._lane(row) for row in self.deliveries.values() if row["state"] in {"dead", "due"}
        }
        for row in self.deliveries.values():
            where = f"delivery {row['id']} to {row['ods']} ({row['kind']})"
            state, held = row["state"], row["held_reason"]
            if state == "dead" and row["id"] not in listed:
                self.verdict.flag("silent", f"{where} is dead and nobody's work")
            elif row["code"] == "receipt-mismatch" and row["id"] not in listed:
                self.verdict.flag("silent", f"{where} has a false receipt and is nobody's work")
            elif state == "done" and row["done_reason"] == "receipt" and not row["received_at"]:
                self.verdict.flag("unreceived", f"{where} is done by a receipt that has no time")
            elif row["ods"] in self.down or row["id"] in trouble:
                continue
            elif state == "due" or (state == "held" and held == "receipt"):
                self.verdict.flag("unreceived", f"{where} is still {state} {held or ''}")
            elif held == "predecessor" and self._lane(row) not in dead:
                self.verdict.flag("unreceived", f"{where} waits for nothing")

    def receivers_hold_what_was_sent(self) -> None:
        """What a receiver stored was sent to it, to it alone, with these bytes, and stored once."""
        stored = Counter((e["partner"], e["delivery"]) for e in self.said["received"])
        effects = Counter((e["partner"], e["message"]) for e in self.said["received"])
        for (partner, what), count in (*stored.items(), *effects.items()):
            if count > 1:
                self.verdict.flag("doubled", f"{partner} stored {what} {count} times")
        answered = {m for entry in self._answered() for m in entry["messages"]}
        sent = {e["reference"] for e in self.said["sending"] if e.get("reference")}
        for entry in (*self.said["received"], *self.said["received-again"]):
            partner, delivery = entry["partner"], entry["delivery"]
            row = self.deliveries.get(delivery)
            if row is None:
                self.verdict.flag("forged", f"{partner} holds {delivery}, which was never made")
                continue
            if row["ods"] != partner:
                self.verdict.flag("misdelivered", f"{partner} holds what is for {row['ods']}")
            event = self.event_of.get(row["event_id"])
            routed = {route[0] for route in json.loads(event["routes"])} if event else set()
            if partner not in routed:
                self.verdict.flag("misdelivered", f"{delivery} was never routed to {partner}")
            if entry["digest"] != row["digest"]:
                self.verdict.flag("altered", f"{partner} stored other bytes of {delivery}")
            if (entry["kind"], entry["message"]) != (row["kind"], row["message_id"]):
                self.verdict.flag("altered", f"{delivery} says it is another message")
            message = self.messages.get(row["message_id"])
            if message is None:
                self.verdict.flag("forged", f"{partner} holds {delivery} of no message")
            elif message["kind"] in _SENT_BY_PARTIES:
                if message["id"] not in answered and entry.get("reference") not in sent:
                    self.verdict.flag("forged", f"{partner} holds {delivery}: nobody sent it")
            elif entry.get("about") not in self.messages:
                self.verdict.flag("forged", f"{partner} holds a notice about nothing")

    def received_is_proved(self) -> None:
        """No status claims more than a receiver's own ledger: stored first, confirmed then."""
        matching = {row["delivery_id"] for row in self.receipts if row["matches"]}
        confirmed = {(e["partner"], e["delivery"]) for e in self.said["confirmed"]}
        for receipt in self.receipts:
            row = self.deliveries.get(receipt["delivery_id"])
            if row is None:
                self.verdict.flag("unproved", f"receipt {receipt['id']} is for no delivery")
                continue
            named = (receipt["named_delivery"], receipt["named_digest"], receipt["named_ods"])
            if bool(receipt["matches"]) != (named == (row["id"], row["digest"], row["ods"])):
                self.verdict.flag("unproved", f"receipt {receipt['id']} is judged wrongly")
        for row in self.deliveries.values():
            place = (row["ods"], row["id"])
            if row["received_at"] is None:
                continue
            if place not in self.first_stored or place not in confirmed:
                self.verdict.flag("unproved", f"{row['ods']} never said it stored {row['id']}")
            if row["id"] not in matching:
                self.verdict.flag("unproved", f"{row['id']} is received without a true receipt")

    def lanes_are_in_order(self) -> None:
        """What is pushed to one receiver about one subject comes in the subject's order.

        An inbox shows everything at once: in which order it is collected is the receiver's affair.
        """
        last: dict[tuple[str, str, str], Row] = {}
        for entry in self.said["received"]:
            row = self.deliveries.get(entry["delivery"])
            if row is None or entry["via"] != "webhook":
                continue
            lane = self._lane(row)
            before = last.get(lane)
            if before is not None and before["subject_seq"] > row["subject_seq"]:
                self.verdict.flag(
                    "order", f"{row['ods']} got {before['id']} before {row['id']}, which precedes"
                )
            last[lane] = row
        blocked: dict[tuple[str, str, str], int] = {}
        for row in self.deliveries.values():
            if row["state"] == "dead" or (row["state"] == "due" and row["channel"] == "webhook"):
                lane = self._lane(row)
                blocked[lane] = min(blocked.get(lane, row["subject_seq"]), row["subject_seq"])
        for row in self.deliveries.values():
            first = blocked.get(self._lane(row))
            if first is None or row["subject_seq"] <= first or row["channel"] != "webhook":
                continue
            stored = self.first_stored.get((row["ods"], row["id"]))
            if stored is not None and stored["via"] == "webhook":
                self.verdict.flag("order", f"{row['id']} overtook a step that is not finished")

    def decisions_are_kept(self) -> None:
        """A decision that the broker answered for stands, as it was made, in its ledger."""
        moved = {
            (row["subject_id"], facts.get("move"), facts.get("by"))
            for row in self.events
            for facts in [json.loads(row["facts"])]
            if "move" in facts
        }
        for entry in self.said["decided"]:
            if not 200 <= entry["status"] < 300:
                continue
            if "referral" in entry:
                made = (entry["referral"], entry["outcome"], entry["partner"])
                if made not in moved:
                    self.verdict.flag("undecided", f"{made} was answered and is not recorded")
                continue
            row = self.decisions.get(entry["delivery"])
            said = (entry["outcome"], entry["reason"])
            if row is None or (row["outcome"], row["reason"]) != said:
                self.verdict.flag("undecided", f"{said} on {entry['delivery']} is not recorded")

    @staticmethod
    def _lane(row: Row) -> tuple[str, str, str]:
        return row["ods"], row["service"], row["subject_id"]

    def _answered(self) -> list[Entry]:
        return [e for e in self.said["answered"] if 200 <= e["status"] < 300 and e["messages"]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the files that are named; exit code 1 where anything cannot be."""
    parser = argparse.ArgumentParser(prog="tests.faults.checker", description=__doc__)
    parser.add_argument("database", type=Path, help="a copy of the broker's database")
    parser.add_argument("ledgers", type=Path, nargs="+", help="the partners' ledgers")
    parser.add_argument("--down", action="append", default=[], help="an ODS code out of reach")
    named = parser.parse_args(arguments)
    verdict = check(named.database, named.ledgers, down=named.down)
    print(verdict)  # noqa: T201
    return 1 if verdict.violations else 0


if __name__ == "__main__":
    sys.exit(main())
