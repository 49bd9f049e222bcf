"""The broker's own books, by its own word: I11, I12, I14."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from .history import SENT_BY_PARTIES, History, Row
from .verdict import Verdict

_GENESIS = "0" * 64
_OPEN = {
    *("requested", "received", "accepted", "information-requested", "redirected"),
    *("booked", "in-progress", "did-not-attend", "no-contact"),
}
_UNDECIDED = {"received", "information-requested"}
_WAITING = {"accepted", "booked", "did-not-attend", "no-contact"}
# Every move of a referral: out of which states, into which.
_MOVES = {
    "receive": ({"requested", "redirected"}, {"received"}),
    "accept": (_UNDECIDED, {"accepted"}),
    "reject": (_UNDECIDED | _WAITING, {"rejected"}),
    "complete": (_WAITING | {"in-progress"}, {"completed"}),
    "cancel": (_OPEN, {"cancelled"}),
    "reinstate": ({"rejected"}, {"received", "information-requested", "accepted"}),
    "request-information": ({"received"}, {"information-requested"}),
    "answer": ({"information-requested"}, {"received"}),
    "redirect": (_UNDECIDED | {"accepted"}, {"redirected"}),
    "book": (_WAITING, {"booked"}),
    "start": (_WAITING, {"in-progress"}),
    "did-not-attend": ({"booked"}, {"did-not-attend"}),
    "no-contact": ({"received", "accepted", "booked", "did-not-attend"}, {"no-contact"}),
    "decline": (_OPEN, {"declined-by-patient"}),
    "deceased": (_OPEN, {"deceased"}),
    "expire": (_UNDECIDED | {"requested", "redirected"}, {"expired"}),
}
_MOVED = "referral.task.moved.v1"


def _moves(history: History) -> list[tuple[Row, dict[str, Any]]]:
    return [(row, json.loads(row["facts"])) for row in history.events if row["type"] == _MOVED]


def every_change_is_audited_once(history: History, verdict: Verdict) -> None:
    """I11: each change has its one audit entry, written in the same transaction."""
    entries: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in history.audit:
        entries[row["action"], row["object_id"]].append(row)
    for action, object_id, time in _changes(history):
        found = entries.get((action, object_id), [])
        if len(found) != 1:
            said = f"{object_id} has {len(found)} entries {action}, not one"
            verdict.flag("I11", said, object_id)
        elif time is not None and found[0]["time"] != time:
            said = f"{action} of {object_id} was written in another transaction"
            verdict.flag("I11", said, object_id)
    moved: Counter[tuple[str, ...]] = Counter()
    for event, facts in _moves(history):
        if facts["move"] != "receive":  # its receipt is what is audited
            moved[
                event["subject_id"], facts["move"], facts["from"], facts["to"], event["time"]
            ] += 1
    for row in history.audit:
        if row["action"] == "referral.moved":
            facts = json.loads(row["facts"])
            moved[row["object_id"], facts["move"], facts["from"], facts["to"], row["time"]] -= 1
    for (subject, move, *_), difference in moved.items():
        if difference:
            which = "no audit entry" if difference > 0 else "no event"
            verdict.flag("I11", f"{move} of {subject} has {which}", subject)
    for row in history.deliveries.values():
        if row["state"] == "dead" and not entries.get(("delivery.died", row["id"])):
            verdict.flag("I11", f"{row['id']} died without an audit entry", row["id"])
    for row in history.deadlines:
        raised = [
            one
            for one in entries.get(("deadline.raised", row["message_id"]), ())
            if json.loads(one["facts"])["kind"] == row["kind"]
        ]
        if row["raised_at"] and not raised and row["message_id"] not in history.given_up:
            said = f"{row['kind']} of {row['message_id']} was raised without an audit entry"
            verdict.flag("I11", said, row["message_id"])


def _changes(history: History) -> list[tuple[str, str, str | None]]:
    """Return (action, object, time) of each change that has exactly one entry.

    What was posted together has one entry each, but for a correction, which has its own word.
    """
    first: dict[str, str] = {}
    for row in sorted(history.messages.values(), key=lambda row: row["accepted_at"]):
        first.setdefault(row["correlation_id"], row["accepted_at"])
    made: list[tuple[str, str, str | None]] = []
    for row in history.messages.values():
        if row["status"] == "withheld":
            made.append(("message.withheld", row["id"], None))
        elif (
            row["kind"] in SENT_BY_PARTIES
            and not history.is_caused(row)
            and row["accepted_at"] == first[row["correlation_id"]]
        ):
            made.append(("message.accepted", row["id"], None))
    made += [
        ("delivery.received", row["id"], row["received_at"])
        for row in history.deliveries.values()
        if row["received_at"]
    ]
    made += [
        ("update.decided", row["delivery_id"], row["decided_at"])
        for row in history.decisions.values()
    ]
    return made


def referrals_follow_the_machine(history: History, verdict: Verdict) -> None:
    """I11: each move leads from the state before to one that the machine allows, and the last of
    them is where the referral stands."""
    state: dict[str, str] = {}
    for event, facts in _moves(history):
        subject = event["subject_id"]
        before = state.get(subject, "requested")
        sources, targets = _MOVES.get(facts["move"], (set(), set()))
        if facts["from"] != before or before not in sources or facts["to"] not in targets:
            said = f"{facts['move']} of {subject} from {before} to {facts['to']} cannot be"
            verdict.flag("I11", said, subject)
        state[subject] = facts["to"]
    for row in history.copy.rows("referral"):
        told = state.get(row["subject_id"], "requested")
        if row["state"] != told:
            said = f"{row['subject_id']} stands as {row['state']}, its moves say {told}"
            verdict.flag("I11", said, row["subject_id"])


def the_audit_chain_holds(history: History, verdict: Verdict) -> None:
    """I12: each entry's hash covers the one before it, the head names the last, and every head
    that was published outside stands in the chain.

    The hash is SHA-256 over compact JSON with sorted names of: the previous hash, then all columns.
    """
    previous = _GENESIS
    names = ("seq", "time", "actor", "organisation", "action", "object_kind", "object_id")
    for number, row in enumerate(history.audit, start=1):
        said = [previous, *(row[name] for name in names), json.loads(row["facts"])]
        text = json.dumps(said, separators=(",", ":"), sort_keys=True)
        if row["seq"] != number or hashlib.sha256(text.encode()).hexdigest() != row["hash"]:
            verdict.flag("I12", f"the chain breaks at entry {number}", row["object_id"])
            return
        previous = row["hash"]
    if (history.head["audit_seq"], history.head["audit_hash"]) != (len(history.audit), previous):
        verdict.flag("I12", "the head does not name the last entry")
    published = history.said["head"]
    if not published:
        verdict.narrow("I12", "no head was published outside")
    for entry in published:
        seq = entry["audit_seq"]
        if seq > len(history.audit):
            verdict.flag("I12", f"entry {seq}, a head at {entry['at']}, was cut off")
        elif seq and history.audit[seq - 1]["hash"] != entry["hash"]:
            verdict.flag("I12", f"entry {seq} is another than the head at {entry['at']}")


def nothing_is_left_in_the_ledger(history: History, verdict: Verdict) -> None:
    """I14: positions have no gap and end at the head, every cursor is there, each subject is
    fanned out to its end, and each route of each event has its one delivery."""
    positions = [row["position"] for row in history.events]
    if positions != list(range(1, len(positions) + 1)):
        verdict.flag("I14", f"positions are not 1 to {len(positions)}")
    head = history.head["position"]
    if head != len(positions):
        verdict.flag("I14", f"the head is at {head} of {len(positions)} events")
    cursors = {row["name"]: row["position"] for row in history.copy.rows("cursor")}
    for name, position in {"dispatch": 0, **cursors}.items():
        if position != head:
            verdict.flag("I14", f"the cursor {name} is at {position}, the head at {head}")
    _subjects_are_whole(history, verdict)
    made = Counter(
        (row["event_id"], row["ods"], row["service"]) for row in history.deliveries.values()
    )
    wanted = {
        (event["id"], route[0], route[1])
        for event in history.events
        for route in json.loads(event["routes"])
    }
    for place in wanted | made.keys():
        event_id, ods, _ = place
        is_known = event_id in history.unreadable and not made[place]
        if event_id in history.event_of and made[place] != (place in wanted) and not is_known:
            message = history.event_of[event_id]["message_id"]
            said = f"event {event_id} has {made[place]} deliveries to {ods}"
            verdict.flag("I14", said, message)


def _subjects_are_whole(history: History, verdict: Verdict) -> None:
    subjects = {row["id"]: row for row in history.copy.rows("subject")}
    of: dict[str, list[Row]] = defaultdict(list)
    for event in history.events:
        of[event["subject_id"]].append(event)
    restored = sorted(history.copy.rows("restoration"), key=lambda row: row["begun_at"])
    for subject, events in of.items():
        row = subjects.get(subject)
        if row is None:
            verdict.flag("I14", f"subject {subject} has events and no row", subject)
            continue
        found = [event["subject_seq"] for event in events]
        if [*found, row["last_seq"]] != _numbers(events, restored):
            said = f"subject {subject} has events {found} of {row['last_seq']}"
            verdict.flag("I14", said, subject)
        if row["dispatched_seq"] != found[-1]:
            verdict.flag("I14", f"subject {subject} has events that were not fanned out", subject)


def _numbers(events: Sequence[Row], restored: Sequence[Row]) -> list[int]:
    """Return how a subject's events must be numbered, and its last number after them: from 1
    without a gap, but that whatever restored a backup raised the number of what was there."""
    numbers: list[int] = []
    number, left = 0, list(restored)
    for position in (*(event["position"] for event in events), None):
        while left and (position is None or position > left[0]["position"]):
            step = left.pop(0)["step"]
            number += step if numbers else 0  # what was not there was not raised
        number += position is not None
        numbers.append(number)
    return numbers
