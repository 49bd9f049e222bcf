"""What senders were answered, against what the broker keeps: I1, I8, I10."""

import json
from collections import Counter, defaultdict

from .history import SENT_BY_PARTIES, History, Op, Row
from .verdict import Verdict


def what_was_answered_is_kept(history: History, verdict: Verdict) -> None:
    """I1: each message of each 2xx is there with the bytes that were posted, and all it needs.

    The one exception is a message that the patient refused: nothing of it is kept but its row.
    """
    for op in history.posts:
        for message in op.messages:
            row = history.messages.get(message)
            if row is None:
                verdict.flag("I1", f"{message} was answered {op.how}: no row", message)
            elif row["sender"] != op.partner:
                verdict.flag("I1", f"{message} stands as sent by {row['sender']}", message)
            elif row["status"] == "withheld":
                if not op.begun.get("refused"):
                    verdict.flag("I1", f"{message} is withheld: nobody refused it", message)
            else:
                _has_what_was_posted(history, verdict, op, row)
    keys = {row["id"] for row in history.copy.rows("message_key")}
    for row in history.messages.values():
        if row["status"] == "withheld":
            continue
        for what, there in (
            ("event", row["event_id"] in history.event_of),
            ("content", (row["event_id"], "content") in history.payloads),
            ("key", row["key_id"] in keys),
        ):
            if not there:
                verdict.flag("I1", f"message {row['id']} has no {what}", row["id"])
    for row in history.deliveries.values():
        sent = history.payloads.get((row["id"], "sent"))
        if sent is None or sent["digest"] != row["digest"]:
            verdict.flag("I1", f"delivery {row['id']} has no bytes of its digest", row["id"])
    _decisions_are_kept(history, verdict)


def _has_what_was_posted(history: History, verdict: Verdict, op: Op, row: Row) -> None:
    """A correction may be answered with versions that an earlier one of its posts made."""
    if not op.digest or history.is_caused(row):
        return
    digest = history.origin(row)
    posted = {op.digest} if op.is_post else {d for who, d in history.by_digest if who == op.partner}
    if digest not in posted:
        found = "other posted bytes" if digest else "no posted bytes"
        verdict.flag("I1", f"{row['id']} was answered {op.how}: it has {found}", row["id"])


def _decisions_are_kept(history: History, verdict: Verdict) -> None:
    moved = {
        (row["subject_id"], facts["move"], facts["by"])
        for row in history.events
        for facts in [json.loads(row["facts"])]
        if "move" in facts
    }
    for op in history.decided:
        said = op.begun
        if op.how != "ok":
            continue
        if "referral" in said:
            made = (said["referral"], said["outcome"], op.partner)
            if made not in moved:
                verdict.flag("I1", f"{made} was answered: no such move", said["delivery"])
            continue
        row = history.decisions.get(said["delivery"])
        decided = (said["outcome"], said["reason"])
        if row is None or (row["outcome"], row["reason"]) != decided:
            verdict.flag("I1", f"{decided} on {said['delivery']} is not kept", said["delivery"])


def keys_are_known_again(history: History, verdict: Verdict) -> None:
    """I8: one key, one answer; one reference, one message; two keys, two messages; one row each."""
    by_key: dict[tuple[str, ...], set[tuple[str, ...]]] = defaultdict(set)
    by_reference: dict[tuple[str, ...], set[tuple[str, ...]]] = defaultdict(set)
    keys_of: dict[str, set[str]] = defaultdict(set)
    for op in history.posts:
        if not op.messages:
            continue
        made = tuple(op.messages)
        by_key[op.partner, op.key].add(made)
        if not op.is_post:
            continue
        if op.begun.get("reference"):
            by_reference[op.partner, op.begun["door"], op.begun["reference"]].add(made)
        for message in made:
            keys_of[message].add(op.key)
    for place, found in (*by_key.items(), *by_reference.items()):
        if len(found) > 1:
            said = f"{' '.join(place)} was answered with {len(found)} different sets of messages"
            verdict.flag("I8", said, *(message for made in found for message in made))
    for message, keys in keys_of.items():
        if len(keys) > 1:
            verdict.flag("I8", f"{message} answers {len(keys)} keys", message)
    owners = Counter(row["owner_id"] for row in _keys(history))
    for op in history.posts:  # a correction is known again by its body, and needs no key
        made = op.messages[:1] if op.is_post else []
        if made and made[0] in history.messages and not owners[made[0]]:
            verdict.flag("I8", f"the key {op.key} of {op.partner} was forgotten", made[0])
    for owner, count in owners.items():
        if count > 1 and owner in keys_of:
            verdict.flag("I8", f"{owner} is remembered under {count} keys", owner)


def nothing_came_from_nowhere(history: History, verdict: Verdict) -> None:
    """I10: each message that a party sent was answered to it, or is one whose answer got lost.

    What was refused for good left nothing; what has an unknown outcome is found by its key.
    """
    remembered = {row["owner_id"] for row in _keys(history)}
    joined: dict[str, set[str]] = defaultdict(set)
    for row in history.messages.values():
        joined[row["correlation_id"]].add(row["id"])
    for row in history.messages.values():
        if row["kind"] not in SENT_BY_PARTIES or history.is_caused(row):
            continue
        if row["status"] == "withheld" or history.origin(row) is None:
            continue  # judged by their number; judged by I1
        if row["id"] in history.answered:
            continue
        posts = history.posts_of(row)
        if not posts:
            verdict.flag("I10", f"{row['sender']} never posted what {row['id']} holds", row["id"])
        elif all(op.how != "unknown" for op in posts):
            said = f"{row['id']} is stored, and its post was answered otherwise"
            verdict.flag("I10", said, row["id"], *(op.key for op in posts))
        elif not joined[row["correlation_id"]] & remembered:
            said = f"{row['id']} has an unknown outcome and is found by no key"
            verdict.flag("I10", said, row["id"], *(op.key for op in posts))
    _withheld_were_refused(history, verdict)


def _withheld_were_refused(history: History, verdict: Verdict) -> None:
    unknown = {
        (op.partner, op.key)
        for op in history.posts
        if op.how == "unknown" and op.begun.get("refused")
    }
    open_ = Counter(partner for partner, _ in unknown)
    found = Counter(
        row["sender"]
        for row in history.messages.values()
        if row["status"] == "withheld" and row["id"] not in history.answered
    )
    for sender, count in found.items():
        if count > open_[sender]:
            verdict.flag("I10", f"{count} withheld messages of {sender} answer none of its posts")


def _keys(history: History) -> list[Row]:
    """Return the rows of the keys that were used up by what succeeded."""
    return [row for row in history.copy.rows("idempotency_key") if row["status"] // 100 == 2]
