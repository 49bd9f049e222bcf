"""The message that one destination gets: a content under a MessageHeader of its own.

It has a new Bundle id; the clinical entries keep their every byte (see `bundle`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fhir.resources.R4B.extension import Extension
from fhir.resources.R4B.flag import Flag
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


@dataclass(frozen=True, slots=True)
class Similar:
    """Another message like this one; `message` is its id, where the receiver may know it."""

    accepted_at: datetime
    is_of_same_sender: bool
    message: str | None = None


def address(content: bytes, header: Header, similar: Sequence[Similar] = ()) -> bytes:
    """Make the message that one destination gets. The content's entries keep their every byte.

    What is similar to it is flagged beside them, and is nothing that its sender said.
    """
    carried, known = bundle.carried(content)
    added: list[bytes] = []
    ends = []
    for site in (header.sender, header.receiver):
        if site.ods not in known:
            known[site.ods] = bundle.told_id(header.bundle_id, f"organization {site.ods}")
            resource = resources.organization(site.ods, site.name)
            added.append(bundle.written(known[site.ods], resource))
        ends.append(known[site.ods])
    added += flags(content, header.bundle_id, similar)
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


def flags(content: bytes, bundle_id: str, similar: Sequence[Similar]) -> list[bytes]:
    """Return the entries by which one destination is told what is similar to a content."""
    patient = bundle.patient(content) if similar else None
    return [
        bundle.written(bundle.told_id(bundle_id, f"similar {at}"), _flag(one, patient))
        for at, one in enumerate(similar)
    ]


def _flag(similar: Similar, patient: str | None) -> Flag:
    whose = "the same sender" if similar.is_of_same_sender else "another sender"
    named = f" It is message {similar.message}." if similar.message else ""
    code = resources.defined("warning", "similar-message").model_copy(
        update={
            "text": "A message on the same pathway for this patient, from "
            f"{whose}, was accepted {similar.accepted_at:%Y-%m-%d %H:%M} UTC.{named}"
        }
    )
    known = similar.message is not None
    return make.Flag(
        meta=resources.meta("UKCore-Flag"),
        status="active",
        category=[resources.concept(f"{codes.HL7}flag-category", "safety")],
        code=code,
        subject=resources.reference(patient)
        if patient
        else make.Reference(display="The patient of this message"),
        period=resources.period(similar.accepted_at),
        identifier=[make.Identifier(system=codes.MESSAGE_ID, value=similar.message)]
        if known
        else None,
    )


def _replaces(message_id: str) -> Extension:
    replaced = make.Identifier(system=codes.MESSAGE_ID, value=message_id)
    return resources.extension(codes.EXT_REPLACES, valueIdentifier=replaced)
