"""Good resources, each spoiled by one fault: what a checker of FHIR has to see.

Each operator names the rule that it breaks. Same seed, same mutants.
"""

import copy
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fhir_profiles.compiler import r4
from fhir_profiles.compiler.terminology import Terminology

Holder = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A resource with one fault: of which file, by which operator, where."""

    of: str
    operator: str
    path: str
    resource: Mapping[str, Any] = field(repr=False)

    @property
    def rule(self) -> str:
        """What it breaks."""
        return OPERATORS[self.operator].__doc__ or ""


@dataclass(frozen=True, slots=True)
class Spot:
    """An element in a resource: its holder and name there, with R4's word on it."""

    path: str
    holder: Holder
    key: str
    element: r4.Element
    ref: r4.TypeRef
    resource: Holder
    root: Holder
    """What was sent whole: the resource itself, or the Bundle that it is in."""

    @property
    def value(self) -> Any:
        return self.holder[self.key]


def spots(resource: Holder, path: str = "", root: Holder | None = None) -> Iterator[Spot]:
    """Return every element of a resource and of what it holds."""
    name = resource.get("resourceType")
    kind = r4.types().get(name) if isinstance(name, str) else None
    if kind is not None:
        at = (path or str(name), resource, resource if root is None else root)
        yield from _below(resource, kind, "", *at)


def _below(
    holder: Holder, kind: r4.Type, within: str, path: str, resource: Holder, root: Holder
) -> Iterator[Spot]:
    known = r4.members(kind, within)
    for key in list(holder):
        if key not in known:
            continue
        owner, element, ref = known[key]
        here = f"{path}.{key}"
        yield Spot(here, holder, key, element, ref, resource, root)
        held = holder[key]
        for place, one in enumerate(held if isinstance(held, list) else [held]):
            if not isinstance(one, dict):
                continue
            at = f"{here}[{place}]" if isinstance(held, list) else here
            if "resourceType" in one:
                yield from spots(one, at, root)
            elif element.like is not None:
                like = element.like.partition(".")[2]
                yield from _below(one, owner, like, at, resource, root)
            elif ref.code in {"BackboneElement", "Element"} and owner.children(element.path):
                yield from _below(one, owner, element.path, at, resource, root)
            else:
                yield from _below(one, r4.types()[ref.code], "", at, resource, root)


# -- operators -----------------------------------------------------------------------------------

Operator = Callable[[Spot, random.Random], bool]
"""Spoils what stands at a spot; False where it is no spot for it."""

_TERMINOLOGY: Final = Terminology()


def drop(spot: Spot, _chance: random.Random) -> bool:
    """Cardinality: an element that must be there is missing."""
    if spot.element.least < 1 or f"_{spot.key}" in spot.holder:
        return False
    del spot.holder[spot.key]
    return True


def duplicate(spot: Spot, _chance: random.Random) -> bool:
    """Cardinality: an element that is there once is a list of two."""
    if spot.element.is_list or spot.key == "div":
        return False
    spot.holder[spot.key] = [spot.value, copy.deepcopy(spot.value)]
    return True


def make_single(spot: Spot, _chance: random.Random) -> bool:
    """Shape: a list is one value."""
    if not isinstance(spot.value, list) or not spot.value:
        return False
    spot.holder[spot.key] = spot.value[0]
    return True


def retype(spot: Spot, chance: random.Random) -> bool:
    """Type: a value of another JSON type."""
    one = spot.value[0] if isinstance(spot.value, list) and spot.value else spot.value
    if isinstance(one, str):
        other: Any = chance.choice([7, True, {"text": "x"}])
    elif isinstance(one, dict):
        other = chance.choice(["x", 7, False])
    elif isinstance(one, bool | int | float):
        other = "x"
    else:
        return False
    spot.holder[spot.key] = [other] if isinstance(spot.value, list) else other
    return True


def empty_list(spot: Spot, _chance: random.Random) -> bool:
    """JSON of FHIR: a list has something in it."""
    if not isinstance(spot.value, list):
        return False
    spot.holder[spot.key] = []
    return True


def empty_object(spot: Spot, _chance: random.Random) -> bool:
    """ele-1: an element has content."""
    if not isinstance(spot.value, dict) or "resourceType" in spot.value:
        return False
    spot.holder[spot.key] = {}
    return True


def empty_text(spot: Spot, _chance: random.Random) -> bool:
    """string: a text is not empty."""
    if not isinstance(spot.value, str):
        return False
    spot.holder[spot.key] = ""
    return True


def unknown_element(spot: Spot, chance: random.Random) -> bool:
    """Structure: there is no such element."""
    spot.holder[f"{spot.key}{chance.choice('xyz')}"] = "x"
    return True


def wrong_code(spot: Spot, _chance: random.Random) -> bool:
    """Required binding: a code that its value set does not have."""
    binding = spot.element.binding
    if spot.ref.code != "code" or binding is None or binding[0] != "required":
        return False
    if _TERMINOLOGY.members(binding[1]).unknown or not isinstance(spot.value, str):
        return False
    spot.holder[spot.key] = "bogus"
    return True


def wrong_coding(spot: Spot, _chance: random.Random) -> bool:
    """CodeSystem: a code that its system does not have."""
    system = _TERMINOLOGY.system(spot.holder.get("system")) if spot.key == "code" else None
    if system is None or not system.is_complete or spot.ref.code != "code":
        return False
    spot.holder["code"] = "bogus"
    return True


def wrong_reference(spot: Spot, _chance: random.Random) -> bool:
    """Reference target: a type that the element does not refer to."""
    if spot.ref.code != "Reference" or not spot.ref.targets or not isinstance(spot.value, dict):
        return False
    if "reference" not in spot.value or "Slot" in spot.ref.targets:
        return False
    spot.value["reference"] = "Slot/1"
    return True


def dangling(spot: Spot, _chance: random.Random) -> bool:
    """Reference: a URN that is not in the Bundle. A page of a search need not hold all."""
    is_whole = spot.root.get("type") in ("message", "document", "collection", "transaction")
    if spot.key != "reference" or not str(spot.value).startswith("urn:uuid:") or not is_whole:
        return False
    spot.holder["reference"] = "urn:uuid:00000000-0000-4000-8000-000000000000"
    return True


def duplicate_full_url(spot: Spot, _chance: random.Random) -> bool:
    """bdl-7: a fullUrl is there once."""
    entries = spot.value
    if spot.path != "Bundle.entry" or len(entries) < 2 or "fullUrl" not in entries[0]:
        return False
    entries[-1]["fullUrl"] = entries[0]["fullUrl"]
    entries[-1].get("resource", {}).get("meta", {}).pop("versionId", None)
    entries[0].get("resource", {}).get("meta", {}).pop("versionId", None)
    return spot.resource.get("type") != "history"


def bad_uuid(spot: Spot, _chance: random.Random) -> bool:
    """uri: what follows urn:uuid: is a UUID."""
    if spot.key != "fullUrl" or not str(spot.value).startswith("urn:uuid:"):
        return False
    spot.holder["fullUrl"] = f"{spot.value}0"
    return True


def bad_date(spot: Spot, chance: random.Random) -> bool:
    """date: there is no such day."""
    if spot.ref.code not in {"date", "dateTime", "instant"} or len(str(spot.value)) < 10:
        return False
    rest = str(spot.value)[10:]
    spot.holder[spot.key] = chance.choice(["2023-02-30", "2023-13-01", "2023-00-10"]) + rest
    return True


def bad_id(spot: Spot, chance: random.Random) -> bool:
    """id: 1 to 64 letters, digits, - and dots."""
    if spot.key != "id" or spot.ref.code != "id":
        return False
    spot.holder["id"] = chance.choice(["a b", "x_y", "a" * 65])
    return True


def bad_check_digit(spot: Spot, _chance: random.Random) -> bool:
    """NHS number: Modulus 11."""
    if spot.key != "value" or spot.holder.get("system") != "https://fhir.nhs.uk/Id/nhs-number":
        return False
    spot.holder["value"] = _other_digit(str(spot.value))
    return True


def bad_concept(spot: Spot, _chance: random.Random) -> bool:
    """SNOMED CT: Verhoeff's check digit."""
    if spot.key != "code" or spot.holder.get("system") != "http://snomed.info/sct":
        return False
    spot.holder["code"] = _other_digit(str(spot.value))
    return True


def _other_digit(number: str) -> str:
    return number[:-1] + str((int(number[-1]) + 1) % 10)


_NAMED: Final = (
    "https://fhir.nhs.uk/Id/nhs-number",
    "https://fhir.nhs.uk/Id/ods-organization-code",
    "http://snomed.info/sct",
    "http://terminology.hl7.org/CodeSystem/v3-ActCode",
    "http://terminology.hl7.org/CodeSystem/condition-clinical",
)


def misspelt_system(spot: Spot, chance: random.Random) -> bool:
    """Naming systems: a name that is a letter short of a known one."""
    if spot.key != "system" or spot.value not in _NAMED:
        return False
    text = str(spot.value)
    place = chance.randrange(len(text) - 8, len(text) - 1)
    spot.holder["system"] = text[:place] + text[place + 1 :]
    return text[place : place + 1] != text[place + 1 : place + 2]


def two_of_a_choice(spot: Spot, _chance: random.Random) -> bool:
    """Choice: one type of value at a time."""
    if not spot.element.is_choice or len(spot.element.types) < 2:
        return False
    other = next(key for key in [*spot.element.keys()] if key not in spot.holder)
    spot.holder[other] = copy.deepcopy(spot.value)
    return True


def value_and_parts(spot: Spot, _chance: random.Random) -> bool:
    """ext-1: an extension has a value or parts, not both."""
    if spot.key != "url" or not any(key.startswith("value") for key in spot.holder):
        return False
    spot.holder["extension"] = [{"url": "https://example.org/part", "valueString": "x"}]
    return True


def period_backwards(spot: Spot, _chance: random.Random) -> bool:
    """per-1: a period ends after it starts."""
    if spot.ref.code != "Period" or not isinstance(spot.value, dict):
        return False
    spot.value["start"], spot.value["end"] = "2030-01-02", "2030-01-01"
    return True


def broken_slice(spot: Spot, _chance: random.Random) -> bool:
    """UKCore-Patient, slice nhsNumber: there is at most one."""
    if spot.key != "identifier" or not _claims(spot.resource, "UKCore-Patient"):
        return False
    numbers = [one for one in spot.value if one.get("system") == _NAMED[0]]
    if spot.holder is not spot.resource or len(numbers) != 1:
        return False
    spot.value.append(copy.deepcopy(numbers[0]))
    return True


def wrong_fixed(spot: Spot, _chance: random.Random) -> bool:
    """BARSServiceRequest-request-referral: intent is fixed to plan."""
    if spot.key != "intent" or spot.value != "plan":
        return False
    if not _claims(spot.resource, "BARSServiceRequest-request-referral"):
        return False
    spot.holder["intent"] = "order"
    return True


def misplaced_extension(spot: Spot, _chance: random.Random) -> bool:
    """Extension context: a time of birth belongs to a date of birth."""
    if not isinstance(spot.value, dict) or spot.ref.code in {"Resource", "Extension"}:
        return False
    extension = {"url": f"{r4.CORE}patient-birthTime", "valueDateTime": "2020-01-01T10:00:00Z"}
    spot.value.setdefault("extension", []).append(extension)
    return True


def wrong_extension_type(spot: Spot, _chance: random.Random) -> bool:
    """Extension: its value has the type that its definition says."""
    values = [key for key in spot.holder if key.startswith("value")]
    is_defined = str(spot.value).startswith(_DEFINED)
    if spot.key != "url" or not is_defined or not values or "valueInteger" in values:
        return False
    del spot.holder[values[0]]
    spot.holder["valueInteger"] = 7
    return True


_DEFINED: Final = (
    "https://fhir.hl7.org.uk/StructureDefinition/Extension-UKCore-",
    f"{r4.CORE}patient-",
)


def _claims(resource: Holder, profile: str) -> bool:
    return any(
        str(one).endswith(f"/{profile}") for one in resource.get("meta", {}).get("profile", ())
    )


OPERATORS: Final[Mapping[str, Operator]] = {
    one.__name__: one
    for one in (
        *(drop, duplicate, make_single, retype, empty_list, empty_object, empty_text),
        *(unknown_element, wrong_code, wrong_coding, wrong_reference, dangling),
        *(duplicate_full_url, bad_uuid, bad_date, bad_id, bad_check_digit, bad_concept),
        *(misspelt_system, two_of_a_choice, value_and_parts, period_backwards),
        *(broken_slice, wrong_fixed, misplaced_extension, wrong_extension_type),
    )
}


def mutants(good: Sequence[tuple[str, bytes]], number: int, seed: int) -> Iterator[Mutant]:
    """Return so many mutants of good resources, the operators in turn."""
    chance = random.Random(seed)  # noqa: S311 - the same again is what is wanted
    names = list(OPERATORS)
    made = tried = 0
    while made < number and tried < number * 200:
        name = names[tried % len(names)]
        tried += 1
        of, content = good[chance.randrange(len(good))]
        resource: Holder = json.loads(content)
        every = list(spots(resource))
        chance.shuffle(every)
        for spot in every:
            if OPERATORS[name](spot, chance):
                made += 1
                yield Mutant(of, name, spot.path, resource)
                break
