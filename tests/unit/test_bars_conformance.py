"""docs/bars.md says which test holds each rule of BaRS; it is held to what there is."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "bars.md").read_text(encoding="utf-8").partition("\n## Conformance\n")[2]
HEAD = "| rule | section | held by |"


def rows() -> list[list[str]]:
    """Return the rows of the tables of conformance: rule, section, held by."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and line != HEAD]
    return [re.split(r" (?<!\\)\| ", line[2:-2]) for line in lines]


def all_tests() -> Iterator[str]:
    """Yield `module::name` of every test of the project."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if is_function and node.name.startswith("test_"):
                yield f"{path.stem}::{node.name}"


def test_every_rule_of_bars_has_a_test_that_is_there_or_is_not_offered() -> None:
    there = set(all_tests())
    assert len(rows()) > 100
    for rule, section, held_by in rows():
        named = re.findall(r"`(\w+::\w+)`", held_by)
        assert named or held_by.startswith("not offered: "), rule
        assert set(named) <= there, rule
        assert re.fullmatch(r"\d+(\.\d)?(, \d+(\.\d)?)*", section), rule


def test_no_rule_is_written_twice() -> None:
    rules = [rule for rule, *_ in rows()]
    assert len(rules) == len(set(rules))
