"""Which resource types each door of REST is for, as parts of a path: `{focus:focus}` and so on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Path
from starlette.convertors import Convertor, register_url_convertor

from broker.api.outcomes import ID
from broker.search import INCLUDES, PARAMETERS

DEFINITIONS: Final = (
    "StructureDefinition",
    "ValueSet",
    "CodeSystem",
    "ConceptMap",
    "NamingSystem",
    "MessageDefinition",
    "OperationDefinition",
)
FOCUS: Final = ("ServiceRequest", "Communication", "Task")
PARTIES: Final = (
    "Patient",
    "RelatedPerson",
    "Practitioner",
    "PractitionerRole",
    "Organization",
    "HealthcareService",
    "Location",
    "Device",
    "Encounter",
    "CarePlan",
    "Consent",
    "Condition",
    "Observation",
    "AllergyIntolerance",
    "Procedure",
    "MedicationStatement",
    "MedicationDispense",
    "Flag",
    "Questionnaire",
    "QuestionnaireResponse",
)
CREATED: Final = ("ServiceRequest", "Communication")
MOVED: Final = ("Task",)
CLASSES: Final = {
    "definition": DEFINITIONS,
    "focus": FOCUS,
    "party": PARTIES,
    "created": CREATED,
    "moved": MOVED,
}


class _Matching(Convertor[str]):
    """Matches the types of one class, or what can be an id, and nothing else."""

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


_PATTERNS: Final = {
    **{name: "|".join(types) for name, types in CLASSES.items()},
    "id": ID,
}
for _name, _pattern in _PATTERNS.items():
    _convertor = _Matching()
    _convertor.regex = _pattern  # type: ignore[misc]
    register_url_convertor(_name, _convertor)

Definition = Annotated[str, Path(json_schema_extra={"enum": list(DEFINITIONS)})]
Focus = Annotated[str, Path(json_schema_extra={"enum": list(FOCUS)})]
Created = Annotated[str, Path(json_schema_extra={"enum": list(CREATED)})]
Moved = Annotated[str, Path(json_schema_extra={"enum": list(MOVED)})]
Party = Annotated[str, Path(json_schema_extra={"enum": list(PARTIES)})]


@dataclass(frozen=True, slots=True)
class Searched:
    """What a type is searched by: names with their type and words; and what may be included."""

    parameters: Mapping[str, tuple[str, str]]
    includes: tuple[str, ...] = ()


_BY_NAME: Final = {
    "_id": ("token", "Its id."),
    "url": ("uri", "Its canonical URL."),
    "name": ("string", "How its name begins."),
}
_BY_CONTEXT: Final = {"context": ("token", "A service and a use case; each system|value.")}
SEARCHED: Final[Mapping[str, Searched]] = {
    type_: Searched(_BY_NAME | (_BY_CONTEXT if type_ == "MessageDefinition" else {}))
    for type_ in DEFINITIONS
} | {
    type_: Searched(
        {name.partition(":")[0]: (one.type, one.words) for name, one in PARAMETERS[type_].items()},
        tuple(INCLUDES[type_]),
    )
    for type_ in FOCUS
}
