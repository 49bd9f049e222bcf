"""Definitions that others publish: FHIR npm packages and single files, in JSON or XML."""

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any, Final

from fhir_profiles import strict_json
from fhir_profiles.compiler import xml

KINDS: Final = frozenset(
    {
        *("StructureDefinition", "ValueSet", "CodeSystem", "NamingSystem"),
        *("MessageDefinition", "OperationDefinition", "ConceptMap"),
    }
)
LARGEST: Final = 200_000_000  # bytes of a package unpacked: several times the largest there is
_MARK: Final = "\ufeff".encode()


class NotDefinitions(ValueError):
    """The bytes hold no definitions of FHIR R4. The message says why."""


def definitions(name: str, content: bytes) -> Iterator[Mapping[str, Any]]:
    """Return the definitions in a file: none, where it is a resource of another kind.

    Raises NotDefinitions, naming the member of a package that cannot be read.
    """
    if name.endswith((".tgz", ".tar.gz")):
        yield from _package(name, content)
        return
    found = read(name, content)
    if found.get("resourceType") in KINDS and isinstance(found.get("url"), str):
        _check_release(name, found)
        yield found


def read(name: str, content: bytes) -> dict[str, Any]:
    """Return the resource in a file, in JSON or XML. Raises NotDefinitions."""
    content = content.removeprefix(_MARK)
    try:
        if content.lstrip()[:1] == b"<":
            return xml.resource(content)
        found = strict_json.loads(content)
    except (xml.NotFhirXml, strict_json.NotStrictJson) as error:
        raise NotDefinitions(f"{name}: {error}") from error
    if not isinstance(found, dict):
        raise NotDefinitions(f"{name}: it is no JSON object")
    return found


def _package(name: str, content: bytes) -> Iterator[Mapping[str, Any]]:
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            size = 0
            for member in archive:
                size += member.size
                if size > LARGEST:
                    raise NotDefinitions(f"{name}: it unpacks to more than {LARGEST:,} bytes")
                place, _, file = member.name.rpartition("/")
                if not member.isfile() or place != "package" or not file.endswith(".json"):
                    continue
                held = archive.extractfile(member)
                if file not in _NO_RESOURCES and held is not None:
                    yield from definitions(f"{name}: {file}", held.read())
    except (tarfile.TarError, EOFError, OSError) as error:
        raise NotDefinitions(f"{name}: it is no FHIR package: {error}") from error


_NO_RESOURCES: Final = frozenset({"package.json", ".index.json"})


def _check_release(name: str, found: Mapping[str, Any]) -> None:
    release = found.get("fhirVersion", "4.0.1")
    if not str(release).startswith("4.0"):
        raise NotDefinitions(f"{name}: it is of FHIR {release}, and R4 (4.0.1) is wanted")


def named(content: bytes) -> tuple[str, str] | None:
    """Return the name and version that a package gives itself, or None where it is no package."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            held = archive.extractfile("package/package.json")
            said = json.loads(held.read()) if held is not None else {}
    except (tarfile.TarError, EOFError, OSError, KeyError, ValueError):
        return None
    return str(said.get("name", "")), str(said.get("version", ""))
