"""The pages of docs/ that are drawn from what the code reads are true."""

import pytest

from tests.pages import PAGES, ROOT


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_as_it_would_be_drawn_now(path: str) -> None:
    """Where it is not: `python -m tests.pages`."""
    assert (ROOT / path).read_text(encoding="utf-8") == PAGES[path]()
