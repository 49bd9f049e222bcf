"""Definitions by their canonical, and the checks that are made of them.

A definition may say in its `mapping` that it shares the rules of another one: as long as that one
is not loaded, what claims it is checked by the rules that are here. Once it is, it alone counts.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from fhir_profiles.codes import UK_CORE
from fhir_profiles.compiler import extensions, r4, slow_path, tolerated
from fhir_profiles.compiler.base import Base
from fhir_profiles.compiler.finding import Check, Finding, Made, Severity, under
from fhir_profiles.compiler.invariant import SlowPath
from fhir_profiles.compiler.naming import Naming
from fhir_profiles.compiler.operations import Truth
from fhir_profiles.compiler.overlay import Node, overlay
from fhir_profiles.compiler.profile import Compiler
from fhir_profiles.compiler.scope import Scope, scope
from fhir_profiles.compiler.terminology import Terminology


class Library:
    """Holds definitions and makes checks of them when they are first asked for."""

    def __init__(self, slow: SlowPath = slow_path.truth) -> None:
        self.terminology = Terminology()
        self._definitions: dict[str, Mapping[str, Any]] = dict(r4.extensions())
        self._added: set[str] = set()
        self._shares: dict[str, str] = {}
        self._made = Made()
        self._extensions: dict[str, tuple[frozenset[str], Check] | None] = {}
        self._slow = slow
        self._slowly: list[str] = []
        self._compiler = Compiler(self.terminology, self, self._listed)
        self._naming = Naming(self.terminology)
        self._base = Base(self.terminology, self._listed, self._extra, self._stands)

    @property
    def left_out(self) -> Sequence[str]:
        """Rules that no check was made of so far."""
        return list(dict.fromkeys(self._compiler.left_out))

    @property
    def slow(self) -> Sequence[str]:
        """Constraints met so far that are checked, but not by closures: each takes its time."""
        return list(dict.fromkeys(self._slowly))

    def _listed(self, expression: str) -> Truth:
        self._slowly.append(expression)
        return self._slow(expression)

    def add(self, resource: Mapping[str, Any]) -> None:
        """Take in a conformance resource; it replaces one of the same URL."""
        kind = resource.get("resourceType")
        if kind == "StructureDefinition":
            self._definitions[resource["url"]] = resource
            self._added.add(resource["url"])
            for canonical in shared(resource):
                self._shares.setdefault(canonical, resource["url"])
        elif kind in {"CodeSystem", "ValueSet"}:
            self.terminology.add(resource)

    def compile(self) -> None:
        """Make the check of every definition that was added, so that nobody waits for it later."""
        self._naming.compile()
        for url in self._added:
            self._base.of_type(str(self._definitions[url]["type"]))
            self.profile(url)

    def check(self, resource: Any, profile: str | None = None) -> list[Finding]:
        """Return all that is wrong with a resource; paths begin with its type.

        `profile` is one more to check it by, claimed or not. Raises LookupError if there is none.
        """
        name = resource.get("resourceType") if isinstance(resource, dict) else None
        check = self._base.of_type(name) if isinstance(name, str) else None
        if check is None:
            said = "resourceType names a resource of FHIR R4."
            return [Finding("error", "structure", "", f"{r4.CORE}Resource", said)]
        around = scope(resource)
        found = [*(check(resource, around) or ())]
        if profile is not None:
            also = self.profile(profile)
            if also is None:
                raise LookupError(f"no profile {profile}")
            claimed = [self._at_hand(one) for _, one in _claimed(resource)]
            if self._at_hand(profile) not in claimed:  # else it was told already
                found += self._misplaced(resource, profile, "") or also(resource, around) or ()
        return under(str(name), found)

    # -- profiles --------------------------------------------------------------------------------

    def type_of(self, canonical: str) -> str | None:
        """Return the type that a profile is of; None if the profile is not loaded."""
        if canonical.startswith(r4.CORE) and canonical[len(r4.CORE) :] in r4.types():
            return canonical[len(r4.CORE) :]
        definition = self._definitions.get(self._at_hand(canonical))
        return None if definition is None else str(definition["type"])

    def canonicals(self, url: str) -> frozenset[str]:
        """Return every canonical that a definition goes by: its own, and those it stands for."""
        definition = self._definitions.get(url)
        return frozenset([url, *(shared(definition) if definition is not None else ())])

    def conforms(self, value: Any, canonical: str, around: Scope) -> bool | None:
        """Whether a value is as a profile says; None if the profile is not loaded."""
        if canonical.startswith(r4.CORE) and canonical[len(r4.CORE) :] in r4.types():
            name = canonical[len(r4.CORE) :]
            return not isinstance(value, dict) or value.get("resourceType", name) == name
        found = self.found(value, canonical, around)
        return None if found is None else not any(one.severity == "error" for one in found)

    def found(self, value: Any, canonical: str, around: Scope) -> Sequence[Finding] | None:
        """Return how a value is not as a profile says; None if the profile is not loaded."""
        check = self.profile(canonical)
        if check is None:
            return None
        if isinstance(value, dict) and "resourceType" in value:
            around = scope(value, around)
        asked = (id(value), canonical)
        if asked not in around.judged:
            around.judged[asked] = ()  # for those that lead back to it
            around.judged[asked] = check(value, around) or ()
        return around.judged[asked]

    def profile(self, canonical: str) -> Check | None:
        """Return the check of a profile, or None if it is not loaded."""
        url = self._at_hand(canonical)
        if url not in self._definitions:
            return None
        return self._made.get(url, lambda: self._compiler.check(self._overlay(url)))

    def _at_hand(self, canonical: str) -> str:
        """Return the URL of a definition, or of the one that stands for it while it is missing."""
        url = canonical.partition("|")[0]
        return url if url in self._definitions else self._shares.get(url, url)

    def _overlay(self, url: str) -> Node:
        chain: list[Mapping[str, Any]] = []
        definition = self._definitions.get(url)
        while definition is not None and definition not in chain:
            chain.insert(0, definition)
            base = self._at_hand(definition.get("baseDefinition", ""))
            definition = self._definitions.get(base)
        found = overlay(chain)
        if found.name == "Extension":
            found.children.pop("url", None)  # by which it was found; it may stand for another one
        return found

    # -- what is checked of every value of a type ------------------------------------------------

    def _extra(self, name: str) -> Sequence[Check]:
        kind = r4.types()[name]
        if kind.kind == "resource":
            own = (_full_urls,) if name == "Bundle" else ()
            return (self._claims, self._stands(*extensions.names_of(name)), *own)
        if name in {"Coding", "Quantity"}:  # a quantity's code is its unit's
            return (self._naming.coding,)
        if name == "Identifier":
            return (self._naming.identifier,)
        if name == "Reference":
            return (_dangling,)
        return ()

    def _stands(self, *contexts: str) -> Check:
        return extensions.stands(self._extension, self._unknown, *contexts)

    def _extension(self, url: str) -> tuple[frozenset[str], Check] | None:
        if url not in self._extensions:
            definition = self._definitions.get(self._at_hand(url))
            check = self.profile(url)
            self._extensions[url] = (
                None
                if definition is None or check is None
                else (extensions.contexts(definition), check)
            )
        return self._extensions[url]

    def _unknown(self, url: str) -> Severity | None:
        """R4's own are all known; so are UK Core's, once it is loaded."""
        if url in tolerated.extensions():
            return "warning"
        is_ours = url.startswith(UK_CORE) and any(one.startswith(UK_CORE) for one in self._added)
        return "error" if is_ours or url.startswith(r4.CORE) else "warning"

    def _claims(self, resource: Any, around: Scope) -> Sequence[Finding] | None:
        found: list[Finding] = []
        for place, canonical in _claimed(resource):
            path = f"meta.profile[{place}]"
            check = self.profile(canonical)
            if check is not None:
                found += self._misplaced(resource, canonical, path) or check(resource, around) or ()
            elif self.type_of(canonical) is None:
                said = "This profile is not loaded: what it demands was not checked."
                found.append(Finding("warning", "not-found", path, canonical, said))
        return found

    def _misplaced(self, resource: Any, canonical: str, path: str) -> list[Finding]:
        wanted = self.type_of(canonical)
        if wanted == resource.get("resourceType"):
            return []
        said = f"This profile is of {wanted}."
        return [Finding("error", "structure", path, canonical, said)]


def _claimed(resource: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Yield the profiles that a resource claims, each with its place among them."""
    meta = resource.get("meta")
    claimed = meta.get("profile") if isinstance(meta, dict) else None
    for place, one in enumerate(claimed if isinstance(claimed, list) else ()):
        if isinstance(one, str):
            yield place, one


_SHARES: Final = "shares the rules of"


def shared(definition: Mapping[str, Any]) -> list[str]:
    """Return the canonicals of the definitions whose rules this one says that it shares."""
    said = definition.get("mapping", ())
    return [one["uri"] for one in said if one.get("comment") == _SHARES and "uri" in one]


def _full_urls(bundle: Any, _around: Scope) -> Sequence[Finding] | None:
    entries = bundle.get("entry")
    found = []
    for place, entry in enumerate(entries if isinstance(entries, list) else ()):
        url = entry.get("fullUrl") if isinstance(entry, dict) else None
        if isinstance(url, str) and not _ABSOLUTE.match(url):
            path, said = f"entry[{place}].fullUrl", "A fullUrl is an absolute URL."
            found.append(Finding("error", "value", path, f"{r4.CORE}Bundle", said))
    return found


_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_WITHIN: Final = ("urn:uuid:", "urn:oid:")


def _dangling(reference: Any, around: Scope) -> Sequence[Finding] | None:
    """What a message refers to by a URN is in its Bundle, for it is nowhere else to be had."""
    target = reference.get("reference")
    if not isinstance(target, str) or not target.startswith(_WITHIN) or around.held is None:
        return None
    if not around.held.is_whole or around.held.find(target) is not None:
        return None
    said = "What it refers to is not in the Bundle."
    return [Finding("error", "not-found", "reference", f"{r4.CORE}Bundle", said)]
