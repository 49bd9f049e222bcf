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
from fhir_profiles.bars.codes import (
    CANCELLED,
    FULL_RESPONSE,
    GUIDE_USE_CASES,
    OWN_USE_CASES,
    USE_CASES,
    WORKFLOW,
)
from fhir_profiles.bars.codes import REQUEST as REFERRAL
from fhir_profiles.bars.codes import RESPONSE as SHORT_RESPONSE
from fhir_profiles.bars.incoming import REQUEST, RESPONSE
from fhir_profiles.systems import Systems

TAKEN: Final = frozenset({REFERRAL, CANCELLED, SHORT_RESPONSE, FULL_RESPONSE})
_USE_CASES: Final = frozenset({USE_CASES, GUIDE_USE_CASES, OWN_USE_CASES.url})
_SYSTEMS: Final = Systems([codes.DOS, codes.ODS, codes.SERVICE_ID, *sorted(_USE_CASES)])
_FIELD: Final = "http.context"


@dataclass(frozen=True, slots=True)
class Asked:
    """A service, by the name that BaRS has for it, and a use case in lower case, of which system.

    Three systems have use cases: the one that was asked for is the one that is answered.
    """

    system: str
    service: str
    use_case_system: str
    use_case: str


def read(contexts: Sequence[str]) -> Asked:
    """Return what is asked for. Raises BadRequest unless it is one service and one use case."""
    service: tuple[str, str] | None = None
    use_case: tuple[str, str] | None = None
    for context in contexts:
        system, bar, value = context.partition("|")
        meant = _SYSTEMS.meant_by(system)
        if not bar or not value or meant is None or meant.is_misspelt:
            raise _refused("value", "A context is not system|value of a service or a use case.")
        is_use_case = meant.system in _USE_CASES
        if use_case if is_use_case else service:
            raise _refused("value", "One service and one use case are asked for at a time.")
        if is_use_case:
            use_case = (meant.system, value.lower())
        else:
            service = (system, value)
    if service is None or use_case is None:
        raise _refused("required", "Both a service and a use case must be given.")
    return Asked(*service, *use_case)


def taken(
    asked: Asked, definitions: Iterable[Mapping[str, Any]], directory: Directory
) -> list[dict[str, Any]]:
    """Return the definitions of BaRS messages that the service takes for the use case, each saying
    so in its useContext; none where it takes none, or is not there."""
    place = directory.by_target(asked.system, asked.service)
    connection = directory.connections.get(place) if place is not None else None
    if place is None or connection is None or not directory.is_open(place.ods):
        return []
    # Who takes referrals is sent requests, who takes notices is answered.
    events = set()
    if connection.accepts(Kind.REFERRAL, asked.use_case):
        events.add(REQUEST)
    if connection.accepts(Kind.NOTICE):
        events.add(RESPONSE)
    contexts = [
        _context(*directory.target(place)),
        _context(asked.use_case_system, asked.use_case),
    ]
    return [
        {**as_bars(one), "useContext": contexts}
        for one in definitions
        if is_taken(one) and one["eventCoding"]["code"] in events
    ]


def is_taken(definition: Mapping[str, Any]) -> bool:
    """Whether it restates a definition of BaRS whose messages are taken and sent here."""
    return str(definition.get("base", "")).partition("|")[0] in TAKEN


def as_bars(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return a definition under the name that BaRS itself has for it, which both ends compare."""
    url, _, version = definition["base"].partition("|")
    return {
        **{name: it for name, it in definition.items() if name != "base"},
        "url": url,
        "version": version,
    }


def _context(system: str, code: str) -> dict[str, Any]:
    concept = {"coding": [{"system": system, "code": code}]}
    return {"code": WORKFLOW, "valueCodeableConcept": concept}


def _refused(code: str, detail: str) -> BadRequest:
    todo = f"Give context={codes.DOS}|<id>&context={USE_CASES}|<code>."
    return BadRequest("", [Problem(_FIELD, code, detail, todo)])
