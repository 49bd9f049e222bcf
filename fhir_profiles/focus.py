"""What a message is about: Communication, ServiceRequest or Task, and whole contents around them.

`notice` and `task` return the content of a message that tells of something done with another one:
they repeat the patient of the original and name the original by identifier.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Final

from fhir.resources.R4B.annotation import Annotation
from fhir.resources.R4B.codeableconcept import CodeableConcept
from fhir.resources.R4B.communication import Communication, CommunicationPayload
from fhir.resources.R4B.extension import Extension
from fhir.resources.R4B.identifier import Identifier
from fhir.resources.R4B.period import Period
from fhir.resources.R4B.reference import Reference
from fhir.resources.R4B.servicerequest import ServiceRequest

from fhir_profiles import blocks, codes, make
from fhir_profiles.bundle import Entries, lend, organizations
from fhir_profiles.message import Site
from fhir_profiles.resources import (
    When,
    by_identifier,
    coding,
    concept,
    defined,
    extension,
    meta,
    moment,
    note,
    organization,
    reference,
)

_TASK_CODE: Final = "http://hl7.org/fhir/CodeSystem/task-code"


def message_identifiers(message_id: str, ods: str, own_reference: str) -> list[Identifier]:
    """Return how both sides know a message: by the broker's id, and by the sender's reference."""
    return [
        make.Identifier(system=codes.MESSAGE_ID, value=message_id),
        make.Identifier(
            system=codes.SENDER_REFERENCE,
            value=own_reference,
            assigner=by_identifier("Organization", codes.ODS, ods),
        ),
    ]


def headed(heading: str, text: str) -> CommunicationPayload:
    """Return one payload under a PRSB heading (a code of `record-standard-headings`)."""
    return make.CommunicationPayload(extension=[_heading(heading)], contentString=text)


@cache
def _heading(code: str) -> Extension:
    headings = codes.system("record-standard-headings")
    value = coding(headings.url, code, headings.display(code))
    return extension(codes.EXT_HEADING, valueCoding=value)


def communication(
    *,
    identifiers: Sequence[Identifier],
    category: CodeableConcept,
    sent: datetime,
    sender: str,
    recipients: Sequence[str] = (),
    patient: str | None = None,
    topic: CodeableConcept | None = None,
    status_reason: CodeableConcept | None = None,
    encounter: str | None = None,
    about: Sequence[Reference] = (),
    in_response_to: Reference | None = None,
    based_on: Reference | None = None,
    reasons: Sequence[CodeableConcept] = (),
    payload: Sequence[CommunicationPayload] = (),
    notes: Sequence[Annotation] = (),
    label: str | None = None,
) -> Communication:
    """Return something told by one organisation to another: complete, not a request."""
    return make.Communication(
        meta=meta("UKCore-Communication", label),
        identifier=list(identifiers),
        basedOn=[based_on] if based_on else None,
        inResponseTo=[in_response_to] if in_response_to else None,
        status="completed",
        statusReason=status_reason,
        category=[category],
        subject=reference(patient) if patient else None,
        topic=topic,
        about=list(about) or None,
        encounter=reference(encounter) if encounter else None,
        sent=sent,
        recipient=[reference(url) for url in recipients] or None,
        sender=reference(sender),
        reasonCode=list(reasons) or None,
        payload=list(payload) or None,
        note=list(notes) or None,
    )


def service_request(
    *,
    identifiers: Sequence[Identifier],
    category: CodeableConcept,
    code: CodeableConcept,
    priority: str,
    patient: str,
    requester: str,
    performers: Sequence[str],
    authored: When,
    window: Period | None = None,
    encounter: str | None = None,
    reasons: Sequence[CodeableConcept] = (),
    reason_references: Sequence[str] = (),
    supporting: Sequence[str] = (),
    sites: Sequence[CodeableConcept] = (),
    details: Sequence[CodeableConcept] = (),
    notes: Sequence[Annotation] = (),
    label: str | None = None,
) -> ServiceRequest:
    """Return an active request to take a patient on; `window` is by when they are to be seen."""
    return make.ServiceRequest(
        meta=meta("UKCore-ServiceRequest", label),
        identifier=list(identifiers),
        status="active",
        intent="order",
        category=[category],
        priority=priority,
        code=code,
        orderDetail=list(details) or None,
        subject=reference(patient),
        encounter=reference(encounter) if encounter else None,
        occurrencePeriod=window,
        authoredOn=moment(authored),
        requester=reference(requester),
        performer=[reference(url) for url in performers] or None,
        reasonCode=list(reasons) or None,
        reasonReference=[reference(url) for url in reason_references] or None,
        supportingInfo=[reference(url) for url in supporting] or None,
        bodySite=list(sites) or None,
        note=list(notes) or None,
    )


def urgencies(sender: str, table: str | None, rule: str) -> Extension:
    """Return how urgent a sender asked for and our table says, and which rule decided."""
    both = [extension("sender", valueCode=sender)]
    if table is not None:
        both.append(extension("table", valueCode=table))
    both.append(extension("rule", valueString=rule))
    return make.Extension(url=codes.EXT_URGENCY, extension=both)


def provider(named: blocks.Provider) -> Extension:
    """Return whom the sender or the patient named, instead of whom routing would find."""
    parts = [extension("ods", valueString=named.ods)]
    if named.service is not None:
        parts.append(extension("service", valueString=named.service))
    parts.append(extension("chosen-by-patient", valueBoolean=named.chosen_by_patient))
    return make.Extension(url=codes.EXT_PROVIDER, extension=parts)


@dataclass(frozen=True, slots=True)
class Content:
    """A content Bundle and the fullUrl of the resource that it is about."""

    body: bytes
    focus: str


@dataclass(frozen=True, slots=True)
class Original:
    """The message that something is told of; `content` (if it is at hand) lends its patient."""

    message_id: str
    kind: str
    reference: str | None = None
    content: bytes | None = None


def notice(
    message_id: str,
    *,
    topic: str,
    text: str,
    sent: datetime,
    sender: Site,
    receiver: Site,
    original: Original,
    subject: str | None = None,
    reason: tuple[str, str] | None = None,
    advice: str | None = None,
) -> Content:
    """Return the content of a notice: a Communication that answers the original, or is about it.

    `topic` is a code of `notice-topic`, `reason` (definition, code) such as ("rejection-reason",
    "deceased"), `text` a sentence for a person, `subject` the referral or consultation it is about.
    """
    telling = Telling(message_id, original, sender, receiver)
    told_of = by_identifier(original.kind, codes.MESSAGE_ID, original.message_id)
    # In response to something is only what answers another Communication.
    is_answer = original.kind == "Communication"
    about = [] if is_answer else [told_of]
    if subject:
        about.append(by_identifier(original.kind, codes.SUBJECT_ID, subject))
    if original.reference:
        about.append(by_identifier(original.kind, codes.SENDER_REFERENCE, original.reference))
    category = concept(f"{codes.HL7}communication-category", "notification")
    focus = telling.entries.add(
        "communication",
        communication(
            identifiers=[make.Identifier(system=codes.MESSAGE_ID, value=message_id)],
            category=category,
            topic=defined("notice-topic", topic),
            status_reason=defined(*reason) if reason else None,
            sent=sent,
            sender=telling.site(sender),
            recipients=[telling.site(receiver)],
            patient=telling.patient,
            about=about,
            in_response_to=told_of if is_answer else None,
            payload=[make.CommunicationPayload(contentString=text)],
            notes=[note(advice)] if advice else [],
        ),
    )
    return telling.finish(focus)


def task(
    message_id: str,
    *,
    referral: str,
    state: str,
    moved: datetime,
    requester: Site,
    owner: Site,
    original: Original,
    reason: str | None = None,
    advice: str | None = None,
    priority: str | None = None,
) -> Content:
    """Return the content that tells a referral's move: a Task in the state that it has now.

    `referral` is the subject's id, `state` a code of `referral-state`; `reason` is why, `advice`
    what the receiver tells the referrer, both in the receiver's words.
    """
    states = codes.system("referral-state")
    telling = Telling(message_id, original, requester, owner)
    subject: dict[str, Any] = {"for": reference(telling.patient) if telling.patient else None}
    focus = telling.entries.add(
        "task",
        make.Task(
            meta=meta("UKCore-Task"),
            identifier=[make.Identifier(system=codes.MESSAGE_ID, value=message_id)],
            groupIdentifier=make.Identifier(system=codes.SUBJECT_ID, value=referral),
            status=states.properties[state]["task-status"],
            statusReason=make.CodeableConcept(text=reason) if reason else None,
            businessStatus=defined("referral-state", state),
            intent="order",
            priority=priority,
            code=concept(_TASK_CODE, "fulfill"),
            focus=by_identifier("ServiceRequest", codes.MESSAGE_ID, original.message_id),
            **subject,
            lastModified=moved,
            requester=reference(telling.site(requester)),
            owner=reference(telling.site(owner)),
            note=[note(advice)] if advice else None,
        ),
    )
    return telling.finish(focus)


class Telling:
    """The entries of a content that tells of an original: its patient, and the organisations."""

    def __init__(self, message_id: str, original: Original, *sites: Site) -> None:
        self.entries = Entries(message_id)
        carried = lend(original.content, "Patient", message_id) if original.content else []
        self.carried = [entry.resource for entry in carried]
        self.patient = carried[0].full_url if carried else None
        self._sites = organizations(json.loads(entry) for entry in self.carried)
        for site in sites:
            if site.ods not in self._sites:
                resource = organization(site.ods, site.name)
                self._sites[site.ods] = self.entries.add(f"organization {site.ods}", resource)

    def site(self, site: Site) -> str:
        return self._sites[site.ods]

    def finish(self, focus: str) -> Content:
        return Content(self.entries.body(self.carried), focus)
