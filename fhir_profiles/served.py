"""Our own definitions as FHIR resources that anybody may read: each in its own bytes, by its id."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from fhir_profiles import authored, strict_json


@dataclass(frozen=True, slots=True)
class Definition:
    """One definition: what it is found by, and its bytes."""

    type: str
    id: str
    url: str
    name: str
    resource: Mapping[str, Any] = field(repr=False)

    @property
    def body(self) -> bytes:
        return strict_json.dumps(self.resource)


@cache
def definitions() -> Mapping[tuple[str, str], Definition]:
    """Return every definition by its type and id, in the order of both."""
    found = {(one.type, one.id): one for one in map(_definition, _resources())}
    return dict(sorted(found.items()))


def _definition(resource: Mapping[str, Any]) -> Definition:
    unique = resource.get("uniqueId", ({},))  # a NamingSystem has no URL of its own
    return Definition(
        type=resource["resourceType"],
        id=resource["id"],
        url=resource.get("url", unique[0].get("value", "")),
        name=resource["name"],
        resource=resource,
    )


def _resources() -> Iterator[Mapping[str, Any]]:
    for resource in authored.definitions().values():
        if resource["resourceType"] == "Bundle":
            yield from (entry["resource"] for entry in resource["entry"])
        else:
            yield resource
