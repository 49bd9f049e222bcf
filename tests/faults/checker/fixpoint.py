"""Replayed from the beginning and started again, nothing changes: I20."""

from .history import Copy, History, Row
from .verdict import Verdict

# By what a row is known again. What tells of processes and calls (leases, tokens, breakers,
# cursors) may change; of the audit the earlier entries stand, and later ones may follow.
_KEYS = {
    "subject": ("id",),
    "message": ("id",),
    "event": ("position",),
    "payload": ("owner_id", "role", "version"),
    "message_key": ("id",),
    "referral": ("subject_id",),
    "delivery": ("id",),
    "attempt": ("delivery_id", "number"),
    "receipt": ("id",),
    "decision": ("delivery_id",),
    "deadline": ("id",),
    "telephone_call": ("id",),
    "work_item": ("id",),
    "idempotency_key": ("organisation", "family", "key_hmac"),
    "resource_index": ("id", "version"),
    "resource_viewer": ("organisation", "resource_id"),
    "resource_identifier": ("identifier_hmac", "resource_id"),
}


def nothing_changes_by_a_replay(history: History, verdict: Verdict) -> None:
    """I20: the copy from before and the copy from after say the same, and so do receivers."""
    before = history.before
    if before is None:
        verdict.skip("I20", "one copy")
        return
    for table in _KEYS:
        _compare(verdict, table, before, history.copy)
    links = {row["seq"]: row["hash"] for row in history.audit}
    for row in before.rows("audit"):
        if links.get(row["seq"]) != row["hash"]:
            verdict.flag("I20", f"audit entry {row['seq']} is another after the replay")
            break
    known = {row["id"] for row in before.rows("delivery") if row["received_at"]}
    for (partner, delivery), entry in history.first_stored.items():
        if delivery in history.deliveries and delivery not in known:
            said = f"{partner} stored {entry['delivery']} only after the replay"
            verdict.flag("I20", said, delivery)


def _compare(verdict: Verdict, table: str, before: Copy, after: Copy) -> None:
    was, now = _keyed(table, before), _keyed(table, after)
    for key in sorted(was.keys() | now.keys(), key=str):
        name = " ".join(str(part) for part in key)
        ids = [str(part) for part in key]
        if key not in now:
            verdict.flag("I20", f"{table} {name} is gone after the replay", *ids)
        elif key not in was:
            verdict.flag("I20", f"{table} {name} is new after the replay", *ids)
        elif tuple(was[key]) != tuple(now[key]):
            columns = [c for c in was[key].keys() if was[key][c] != now[key][c]]  # noqa: SIM118
            said = f"{table} {name} has another {', '.join(columns)} after the replay"
            verdict.flag("I20", said, *ids)


def _keyed(table: str, copy: Copy) -> dict[tuple[object, ...], Row]:
    return {tuple(row[part] for part in _KEYS[table]): row for row in copy.rows(table)}
