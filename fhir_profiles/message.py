"""The message that one destination gets: a content under a MessageHeader of its own.

It has a new Bundle id; the clinical entries keep their every byte (see `bundle`).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fhir.resources.R4B.extension import Extension
from fhir.resources.R4B.messageheader import MessageHeader

from fhir_profiles import bundle, codes, make, resources, strict_json


@dataclass(frozen=True, slots=True)
class Site:
    """One end of a message: an organisation and, where it has several, the service there."""

    ods: str
    name: str = ""
    service: str = ""


@dataclass(frozen=True, slots=True)
class Header:
    """What makes a message of a content: who tells whom, what it is about, and why.

    `event` and `reason` are codes of the systems `message-event` and `message-reason`; `focus` are
    fullUrls of the content; `response_to` is the id of the Bundle that this one answers;
    `replaces` is the id of the message that this one takes the place of.
    """

    bundle_id: str
    header_id: str
    event: str
    timestamp: datetime
    source_name: str
    source_endpoint: str
    sender: Site
    receiver: Site
    focus: tuple[str, ...]
    reason: str | None = None
    response_to: str | None = None
    replaces: str | None = None


def address(content: bytes, header: Header) -> bytes:
    """Make the message that one destination gets. The content's entries keep their every byte."""
    carried, known = bundle.carried(content)
    added: list[bytes] = []
    ends = []
    for site in (header.sender, header.receiver):
        if site.ods not in known:
            known[site.ods] = bundle.told_id(header.bundle_id, f"organization {site.ods}")
            resource = resources.organization(site.ods, site.name)
            added.append(bundle.written(known[site.ods], resource))
        ends.append(known[site.ods])
    if header.timestamp.tzinfo is None:
        raise ValueError("A message's timestamp needs its offset.")
    url = f"{bundle.URN}{header.header_id.removeprefix(bundle.URN)}"
    first = bundle.written(url, _message_header(header, *ends))
    opening = strict_json.dumps(
        {
            "resourceType": "Bundle",
            "id": header.bundle_id,
            "type": "message",
            "timestamp": header.timestamp.isoformat(),
        }
    )
    parts = [first, *added, carried] if carried else [first, *added]
    return opening[:-1] + b',"entry":[' + b",".join(parts) + b"]}"


def _message_header(header: Header, sender: str, receiver: str) -> MessageHeader:
    events = codes.system("message-event")
    event: dict[str, Any] = {
        "eventCoding": make.Coding(
            system=events.url, code=header.event, display=events.display(header.event)
        )
    }
    to = header.receiver
    endpoint = f"{codes.SERVICE_ID}|{to.service}" if to.service else f"{codes.ODS}|{to.ods}"
    return make.MessageHeader(
        meta=resources.meta("UKCore-MessageHeader"),
        **event,
        destination=[
            make.MessageHeaderDestination(
                name=to.name or None,
                endpoint=endpoint,
                receiver=resources.reference(receiver),
            )
        ],
        sender=resources.reference(sender),
        source=make.MessageHeaderSource(name=header.source_name, endpoint=header.source_endpoint),
        reason=resources.defined("message-reason", header.reason) if header.reason else None,
        response=make.MessageHeaderResponse(identifier=header.response_to, code="ok")
        if header.response_to
        else None,
        focus=[resources.reference(url) for url in header.focus] or None,
        extension=[_replaces(header.replaces)] if header.replaces else None,
    )


def _replaces(message_id: str) -> Extension:
    replaced = make.Identifier(system=codes.MESSAGE_ID, value=message_id)
    return resources.extension(codes.EXT_REPLACES, valueIdentifier=replaced)
