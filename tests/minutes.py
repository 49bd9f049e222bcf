"""CI's minutes: how many each line of tests may take, and how many it took.

Every test belongs to one line, by its path or else by whether it is slow. A run that is told a file
by BROKER_TEST_MINUTES adds to it what each line took, and `python -m tests.minutes FILE` prints the
table. With several workers at once, a line takes the sum of its tests' seconds divided by their
number; what that leaves of the run's own time is a worker that waits for another, and starting.

Nothing fails for having taken too long: a machine may be busy.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

FILE: Final = "BROKER_TEST_MINUTES"
KEPT: Final = {
    "fast": 2,
    "contracts": 4,
    "acceptance": 5,
    "sweep": 5,
    "nemeses": 5,
    "planted bugs": 5,
    "validator and mutants": 4,
    "other faults": 3,
    "integration": 3,
    "other Pythons": 3,
    "checks": 1,
}
WAITING: Final = "waiting and starting"
ALL: Final = 40
FREE: Final = 9
# By the first of these that fits.
_WHOLE: Final = (
    ("tests/contract/", "contracts"),
    ("tests/acceptance/", "acceptance"),
    ("tests/faults/test_crash_points", "sweep"),
    ("tests/faults/test_nemeses", "nemeses"),
    ("tests/faults/test_planted", "planted bugs"),
    ("tests/faults/", "other faults"),
)
_SLOW: Final = (
    ("tests/integration/test_reference_validator", "validator and mutants"),
    ("tests/property/", "validator and mutants"),
    ("tests/", "integration"),
)


def line_of(test: str, *, is_slow: bool) -> str:
    """Return the line that a test belongs to, by its id."""
    rest = _SLOW if is_slow else (("tests/", "fast"),)
    return next(line for path, line in (*_WHOLE, *rest) if test.startswith(path))


class Watch:
    """Adds up what each line takes in one run, whoever runs its tests."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._began = time.monotonic()
        self._seconds: Counter[str] = Counter()
        self._workers: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        line = line_of(report.nodeid, is_slow="slow" in report.keywords)
        self._seconds[line] += report.duration
        self._workers.add(getattr(report, "worker_id", ""))

    def pytest_sessionfinish(self) -> None:
        shares = {line: seconds / len(self._workers) for line, seconds in self._seconds.items()}
        left = time.monotonic() - self._began - sum(shares.values())
        with self._file.open("a") as file:
            for line, seconds in (*shares.items(), (WAITING, max(left, 0.0))):
                file.write(f"{seconds:.1f}\t{line}\n")


def watch(config: pytest.Config) -> None:
    """Have a run watched, if it is told a file and is not a worker of another."""
    file = os.environ.get(FILE)
    if file and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Watch(Path(file)))


def took(text: str) -> Counter[str]:
    """Return the minutes that each line took, of a file with seconds and a line on each line."""
    minutes: Counter[str] = Counter()
    for row in text.splitlines():
        seconds, _, line = row.partition("\t")
        minutes[line] += float(seconds) / 60
    return minutes


def table(minutes: Mapping[str, float]) -> str:
    """Say what was kept for each line and what it took, and which took more."""
    rows = [
        f"{line:24} {kept:5} {minutes.get(line, 0.0):6.1f}" + " over" * _is_over(line, minutes)
        for line, kept in KEPT.items()
    ]
    rows.append(f"{WAITING:24} {'':5} {minutes.get(WAITING, 0.0):6.1f}")
    took = sum(minutes.values())
    rows.append(f"{'together':24} {ALL - FREE:5} {took:6.1f}" + " over" * (took > ALL - FREE))
    over = [line for line in KEPT if _is_over(line, minutes)]
    said = f"Over their minutes: {', '.join(over)}." if over else "Every line kept to its minutes."
    return "\n".join([f"{'minutes':24}  kept   took", *rows, said])


def _is_over(line: str, minutes: Mapping[str, float]) -> bool:
    return minutes.get(line, 0.0) > KEPT[line]


if __name__ == "__main__":
    sys.stdout.write(table(took(Path(sys.argv[1]).read_text())) + "\n")
