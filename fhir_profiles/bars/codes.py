"""BaRS by name: its code systems, profiles and message definitions, and how a pathway is coded."""

from typing import Any, Final

from fhir_profiles import codes
from fhir_profiles.bars.incoming import CATEGORIES, NHS
from fhir_profiles.pathways.catalogue import catalogue

_PROFILES: Final = f"{NHS}StructureDefinition/"
_CODES: Final = f"{NHS}CodeSystem/"
_MESSAGES: Final = f"{NHS}MessageDefinition/"

REJECTED: Final = f"{_CODES}rejected-reasons-bars"
CONSENTS: Final = f"{_CODES}consent-categories-bars"
USE_CASES: Final = f"{_CODES}usecases-categories-bars"
GUIDE_USE_CASES: Final = f"{_CODES}usecase-categories-bars"
"""USE_CASES as the implementation guide's pseudo-code spells it."""

BUNDLE: Final = f"{_PROFILES}BARSBundleMessage"
REFERRAL: Final = f"{_PROFILES}BARSServiceRequest-request-referral"
HEADERS: Final = {
    event: f"{_PROFILES}BARSMessageHeader-{event}"
    for event in ("servicerequest-request", "servicerequest-response")
}

REQUEST: Final = f"{_MESSAGES}bars-message-servicerequest-request-referral"
CANCELLED: Final = f"{_MESSAGES}bars-message-servicerequest-request-cancelled"
RESPONSE: Final = f"{_MESSAGES}bars-message-servicerequest-response-referral-short"
FULL_RESPONSE: Final = f"{_MESSAGES}bars-message-servicerequest-response-referral"

APPLICATION: Final = "1.0.0"
"""Bundle.meta.versionId of messages of our own use cases: the version of that application."""

OWN_USE_CASES: Final = codes.system("use-case")
_REFERRAL: Final = "referral"
WORKFLOW: Final = {"system": f"{codes.HL7}usage-context-type", "code": "workflow"}
"""The kind of useContext by which a message definition names its service and its use case."""

_OF_GROUP: Final = {
    properties["group"]: code for code, properties in OWN_USE_CASES.properties.items()
}


def use_case(pathway: str) -> str:
    """Return the code of our own system for a pathway; one of no such group is just a referral."""
    entry = catalogue().entries.get(pathway)
    return _OF_GROUP.get(entry.group, _REFERRAL) if entry is not None else _REFERRAL


def category(pathway: str) -> dict[str, Any]:
    """Return the one category that BaRS allows: that it is a referral, and of which use case."""
    code = use_case(pathway)
    return {
        "coding": [
            {"system": CATEGORIES, "code": "referral", "display": "Transfer of Care"},
            {"system": OWN_USE_CASES.url, "code": code, "display": OWN_USE_CASES.display(code)},
        ]
    }
