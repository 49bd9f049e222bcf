"""FHIRPath (normative, 2.0): from text to a tree. What it means is in `closures`.

Every expression of the grammar that FHIR's invariants use is read; quantities and dates as literals
are not, and are refused like any other mistake.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Final


class NotFhirPath(ValueError):
    """The text is not FHIRPath, or holds what no invariant uses."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A string, number or boolean; `{}` is none of them."""

    value: str | int | Decimal | bool | None


@dataclass(frozen=True, slots=True)
class Variable:
    """`%name`, or `$this` as its own name."""

    name: str


@dataclass(frozen=True, slots=True)
class Member:
    """`of.name`; without an `of` it begins at what the expression is asked about."""

    of: "Node | None"
    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """`of.name(arguments)`."""

    of: "Node | None"
    name: str
    arguments: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Index:
    """`of[place]`."""

    of: "Node"
    place: "Node"


@dataclass(frozen=True, slots=True)
class Binary:
    """`left operator right`; the right of `is` and `as` is a Literal with the type's name."""

    operator: str
    left: "Node"
    right: "Node"


Node = Literal | Variable | Member | Call | Index | Binary

_TOKEN: Final = re.compile(
    r"""\s*(?:
      (?P<number>\d+(?:\.\d+)?)
    | (?P<string>'(?:[^'\\]|\\.)*')
    | (?P<quoted>`(?:[^`\\]|\\.)*`)
    | (?P<variable>%(?:[A-Za-z_][\w-]*|`[^`]*`|'[^']*')|\$(?:this|index|total))
    | (?P<name>[A-Za-z_]\w*)
    | (?P<sign><=|>=|!=|!~|[=~<>|+\-*/&.,()\[\]{}])
    )""",
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|.)")
_ESCAPED: Final = {"f": "\f", "n": "\n", "r": "\r", "t": "\t"}

# Loosest first; the operators of one line bind equally and to the left.
_LEVELS: Final = (
    ("implies",),
    ("or", "xor"),
    ("and",),
    ("in", "contains"),
    ("=", "~", "!=", "!~"),
    ("<", "<=", ">", ">="),
    ("|",),
    ("is", "as"),
    ("+", "-", "&"),
    ("*", "/", "div", "mod"),
)


def parse(text: str) -> Node:
    """Return the tree of an expression. Raises NotFhirPath."""
    reader = _Reader(text)
    found = reader.expression(0)
    reader.end()
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(_tokens(text))
        self._place = 0

    def expression(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self._path()
        left = self.expression(level + 1)
        while self._next[1] in _LEVELS[level] and self._next[0] in {"name", "sign"}:
            operator = self._take()[1]
            right = self._type() if operator in {"is", "as"} else self.expression(level + 1)
            left = Binary(operator, left, right)
        return left

    def end(self) -> None:
        if self._next[0] != "end":
            raise self._wrong("the end")

    @property
    def _next(self) -> tuple[str, str]:
        return self._tokens[self._place]

    def _take(self) -> tuple[str, str]:
        token = self._tokens[self._place]
        self._place += 1
        return token

    def _expect(self, sign: str) -> None:
        if self._next != ("sign", sign):
            raise self._wrong(sign)
        self._place += 1

    def _path(self) -> Node:
        found = self._term()
        while True:
            if self._next == ("sign", "."):
                self._take()
                found = self._step(found)
            elif self._next == ("sign", "["):
                self._take()
                found = Index(found, self.expression(0))
                self._expect("]")
            else:
                return found

    def _term(self) -> Node:
        kind, text = self._next
        if kind in {"name", "quoted"}:
            if text in {"true", "false"} and kind == "name":
                self._take()
                return Literal(text == "true")
            return self._step(None)
        self._take()
        if kind == "number":
            return Literal(Decimal(text) if "." in text else int(text))
        if kind == "string":
            return Literal(_unescaped(text[1:-1]))
        if kind == "variable":
            return Variable(text.strip("%`'"))
        if (kind, text) == ("sign", "{"):
            self._expect("}")
            return Literal(None)
        if (kind, text) == ("sign", "("):
            found = self.expression(0)
            self._expect(")")
            return found
        if (kind, text) == ("sign", "-") and self._next[0] == "number":
            number = self._take()[1]
            return Literal(-Decimal(number) if "." in number else -int(number))
        self._place -= 1
        raise self._wrong("a value")

    def _step(self, of: Node | None) -> Node:
        """Read `name` or `name(…)`. After a dot some operators' words are names like any other."""
        kind, name = self._take()
        if kind == "variable" and name == "$this":
            return Variable(name)
        if kind == "quoted":
            name = _unescaped(name[1:-1])
        elif kind != "name":
            self._place -= 1
            raise self._wrong("a name")
        if self._next != ("sign", "("):
            return Member(of, name)
        self._take()
        arguments: list[Node] = []
        if self._next != ("sign", ")"):
            is_type = name in {"is", "as", "ofType"}
            arguments.append(self._type() if is_type else self.expression(0))
            while self._next == ("sign", ","):
                self._take()
                arguments.append(self.expression(0))
        self._expect(")")
        return Call(of, name, tuple(arguments))

    def _type(self) -> Literal:
        """Read a type's name; its namespace says nothing that the name does not."""
        kind, name = self._take()
        if kind not in {"name", "quoted"}:
            self._place -= 1
            raise self._wrong("a type")
        while self._next == ("sign", "."):
            self._take()
            name = self._take()[1]
        return Literal(name.strip("`"))

    def _wrong(self, wanted: str) -> NotFhirPath:
        given = self._next[1] or "the end"
        return NotFhirPath(f"{given} stands where {wanted} should, in: {self._text}")


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    place, text = 0, text.rstrip()
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None or found.lastgroup is None:
            raise NotFhirPath(f"cannot be read from {text[place : place + 20]!r} on: {text}")
        yield found.lastgroup, found[found.lastgroup]
        place = found.end()
    yield "end", ""


def _unescaped(text: str) -> str:
    def one(found: re.Match[str]) -> str:
        what = found[1]
        if len(what) == 5:
            return chr(int(what[1:], 16))
        return _ESCAPED.get(what, what)

    return _ESCAPE.sub(one, text)
