"""Three thousand good resources with one fault each: next to none gets through."""

import json
from collections import Counter
from collections.abc import Sequence

import pytest

from fhir_profiles import packages, strict_json
from tests import made, mutants, published
from tests.integration.test_published_files import pinned

NUMBER = 3_000
SEED = 1
CAUGHT = 0.99


def good() -> Sequence[tuple[str, bytes]]:
    """What we make, and every published example that has nothing wrong with it."""
    found = list(made.contents().items())
    for path, verdict in pinned().items():
        if verdict == "good" and path.startswith("bars/") and path.endswith(".json"):
            resource = packages.read((published.DATA / path).read_bytes())
            found.append((path, strict_json.dumps(resource)))
    return found


@published.needed
@pytest.mark.slow
def test_of_mutants_next_to_none_gets_through_and_each_kind_of_fault_is_seen() -> None:
    profiles = published.profiles()
    made_by: Counter[str] = Counter()
    survivors = []
    for one in mutants.mutants(good(), NUMBER, SEED):
        made_by[one.operator] += 1
        found = profiles.check(json.dumps(one.resource).encode())
        if not any(finding.severity == "error" for finding in found):
            survivors.append(f"{one.of} {one.path}: {one.rule}")
    assert made_by.total() == NUMBER
    assert made_by.keys() == mutants.OPERATORS.keys()
    assert len(survivors) <= (1 - CAUGHT) * NUMBER, survivors


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
