"""A referral that the broker holds, as BaRS tells it: the same entries in every message about it.

One that came by BaRS is told as it came. Of a native one the clinical entries keep their bytes but
for `meta.lastUpdated`, which BaRS demands of each; the request, the patient and the encounter are
written anew, and what BaRS demands beside them is added (`fhir_profiles.bars.demanded`).
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from fhir_profiles import strict_json, verification_status
from fhir_profiles.bars import demanded
from fhir_profiles.bars.attachments import as_links
from fhir_profiles.bars.codes import APPLICATION, REFERRAL, category
from fhir_profiles.bars.outgoing import Held, Place, held, made, reference

# Journeys are named by this for ever: an onward referral must bear the same one.
JOURNEYS: Final = uuid.UUID("0f4f6b1e-3a43-5f0c-8a53-2c9a1d6e7b10")


@dataclass(frozen=True, slots=True)
class Referral:
    """A referral's content, and what is to be known of it beside.

    `message_id` is a UUID, `focus` the fullUrl of its ServiceRequest, `performer` who is asked to
    act, `correlation_id` what joins it to others. `came_by_bars`: the content is a message of
    BaRS, with its header.
    """

    content: bytes = field(repr=False)
    focus: str
    message_id: str
    correlation_id: str
    pathway: str
    at: datetime
    performer: Place
    came_by_bars: bool = False

    @property
    def application(self) -> str:
        """The version of the rules that its payload follows."""
        if not self.came_by_bars:
            return APPLICATION
        meta = dict(strict_json.members(self.content)).get("meta", b"{}")
        return str(strict_json.loads(meta).get("versionId", APPLICATION))

    def entries(self) -> list[Held]:
        """Return its entries as BaRS tells them, without a header."""
        found = held(self.content)
        if self.came_by_bars:
            return [entry for entry in found if entry.type != "MessageHeader"]
        return list(_told(self, found))


def asked(entries: Sequence[Held], focus: str) -> Held:
    """Return the ServiceRequest that a referral is about. Raises LookupError without one."""
    for entry in entries:
        if entry.full_url == focus and entry.type == "ServiceRequest":
            return entry
    raise LookupError("the content has no ServiceRequest that it is about")


# What names a request, and nothing that refers to what a short message does not bring along.
_NAMES: Final = (
    *("resourceType", "id", "meta", "identifier", "status", "intent", "category", "priority"),
    *("code", "subject", "occurrencePeriod", "authoredOn"),
)


def named_only(request: Mapping[str, Any], at: datetime) -> dict[str, Any]:
    """Return as much of a ServiceRequest as names it, changed at this time."""
    kept = {name: request[name] for name in _NAMES if name in request}
    return {**kept, "meta": {**request.get("meta", {}), "lastUpdated": at.isoformat()}}


def first(entries: Sequence[Held], kind: str) -> Held | None:
    """Return the first entry of a type."""
    return next((entry for entry in entries if entry.type == kind), None)


def _told(referral: Referral, found: Sequence[Held]) -> Iterator[Held]:
    found = as_links(found, referral.at)
    request, patient = asked(found, referral.focus), first(found, "Patient")
    if patient is None:
        raise LookupError("a referral by BaRS names its patient")
    extra = demanded.Demanded(referral.message_id, referral.at, request.resource, patient.full_url)
    encounter = first(found, "Encounter")
    met = encounter.full_url if encounter else extra.url("encounter")
    conditions = [one.full_url for one in found if one.type == "Condition"]
    task = extra.task()
    plan = extra.care_plan(met, conditions, task)
    service, added = demanded.service(found, referral.message_id, referral.performer, referral.at)
    for entry in found:
        if entry is request:
            wanted = _asking(entry.resource, found)
            yield _written(entry, _request(wanted, referral, plan, met, service), referral)
        elif entry is patient:
            yield _written(entry, _patient(entry.resource, first(found, "RelatedPerson")), referral)
        elif entry is encounter:
            yield _written(entry, _encounter(entry.resource, referral, extra), referral)
        else:
            yield _stamped(entry, referral.at)
    if encounter is None:
        yield extra.encounter(_journey(referral))
    yield from (one for one in (plan, task, *added, extra.consent()) if one is not None)


def _journey(referral: Referral) -> list[dict[str, str]]:
    """Return what joins all referrals that followed from the first contact."""
    return [reference(f"EpisodeOfCare/{uuid.uuid5(JOURNEYS, referral.correlation_id)}")]


# -- written anew --------------------------------------------------------------------------------


def _written(entry: Held, resource: Mapping[str, Any], referral: Referral) -> Held:
    meta = {**resource.get("meta", {}), "lastUpdated": referral.at.isoformat()}
    return made(entry.full_url, {**resource, "meta": meta})


def _request(
    request: Mapping[str, Any], referral: Referral, plan: Held, encounter: str, service: str
) -> dict[str, Any]:
    """Return the request as BaRS takes it; all that is clinical in it stays."""
    return {
        **request,
        "meta": {**request.get("meta", {}), "profile": [REFERRAL]},
        "basedOn": [*request.get("basedOn", ()), reference(plan.full_url)],
        "intent": "plan",
        "category": [category(referral.pathway)],
        "encounter": reference(encounter),
        "occurrencePeriod": demanded.window(request),
        "performer": [reference(service)],
    }


def _asking(request: Mapping[str, Any], found: Sequence[Held]) -> Mapping[str, Any]:
    """Return the request as made by the person, whom BaRS wants there, where it names a role."""
    asks = request.get("requester", {}).get("reference")
    for entry in found:
        if entry.full_url == asks and "practitioner" in entry.resource:
            return {**request, "requester": entry.resource["practitioner"]}
    return request


def _encounter(
    encounter: Mapping[str, Any], referral: Referral, extra: demanded.Demanded
) -> dict[str, Any]:
    return {
        **encounter,
        "identifier": [extra.case_number(), *encounter.get("identifier", ())],
        "episodeOfCare": [*encounter.get("episodeOfCare", ()), *_journey(referral)],
    }


def _patient(patient: Mapping[str, Any], guardian: Held | None) -> dict[str, Any]:
    to_bars = verification_status.to_bars
    identifiers = [
        verification_status.with_status(one, to_bars) for one in patient.get("identifier", ())
    ]
    contact = patient.get("contact") or demanded.contacts(
        patient, guardian.resource if guardian else None
    )
    written = {**patient, "contact": contact}
    return {**written, "identifier": identifiers} if identifiers else written


# -- carried -------------------------------------------------------------------------------------


def _stamped(entry: Held, at: datetime) -> Held:
    """Return an entry with `meta.lastUpdated` put in, every other value as its bytes were."""
    resource = dict(strict_json.members(entry.raw))["resource"]
    meta = dict(strict_json.members(resource)).get("meta", b"{}")
    when = at.isoformat()
    stamped = _with(resource, "meta", _with(meta, "lastUpdated", strict_json.dumps(when)))
    read = {
        **entry.resource,
        "meta": {**entry.resource.get("meta", {}), "lastUpdated": at.isoformat()},
    }
    return Held(entry.full_url, read, _with(entry.raw, "resource", stamped))


def _with(document: bytes, name: str, value: bytes) -> bytes:
    """Return a JSON object with one member put in; the others keep their bytes."""
    return strict_json.written({**dict(strict_json.members(document)), name: value})
