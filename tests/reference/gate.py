"""Whether all that brokers composed while tests ran is FHIR as its profiles say; 1 if it is not.

    python -m tests.reference.gate FOLDER

judges what every broker left behind below a folder (`scripts/test` gives it that of its own run):
one of each shape, by our own checks and, where it can be had, by the reference validator. The
twenty bad files of `test_reference_validator.py` go through with it and must be refused.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from broker import registry
from broker.dispatch import SENT
from fhir_profiles import codes, strict_json
from tests import composed
from tests.composed import Composed, Left
from tests.integration import test_reference_validator as published
from tests.reference import validator
from tests.reference.validator import Issue

RETIRED_STATUS: Final = f"{codes.UK_CORE_CODES}UKCore-NHSNumberVerificationStatus#"
UNREADABLE: Final = 0.01  # of what is found: tests damage a few payloads and key rings
Verdicts = Mapping[str, Sequence[Issue]]


def main(folder: Path) -> int:
    """Say what was judged and every problem; return 1 if there is one."""
    left = composed.left_in(folder)
    found = composed.distinct(left.composed)
    print(
        f"{len(left.composed)} pieces of FHIR were composed, of {len(found)} shapes; "
        f"{len(left.unreadable)} could not be read."
    )
    against = [*not_seen(left), *_by_ours(found)]
    try:
        against += _by_the_reference(found)
    except pytest.skip.Exception as why:
        print(f"Judged by our own checks only. {why}")
    print("\n".join(against) or "Nothing is wrong with any of it.")
    return 1 if against else 0


def not_seen(left: Left) -> list[str]:
    """A gate that sees nothing lets everything pass: a run sends something of every kind."""
    wanted = {kind for one in registry.load().consumers.values() for kind in one.types}
    sent = {one.event for one in left.composed if one.role == SENT}
    said = [f"Nothing was sent of any {kind}." for kind in sorted(wanted - sent)]
    if len(left.unreadable) > UNREADABLE * len(left.composed):
        said += [f"It could not be read: {where}." for where in left.unreadable]
    return said


def _by_ours(found: Sequence[Composed]) -> list[str]:
    return [
        f"{one.where}: {wrong.path}: {wrong.text} ({wrong.rule}; by our checks)"
        for one in found
        for wrong in composed.errors(one)
    ]


def _by_the_reference(found: Sequence[Composed]) -> list[str]:
    """Raises pytest.skip.Exception where the validator cannot be had and need not be."""
    has_official = not published.MISSING
    named = {f"{place}: {one.where}": one for place, one in enumerate(found)}
    files = {name: claiming(one, is_official=has_official) for name, one in named.items()}
    folders = validator.OFFICIAL if has_official else ()
    with tempfile.TemporaryDirectory() as work:
        verdicts = validator.judge(files | published.bad(), Path(work), folders)
    return problems(named, verdicts, is_official=has_official)


def claiming(one: Composed, *, is_official: bool) -> bytes:
    """Return a copy that names the profile it is to follow; ours alone where no other is there."""
    resource = strict_json.loads(one.body)
    claimed = resource.setdefault("meta", {}).setdefault("profile", [])
    canonical = f"{published.OURS}{one.profile}"
    if canonical not in claimed:
        claimed.append(canonical)
    content = strict_json.dumps(resource)
    return content if is_official else published.by_ours_alone(content)


def problems(named: Mapping[str, Composed], verdicts: Verdicts, *, is_official: bool) -> list[str]:
    """Return what stands against a run: errors, bad files let pass, and a leave that is not used.

    What goes to somebody who speaks BaRS may have one error: it says how far the NHS number was
    traced in codes that UK Core has retired and BaRS demands. Ours know both.
    """
    said = [
        f"{name}: {wrong.place}: {wrong.text} ({wrong.rule}; by the reference validator)"
        for name, one in named.items()
        for wrong in verdicts[name]
        if not is_allowed(one, wrong)
    ]
    for name, (_, _, why) in published.BAD.items():
        if not any(why in f"{wrong.place} {wrong.rule} {wrong.text}" for wrong in verdicts[name]):
            said.append(f"The reference validator let a bad file pass: {name}.")
    towards_bars = [name for name, one in named.items() if one.is_towards_bars]
    if (
        is_official
        and towards_bars
        and not any(
            is_allowed(named[name], wrong) for name in towards_bars for wrong in verdicts[name]
        )
    ):
        said.append("Nothing towards BaRS needs leave for its verification status: take it out.")
    return said


def is_allowed(one: Composed, wrong: Issue) -> bool:
    """Whether it is the one error that may be: BaRS's own codes, to somebody who speaks BaRS."""
    return one.is_towards_bars and RETIRED_STATUS in wrong.text


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
