"""JSON as money-grade data: nothing ambiguous is read, and no digit is changed on the way out.

Python's own reader takes the last of two equal keys, takes NaN, and turns ``1.50`` into ``1.5``.
In a clinical message each of these can harm a patient, so they are refused or kept exactly.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NoReturn

MAX_DEPTH = 64
MAX_DIGITS = 64

_quote = json.encoder.encode_basestring
_scan = json.JSONDecoder().raw_decode


class NotStrictJson(ValueError):
    """The bytes are not JSON that can be read in one way only. The message says what and where."""


def loads(body: bytes) -> Any:
    """Read JSON of which every reader makes the same thing; numbers with a point become Decimal.

    Refuses duplicate keys, NaN and Infinity, lone surrogates, NUL characters, byte-order marks,
    nesting over 64 and numbers over 64 digits. Raises NotStrictJson.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotStrictJson(f"The body is not UTF-8 (byte {error.start}).") from None
    if text.startswith("\ufeff"):
        raise NotStrictJson("The body begins with a byte-order mark; send plain UTF-8.")
    _check_depth(body)
    try:
        value = _STRICT.decode(text)
    except json.JSONDecodeError as error:
        raise NotStrictJson(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    if "\\u" in text:
        _check_text(value)
    elif "\x00" in text:
        raise NotStrictJson("The body holds a NUL character.")
    return value


def dumps(value: Any) -> bytes:
    """Write JSON compactly as UTF-8; a Decimal keeps the digits it came with."""
    out: list[str] = []
    _write(value, out)
    return "".join(out).encode("utf-8")


def members(document: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield each member of a JSON object as (name, the value's own bytes, unchanged)."""
    text = document.decode("utf-8")
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise NotStrictJson("Expected a JSON object.")
    at = _skip(text, at + 1)
    while text[at] != "}":
        name, end = _scan(text, at)
        at = _skip(text, end)
        at = _skip(text, at + 1)
        _, end = _scan(text, at)
        yield name, text[at:end].encode("utf-8")
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def with_member(document: bytes, name: str, value: bytes) -> bytes:
    """Return a JSON object with this member, in the place of one of its name or as the first.

    Every other value keeps its bytes.
    """
    key = _quote(name).encode()
    begin, rest = document[:1], document[1:].lstrip()
    if begin == b"{" and rest[:1] == b'"' and key not in document and b"\\u" not in document:
        return b"{" + key + b":" + value + b"," + rest  # it is nowhere in it, so it is put first
    held = dict(members(document))
    return written(held | {name: value} if name in held else {name: value, **held})


def written(held: Mapping[str, bytes]) -> bytes:
    """Return the JSON object of these members, the bytes of each as they are."""
    parts = [_quote(name).encode() + b":" + value for name, value in held.items()]
    return b"{" + b",".join(parts) + b"}"


def elements(array: bytes) -> Iterator[bytes]:
    """Yield each element of a JSON array as its own bytes, unchanged."""
    yield from _elements(array.decode("utf-8"), 0)


def elements_of(document: bytes, name: str) -> Iterator[bytes]:
    """Yield each element of the array that a member of a JSON object is, as its own bytes; none
    where there is no such member. What stands behind it is not looked at."""
    text = document.decode("utf-8")
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise NotStrictJson("Expected a JSON object.")
    at = _skip(text, at + 1)
    while text[at] != "}":
        found, end = _scan(text, at)
        at = _skip(text, _skip(text, end) + 1)
        if found == name:
            yield from _elements(text, at)
            return
        _, end = _scan(text, at)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _elements(text: str, at: int) -> Iterator[bytes]:
    at = _skip(text, at)
    if text[at : at + 1] != "[":
        raise NotStrictJson("Expected a JSON array.")
    at = _skip(text, at + 1)
    while text[at] != "]":
        _, end = _scan(text, at)
        yield text[at:end].encode("utf-8")
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] in {" ", "\t", "\n", "\r"}:
        at += 1
    return at


def _write(value: Any, out: list[str]) -> None:
    if isinstance(value, str):
        out.append(_quote(value))
    elif value is None:
        out.append("null")
    elif value is True:
        out.append("true")
    elif value is False:
        out.append("false")
    elif isinstance(value, int | Decimal):
        out.append(str(value))
    elif isinstance(value, Mapping):
        separator = "{"
        for name, member in value.items():
            out.append(separator)
            out.append(_quote(name))
            out.append(":")
            _write(member, out)
            separator = ","
        out.append("{}" if separator == "{" else "}")
    elif isinstance(value, Sequence):
        separator = "["
        for element in value:
            out.append(separator)
            _write(element, out)
            separator = ","
        out.append("[]" if separator == "[" else "]")
    else:
        raise TypeError(f"{type(value).__name__} has no one JSON form; convert it first")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise NotStrictJson(f"The name {name!r} stands twice in one object.")
            seen.add(name)
    return result


def _decimal(digits: str) -> Decimal:
    if len(digits) > MAX_DIGITS:
        raise NotStrictJson(f"A number has more than {MAX_DIGITS} digits.")
    try:
        number = Decimal(digits)
    except InvalidOperation:
        number = Decimal("Infinity")
    if not number.is_finite() or abs(number.adjusted()) > MAX_DIGITS:
        raise NotStrictJson(f"A number is over {MAX_DIGITS} places before or after its point.")
    return number


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise NotStrictJson(f"A number has more than {MAX_DIGITS} digits.")
    return int(digits)


def _constant(name: str) -> NoReturn:
    raise NotStrictJson(f"{name} is not a JSON number.")


_STRICT: Final = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_float=_decimal,
    parse_int=_integer,
    parse_constant=_constant,
)


def _check_depth(body: bytes) -> None:
    """Refuse deep nesting before the recursive reader meets it.

    Of the brackets outside of texts, pairs with nothing between them are taken away, level by
    level: C does it, for Python would look at every character. What has no partner is as deep as
    there is of it.
    """
    if body.count(b"{") + body.count(b"[") <= MAX_DEPTH:
        return
    outside = body.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"')[::2]
    brackets = b"".join(outside).translate(_ONE_KIND, _NO_BRACKETS)
    depth = 0
    while depth <= MAX_DEPTH and b"[]" in brackets:
        brackets = brackets.replace(b"[]", b"")
        depth += 1
    if depth + brackets.count(b"[") > MAX_DEPTH:
        raise NotStrictJson(f"The body is nested deeper than {MAX_DEPTH} levels.")


_ONE_KIND: Final = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"{}[]"))


def _check_text(value: Any) -> None:
    if isinstance(value, str):
        if "\x00" in value:
            raise NotStrictJson("A text holds a NUL character.")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise NotStrictJson("A text holds half of a surrogate pair.") from None
    elif isinstance(value, dict):
        for name, member in value.items():
            _check_text(name)
            _check_text(member)
    elif isinstance(value, list):
        for element in value:
            _check_text(element)
