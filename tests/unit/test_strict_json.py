"""How deep JSON may be nested, told before anything reads it that could fall; members put in."""

import json

import pytest

from fhir_profiles import strict_json
from fhir_profiles.strict_json import MAX_DEPTH, NotStrictJson

WIDE = b"[" + b",".join([b"{}"] * MAX_DEPTH) + b"]"


def nested(depth: int, within: bytes = b"") -> bytes:
    return (
        b'{"a":[' * (depth // 2)
        + b"[" * (depth % 2)
        + within
        + b"]" * (depth % 2)
        + (b"]}" * (depth // 2))
    )


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(nested(MAX_DEPTH), id="as deep as it may be"),
        pytest.param(nested(MAX_DEPTH - 2, WIDE), id="deep and wide"),
        pytest.param(json.dumps(["[" * 100, "{" * 100]).encode(), id="brackets in a text"),
        pytest.param(json.dumps(['"' + "[" * 100, "\\"]).encode(), id="after a quotation mark"),
        pytest.param(json.dumps(["\\", "[" * 100, '\\"' + "[" * 100]).encode(), id="a backslash"),
    ],
)
def test_what_is_not_nested_too_deep_is_read(body: bytes) -> None:
    assert strict_json.loads(body) == json.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(nested(MAX_DEPTH + 1), id="one level too many"),
        pytest.param(b'["\\\\",' + nested(MAX_DEPTH) + b"]", id="behind an escaped backslash"),
        pytest.param(b'["\\"",' + nested(MAX_DEPTH) + b"]", id="behind an escaped mark"),
        pytest.param(b"[" * 100_000, id="without an end"),
        pytest.param(b'{"a":' * 100_000 + b"]" * 100_000, id="with another end"),
    ],
)
def test_what_is_nested_too_deep_is_refused(body: bytes) -> None:
    with pytest.raises(NotStrictJson, match="nested deeper than 64 levels"):
        strict_json.loads(body)


@pytest.mark.parametrize(
    ("document", "found"),
    [
        (b'{ "a" : 1.50 }', b'{"id":2,"a" : 1.50 }'),
        (b'{"a":"id", "b": {"id" : 1}}', b'{"id":2,"a":"id","b":{"id" : 1}}'),
        (b'{"a":1.50, "id" : 1}', b'{"a":1.50,"id":2}'),
        (b'{"a":1.50, "\\u0069d" : 1}', b'{"a":1.50,"id":2}'),
        (b"{ }", b'{"id":2}'),
    ],
)
def test_a_member_is_put_in_and_every_other_value_keeps_its_bytes(
    document: bytes, found: bytes
) -> None:
    assert strict_json.with_member(document, "id", b"2") == found


@pytest.mark.parametrize("document", [b'["a"]', b'"a"', b"1"])
def test_into_what_is_no_object_nothing_is_put(document: bytes) -> None:
    with pytest.raises(NotStrictJson, match="Expected a JSON object"):
        strict_json.with_member(document, "id", b"2")
