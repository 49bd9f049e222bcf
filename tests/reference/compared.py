"""Mutants judged by ours and by the reference validator with the same definitions.

    python -m tests.reference.compared

prints the table of `docs/validation.md`.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import mutants, published
from tests.mutants import Mutant
from tests.reference import validator
from tests.reference.validator import Issue


@dataclass(frozen=True, slots=True)
class Compared:
    """A mutant, and by whom it was caught."""

    mutant: Mutant
    by_ours: bool
    by_reference: bool


def compared(good: Sequence[tuple[str, bytes]], made: Sequence[Mutant]) -> list[Compared]:
    """Return the verdicts of both on mutants of good resources."""
    spoilt = {str(place): json.dumps(one.resource).encode() for place, one in enumerate(made)}
    folders = [published.DATA / "ukcore" / name for name in published.DEFINITIONS]
    with tempfile.TemporaryDirectory() as work:
        files = {**dict(good), **spoilt}
        verdicts = validator.judge(files, Path(work), folders)
    return [
        Compared(
            mutant=one,
            by_ours=is_caught(one),
            by_reference=is_worse(verdicts[str(place)], verdicts[one.of]),
        )
        for place, one in enumerate(made)
    ]


def is_caught(one: Mutant) -> bool:
    """Whether our own checks see that something is wrong with it."""
    found = published.profiles().check(json.dumps(one.resource).encode())
    return any(wrong.severity == "error" for wrong in found)


def is_worse(found: Iterable[Issue], before: Iterable[Issue]) -> bool:
    """Whether something is wrong that was not before: it refuses some that are good to us."""
    told, had = (Counter((one.rule, one.text) for one in issues) for issues in (found, before))
    return bool(told - had)


def unseen(verdicts: Sequence[Compared], *, by_ours: bool) -> Mapping[str, int]:
    """Return how many of each operator only ours sees, or only the reference."""
    return Counter(
        one.mutant.operator
        for one in verdicts
        if one.by_ours is by_ours and one.by_reference is not by_ours
    )


def table(verdicts: Sequence[Compared]) -> str:
    """Return, in Markdown, how many each sees, and of which operators one sees more."""
    of = Counter(one.mutant.operator for one in verdicts)
    only_ours, only_theirs = (unseen(verdicts, by_ours=ours) for ours in (True, False))
    rows = [
        f"| {name.replace('_', ' ')} | {of[name]} | {only_ours[name]} | {only_theirs[name]} |"
        for name in sorted({*only_ours, *only_theirs}, key=lambda name: -only_ours[name])
    ]
    seen = [sum(one.by_ours for one in verdicts), sum(one.by_reference for one in verdicts)]
    ours, theirs = (f"{100 * number / len(verdicts):.1f} %" for number in seen)
    head = "| operator | of | only ours sees | only the reference sees |\n|---|---|---|---|"
    return "\n".join([f"{len(verdicts)}: ours {ours}, the reference {theirs}.", "", head, *rows])


if __name__ == "__main__":
    from tests.property.test_mutants import NUMBER, SEED, good

    print(table(compared(good(), list(mutants.mutants(good(), NUMBER, SEED)))))
