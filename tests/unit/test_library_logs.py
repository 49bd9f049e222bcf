"""What libraries log comes out as our own lines: no text of theirs, and not a hundred a second."""

import logging

import pytest
import structlog

from broker import serving


@pytest.fixture
def library() -> logging.Logger:
    logger = logging.Logger("somebody.elses")
    logger.addHandler(serving._Plain(logging.WARNING))
    return logger


def test_a_place_that_complains_without_end_is_heard_once_in_ten_seconds(
    library: logging.Logger,
) -> None:
    def complain(line: int, second: int) -> None:
        given = {"name": library.name, "lineno": line, "levelno": logging.WARNING}
        library.handle(logging.makeLogRecord(given | {"created": 1_000.0 + second}))

    with structlog.testing.capture_logs() as said:
        for second in range(21):
            complain(7, second)
        complain(8, 20)
    assert [one["event"] for one in said] == ["library.somebody.elses"] * 4


def test_what_it_says_is_not_repeated_for_it_may_be_a_patients(library: logging.Logger) -> None:
    with structlog.testing.capture_logs() as said:
        try:
            raise ValueError("999 000 0018")
        except ValueError:
            library.exception("cannot use %s", "999 000 0018")
    (one,) = said
    assert (one["error"], one["log_level"]) == ("ValueError", "error")
    assert "999" not in str({name: value for name, value in one.items() if name != "point"})
