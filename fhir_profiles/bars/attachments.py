"""Attachments as BaRS takes them: a link in the payload of a Communication.

The message definition of a BaRS referral has Communication and no DocumentReference.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from fhir_profiles import codes
from fhir_profiles.bars.outgoing import Held, made

_PROFILE: Final = f"{codes.UK_CORE}UKCore-Communication"


def as_links(found: Sequence[Held], at: datetime) -> list[Held]:
    """Return entries with those documents that are fetched here as Communications, under the same
    fullUrls: what refers to them still does."""
    return [
        made(entry.full_url, _communication(entry.resource, at)) if is_ours(entry) else entry
        for entry in found
    ]


def is_ours(entry: Held) -> bool:
    """Whether an entry is a document that was uploaded here."""
    if entry.type != "DocumentReference":
        return False
    return any(
        one.get("url") == codes.EXT_SHA256
        for content in entry.resource.get("content", ())
        for one in content.get("attachment", {}).get("extension", ())
    )


def _communication(document: Mapping[str, Any], at: datetime) -> dict[str, Any]:
    """Return the link, what it shows and whose it is, as far as the document says."""
    payload = [{"contentAttachment": one["attachment"]} for one in document["content"]]
    if "description" in document:
        payload.append({"contentString": document["description"]})
    told = {
        "subject": document.get("subject"),
        "sent": document.get("date"),
        "sender": next(iter(document.get("author", ())), None),
    }
    return {
        "resourceType": "Communication",
        "id": document["id"],
        "meta": {"lastUpdated": at.isoformat(), "profile": [_PROFILE]},
        "status": "completed",
        **{name: said for name, said in told.items() if said is not None},
        "payload": payload,
    }
