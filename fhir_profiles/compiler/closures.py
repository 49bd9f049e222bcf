"""FHIRPath trees to Python closures over raw JSON.

What is asked about is a list of JSON values, as FHIRPath's collections are. A primitive that has
only extensions stands as its `_name` object, which is how it is there but has no value. What cannot
be said without the FHIR type of a value is refused as NotCompiled: a library that is slow but knows
types takes over.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from fhir_profiles.compiler import markup
from fhir_profiles.compiler.fhirpath import Binary, Call, Index, Literal, Member, Node, Variable

Items = Sequence[Any]
Values = Callable[[Items, "Env"], Items]
Truth = Callable[[Items, "Env"], bool | None]
"""Three-valued: None is FHIRPath's empty."""


class NotCompiled(Exception):
    """The expression needs what closures over raw JSON cannot say."""


def _unresolved(_reference: str) -> Any:
    return None


@dataclass(slots=True)
class Env:
    """What an expression may ask for besides its focus."""

    resource: Any = None
    """`%resource`: the resource that holds the focus."""
    root: Any = None
    """`%rootResource`: what contains that resource, or itself."""
    resolve: Callable[[str], Any] = _unresolved
    """From a reference to the resource, where it is at hand."""


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
                return _LOGIC[operator](self.truth(left), self.truth(right))
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
            same = len(one) == len(other) and all(map(_is_equal, one, other))
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
        if operator in _LOGIC or operator in {"=", "!="}:
            asked = self.truth(Binary(operator, left, right))
            return lambda items, env: _told(asked(items, env))
        one, other = self.values(left), self.values(right)
        combine = _OPERATORS.get(operator)
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
        if name in _CRITERIA:
            criteria, many = self.truth(arguments[0]), _CRITERIA[name]
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
            return lambda items, env: _resolved(inner(items, env), env)
        if name == "trace":
            return inner
        function = _FUNCTIONS.get(name)
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


def _is_equal(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


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


def _children(items: Items) -> list[Any]:
    found: list[Any] = []
    for item in items:
        if type(item) is not dict:
            continue
        for key, value in item.items():
            if key == "resourceType" or (key[0] == "_" and key[1:] in item):
                continue
            found += [one for one in value if one is not None] if type(value) is list else [value]
    return found


def _descendants(items: Items) -> list[Any]:
    found: list[Any] = []
    level = _children(items)
    while level:
        found += level
        level = _children(level)
    return found


def _resolved(items: Items, env: Env) -> Items:
    found = []
    for item in items:
        reference = item.get("reference") if isinstance(item, dict) else item
        resource = env.resolve(reference) if isinstance(reference, str) else None
        if resource is not None:
            found.append(resource)
    return found


def _distinct(items: Items) -> list[Any]:
    found: list[Any] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found


# -- operators -----------------------------------------------------------------------------------


def _and(one: Truth, other: Truth) -> Truth:
    def both(items: Items, env: Env) -> bool | None:
        left = one(items, env)
        if left is False:
            return False
        right = other(items, env)
        return False if right is False else (None if left is None or right is None else True)

    return both


def _or(one: Truth, other: Truth) -> Truth:
    def either(items: Items, env: Env) -> bool | None:
        left = one(items, env)
        if left:
            return True
        right = other(items, env)
        return True if right else (None if left is None or right is None else False)

    return either


def _xor(one: Truth, other: Truth) -> Truth:
    def differ(items: Items, env: Env) -> bool | None:
        left, right = one(items, env), other(items, env)
        return None if left is None or right is None else left is not right

    return differ


def _implies(one: Truth, other: Truth) -> Truth:
    def follows(items: Items, env: Env) -> bool | None:
        left = one(items, env)
        if left is False:
            return True
        right = other(items, env)
        return True if right else (None if left is None or right is None else False)

    return follows


_LOGIC: Final[Mapping[str, Callable[[Truth, Truth], Truth]]] = {
    "and": _and,
    "or": _or,
    "xor": _xor,
    "implies": _implies,
}


def _compare(test: Callable[[Any, Any], bool]) -> Callable[[Items, Items], Items]:
    def compare(one: Items, other: Items) -> Items:
        if not one or not other:
            return ()
        left, right = one[0], other[0]
        if isinstance(left, str) and isinstance(right, str):
            left, right = _moments(left, right)
        try:
            return (test(left, right),)
        except TypeError:
            return ()

    return compare


def _moments(one: str, other: str) -> tuple[str, str]:
    """Return two dates or times so that they compare: as far as both are precise, in UTC."""
    if _DATE.match(one) and _DATE.match(other):
        one, other = _in_utc(one), _in_utc(other)
        shared = min(len(one), len(other))
        return one[:shared], other[:shared]
    return one, other


def _union(one: Items, other: Items) -> Items:
    return _distinct([*one, *other])


def _joined(one: Items, other: Items) -> Items:
    return ("".join(str(items[0]) if items else "" for items in (one, other)),)


def _arithmetic(test: Callable[[Any, Any], Any]) -> Callable[[Items, Items], Items]:
    def reckon(one: Items, other: Items) -> Items:
        try:
            return (test(one[0], other[0]),) if one and other else ()
        except TypeError:  # values of the wrong shape, which is said elsewhere
            return ()

    return reckon


def _within(one: Items, other: Items) -> Items:
    return (any(_is_equal(one[0], item) for item in other),) if one else ()


_DATE: Final = re.compile(r"\d{4}(-\d\d(-\d\d(T.*)?)?)?$")


def _in_utc(moment: str) -> str:
    """Return a date-time as it is in UTC, without its offset; a date as it stands."""
    if "T" not in moment:
        return moment
    try:
        return datetime.fromisoformat(moment).astimezone(UTC).isoformat()[:-6]
    except (ValueError, OverflowError):
        return moment


_OPERATORS: Final[Mapping[str, Callable[[Items, Items], Items]]] = {
    "<": _compare(operator.lt),
    "<=": _compare(operator.le),
    ">": _compare(operator.gt),
    ">=": _compare(operator.ge),
    "+": _arithmetic(operator.add),
    "-": _arithmetic(operator.sub),
    "*": _arithmetic(operator.mul),
    "|": _union,
    "&": _joined,
    "in": _within,
    "contains": lambda one, other: _within(other, one),
}


# -- functions -----------------------------------------------------------------------------------


def _where(items: Items, criteria: Truth, env: Env) -> Items:
    return [item for item in items if criteria((item,), env)]


def _exists(items: Items, criteria: Truth, env: Env) -> Items:
    return (any(criteria((item,), env) for item in items),)


def _all(items: Items, criteria: Truth, env: Env) -> Items:
    return (all(criteria((item,), env) for item in items),)


_CRITERIA: Final[Mapping[str, Callable[[Items, Truth, Env], Items]]] = {
    "where": _where,
    "exists": _exists,
    "all": _all,
}


def _text(test: Callable[..., Any]) -> Callable[..., Items]:
    """Ask a single string; FHIRPath's empty stays empty."""

    def ask(items: Items, *given: Items) -> Items:
        if not items or not isinstance(items[0], str) or not all(given):
            return ()
        try:
            return (test(items[0], *(one[0] for one in given)),)
        except TypeError:
            return ()

    return ask


def _to_integer(items: Items) -> Items:
    if not items or not _INTEGER.fullmatch(str(items[0])):
        return ()
    return (int(items[0]),)


_INTEGER: Final = re.compile(r"[+-]?\d+")

_FUNCTIONS: Final[Mapping[str, Callable[..., Items]]] = {
    "count": lambda items: (len(items),),
    "first": lambda items: items[:1],
    "last": lambda items: items[-1:],
    "tail": lambda items: items[1:],
    "single": lambda items: items[:1],
    "distinct": _distinct,
    "isDistinct": lambda items: (len(_distinct(items)) == len(items),),
    "hasValue": lambda items: (len(items) == 1 and not isinstance(items[0], dict),),
    "children": _children,
    "descendants": _descendants,
    "htmlChecks": lambda items: (all(map(markup.is_allowed, items)),),
    "combine": lambda items, other: [*items, *other],
    "union": _union,
    "intersect": lambda items, other: _distinct([item for item in items if item in other]),
    "subsetOf": lambda items, other: (all(item in other for item in items),),
    "extension": lambda items, url: [
        one
        for item in items
        if isinstance(item, dict)
        for one in item.get("extension", ())
        if url and one.get("url") == url[0]
    ],
    "matches": _text(lambda text, pattern: re.search(pattern, text) is not None),
    "replaceMatches": _text(lambda text, pattern, by: re.sub(pattern, by, text)),
    "startsWith": _text(str.startswith),
    "endsWith": _text(str.endswith),
    "contains": _text(operator.contains),
    "length": _text(len),
    "upper": _text(str.upper),
    "lower": _text(str.lower),
    "substring": _text(lambda text, start, *length: text[start:][: length[0] if length else None]),
    "toString": lambda items: (str(items[0]),) if items else (),
    "toInteger": _to_integer,
}
