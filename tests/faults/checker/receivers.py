"""What receivers hold, against what was sent, to whom, and about whom: I3 to I6, I19."""

from collections import defaultdict

from .history import SENT_BY_PARTIES, Entry, History, Op, Row
from .verdict import Verdict


def _stored(history: History) -> list[tuple[Entry, Row]]:
    """Return what receivers stored or were given again, with its delivery where there is one."""
    return [
        (entry, row)
        for what in ("received", "received-again")
        for entry in history.said[what]
        for row in [history.deliveries.get(entry["delivery"])]
        if row is not None
    ]


def receivers_hold_what_was_sent(history: History, verdict: Verdict) -> None:
    """I3: received means that the receiver holds these bytes, and all it holds was sent."""
    for what in ("received", "received-again"):
        for entry in history.said[what]:
            if entry["delivery"] not in history.deliveries:
                said = f"{entry['partner']} holds {entry['delivery']}, which was never made"
                verdict.flag("I3", said, entry["delivery"])
    for entry, row in _stored(history):
        where = f"{entry['partner']} holds {row['id']}"
        if entry["digest"] != row["digest"]:
            verdict.flag("I3", f"{where} with other bytes", row["id"])
        if (entry["kind"], entry["message"]) != (row["kind"], row["message_id"]):
            verdict.flag("I3", f"{where}, which says it is another message", row["id"])
        elif entry["message"] not in history.messages and entry["message"] not in history.answered:
            verdict.flag("I3", f"{where} of no message", row["id"])
    for row in history.deliveries.values():
        if row["received_at"] and (row["ods"], row["id"]) not in history.first_stored:
            verdict.flag("I3", f"{row['ods']} never stored {row['id']}", row["id"])


def everything_is_where_it_belongs(history: History, verdict: Verdict) -> None:
    """I4: who holds something was its destination when it was accepted, by the broker's record
    and by the sender's own."""
    for entry, row in _stored(history):
        partner = entry["partner"]
        if row["ods"] != partner:
            said = f"{partner} holds {row['id']}, which is for {row['ods']}"
            verdict.flag("I4", said, row["id"])
            continue
        if partner not in {route[0] for route in history.routes(row["event_id"])}:
            verdict.flag("I4", f"{row['id']} was never routed to {partner}", row["id"])
        message = history.messages.get(row["message_id"])
        if message is None or message["kind"] not in SENT_BY_PARTIES:
            continue
        named = [op.begun["to"] for op in history.posts_of(message) if "to" in op.begun]
        if named and not any(partner in to for to in named):
            said = f"{partner} holds {row['id']}, which its sender sent to {named[0]}"
            verdict.flag("I4", said, row["id"], message["id"])


def patients_are_theirs(history: History, verdict: Verdict) -> None:
    """I5: the patient that a receiver reads is the one that the sender wrote."""
    if not any(op.begun.get("patient") for op in history.posts):
        verdict.narrow("I5", "no sender wrote down its patients")
    for entry, row in _stored(history):
        message = history.messages.get(row["message_id"])
        if message is None or message["kind"] not in SENT_BY_PARTIES:
            continue
        wanted = _patients(history, message)
        if wanted and entry.get("patient") not in {None, *wanted}:
            said = f"{entry['partner']} holds {row['id']} of another patient"
            verdict.flag("I5", said, row["id"], message["id"])


def nobody_holds_what_is_not_for_them(history: History, verdict: Verdict) -> None:
    """I6: each nonce that a receiver holds stands in a post that was for it, and in no other's
    message."""
    posts: dict[str, list[Op]] = defaultdict(list)
    for op in history.posts:
        for nonce in op.begun.get("nonces", ()):
            posts[nonce].append(op)
    if not posts:
        verdict.narrow("I6", "no post carried a nonce")
    conversations: dict[str, set[str]] = defaultdict(set)
    addressed: dict[str, set[str]] = defaultdict(set)
    for message in history.messages.values():
        for op in history.posts_of(message):
            for nonce in op.begun.get("nonces", ()):
                conversations[nonce].add(message["correlation_id"])
    for row in history.deliveries.values():
        message = history.messages.get(row["message_id"])
        if message is not None:
            addressed[message["correlation_id"]].add(row["ods"])
    for what in ("received", "received-again"):
        for entry in history.said[what]:
            partner = entry["partner"]
            message = history.messages.get(entry.get("message", ""))
            for nonce in entry.get("nonces", ()):
                found = conversations[nonce]
                to = {ods for op in posts[nonce] for ods in op.begun.get("to", ())}
                if not posts[nonce]:
                    why = "nobody sent"
                elif partner not in to.union(*(addressed[one] for one in found)):
                    why = "is of a message for others"
                elif message is not None and found and message["correlation_id"] not in found:
                    why = "is of another message"
                else:
                    continue
                said = f"{partner} holds {nonce} in {entry['delivery']}, which {why}"
                verdict.flag("I6", said, entry["delivery"])


def the_loop_closes_on_the_same_patient(history: History, verdict: Verdict) -> None:
    """I19: what comes back about a message is of its patient and its referral, and comes to a
    party of it; a decision is on the referral that was delivered."""
    parties: dict[str, set[str]] = defaultdict(set)
    for row in history.deliveries.values():
        parties[row["subject_id"]].add(row["ods"])
    for row in history.messages.values():
        parties[row["subject_id"]] |= {row["sender"], row["practice"]}
    for entry, row in _stored(history):
        if entry["kind"] != "notice" or row["ods"] != entry["partner"]:
            continue
        where = f"{entry['partner']} was told in {row['id']}"
        about = history.messages.get(entry.get("about", ""))
        if about is None:
            verdict.flag("I19", f"{where} of a message that is not there", row["id"])
            continue
        wanted = _patients(history, about)
        if wanted and entry.get("patient") not in {None, *wanted}:
            said = f"{where} of {about['id']}, with another patient"
            verdict.flag("I19", said, row["id"], about["id"])
        elif about["subject_id"] != row["subject_id"]:
            said = f"{where} of {about['id']}, which is another referral"
            verdict.flag("I19", said, row["id"], about["id"])
        elif entry["partner"] not in parties[about["subject_id"]]:
            said = f"{where} of {about['id']}, in which it has no part"
            verdict.flag("I19", said, row["id"], about["id"])
    for op in history.decided:
        found = history.deliveries.get(op.begun["delivery"])
        referral = op.begun.get("referral")
        if op.how == "ok" and referral and found and found["subject_id"] != referral:
            said = f"{op.partner} decided on {referral} where {found['id']} is of another"
            verdict.flag("I19", said, found["id"], referral)


def _patients(history: History, message: Row) -> set[str]:
    """Return who the patient is by the word of whoever sent the message."""
    return {op.begun["patient"] for op in history.posts_of(message) if op.begun.get("patient")}
