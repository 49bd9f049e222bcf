"""What is run again after a whole run, and what never is."""

import pytest

from tests.again import MOST, why_not

ONE = "tests/contract/test_log.py::test_x"


@pytest.mark.parametrize("failed", [[ONE], [f"{ONE}[{n}]" for n in range(MOST)]])
def test_a_few_tests_that_failed_are_run_again(failed: list[str]) -> None:
    assert why_not(failed) == ""


@pytest.mark.parametrize(
    ("failed", "reason"),
    [
        ([], "not known which"),
        ([f"{ONE}[{n}]" for n in range(MOST + 1)], "4 tests failed"),
        ([ONE, "tests/faults/test_nemeses.py::test_y"], "A fault was found: tests/faults/test_nem"),
    ],
)
def test_many_and_what_a_fault_run_found_are_not(failed: list[str], reason: str) -> None:
    assert reason in why_not(failed)
