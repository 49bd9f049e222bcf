"""The catalogue's files as they are written, and the code systems that come of them.

An entry's reasons and red flags are codes with words: they stand in the entry alone, and
`definitions/` has the systems that hold them, without their concepts. A code that several entries
use has the same words in each.
"""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

import yaml

FOLDER: Final = files("fhir_profiles") / "pathways"
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# What concepts come of: which part of an entry, and whether of those that are for the eye.
_PARTS: Final[Mapping[str, tuple[str, bool | None]]] = {
    "eye-condition": ("reasons", True),
    "referral-reason": ("reasons", False),
    "red-flag": ("red-flags", None),
}


def parse(document: Traversable) -> Any:
    """Return what a YAML file holds."""
    return yaml.load(document.read_bytes(), Loader=_LOADER)  # noqa: S506  a safe one


@cache
def read(name: str) -> Mapping[str, Any]:
    """Return what a file of `pathways/` holds."""
    document: Mapping[str, Any] = parse(FOLDER / name)
    return document


@cache
def entries() -> Mapping[str, Mapping[str, Any]]:
    """Return every entry as it is written, by the name of its file."""
    names = sorted(one.name for one in (FOLDER / "entries").iterdir() if one.name.endswith(".yaml"))
    return {name.removesuffix(".yaml"): read(f"entries/{name}") for name in names}


def concepts(system: str) -> list[dict[str, Any]]:
    """Return the concepts of a code system that the catalogue fills."""
    if system == "pathway":
        return [{"code": one["id"], "display": one["name"]} for one in entries().values()]
    part, of_the_eye = _PARTS[system]
    found: dict[str, dict[str, Any]] = {}
    for entry in entries().values():
        if of_the_eye in {None, entry["group"] == "eye"}:
            for one in entry.get(part, ()):
                concept = _concept(one)
                if found.setdefault(concept["code"], concept) != concept:
                    raise ValueError(f"{concept['code']} has other words in another entry")
    return list(found.values())


def _concept(coded: Mapping[str, Any]) -> dict[str, Any]:
    concept = {"code": coded["code"], "display": coded["words"]}
    if "snomed" in coded:
        concept["property"] = [{"code": "snomed", "valueCode": coded["snomed"]}]
    return concept
