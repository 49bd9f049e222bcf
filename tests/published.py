"""What the NHS has published, where it lies beside this clone: examples and definitions."""

from functools import cache
from pathlib import Path

import pytest

from broker import profile_packages
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
    return Profiles(profile_packages.definitions(DATA / "ukcore" / name) for name in DEFINITIONS)
