"""Is this FHIR as its profiles say? Every problem at once, each with its place and its rule.

The base structure is `structure`'s, the rest is compiled from definitions: R4's own, ours
(`definitions/`), and those of packages that were loaded.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from typing import Any, Final

from fhir_profiles import authored, structure
from fhir_profiles.codes import BASE
from fhir_profiles.compiler import r4
from fhir_profiles.compiler.finding import Finding, Severity
from fhir_profiles.compiler.library import Library
from fhir_profiles.structure import StructureIssue

Definitions = Iterable[Mapping[str, Any]]


class Profiles:
    """Every definition that is loaded, compiled. Made once; may be used by any thread.

    Of two definitions with one URL the first stands: ours before all, then package by package. But
    a code system that has some of its codes only gives way to one that has them all.
    """

    def __init__(self, packages: Iterable[Definitions] = ()) -> None:
        self._library = Library()
        known: dict[str, bool] = {}
        for definitions in (own(), *packages):
            for one in definitions:
                is_whole = one.get("content") != "fragment"
                if one["url"] not in known or (is_whole and not known[one["url"]]):
                    known[one["url"]] = is_whole
                    self._library.add(one)
        self._library.compile()

    @property
    def left_out(self) -> Sequence[str]:
        """Rules of loaded definitions that no check could be made of."""
        return self._library.left_out

    @property
    def slow(self) -> Sequence[str]:
        """Constraints that could not be compiled: they are checked, each taking its time."""
        return self._library.slow

    def check(
        self, content: bytes, profile: str | None = None, *, read: Any | None = None
    ) -> list[Finding]:
        """Return all that is wrong with a resource in JSON; an empty list: nothing.

        `content` is JSON already, `read` what `strict_json` made of it, where it did. It is checked
        by what it claims and by `profile`, a name of one of ours. Errors make it unfit; warnings
        and information do not.
        """
        resource = json.loads(content, parse_float=Decimal) if read is None else read
        found = [_finding(one, resource) for one in structure.check(content)]
        canonical = None if profile is None else f"{BASE}StructureDefinition/{profile}"
        return found + self._library.check(resource, canonical)


@cache
def ours() -> Profiles:
    """Return the checks of our own definitions and R4's alone: what we make is judged by them."""
    return Profiles()


def own() -> list[Mapping[str, Any]]:
    """Return our own definitions: whatever in `definitions/` has a URL."""
    return [one for one in authored.definitions().values() if "url" in one]


def _finding(issue: StructureIssue, resource: Any) -> Finding:
    """Return what the structure's check says without the values that it repeats."""
    said = _VALUE.sub("It is not", issue.message)
    kind = next((code for pattern, code in _KINDS if pattern in said), "structure")
    name = _type_at(issue.path, resource)
    severity: Severity = "warning" if issue.severity == "warning" else "error"
    return Finding(severity, kind, issue.path, f"{r4.CORE}{name}", said)


def _type_at(path: str, resource: Any) -> str:
    """Return the type of the innermost entry's resource that a path leads through."""
    found = resource
    for place in _ENTRY.findall(path):
        entry = found["entry"][int(place)]
        found = entry["resource"]
    name = found.get("resourceType") if isinstance(found, dict) else None
    return name if isinstance(name, str) else "Resource"


_ENTRY: Final = re.compile(r"\.entry\[(\d+)\]\.resource(?=\.)")
_VALUE: Final = re.compile(r"^(\".*\"|\S+) is not", re.DOTALL)
_KINDS: Final = (("required element missing", "required"), ("It is not a", "value"))
