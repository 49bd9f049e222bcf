"""BaRS messages as senders' systems make them: invented, complete, of Application 5.

    message = referral(sender="G99001", receiver="FPH01", service="2000099901")

Each call gives new ids and times; everything else is the same. Shapes: BaRS Core 1.5.0 and
Application 5, 1.2.0; the patient's number is from the range for tests.
"""

import base64
import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

Body = dict[str, Any]
DOS: Final = "https://fhir.nhs.uk/Id/dos-service-id"
ODS: Final = "https://fhir.nhs.uk/Id/ods-organization-code"
UK_CORE: Final = "https://fhir.hl7.org.uk/StructureDefinition/UKCore-"
BARS: Final = "https://fhir.nhs.uk/StructureDefinition/BARS"
NHS_CODES: Final = "https://fhir.nhs.uk/CodeSystem/"
HL7: Final = "http://terminology.hl7.org/CodeSystem/"
SNOMED: Final = "http://snomed.info/sct"
DEFINITIONS: Final = "https://fhir.nhs.uk/MessageDefinition/bars-message-"
_STATUS: Final = "https://fhir.hl7.org.uk/StructureDefinition/Extension-UKCore-"


def headers(target: str, *, system: str = DOS, organisation: str | None = None) -> dict[str, str]:
    """Return the headers that go with a new message to a service."""
    found = {
        "X-Request-Id": str(uuid4()),
        "X-Correlation-Id": str(uuid4()),
        "NHSD-Target-Identifier": encoded({"system": system, "value": target}),
        "Accept": "application/fhir+json; version=1.5.0",
        "Content-Type": "application/fhir+json",
    }
    if organisation is not None:
        named = {"identifier": [{"system": ODS, "value": organisation}], "name": "Sender"}
        found["NHSD-End-User-Organisation"] = encoded({"resourceType": "Organization", **named})
    return found


def encoded(value: Any) -> str:
    """Return JSON in standard Base64, as headers carry it."""
    return base64.b64encode(json.dumps(value).encode()).decode()


def referral(
    *,
    sender: str,
    receiver: str,
    service: str,
    system: str = DOS,
    use_case: str = "a5t1",
    practice: str | None = None,
    nhs_number: str | None = "9990000018",
    hours: int = 24,
) -> Body:
    """Return a referral of Application 5: general practice to a community pharmacy."""
    now = datetime.now(UTC)
    url = _Urls()
    entries = {
        "header": _header(url, sender, f"{system}|{service}"),
        "request": {
            "resourceType": "ServiceRequest",
            "meta": _meta(f"{BARS}ServiceRequest-request-referral", now),
            "basedOn": [url.to("plan")],
            "status": "active",
            "intent": "plan",
            "category": [
                {
                    "coding": [
                        {
                            "system": f"{NHS_CODES}message-category-servicerequest",
                            "code": "referral",
                            "display": "Transfer of Care",
                        },
                        {"system": f"{NHS_CODES}usecases-categories-bars", "code": use_case},
                    ]
                }
            ],
            "subject": url.to("patient"),
            "encounter": url.to("encounter"),
            "occurrencePeriod": {
                "start": now.isoformat(),
                "end": (now + timedelta(hours=hours)).isoformat(),
            },
            "authoredOn": now.isoformat(),
            "requester": url.to("practitioner"),
            "performer": [url.to("service")],
        },
        **_clinical(url, now, hours),
        "patient": _patient(url, now, nhs_number),
        **_people(url, now, sender, receiver, practice or sender, service, system),
    }
    return {
        "resourceType": "Bundle",
        "id": str(uuid4()),
        "meta": {
            "versionId": "1.2.0",
            "lastUpdated": now.isoformat(),
            "profile": [f"{BARS}BundleMessage"],
        },
        "type": "message",
        "timestamp": now.isoformat(),
        "entry": [
            {"fullUrl": url[name], "resource": resource} for name, resource in entries.items()
        ],
    }


def cancellation(
    message: Body, answer: Body, *, status: str = "revoked", reason: str = "update"
) -> Body:
    """Return what cancels a referral: `message` as it was sent, `answer` as it was answered."""
    now = datetime.now(UTC)
    ids = {one["fullUrl"]: one["resource"].get("id") for one in answer["entry"]}
    kept = {"MessageHeader", "ServiceRequest", "Patient", "Organization"}
    made = copy.deepcopy(message)
    made["id"] = str(uuid4())
    made["timestamp"] = made["meta"]["lastUpdated"] = now.isoformat()
    made["entry"] = [one for one in made["entry"] if one["resource"]["resourceType"] in kept]
    for one in made["entry"]:
        resource = one["resource"]
        if resource["resourceType"] == "MessageHeader":
            resource["reason"]["coding"][0]["code"] = reason
            resource["definition"] = f"{DEFINITIONS}servicerequest-request-cancelled"
            resource["meta"]["lastUpdated"] = now.isoformat()
        elif resource["resourceType"] == "ServiceRequest":
            resource["id"] = ids[one["fullUrl"]]
            resource["status"] = status
            resource["reasonCode"] = [{"text": "The patient has recovered."}]
            resource["meta"]["lastUpdated"] = now.isoformat()
            for name in ("basedOn", "encounter", "requester", "performer"):
                del resource[name]
    return made


# What a short message repeats of a request; the rest leads to what it does not bring along.
_NAMES: Final = {
    *("resourceType", "id", "meta", "identifier", "status", "intent", "category", "code"),
    *("subject", "encounter", "occurrencePeriod", "authoredOn"),
}


def response(
    message: Body,
    *,
    encounter: str,
    reason: Body | None = None,
    status: str = "active",
    bundle: str | None = None,
) -> Body:
    """Return what a receiver says of a referral that it got: how its own Encounter stands.

    `bundle` is the id of the Bundle that it got, where that was not the sender's own; `reason` is
    the Encounter's reasonCode.
    """
    now = datetime.now(UTC)
    kept = {
        *("ServiceRequest", "Patient", "Organization", "Practitioner", "PractitionerRole"),
        *("HealthcareService", "Encounter"),
    }
    entries = {one["fullUrl"]: copy.deepcopy(one["resource"]) for one in message["entry"]}
    first = next(iter(entries.values()))
    held = {url: one for url, one in entries.items() if one["resourceType"] in kept}
    for one in held.values():
        if one["resourceType"] == "ServiceRequest":
            one["status"] = status
            for name in set(one) - _NAMES:
                del one[name]
    own = f"urn:uuid:{uuid4()}"
    sent = next(one for one in held.values() if one["resourceType"] == "Encounter")
    held[own] = {
        **{name: sent[name] for name in ("resourceType", "class", "subject", "episodeOfCare")},
        "meta": _meta(f"{UK_CORE}Encounter", now),
        "identifier": [{"system": "https://pharmacy.example/Id/case", "value": "P-77"}],
        "status": encounter,
        "period": {"start": now.isoformat()},
        **({"reasonCode": [reason]} if reason else {}),
    }
    header = {
        "resourceType": "MessageHeader",
        "meta": _meta(f"{BARS}MessageHeader-servicerequest-response", now),
        "eventCoding": {**first["eventCoding"], "code": "servicerequest-response"},
        "destination": [{"endpoint": first["source"]["endpoint"], "receiver": first["sender"]}],
        "sender": first["destination"][0]["receiver"],
        "source": {
            "name": "Example pharmacy system",
            "endpoint": first["destination"][0]["endpoint"],
        },
        "reason": {"coding": [{"system": f"{NHS_CODES}message-reason-bars", "code": "new"}]},
        "response": {"identifier": bundle or message["id"], "code": "ok"},
        "focus": [{"reference": own}],
        "definition": f"{DEFINITIONS}servicerequest-response-referral-short",
    }
    return {
        **{name: message[name] for name in ("resourceType", "type")},
        "id": str(uuid4()),
        "meta": {**message["meta"], "lastUpdated": now.isoformat()},
        "timestamp": now.isoformat(),
        "entry": [
            {"fullUrl": f"urn:uuid:{uuid4()}", "resource": header},
            *({"fullUrl": url, "resource": one} for url, one in held.items()),
        ],
    }


def broker_referral(
    *, sender: str, broker: str, shortlist: list[str], priority: str = "U", use_case: str = "a8t1"
) -> Body:
    """Return a referral of Application 8: to a broker, which routes it by its shortlist.

    `broker` is what the broker is called, as system|value; `shortlist` are DoS service ids.
    """
    system, _, value = broker.partition("|")
    made = referral(
        sender=sender, receiver="X26", service=value, system=system, use_case=use_case, hours=240
    )
    services = {f"urn:uuid:{uuid4()}": one for one in shortlist}
    for entry in made["entry"]:
        resource = entry["resource"]
        if resource["resourceType"] == "CarePlan":
            coded = _coded(f"{NHS_CODES}bars-broker-priority-status", priority)
            resource["activity"] = [
                {"outcomeCodeableConcept": [coded]},
                {
                    "detail": {
                        "status": "not-started",
                        "performer": [{"reference": url} for url in services],
                    }
                },
            ]
        elif resource["resourceType"] == "HealthcareService":
            template = resource
        elif resource["resourceType"] == "Patient":
            resource["address"] = [
                {
                    "use": "home",
                    "type": "both",
                    "text": "1 Example Street, LS1 4AP",
                    "line": ["1 Example Street"],
                    "postalCode": "LS1 4AP",
                }
            ]
    now = datetime.now(UTC)
    device = f"urn:uuid:{uuid4()}"
    for url, dos in services.items():
        identifier = [{"system": DOS, "value": dos}]
        made["entry"].append({"fullUrl": url, "resource": {**template, "identifier": identifier}})
    made["entry"].append(
        {
            "fullUrl": device,
            "resource": {
                "resourceType": "Device",
                "meta": {"lastUpdated": now.isoformat()},
                "status": "active",
                "deviceName": [{"name": "Broker", "type": "user-friendly-name"}],
            },
        }
    )
    made["entry"][1]["resource"]["performer"] = [{"reference": device}]
    return made


class _Urls(dict[str, str]):
    """The fullUrl of each entry by its name, made when it is first asked for."""

    def __missing__(self, name: str) -> str:
        self[name] = f"urn:uuid:{uuid4()}"
        return self[name]

    def to(self, name: str) -> Body:
        return {"reference": self[name]}


def _meta(profile: str, now: datetime) -> Body:
    return {"lastUpdated": now.isoformat(), "profile": [profile]}


def _header(url: _Urls, sender: str, endpoint: str) -> Body:
    return {
        "resourceType": "MessageHeader",
        "meta": _meta(f"{BARS}MessageHeader-servicerequest-request", datetime.now(UTC)),
        "eventCoding": {
            "system": f"{NHS_CODES}message-events-bars",
            "code": "servicerequest-request",
        },
        "destination": [{"endpoint": endpoint, "receiver": url.to("receiver")}],
        "sender": url.to("sender"),
        "source": {
            "name": "Example practice system",
            "software": "Example Patient Manager",
            "version": "2.1",
            "contact": {"system": "phone", "value": "0113 496 0299"},
            "endpoint": f"{ODS}|{sender}",
        },
        "reason": {"coding": [{"system": f"{NHS_CODES}message-reason-bars", "code": "new"}]},
        "focus": [url.to("request")],
        "definition": f"{DEFINITIONS}servicerequest-request-referral",
    }


def _clinical(url: _Urls, now: datetime, hours: int) -> dict[str, Body]:
    return {
        "encounter": {
            "resourceType": "Encounter",
            "meta": _meta(f"{UK_CORE}Encounter", now),
            "identifier": [{"system": "https://practice.example/Id/case", "value": "C-1042"}],
            "status": "finished",
            "class": {"system": f"{HL7}v3-ActCode", "code": "EMER", "display": "emergency"},
            "subject": url.to("patient"),
            "episodeOfCare": [{"reference": f"EpisodeOfCare/{uuid4()}"}],
            "period": {"start": now.isoformat()},
        },
        "plan": {
            "resourceType": "CarePlan",
            "meta": _meta(f"{UK_CORE}CarePlan", now),
            "status": "completed",
            "intent": "plan",
            "subject": url.to("patient"),
            "encounter": url.to("encounter"),
            "period": {"start": now.isoformat()},
            "addresses": [url.to("condition")],
            "activity": [
                {
                    "outcomeCodeableConcept": [
                        {"text": "Sore throat for two days, no red flags. Self-care tried."}
                    ],
                    "reference": url.to("task"),
                }
            ],
        },
        "task": {
            "resourceType": "Task",
            "meta": _meta(f"{UK_CORE}Task", now),
            "status": "requested",
            "intent": "order",
            "code": {"coding": [{"system": SNOMED, "code": "2140231000000104"}]},
            "description": "The patient goes to the pharmacy within 24 hours.",
            "authoredOn": now.isoformat(),
            "restriction": {"period": {"end": (now + timedelta(hours=hours)).isoformat()}},
        },
        "condition": {
            "resourceType": "Condition",
            "meta": _meta(f"{UK_CORE}Condition", now),
            "clinicalStatus": _coded(f"{HL7}condition-clinical", "active"),
            "verificationStatus": _coded(f"{HL7}condition-ver-status", "unconfirmed"),
            "category": [_coded(SNOMED, "33962009", "Presenting complaint")],
            "code": {"text": "Sore throat"},
            "subject": url.to("patient"),
            "encounter": url.to("encounter"),
        },
    }


def _coded(system: str, code: str, display: str | None = None) -> Body:
    coding = {"system": system, "code": code} | ({"display": display} if display else {})
    return {"coding": [coding]}


def _patient(url: _Urls, now: datetime, nhs_number: str | None) -> Body:
    status = _coded(
        "https://fhir.hl7.org.uk/CodeSystem/UKCore-NHSNumberVerificationStatus",
        "number-present-and-verified",
        "Number present and verified",
    )
    number = {
        "extension": [
            {"url": f"{_STATUS}NHSNumberVerificationStatus", "valueCodeableConcept": status}
        ],
        "system": "https://fhir.nhs.uk/Id/nhs-number",
        "value": nhs_number,
    }
    return {
        "resourceType": "Patient",
        "meta": _meta(f"{UK_CORE}Patient", now),
        **({"identifier": [number]} if nhs_number else {}),
        "name": [{"use": "official", "text": "Robin Example", "family": "Example"}],
        "gender": "other",
        "birthDate": "1980-02-29",
        "contact": [
            {
                "extension": [{"url": f"{_STATUS}ContactRank", "valuePositiveInt": 1}],
                "relationship": [_coded(f"{HL7}v3-RoleCode", "ONESELF", "self")],
                "telecom": [{"system": "phone", "value": "07700 900142", "rank": 1}],
            }
        ],
        "generalPractitioner": [url.to("practice")],
    }


def _people(
    url: _Urls,
    now: datetime,
    sender: str,
    receiver: str,
    practice: str,
    service: str,
    system: str,
) -> dict[str, Body]:
    def organisation(code: str, name: str) -> Body:
        return {
            "resourceType": "Organization",
            "meta": _meta(f"{UK_CORE}Organization", now),
            "identifier": [{"system": ODS, "value": code}],
            "type": [_coded(SNOMED, "788007007", "General practice service")],
            "name": name,
        }

    return {
        "practitioner": {
            "resourceType": "Practitioner",
            "meta": _meta(f"{UK_CORE}Practitioner", now),
            "identifier": [
                {"system": "https://fhir.nhs.uk/Id/sds-role-profile-id", "value": "123456789012"}
            ],
            "name": [{"family": "Sample", "given": ["Ash"]}],
        },
        "role": {
            "resourceType": "PractitionerRole",
            "meta": _meta(f"{UK_CORE}PractitionerRole", now),
            "practitioner": url.to("practitioner"),
            "organization": url.to("sender"),
            "code": [_coded(SNOMED, "62247001", "General practitioner")],
        },
        "sender": organisation(sender, "Sending practice"),
        "receiver": organisation(receiver, "Receiving pharmacy"),
        "practice": organisation(practice, "Registered practice"),
        "service": {
            "resourceType": "HealthcareService",
            "meta": _meta(f"{UK_CORE}HealthcareService", now),
            "identifier": [{"system": system, "value": service}],
            "active": True,
            "providedBy": url.to("receiver"),
            "name": "Pharmacy First",
        },
        "consent": {
            "resourceType": "Consent",
            "meta": _meta(f"{UK_CORE}Consent", now),
            "status": "active",
            "scope": _coded(f"{HL7}consentscope", "patient-privacy"),
            "category": [_coded(f"{NHS_CODES}consent-categories-bars", "DRC", "Direct Care")],
            "patient": url.to("patient"),
            "dateTime": now.isoformat(),
            "policyRule": _coded(f"{HL7}v3-ActCode", "IMPLIED"),
        },
    }
