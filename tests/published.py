"""What the NHS has published, where it lies beside this clone: examples and definitions."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fhir_profiles import packages
from fhir_profiles.profiles import Profiles

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
# In this order: of two definitions with one URL the first stands.
DEFINITIONS = (
    "ukcore-pkg-0.23.0-json-snapshots",
    "ukcore-staging-xml",
    "bars-xml",
    "bars-pkg-1.37.0-json",
    "nhsengland",
    "ers-r4-profiles",
)
needed = pytest.mark.skipif(not DATA.is_dir(), reason=f"what others published is not in {DATA}")


@cache
def profiles() -> Profiles:
    """Return the checks of R4, ours, UK Core and BaRS."""
    return Profiles(_definitions(DATA / "ukcore" / name) for name in DEFINITIONS)


def _definitions(folder: Path) -> Iterator[Mapping[str, Any]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix in {".json", ".xml"} and path.name not in packages.NO_RESOURCES:
            yield from packages.definitions(path.read_bytes())
