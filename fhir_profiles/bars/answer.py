"""The synchronous answer to a BaRS message: what was sent, with the ids that its resources have.

BaRS Core 1.5.0, the receiver's response and Encounter: the ids of resources are given by who
receives them, and a second Encounter, planned, says under which reference a person finds the case.
No entry's bytes change but for its id.
"""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any, Final

from fhir_profiles import codes, strict_json
from fhir_profiles.bars import incoming as bars
from fhir_profiles.bars.codes import RESPONSE
from fhir_profiles.bars.incoming import Message, at, text
from fhir_profiles.bundle import given_id, told_id

PROFILES: Final = "https://fhir.nhs.uk/StructureDefinition/"
OWN_ENCOUNTER: Final = "answer encounter"
"""What the receiver's Encounter is named by, here and in every response that follows."""
_XHTML: Final = "http://www.w3.org/1999/xhtml"
_CLASS: Final = {
    "system": f"{codes.HL7}v3-ActCode",
    "code": "VR",
    "display": "virtual",
}


@dataclass(frozen=True, slots=True)
class Planned:
    """What the second Encounter says: the reference to read out, whose it is, and how far it is."""

    system: str
    reference: str
    words: str


@dataclass(frozen=True, slots=True)
class Answering:
    """By whom and when a message is answered; `message_id` is what it is here."""

    message_id: str
    at: datetime
    source_name: str
    source_endpoint: str


def spoken(message_id: str) -> str:
    """Return what a person reads out to name a message: the last twelve digits of its id."""
    digits = message_id[-12:].upper()
    return f"{digits[:4]}-{digits[4:8]}-{digits[8:]}"


def answer(
    content: bytes, message: Message, by: Answering, planned: Planned | None = None
) -> bytes:
    """Return the answer to a message: its entries with their ids, and `planned` where it begins
    something. The same message gives the same bytes."""
    header_url = told_id(by.message_id, f"answer header {message.id}")
    encounter_url = own_encounter(by.message_id)
    parts = [_entry(header_url, _header(message, by, encounter_url if planned else None))]
    parts += list(_entries(content, message, by))[1:]
    if planned is not None:
        parts.append(_entry(encounter_url, _encounter(message, by, planned)))
    opening = strict_json.dumps(
        {
            "resourceType": "Bundle",
            "id": str(uuid.uuid5(uuid.UUID(by.message_id), f"answer {message.id}")),
            "meta": {
                "versionId": message.version,
                "lastUpdated": by.at.isoformat(),
                "profile": [f"{PROFILES}BARSBundleMessage"],
            },
            "type": "message",
            "timestamp": by.at.isoformat(),
        }
    )
    return opening[:-1] + b',"entry":[' + b",".join(parts) + b"]}"


def passed_on(received: bytes, message: Message, by: Answering) -> bytes:
    """Return a receiver's own answer for the sender of a message that was passed on to it.

    What the sender knows already has the ids that it has here; everything else stays as it came.
    """
    held = dict(strict_json.members(received))
    if not held.get("entry", b"").startswith(b"["):
        return received
    held["entry"] = b"[" + b",".join(_entries(received, message, by)) + b"]"
    return strict_json.written(held)


def _entries(bundle: bytes, message: Message, by: Answering) -> Iterator[bytes]:
    """Yield each entry of a Bundle: a resource of the message with the id that it has here, every
    other byte as it was."""
    known = message.resources.keys() - {text(at(message.bundle, "entry", 0, "fullUrl"))}
    for raw in strict_json.elements_of(bundle, "entry"):
        held = dict(strict_json.members(raw)) if raw.startswith(b"{") else {}
        url = text(strict_json.loads(held.get("fullUrl", b"null")))
        resource = held.get("resource", b"")
        if url in known and resource.startswith(b"{"):
            given = strict_json.dumps(given_id(by.message_id, url))
            held["resource"] = strict_json.with_member(resource, "id", given)
            yield strict_json.written(held)
        else:
            yield raw


def own_encounter(message_id: str) -> str:
    """Return the fullUrl of the receiver's Encounter."""
    return told_id(message_id, OWN_ENCOUNTER)


def _entry(url: str, resource: Mapping[str, Any]) -> bytes:
    identified = {**resource, "id": url.removeprefix("urn:uuid:")}
    return strict_json.dumps({"fullUrl": url, "resource": identified})


def _header(message: Message, by: Answering, encounter: str | None) -> dict[str, Any]:
    header = message.header
    sender = at(header, "sender")
    destination: dict[str, Any] = {"endpoint": str(message.source)}
    if message.referred(sender):
        destination["receiver"] = {"reference": sender["reference"]}
    made: dict[str, Any] = {
        "resourceType": "MessageHeader",
        "meta": {
            "lastUpdated": by.at.isoformat(),
            "profile": [f"{PROFILES}BARSMessageHeader-servicerequest-response"],
        },
        "eventCoding": {"system": bars.EVENTS, "code": bars.RESPONSE},
        "destination": [destination],
        "source": {"name": by.source_name, "endpoint": by.source_endpoint},
        "reason": {"coding": [{"system": bars.REASONS, "code": "new"}]},
        "response": {"identifier": message.id, "code": "ok"},
        "focus": [{"reference": encounter or message.focus}],
    }
    responsible = at(header, "destination", 0, "receiver")
    if message.referred(responsible):
        made["sender"] = {"reference": responsible["reference"]}
    return {**made, "definition": RESPONSE} if encounter else made


def _encounter(message: Message, by: Answering, planned: Planned) -> dict[str, Any]:
    first = message.one("Encounter")
    words = f"{planned.words} Reference {planned.reference}."
    made: dict[str, Any] = {
        "resourceType": "Encounter",
        "meta": {
            "lastUpdated": by.at.isoformat(),
            "profile": [f"{codes.UK_CORE}UKCore-Encounter"],
        },
        "text": {"status": "generated", "div": f'<div xmlns="{_XHTML}">{escape(words)}</div>'},
        "identifier": [{"system": planned.system, "value": planned.reference}],
        "status": "planned",
        "class": first.get("class", _CLASS),
        "period": {"start": by.at.isoformat()},
    }
    carried = {name: first[name] for name in ("subject", "episodeOfCare") if name in first}
    return {**made, **carried}
