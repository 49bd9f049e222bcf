"""Bad histories, each with the invariants that it breaks; and odd ones that break none."""

from collections.abc import Callable
from uuid import uuid4

from tests.faults.histories import Tampered

Tamper = Callable[[Tampered], object]

NOBODYS = "11111111-1111-5111-8111-111111111111"
NOBODYS_NONCE = f"nonce-{'0' * 32}"


_RESTORED = """
INSERT INTO restoration (id, position, step, begun_at)
SELECT '0190f1a2-0000-7000-8000-000000000000', position, 7, '2026-11-22T00:00:00.000000Z'
FROM ledger_head
"""

_ENDED = """
UPDATE delivery SET done_reason = '{}', received_at = NULL WHERE id = :delivery
"""


def _sql(*statements: str, was: bool = False) -> Tamper:
    return lambda run: run.sql(*statements, was=was)


def _stored(run: Tampered, kind: str = "delivery") -> dict[str, object]:
    """Return what its receiver wrote down of one delivery."""
    return run.entries("received", delivery=run.one(kind))[0]


def _alter_stored(which: str, /, **changes: object) -> Tamper:
    return lambda run: run.alter("received", changes, delivery=run.one(which))


def _store_once_more(**changes: object) -> Tamper:
    return lambda run: run.add(_stored(run), **changes)


def _drop(*words: str, kind: str = "delivery", **facts: object) -> Tamper:
    def drop(run: Tampered) -> None:
        for what in words:
            run.drop(what, delivery=run.one(kind), **facts)

    return drop


def _both(*tampers: Tamper) -> Tamper:
    def all_of_them(run: Tampered) -> None:
        for tamper in tampers:
            tamper(run)

    return all_of_them


# -- what is more than a statement -----------------------------------------------------------------


def _under_one_key(run: Tampered) -> None:
    door = run.entries("ok", key="asked-twice")[0]["door"]
    posts = run.entries("ok", door=door, partner="FPH01")
    other = next(e for e in posts if e["key"] != "asked-twice" and "refused" not in e)
    run.alter("invoke", {"key": "asked-twice"}, op=other["op"])
    run.alter("ok", {"key": "asked-twice"}, op=other["op"])


def _under_two_keys(run: Tampered) -> None:
    again = run.entries("ok", key="asked-twice")[1]
    run.alter("invoke", {"key": "another"}, op=again["op"])
    run.alter("ok", {"key": "another"}, op=again["op"])


def _swapped(run: Tampered) -> None:
    """The practice that is called stores the last step of a lane before its first."""
    first, last = (run.entries("received", delivery=one) for one in _steps(run))
    run.alter("received", {"mono": last[0]["mono"]}, delivery=first[0]["delivery"])
    run.alter("received", {"mono": first[0]["mono"]}, delivery=last[0]["delivery"])


def _steps(run: Tampered) -> tuple[str, str]:
    """Return two notices that were pushed to one place about one referral, one after the other."""
    about = _stored(run, "moved")["about"]
    found = run.entries("received", partner="G99002", kind="notice", about=about)
    return found[0]["delivery"], found[-1]["delivery"]


def _after_its_cancellation(run: Tampered) -> None:
    first, last = _steps(run)
    run.alter("received", {"topic": "cancelled"}, delivery=first)
    run.alter("received", {"kind": "referral"}, delivery=last)
    run.sql(f"UPDATE delivery SET kind = 'referral' WHERE id = '{last}'")  # noqa: S608


def _overtaken(run: Tampered) -> None:
    first, _ = _steps(run)
    run.drop("received", delivery=first)
    run.sql(
        f"UPDATE delivery SET state = 'due', received_at = NULL WHERE id = '{first}'"  # noqa: S608
    )


def _another_nonce(run: Tampered) -> None:
    elsewhere = run.entries("received", partner="G99001", kind="update")[0]
    run.alter("received", {"nonces": elsewhere["nonces"]}, delivery=run.one("delivery"))


def _never_posted(run: Tampered) -> None:
    digest = _taken(run)
    run.drop("invoke", digest=digest)
    run.drop("unknown", digest=digest)


def _taken(run: Tampered) -> str:
    """Return the digest of the post that was taken and whose answer got lost."""
    return str(run.entries("unknown", does="post")[0]["digest"])


def _rechained(*statements: str) -> Tamper:
    """Alter the audit, and chain it anew; no head was ever published."""

    def alter(run: Tampered) -> None:
        run.sql(*statements)
        run.rechain()
        run.drop("head")

    return alter


def _late(run: Tampered) -> None:
    """Long after it was answered, and long before anything is broken."""
    mono = float(str(_stored(run, "urgent")["mono"])) + 30
    run.alter("received", {"mono": mono}, delivery=run.one("urgent"))
    run.alter("fault", {"mono": mono + 30})
    run.alter("healed", {"mono": mono + 60})


def _late_and_repeated(run: Tampered) -> None:
    """Accepted while something was broken, repeated when it was mended, tried long after both."""
    _late(run)
    message = _stored(run, "urgent")["message"]
    first = next(e for e in run.entries("ok") if message in e.get("messages", ()))
    mono = float(str(first["mono"]))
    run.alter("fault", {"mono": mono - 1})
    run.alter("healed", {"mono": mono + 1})
    run.add_op("ok", {**first, "mono": mono + 2}, key=first["key"])


def _unwatched(run: Tampered) -> None:
    run.drop("fault")
    run.drop("healed")
    run.sql(
        "INSERT INTO attempt SELECT delivery_id, 2, '2999-01-01T00:00:00.000000Z', "
        "'2999-01-01T00:00:01.000000Z', outcome, code, http_status FROM attempt "
        "WHERE delivery_id = :delivery"
    )


def _another_subject(run: Tampered) -> None:
    about = _stored(run, "moved")["about"]
    other = next(
        e["message"]
        for e in run.entries("received", partner="RXX01") + run.entries("received", kind="update")
        if e["message"] != about
    )
    run.alter("received", {"about": other, "patient": None}, delivery=run.one("moved"))


BAD: dict[str, tuple[str, Tamper]] = {
    # I1
    "an accepted message is gone": ("I1 I19", _sql("DELETE FROM message WHERE id = :update")),
    "what was posted is gone": (
        "I1",
        _sql("DELETE FROM payload WHERE role = 'in' AND owner_id = :update"),
    ),
    "other bytes are kept than were posted": (
        "I1",
        _sql("UPDATE payload SET digest = 'x' WHERE role = 'in' AND owner_id = :update"),
    ),
    "what was sent is gone": ("I1", _sql("DELETE FROM payload WHERE owner_id = :delivery")),
    "the key of a message is gone": ("I1", _sql("DELETE FROM message_key WHERE id = :update")),
    "a message stands as another's": (
        "I1",
        _sql("UPDATE message SET sender = 'TPX01' WHERE id = :update"),
    ),
    "a message is withheld that nobody refused": (
        "I1",
        _both(
            lambda run: run.alter("invoke", {"refused": False}, refused=True),
            lambda run: run.alter("ok", {"refused": False}, refused=True),
        ),
    ),
    "a decision was lost": ("I1", _sql("DELETE FROM decision WHERE delivery_id = :copy")),
    "another decision is kept than was made": (
        "I1",
        lambda run: run.add_op("ok", run.entries("ok", outcome="accept")[0], outcome="reject"),
    ),
    # I2
    "a delivery still waits": (
        "I2",
        _sql(
            "UPDATE delivery SET state = 'held', held_reason = 'receipt', received_at = NULL "
            "WHERE id = :delivery"
        ),
    ),
    "a delivery waits for nothing": (
        "I2",
        _sql(
            "UPDATE delivery SET state = 'held', held_reason = 'predecessor', received_at = NULL "
            "WHERE id = :delivery"
        ),
    ),
    "a delivery died and nobody knows": (
        "I2 I11",
        _sql("UPDATE delivery SET state = 'dead', code = 'x' WHERE id = :delivery"),
    ),
    "a false receipt is nobody's work": (
        "I2",
        _sql(
            "UPDATE delivery SET state = 'held', held_reason = 'receipt', received_at = NULL, "
            "code = 'receipt-mismatch' WHERE id = :delivery"
        ),
    ),
    "a delivery was given up by nobody": ("I2", _sql(_ENDED.format("given-up"))),
    "a delivery was superseded by nothing": ("I2", _sql(_ENDED.format("superseded"))),
    "an update is undecided and nothing watches it": (
        "I1 I2",
        _sql("DELETE FROM decision WHERE delivery_id = :delivery"),
    ),
    # I3
    "received is shown, but nobody stored it": ("I3", _drop("received")),
    "other bytes arrived": ("I3", _alter_stored("delivery", digest="0" * 64)),
    "a receiver holds what was never made": (
        "I3",
        _store_once_more(delivery=NOBODYS, message=NOBODYS, nonces=[]),
    ),
    "what arrived says that it is something else": (
        "I3",
        _alter_stored("delivery", kind="referral"),
    ),
    # I4
    "a message is also stored somewhere else": (
        "I4",
        _store_once_more(partner="RXX01", nonces=[]),
    ),
    "a message went where its sender did not send it": (
        "I4",
        lambda run: run.alter("invoke", {"to": ["G99001"]}, key="asked-twice"),
    ),
    "a delivery was made for no route": (
        "I4 I14",
        _sql("UPDATE event SET routes = '[]' WHERE message_id = :update"),
    ),
    # I5
    "a receiver reads another patient": ("I5", _alter_stored("delivery", patient="0" * 64)),
    # I6
    "a receiver holds a text that nobody sent": (
        "I6",
        _alter_stored("delivery", nonces=[NOBODYS_NONCE]),
    ),
    "a receiver holds a text of another message": ("I6", _another_nonce),
    "a third party holds a message with its text": ("I4 I6", _store_once_more(partner="RXX01")),
    # I7
    "a delivery was stored twice": ("I7", _store_once_more()),
    "a message came twice as two deliveries": ("I3 I7", _store_once_more(delivery=NOBODYS)),
    "there is an effect without an attempt": (
        "I7",
        _sql("DELETE FROM attempt WHERE delivery_id = :delivery"),
    ),
    # I8
    "one key was answered with two messages": ("I8", _under_one_key),
    "two keys were answered with one message": ("I8", _under_two_keys),
    "a key was forgotten": ("I8", _sql("DELETE FROM idempotency_key WHERE owner_id = :update")),
    "a message is remembered under two keys": (
        "I8",
        _sql(
            "INSERT INTO idempotency_key SELECT organisation, family, 'x', body_hmac, owner_id, "
            "status, created_at FROM idempotency_key WHERE owner_id = :update"
        ),
    ),
    # I9
    "steps of a lane came in the wrong order": ("I9", _swapped),
    "a referral came after its cancellation": ("I9", _after_its_cancellation),
    "a step overtook one that is not finished": ("I2 I9", _overtaken),
    # I10
    "a post was refused and is stored": (
        "I10",
        lambda run: run.alter("unknown", {"what": "fail", "status": 400}, digest=_taken(run)),
    ),
    "a post was answered with nothing and is stored": (
        "I10",
        lambda run: run.alter("ok", {"messages": []}, key="asked-twice"),
    ),
    "a message is stored that nobody posted": ("I6 I10", _never_posted),
    "an unknown outcome is found by no key": (
        "I10",
        _sql("DELETE FROM idempotency_key WHERE owner_id = :unknown"),
    ),
    "a message is withheld that nobody posted": (
        "I10",
        _both(
            lambda run: run.drop("ok", refused=True), lambda run: run.drop("invoke", refused=True)
        ),
    ),
    # I11
    "a decision was never audited": (
        "I11",
        _rechained("DELETE FROM audit WHERE action = 'update.decided' AND object_id = :delivery"),
    ),
    "an acceptance was audited twice": (
        "I11",
        _rechained(
            "INSERT INTO audit SELECT 1000, time, actor, organisation, action, object_kind, "
            "object_id, facts, hash FROM audit "
            "WHERE action = 'message.accepted' AND object_id = :update"
        ),
    ),
    "a receipt was audited in another transaction": (
        "I11",
        _sql(
            "UPDATE delivery SET received_at = '2026-01-01T00:00:00.000000Z' WHERE id = :delivery"
        ),
    ),
    "a referral stands where no move led it": (
        "I11",
        _sql("UPDATE referral SET state = 'rejected' WHERE subject_id = :referral"),
    ),
    "a move was made that the machine does not know": (
        "I11",
        _rechained(
            'UPDATE event SET facts = replace(facts, \'"from":"accepted"\', '
            '\'"from":"received"\') WHERE subject_id = :referral AND facts LIKE \'%"complete"%\'',
            'UPDATE audit SET facts = replace(facts, \'"from":"accepted"\', '
            '\'"from":"received"\') WHERE object_id = :referral AND facts LIKE \'%"complete"%\'',
        ),
    ),
    # I12
    "an audit entry was altered": (
        "I12",
        _sql("UPDATE audit SET organisation = 'X' WHERE seq = 4"),
    ),
    "an audit entry is missing": ("I12", _sql("DELETE FROM audit WHERE seq = 1")),
    "the head names another entry": ("I12", _sql("UPDATE ledger_head SET audit_hash = 'x'")),
    "the whole chain was written anew": (
        "I12",
        _both(_sql("UPDATE audit SET organisation = 'X' WHERE seq = 4"), lambda run: run.rechain()),
    ),
    "the chain is shorter than the head that was published": (
        "I12",
        _both(lambda run: run.alter("head", {"audit_seq": 10_000})),
    ),
    # I13
    "a deadline passed and nobody was told": (
        "I13",
        _sql(
            "UPDATE deadline SET raised_at = NULL, cleared_at = NULL, "
            "due_at = '2026-01-01T00:00:00.000000Z' WHERE id = :overdue",
            "UPDATE message SET accepted_at = '2026-01-01T00:00:00.000000Z' WHERE id = "
            "(SELECT message_id FROM deadline WHERE id = :overdue)",
        ),
    ),
    "a deadline was raised and is on no list": (
        "I13",
        _sql("DELETE FROM work_item WHERE object_id = :overdue"),
    ),
    "a deadline was raised and the sender not told": (
        "I13",
        _sql(
            "UPDATE event SET facts = replace(facts, 'deadline-passed', 'x') "
            "WHERE causation_id = :overdue"
        ),
    ),
    "what is urgent was first tried late": ("I13", _late),
    "a delivery was left alone for too long": ("I13", _unwatched),
    # I14
    "the ledger has a gap": (
        "I14",
        _sql("DELETE FROM event WHERE message_id IS NULL AND facts NOT LIKE '%\"move\"%'"),
    ),
    "a subject's events have a gap": (
        "I14",
        _sql(
            "UPDATE event SET subject_seq = 99 WHERE position = (SELECT max(position) FROM event)"
        ),
    ),
    "a subject's number was raised, and no backup was restored": (
        "I14",
        _sql("UPDATE subject SET last_seq = last_seq + 7"),
    ),
    "a backup was restored, and no subject's number was raised": ("I14", _sql(_RESTORED)),
    "the head lags behind": ("I14", _sql("UPDATE ledger_head SET position = position - 1")),
    "a cursor lags behind": ("I14", _sql("UPDATE cursor SET position = position - 1")),
    "the relay never published the end": (
        "I14",
        _sql("INSERT INTO cursor (name, position) VALUES ('relay', 3)"),
    ),
    "an event was never fanned out": (
        "I14",
        _sql("UPDATE subject SET dispatched_seq = 0 WHERE id = :referral"),
    ),
    "a message has no delivery": (
        "I14",
        _both(
            _drop("received", "confirmed", kind="filed"),
            _sql(
                "DELETE FROM receipt WHERE delivery_id = :filed",
                "DELETE FROM delivery WHERE id = :filed",
            ),
        ),
    ),
    # I18
    "a receipt was never given": ("I18", _drop("confirmed")),
    "received is shown without a receipt": (
        "I18",
        _sql("DELETE FROM receipt WHERE delivery_id = :delivery"),
    ),
    "a receipt that lies counts as true": (
        "I18",
        _sql("UPDATE receipt SET named_ods = 'ZZZ99' WHERE delivery_id = :delivery"),
    ),
    "a decision is shown that nobody made": (
        "I18",
        _both(_drop("invoke", "ok", kind="copy", does="decide")),
    ),
    "a move is shown that nobody asked for": (
        "I18",
        _both(
            lambda run: run.drop("invoke", outcome="accept", partner="G99002"),
            lambda run: run.drop("ok", outcome="accept", partner="G99002"),
        ),
    ),
    "a sender was told of a decision that nobody made": (
        "I18",
        _alter_stored("moved", topic="update-rejected"),
    ),
    # I19
    "a sender was told of another patient": ("I19", _alter_stored("moved", patient="0" * 64)),
    "a sender was told of another referral": ("I19", _another_subject),
    "a sender was told of nothing": ("I19", _alter_stored("moved", about=NOBODYS)),
    # I20
    "a delivery was tried again by the replay": (
        "I20",
        _sql("UPDATE delivery SET attempt = attempt - 1 WHERE id = :delivery", was=True),
    ),
    "an event was recorded again by the replay": (
        "I20",
        _sql("DELETE FROM event WHERE position = (SELECT max(position) FROM event)", was=True),
    ),
    "a message is gone after the replay": (
        "I20",
        _sql(
            f"INSERT INTO message_key SELECT '{NOBODYS}', kek_id, wrapped "  # noqa: S608
            "FROM message_key LIMIT 1",
            was=True,
        ),
    ),
    "a receiver stored something only after the replay": (
        "I20",
        _sql("UPDATE delivery SET received_at = NULL WHERE id = :delivery", was=True),
    ),
    "the audit was written anew by the replay": (
        "I20",
        _sql("UPDATE audit SET hash = 'x' WHERE seq = 4", was=True),
    ),
}


def _tried_twice(run: Tampered) -> None:
    run.add(_stored(run), what="received-again", mono=float(str(_stored(run)["mono"])) + 1)
    run.sql(
        "INSERT INTO attempt SELECT delivery_id, 2, ended_at, ended_at, outcome, code, "
        "http_status FROM attempt WHERE delivery_id = :delivery"
    )


def _went_wrong(run: Tampered) -> None:
    run.rewrite(
        lambda e: [{**e, "what": "misbehaved"}] if e.get("delivery") == run.one("filed") else None
    )
    run.sql(
        "UPDATE delivery SET state = 'held', held_reason = 'receipt', received_at = NULL "
        "WHERE id = :filed"
    )


ALLOWED: dict[str, Tamper] = {
    "a post of unknown outcome did not happen": lambda run: run.add_op(
        "unknown", run.entries("ok", key="asked-twice")[0], digest=uuid4().hex, reference="R-1"
    ),
    "a post of unknown outcome did happen": lambda run: run.alter(
        "ok", {"what": "unknown", "messages": []}, key="asked-twice"
    ),
    "a client ended before it was answered": lambda run: run.drop("ok", key="asked-twice"),
    "a post was refused and left nothing": lambda run: run.add_op(
        "fail", run.entries("ok", key="asked-twice")[0], digest=uuid4().hex, reference="R-1"
    ),
    "a post was repeated and answered the same": lambda run: run.add_op(
        "ok", run.entries("ok", key="asked-twice")[0], key="asked-twice"
    ),
    "a refused message has an unknown outcome": lambda run: run.drop("ok", refused=True),
    "a delivery was tried twice with one effect": _tried_twice,
    "a receiver says that it did not take something": _went_wrong,
    "an inbox was collected in another order": lambda run: run.alter(
        "received", {"mono": 1.0}, partner="TPX01", topic="completed"
    ),
    "what is urgent was late while something was broken": _both(
        _late, lambda run: run.alter("fault", {"mono": 0.0})
    ),
    "what was urgent came again once all was mended, and was late before": _late_and_repeated,
    "a restored backup raised the numbers of what was there": _sql(
        _RESTORED, "UPDATE subject SET last_seq = last_seq + 7"
    ),
    "a last line was torn": lambda run: run.ledgers[0].write_text(
        run.ledgers[0].read_text() + '{"what": "ok", "mess'
    ),
    "a receiver whose entries say nothing of patient and text": _both(
        _alter_stored("delivery", patient=None, nonces=[])
    ),
}
