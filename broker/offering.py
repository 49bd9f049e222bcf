"""Which messages of BaRS a service takes: the definitions that GET /MessageDefinition answers.

BaRS Core 1.5.0, message definitions: one useContext names the service, another the use case.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from broker.directory import Directory
from broker.errors import BadRequest, Problem
from broker.events import Kind
from fhir_profiles import codes
from fhir_profiles.systems import Systems

EVENTS: Final = "https://fhir.nhs.uk/CodeSystem/message-events-bars"
USE_CASES: Final = "https://fhir.nhs.uk/CodeSystem/usecases-categories-bars"
# As the implementation guide's pseudo-code spells it.
_USE_CASES_TOO: Final = "https://fhir.nhs.uk/CodeSystem/usecase-categories-bars"
_WORKFLOW: Final = {"system": f"{codes.HL7}usage-context-type", "code": "workflow"}
_SYSTEMS: Final = Systems([codes.DOS, codes.ODS, codes.SERVICE_ID, USE_CASES, _USE_CASES_TOO])
_FIELD: Final = "http.context"


@dataclass(frozen=True, slots=True)
class Asked:
    """A service, by the name that BaRS has for it, and a use case in lower case."""

    system: str
    service: str
    use_case: str


def read(contexts: Sequence[str]) -> Asked:
    """Return what is asked for. Raises BadRequest unless it is one service and one use case."""
    service: tuple[str, str] | None = None
    use_case = ""
    for context in contexts:
        system, bar, value = context.partition("|")
        meant = _SYSTEMS.meant_by(system)
        if not bar or not value or meant is None or meant.is_misspelt:
            raise _refused("value", "A context is not system|value of a service or a use case.")
        if meant.system in {USE_CASES, _USE_CASES_TOO}:
            use_case = value.lower()
        else:
            service = (system, value)
    if service is None or not use_case:
        raise _refused("required", "Both a service and a use case must be given.")
    return Asked(*service, use_case)


def taken(
    asked: Asked, definitions: Iterable[Mapping[str, Any]], directory: Directory
) -> list[dict[str, Any]]:
    """Return the definitions of BaRS messages that the service takes for the use case, each saying
    so in its useContext; none where it takes none, or is not there."""
    place = directory.by_target(asked.system, asked.service)
    connection = directory.connections.get(place) if place is not None else None
    if place is None or connection is None or not directory.is_open(place.ods):
        return []
    if not connection.accepts(Kind.REFERRAL, asked.use_case):
        return []
    contexts = [
        _context(*directory.target(place)),
        _context(USE_CASES, asked.use_case),
    ]
    return [
        {**one, "useContext": contexts}
        for one in definitions
        if one.get("eventCoding", {}).get("system") == EVENTS
    ]


def _context(system: str, code: str) -> dict[str, Any]:
    concept = {"coding": [{"system": system, "code": code}]}
    return {"code": _WORKFLOW, "valueCodeableConcept": concept}


def _refused(code: str, detail: str) -> BadRequest:
    todo = f"Give context={codes.DOS}|<id>&context={USE_CASES}|<code>."
    return BadRequest("", [Problem(_FIELD, code, detail, todo)])
