"""FHIR's XML to the JSON of the same resource: definitions are published in both."""

import re
from decimal import Decimal
from typing import Any, Final
from xml.etree.ElementTree import Element, ParseError, register_namespace, tostring

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from fhir_profiles.compiler import r4

FHIR: Final = "{http://hl7.org/fhir}"
XHTML: Final = "{http://www.w3.org/1999/xhtml}"


class NotFhirXml(ValueError):
    """The bytes are not a resource of FHIR R4 in XML."""


def resource(content: bytes) -> dict[str, Any]:
    """Return a resource as its JSON has it; numbers keep the digits they came with.

    Raises NotFhirXml. A document type is refused: entities have no place in FHIR.
    """
    try:
        root = ElementTree.fromstring(content, forbid_dtd=True)
    except ParseError as error:
        raise NotFhirXml(f"it is not XML: {error}") from error
    except DefusedXmlException as error:
        raise NotFhirXml("it declares a document type") from error
    return _resource(root)


def _resource(element: Element) -> dict[str, Any]:
    name = element.tag.removeprefix(FHIR)
    kind = r4.types().get(name)
    if not element.tag.startswith(FHIR) or kind is None or kind.kind != "resource":
        raise NotFhirXml(f"{name} is no resource of FHIR R4")
    return {"resourceType": name, **_object(element, kind, "")}


def _object(element: Element, kind: r4.Type, path: str) -> dict[str, Any]:
    known = r4.members(kind, path)
    found: dict[str, Any] = {}
    for name in ("id", "url"):  # attributes of elements and of extensions
        if element.get(name) is not None:
            found[name] = element.get(name)
    for child in element:
        name = child.tag.removeprefix(FHIR).removeprefix(XHTML)
        if name not in known:
            raise NotFhirXml(f"{kind.name}.{path} has no element {name}")
        owner, one, ref = known[name]
        _put(found, name, child, owner, one, ref)
    return found


def _put(
    found: dict[str, Any],
    name: str,
    child: Element,
    owner: r4.Type,
    element: r4.Element,
    ref: r4.TypeRef,
) -> None:
    value, extended = _value(child, owner, element, ref)
    if not element.is_list:
        if value is not None:
            found[name] = value
        if extended:
            found[f"_{name}"] = extended
        return
    values = found.setdefault(name, [])
    values.append(value)
    shadow = f"_{name}"
    if extended:
        found.setdefault(shadow, [None] * (len(values) - 1))
    if shadow in found:
        found[shadow].append(extended)


def _value(
    child: Element, owner: r4.Type, element: r4.Element, ref: r4.TypeRef
) -> tuple[Any, dict[str, Any] | None]:
    """Return the value of an element, and what a primitive has besides it."""
    if ref.code == "xhtml":
        register_namespace("", XHTML[1:-1])
        return tostring(child, encoding="unicode").strip(), None
    if ref.code == "Resource":
        return _resource(child[0]), None
    if element.like is not None:
        return _object(child, owner, element.like.partition(".")[2]), None
    if ref.code in {"BackboneElement", "Element"} and owner.children(element.path):
        return _object(child, owner, element.path), None
    kind = r4.types()[ref.code]
    if kind.kind != "primitive-type":
        return _object(child, kind, ""), None
    extended = _object_of_primitive(child)
    return _primitive(child.get("value"), ref.code), extended or None


def _object_of_primitive(child: Element) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if child.get("id") is not None:
        found["id"] = child.get("id")
    for one in child:
        found.setdefault("extension", []).append(_object(one, r4.types()["Extension"], ""))
    return found


def _primitive(text: str | None, code: str) -> Any:
    if text is None:
        return None
    if code == "boolean" and text in {"true", "false"}:
        return text == "true"
    if code in {"integer", "positiveInt", "unsignedInt"} and _INTEGER.fullmatch(text):
        return int(text)
    if code == "decimal" and _DECIMAL.fullmatch(text):
        return Decimal(text)
    return text


_INTEGER: Final = re.compile(r"-?\d+")
_DECIMAL: Final = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")
