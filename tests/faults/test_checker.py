"""The judge is tested before it is trusted: it finds every fault that is put into a good run."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.faults import checker
from tests.faults.conftest import History

Entry = dict[str, Any]

pytestmark = pytest.mark.slow


class Tampered:
    """A copy of a run, into which faults are put."""

    def __init__(self, history: History, folder: Path) -> None:
        self.database = folder / "copy.db"
        shutil.copyfile(history.database, self.database)
        self.ledgers: list[Path] = []
        for number, ledger in enumerate(history.ledgers):
            self.ledgers.append(folder / f"{number}.jsonl")
            shutil.copyfile(ledger, self.ledgers[-1])

    def sql(self, *statements: str) -> None:
        """Change the broker's word. `:update` and `:delivery` are the ids of one of each."""
        with closing(sqlite3.connect(self.database)) as connection, connection:
            ids = {
                "update": connection.execute(_ONE_UPDATE).fetchone()[0],
                "delivery": connection.execute(_ONE_DELIVERY).fetchone()[0],
            }
            for statement in statements:
                assert connection.execute(statement, ids).rowcount > 0, statement

    def rewrite(self, change: Callable[[Entry], list[Entry] | None]) -> None:
        """Change the partners' word: `change` gives what stands in an entry's place, None once it
        is not of interest. Only the first that is of interest is changed."""
        for ledger in self.ledgers:
            entries = [json.loads(line) for line in ledger.read_text().splitlines()]
            for number, entry in enumerate(entries):
                instead = change(dict(entry))
                if instead is not None:
                    entries[number : number + 1] = instead
                    ledger.write_text("".join(json.dumps(one) + "\n" for one in entries))
                    return
        raise AssertionError("nothing to change")

    def judge(self) -> checker.Verdict:
        return checker.check(self.database, self.ledgers)


def _when(what: str, **facts: Any) -> Callable[[Entry], bool]:
    return lambda entry: (
        entry["what"] == what and all(entry.get(name) == value for name, value in facts.items())
    )


def _drop(wanted: Callable[[Entry], bool]) -> Callable[[Entry], list[Entry] | None]:
    return lambda entry: [] if wanted(entry) else None


def _twice(wanted: Callable[[Entry], bool], **changes: Any) -> Callable[[Entry], Any]:
    return lambda entry: [entry, {**entry, **changes}] if wanted(entry) else None


def _altered(wanted: Callable[[Entry], bool], **changes: Any) -> Callable[[Entry], Any]:
    return lambda entry: [{**entry, **changes}] if wanted(entry) else None


def _swap_webhook_order(run: Tampered) -> None:
    """The practice that is called stores the last step of a lane before its first."""
    with closing(sqlite3.connect(run.database)) as connection:
        first, second = connection.execute(
            "SELECT a.id, b.id FROM delivery a JOIN delivery b ON a.subject_id = b.subject_id "
            "AND a.ods = b.ods AND a.service = b.service AND a.subject_seq < b.subject_seq "
            "WHERE a.channel = 'webhook'"
        ).fetchone()
    for ledger in run.ledgers:
        entries = [json.loads(line) for line in ledger.read_text().splitlines()]
        places = {
            entry["delivery"]: number
            for number, entry in enumerate(entries)
            if entry["what"] == "received"
        }
        if first in places and second in places:
            one, two = places[first], places[second]
            entries[one], entries[two] = entries[two], entries[one]
            ledger.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
            return
    raise AssertionError("no lane with two steps")


_ONE_UPDATE = "SELECT id FROM message WHERE kind = 'update' ORDER BY id"
_ONE_DELIVERY = "SELECT id FROM delivery WHERE kind = 'update' ORDER BY id"
_RECEIVED = _when("received", kind="update")

BAD: dict[str, tuple[str, Callable[[Tampered], None]]] = {
    "an accepted message is gone": (
        "lost",
        lambda run: run.sql("DELETE FROM message WHERE id = :update"),
    ),
    "what was posted is gone": (
        "lost",
        lambda run: run.sql("DELETE FROM payload WHERE role = 'in' AND owner_id = :update"),
    ),
    "what was sent is gone": (
        "lost",
        lambda run: run.sql("DELETE FROM payload WHERE owner_id = :delivery"),
    ),
    "the key of a message is gone": (
        "lost",
        lambda run: run.sql("DELETE FROM message_key WHERE id = :update"),
    ),
    "the ledger has a gap": ("ledger", lambda run: run.sql("DELETE FROM event WHERE position = 3")),
    "a subject's events have a gap": (
        "ledger",
        lambda run: run.sql(
            "UPDATE event SET subject_seq = 99 WHERE position = (SELECT max(position) FROM event)"
        ),
    ),
    "the head lags behind": (
        "ledger",
        lambda run: run.sql("UPDATE ledger_head SET position = position - 1"),
    ),
    "an event was never fanned out": (
        "undispatched",
        lambda run: run.sql(
            "UPDATE subject SET dispatched_seq = 0 "
            "WHERE id = (SELECT subject_id FROM event WHERE position = 1)"
        ),
    ),
    "an audit entry was altered": (
        "audit",
        lambda run: run.sql("UPDATE audit SET organisation = 'X' WHERE seq = 4"),
    ),
    "the end of the audit chain was cut off": (
        "audit",
        lambda run: run.sql("DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)"),
    ),
    "a key was forgotten": (
        "key",
        lambda run: run.sql("DELETE FROM idempotency_key WHERE status = 202"),
    ),
    "a message has no delivery": (
        "unrouted",
        lambda run: run.sql("DELETE FROM delivery WHERE id = :delivery"),
    ),
    "a delivery still waits": (
        "unreceived",
        lambda run: run.sql(
            "UPDATE delivery SET state = 'held', held_reason = 'receipt', received_at = NULL "
            "WHERE id = :delivery"
        ),
    ),
    "a delivery died and nobody knows": (
        "silent",
        lambda run: run.sql("UPDATE delivery SET state = 'dead', code = 'x' WHERE id = :delivery"),
    ),
    "a receipt was made up": (
        "unproved",
        lambda run: run.rewrite(_drop(_when("confirmed"))),
    ),
    "a receipt that lies counts as true": (
        "unproved",
        lambda run: run.sql("UPDATE receipt SET named_ods = 'ZZZ99' WHERE delivery_id = :delivery"),
    ),
    "received is shown, but nobody stored it": (
        "unproved",
        lambda run: run.rewrite(_drop(_RECEIVED)),
    ),
    "a delivery was stored twice": ("doubled", lambda run: run.rewrite(_twice(_RECEIVED))),
    "a message came twice as two deliveries": (
        "doubled",
        lambda run: run.rewrite(_twice(_RECEIVED, delivery="11111111-1111-5111-8111-111111111111")),
    ),
    "one key was answered with two messages": (
        "doubled",
        lambda run: run.rewrite(_twice(_when("answered", status=202), messages=["another"])),
    ),
    "other bytes arrived": (
        "altered",
        lambda run: run.rewrite(_altered(_RECEIVED, digest="0" * 64)),
    ),
    "a message arrived somewhere else": (
        "misdelivered",
        lambda run: run.rewrite(_altered(_RECEIVED, partner="RXX01")),
    ),
    "a receiver holds what was never made": (
        "forged",
        lambda run: run.rewrite(
            _altered(_RECEIVED, delivery="11111111-1111-5111-8111-111111111111")
        ),
    ),
    "a message is stored that nobody sent": (
        "phantom",
        lambda run: run.rewrite(_altered(_when("answered", status=202), messages=[])),
    ),
    "steps of a lane came in the wrong order": ("order", _swap_webhook_order),
    "a decision was lost": ("undecided", lambda run: run.sql("DELETE FROM decision")),
}


def test_the_judge_finds_nothing_in_a_run_that_went_well(good_run: History) -> None:
    verdict = good_run.judge()
    assert not verdict.violations, str(verdict)
    assert verdict.counts["answered 202"] == 4
    assert verdict.counts["stored by receivers"] == verdict.counts["deliveries"] > 12


@pytest.mark.parametrize("name", BAD)
def test_the_judge_finds_a_fault_that_was_put_in(
    good_run: History, tmp_path: Path, name: str
) -> None:
    rule, tamper = BAD[name]
    run = Tampered(good_run, tmp_path)
    tamper(run)
    verdict = run.judge()
    assert rule in verdict.rules, f"{name}: {verdict}"


def test_the_judge_as_a_command_says_what_it_found(
    good_run: History, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(good_run.database), *map(str, good_run.ledgers)]
    assert checker.main(files) == 0
    assert "0 violations" in capsys.readouterr().out
    run = Tampered(good_run, tmp_path)
    run.sql("DELETE FROM decision")
    assert checker.main([str(run.database), *map(str, run.ledgers)]) == 1
    assert "undecided: " in capsys.readouterr().out


def test_the_judge_knows_neither_the_broker_nor_the_sandbox() -> None:
    source = Path(checker.__file__).read_text()
    for room in ("broker", "sandbox", "adapters", "consumers", "fhir_profiles"):
        assert f"import {room}" not in source
        assert f"from {room}" not in source
