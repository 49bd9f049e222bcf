"""From a translated draft to a message ready to be stored: ids given, everything sealed.

The one way a message comes to be, whether a pillar posted it or the broker gives notice. Pure but
for the randomness of its key.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final

from broker import deadlines
from broker.deadlines import DeadlineKind
from broker.errors import BrokerError
from broker.events import (
    Event,
    Kind,
    Priority,
    Role,
    Route,
    SubjectKind,
    digest,
)
from broker.ports import Clinical
from broker.referral import RELATIONS, Relation
from broker.store import messages, resources, work
from broker.store.attachments import ContentKey
from broker.store.messages import NewMessage
from broker.vault import Binding, Vault
from fhir_profiles import bundle, structure, values

CONTENT: Final = "content"
POSTED: Final = "in"
FHIR_JSON: Final = "application/fhir+json"
JSON: Final = "application/json"
SCHEMA: Final = "https://referral-broker.example/fhir/StructureDefinition/message-content|1.0.0"


@dataclass(frozen=True, slots=True)
class Composing:
    """What is known of a message before it is sealed. Times aware, UTC.

    `correlation_id` joins what was posted together; `conversation` is what its sender calls the
    whole case (BaRS's X-Correlation-Id), where it said so. `checked` is the content as it was read
    and checked when it came in; without it, it is of our own making. `attachments` are the keys of
    what it names.
    """

    id: str
    kind: Kind
    subject: str
    event_type: str
    event_id: str
    source: str
    sender: str
    client: str
    door: str
    correlation_id: str
    content: bytes = field(repr=False)
    focus: str
    routes: tuple[Route, ...]
    priority: Priority
    happened: datetime | date
    now: datetime
    checked: Mapping[str, Any] | None = field(default=None, repr=False)
    subject_kind: SubjectKind | None = None
    conversation: str | None = None
    causation_id: str | None = None
    traceparent: str | None = None
    replaces: str | None = None
    version: int = 1
    pathway: str = ""
    pathway_version: str = ""
    reason: str = ""
    reference_hmac: str | None = None
    body_hmac: str | None = None
    posted: bytes | None = field(default=None, repr=False)
    patient: tuple[str, str] | None = None
    practice: str | None = None
    identity_verified: bool = True
    label: str = "N"
    consent: bool = True
    agreement: str | None = None
    purpose: str = "direct-care"
    warnings: Sequence[Mapping[str, str]] = ()
    clocks: tuple[Clinical, ...] = ()
    unclocked: frozenset[DeadlineKind] = frozenset()
    facts: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    attachments: Sequence[ContentKey] = ()


class Unsound(BrokerError):
    """A content of our own making is not FHIR R4. A bug of ours; nothing was stored."""


def compose(vault: Vault, new: Composing) -> NewMessage:
    """Give a message its key, seal what it holds, and lay down its event and deadlines.

    Raises Unsound where a content of our own making is not FHIR R4: nothing that is not gets any
    further. That it is as its profiles say is held by tests: a rule of ours must not hold a
    patient's message back.
    """
    held = _sound(new) if new.checked is None else new.checked
    key = vault.new_key(new.id)

    def seal(owner: str, role: str, content_type: str, body: bytes) -> dict[str, Any]:
        binding = Binding(owner, role, 1, new.sender, content_type)
        return messages.sealed(vault, key, binding, body, digest(body), new.now)

    payloads = [seal(new.event_id, CONTENT, FHIR_JSON, new.content)]
    if new.posted is not None:
        payloads.append(seal(new.id, POSTED, JSON, new.posted))
    payloads += [seal(new.id, role, JSON, body) for role, body in new.extra.items()]
    key_id, pseudonym = new.patient or (None, None)
    entries = bundle.index(held, new.id)
    about = next((row for row in entries if row.full_url == new.focus), None)
    # A Task tells one party of a move; where a referral stands is found by the referral's own.
    found = about if about is not None and about.type != "Task" else None
    return NewMessage(
        row={
            "id": new.id,
            "kind": new.kind.value,
            "status": "sent",
            "subject_id": new.subject,
            "event_id": new.event_id,
            "key_id": key.id,
            "door": new.door,
            "sender": new.sender,
            "client_id": new.client,
            "reference_hmac": new.reference_hmac,
            "body_hmac": new.body_hmac,
            "correlation_id": new.correlation_id,
            "replaces": new.replaces,
            "version": new.version,
            "pathway": new.pathway,
            "pathway_version": new.pathway_version,
            "priority": new.priority.value,
            "practice": new.practice,
            "patient_pseudonym": pseudonym,
            "pseudonym_key": key_id,
            "identity_verified": new.identity_verified,
            "label": new.label,
            "consent": new.consent,
            "agreement": new.agreement,
            "purpose": new.purpose,
            "warnings": [dict(warning) for warning in new.warnings],
            "clinical_at": deadlines.started(new.happened, new.now),
            "accepted_at": new.now,
            "closed_reason": None,
        },
        key=key,
        payloads=payloads,
        event=Event(
            id=new.event_id,
            type=new.event_type,
            source=new.source,
            subject=new.subject,
            time=new.now,
            dataschema=SCHEMA,
            message_id=new.id,
            correlation_id=new.conversation or new.correlation_id,
            causation_id=new.causation_id,
            traceparent=new.traceparent,
            priority=new.priority,
            facts={"focus": new.focus, **new.facts},
            routes=new.routes,
        ),
        subject_kind=new.subject_kind,
        index=[_index_row(new, row, row is about, pseudonym) for row in entries],
        viewers=_viewers(new, found) if found is not None else (),
        identifiers=_identifiers(vault, found) if found is not None else (),
        deadlines=deadline_rows(new),
        attachments=[one.sealed(vault, key) for one in new.attachments],
    )


def _sound(new: Composing) -> Any:
    """Return the content that was made, read. Raises Unsound."""
    wrong = structure.check(new.content)
    if wrong:
        where = "; ".join(f"{one.path}: {one.severity}" for one in wrong[:3])
        raise Unsound(f"what {new.door} made of {new.event_type} is not FHIR R4 at {where}")
    return json.loads(new.content)


def deadline_rows(new: Composing) -> list[dict[str, Any]]:
    """Return the deadlines of a message: at most one of each kind, with who must act."""
    rows: dict[str, dict[str, Any]] = {}
    acting = next((r.destination.ods for r in new.routes if r.role is Role.ACTING), "")
    for role in dict.fromkeys(route.role for route in new.routes):
        told = next(r.destination.ods for r in new.routes if r.role is role)
        found = deadlines.deadlines_for(
            new.kind,
            role,
            new.priority,
            new.happened,
            new.now,
            new.clocks,
            pathway=new.pathway,
            reason=new.reason,
            is_correction=new.replaces is not None,
        )
        for one in found:
            if one.kind in new.unclocked:
                continue
            owner = new.sender if one.owner is Relation.SENDER else told
            rows.setdefault(
                one.kind,
                work.deadline_row(
                    new.id, new.version, one.kind, owner or acting, one.source, one.due
                ),
            )
    return list(rows.values())


def _index_row(
    new: Composing, row: bundle.IndexRow, is_focus: bool, pseudonym: str | None
) -> dict[str, Any]:
    performer = next((r.destination.ods for r in new.routes if r.role is Role.ACTING), None)
    return {
        "id": row.resource_id,
        "version": 1,
        "type": row.type,
        "message_id": new.id,
        "event_id": new.event_id,
        "subject_id": new.subject,
        "status": row.status or None,
        "category": resources.tokens(row.categories) if is_focus else None,
        "code": resources.tokens(row.codes) if is_focus else row.code or None,
        "priority": row.priority or None,
        "requester": row.requester or (new.sender if is_focus else None),
        "performer": performer if is_focus else None,
        "patient_pseudonym": pseudonym if is_focus or row.type == "Patient" else None,
        "identifiers": None,
        "authored_at": _authored(new, row) if is_focus else None,
        "updated_at": new.now,
    }


def _authored(new: Composing, row: bundle.IndexRow) -> datetime:
    written = values.date_or_time(row.authored)
    if written is None or (isinstance(written, datetime) and written.tzinfo is None):
        return new.now
    return deadlines.started(written, new.now)


def _identifiers(vault: Vault, about: bundle.IndexRow) -> list[dict[str, Any]]:
    found = {resources.identifier_hmac(vault, *one) for one in about.identifiers}
    return [{"identifier_hmac": one, "resource_id": about.resource_id} for one in sorted(found)]


def _viewers(new: Composing, about: bundle.IndexRow) -> list[dict[str, Any]]:
    """Return who may find what the message is about: its sender and those that it goes to."""
    relations = {new.sender: Relation.SENDER}
    for role, relation in RELATIONS.items():
        for route in new.routes:
            if route.role is role:
                relations.setdefault(route.destination.ods, relation)
    return [
        {
            "organisation": organisation,
            "resource_id": about.resource_id,
            "version": 1,
            "type": about.type,
            "relation": relation.value,
            "label": new.label,
            "authored_at": _authored(new, about),
            "updated_at": new.now,
        }
        for organisation, relation in relations.items()
    ]
