"""The judge: reads what everybody wrote down, files only, and says what cannot be.

    python -m tests.faults.checker COPY.db LEDGER.jsonl... [--before COPY.db] [--down ODS]

It compares the partners' own ledgers with a copy of the broker's database, and decides invariants
I1 to I14 and I18 to I20 of docs/checker.md. It imports the standard library and nothing else: what
it knows of the broker and of the sandbox is written down here a second time, so that no fault of
theirs can blind it. Its imports are relative, so that the folder can be carried anywhere.

Whoever makes the copy uses `tests.faults.copying`.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from . import books, ends, fixpoint, lanes, proof, receivers, senders
from .history import History
from .verdict import Verdict as Verdict
from .verdict import Violation as Violation

_RULES = (
    senders.what_was_answered_is_kept,  # I1
    ends.everything_has_a_known_end,  # I2
    receivers.receivers_hold_what_was_sent,  # I3
    receivers.everything_is_where_it_belongs,  # I4
    receivers.patients_are_theirs,  # I5
    receivers.nobody_holds_what_is_not_for_them,  # I6
    lanes.one_effect_each,  # I7
    senders.keys_are_known_again,  # I8
    lanes.order_is_kept,  # I9
    senders.nothing_came_from_nowhere,  # I10
    books.every_change_is_audited_once,  # I11
    books.referrals_follow_the_machine,  # I11
    books.the_audit_chain_holds,  # I12
    ends.nothing_is_late_in_silence,  # I13
    books.nothing_is_left_in_the_ledger,  # I14
    proof.no_status_claims_more_than_was_proved,  # I18
    receivers.the_loop_closes_on_the_same_patient,  # I19
    fixpoint.nothing_changes_by_a_replay,  # I20
)


def check(
    database: Path,
    ledgers: Iterable[Path],
    *,
    before: Path | None = None,
    down: Iterable[str] = (),
) -> Verdict:
    """Judge a history that has settled.

    `before`: a copy from before everything was replayed and the broker started again. `down`:
    destinations that nobody could reach.
    """
    history = History(database, ledgers, before=before, down=down)
    verdict = history.verdict()
    for rule in _RULES:
        rule(history, verdict)
    return verdict


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge the files that are named; exit code 1 where anything cannot be."""
    parser = argparse.ArgumentParser(prog="checker", description=__doc__)
    parser.add_argument("database", type=Path, help="a copy of the broker's database")
    parser.add_argument("ledgers", type=Path, nargs="+", help="the partners' ledgers")
    parser.add_argument("--before", type=Path, help="a copy from before a replay and restart")
    parser.add_argument("--down", action="append", default=[], help="an ODS code out of reach")
    named = parser.parse_args(arguments)
    verdict = check(named.database, named.ledgers, before=named.before, down=named.down)
    sys.stdout.write(f"{verdict}\n")
    return 1 if verdict.violations else 0
