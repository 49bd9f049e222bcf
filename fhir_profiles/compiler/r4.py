"""What FHIR R4 itself says of its types, read from `fhir_profiles/r4`: public domain, unchanged.

`scripts/r4-definitions` wrote those files.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

CORE: Final = "http://hl7.org/fhir/StructureDefinition/"


@dataclass(frozen=True, slots=True)
class Constraint:
    """An invariant: its key, how grave, what it says, and the FHIRPath that must be true."""

    key: str
    severity: str
    human: str
    expression: str


@dataclass(frozen=True, slots=True)
class TypeRef:
    """A type that an element may have, and where its references may lead (nowhere: anywhere)."""

    code: str
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a type. `path` begins below the type; `name` has lost its `[x]`."""

    path: str
    least: int
    most: str
    types: tuple[TypeRef, ...]
    constraints: tuple[Constraint, ...] = ()
    binding: tuple[str, str] | None = None
    like: str | None = None
    """The element, with its type, whose content this one repeats."""

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2].removesuffix("[x]")

    @property
    def is_choice(self) -> bool:
        return self.path.endswith("[x]")

    @property
    def is_list(self) -> bool:
        return self.most not in {"0", "1"}

    def keys(self) -> Mapping[str, TypeRef]:
        """Return the names that the element may have in JSON, each with its type."""
        if not self.is_choice:
            return {self.name: self.types[0] if self.types else TypeRef("Element")}
        return {f"{self.name}{one.code[:1].upper()}{one.code[1:]}": one for one in self.types}


@dataclass(frozen=True, slots=True)
class Type:
    """A type: primitive, complex or resource, with its own elements by their paths."""

    name: str
    kind: str
    base: str
    elements: Mapping[str, Element] = field(repr=False)

    def children(self, path: str) -> list[Element]:
        """Return the elements right below one; the type itself has the empty path."""
        depth = path.count(".") + 1 if path else 0
        prefix = f"{path}." if path else ""
        return [
            one
            for one in self.elements.values()
            if one.path and one.path.startswith(prefix) and one.path.count(".") == depth
        ]


@cache
def types() -> Mapping[str, Type]:
    """Return every type of R4 by its name."""
    held = _read("types.json")
    rules = {
        key: Constraint(key.partition("@")[0], *said) for key, said in held["constraints"].items()
    }
    return MappingProxyType(
        {
            name: Type(
                name,
                one["kind"],
                one["base"],
                {path: _element(path, row, rules) for path, row in one["elements"].items()},
            )
            for name, one in held["types"].items()
        }
    )


def members(kind: Type, path: str) -> Mapping[str, tuple[Type, Element, TypeRef]]:
    """Return the elements right below a path, those of the type's bases too, by name in JSON.

    Each comes with the type that it is defined in.
    """
    bases = [kind, *([types()["BackboneElement"]] if path else [])]
    while bases[-1].base in types():
        bases.append(types()[bases[-1].base])
    found: dict[str, tuple[Type, Element, TypeRef]] = {}
    for place, one in enumerate(bases):
        for element in one.children(path if place == 0 else ""):
            for key, ref in element.keys().items():
                found.setdefault(key, (one, element, ref))
    return found


@cache
def choices() -> Mapping[str, frozenset[str]]:
    """Return the names in JSON of every choice element (`value`: `valueString` …)."""
    found: dict[str, set[str]] = {}
    for one in types().values():
        for element in one.elements.values():
            if element.is_choice:
                found.setdefault(element.name, set()).update(element.keys())
    return MappingProxyType({name: frozenset(keys) for name, keys in found.items()})


@cache
def extensions() -> Mapping[str, Any]:
    """Return R4's own extensions by URL: where each may stand, and its elements."""
    return MappingProxyType(_read("extensions.json"))


@cache
def codes() -> Mapping[str, Any]:
    """Return the codes of R4's bindings: `codeSystems` and `valueSets`."""
    return MappingProxyType(_read("codes.json"))


def _element(path: str, row: Mapping[str, Any], rules: Mapping[str, Constraint]) -> Element:
    given = row.get("types", ())
    binding = row.get("binding")
    return Element(
        path=path,
        least=row["min"],
        most=row["max"],
        types=tuple(
            TypeRef(one) if isinstance(one, str) else TypeRef(one[0], tuple(one[1:]))
            for one in given
        ),
        constraints=tuple(rules[key] for key in row.get("constraints", ())),
        binding=(binding[0], binding[1]) if binding else None,
        like=row.get("like"),
    )


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((files("fhir_profiles") / "r4" / name).read_bytes())
    return found
