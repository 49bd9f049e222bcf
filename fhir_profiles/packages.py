"""Resources in files: one to a file, in JSON or XML, or the definitions of a FHIR npm package."""

import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fhir_profiles import strict_json
from fhir_profiles.compiler import r4, xml

KINDS: Final = frozenset(
    {
        *("StructureDefinition", "ValueSet", "CodeSystem", "NamingSystem"),
        *("MessageDefinition", "OperationDefinition", "ConceptMap"),
    }
)
LARGEST: Final = 200_000_000  # bytes of a package unpacked: several times the largest there is
_MARK: Final = "\ufeff".encode()
# What the NHS's STU3 resources name: their profiles and codes, or identifiers of that time.
_STU3: Final = re.compile(rb"/STU3/|http://fhir\.nhs\.net/Id/")
_WANTED: Final = "It is FHIR STU3; R4 (4.0.1) is wanted."


class Unreadable(ValueError):
    """The bytes are no resource of FHIR R4, and no package of them. The message says why."""


def read(content: bytes) -> dict[str, Any]:
    """Return the resource in a file, in JSON or XML. Raises Unreadable."""
    content = content.removeprefix(_MARK)
    is_stu3 = _STU3.search(content) is not None
    try:
        resource = _resource(content)
    except Unreadable:
        if is_stu3:
            raise Unreadable(_WANTED) from None
        raise
    is_definition = resource["resourceType"] in KINDS  # which may speak of STU3 and be of R4
    if is_stu3 and not (is_definition and "/STU3/" not in str(resource.get("url"))):
        raise Unreadable(_WANTED)
    return resource


def _resource(content: bytes) -> dict[str, Any]:
    try:
        if content.lstrip()[:1] == b"<":
            return xml.resource(content)
        found = strict_json.loads(content)
    except xml.NotFhirXml as error:
        raise Unreadable(f"It is no FHIR R4 in XML: {error}.") from error
    except strict_json.NotStrictJson as error:
        raise Unreadable(str(error)) from error
    name = found.get("resourceType") if isinstance(found, dict) else None
    kind = r4.types().get(name) if isinstance(name, str) else None
    if kind is None or kind.kind != "resource":
        raise Unreadable("It is JSON, but no resource of FHIR R4.")
    resource: dict[str, Any] = found
    return resource


def definitions(content: bytes) -> Iterator[Mapping[str, Any]]:
    """Return the definitions in a file or package: none, where it is a resource of another kind.

    Raises Unreadable; of a package, naming the member.
    """
    if content[:2] == b"\x1f\x8b":
        yield from _package(content)
        return
    found = read(content)
    if found["resourceType"] in KINDS and isinstance(found.get("url"), str):
        release = str(found.get("fhirVersion", "4.0.1"))
        if not release.startswith("4.0"):
            raise Unreadable(f"It is of FHIR {release}; R4 (4.0.1) is wanted.")
        yield found


def _package(content: bytes) -> Iterator[Mapping[str, Any]]:
    size = 0
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            for member in archive:
                size += member.size
                if size > LARGEST:
                    raise Unreadable(f"It unpacks to more than {LARGEST:,} bytes.")
                place, _, file = member.name.rpartition("/")
                held = archive.extractfile(member) if member.isfile() else None
                if held is None or place != "package" or file in NO_RESOURCES:
                    continue
                if file.endswith(".json"):
                    yield from _member(file, held.read())
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Unreadable(f"It is no FHIR package: {error}.") from error


def _member(file: str, content: bytes) -> Iterator[Mapping[str, Any]]:
    try:
        yield from definitions(content)
    except Unreadable as error:
        raise Unreadable(f"{file}: {error}") from error


NO_RESOURCES: Final = frozenset({"package.json", ".index.json"})


def named(content: bytes) -> tuple[str, str] | None:
    """Return the name and version that a package gives itself, or None where it is no package."""
    if content[:2] != b"\x1f\x8b":
        return None
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            held = archive.extractfile("package/package.json")
            said = json.loads(held.read()) if held is not None else {}
    except (tarfile.TarError, EOFError, OSError, KeyError, ValueError) as error:
        raise Unreadable("It is no FHIR package: it has no package.json.") from error
    return str(said.get("name", "")), str(said.get("version", ""))
