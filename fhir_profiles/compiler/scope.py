"""What stands around a value while it is checked: its resource, its Bundle, and what is claimed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fhir_profiles.compiler.finding import Findings
from fhir_profiles.compiler.operations import Env

_PAGES: Final = ("searchset", "history")  # compared with what may have any shape


@dataclass(slots=True)
class Held:
    """The resources of a Bundle, to be found by what refers to them."""

    by_url: dict[str, Any] = field(default_factory=dict)
    by_name: dict[str, Any] = field(default_factory=dict)
    is_whole: bool = True
    """Whether what is referred to by a URN must be here: a page of a search holds what was asked
    for, and not all that it refers to."""

    def find(self, reference: str) -> Any | None:
        """Return the resource that a reference leads to within the Bundle, or None."""
        return self.by_url.get(reference) or self.by_name.get(reference)


def held(bundle: Mapping[str, Any]) -> Held:
    """Index a Bundle's entries by fullUrl, and by `Type/id`."""
    found = Held(is_whole=bundle.get("type") not in _PAGES)
    for url, resource in _entries(bundle):
        found.by_url.setdefault(url, resource)
        name, identity = resource.get("resourceType"), resource.get("id")
        if isinstance(name, str) and isinstance(identity, str):
            found.by_name.setdefault(f"{name}/{identity}", resource)
    return found


def _entries(bundle: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    entries = bundle.get("entry")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("resource"), dict):
            url = entry.get("fullUrl")
            yield url if isinstance(url, str) else "", entry["resource"]


@dataclass(slots=True)
class Scope:
    """Of one resource: itself, what contains it, and the Bundle that it came in."""

    env: Env
    held: Held | None = None
    judged: dict[tuple[int, str], Findings] = field(default_factory=dict)
    """How a value (by its identity) is not as a profile says: in one check, found once."""

    def resolve(self, reference: str) -> Any | None:
        """Return the resource that a reference leads to, as far as it is at hand."""
        if reference.startswith("#"):
            return self._contained(reference[1:])
        return self.held.find(reference) if self.held is not None else None

    def _contained(self, identity: str) -> Any | None:
        root = self.env.root
        held = root.get("contained")
        if not identity:
            return root
        for one in held if isinstance(held, list) else ():
            if isinstance(one, dict) and one.get("id") == identity:
                return one
        return None


CARRIERS: Final = frozenset({"Bundle", "Parameters"})
"""What they hold are resources of their own; what others hold are contained."""


def scope(resource: Mapping[str, Any], around: Scope | None = None) -> Scope:
    """Return the scope of a resource that stands by itself or in what has a scope already."""
    root, bundle = resource, None
    if around is not None:
        bundle = around.held
        if around.env.resource.get("resourceType") not in CARRIERS:
            root = around.env.root
    if resource.get("resourceType") == "Bundle":
        bundle = held(resource)
    found = Scope(Env(resource, root), bundle)
    if around is not None:
        found.judged = around.judged
    found.env.resolve = found.resolve
    return found
