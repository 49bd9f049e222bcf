"""Code systems and value sets: is this code one of those, or can it not be told here?"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fhir_profiles.compiler import r4, tolerated
from fhir_profiles.compiler.finding import Severity


@dataclass(frozen=True, slots=True)
class CodeSystem:
    """The codes of a system with their displays, and the codes right above each."""

    url: str
    displays: Mapping[str, str] = field(repr=False)
    broader: Mapping[str, tuple[str, ...]] = field(repr=False, default_factory=dict)
    is_complete: bool = True

    def is_within(self, code: str, ancestor: str) -> bool:
        """Whether a code is another one or below it."""
        ahead, seen = [code], set[str]()
        while ahead:
            one = ahead.pop()
            if one == ancestor:
                return True
            if one not in seen:
                seen.add(one)
                ahead += self.broader.get(one, ())
        return False


@dataclass(frozen=True, slots=True)
class Members:
    """The codes of a value set by system, and the systems whose codes are not known here.

    Not `is_whole`: a value set in it is not loaded, and any other code may be a member.
    """

    codes: Mapping[str, frozenset[str]] = field(repr=False)
    unknown: frozenset[str] = frozenset()
    is_whole: bool = True

    def holds(self, system: str | None, code: str) -> bool | None:
        """Whether the code is a member; None where that cannot be told. No system: any of them."""
        if system is None:
            if any(code in one for one in self.codes.values()):
                return True
            return None if self.unknown or not self.is_whole else False
        if code in self.codes.get(system, ()):
            return True
        return None if system in self.unknown or not self.is_whole else False


_NOT_LOADED: Final = Members({}, is_whole=False)


class Terminology:
    """Every code system and value set that is loaded. What is not is never guessed."""

    def __init__(self) -> None:
        self._systems: dict[str, CodeSystem] = {}
        self._sets: dict[str, Mapping[str, Any]] = {}
        self._members: dict[str, Members] = {}
        held = r4.codes()
        for url, rows in held["codeSystems"].items():
            displays = {code: row[0] for code, row in rows.items()}
            broader = {code: tuple(row[1:]) for code, row in rows.items() if len(row) > 1}
            self._systems[url] = CodeSystem(url, displays, broader)
        self._core: Mapping[str, Any] = held["valueSets"]

    def add(self, resource: Mapping[str, Any]) -> None:
        """Take in a CodeSystem or ValueSet; it stands before one of the same URL that was there."""
        if resource["resourceType"] == "CodeSystem":
            self._systems[resource["url"]] = _code_system(resource)
        else:
            self._sets[resource["url"]] = resource
        self._members.clear()

    def systems(self) -> Collection[str]:
        """Return the URLs of every code system that is loaded."""
        return self._systems.keys()

    def gravity(self, system: CodeSystem) -> Severity | None:
        """Return how grave it is that a code is not in its system; None where that means nothing.

        Some publish a sample of their codes as if it were all of them.
        """
        if not system.is_complete:
            return None
        return "warning" if system.url in tolerated.samples() else "error"

    def system(self, url: str | None) -> CodeSystem | None:
        """Return a code system that is loaded with its codes, or None."""
        return self._systems.get(url or "")

    def members(self, value_set: str) -> Members:
        """Return the members of a value set; of one that is not loaded nothing is known."""
        url = value_set.partition("|")[0]
        known = self._members.get(url)
        if known is None:
            known = self._members[url] = self._expand(url, frozenset())
        return known

    def _expand(self, url: str, within: frozenset[str]) -> Members:
        if url in within:
            return Members({})
        if url in self._sets:
            compose = self._sets[url].get("compose", {})
            found = _Collected()
            for include in compose.get("include", ()):
                found.take(self._included(include, within | {url}))
            for exclude in compose.get("exclude", ()):
                found.leave_out(self._included(exclude, within | {url}))
            for system in tolerated.also_in(url):
                found.take(self._named(system, None))
            return found.members()
        if url in self._core:
            found = _Collected()
            for system, codes in self._core[url]:
                found.take(self._named(system, codes))
            return found.members()
        return _NOT_LOADED

    def _named(self, system: str, codes: Iterable[str] | None) -> Members:
        if codes is not None:
            return Members({system: frozenset(codes)})
        known = self._systems.get(system)
        if known is None or not known.is_complete:
            return Members({}, frozenset({system.partition("#")[0]}))
        return Members({system: frozenset(known.displays)})

    def _included(self, include: Mapping[str, Any], within: frozenset[str]) -> Members:
        """Return what one part of a composition holds: its system's codes within all its sets."""
        system = include.get("system")
        parts = [self._expand(one.partition("|")[0], within) for one in include.get("valueSet", ())]
        if system is not None:
            if "filter" in include:
                parts.insert(0, self._filtered(system, include["filter"]))
            else:
                listed = (
                    [one["code"] for one in include["concept"]] if "concept" in include else None
                )
                parts.insert(0, self._named(system, listed))
        if not parts:
            return Members({})
        found, *others = parts
        for other in others:
            systems = set(found.codes) & set(other.codes)
            found = Members(
                {one: found.codes[one] & other.codes[one] for one in systems},
                found.unknown | other.unknown,
                found.is_whole and other.is_whole,
            )
        return found

    def _filtered(self, system: str, filters: Iterable[Mapping[str, Any]]) -> Members:
        known = self._systems.get(system)
        if known is None or not known.is_complete:
            return Members({}, frozenset({system}))
        codes = set(known.displays)
        for one in filters:
            match one.get("op"):
                case "is-a":
                    codes = {code for code in codes if known.is_within(code, one["value"])}
                case "descendent-of":
                    codes = {
                        code
                        for code in codes
                        if code != one["value"] and known.is_within(code, one["value"])
                    }
                case "is-not-a":
                    codes = {code for code in codes if not known.is_within(code, one["value"])}
                case _:  # a property that we do not keep
                    return Members({}, frozenset({system}))
        return Members({system: frozenset(codes)})


class _Collected:
    def __init__(self) -> None:
        self._codes: dict[str, set[str]] = {}
        self._unknown: set[str] = set()
        self._is_whole = True

    def take(self, other: Members) -> None:
        self._is_whole = self._is_whole and other.is_whole
        for system, codes in other.codes.items():
            self._codes.setdefault(system, set()).update(codes)
        self._unknown |= other.unknown

    def leave_out(self, other: Members) -> None:
        for system, codes in other.codes.items():
            self._codes.get(system, set()).difference_update(codes)

    def members(self) -> Members:
        codes = {system: frozenset(codes) for system, codes in self._codes.items()}
        return Members(codes, frozenset(self._unknown), self._is_whole)


def _code_system(resource: Mapping[str, Any]) -> CodeSystem:
    displays: dict[str, str] = {}
    broader: dict[str, tuple[str, ...]] = {}
    for concept, above in _concepts(resource.get("concept", ()), None):
        code = concept["code"]
        displays[code] = concept.get("display", "")
        parents = [above] if above else []
        parents += [
            one["valueCode"]
            for one in concept.get("property", ())
            if one.get("code") in {"parent", "subsumedBy"} and "valueCode" in one
        ]
        if parents:
            broader[code] = tuple(parents)
    complete = resource.get("content") == "complete" and bool(displays)
    return CodeSystem(resource["url"], displays, broader, complete)


def _concepts(
    concepts: Iterable[Mapping[str, Any]], above: str | None
) -> Iterator[tuple[Mapping[str, Any], str | None]]:
    for one in concepts:
        yield one, above
        yield from _concepts(one.get("concept", ()), one["code"])
