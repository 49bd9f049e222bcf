"""What a profile adds to its type: the differentials of its whole chain, laid over each other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fhir_profiles.compiler import r4
from fhir_profiles.compiler.r4 import Constraint

MANY: Final = -1
"""As the greatest number of an element: as many as there are."""


@dataclass(frozen=True, slots=True)
class TypeRule:
    """A type that an element may have: its profiles, and those that its references may lead to."""

    code: str
    profiles: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Slicing:
    """By what the values of an element are told apart: (type, path) of each discriminator."""

    discriminators: tuple[tuple[str, str], ...]
    is_closed: bool = False
    is_ordered: bool = False


@dataclass(slots=True)
class Node:
    """An element as the chain leaves it. What is None or empty the chain does not speak of."""

    name: str
    is_choice: bool = False
    least: int | None = None
    most: int | None = None
    types: tuple[TypeRule, ...] = ()
    fixed: Any = None
    pattern: Any = None
    binding: tuple[str, str] | None = None
    constraints: list[tuple[Constraint, str]] = field(default_factory=list)
    children: "dict[str, Node]" = field(default_factory=dict)
    slicing: Slicing | None = None
    slices: "dict[str, Node]" = field(default_factory=dict)
    rule: str = ""
    """The canonical of the profile that spoke last."""
    unread: list[str] = field(default_factory=list)
    """Names of rules that are not understood here."""

    def at(self, path: str) -> "Node | None":
        """Return the node below this one at a dotted path, or None."""
        found: Node | None = self
        for name in path.split(".") if path else ():
            found = found.children.get(name) if found is not None else None
        return found

    def below(self) -> "Iterator[Node]":
        """Return this node and all below it."""
        yield self
        for one in (*self.children.values(), *self.slices.values()):
            yield from one.below()


def overlay(chain: Sequence[Mapping[str, Any]]) -> Node:
    """Lay the differentials of StructureDefinitions over each other, the most general first."""
    root = Node(chain[0]["type"])
    for definition in chain:
        part = definition.get("differential") or definition.get("snapshot") or {}
        opened: dict[str, str] = {}
        for element in part.get("element", ()):
            identity = _identity(element, opened)
            node = _find(root, identity.split(".")[1:], definition["url"])
            _speak(node, element, definition["url"])
    for node in [*root.below()]:
        for one in node.slices.values():
            _inherit(one, node)
    return root


def _inherit(one: Node, above: Node) -> None:
    """Let a slice know how the element that it is a slice of tells its own parts apart."""
    one.slicing = one.slicing or above.slicing
    for name, child in above.children.items():
        if name in one.children:
            _inherit(one.children[name], child)
        elif child.fixed is not None or child.pattern is not None:
            one.children[name] = child
    for name, part in above.slices.items():
        if name in one.slices and one is not part:
            _inherit(one.slices[name], part)


def _identity(element: Mapping[str, Any], opened: dict[str, str]) -> str:
    """Return an element's id, made from path and slice names where it has none.

    `opened` holds the id of the element last seen at each path.
    """
    path: str = element["path"]
    identity = element.get("id")
    if identity is None:
        parent, dot, name = path.rpartition(".")
        identity = f"{opened.get(parent, parent)}{dot}{name}"
        if "sliceName" in element:
            identity = f"{identity}:{element['sliceName']}"
    opened[path] = identity
    return str(identity)


def _find(root: Node, steps: Sequence[str], canonical: str) -> Node:
    """Return the node of an id's steps, made where it is not there yet."""
    found = root
    for step in steps:
        name, _, part = step.partition(":")
        is_choice = name.endswith("[x]")
        name = name.removesuffix("[x]")
        if is_choice and part in r4.choices().get(name, ()):  # one of its types, under its own name
            name, part, is_choice = part, "", False
        found = found.children.setdefault(name, Node(name, is_choice, rule=canonical))
        for one in part.split("/") if part else ():  # a slice of a slice
            found = found.slices.setdefault(one, Node(found.name, rule=canonical))
    return found


_READ: Final = frozenset(
    (
        *("id", "path", "min", "max", "type", "binding", "constraint", "slicing", "sliceName"),
        # what tells people and machines about an element, but rules out no value
        *("short", "definition", "comment", "requirements", "alias", "mustSupport", "isSummary"),
        *(
            "isModifier",
            "isModifierReason",
            "meaningWhenMissing",
            "orderMeaning",
            "mapping",
            "base",
        ),
        *("example", "label", "code", "representation", "sliceIsConstraining", "condition"),
        *("extension", "defaultValue", "contentReference"),
    )
)


def _speak(node: Node, element: Mapping[str, Any], canonical: str) -> None:
    """Let one element of a differential say what it says."""
    node.rule = canonical
    if "min" in element:
        node.least = max(int(element["min"]), node.least or 0)
    if "max" in element:
        node.most = MANY if element["max"] == "*" else int(element["max"])
    if "type" in element:
        node.types = tuple(map(_type, element["type"]))
    binding = element.get("binding", {})
    if binding.get("strength") in {"required", "extensible"} and "valueSet" in binding:
        node.binding = (binding["strength"], binding["valueSet"])
    if "slicing" in element:
        node.slicing = _slicing(element["slicing"])
    for one in element.get("constraint", ()):
        if "expression" in one and not one.get("source", canonical).startswith(r4.CORE):
            said = Constraint(one["key"], one["severity"], one["human"], one["expression"])
            node.constraints.append((said, canonical))
    for name, value in element.items():
        if name.startswith("fixed"):
            node.fixed = value
        elif name.startswith("pattern"):
            node.pattern = value
        elif name not in _READ:
            node.unread.append(f"{element['path']}.{name}")


def _type(given: Mapping[str, Any]) -> TypeRule:
    code = str(given["code"])
    return TypeRule(
        "string" if code.startswith("http://hl7.org/fhirpath/") else code,
        tuple(one.partition("|")[0] for one in given.get("profile", ())),
        tuple(one.partition("|")[0] for one in given.get("targetProfile", ())),
    )


def _slicing(given: Mapping[str, Any]) -> Slicing:
    return Slicing(
        tuple((one["type"], one["path"]) for one in given.get("discriminator", ())),
        given.get("rules") == "closed",
        bool(given.get("ordered")),
    )
