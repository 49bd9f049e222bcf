"""What FHIRPath's operators and functions do to values, and what an expression may ask for."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from fhir_profiles.compiler import markup

Items = Sequence[Any]
Values = Callable[[Items, "Env"], Items]
Truth = Callable[[Items, "Env"], bool | None]
"""Three-valued: None is FHIRPath's empty."""


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


LOGIC: Final[Mapping[str, Callable[[Truth, Truth], Truth]]] = {
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
    return (any(is_equal(one[0], item) for item in other),) if one else ()


_DATE: Final = re.compile(r"\d{4}(-\d\d(-\d\d(T.*)?)?)?$")


def _in_utc(moment: str) -> str:
    """Return a date-time as it is in UTC, without its offset; a date as it stands."""
    if "T" not in moment:
        return moment
    try:
        return datetime.fromisoformat(moment).astimezone(UTC).isoformat()[:-6]
    except (ValueError, OverflowError):
        return moment


OPERATORS: Final[Mapping[str, Callable[[Items, Items], Items]]] = {
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


def is_equal(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


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


def descendants(items: Items) -> list[Any]:
    """Return all that stands in these, at any depth."""
    found: list[Any] = []
    level = _children(items)
    while level:
        found += level
        level = _children(level)
    return found


def resolved(items: Items, env: Env) -> Items:
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


def _where(items: Items, criteria: Truth, env: Env) -> Items:
    return [item for item in items if criteria((item,), env)]


def _exists(items: Items, criteria: Truth, env: Env) -> Items:
    return (any(criteria((item,), env) for item in items),)


def _all(items: Items, criteria: Truth, env: Env) -> Items:
    return (all(criteria((item,), env) for item in items),)


CRITERIA: Final[Mapping[str, Callable[[Items, Truth, Env], Items]]] = {
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

FUNCTIONS: Final[Mapping[str, Callable[..., Items]]] = {
    "count": lambda items: (len(items),),
    "first": lambda items: items[:1],
    "last": lambda items: items[-1:],
    "tail": lambda items: items[1:],
    "single": lambda items: items[:1],
    "distinct": _distinct,
    "isDistinct": lambda items: (len(_distinct(items)) == len(items),),
    "hasValue": lambda items: (len(items) == 1 and not isinstance(items[0], dict),),
    "children": _children,
    "descendants": descendants,
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
