"""A BaRS message as it came: what it says of itself, read from a Bundle of any shape.

Nothing here raises: what cannot be read is empty. Who is meant by a target, and who may send, is
for the caller to know.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from fhir_profiles import codes
from fhir_profiles.compiler.finding import Finding
from fhir_profiles.identifiers import nhs_number
from fhir_profiles.systems import is_same

NHS: Final = "https://fhir.nhs.uk/"
EVENTS: Final = f"{NHS}CodeSystem/message-events-bars"
REASONS: Final = f"{NHS}CodeSystem/message-reason-bars"
CATEGORIES: Final = f"{NHS}CodeSystem/message-category-servicerequest"
REQUEST: Final = "servicerequest-request"
RESPONSE: Final = "servicerequest-response"
_RULE: Final = f"{NHS}StructureDefinition/BARSBundleMessage"
_VERIFIED: Final = frozenset({"01", "number-present-and-verified"})
_STATUS_OF: Final = codes.EXT_NHS_NUMBER_STATUS

Resource = Mapping[str, Any]
_NOTHING: Final[Resource] = {}


@dataclass(frozen=True, slots=True)
class Target:
    """How BaRS names a service: an identifier's system and value."""

    system: str
    value: str

    @classmethod
    def read(cls, text: Any) -> "Target | None":
        """Read `system|value`."""
        if not isinstance(text, str):
            return None
        system, bar, value = text.partition("|")
        return cls(system, value) if bar and system and value else None

    def is_same(self, other: "Target") -> bool:
        """Compare with the systems in any spelling."""
        return self.value == other.value and is_same(self.system, other.system)

    def __str__(self) -> str:
        return f"{self.system}|{self.value}"


@dataclass(frozen=True, slots=True)
class Patient:
    """What is known of the patient for routing: never shown, and no part of any error."""

    nhs_number: str | None = field(repr=False)
    is_verified: bool
    practice: str | None


@dataclass(frozen=True, slots=True)
class Message:
    """A message Bundle, its resources by fullUrl and as (fullUrl, resource) in order."""

    bundle: Resource = field(repr=False)
    header: Resource = field(repr=False)
    resources: Mapping[str, Resource] = field(repr=False)

    @property
    def id(self) -> str:
        return text(self.bundle.get("id"))

    @property
    def version(self) -> str:
        return text(at(self.bundle, "meta", "versionId"))

    @property
    def event(self) -> str:
        coding = at(self.header, "eventCoding")
        return coded(coding, EVENTS) if isinstance(coding, dict) else ""

    @property
    def reason(self) -> str:
        return code_in(at(self.header, "reason"), REASONS)

    @property
    def definition(self) -> str:
        return text(self.header.get("definition"))

    @property
    def destination(self) -> Target | None:
        return Target.read(at(self.header, "destination", 0, "endpoint"))

    @property
    def source(self) -> Target | None:
        return Target.read(at(self.header, "source", "endpoint"))

    @property
    def response_to(self) -> str:
        return text(at(self.header, "response", "identifier"))

    @property
    def focus(self) -> str:
        """The fullUrl of the resource that it is about, as the header names it."""
        return text(at(self.header, "focus", 0, "reference"))

    @property
    def receiver(self) -> str:
        return self._organisation(at(self.header, "destination", 0, "receiver"))

    @property
    def sender(self) -> str:
        return self._organisation(at(self.header, "sender"))

    def _organisation(self, reference: Any) -> str:
        return identifier(self.referred(reference), codes.ODS)

    def referred(self, reference: Any) -> Resource:
        """Return the resource of this Bundle that a reference leads to, or an empty one."""
        return self.resources.get(text(at(reference, "reference")), _NOTHING)

    def all(self, kind: str) -> Iterator[tuple[str, Resource]]:
        """Yield each resource of a type with its fullUrl, in the order of the Bundle."""
        for url, resource in self.resources.items():
            if resource.get("resourceType") == kind:
                yield url, resource

    def one(self, kind: str) -> Resource:
        """Return the first resource of a type, or an empty one."""
        return next((resource for _, resource in self.all(kind)), _NOTHING)

    @property
    def request(self) -> tuple[str, Resource]:
        """The ServiceRequest with its fullUrl."""
        return next(self.all("ServiceRequest"), ("", _NOTHING))

    @property
    def category(self) -> str:
        return _category(self.request[1], CATEGORIES)

    def use_case(self, *systems: str) -> str:
        """Return the code of the use case, in lower case: of any of these systems."""
        found = (_category(self.request[1], system) for system in systems)
        return next(filter(None, found), "").lower()

    @property
    def label(self) -> str:
        """The highest confidentiality that anything in it is marked with."""
        found = {
            text(tag.get("code"))
            for resource in (self.bundle, *self.resources.values())
            for tag in each(at(resource, "meta"), "security")
        }
        return next((label for label in ("V", "R") if label in found), "N")

    @property
    def patient(self) -> Patient:
        resource = self.one("Patient")
        number, verified = None, False
        for one in each(resource, "identifier"):
            if same(one.get("system"), codes.NHS_NUMBER):
                number = nhs_number(text(one.get("value")))
                verified = number is not None and any(
                    text(at(coding, "code")) in _VERIFIED
                    for extension in each(one, "extension")
                    if extension.get("url") == _STATUS_OF
                    for coding in each(at(extension, "valueCodeableConcept"), "coding")
                )
        practices = (
            identifier(self.referred(one), codes.ODS) or own_identifier(one, codes.ODS)
            for one in each(resource, "generalPractitioner")
        )
        return Patient(number, verified, next(filter(None, practices), None))


def read(bundle: Resource) -> Message:
    """Read a Bundle as a message; what of it is not there is empty."""
    resources: dict[str, Resource] = {}
    for entry in each(bundle, "entry"):
        resource = entry.get("resource")
        if isinstance(resource, dict):
            resources.setdefault(text(entry.get("fullUrl")), resource)
    first = at(bundle, "entry", 0, "resource")
    header = first if text(at(first, "resourceType")) == "MessageHeader" else _NOTHING
    return Message(bundle, header, resources)


def unreadable(message: Message) -> list[Finding]:
    """Return why this is no message at all, nothing where it is one."""
    found = []
    if text(message.bundle.get("resourceType")) != "Bundle":
        found.append(_wrong("structure", "", "Send a Bundle of type message."))
    elif message.bundle.get("type") != "message":
        found.append(_wrong("value", "Bundle.type", "Send a Bundle of type message."))
    elif not message.header:
        said = "The first entry of a message is its MessageHeader."
        found.append(_wrong("structure", "Bundle.entry[0].resource", said))
    elif not message.id:
        said = "A message has an id of its sender's making: its answer names it."
        found.append(_wrong("required", "Bundle.id", said))
    else:
        said = "An entry has a fullUrl: it is known by it, here and in the answer."
        found += [
            _wrong("required", f"Bundle.entry[{place}].fullUrl", said)
            for place, entry in enumerate(each(message.bundle, "entry"))
            if not text(entry.get("fullUrl"))
        ]
    return found


def header_path(element: str) -> str:
    """Return the FHIRPath of an element of the MessageHeader, which is the first entry."""
    return f"Bundle.entry[0].resource.{element}"


def path_of(message: Message, url: str) -> str:
    """Return the FHIRPath of a resource by its fullUrl."""
    urls = [text(entry.get("fullUrl")) for entry in each(message.bundle, "entry")]
    return f"Bundle.entry[{urls.index(url)}].resource" if url in urls else "Bundle"


def _wrong(code: str, path: str, said: str) -> Finding:
    return Finding("error", code, path, _RULE, said)


# -- reading what may have any shape -------------------------------------------------------------


def at(value: Any, *path: str | int) -> Any:
    """Return what stands at a path, or None where the path does not lead anywhere."""
    for step in path:
        if isinstance(step, int):
            if not isinstance(value, list) or len(value) <= step:
                return None
            value = value[step]
        elif isinstance(value, dict):
            value = value.get(step)
        else:
            return None
    return value


def each(value: Any, name: str) -> Iterator[Resource]:
    """Yield the objects of a list that an element holds."""
    found = at(value, name)
    if isinstance(found, list):
        yield from (one for one in found if isinstance(one, dict))


def text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def moment(value: Any) -> datetime | None:
    """Return a FHIR instant or dateTime in UTC; None where it is none. A date is not a moment.

    A leap second, which FHIR has and Python has not, is the second before it.
    """
    try:
        found = datetime.fromisoformat(text(value).replace(":60", ":59"))
        return found.astimezone(UTC) if found.tzinfo is not None else None
    except (ValueError, OverflowError):  # at the calendar's own ends there is no UTC
        return None


def same(system: Any, known: str) -> bool:
    """Whether a system is the known one, in any spelling."""
    return isinstance(system, str) and is_same(system, known)


def coded(coding: Resource, system: str) -> str:
    """Return the code of a coding of this system, or nothing."""
    return text(coding.get("code")) if same(coding.get("system"), system) else ""


def code_in(concept: Any, system: str) -> str:
    """Return the first code of this system in a CodeableConcept, or nothing."""
    found = (coded(coding, system) for coding in each(concept, "coding"))
    return next(filter(None, found), "")


def identifier(resource: Any, system: str) -> str:
    """Return the value of a resource's identifier of this system, or nothing."""
    found = (
        text(one.get("value"))
        for one in each(resource, "identifier")
        if same(one.get("system"), system)
    )
    return next(filter(None, found), "")


def own_identifier(reference: Any, system: str) -> str:
    """Return the value of the identifier that a reference itself holds, or nothing."""
    one = at(reference, "identifier")
    return text(at(one, "value")) if same(at(one, "system"), system) else ""


def _category(request: Resource, system: str) -> str:
    found = (code_in(concept, system) for concept in each(request, "category"))
    return next(filter(None, found), "")
