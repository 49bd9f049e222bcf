"""Nothing ends in silence, and nothing is late unseen: I2, I13."""

import json
import math
from collections import defaultdict
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from .history import SENT_BY_PARTIES, Entry, History, Row
from .verdict import Verdict

_RAISED_WITHIN = timedelta(seconds=60)
_FIRST_ATTEMPT_WITHIN = 5.0
_LONGEST_PAUSE = {"stat": 300.0, "urgent": 300.0}
_URGENT = tuple(_LONGEST_PAUSE)
_LONGEST_PAUSE_OF_OTHERS = 3600.0
_ENDED = ("withdrawn", "replaced", "closed")
_DECIDED = {
    *("accepted", "booked", "in-progress", "completed", "rejected", "cancelled"),
    *("declined-by-patient", "deceased", "did-not-attend", "no-contact", "expired"),
}
# Deadlines of which the sender hears nothing: it was told of this one when it posted.
_UNTOLD = ("telephone",)
_TROUBLE = ("misbehaved", "lied")
# Whoever gave a delivery up wrote it down; one that had died before was on the work-list.
_GAVE_UP = {"delivery.given-up", "delivery.died"}


def everything_has_a_known_end(history: History, verdict: Verdict) -> None:
    """I2: each delivery came to an end or is somebody's work, and each message was decided on, is
    watched by a deadline or is somebody's work."""
    trouble = {e.get("delivery") for what in _TROUBLE for e in history.said[what]}
    blocked = {
        history.lane(row) for row in history.deliveries.values() if row["state"] in {"dead", "due"}
    }
    given_up = {row["object_id"] for row in history.audit if row["action"] in _GAVE_UP}
    overtaken = _overtaken(history)
    for row in history.deliveries.values():
        where = f"delivery {row['id']} to {row['ods']} ({row['kind']})"
        state, held = row["state"], row["held_reason"]
        is_listed = row["id"] in history.open_items
        if state == "dead" and not is_listed:
            verdict.flag("I2", f"{where} is dead and nobody's work", row["id"])
        elif row["code"] == "receipt-mismatch" and not row["received_at"] and not is_listed:
            verdict.flag("I2", f"{where} has a false receipt and is nobody's work", row["id"])
        elif state == "done" and row["done_reason"] == "receipt" and not row["received_at"]:
            verdict.flag("I2", f"{where} is done by a receipt that has no time", row["id"])
        elif row["done_reason"] == "given-up" and row["id"] not in given_up:
            verdict.flag("I2", f"{where} was given up by nobody", row["id"])
        elif row["done_reason"] == "superseded" and not (
            row["subject_seq"] < overtaken.get(row["subject_id"], 0)
            or history.messages[row["message_id"]]["status"] in _ENDED
        ):
            verdict.flag("I2", f"{where} was superseded by nothing", row["id"])
        elif row["ods"] in history.down or row["id"] in trouble:
            continue
        elif state == "due" or (state == "held" and held == "receipt"):
            verdict.flag("I2", f"{where} is still {state} {held or ''}".rstrip(), row["id"])
        elif held == "predecessor" and history.lane(row) not in blocked:
            verdict.flag("I2", f"{where} waits for nothing", row["id"])
    _every_message_is_watched(history, verdict)


def _overtaken(history: History) -> dict[str, int]:
    """Return for each subject the last of its events that says all that was not sent before."""
    return {
        event["subject_id"]: event["subject_seq"]
        for event in history.events
        if json.loads(event["facts"]).get("supersedes") == "unsent"
    }


def _every_message_is_watched(history: History, verdict: Verdict) -> None:
    watched = {row["message_id"] for row in history.deadlines if row["cleared_at"] is None}
    decided = {row["message_id"] for row in history.decisions.values()}
    states = {row["subject_id"]: row["state"] for row in history.copy.rows("referral")}
    given_up = {
        row["message_id"]
        for row in history.deliveries.values()
        if row["role"] == "acting" and row["done_reason"] in {"given-up", "superseded"}
    }
    somebodys = watched | history.open_items | given_up
    for row in history.messages.values():
        if row["kind"] not in SENT_BY_PARTIES or row["status"] in {"withheld", *_ENDED}:
            continue
        if history.is_caused(row):  # a withdrawal asks nothing of anybody but to be stored
            continue
        is_decided = (
            states.get(row["subject_id"]) in _DECIDED
            if row["kind"] == "referral"
            else row["id"] in decided
        )
        if not is_decided and row["id"] not in somebodys:
            said = f"{row['kind']} {row['id']} waits for nobody and nothing watches it"
            verdict.flag("I2", said, row["id"])


def nothing_is_late_in_silence(history: History, verdict: Verdict) -> None:
    """I13: what passed its deadline is on the work-list within a minute and its sender was told;
    what is urgent is tried at once and again soon, while nothing is broken."""
    _what_is_overdue_is_raised(history, verdict)
    if not any(history.said[what] for what in ("schedule", "fault", "healed")):
        verdict.narrow("I13", "deadlines only: no schedule of faults")
        return
    faults = _faults(history)
    urgent: dict[str, list[Row]] = defaultdict(list)
    for row in history.deliveries.values():
        if row["priority"] in _URGENT and row["channel"] != "inbox":
            urgent[row["message_id"]].append(row)
    first_call: dict[str, float] = {}
    for entry in history.entries:
        if entry["what"] in ("received", *_TROUBLE) and "delivery" in entry:
            first_call.setdefault(entry["delivery"], entry["mono"])
    for message, accepted in _first_answered(history).items():
        if _is_healthy(faults, "mono", accepted, accepted + _FIRST_ATTEMPT_WITHIN):
            for row in urgent[message]:
                late = first_call.get(row["id"], math.inf) - accepted
                if row["ods"] not in history.down and late > _FIRST_ATTEMPT_WITHIN:
                    said = f"{row['id']} is urgent and was first tried after {late:.1f} s"
                    verdict.flag("I13", said, row["id"], row["message_id"])
    _pauses_are_short(history, verdict, faults)


def _first_answered(history: History) -> dict[str, float]:
    """Return when each message's sender first knew that it was taken: a repeat promises nothing."""
    first: dict[str, float] = {}
    for op in history.posts:
        for message in op.messages:
            at = op.ended["mono"]
            first[message] = min(at, first.get(message, at))
    return first


def _what_is_overdue_is_raised(history: History, verdict: Verdict) -> None:
    listed = {(row["code"], row["object_id"]) for row in history.items}
    told: dict[str, int] = defaultdict(int)
    told_of_failure: set[str] = set()
    for event in history.events:
        facts = json.loads(event["facts"])
        if facts.get("topic") == "deadline-passed":
            told[event["causation_id"]] += 1
        elif facts.get("topic") == "delivery-failed":
            told_of_failure.add(facts["about"])
    for row in history.deadlines:
        message = history.messages.get(row["message_id"])
        if message is None:
            continue
        since = max(_time(row["due_at"]), _time(message["accepted_at"]))
        where = f"{row['kind']} of {row['message_id']}"
        if row["raised_at"] is None:
            if row["cleared_at"] is None and since + _RAISED_WITHIN < history.last_word:
                verdict.flag("I13", f"{where} passed and nobody was told", message["id"])
            continue
        is_listed = (f"{row['kind']}-overdue", row["id"]) in listed
        is_untold = message["kind"] == "notice" or row["kind"] in _UNTOLD
        if not is_listed and message["id"] in history.given_up:
            if not is_untold and message["id"] not in told_of_failure:
                verdict.flag("I13", f"{where} was given up, and its sender not told", message["id"])
            continue
        if not is_listed:
            verdict.flag("I13", f"{where} was raised and is on no list", message["id"])
        wanted = 0 if is_untold or ("not-composed", row["id"]) in listed else 1
        if told[row["id"]] != wanted:
            said = f"{where} was raised, and its sender was told {told[row['id']]} times"
            verdict.flag("I13", said, message["id"])


def _faults(history: History) -> list[tuple[Entry, Entry | None]]:
    """Return what was broken and how it healed, by the word of whoever broke it."""
    found: list[tuple[Entry, Entry | None]] = []
    for fault in history.said["fault"]:
        healed = (
            entry
            for entry in history.said["healed"]
            if entry["fault"] == fault["fault"] and entry["mono"] >= fault["mono"]
        )
        found.append((fault, next(healed, None)))
    return found


def _is_healthy(faults: list[tuple[Entry, Entry | None]], clock: str, begin: Any, end: Any) -> bool:
    """Whether nothing was broken in between, by one of the two times of an entry."""
    return not any(
        fault[clock] <= end and (healed is None or begin <= healed[clock])
        for fault, healed in faults
    )


def _pauses_are_short(
    history: History, verdict: Verdict, faults: list[tuple[Entry, Entry | None]]
) -> None:
    tries: dict[str, list[Row]] = defaultdict(list)
    for row in history.copy.rows("attempt", "number"):
        tries[row["delivery_id"]].append(row)
    for delivery_id, rows in tries.items():
        delivery = history.deliveries.get(delivery_id)
        priority = "" if delivery is None else delivery["priority"]
        longest = _LONGEST_PAUSE.get(priority, _LONGEST_PAUSE_OF_OTHERS)
        for one, next_ in pairwise(rows):
            begin, end = one["ended_at"], next_["started_at"]
            pause = (_time(end) - _time(begin)).total_seconds()
            if pause > longest and _is_healthy(faults, "at", begin, end):
                said = f"{delivery_id} was left alone for {pause:.0f} s"
                verdict.flag("I13", said, delivery_id)


def _time(said: str) -> datetime:
    return datetime.fromisoformat(said)
