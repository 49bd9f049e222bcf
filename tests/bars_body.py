"""A small BaRS message of our own: a GP refers to a pharmacy (App 5, use case a5t1)."""

import json
import uuid
from collections.abc import Mapping
from typing import Any, Final

from fhir_profiles import codes
from fhir_profiles.bars.codes import USE_CASES
from fhir_profiles.bars.incoming import CATEGORIES, EVENTS, REASONS
from sandbox.bars_receiver import REFERRAL

NHS_NUMBER: Final = "9990000018"
FAMILY: Final = "Examplesson"
TARGET: Final = (codes.DOS, "2000099901")
PATIENT_WORDS: Final = (NHS_NUMBER, FAMILY, "Robin", "1961-04-02", "Constipation")
_NHS: Final = "https://fhir.nhs.uk/CodeSystem/"
_AT: Final = "2026-11-23T09:30:00+00:00"
_NAMES: Final = (
    *("header", "request", "encounter", "plan", "task", "condition", "patient", "consent"),
    *("practice", "pharmacy", "practitioner", "role", "service"),
)


def request(*, target: tuple[str, str] = TARGET, **changes: Any) -> bytes:
    """Return a new referral to a service; `changes` replace members of the Bundle, of its header
    (`header_…`) or of its meta (`meta_…`), None takes one out."""
    at = {name: f"urn:uuid:{uuid.uuid4()}" for name in _NAMES}
    meta = {"lastUpdated": _AT}
    resources = _resources(at, target)
    bundle: dict[str, Any] = {
        "resourceType": "Bundle",
        "id": str(uuid.uuid4()),
        "meta": {
            "versionId": "1.2.0",
            **meta,
            "profile": ["https://fhir.nhs.uk/StructureDefinition/BARSBundleMessage"],
        },
        "type": "message",
        "timestamp": _AT,
        "entry": [
            {"fullUrl": at[name], "resource": {**resource, "meta": meta}}
            for name, resource in resources.items()
        ],
    }
    for name, value in changes.items():
        where, _, member = name.rpartition("_")
        holder = {"header": bundle["entry"][0]["resource"], "meta": bundle["meta"], "": bundle}
        if value is None:
            del holder[where][member]
        else:
            holder[where][member] = value
    return json.dumps(bundle).encode()


def _resources(at: Mapping[str, str], target: tuple[str, str]) -> dict[str, dict[str, Any]]:
    def to(name: str) -> dict[str, str]:
        return {"reference": at[name]}

    def coding(system: str, code: str) -> dict[str, str]:
        return {"system": system, "code": code}

    who = {"subject": to("patient"), "encounter": to("encounter")}
    return {
        "header": {
            "resourceType": "MessageHeader",
            "eventCoding": coding(EVENTS, "servicerequest-request"),
            "destination": [{"endpoint": "|".join(target), "receiver": to("pharmacy")}],
            "sender": to("practice"),
            "source": {"name": "A GP system", "endpoint": f"{codes.DOS}|2000099902"},
            "reason": {"coding": [coding(REASONS, "new")]},
            "focus": [to("request")],
            "definition": REFERRAL,
        },
        "request": {
            "resourceType": "ServiceRequest",
            "basedOn": [to("plan")],
            "status": "active",
            "intent": "plan",
            "category": [{"coding": [coding(CATEGORIES, "referral"), coding(USE_CASES, "a5t1")]}],
            **who,
            "occurrencePeriod": {"start": _AT, "end": "2026-11-24T09:30:00+00:00"},
            "authoredOn": _AT,
            "requester": to("practitioner"),
            "performer": [to("service")],
        },
        "encounter": {
            "resourceType": "Encounter",
            "identifier": [{"system": "https://gp.example/Id/case-number", "value": "GP-77"}],
            "status": "finished",
            "class": coding("http://terminology.hl7.org/CodeSystem/v3-ActCode", "EMER"),
            "subject": to("patient"),
            "episodeOfCare": [{"reference": f"EpisodeOfCare/{uuid.uuid4()}"}],
            "period": {"start": _AT},
        },
        "plan": {
            "resourceType": "CarePlan",
            "status": "completed",
            "intent": "plan",
            **who,
            "addresses": [to("condition")],
            "activity": [
                {"outcomeCodeableConcept": [{"text": "Two days."}], "reference": to("task")}
            ],
        },
        "task": {
            "resourceType": "Task",
            "status": "requested",
            "intent": "order",
            "code": {"coding": [coding(codes.SNOMED, "2140231000000104")]},
            "authoredOn": _AT,
        },
        "condition": {
            "resourceType": "Condition",
            "clinicalStatus": {
                "coding": [coding(f"{codes.HL7}condition-clinical", "active")],
            },
            "verificationStatus": {
                "coding": [coding(f"{codes.HL7}condition-ver-status", "unconfirmed")]
            },
            "category": [{"coding": [coding(codes.SNOMED, "33962009")]}],
            "code": {"text": "Constipation"},
            **who,
        },
        "patient": {
            "resourceType": "Patient",
            "identifier": [{"system": codes.NHS_NUMBER, "value": NHS_NUMBER}],
            "name": [{"use": "official", "family": FAMILY, "given": ["Robin"]}],
            "gender": "female",
            "birthDate": "1961-04-02",
        },
        "consent": {
            "resourceType": "Consent",
            "status": "active",
            "scope": {"coding": [coding(f"{codes.HL7}consentscope", "patient-privacy")]},
            "category": [
                {
                    "coding": [
                        coding("https://fhir.nhs.uk/CodeSystem/consent-categories-bars", "DRC")
                    ]
                }
            ],
            "patient": to("patient"),
            "dateTime": _AT,
            "policyRule": {"coding": [coding(f"{codes.HL7}v3-ActCode", "IMPLIED")]},
        },
        "practice": _organisation("G99001", "Riverside Medical Practice"),
        "pharmacy": _organisation("FPH01", "Riverside Pharmacy"),
        "practitioner": {"resourceType": "Practitioner", "name": [{"family": "Okafor"}]},
        "role": {
            "resourceType": "PractitionerRole",
            "practitioner": to("practitioner"),
            "organization": to("practice"),
        },
        "service": {
            "resourceType": "HealthcareService",
            "identifier": [{"system": target[0], "value": target[1]}],
            "active": True,
            "name": "Pharmacy First",
            "providedBy": to("pharmacy"),
        },
    }


def _organisation(ods: str, name: str) -> dict[str, Any]:
    return {
        "resourceType": "Organization",
        "identifier": [{"system": codes.ODS, "value": ods}],
        "name": name,
    }
