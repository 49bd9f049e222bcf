"""Three thousand good resources with one fault each: next to none gets through."""

import re
from collections.abc import Sequence

import pytest

from fhir_profiles import packages, strict_json
from tests import made, mutants, published
from tests.integration.test_published_files import pinned
from tests.mutants import Mutant
from tests.reference import compared, validator
from tests.reference.compared import Compared, is_caught, unseen
from tests.reference.validator import Issue

NUMBER = 3_000
SEED = 1
CAUGHT = 0.99
SAMPLE = 600
IN_FORCE = 0.85  # of them the reference sees; fewer, and it is not itself


def good() -> Sequence[tuple[str, bytes]]:
    """What we make, and every published example that has nothing wrong with it."""
    found = list(made.contents().items())
    for path, verdict in pinned().items():
        if verdict == "good" and path.startswith("bars/") and path.endswith(".json"):
            resource = packages.read((published.DATA / path).read_bytes())
            found.append((path, strict_json.dumps(resource)))
    return found


@pytest.fixture(scope="module")
def made_of_good() -> list[Mutant]:
    return list(mutants.mutants(good(), NUMBER, SEED))


@pytest.fixture(scope="module")
def survivors(made_of_good: list[Mutant]) -> list[Mutant]:
    """Those that our own checks let pass."""
    return [one for one in made_of_good if not is_caught(one)]


@published.needed
@pytest.mark.slow
def test_of_mutants_next_to_none_gets_through_and_each_kind_of_fault_is_seen(
    made_of_good: list[Mutant], survivors: list[Mutant]
) -> None:
    assert len(made_of_good) == NUMBER
    assert {one.operator for one in made_of_good} == mutants.OPERATORS.keys()
    assert len(survivors) <= (1 - CAUGHT) * NUMBER, [f"{one}: {one.rule}" for one in survivors]


@published.needed
@pytest.mark.slow
def test_nothing_that_the_reference_sees_escapes_ours_and_what_it_does_not_see_is_explained(
    made_of_good: list[Mutant], survivors: list[Mutant]
) -> None:
    """Of the mutants a sample, for the reference takes its time, and every survivor of ours."""
    some = made_of_good[:SAMPLE]
    rarely = {one.operator: one for one in reversed(made_of_good[SAMPLE:])}
    seldom = [one for name, one in rarely.items() if all(name != it.operator for it in some)]
    sample = [*some, *seldom, *(one for one in survivors if one not in some)]
    assert {one.operator for one in sample} == mutants.OPERATORS.keys()
    verdicts = compared.compared(good(), sample)
    assert sum(one.by_reference for one in verdicts) > IN_FORCE * len(verdicts)
    assert unseen(verdicts, by_ours=False) == {}, compared.table(verdicts)
    assert unseen(verdicts, by_ours=True).keys() == explained(), compared.table(verdicts)


def explained() -> set[str]:
    """Return the operators of which docs/validation.md says why the reference does not see them."""
    _, _, part = (validator.ROOT / "docs/validation.md").read_text("utf-8").partition("## Mutants")
    rows = re.findall(r"^\| ([a-z ]+?) +\|", part, re.MULTILINE)
    return {row.replace(" ", "_") for row in rows} - {"operator"}


@published.needed
def test_what_is_not_spoiled_is_good() -> None:
    for name, content in good():
        found = published.profiles().check(content)
        assert [one for one in found if one.severity == "error"] == [], name


def test_the_same_seed_makes_the_same_mutants() -> None:
    ours = list(made.contents().items())
    first, again = (list(mutants.mutants(ours, 50, SEED)) for _ in range(2))
    assert first == again
    assert first != list(mutants.mutants(ours, 50, SEED + 1))


def test_every_operator_names_the_rule_that_it_breaks() -> None:
    for name, operator in mutants.OPERATORS.items():
        assert ": " in (operator.__doc__ or ""), name


def test_the_reference_has_caught_a_mutant_only_by_what_was_not_wrong_before() -> None:
    old, new = Issue("Patient.gender", "rule", "old"), Issue("Patient.gender", "rule", "new")
    moved = Issue("Patient.name", "rule", "old")
    assert not compared.is_worse([old], [old])
    assert not compared.is_worse([moved], [old])
    assert not compared.is_worse([], [old])
    assert compared.is_worse([old, moved], [old])
    assert compared.is_worse([old, new], [old])


def test_what_only_one_of_the_two_sees_is_counted_by_operator() -> None:
    one = next(mutants.mutants(list(made.contents().items()), 1, SEED))
    seen = [(True, True), (True, False), (True, False), (False, True), (False, False)]
    verdicts = [Compared(one, ours, theirs) for ours, theirs in seen]
    assert unseen(verdicts, by_ours=True) == {one.operator: 2}
    assert unseen(verdicts, by_ours=False) == {one.operator: 1}
    assert f"| {one.operator} | 5 | 2 | 1 |" in compared.table(verdicts)
    assert "ours 60.0 %, the reference 40.0 %" in compared.table(verdicts)
