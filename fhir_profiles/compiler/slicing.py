"""By what a list's values are told apart: the discriminators of slicing as tests of a value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fhir_profiles.compiler import base, extensions
from fhir_profiles.compiler.overlay import Node
from fhir_profiles.compiler.scope import Scope
from fhir_profiles.compiler.shelf import Shelf
from fhir_profiles.compiler.terminology import Terminology

Matches = Callable[[Any, Scope], bool]
Read = Callable[[Any, Scope], list[Any]]


@dataclass(frozen=True, slots=True)
class Discriminators:
    """Makes the tests of slices."""

    terminology: Terminology
    shelf: Shelf

    def of(self, sliced: Node, name: str, one: Node) -> Matches | None:
        """Return the test of whether a value is of a slice; None where none can be made."""
        by = sliced.slicing.discriminators if sliced.slicing is not None else ()
        if sliced.name in extensions.MEMBERS:
            return self._by_url(name, one)
        if not by:
            return None
        tests = [self._test(kind, path, one) for kind, path in by]
        if any(test is None for test in tests):
            return None
        held = [test for test in tests if test is not None]
        return lambda value, scope: all(test(value, scope) for test in held)

    def _by_url(self, name: str, one: Node) -> Matches:
        """Return the test of an extension's URL: what is fixed, its definition's, or the slice's
        name, as the parts of an extension are called."""
        url = one.at("url")
        fixed = url.fixed if url is not None else None
        profiles = [profile for rule in one.types for profile in rule.profiles]
        defined = frozenset[str]().union(*map(self.shelf.canonicals, profiles))
        urls = frozenset([fixed]) if isinstance(fixed, str) else defined or frozenset([name])

        def matches(value: Any, _scope: Scope) -> bool:
            given = value.get("url") if isinstance(value, dict) else None
            return isinstance(given, str) and given in urls

        return matches

    def _test(self, kind: str, path: str, one: Node) -> Matches | None:
        steps = [] if path == "$this" else path.split(".")
        if kind in {"value", "pattern"}:
            return self._by_value(steps, one)
        read = _along(steps)
        if kind == "exists":
            node = one.at(".".join(steps))
            if node is None:
                return None
            wanted = node.most != 0
            return lambda value, scope: bool(read(value, scope)) is wanted
        node = one.at(".".join(step for step in steps if step != "resolve()"))
        if node is None or not node.types:
            return None
        if kind == "type":
            names = frozenset(rule.code for rule in node.types)
            return lambda value, scope: any(_has_type(it, names) for it in read(value, scope))
        if kind == "profile":
            profiles = [
                profile for rule in node.types for profile in (rule.profiles or rule.targets)
            ]
            return lambda value, scope: any(
                self.shelf.conforms(it, profile, scope)
                for it in read(value, scope)
                for profile in profiles
            )
        return None

    def _by_value(self, steps: list[str], one: Node) -> Matches | None:
        """Return the test of what is fixed at a path, or on the way there."""
        tests: list[Matches] = []
        for depth in range(len(steps) + 1):
            node = one.at(".".join(steps[:depth]))
            if node is None:
                break
            wanted = node.fixed if node.fixed is not None else node.pattern
            if wanted is not None:
                tests.append(_has(_along(steps[:depth]), wanted))
            elif node.binding is not None and depth == len(steps):
                tests.append(self._has_member(_along(steps), node.binding[1]))
        return (lambda value, scope: all(test(value, scope) for test in tests)) if tests else None

    def _has_member(self, read: Read, value_set: str) -> Matches:
        check = base.bound(self.terminology, "required", value_set, "CodeableConcept", "")
        of_code = base.bound(self.terminology, "required", value_set, "code", "")
        return lambda value, scope: any(
            not (of_code if isinstance(it, str) else check)(it, scope) for it in read(value, scope)
        )


def _along(steps: Sequence[str]) -> Read:
    """Return what reads all values at a path of a value, references followed."""

    def read(value: Any, scope: Scope) -> list[Any]:
        found = [value]
        for step in steps:
            ahead: list[Any] = []
            for one in found:
                if not isinstance(one, dict):
                    continue
                if step == "resolve()":
                    reference = one.get("reference")
                    held = scope.resolve(reference) if isinstance(reference, str) else None
                else:
                    held = one.get(step)
                if isinstance(held, list):
                    ahead += held
                elif held is not None:
                    ahead.append(held)
            found = ahead
        return found

    return read


def _has(read: Read, wanted: Any) -> Matches:
    return lambda value, scope: any(follows(one, wanted) for one in read(value, scope))


def follows(value: Any, pattern: Any) -> bool:
    """Whether a value holds everything that a pattern holds."""
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(
            key in value and follows(value[key], one) for key, one in pattern.items()
        )
    if isinstance(pattern, list):
        return isinstance(value, list) and all(
            any(follows(held, one) for held in value) for one in pattern
        )
    return bool(value == pattern)


def _has_type(value: Any, names: frozenset[str]) -> bool:
    if isinstance(value, dict) and "resourceType" in value:
        return isinstance(value["resourceType"], str) and value["resourceType"] in names
    return False
