"""One constraint of FHIR as a check of a value."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from fhir_profiles.compiler import closures, fhirpath, r4
from fhir_profiles.compiler.closures import NotCompiled
from fhir_profiles.compiler.fhirpath import (
    Binary,
    Call,
    Index,
    Literal,
    Member,
    Node,
    NotFhirPath,
    Variable,
)
from fhir_profiles.compiler.finding import Check, Finding, Severity
from fhir_profiles.compiler.operations import Env, Truth, descendants

SlowPath = Callable[[str], Truth]
"""Makes a truth of an expression that closures cannot say."""

_EMPTY: Final[Mapping[str, Any]] = {}
_AWARE: Final = frozenset({"children", "descendants", "htmlChecks", "hasValue", "resolve"})


def invariant(rule: r4.Constraint, canonical: str, slow: SlowPath) -> Check:
    """Return the check of a constraint; its rule is the canonical, then its key.

    What comes out empty is not broken: an element that is not there breaks no rule about it.
    """
    needed: frozenset[str] | None = None
    try:
        node = fhirpath.parse(rule.expression)
        holds = closures.truth(node, r4.choices())
        needed = _mentioned(node)
    except (NotFhirPath, NotCompiled):
        holds = slow(rule.expression)
    severity: Severity = "error" if rule.severity == "error" else "warning"
    found = [Finding(severity, "invariant", "", f"{canonical}#{rule.key}", rule.human)]

    often = _OFTEN.get(rule.expression)
    if often is not None:
        return lambda value, scope: None if often(value, scope.env) else found

    def check(value: Any, scope: Any) -> list[Finding] | None:
        return found if holds((value,), scope.env) is False else None

    if needed is None or holds((_EMPTY,), Env()) is False:
        return check

    def check_if_concerned(value: Any, scope: Any) -> list[Finding] | None:
        # Of what has none of the elements that the rule speaks of, it is true.
        if type(value) is not dict or needed.isdisjoint(value):
            return None
        return found if holds((value,), scope.env) is False else None

    return check_if_concerned


def _has_value_or_parts(extension: Any, _env: Env) -> bool:
    if type(extension) is not dict:
        return True
    has_value = any(key.startswith(("value", "_value")) for key in extension)
    return has_value != ("extension" in extension)


def _is_contained_if_local(reference: Any, env: Env) -> bool:
    target = reference.get("reference") if type(reference) is dict else None
    if not isinstance(target, str) or target[:1] != "#":
        return True
    held = env.root.get("contained")
    return isinstance(held, list) and any(
        isinstance(one, dict) and one.get("id") == target[1:] for one in held
    )


def _are_contained_referred_to(resource: Any, env: Env) -> bool:
    held = resource.get("contained") if type(resource) is dict else None
    if type(held) is not list:
        return True
    said = _texts(env.resource)
    return all(
        type(one) is not dict
        or not isinstance(one.get("id"), str)
        or f"#{one['id']}" in said
        or "#" in _texts(one)
        for one in held
    )


def _texts(value: Any) -> set[str]:
    return {one for one in descendants((value,)) if isinstance(one, str)}


# Asked of every extension and every reference, or (dom-3) of each contained resource about all that
# stands beside it, by FHIRPath in their number cubed: so said in Python, held to FHIRPath by tests.
_OFTEN: Final[Mapping[str, Callable[[Any, Env], bool]]] = {
    "extension.exists() != value.exists()": _has_value_or_parts,
    (
        "reference.startsWith('#').not() or (reference.substring(1).trace('url') in "
        "%rootResource.contained.id.trace('ids'))"
    ): _is_contained_if_local,
    (
        "contained.where((('#'+id in (%resource.descendants().reference"
        " | %resource.descendants().as(canonical) | %resource.descendants().as(uri)"
        " | %resource.descendants().as(url))) or descendants().where(reference = '#').exists()"
        " or descendants().where(as(canonical) = '#').exists()"
        " or descendants().where(as(canonical) = '#').exists()).not())"
        ".trace('unmatched', id).empty()"
    ): _are_contained_referred_to,
}


def _mentioned(node: Node) -> frozenset[str] | None:
    """Return the names, at the value itself, that decide an expression; None if more than they."""
    names: set[str] = set()
    return frozenset(names) if _collect(node, names) else None


def _collect(node: Node | None, names: set[str]) -> bool:
    match node:
        case Literal() | None:
            return True
        case Variable(name):
            return name not in {"$this", "resource", "rootResource", "context"}
        case Member(None, name):
            if name[:1].isupper():
                return False
            names.update({name, f"_{name}"})
            for key in r4.choices().get(name, ()):
                names.update({key, f"_{key}"})
            return True
        case Member(of, _):
            return _collect(of, names)
        case Call(of, name, arguments):
            if name in _AWARE or of is None:
                return False
            # Arguments are asked of what was found, or of the value itself: both are counted.
            return _collect(of, names) and all(_collect(one, names) for one in arguments)
        case Index(of, place):
            return _collect(of, names) and _collect(place, names)
        case Binary(_, left, right):
            return _collect(left, names) and _collect(right, names)
    return False
