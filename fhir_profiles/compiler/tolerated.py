"""What is let pass of others though a definition says otherwise: `tolerated.json`.

Each entry says why. Nothing of it is let pass in what we make ourselves: the reference validator
judges that.
"""

import json
from collections.abc import Collection, Mapping
from functools import cache
from importlib.resources import files
from typing import Any


def samples() -> Collection[str]:
    """Return code systems that were published with a sample of their codes only."""
    found: Mapping[str, str] = _read()["samples"]
    return found.keys()


def also_in(value_set: str) -> Collection[str]:
    """Return the code systems whose codes count as members of a value set."""
    found: Mapping[str, str] = _read()["members"].get(value_set, {})
    return found.keys()


def extensions() -> Collection[str]:
    """Return extensions that are used and that nobody has defined for R4."""
    found: Mapping[str, str] = _read()["extensions"]
    return found.keys()


def contexts(extension: str) -> Collection[str]:
    """Return where else than its definition says an extension may stand."""
    found: Mapping[str, str] = _read()["contexts"].get(extension, {})
    return found.keys()


@cache
def _read() -> Mapping[str, Any]:
    held = files("fhir_profiles.compiler") / "tolerated.json"
    found: Mapping[str, Any] = json.loads(held.read_bytes())
    return found
