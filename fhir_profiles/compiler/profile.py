"""A profile's overlay as one check: what a resource must be beyond what R4 says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fhir_profiles.compiler import base, r4
from fhir_profiles.compiler.finding import Check, Finding, under
from fhir_profiles.compiler.invariant import SlowPath, invariant
from fhir_profiles.compiler.overlay import MANY, Node, TypeRule
from fhir_profiles.compiler.scope import Scope
from fhir_profiles.compiler.shelf import Shelf
from fhir_profiles.compiler.slicing import Discriminators, follows
from fhir_profiles.compiler.terminology import Terminology


@dataclass(slots=True)
class Compiler:
    """Makes checks of overlays. What it cannot make is named in `left_out`."""

    terminology: Terminology
    shelf: Shelf
    slow: SlowPath
    left_out: list[str] = field(default_factory=list)

    @property
    def _slices(self) -> Discriminators:
        return Discriminators(self.terminology, self.shelf)

    def check(self, node: Node) -> Check:
        """Return the check of a value against a node and all below it."""
        return self._node(node) or _nothing

    # -- one value -------------------------------------------------------------------------------

    def _node(self, node: Node) -> Check | None:
        self.left_out += node.unread
        parts: list[Check | None] = [
            self._fixed(node),
            self._bound(node),
            self._types(node),
            *(invariant(rule, canonical, self.slow) for rule, canonical in node.constraints),
        ]
        parts += [self._members(child) for child in node.children.values()]
        return base.together([one for one in parts if one is not None])

    def _fixed(self, node: Node) -> Check | None:
        if node.fixed is None and node.pattern is None:
            return None
        fixed, pattern = node.fixed, node.pattern
        wrong = [Finding("error", "value", "", node.rule, "It has another value than is fixed.")]

        def check(value: Any, _scope: Scope) -> list[Finding] | None:
            if fixed is not None and value != fixed:
                return wrong
            return None if pattern is None or follows(value, pattern) else wrong

        return check

    def _bound(self, node: Node) -> Check | None:
        if node.binding is None:
            return None
        strength, value_set = node.binding
        checks = {
            kind: base.bound(self.terminology, strength, value_set, kind, node.rule)
            for kind in ("code", "Coding", "CodeableConcept")
        }

        def check(value: Any, scope: Scope) -> Sequence[Finding] | None:
            if isinstance(value, str):
                return checks["code"](value, scope)
            if isinstance(value, dict):
                kind = "CodeableConcept" if "code" not in value else "Coding"
                return checks[kind](value, scope)
            return None

        return check

    def _types(self, node: Node) -> Check | None:
        """Return the check of where references lead, and of what a held resource or value is."""
        parts: list[Check] = []
        targets = [target for one in node.types for target in one.targets]
        if targets:
            parts += self._leads_to(targets, node)
        profiles = [
            profile
            for one in node.types
            if one.code != "Extension"  # an extension is checked by its URL wherever it stands
            for profile in one.profiles
        ]
        if profiles:
            parts.append(self._one_of(profiles, node))
        names = frozenset(one.code for one in node.types if _is_resource(one))
        if names:
            parts.append(_is_named(names, node.rule))
        return base.together(parts)

    def _leads_to(self, targets: Sequence[str], node: Node) -> list[Check]:
        names = [self.shelf.type_of(one) for one in targets]
        if None in names or "Resource" in names:
            return []
        parts = [base.leads_to(frozenset(filter(None, names)), node.rule)]
        profiled = [one for one in targets if not one.startswith(r4.CORE)]
        if len(profiled) < len(targets):
            return parts
        wrong = [
            Finding(
                "error", "structure", "", node.rule, f"It leads to none of {' or '.join(targets)}."
            )
        ]

        def conforms(value: Any, scope: Scope) -> list[Finding] | None:
            reference = value.get("reference") if isinstance(value, dict) else None
            target = scope.resolve(reference) if isinstance(reference, str) else None
            if target is None or target.get("resourceType") not in names:
                return None
            answers = [self.shelf.conforms(target, one, scope) for one in targets]
            return None if True in answers or None in answers else wrong

        return [*parts, conforms]

    def _one_of(self, profiles: Sequence[str], node: Node) -> Check:
        if len(profiles) == 1 and not profiles[0].startswith(r4.CORE):
            (only,) = profiles
            return lambda value, scope: self.shelf.found(value, only, scope)
        said = f"It is not as {' or '.join(profiles)} says."
        wrong = [Finding("error", "structure", "", node.rule, said)]

        def check(value: Any, scope: Scope) -> list[Finding] | None:
            answers = [self.shelf.conforms(value, one, scope) for one in profiles]
            return None if True in answers or None in answers else wrong

        return check

    # -- the members of an object ----------------------------------------------------------------

    def _members(self, node: Node) -> Check | None:
        """Return the check of an object's member: how many there are, and each of them."""
        read = _reader(node)
        each = self._node(node)
        sliced = self._sliced(node)
        least = node.least or 0
        most = node.most if node.most is not None else MANY
        allowed = _allowed(node)
        may_be_absent = not (
            least or node.is_choice or any(one.least for one in node.slices.values())
        )
        name, shadow = node.name, f"_{node.name}"
        missing, many = _too_few(node, node.name), _too_many(node, node.name)
        if least == 0 and most == MANY and each is None and sliced is None and allowed is None:
            return None

        def check(value: Any, scope: Scope) -> list[Finding] | None:
            if type(value) is not dict:
                return None
            if may_be_absent and name not in value and shadow not in value:
                return None
            found: list[Finding] = []
            items = read(value)
            if len(items) < least:
                found.append(missing)
            elif 0 <= most < len(items):
                found.append(many)
            if allowed is not None and items and items[0][0] not in allowed[0]:
                found += under(items[0][0], allowed[1])
            if each is not None:
                for path, item in items:
                    wrong = each(item, scope)
                    if wrong:
                        found += under(path, wrong)
            if sliced is not None:
                found += sliced(items, scope)
            return found

        return check

    def _sliced(self, node: Node) -> "Callable[[Items, Scope], list[Finding]] | None":
        slices = []
        for name, one in node.slices.items():
            matches = self._slices.of(node, name, one)
            if matches is None:
                self.left_out.append(f"{node.rule}#{node.name}:{name}")
                continue
            slices.append((name, one, matches, self._node(one), self._sliced(one)))
        if not slices:
            return None
        is_closed = node.slicing is not None and node.slicing.is_closed
        other = Finding(
            "error", "structure", "", node.rule, f"It is none of {', '.join(node.slices)}."
        )

        def check(items: Items, scope: Scope) -> list[Finding]:
            found: list[Finding] = []
            rest = list(items)
            for name, one, matches, each, within in slices:
                ours = [item for item in rest if matches(item[1], scope)]
                rest = [item for item in rest if item not in ours] if ours else rest
                found += _counted(one, name, len(ours))
                for path, item in ours:
                    wrong = each(item, scope) if each is not None else None
                    if wrong:
                        found += under(path, wrong)
                if within is not None:
                    found += within(ours, scope)
            if is_closed:
                for path, _ in rest:
                    found += under(path, [other])
            return found

        return check


def _nothing(_value: Any, _scope: Any) -> None:
    return None


# -- reading members -----------------------------------------------------------------------------

Items = Sequence[tuple[str, Any]]
"""Values with their paths from the object that holds them."""


def _reader(node: Node) -> Callable[[Mapping[str, Any]], Items]:
    """Return what reads the values of a member; a primitive with extensions is its `_name`."""
    name = node.name
    choice = r4.choices().get(name) if node.is_choice else None
    wants_shadow = bool(node.children)
    shadow = f"_{name}"

    def read(value: Mapping[str, Any]) -> Items:
        held = value.get(name)
        extended = value.get(shadow)
        if held is None and extended is None:
            if choice is not None:
                for key, one in value.items():
                    if key in choice:
                        return ((key, one),)
            return ()
        if type(held) is list:
            return [(f"{name}[{place}]", one) for place, one in enumerate(held)]
        if extended is not None and (held is None or wants_shadow):
            return ((name, extended),)
        return ((name, held),)

    return read


def _counted(node: Node, name: str, number: int) -> list[Finding]:
    if node.least is not None and number < node.least:
        return [_too_few(node, f"Its slice {name}")]
    if node.most is not None and 0 <= node.most < number:
        return [_too_many(node, f"Its slice {name}")]
    return []


def _too_few(node: Node, what: str) -> Finding:
    least = node.least or 0
    said = f"{what} is missing." if least == 1 else f"{what} is there at least {least} times."
    return Finding("error", "required", node.name, node.rule, said)


def _too_many(node: Node, what: str) -> Finding:
    said = (
        f"{what} is not allowed."
        if node.most == 0
        else f"{what} is there at most {node.most} times."
    )
    return Finding("error", "structure", node.name, node.rule, said)


def _allowed(node: Node) -> tuple[frozenset[str], list[Finding]] | None:
    """Return the names in JSON that a choice element may still have, and what is said otherwise."""
    if not node.is_choice or not node.types:
        return None
    keys = frozenset(f"{node.name}{one.code[:1].upper()}{one.code[1:]}" for one in node.types)
    said = f"It is {' or '.join(sorted(keys))}."
    return keys, [Finding("error", "structure", "", node.rule, said)]


# -- types ---------------------------------------------------------------------------------------


def _is_resource(rule: TypeRule) -> bool:
    kind = r4.types().get(rule.code)
    return kind is not None and kind.kind == "resource" and rule.code not in _ANY_RESOURCE


_ANY_RESOURCE: Final = frozenset({"Resource", "DomainResource"})


def _is_named(names: frozenset[str], rule: str) -> Check:
    said = f"It is {' or '.join(sorted(names))}."
    wrong = [Finding("error", "structure", "", rule, said)]

    def check(value: Any, _scope: Scope) -> list[Finding] | None:
        return None if isinstance(value, dict) and value.get("resourceType") in names else wrong

    return check
