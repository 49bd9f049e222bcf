"""A BaRS message: the Bundle around its entries, with the header that says whom it is for.

Whole entries are handed over as their bytes; this adds the header and those organisations of the
two ends that are not among them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

from fhir_profiles import codes, strict_json, systems
from fhir_profiles.bars.codes import APPLICATION, BUNDLE, HEADERS
from fhir_profiles.bars.incoming import EVENTS, REASONS
from fhir_profiles.bundle import references, told_id

_URN: Final = "urn:uuid:"


@dataclass(frozen=True, slots=True)
class Place:
    """One end of a message: an organisation, and the (system, value) by which BaRS knows it.

    `service` is what its service is called there; a place without services goes by its own name.
    """

    ods: str
    system: str
    value: str
    name: str = ""
    service: str = ""
    telephone: str = ""

    @property
    def endpoint(self) -> str:
        return f"{self.system}|{self.value}"


@dataclass(frozen=True, slots=True)
class Envelope:
    """Who sends a message to whom, when, and with which software; `application` is the version
    of the rules that its payload follows."""

    bundle_id: str
    at: datetime
    sender: Place
    receiver: Place
    software: str
    software_version: str
    application: str = APPLICATION


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a message is for: its event and reason, which definition it meets, its root resource.

    `response_to` is the id of the Bundle that it answers.
    """

    event: str
    reason: str
    definition: str
    focus: str
    response_to: str | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """One entry: its resource as it reads, and the bytes of the whole entry as they are sent."""

    full_url: str
    resource: Mapping[str, Any]
    raw: bytes

    @property
    def type(self) -> str:
        return str(self.resource.get("resourceType", ""))


def held(bundle: bytes) -> list[Held]:
    """Return the entries of a Bundle, each byte for byte as it stands there."""
    for name, value in strict_json.members(bundle):
        if name == "entry":
            return [read_entry(raw) for raw in strict_json.elements(value)]
    return []


def read_entry(raw: bytes) -> Held:
    """Return an entry of its bytes."""
    # It was checked when it came in, so it is read without suspicion; digits are kept all the same.
    entry = json.loads(raw, parse_float=Decimal)
    return Held(entry.get("fullUrl", ""), entry.get("resource", {}), raw)


def made(full_url: str, resource: Mapping[str, Any]) -> Held:
    """Return an entry of a resource that is written here. The same resource, the same bytes."""
    return Held(full_url, resource, strict_json.dumps({"fullUrl": full_url, "resource": resource}))


def named(
    message_id: str, entry: str, kind: str, profile: str, at: datetime, /, **elements: Any
) -> Held:
    """Return an entry of a new resource under the fullUrl that a message's id and a name give."""
    url = told_id(message_id, entry)
    resource = {
        "resourceType": kind,
        "id": url.removeprefix(_URN),
        "meta": {"lastUpdated": at.isoformat(), "profile": [profile]},
    }
    return made(url, resource | {name: it for name, it in elements.items() if it is not None})


def reference(full_url: str) -> dict[str, str]:
    """Return a reference to another entry."""
    return {"reference": full_url}


def identified(entries: Iterable[Held], kind: str, system: str, value: str) -> str | None:
    """Return the fullUrl of the resource of a type that has this identifier; BaRS spells systems
    in several ways (traps 4 and 5)."""
    wanted = systems.normal(system)
    for entry in entries:
        if entry.type == kind:
            for identifier in entry.resource.get("identifier", ()):
                is_it = systems.normal(identifier.get("system", "")) == wanted
                if is_it and identifier.get("value") == value:
                    return entry.full_url
    return None


def ends(entries: Sequence[Held], envelope: Envelope) -> list[Held]:
    """Return the organisations of both ends, of those that are among the entries."""
    places = (envelope.sender, envelope.receiver)
    known = {identified(entries, "Organization", codes.ODS, place.ods) for place in places}
    return [entry for entry in entries if entry.full_url in known]


def with_all_they_name(first: Iterable[Held], entries: Sequence[Held]) -> list[Held]:
    """Return entries, and after them those others that they refer to, so that none dangles."""
    found = {entry.full_url: entry for entry in first}
    others = {entry.full_url: entry for entry in entries}
    waiting = list(found.values())
    for entry in waiting:  # grows while it is read: what is named may name more
        for url in references(entry.resource):
            if url in others and url not in found:
                found[url] = others[url]
                waiting.append(others[url])
    return list(found.values())


def write(
    envelope: Envelope,
    purpose: Purpose,
    entries: Sequence[Held],
    message_id: str,
    header: Mapping[str, Any] = MappingProxyType({}),
) -> bytes:
    """Return the message. The same arguments give the same bytes; entries keep their every byte.

    What is added gets its fullUrl from `message_id`, so that it is the same in every message about
    one referral. `header` is the one that it had before: what is not said anew stays.
    """
    whole = list(entries)
    organizations = []
    for place in (envelope.sender, envelope.receiver):
        known = identified(whole, "Organization", codes.ODS, place.ods)
        if known is None:
            whole.append(organization(message_id, place, envelope.at))
            known = whole[-1].full_url
        organizations.append(known)
    url = told_id(envelope.bundle_id, "header")
    first = made(url, {**header, **_header(envelope, purpose, url, *organizations)})
    opening = strict_json.dumps(
        {
            "resourceType": "Bundle",
            "id": envelope.bundle_id,
            "meta": {
                "versionId": envelope.application,
                "lastUpdated": envelope.at.isoformat(),
                "profile": [BUNDLE],
            },
            "type": "message",
            "timestamp": envelope.at.isoformat(),
        }
    )
    parts = [entry.raw for entry in (first, *whole)]
    return opening[:-1] + b',"entry":[' + b",".join(parts) + b"]}"


def organization(message_id: str, place: Place, at: datetime) -> Held:
    """Return an end's organisation, known by its ODS code."""
    return named(
        message_id,
        f"bars organization {place.ods}",
        "Organization",
        f"{codes.UK_CORE}UKCore-Organization",
        at,
        identifier=[{"system": codes.ODS, "value": place.ods}],
        name=place.name or place.ods,
        telecom=phone(place.telephone),
    )


def phone(number: str) -> list[dict[str, Any]] | None:
    """Return a telephone number as FHIR wants it; None where there is none."""
    return [{"system": "phone", "value": number}] if number else None


def _header(
    envelope: Envelope, purpose: Purpose, url: str, sender: str, receiver: str
) -> dict[str, Any]:
    source: dict[str, Any] = {
        "name": envelope.sender.name or envelope.sender.ods,
        "software": envelope.software,
        "version": envelope.software_version,
        "endpoint": envelope.sender.endpoint,
    }
    number = phone(envelope.sender.telephone)
    if number is not None:
        source["contact"] = number[0]
    header: dict[str, Any] = {
        "resourceType": "MessageHeader",
        "id": url.removeprefix(_URN),
        "meta": {"lastUpdated": envelope.at.isoformat(), "profile": [HEADERS[purpose.event]]},
        "eventCoding": {"system": EVENTS, "code": purpose.event},
        "destination": [{"endpoint": envelope.receiver.endpoint, "receiver": reference(receiver)}],
        "sender": reference(sender),
        "source": source,
        "reason": {"coding": [{"system": REASONS, "code": purpose.reason}]},
        "focus": [reference(purpose.focus)],
        "definition": purpose.definition,
    }
    if purpose.response_to is not None:
        header["response"] = {"identifier": purpose.response_to, "code": "ok"}
    return header
