"""FHIRPath trees to Python closures over raw JSON.

What is asked about is a list of JSON values, as FHIRPath's collections are. A primitive that has
only extensions stands as its `_name` object, which is how it is there but has no value. What cannot
be said without the FHIR type of a value is refused as NotCompiled: a library that is slow but knows
types takes over.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from fhir_profiles.compiler.fhirpath import Binary, Call, Index, Literal, Member, Node, Variable
from fhir_profiles.compiler.operations import (
    CRITERIA,
    FUNCTIONS,
    LOGIC,
    OPERATORS,
    Env,
    Items,
    Truth,
    Values,
    is_equal,
    resolved,
)


class NotCompiled(Exception):
    """The expression needs what closures over raw JSON cannot say."""


def truth(node: Node, choices: Mapping[str, frozenset[str]]) -> Truth:
    """Compile an expression that says yes or no. Raises NotCompiled."""
    return _Compiler(choices).truth(node)


def values(node: Node, choices: Mapping[str, frozenset[str]]) -> Values:
    """Compile an expression that gives values. Raises NotCompiled."""
    return _Compiler(choices).values(node)


_CONSTANTS: Final = {
    "ucum": "http://unitsofmeasure.org",
    "sct": "http://snomed.info/sct",
    "loinc": "http://loinc.org",
}
_PRIMITIVES: Final[Mapping[str, tuple[type, ...]]] = {
    "boolean": (bool,),
    "integer": (int,),
    "positiveint": (int,),
    "unsignedint": (int,),
    "decimal": (Decimal, float, int),
    **dict.fromkeys(
        ("string", "uri", "url", "canonical", "code", "id", "oid", "uuid", "markdown"), (str,)
    ),
}


@dataclass(frozen=True, slots=True)
class _Compiler:
    choices: Mapping[str, frozenset[str]] = field(repr=False)
    """From the name of a choice element (`value`) to its names in JSON (`valueString` …)."""

    # -- yes or no -------------------------------------------------------------------------------

    def truth(self, node: Node) -> Truth:
        match node:
            case Binary(("and" | "or" | "xor" | "implies") as operator, left, right):
                return LOGIC[operator](self.truth(left), self.truth(right))
            case Binary(("=" | "!=") as operator, left, right):
                return self._equality(left, right, wanted=operator == "=")
            case Call(of, "exists", ()) if of is not None:
                there = self.values(of)
                return lambda items, env: bool(there(items, env))
            case Call(of, "empty", ()):
                there = self._focus(of)
                return lambda items, env: not there(items, env)
            case Call(of, "not", ()):
                asked = self.truth(of) if of is not None else _singleton
                return lambda items, env: None if (it := asked(items, env)) is None else not it
        found = self.values(node)
        return lambda items, env: _singleton(found(items, env), env)

    def _equality(self, left: Node, right: Node, *, wanted: bool) -> Truth:
        ours = self.values(left)
        if isinstance(right, Literal) and isinstance(right.value, str):
            text = right.value

            def equals_text(items: Items, env: Env) -> bool | None:
                found = ours(items, env)
                if not found:
                    return None
                return (len(found) == 1 and found[0] == text) is wanted

            return equals_text
        theirs = self.values(right)

        def equals(items: Items, env: Env) -> bool | None:
            one, other = ours(items, env), theirs(items, env)
            if not one or not other:
                return None
            same = len(one) == len(other) and all(map(is_equal, one, other))
            return same is wanted

        return equals

    # -- values ----------------------------------------------------------------------------------

    def values(self, node: Node) -> Values:
        match node:
            case Literal(value):
                constant: Items = () if value is None else (value,)
                return lambda _items, _env: constant
            case Variable("$this"):
                return _same
            case Variable("resource" | "context"):
                return lambda _items, env: (env.resource,)
            case Variable("rootResource"):
                return lambda _items, env: (env.root,)
            case Variable(name) if name in _CONSTANTS:
                known = (_CONSTANTS[name],)
                return lambda _items, _env: known
            case Member(None, name) if name[:1].isupper():  # the type of what is asked about
                return _same
            case Member(of, name):
                return self._member(of, name)
            case Index(of, place):
                inner, number = self.values(of), self.values(place)
                return lambda items, env: _at(inner(items, env), number(items, env))
            case Call(of, name, arguments):
                return self._call(of, name, arguments)
            case Binary(operator, left, right):
                return self._binary(operator, left, right)
        raise NotCompiled(f"{node} has no meaning here")

    def _focus(self, of: Node | None) -> Values:
        return _same if of is None else self.values(of)

    def _member(self, of: Node | None, name: str) -> Values:
        shadow, choice = f"_{name}", self.choices.get(name)

        def member(items: Items, _env: Env) -> Items:
            found: list[Any] = []
            for item in items:
                if type(item) is not dict:
                    continue
                value = item.get(name)
                if value is None and choice is not None:
                    value = _chosen(item, choice)
                if value is None:
                    value = item.get(shadow)
                if type(value) is list:
                    found += [one for one in _merged(value, item.get(shadow)) if one is not None]
                elif value is not None:
                    found.append(value)
            return found

        if of is None:
            return member
        inner = self.values(of)
        return lambda items, env: member(inner(items, env), env)

    def _binary(self, operator: str, left: Node, right: Node) -> Values:
        if operator in {"is", "as"}:
            return self._typed(left, operator, right)
        if operator in LOGIC or operator in {"=", "!="}:
            asked = self.truth(Binary(operator, left, right))
            return lambda items, env: _told(asked(items, env))
        one, other = self.values(left), self.values(right)
        combine = OPERATORS.get(operator)
        if combine is None:
            raise NotCompiled(f"the operator {operator}")
        return lambda items, env: combine(one(items, env), other(items, env))

    def _call(self, of: Node | None, name: str, arguments: tuple[Node, ...]) -> Values:
        if name in {"exists", "empty", "not"} and not arguments:
            asked = self.truth(Call(of or Variable("$this"), name, ()))
            return lambda items, env: _told(asked(items, env))
        if name in {"is", "as", "ofType"}:
            return self._typed(of or Variable("$this"), name, arguments[0])
        inner = self._focus(of)
        if name in CRITERIA:
            criteria, many = self.truth(arguments[0]), CRITERIA[name]
            return lambda items, env: many(inner(items, env), criteria, env)
        if name in {"select", "repeat"}:
            if name == "repeat":
                raise NotCompiled("repeat")
            projected = self.values(arguments[0])
            return lambda items, env: [
                one for item in inner(items, env) for one in projected((item,), env)
            ]
        if name == "iif":
            return self._iif(inner, arguments)
        if name == "resolve":
            return lambda items, env: resolved(inner(items, env), env)
        if name == "trace":
            return inner
        function = FUNCTIONS.get(name)
        if function is None:
            raise NotCompiled(f"the function {name}")
        given = [self.values(argument) for argument in arguments]

        def call(items: Items, env: Env) -> Items:
            found = inner(items, env)
            return function(found, *(one(items, env) for one in given))

        return call

    def _iif(self, inner: Values, arguments: tuple[Node, ...]) -> Values:
        asked, then = self.truth(arguments[0]), self.values(arguments[1])
        other = self.values(arguments[2]) if len(arguments) > 2 else _nothing

        def iif(items: Items, env: Env) -> Items:
            found = inner(items, env)
            return then(found, env) if asked(found, env) else other(found, env)

        return iif

    def _typed(self, of: Node, operator: str, wanted: Node) -> Values:
        name = str(wanted.value) if isinstance(wanted, Literal) else ""
        if isinstance(of, Member) and of.name in self.choices:  # its name in JSON tells its type
            chosen = f"{of.name}{name[:1].upper()}{name[1:]}"
            if chosen in self.choices[of.name]:
                exact, anything = self._member(of.of, chosen), self.values(of)
                if operator != "is":
                    return exact
                return lambda items, env: (bool(exact(items, env)),) if anything(items, env) else ()
        matches = _type_test(name)
        inner = self.values(of)
        if operator == "is":
            return lambda items, env: [matches(item) for item in inner(items, env)]
        return lambda items, env: [item for item in inner(items, env) if matches(item)]


# -- how values are told apart -------------------------------------------------------------------


def _type_test(name: str) -> Callable[[Any], bool]:
    kinds = _PRIMITIVES.get(name.lower())
    if kinds is not None:
        return lambda item: (
            isinstance(item, kinds) and (isinstance(item, bool) == (kinds == (bool,)))
        )
    if name in {"Resource", "DomainResource"}:
        return lambda item: isinstance(item, dict) and "resourceType" in item
    if name[:1].isupper():
        # Of an element that is no resource raw JSON does not say what type it has.
        return lambda item: isinstance(item, dict) and item.get("resourceType") == name
    raise NotCompiled(f"the type {name}")


def _chosen(item: Mapping[str, Any], choice: frozenset[str]) -> Any:
    for key, value in item.items():
        if key in choice:
            return value
    return next((item[f"_{key}"] for key in choice if f"_{key}" in item), None)


def _merged(value: list[Any], shadow: Any) -> Iterable[Any]:
    if not isinstance(shadow, list):
        return value
    return [one if one is not None else other for one, other in zip(value, shadow, strict=False)]


def _singleton(items: Items, _env: Env) -> bool | None:
    if not items:
        return None
    return items[0] if isinstance(items[0], bool) else True


def _told(answer: bool | None) -> Items:
    return () if answer is None else (answer,)


def _same(items: Items, _env: Env) -> Items:
    return items


def _nothing(_items: Items, _env: Env) -> Items:
    return ()


def _at(items: Items, place: Items) -> Items:
    return items[place[0] : place[0] + 1] if place else ()
