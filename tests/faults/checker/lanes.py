"""How often and in which order things came to receivers: I7, I9."""

from collections import Counter

from .history import Entry, History, Lane, Row
from .verdict import Verdict


def one_effect_each(history: History, verdict: Verdict) -> None:
    """I7: each receiver stored each message once, and what the broker called it with was tried."""
    stored = Counter((e["partner"], e["delivery"]) for e in history.said["received"])
    effects: Counter[tuple[str, str]] = Counter()
    for partner, delivery in stored:
        row = history.deliveries.get(delivery)
        if row is not None and row["ods"] == partner and row["message_id"]:
            effects[f"{partner} {row['service']}".strip(), row["message_id"]] += 1
    for entry in history.said["received"]:
        if entry["delivery"] not in history.deliveries:
            effects[entry["partner"], entry["message"]] += 1
    for (partner, what), count in (*stored.items(), *effects.items()):
        if count > 1:
            verdict.flag("I7", f"{partner} stored {what} {count} times", what)
    tried = {row["delivery_id"] for row in history.copy.rows("attempt")}
    for receipt in history.receipts:
        row = history.deliveries.get(receipt["delivery_id"])
        # An inbox is collected; what was attempted after a backup is only said by its receiver.
        is_called = receipt["via"] not in {"inbox", "restore"}
        if row is not None and is_called and row["id"] not in tried:
            verdict.flag("I7", f"{row['id']} has an effect and no attempt", row["id"])


def order_is_kept(history: History, verdict: Verdict) -> None:
    """I9: what is pushed to one receiver about one subject comes in the subject's order, nothing
    overtakes what is not finished, and nothing of a referral comes after its cancellation.

    An inbox shows everything at once: in which order it is collected is the receiver's affair.
    """
    last: dict[Lane, Row] = {}
    cancelled: set[Lane] = set()
    for entry, row in _pushed(history):
        lane = history.lane(row)
        before = last.get(lane)
        if before is not None and before["subject_seq"] > row["subject_seq"]:
            said = f"{row['ods']} got {before['id']} before {row['id']}, which precedes it"
            verdict.flag("I9", said, before["id"], row["id"])
        if lane in cancelled and entry["kind"] == "referral":
            verdict.flag("I9", f"{row['ods']} got {row['id']} after its cancellation", row["id"])
        if entry.get("topic") == "cancelled":
            cancelled.add(lane)
        last[lane] = row
    blocked: dict[Lane, int] = {}
    for row in history.deliveries.values():
        if row["state"] == "dead" or (row["state"] == "due" and row["channel"] == "webhook"):
            lane = history.lane(row)
            blocked[lane] = min(blocked.get(lane, row["subject_seq"]), row["subject_seq"])
    for _, row in _pushed(history):
        first = blocked.get(history.lane(row))
        if first is not None and row["subject_seq"] > first:
            verdict.flag("I9", f"{row['id']} overtook a step that is not finished", row["id"])


def _pushed(history: History) -> list[tuple[Entry, Row]]:
    """Return what the broker brought to receivers, with its delivery, as it was stored."""
    return [
        (entry, row)
        for entry in history.first_stored.values()
        for row in [history.deliveries.get(entry["delivery"])]
        if row is not None and row["channel"] == "webhook" and entry["via"] == "webhook"
    ]
