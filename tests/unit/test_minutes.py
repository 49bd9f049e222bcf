"""CI's minutes: every test belongs to one line, and the page and the run know the same lines."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import minutes
from tests.minutes import KEPT, Watch, line_of, table, took

CONTRIBUTING = Path(__file__).parents[2] / "CONTRIBUTING.md"


def report(test: str, seconds: float, worker: str, *, is_slow: bool) -> Any:
    keywords = {"slow": 1} if is_slow else {}
    return SimpleNamespace(nodeid=test, duration=seconds, worker_id=worker, keywords=keywords)


def test_contributing_has_the_same_lines_and_minutes() -> None:
    rows = re.findall(r"^\| ([a-zA-Z ]+) \| (\d+) \|", CONTRIBUTING.read_text(), re.MULTILINE)
    assert {line: int(kept) for line, kept in rows} == KEPT
    assert sum(KEPT.values()) <= 40


@pytest.mark.parametrize(
    ("test", "is_slow", "line"),
    [
        ("tests/unit/test_retry.py::test_x", False, "fast"),
        ("tests/unit/test_benchmarks.py::test_x", True, "integration"),
        ("tests/integration/test_cli.py::test_x", True, "integration"),
        ("tests/integration/test_cli.py::test_x", False, "fast"),
        ("tests/contract/test_log.py::test_x", False, "contracts"),
        ("tests/acceptance/test_edge.py::test_x", True, "acceptance"),
        ("tests/faults/test_crash_points_on_kafka.py::test_x[y]", True, "sweep"),
        ("tests/faults/test_nemeses.py::test_x", True, "nemeses"),
        ("tests/faults/test_planted_bugs.py::test_x", True, "planted bugs"),
        ("tests/faults/test_power_loss.py::test_x", True, "other faults"),
        ("tests/property/test_mutants.py::test_x", True, "validator and mutants"),
        ("tests/integration/test_reference_validator.py::test_x", True, "validator and mutants"),
    ],
)
def test_a_test_belongs_to_one_line(test: str, is_slow: bool, line: str) -> None:
    assert line_of(test, is_slow=is_slow) == line
    assert line in KEPT


def test_what_two_workers_did_at_once_is_shared_between_them(tmp_path: Path) -> None:
    watch = Watch(tmp_path / "minutes")
    watch.pytest_runtest_logreport(report("tests/unit/a.py::b", 60, "gw0", is_slow=False))
    watch.pytest_runtest_logreport(report("tests/contract/a.py::b", 120, "gw1", is_slow=True))
    watch.pytest_runtest_logreport(report("tests/contract/a.py::c", 60, "gw0", is_slow=True))
    watch.pytest_sessionfinish()
    assert took((tmp_path / "minutes").read_text()) == {
        "fast": 0.5,
        "contracts": 1.5,
        minutes.WAITING: 0.0,
    }


def test_runs_add_to_one_file_and_what_took_more_than_was_kept_is_named() -> None:
    found = took("300.0\tacceptance\n60\tfast\n12.0\tacceptance\n")
    said = table(found).splitlines()
    assert re.fullmatch(r"acceptance +5 +5\.2 over", said[3])
    assert re.fullmatch(r"fast +2 +1\.0", said[1])
    assert said[-1] == "Over their minutes: acceptance."
    assert re.fullmatch(r"together +31 +6\.2", said[-2])
    assert re.fullmatch(r"together +31 +32\.0 over", table({"fast": 32}).splitlines()[-2])
    assert table({}).endswith("\nEvery line kept to its minutes.")
