"""What BaRS demands of a referral and a native one lacks: made of what the native one says.

Sections 4.3 and 6 of the standard's rules: CarePlan, Task, the sender's Encounter, Consent, the
receiver's HealthcareService, and whom to reach about the patient.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from fhir_profiles import codes
from fhir_profiles.bars.codes import CONSENTS
from fhir_profiles.bars.outgoing import Held, Place, identified, named, organization, reference
from fhir_profiles.bundle import told_id

_ACTS: Final = f"{codes.HL7}v3-ActCode"
_ROLES: Final = f"{codes.HL7}v3-RoleCode"
_RANK: Final = f"{codes.UK_CORE}Extension-UKCore-ContactRank"
AMBULATORY: Final = {"system": _ACTS, "code": "AMB", "display": "ambulatory"}


@dataclass(frozen=True, slots=True)
class Demanded:
    """Makes what one native request lacks, under fullUrls that its message's id gives for ever."""

    message_id: str
    at: datetime
    request: Mapping[str, Any] = field(repr=False)
    patient: str

    def url(self, name: str) -> str:
        """Return the fullUrl that what is added under a name has."""
        return told_id(self.message_id, f"bars {name}")

    def task(self) -> Held | None:
        """Return the one thing to do and its window; None where the request sets no end."""
        asked = window(self.request)
        if "end" not in asked:
            return None
        return self._made(
            "task",
            "Task",
            status="requested",
            intent="order",
            priority=self.request.get("priority"),
            code=self.request.get("code"),
            **{"for": reference(self.patient)},
            authoredOn=self.request["authoredOn"],
            restriction={"period": asked},
        )

    def care_plan(self, encounter: str, conditions: Sequence[str], task: Held | None) -> Held:
        """Return what is asked for, in words: the whole of it, for a person to read."""
        activity: dict[str, Any] = {
            "outcomeCodeableConcept": [{"text": "\n".join(dict.fromkeys(narrative(self.request)))}]
        }
        if task is not None:
            activity["reference"] = reference(task.full_url)
        return self._made(
            "care plan",
            "CarePlan",
            status="completed",
            intent="plan",
            subject=reference(self.patient),
            encounter=reference(encounter),
            period={"start": self.request["authoredOn"]},
            addresses=[reference(url) for url in conditions] or None,
            activity=[activity],
        )

    def encounter(self, journey: Sequence[Mapping[str, str]]) -> Held:
        """Return the meeting that the referral came of, where the content says nothing of it."""
        return self._made(
            "encounter",
            "Encounter",
            identifier=[self.case_number()],
            status="finished",
            **{"class": AMBULATORY},
            subject=reference(self.patient),
            episodeOfCare=list(journey),
            period={"start": window(self.request)["start"]},
        )

    def case_number(self) -> dict[str, Any]:
        """Return what a person at the sender's calls it by: its own reference."""
        for identifier in self.request.get("identifier", ()):
            if identifier.get("system") == codes.SENDER_REFERENCE:
                return dict(identifier)
        return {"system": codes.MESSAGE_ID, "value": self.message_id}

    def consent(self) -> Held:
        """Return that the patient's data may be shared for direct care, as BaRS wants it said."""
        return self._made(
            "consent",
            "Consent",
            status="active",
            scope=_coded(f"{codes.HL7}consentscope", "patient-privacy"),
            category=[_coded(CONSENTS, "DRC", "Direct Care")],
            patient=reference(self.patient),
            dateTime=self.request["authoredOn"],
            policyRule=_coded(_ACTS, "IMPLIED"),
        )

    def _made(self, name: str, kind: str, **elements: Any) -> Held:
        profile = f"{codes.UK_CORE}UKCore-{kind}"
        return named(self.message_id, f"bars {name}", kind, profile, self.at, **elements)


def service(
    entries: Sequence[Held], message_id: str, place: Place, at: datetime
) -> tuple[str, list[Held]]:
    """Return the fullUrl of a place's HealthcareService, and what must be added for it to be there:
    itself and the organisation that provides it."""
    known = identified(entries, "HealthcareService", place.system, place.value)
    if known is not None:
        return known, []
    added = []
    provider = identified(entries, "Organization", codes.ODS, place.ods)
    if provider is None:
        added.append(organization(message_id, place, at))
        provider = added[0].full_url
    made = named(
        message_id,
        f"bars service {place.endpoint}",
        "HealthcareService",
        f"{codes.UK_CORE}UKCore-HealthcareService",
        at,
        identifier=[{"system": place.system, "value": place.value}],
        active=True,
        providedBy=reference(provider),
        name=place.service or place.name or place.ods,
    )
    return made.full_url, [*added, made]


def window(request: Mapping[str, Any]) -> dict[str, str]:
    """Return from when and, where it is known, by when the patient is to be seen."""
    start = {"start": request["authoredOn"]}
    return {**start, **request.get("occurrencePeriod", {})}


def narrative(request: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is asked for, why, how urgently, and all that was noted, a paragraph each."""
    for concept in (request.get("code", {}), *request.get("reasonCode", ())):
        yield from (said for said in (words(concept),) if said)
    if "priority" in request:
        yield f"Priority: {request['priority']}."
    yield from (note["text"] for note in request.get("note", ()) if "text" in note)
    if "patientInstruction" in request:
        yield f"Told to the patient: {request['patientInstruction']}"


def words(concept: Mapping[str, Any]) -> str:
    """Return what a concept says to a person: its text, else its first display."""
    displays = (coding["display"] for coding in concept.get("coding", ()) if "display" in coding)
    return str(concept.get("text") or next(displays, ""))


def contacts(
    patient: Mapping[str, Any], guardian: Mapping[str, Any] | None
) -> list[dict[str, Any]]:
    """Return whom to reach about the patient, in the order in which to try.

    Who speaks for the patient goes first where a number is known: a child does not answer.
    """
    own = _contact(patient, [_coded(_ROLES, "ONESELF", "self")])
    if guardian is None:
        return _ranked([own])
    others = _contact(guardian, guardian.get("relationship"))
    return _ranked([others, own] if "telecom" in others else [own, others])


def _contact(person: Mapping[str, Any], relationship: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"relationship": relationship} if relationship else {}
    if person.get("name"):
        found["name"] = person["name"][0]
    if person.get("telecom"):
        found["telecom"] = [
            {**one, "rank": rank} for rank, one in enumerate(person["telecom"], start=1)
        ]
    return found


def _ranked(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"extension": [{"url": _RANK, "valuePositiveInt": rank}], **one}
        for rank, one in enumerate(found, start=1)
    ]


def _coded(system: str, code: str, display: str | None = None) -> dict[str, Any]:
    coding = {"system": system, "code": code}
    return {"coding": [coding | {"display": display} if display else coding]}
