"""Codes and their words, read once from `definitions/`, and the systems that others publish.

`definitions/*.json` is the only place where a code of ours is written down; code names a system
by the name of its file: `codes.system("warning").display("medicine-not-amp")`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from fhir_profiles import authored
from fhir_profiles.compiler import r4

BASE: Final = "https://referral-broker.example/fhir/"

SNOMED: Final = "http://snomed.info/sct"
DMD: Final = "https://dmd.nhs.uk"
UCUM: Final = "http://unitsofmeasure.org"
BCP47: Final = "urn:ietf:bcp:47"
URI: Final = "urn:ietf:rfc:3986"

UK_CORE: Final = "https://fhir.hl7.org.uk/StructureDefinition/"
UK_CORE_CODES: Final = "https://fhir.hl7.org.uk/CodeSystem/"
EXT_NHS_NUMBER_STATUS: Final = f"{UK_CORE}Extension-UKCore-NHSNumberVerificationStatus"
EXT_CONTACT_PREFERENCE: Final = f"{UK_CORE}Extension-UKCore-ContactPreference"
EXT_ETHNIC_CATEGORY: Final = f"{UK_CORE}Extension-UKCore-EthnicCategory"
EXT_INTERPRETER: Final = "http://hl7.org/fhir/StructureDefinition/patient-interpreterRequired"
EXT_NO_NHS_NUMBER: Final = f"{UK_CORE}Extension-UKCore-NHSNumberUnavailableReason"
NO_NHS_NUMBER: Final = f"{UK_CORE_CODES}UKCore-NHSNumberUnavailableReason"
PREFERRED_CONTACT: Final = f"{UK_CORE_CODES}UKCore-PreferredContactMethod"
# UK Core's own list is retired and lacks the pharmacy's technician and assistant.
JOB_ROLE: Final = "https://fhir.nhs.uk/STU3/CodeSystem/CareConnect-SDSJobRoleName-1"
SUPPLY_TYPE: Final = f"{UK_CORE_CODES}UKCore-MedicationSupplyType"

# Ours. A heading's code stands on the payload that it heads; a warning's on the note that tells it.
EXT_URGENCY: Final = f"{BASE}StructureDefinition/urgency"
EXT_PROVIDER: Final = f"{BASE}StructureDefinition/provider"
EXT_HEADING: Final = f"{BASE}StructureDefinition/heading"
EXT_WARNING: Final = f"{BASE}StructureDefinition/warning"
EXT_REPLACES: Final = f"{BASE}StructureDefinition/replaces"
EXT_SHA256: Final = f"{BASE}StructureDefinition/sha256"

HL7: Final = "http://terminology.hl7.org/CodeSystem/"


@dataclass(frozen=True, slots=True)
class CodeSystem:
    """One code system with its words. `properties` holds a code's further values, by name."""

    url: str
    displays: Mapping[str, str]
    properties: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    version: str = ""

    def display(self, code: str) -> str:
        """Return the words of a code. Raises KeyError for a code that the system does not have."""
        return self.displays[code]

    def __contains__(self, code: object) -> bool:
        return code in self.displays


def system(name: str) -> CodeSystem:
    """Return the code system that `definitions/<name>.json` defines."""
    return _SYSTEMS[name]


def core(name: str) -> Collection[str]:
    """Return the codes of a code system of FHIR R4 itself, such as `issue-type`."""
    known: Collection[str] = r4.codes()["codeSystems"][f"http://hl7.org/fhir/{name}"]
    return known


def concept_map(name: str) -> Mapping[str, Any]:
    """Return the one group of the ConceptMap in `definitions/concept-map-<name>.json`."""
    (group,) = _RESOURCES[f"concept-map-{name}"]["group"]
    return cast("Mapping[str, Any]", group)


def identifier_system(name: str) -> str:
    """Return the URL of an identifier system of `definitions/identifier-systems.json`."""
    return _IDENTIFIERS[name]


def identifier_systems() -> Collection[str]:
    """Return the URLs of every identifier system that is known."""
    return _IDENTIFIERS.values()


def _code_system(resource: Mapping[str, Any]) -> CodeSystem:
    concepts = resource["concept"]
    displays = {concept["code"]: concept["display"] for concept in concepts}
    if len(displays) != len(concepts):
        raise ValueError(f"{resource['url']} defines a code twice")
    return CodeSystem(
        url=resource["url"],
        version=resource.get("version", ""),
        displays=displays,
        properties={
            concept["code"]: {
                entry["code"]: next(entry[name] for name in entry if name.startswith("value"))
                for entry in concept["property"]
            }
            for concept in concepts
            if "property" in concept
        },
    )


_RESOURCES: Final = authored.definitions()
_SYSTEMS: Final = {
    name: _code_system(resource)
    for name, resource in _RESOURCES.items()
    if resource["resourceType"] == "CodeSystem"
}
_IDENTIFIERS: Final[dict[str, str]] = {
    entry["resource"]["id"]: entry["resource"]["uniqueId"][0]["value"]
    for entry in _RESOURCES["identifier-systems"]["entry"]
}

PROCESS_MESSAGE: Final = str(_RESOURCES["operation-process-message"]["base"])
"""FHIR's own definition of `$process-message`."""

NHS_NUMBER: Final = identifier_system("nhs-number")
ODS: Final = identifier_system("ods-organization-code")
DOS: Final = identifier_system("dos-service-id")
GPHC: Final = identifier_system("gphc-number")
GOC: Final = identifier_system("goc-number")
MESSAGE_ID: Final = identifier_system("message")
CASE_REFERENCE: Final = identifier_system("case-reference")
SUBJECT_ID: Final = identifier_system("subject")
SERVICE_ID: Final = identifier_system("service")
SENDER_REFERENCE: Final = identifier_system("sender-reference")
CORRELATION_ID: Final = identifier_system("correlation")
