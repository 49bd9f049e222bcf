"""The judge is tested before it is trusted: it finds every fault that is put into a good run, says
which invariant it breaks and no other, and lets pass what is only odd."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import checker
from tests.faults.checker.verdict import INVARIANTS
from tests.faults.conftest import History
from tests.faults.histories import Tampered
from tests.faults.spoiled import ALLOWED, BAD

pytestmark = pytest.mark.slow


def test_the_judge_finds_nothing_in_a_run_that_went_well_and_judges_all_of_it(
    good_run: History,
) -> None:
    verdict = good_run.judge()
    assert not verdict.violations, str(verdict)
    assert not verdict.not_judged and not verdict.in_part, str(verdict)
    assert verdict.counts["posts with unknown outcome"] == 2
    assert verdict.counts["stored by receivers"] == verdict.counts["deliveries"] > 25


@pytest.mark.parametrize("name", BAD)
def test_the_judge_finds_a_fault_that_was_put_in_and_names_the_invariant(
    good_run: History, tmp_path: Path, name: str
) -> None:
    expected, tamper = BAD[name]
    run = Tampered(good_run, tmp_path)
    tamper(run)
    verdict = run.judge()
    assert verdict.invariants == set(expected.split()), f"{name}: {verdict}"


def test_there_is_a_bad_history_of_its_own_for_each_invariant() -> None:
    alone = {expected for expected, _ in BAD.values()}
    assert set(INVARIANTS) <= alone


def test_the_page_about_the_judge_names_each_history_by_its_invariant() -> None:
    page = (Path(__file__).parents[2] / "docs" / "checker.md").read_text()
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line[:3] == "| I"}
    assert set(rows) == set(INVARIANTS)
    said = [one.strip().partition(" (") for row in rows.values() for one in _named(row)]
    assert sorted(name for name, *_ in said) == sorted(BAD)
    for invariant, row in rows.items():
        for name, _, others in (one.strip().partition(" (") for one in _named(row)):
            assert {invariant, *others.rstrip(")").split()} == set(BAD[name][0].split()), name


def _named(row: str) -> list[str]:
    return row.split("|")[4].split(" · ")


@pytest.mark.parametrize("name", ALLOWED)
def test_the_judge_lets_pass_what_is_only_odd(good_run: History, tmp_path: Path, name: str) -> None:
    run = Tampered(good_run, tmp_path)
    ALLOWED[name](run)
    verdict = run.judge()
    assert not verdict.violations, f"{name}: {verdict}"


def test_a_violation_shows_what_led_to_it(good_run: History, tmp_path: Path) -> None:
    run = Tampered(good_run, tmp_path)
    run.sql("DELETE FROM payload WHERE role = 'in' AND owner_id = :update")
    violation, *_ = run.judge().violations
    for words in ("FPH01 invoke", "FPH01 ok", "broker message.accepted", "G99002 received"):
        assert any(words in line for line in violation.history), str(violation)
    assert list(violation.history) == sorted(violation.history)


def test_the_judge_says_what_a_run_shows_nothing_of(good_run: History, tmp_path: Path) -> None:
    run = Tampered(good_run, tmp_path)
    for what in ("head", "schedule", "fault", "healed"):
        run.drop(what)
    run.rewrite(lambda entry: [{**entry, "nonces": [], "patient": None}])
    said = str(run.judge())
    assert "I5 (no sender wrote down its patients), I6 (no post carried a nonce), " in said
    assert "I12 (no head was published outside), " in said
    assert "I13 (deadlines only: no schedule of faults), " in said
    assert "; not judged: I20 (one copy)" in said


def test_the_judge_stands_alone(good_run: History, tmp_path: Path) -> None:
    """Carried elsewhere, with the standard library and nothing more, it says the same."""
    shutil.copytree(Path(checker.__file__).parent, tmp_path / "alone" / "checker")
    run = Tampered(good_run, tmp_path)

    def judged() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-S", "-E", "-s", "-m", "checker", str(run.database)]
        command += [*map(str, run.ledgers), "--before", str(run.before)]
        return subprocess.run(
            command, cwd=tmp_path / "alone", capture_output=True, text=True, timeout=60
        )

    clean = judged()
    assert (clean.returncode, clean.stderr) == (0, "")
    assert clean.stdout.endswith("0 violations\n")
    assert clean.stdout == f"{good_run.judge()}\n"
    run.sql("DELETE FROM decision")
    found = judged()
    assert found.returncode == 1
    assert "I1: " in found.stdout
