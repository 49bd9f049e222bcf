"""What the broker claims, against what receivers wrote down before they said it: I18."""

import json
from collections import defaultdict

from .history import History
from .verdict import Verdict

_BY_RECEIVERS = ("accept", "reject")
_CLAIMS = {"update-filed": "filed", "update-rejected": "rejected"}


def no_status_claims_more_than_was_proved(history: History, verdict: Verdict) -> None:
    """I18: received only by a true receipt that was given; decided only by who decided."""
    _receipts_are_judged_rightly(history, verdict)
    matching = {row["delivery_id"] for row in history.receipts if row["matches"]}
    confirmed = {(e["partner"], e["delivery"]) for e in history.said["confirmed"]}
    for row in history.deliveries.values():
        place = (row["ods"], row["id"])
        if row["received_at"] is None or place not in history.first_stored:
            continue  # what nobody stored is judged by I3
        if place not in confirmed:
            verdict.flag("I18", f"{row['ods']} never confirmed {row['id']}", row["id"])
        if row["id"] not in matching:
            verdict.flag("I18", f"{row['id']} is received without a true receipt", row["id"])
    _decisions_were_made(history, verdict)


def _receipts_are_judged_rightly(history: History, verdict: Verdict) -> None:
    for receipt in history.receipts:
        row = history.deliveries.get(receipt["delivery_id"])
        if row is None:
            verdict.flag("I18", f"receipt {receipt['id']} is for no delivery", receipt["id"])
            continue
        named = (receipt["named_delivery"], receipt["named_digest"], receipt["named_ods"])
        if bool(receipt["matches"]) != (named == (row["id"], row["digest"], row["ods"])):
            verdict.flag("I18", f"receipt {receipt['id']} is judged wrongly", row["id"])


def _decisions_were_made(history: History, verdict: Verdict) -> None:
    made = {(op.partner, op.begun["delivery"], op.begun["outcome"]) for op in history.decided}
    for row in history.decisions.values():
        if (row["organisation"], row["delivery_id"], row["outcome"]) not in made:
            said = f"{row['organisation']} never {row['outcome']} {row['delivery_id']}"
            verdict.flag("I18", said, row["delivery_id"])
    moves = {(op.partner, op.begun.get("referral"), op.begun["outcome"]) for op in history.decided}
    moves |= {
        (op.partner, *parts[1:])
        for op in history.posts
        for parts in [op.begun["door"].rsplit("/", 2)]
        if len(parts) == 3
    }
    for event in history.events:
        facts = json.loads(event["facts"])
        move = (facts.get("by"), event["subject_id"], facts.get("move"))
        if facts.get("move") in _BY_RECEIVERS and move not in moves:
            said = f"{facts['by']} never asked for {facts['move']} of {event['subject_id']}"
            verdict.flag("I18", said, event["subject_id"])
    decided: dict[str, set[str]] = defaultdict(set)
    for _, delivery, outcome in made:
        found = history.deliveries.get(delivery)
        if found is not None:
            decided[found["message_id"]].add(outcome)
    for entry in history.said["received"]:
        claim = _CLAIMS.get(entry.get("topic", ""))
        if claim and claim not in decided[entry.get("about", "")]:
            said = f"{entry['partner']} was told that {entry.get('about')} is {claim}: nobody did"
            verdict.flag("I18", said, entry["delivery"], entry.get("about"))
