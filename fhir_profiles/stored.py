"""A stored resource as it is read: its own bytes, with only `id` and `meta` put in."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from fhir_profiles import codes, strict_json

SUMMARY: Final = frozenset(
    {
        *("resourceType", "id", "meta", "identifier", "status", "intent", "priority", "category"),
        *("code", "subject", "for", "encounter", "authoredOn", "sent", "lastModified"),
        *("requester", "performer", "sender", "recipient", "owner", "focus", "businessStatus"),
        *("occurrencePeriod", "groupIdentifier", "basedOn", "replaces"),
    }
)
"""What a summary keeps of a ServiceRequest, a Communication or a Task."""
_SUBSETTED: Final = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
    "code": "SUBSETTED",
}


def as_read(
    resource: bytes,
    resource_id: str,
    version: int,
    updated: datetime,
    *,
    standing: str | None = None,
    summary: str = "false",
) -> bytes:
    """Return the resource with its id, version and time of storing; every other value keeps its
    bytes. `standing` is a code of `message-standing`; `summary` is FHIR's `_summary`.

    A profile, security label or tag that it came with stays.
    """
    members = dict(strict_json.members(resource))
    meta = strict_json.loads(members.get("meta", b"{}"))
    tags = [*meta.get("tag", ()), *_tags(standing, summary)]
    meta |= {"versionId": str(version), "lastUpdated": updated.isoformat(timespec="milliseconds")}
    put = {
        "resourceType": members["resourceType"],
        "id": strict_json.dumps(resource_id),
        "meta": strict_json.dumps({**meta, "tag": tags} if tags else meta),
    }
    return _written({**put, **{n: v for n, v in members.items() if n not in put}}, summary)


def references(resource: bytes, element: str) -> Sequence[str]:
    """Return where the references of an element lead."""
    found = dict(strict_json.members(resource)).get(element)
    return list(_led(strict_json.loads(found))) if found is not None else []


def _led(value: Any) -> Iterator[str]:
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, dict) and isinstance(one.get("reference"), str):
            yield one["reference"]


def _tags(standing: str | None, summary: str) -> Iterator[Mapping[str, str]]:
    if standing is not None:
        known = codes.system("message-standing")
        yield {"system": known.url, "code": standing, "display": known.display(standing)}
    if summary != "false":
        yield _SUBSETTED


def _written(members: Mapping[str, bytes], summary: str) -> bytes:
    kept = {
        name: value
        for name, value in members.items()
        if summary == "false"
        or (summary == "true" and name in SUMMARY)
        or (summary == "data" and name != "text")
    }
    return strict_json.written(kept)
