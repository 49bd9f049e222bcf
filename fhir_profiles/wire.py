"""Typed FHIR resources to JSON text. The same resource, the same text; every digit is kept.

The library's own writer turns 1.50 into 1.5, and takes several times as long.
"""

import base64
from datetime import date, datetime, time
from decimal import Decimal
from functools import cache, lru_cache
from json.encoder import encode_basestring
from typing import Any

from fhir_core.fhirabstractmodel import FHIRAbstractModel


def write(resource: FHIRAbstractModel, resource_id: str) -> str:
    """Return a resource as compact JSON, its elements in the order of the specification.

    `resource_id` becomes its id, whatever the resource itself has there.
    """
    out = [
        f'{{"resourceType":"{resource.get_resource_type()}","id":{encode_basestring(resource_id)}'
    ]
    _members(resource, out, ",", skip="id")
    out.append("}")
    return "".join(out)


def _members(model: FHIRAbstractModel, out: list[str], separator: str, skip: str = "") -> None:
    values = model.__dict__
    # Only what was set: most of a resource's elements never are.
    for attribute, name in _in_order(type(model), frozenset(model.__pydantic_fields_set__)):
        value = values[attribute]
        if value is None or attribute == skip or (type(value) is list and not value):
            continue
        out.append(separator + name)
        if type(value) is str:
            out.append(encode_basestring(value))
        else:
            _value(value, out)
        separator = ","


@lru_cache(maxsize=4096)
def _in_order(
    model: type[FHIRAbstractModel], attributes: frozenset[str]
) -> tuple[tuple[str, str], ...]:
    """Return (attribute, its name as it is written) in the order of the specification."""
    places = _places(model)
    ordered = sorted(attributes, key=places.__getitem__)
    return tuple((attribute, f'"{places[attribute][1]}":') for attribute in ordered)


@cache
def _places(model: type[FHIRAbstractModel]) -> dict[str, tuple[int, str]]:
    """Return where each attribute stands in the specification, and what its element is called."""
    order = {element: place * 2 for place, element in enumerate(model.elements_sequence())}
    places = {}
    for attribute, field in model.model_fields.items():
        element = field.alias or attribute
        if element in order:
            places[attribute] = (order[element], element)
        elif element.startswith("_"):
            places[attribute] = (order[element[1:]] + 1, element)
    return places


def _value(value: Any, out: list[str]) -> None:
    if isinstance(value, str):
        out.append(encode_basestring(value))
    elif isinstance(value, FHIRAbstractModel):
        if value.has_resource_base():
            out.append(f'{{"resourceType":"{value.get_resource_type()}"')
            _members(value, out, ",")
        else:
            out.append("{")
            _members(value, out, "")
        out.append("}")
    elif isinstance(value, list):
        separator = "["
        for element in value:
            out.append(separator)
            _value(element, out)
            separator = ","
        out.append("]")
    elif value is None:
        out.append("null")
    elif isinstance(value, bool):
        out.append("true" if value else "false")
    elif isinstance(value, int | Decimal):
        out.append(str(value))
    elif isinstance(value, datetime | date | time):
        out.append(f'"{value.isoformat()}"')
    elif isinstance(value, bytes):
        out.append(f'"{base64.b64encode(value).decode("ascii")}"')
    else:
        out.append(encode_basestring(str(value)))
