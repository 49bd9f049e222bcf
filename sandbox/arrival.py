"""What arrived: a delivered message Bundle, read as far as a partner's own system needs it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fhir_profiles import codes
from sandbox import marks


@dataclass(frozen=True, slots=True)
class Arrival:
    """One delivery as its receiver sees it. `digest` is of the bytes, computed by the receiver."""

    delivery: str
    kind: str
    via: str
    digest: str
    body: bytes = field(repr=False)
    event: str
    family: str
    nhs_number: str
    message: str
    """The broker's id of this message."""
    reference: str
    """The sender's own reference of this message, where it has one."""
    about: str
    """The id of the message that this one tells of: of a notice, a move, a withdrawal."""
    topic: str
    """What a notice tells: `update-filed` …, or the state that a referral is in now."""
    text: str
    advice: str
    referral: str = ""
    patient: str = ""
    """The digest of who the patient is, where the Bundle says it."""

    def facts(self) -> dict[str, Any]:
        """Return what a ledger keeps of it."""
        kept = {
            "delivery": self.delivery,
            "kind": self.kind,
            "via": self.via,
            "digest": self.digest,
            "event": self.event,
            "message": self.message,
            "reference": self.reference,
            "about": self.about,
            "topic": self.topic,
            "text": self.text,
            "advice": self.advice,
            "family": self.family,
            "patient": self.patient,
        }
        said = {name: value for name, value in kept.items() if value}
        return {**said, "nonces": marks.nonces(self.body)}


def read(delivery: str, kind: str, via: str, body: bytes, *, referral: str = "") -> Arrival:
    """Read a delivered Bundle. Raises ValueError, KeyError where it is not a message Bundle."""
    bundle = json.loads(body)
    entries = {entry["fullUrl"]: entry["resource"] for entry in bundle["entry"]}
    header = next(iter(entries.values()))
    focus = entries[header["focus"][0]["reference"]]
    patients = [one for one in entries.values() if one["resourceType"] == "Patient"]
    patient: dict[str, Any] = patients[0] if patients else {}
    about = _about(focus)
    names = {one["system"]: one["value"] for one in focus.get("identifier", ())}
    return Arrival(
        delivery=delivery,
        kind=kind,
        via=via,
        digest=hashlib.sha256(body).hexdigest(),
        body=body,
        event=header["eventCoding"]["code"],
        family=next((name.get("family", "") for name in patient.get("name", ())), ""),
        nhs_number=next((one.get("value", "") for one in patient.get("identifier", ())), ""),
        message=names.get(codes.MESSAGE_ID, ""),
        reference=names.get(codes.SENDER_REFERENCE, ""),
        about=about,
        topic=_code(focus.get("businessStatus") or focus.get("topic")) if about else "",
        text="\n".join(_texts(focus)) if about else "",
        advice="\n".join(note.get("text", "") for note in focus.get("note", ())) if about else "",
        referral=referral or focus.get("groupIdentifier", {}).get("value", ""),
        patient=_patient(patient) if patient else "",
    )


def _patient(patient: Mapping[str, Any]) -> str:
    numbers = (
        one.get("value", "")
        for one in patient.get("identifier", ())
        if one.get("system") == codes.NHS_NUMBER
    )
    families = (name.get("family", "") for name in patient.get("name", ()))
    return marks.patient(next(numbers, ""), patient.get("birthDate", ""), next(families, ""))


def _about(focus: Mapping[str, Any]) -> str:
    """Return the message that a Communication answers or is about, or that a Task is about."""
    named = [focus.get("focus", {}), *focus.get("inResponseTo", ()), *focus.get("about", ())]
    identifiers = (one.get("identifier", {}) for one in named)
    return next((one["value"] for one in identifiers if one.get("system") == codes.MESSAGE_ID), "")


def _code(concept: Mapping[str, Any] | None) -> str:
    return next((one.get("code", "") for one in (concept or {}).get("coding", ())), "")


def _texts(focus: Mapping[str, Any]) -> Iterator[str]:
    if focus["resourceType"] == "Task":
        yield focus.get("statusReason", {}).get("text", "")
    yield from (one.get("contentString", "") for one in focus.get("payload", ()))
