"""Our definitions against what others published: never stricter than those that they stand for.

Every R4 file at hand is checked twice, by ours alone and with UK Core's and BaRS's loaded: what
ours alone call an error the official ones do too.
"""

from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path

import pytest

from fhir_profiles import packages
from fhir_profiles.profiles import Profiles, ours
from tests.published import DATA, needed, profiles

pytestmark = pytest.mark.slow

PUBLISHED = DATA / "bars"


@needed
def test_what_ours_alone_refuse_the_official_definitions_refuse_too() -> None:
    official = profiles()
    seen, refused = 0, 0
    for path, content in published():
        seen += 1
        by_ours = errors(ours(), content)
        refused += bool(by_ours)
        for place in by_ours - errors(official, content):
            raise AssertionError(f"{path}: ours alone refuse {place}")
    assert seen > 300 and 10 < refused < seen / 2


def errors(judge: Profiles, content: bytes) -> set[tuple[str, str]]:
    return {(one.path, one.code) for one in judge.check(content) if one.severity == "error"}


def published() -> Iterator[tuple[Path, bytes]]:
    """Each published file that is JSON of R4, whatever it claims."""
    for path in sorted(PUBLISHED.rglob("*.json")):
        content = path.read_bytes().removeprefix(BOM_UTF8)
        try:
            packages.read(content)
        except packages.Unreadable:
            continue
        yield path, content
