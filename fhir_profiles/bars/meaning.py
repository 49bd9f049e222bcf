"""What a BaRS message means: one table over event, reason, category and statuses.

BaRS Core 1.5.0, standard pattern for composites. What no row describes is no message.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from fhir_profiles.bars.incoming import (
    REQUEST,
    RESPONSE,
    Message,
    Resource,
    at,
    header_path,
    text,
)
from fhir_profiles.compiler.finding import Finding

_RULE: Final = "https://fhir.nhs.uk/StructureDefinition/BARSBundleMessage"


class Meaning(StrEnum):
    """What is to be done with a message."""

    REFERRAL = "a new referral"
    CANCELLATION = "a referral is cancelled"
    PROGRESS = "how a referral goes on"
    NOT_ATTENDED = "the patient did not attend"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table; an empty set asks nothing."""

    event: str
    reasons: frozenset[str]
    statuses: frozenset[str]
    meaning: Meaning
    care_plans: frozenset[str] = frozenset()
    encounters: frozenset[str] = frozenset()


# `delete` is what one of the published cancellations says (trap 1): read, never sent.
TABLE: Final = (
    Row(
        REQUEST,
        frozenset({"new"}),
        frozenset({"active"}),
        Meaning.REFERRAL,
        care_plans=frozenset({"completed"}),
        encounters=frozenset({"triaged", "finished"}),
    ),
    Row(
        REQUEST,
        frozenset({"update", "delete"}),
        frozenset({"revoked", "entered-in-error"}),
        Meaning.CANCELLATION,
    ),
    Row(RESPONSE, frozenset({"new"}), frozenset({"revoked"}), Meaning.NOT_ATTENDED),
    Row(
        RESPONSE,
        frozenset({"new", "update"}),
        frozenset({"active", "completed"}),
        Meaning.PROGRESS,
    ),
)
OFFERED: Final = frozenset({REQUEST, RESPONSE})
CATEGORY: Final = "referral"


def meaning(message: Message) -> Meaning | Finding:
    """Return what a message of category referral means, or why it means nothing."""
    request = message.request[1]
    status = text(request.get("status"))
    for row in TABLE:
        if (
            row.event == message.event
            and message.reason in row.reasons
            and status in row.statuses
            and _allows(row.care_plans, message.one("CarePlan"))
            and _allows(row.encounters, message.one("Encounter"))
        ):
            return row.meaning
    said = (
        "Event, reason and the statuses of ServiceRequest, CarePlan and Encounter are together "
        "nothing that BaRS describes. A new referral is active with a completed CarePlan and an "
        "Encounter triaged or finished; a cancelled one is revoked or entered-in-error."
    )
    return Finding("error", "invariant", header_path("reason"), _RULE, said)


def _allows(statuses: frozenset[str], resource: Resource) -> bool:
    return not statuses or text(resource.get("status")) in statuses


def responder(message: Message) -> Resource:
    """Return the Encounter by which a responder says how a referral goes on.

    It is the focus; where that is the ServiceRequest, it is the last Encounter: the sender's comes
    first.
    """
    focus = message.resources.get(message.focus, {})
    if focus.get("resourceType") == "Encounter":
        return focus
    encounters = [resource for _, resource in message.all("Encounter")]
    return encounters[-1] if encounters else {}


def words(resource: Resource) -> str:
    """Return the reason that an Encounter or ServiceRequest gives in words, or nothing."""
    return text(at(resource, "reasonCode", 0, "text"))
