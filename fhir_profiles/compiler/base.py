"""What R4 itself demands of every value, beyond its shape: compiled once per type.

Shape (elements, cardinalities, primitive types) is `structure`'s. Here are R4's invariants, the
codes of its required and extensible bindings, where references lead, and ids, dates and UUIDs that
have the right letters and are none all the same.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any, Final

from fhir_profiles import identifiers
from fhir_profiles.compiler import r4
from fhir_profiles.compiler.extensions import names_of
from fhir_profiles.compiler.finding import Check, Finding, Made, Severity, under
from fhir_profiles.compiler.invariant import SlowPath, invariant
from fhir_profiles.compiler.scope import Scope, scope
from fhir_profiles.compiler.terminology import Members, Terminology

Extra = Callable[[str], Sequence[Check]]
"""What more is to be checked of every value of a type: `Coding`, `Reference`, resources …"""

Stands = Callable[..., Check]
"""From the paths and types of an element to the check of the extensions that it has."""


class Base:
    """The checks of R4's types. Built when first asked for: types hold each other."""

    def __init__(
        self, terminology: Terminology, slow: SlowPath, extra: Extra, stands: Stands
    ) -> None:
        self._terminology = terminology
        self._slow = slow
        self._extra = extra
        self._stands = stands
        self._made = Made()
        self._resource = self._any_resource

    def of_type(self, name: str) -> Check | None:
        """Return the check of a type's values, or None where there is nothing to check."""
        if name in _PRIMITIVES:
            return _PRIMITIVES[name]
        kind = r4.types().get(name)
        if kind is None or kind.kind == "primitive-type":
            return None
        if name in {"Resource", "DomainResource"}:
            return self._resource
        return self._made.get(name, lambda: self._compiled(kind))

    def _any_resource(self, resource: Any, around: Scope) -> Sequence[Finding] | None:
        name = resource.get("resourceType") if isinstance(resource, dict) else None
        check = self.of_type(name) if isinstance(name, str) and name in r4.types() else None
        return check(resource, scope(resource, around)) if check is not None else None

    def _compiled(self, kind: r4.Type) -> Check:
        inherited = []
        base = r4.types().get(kind.base)
        steps: dict[str, Check] = {}
        while base is not None:  # Element, BackboneElement, Resource, DomainResource
            steps = self._steps(base, "") | steps
            inherited += self._constraints(base, "")
            base = r4.types().get(base.base)
        steps |= self._steps(kind, "")
        rules = [*inherited, *self._constraints(kind, ""), *self._extra(kind.name)]
        return _of_object(steps, rules, f"{r4.CORE}{kind.name}")

    def _constraints(self, kind: r4.Type, path: str) -> list[Check]:
        root = kind.elements.get(path)
        canonical = f"{r4.CORE}{kind.name}"
        rules = root.constraints if root is not None else ()
        return [invariant(rule, canonical, self._slow) for rule in rules]

    def _steps(self, kind: r4.Type, path: str) -> dict[str, Check]:
        """Return the checks of the elements right below a path, by their names in JSON."""
        steps: dict[str, Check] = {}
        element = self.of_type("Element")
        for one in kind.children(path):
            for key, ref in one.keys().items():
                check = self._of_element(kind, one, ref)
                if check is not None:
                    steps[key] = _step(key, check)
                if ref.code[:1].islower() and element is not None:
                    places = (f"{kind.name}.{one.path}", ref.code, "Element")
                    extended = together([element, self._stands(*places)])
                    steps[f"_{key}"] = _step(key, extended or element)
        return steps

    def _of_element(self, kind: r4.Type, element: r4.Element, ref: r4.TypeRef) -> Check | None:
        canonical = f"{r4.CORE}{kind.name}"
        parts: list[Check | None] = []
        if element.like is not None:
            parts.append(self._backbone(kind, element.like.partition(".")[2]))
        elif ref.code in {"BackboneElement", "Element"} and kind.children(element.path):
            parts.append(self._backbone(kind, element.path))
        else:
            parts.append(self.of_type(ref.code))
        if ref.code[:1].isupper() and ref.code not in _HELD:
            places = (f"{kind.name}.{element.path}", *names_of(ref.code))
            parts.append(self._stands(*places))
        if element.binding is not None and ref.code in CODED:
            strength, value_set = element.binding
            parts.append(bound(self._terminology, strength, value_set, ref.code, canonical))
        if ref.code == "Reference" and ref.targets:
            parts.append(leads_to(frozenset(ref.targets), f"{canonical}.{element.path}"))
        parts += [
            invariant(rule, canonical, self._slow) for rule in element.constraints if element.path
        ]
        return together([one for one in parts if one is not None])

    def _backbone(self, kind: r4.Type, path: str) -> Check:
        """Return the check of an element with elements of its own, perhaps itself among them."""

        def make() -> Check:
            element = r4.types()["BackboneElement"]
            steps = self._steps(r4.types()["Element"], "") | self._steps(element, "")
            steps |= self._steps(kind, path)
            return _of_object(steps, [], f"{r4.CORE}{kind.name}")

        return self._made.get(f"{kind.name}.{path}", make)


# -- how checks are put together -----------------------------------------------------------------


def together(checks: Sequence[Check]) -> Check | None:
    """Return one check that makes all of these, in order; None where there is none."""
    if not checks:
        return None
    if len(checks) == 1:
        return checks[0]
    if len(checks) == 2:
        first, second = checks

        def both(value: Any, around: Scope) -> Sequence[Finding] | None:
            wrong, more = first(value, around), second(value, around)
            return [*wrong, *more] if wrong and more else wrong or more

        return both

    def check(value: Any, around: Scope) -> list[Finding] | None:
        found: list[Finding] | None = None
        for one in checks:
            wrong = one(value, around)
            if wrong:
                found = [*found, *wrong] if found else [*wrong]
        return found

    return check


def _step(key: str, check: Check) -> Check:
    """Return the check of what stands under a name: of one value, or of each in a list."""

    def step(value: Any, around: Scope) -> list[Finding] | None:
        if type(value) is not list:
            wrong = check(value, around)
            return under(key, wrong) if wrong else None
        found: list[Finding] | None = None
        for place, one in enumerate(value):
            wrong = check(one, around) if one is not None else None
            if wrong:
                found = (found or []) + under(f"{key}[{place}]", wrong)
        return found

    return step


def _of_object(steps: Mapping[str, Check], rules: Sequence[Check], canonical: str) -> Check:
    empty = [Finding("error", "invariant", "", f"{canonical}#ele-1", "An element has content.")]
    step_of = steps.get

    def check(value: Any, around: Scope) -> list[Finding] | None:
        if type(value) is not dict:
            return None  # its shape is wrong, which is said elsewhere
        found: list[Finding] | None = None
        for key, held in value.items():
            step = step_of(key)
            wrong = step(held, around) if step is not None else None
            if type(held) is list and not held:
                wrong = under(key, _NOTHING_IN_IT)
            if wrong:
                found = [*found, *wrong] if found else [*wrong]
        for rule in rules:
            wrong = rule(value, around)
            if wrong:
                found = [*found, *wrong] if found else [*wrong]
        if len(value) < 2 and value.keys() <= _NO_CONTENT:
            return [*found, *empty] if found else empty
        return found

    return check


_NO_CONTENT: Final = {"id"}
_NOTHING_IN_IT: Final = [
    Finding("error", "structure", "", f"{r4.CORE}Element", "A list has something in it.")
]
_HELD: Final = frozenset({"Resource", "Extension"})
"""Resources see to their own extensions; those of an extension are its definition's."""


# -- primitives ----------------------------------------------------------------------------------


def _pattern(pattern: str, said: str, rule: str) -> Check:
    matches = re.compile(pattern).fullmatch
    found = [Finding("error", "value", "", f"{r4.CORE}{rule}", said)]

    def check(value: Any, _scope: Any) -> list[Finding] | None:
        return None if not isinstance(value, str) or matches(value) else found

    return check


def _calendar(value: Any, _scope: Any) -> list[Finding] | None:
    if not isinstance(value, str) or len(value) < 10:
        return None
    try:
        date.fromisoformat(value[:10])
    except ValueError:
        return _NO_SUCH_DAY
    return None


_NO_SUCH_DAY: Final = [Finding("error", "value", "", f"{r4.CORE}date", "There is no such day.")]
_URN: Final = "urn:uuid:"
_NO_UUID: Final = [
    Finding(
        "error", "value", "", f"{r4.CORE}uuid", "urn:uuid: is followed by a UUID in lower case."
    )
]


def _uri(value: Any, _scope: Any) -> list[Finding] | None:
    if not isinstance(value, str) or not value.startswith(_URN):
        return None
    named = value[len(_URN) :]
    return None if identifiers.uuid(named) == named else _NO_UUID


_PRIMITIVES: Final[Mapping[str, Check]] = {
    "id": _pattern(r"[A-Za-z0-9\-.]{1,64}", "An id is 1 to 64 letters, digits, - and dots.", "id"),
    "oid": _pattern(r"urn:oid:[0-2](\.(0|[1-9][0-9]*))+", "urn:oid: is followed by an OID.", "oid"),
    **dict.fromkeys(("date", "dateTime", "instant"), _calendar),
    **dict.fromkeys(("uri", "url", "uuid", "canonical"), _uri),
}


# -- codes and references ------------------------------------------------------------------------

CODED: Final = frozenset({"code", "Coding", "CodeableConcept", "Quantity", "string", "uri"})


def bound(
    terminology: Terminology, strength: str, value_set: str, kind: str, canonical: str
) -> Check:
    """Return the check that a code, coding or concept is a member of a value set.

    What is not a member is an error where the binding is required and a warning where it is
    extensible; what cannot be told is information.
    """
    severity: Severity = "error" if strength == "required" else "warning"
    rule = f"{canonical}#{value_set}"
    wrong = [Finding(severity, "code-invalid", "", rule, f"It has no code of {value_set}.")]
    members = terminology.members(value_set)
    missing = ", ".join(sorted(members.unknown)) if members.is_whole else value_set
    wrong_unknown = _unchecked(rule, missing)

    def told(holds: bool | None) -> list[Finding] | None:
        return None if holds else (wrong if holds is False else wrong_unknown)

    def of_code(value: Any, _scope: Any) -> list[Finding] | None:
        return told(members.holds(None, value)) if isinstance(value, str) else None

    def of_coding(value: Any, _scope: Any) -> list[Finding] | None:
        if not isinstance(value, dict) or "code" not in value:
            return None
        return told(_member(members, value))

    def of_concept(value: Any, _scope: Any) -> list[Finding] | None:
        if not isinstance(value, dict):
            return None
        held = value.get("coding")
        codings = [one for one in held if isinstance(one, dict)] if isinstance(held, list) else []
        if not codings:
            return wrong if strength == "required" and "text" not in value else None
        answers = [_member(members, one) for one in codings]
        if True in answers:
            return None
        return wrong_unknown if None in answers else wrong

    return {"Coding": of_coding, "Quantity": of_coding, "CodeableConcept": of_concept}.get(
        kind, of_code
    )


def _member(members: Members, coding: Mapping[str, Any]) -> bool | None:
    system, code = coding.get("system"), coding.get("code")
    if not isinstance(code, str):
        return False
    if not isinstance(system, str):
        return False
    return members.holds(system, code)


def _unchecked(rule: str, what: str) -> list[Finding]:
    said = f"Its code could not be checked: {what} is not loaded."
    return [Finding("information", "code-invalid", "", rule, said)]


def leads_to(targets: frozenset[str], rule: str) -> Check:
    """Return the check that a reference leads to one of these types, where that can be told."""
    wrong = [
        Finding("error", "structure", "", rule, f"It refers to {' or '.join(sorted(targets))}.")
    ]

    def check(value: Any, around: Scope) -> list[Finding] | None:
        if type(value) is not dict:
            return None
        named, reference = value.get("type"), value.get("reference")
        if isinstance(named, str) and named.removeprefix(r4.CORE) not in targets:
            return wrong
        if not isinstance(reference, str):
            return None
        target = around.resolve(reference)
        name = target.get("resourceType") if target is not None else _named(reference)
        return wrong if isinstance(name, str) and name not in targets else None

    return check


def _named(reference: str) -> str | None:
    """Return the type that a reference itself names, if any."""
    parts = reference.split("/")
    for place in range(len(parts) - 1, 0, -1):
        if parts[place - 1] in r4.types():
            return parts[place - 1]
    return None
