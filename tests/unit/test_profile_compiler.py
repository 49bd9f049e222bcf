"""Profiles as checks: each kind of rule that a definition can state, and nothing else."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fhir_profiles.compiler.finding import Finding
from fhir_profiles.compiler.library import Library

BASE = "https://example.org/StructureDefinition/"
SEX = {"system": "http://hl7.org/fhir/administrative-gender", "code": "female"}


def profile(
    kind: str, *elements: Mapping[str, Any], name: str = "p", **more: Any
) -> dict[str, Any]:
    """A StructureDefinition with these elements in its differential."""
    return {
        "resourceType": "StructureDefinition",
        "url": f"{BASE}{name}",
        "type": kind,
        "baseDefinition": f"http://hl7.org/fhir/StructureDefinition/{kind}",
        "differential": {"element": list(elements)},
        **more,
    }


def rule(identity: str, **said: Any) -> dict[str, Any]:
    """An element of a differential, by its id."""
    path = ".".join(step.partition(":")[0] for step in identity.split("."))
    return {"id": identity, "path": path, **said}


def sliced(identity: str, kind: str, path: str, rules: str = "open") -> dict[str, Any]:
    return rule(identity, slicing={"discriminator": [{"type": kind, "path": path}], "rules": rules})


def extension(name: str, context: str, *elements: Mapping[str, Any]) -> dict[str, Any]:
    contexts = [{"type": "element", "expression": context}]
    return profile("Extension", *elements, name=name, context=contexts)


def check(
    resource: Mapping[str, Any], *definitions: Mapping[str, Any], claims: Sequence[str] = ("p",)
) -> list[tuple[str, str, str]]:
    """(severity, place, rule's end) of everything that is found of a resource that claims p."""
    library = Library()
    for one in definitions:
        library.add(one)
    library.compile()
    claimed = [f"{BASE}{name}" for name in claims]
    found = library.check({**resource, "meta": {"profile": claimed}} if claims else resource)
    assert library.left_out == []
    return [(one.severity, one.path, _end(one)) for one in found]


def _end(finding: Finding) -> str:
    return finding.rule.rpartition("/")[2]


def patient(**elements: Any) -> dict[str, Any]:
    return {"resourceType": "Patient", "active": True, **elements}


def observation(**elements: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "blood pressure"},
        **elements,
    }


# -- how many, and what --------------------------------------------------------------------------


def test_an_element_that_must_be_there_is_missed_where_it_is_not() -> None:
    definition = profile("Patient", rule("Patient.name", min=1), rule("Patient.name.family", min=1))
    assert check(patient(), definition) == [("error", "Patient.name", "p")]
    assert check(patient(name=[{"family": "A"}, {"text": "B"}]), definition) == [
        ("error", "Patient.name[1].family", "p")
    ]
    assert check(patient(name=[{"family": "A"}]), definition) == []


def test_an_element_is_there_no_more_often_than_is_allowed() -> None:
    definition = profile("Patient", rule("Patient.name", max="1"), rule("Patient.photo", max="0"))
    assert check(patient(name=[{"text": "A"}]), definition) == []
    assert check(patient(name=[{"text": "A"}, {"text": "B"}]), definition) == [
        ("error", "Patient.name", "p")
    ]
    assert check(patient(photo=[{"title": "x"}]), definition) == [("error", "Patient.photo", "p")]


def test_a_primitive_that_has_only_an_extension_is_there() -> None:
    definition = profile("Patient", rule("Patient.birthDate", min=1))
    why = {
        "url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason",
        "valueCode": "unknown",
    }
    assert check(patient(_birthDate={"extension": [why]}), definition) == []


def test_a_profile_holds_what_the_one_it_is_based_on_holds() -> None:
    parent = profile("Patient", rule("Patient.name", min=1), name="parent")
    child = profile("Patient", rule("Patient.gender", min=1), baseDefinition=f"{BASE}parent")
    assert check(patient(), parent, child) == [
        ("error", "Patient.name", "parent"),
        ("error", "Patient.gender", "p"),
    ]


@pytest.mark.parametrize(
    ("said", "holds", "breaks"),
    [
        ({"fixedCode": "female"}, {"gender": "female"}, {"gender": "male"}),
        ({"patternCode": "female"}, {"gender": "female"}, {"gender": "male"}),
    ],
)
def test_a_fixed_value_is_that_value(
    said: dict[str, Any], holds: dict[str, Any], breaks: dict[str, Any]
) -> None:
    definition = profile("Patient", rule("Patient.gender", **said))
    assert check(patient(**holds), definition) == []
    assert check(patient(**breaks), definition) == [("error", "Patient.gender", "p")]


def test_a_fixed_object_has_nothing_else_and_a_pattern_may_have_more() -> None:
    code = {"coding": [{"system": "http://loinc.org", "code": "85354-9"}]}
    longer = {**code, "text": "pressure"}
    fixed = profile("Observation", rule("Observation.code", fixedCodeableConcept=code))
    pattern = profile("Observation", rule("Observation.code", patternCodeableConcept=code))
    assert check(observation(code=code), fixed) == check(observation(code=longer), pattern) == []
    assert check(observation(code=longer), fixed) == [("error", "Observation.code", "p")]
    assert check(observation(), pattern) == [("error", "Observation.code", "p")]


def test_a_choice_has_only_the_types_that_are_left() -> None:
    definition = profile(
        "Observation", rule("Observation.value[x]", min=1, type=[{"code": "Quantity"}])
    )
    assert check(observation(valueQuantity={"value": 1}), definition) == []
    assert check(observation(), definition) == [("error", "Observation.value", "p")]
    assert check(observation(valueString="high"), definition) == [
        ("error", "Observation.valueString", "p")
    ]


def test_one_type_of_a_choice_may_have_rules_of_its_own() -> None:
    definition = profile(
        "Observation",
        rule("Observation.value[x]:valueQuantity", sliceName="valueQuantity"),
        rule("Observation.value[x]:valueQuantity.unit", min=1),
    )
    assert check(observation(valueString="high"), definition) == []
    assert check(observation(valueQuantity={"value": 1}), definition) == [
        ("error", "Observation.valueQuantity.unit", "p")
    ]


# -- slices --------------------------------------------------------------------------------------


def by_system(rules: str = "open") -> dict[str, Any]:
    return profile(
        "Patient",
        sliced("Patient.identifier", "value", "system", rules),
        rule("Patient.identifier:nhs", sliceName="nhs", min=1, max="1"),
        rule("Patient.identifier:nhs.system", fixedUri="https://example.org/nhs"),
        rule("Patient.identifier:nhs.value", min=1),
    )


def test_a_slice_by_value_is_counted_and_checked_by_itself() -> None:
    nhs, other = {"system": "https://example.org/nhs", "value": "1"}, {"system": "https://x.org"}
    assert check(patient(identifier=[nhs, other]), by_system()) == []
    assert check(patient(identifier=[other]), by_system()) == [("error", "Patient.identifier", "p")]
    assert check(patient(), by_system()) == [("error", "Patient.identifier", "p")]
    assert check(patient(identifier=[nhs, {**nhs, "value": "2"}]), by_system()) == [
        ("error", "Patient.identifier", "p")
    ]
    assert check(patient(identifier=[{"system": "https://example.org/nhs"}]), by_system()) == [
        ("error", "Patient.identifier[0].value", "p")
    ]


def test_what_is_no_slice_is_refused_only_where_the_slicing_is_closed() -> None:
    nhs, other = {"system": "https://example.org/nhs", "value": "1"}, {"system": "https://x.org"}
    assert check(patient(identifier=[nhs, other]), by_system("closed")) == [
        ("error", "Patient.identifier[1]", "p")
    ]


def test_slices_are_told_apart_by_a_pattern_above_the_discriminator() -> None:
    systolic = {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]}
    definition = profile(
        "Observation",
        sliced("Observation.component", "value", "code.coding.code"),
        rule("Observation.component:systolic", sliceName="systolic", min=1),
        rule("Observation.component:systolic.code", patternCodeableConcept=systolic),
        rule("Observation.component:systolic.value[x]", min=1),
    )
    part = {"code": systolic, "valueQuantity": {"value": 120}}
    assert check(observation(component=[part]), definition) == []
    assert check(observation(component=[{"code": systolic}]), definition) == [
        ("error", "Observation.component[0].value", "p")
    ]
    assert check(observation(component=[{**part, "code": {"text": "?"}}]), definition) == [
        ("error", "Observation.component", "p")
    ]


def test_slices_are_told_apart_by_type_by_profile_and_by_being_there() -> None:
    named = profile("Patient", rule("Patient.name", min=1), name="named")
    bundle = profile(
        "Bundle",
        sliced("Bundle.entry", "type", "resource"),
        rule("Bundle.entry:patient", sliceName="patient", max="1"),
        rule("Bundle.entry:patient.resource", type=[{"code": "Patient"}]),
    )
    entries = [{"fullUrl": f"https://x.org/{n}", "resource": patient()} for n in range(2)]
    held = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    assert check(held, bundle) == [("error", "Bundle.entry", "p")]

    by_profile = profile(
        "Bundle",
        sliced("Bundle.entry", "profile", "resource"),
        rule("Bundle.entry:named", sliceName="named", min=1),
        rule(
            "Bundle.entry:named.resource", type=[{"code": "Patient", "profile": [f"{BASE}named"]}]
        ),
    )
    assert check(held, named, by_profile) == [("error", "Bundle.entry", "p")]
    entries[1]["resource"] = patient(name=[{"text": "A"}])
    assert check(held, named, by_profile) == []

    there = profile(
        "Patient",
        sliced("Patient.contact", "exists", "organization"),
        rule("Patient.contact:firm", sliceName="firm", max="0"),
        rule("Patient.contact:firm.organization", min=1),
    )
    firm = {"organization": {"display": "x"}}
    assert check(patient(contact=[{"name": {"text": "A"}}]), there) == []
    assert check(patient(contact=[firm]), there) == [("error", "Patient.contact", "p")]


def test_a_slicing_that_cannot_be_compiled_is_named_and_not_passed_over() -> None:
    library = Library()
    library.add(
        profile(
            "Patient",
            sliced("Patient.identifier", "value", "period"),
            rule("Patient.identifier:old", sliceName="old", max="0"),
            rule("Patient.name", maxLength=3),
        )
    )
    library.compile()
    assert library.left_out == [f"{BASE}p#identifier:old", "Patient.name.maxLength"]


# -- codes ---------------------------------------------------------------------------------------

COLOURS = {
    "resourceType": "CodeSystem",
    "url": "https://example.org/colours",
    "content": "complete",
    "concept": [
        {"code": "warm", "concept": [{"code": "red"}, {"code": "orange"}]},
        {"code": "blue", "display": "Blue"},
    ],
}


def value_set(*include: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    url = "https://example.org/vs"
    return {"resourceType": "ValueSet", "url": url, "compose": {"include": [*include], **more}}


def bound(strength: str, to: str = "https://example.org/vs") -> dict[str, Any]:
    binding = {"strength": strength, "valueSet": to}
    return profile("Observation", rule("Observation.code", binding=binding))


def coded(code: str, system: str = "https://example.org/colours") -> dict[str, Any]:
    return observation(code={"coding": [{"system": system, "code": code}]})


@pytest.mark.parametrize(
    ("strength", "severity"), [("required", "error"), ("extensible", "warning")]
)
def test_a_code_outside_its_value_set_is_an_error_or_a_warning(
    strength: str, severity: str
) -> None:
    warm = value_set({"system": COLOURS["url"], "concept": [{"code": "red"}]})
    assert check(coded("red"), COLOURS, warm, bound(strength)) == []
    assert check(coded("blue"), COLOURS, warm, bound(strength)) == [
        (severity, "Observation.code", "vs")
    ]


def test_a_value_set_is_what_it_includes_less_what_it_excludes() -> None:
    below = {
        "system": COLOURS["url"],
        "filter": [{"property": "concept", "op": "is-a", "value": "warm"}],
    }
    held = value_set(below, exclude=[{"system": COLOURS["url"], "concept": [{"code": "warm"}]}])
    assert check(coded("orange"), COLOURS, held, bound("required")) == []
    for code in ("warm", "blue"):
        assert check(coded(code), COLOURS, held, bound("required")) != []


def test_what_cannot_be_told_is_said_and_is_no_error() -> None:
    snomed = value_set(
        {
            "system": "http://snomed.info/sct",
            "filter": [{"property": "concept", "op": "is-a", "value": "1"}],
        }
    )
    assert check(coded("73211009", "http://snomed.info/sct"), snomed, bound("required")) == [
        ("information", "Observation.code", "vs")
    ]
    assert check(coded("red"), COLOURS, bound("required", "https://example.org/nowhere")) == [
        ("information", "Observation.code", "nowhere")
    ]


def test_of_a_value_set_that_is_loaded_in_part_what_is_known_is_known() -> None:
    part = value_set({"system": COLOURS["url"]}, {"valueSet": ["https://example.org/nowhere"]})
    assert check(coded("blue"), COLOURS, part, bound("required")) == []
    assert check(coded("1", "https://example.org/other"), COLOURS, part, bound("required")) == [
        ("information", "Observation.code", "vs")
    ]


def test_a_code_that_its_own_system_does_not_have_is_an_error_wherever_it_stands() -> None:
    assert check(coded("green"), COLOURS, claims=()) == [
        ("error", "Observation.code.coding[0].code", "colours")
    ]
    assert check(coded("orange"), COLOURS, claims=()) == []


# -- references, extensions, invariants ----------------------------------------------------------


def message(*resources: Mapping[str, Any]) -> dict[str, Any]:
    entries = [
        {"fullUrl": f"urn:uuid:0199a000-0000-7000-8000-00000000000{place}", "resource": one}
        for place, one in enumerate(resources)
    ]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def to(place: int) -> dict[str, str]:
    return {"reference": f"urn:uuid:0199a000-0000-7000-8000-00000000000{place}"}


def test_a_reference_leads_to_a_type_that_is_allowed_and_into_the_bundle() -> None:
    wrong = observation(subject=to(0))
    assert check(message(wrong, patient()), claims=()) == [
        ("error", "Bundle.entry[0].resource.subject", "Observation.subject")
    ]
    assert check(message(observation(subject=to(1)), patient()), claims=()) == []
    assert check(message(observation(subject=to(7))), claims=()) == [
        ("error", "Bundle.entry[0].resource.subject.reference", "Bundle")
    ]
    named = observation(subject={"reference": "Practitioner/1"})
    assert check(named, claims=()) == [("error", "Observation.subject", "Observation.subject")]


def test_a_reference_leads_to_what_is_as_its_profile_says() -> None:
    named = profile("Patient", rule("Patient.name", min=1), name="named")
    target = {"code": "Reference", "targetProfile": [f"{BASE}named"]}
    definition = profile("Observation", rule("Observation.subject", type=[target]))
    of = {**observation(subject=to(1)), "meta": {"profile": [f"{BASE}p"]}}
    assert check(message(of, patient(name=[{"text": "A"}])), named, definition, claims=()) == []
    assert check(message(of, patient()), named, definition, claims=()) == [
        ("error", "Bundle.entry[0].resource.subject", "p")
    ]


def test_an_extension_is_as_it_is_defined_and_stands_where_it_may() -> None:
    known = extension(
        "colour",
        "Patient.contact",
        rule("Extension.extension", max="0"),
        rule("Extension.value[x]", min=1, type=[{"code": "code"}]),
    )
    colour = {"url": f"{BASE}colour", "valueCode": "red"}
    there = patient(contact=[{"extension": [colour], "name": {"text": "A"}}])
    assert check(there, known, claims=()) == []
    assert check(patient(extension=[colour]), known, claims=()) == [
        ("error", "Patient.extension[0]", "colour")
    ]
    other = {"url": f"{BASE}colour", "valueString": "red"}
    assert check(patient(contact=[{"extension": [other]}]), known, claims=())[0] == (
        "error",
        "Patient.contact[0].extension[0].valueString",
        "colour",
    )
    assert check(
        patient(extension=[{"url": "https://x.org/new", "valueCode": "a"}]), claims=()
    ) == [("warning", "Patient.extension[0].url", "new")]


def test_an_extension_has_a_value_or_parts_and_never_both_or_neither() -> None:
    url = "https://x.org/new"
    for odd in (
        {"url": url},
        {"url": url, "valueCode": "a", "extension": [{"url": "b", "valueCode": "c"}]},
    ):
        assert ("error", "Patient.extension[0]", "Extension#ext-1") in check(
            patient(extension=[odd]), claims=()
        )


def test_an_extension_of_a_primitive_is_checked_in_its_place() -> None:
    time = {"url": "http://hl7.org/fhir/StructureDefinition/patient-birthTime"}
    good = patient(
        birthDate="1984-02-29",
        _birthDate={"extension": [{**time, "valueDateTime": "1984-02-29T10:30:00Z"}]},
    )
    assert check(good, claims=()) == []
    assert check(patient(extension=[{**time, "valueDateTime": "1984"}]), claims=()) == [
        ("error", "Patient.extension[0]", "patient-birthTime")
    ]


def test_a_constraint_of_a_profile_is_an_error_or_a_warning_as_it_says() -> None:
    def said(severity: str) -> dict[str, Any]:
        one = {"key": "x-1", "severity": severity, "human": "A name", "expression": "name.exists()"}
        return profile("Patient", rule("Patient", constraint=[one]))

    assert check(patient(name=[{"text": "A"}]), said("error")) == []
    assert check(patient(), said("error")) == [("error", "Patient", "p#x-1")]
    assert check(patient(), said("warning")) == [("warning", "Patient", "p#x-1")]


def test_a_constraint_that_closures_cannot_say_goes_the_slow_way() -> None:
    one = {
        "key": "x-2",
        "severity": "error",
        "human": "Two",
        "expression": "name.repeat(given).count() mod 2 = 0",
    }
    definition = profile("Patient", rule("Patient", constraint=[one]))
    assert check(patient(name=[{"given": ["A", "B"]}]), definition) == []
    assert check(patient(name=[{"given": ["A"]}]), definition) == [("error", "Patient", "p#x-2")]


def test_profiles_that_lead_to_each_other_are_compiled_and_a_circle_of_bases_is_cut() -> None:
    def leading(name: str, other: str) -> dict[str, Any]:
        target = {"code": "Reference", "targetProfile": [f"{BASE}{other}"]}
        return profile("Observation", rule("Observation.hasMember", type=[target]), name=name)

    member = {**observation(hasMember=[to(1)]), "meta": {"profile": [f"{BASE}p"]}}
    other = {**observation(hasMember=[to(0)]), "meta": {"profile": [f"{BASE}q"]}}
    assert check(message(member, other), leading("p", "q"), leading("q", "p"), claims=()) == []
    circle = profile("Patient", rule("Patient.name", min=1), baseDefinition=f"{BASE}p")
    assert check(patient(), circle) == [("error", "Patient.name", "p")]


def test_many_threads_may_ask_at_once() -> None:
    for _ in range(5):
        library = Library()
        held = message(patient(name=[{"given": [""]}], gender="x"), observation(), patient())
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(library.check, [held] * 16))
        assert all(one == found[0] for one in found)
        assert found[0]


# -- claims --------------------------------------------------------------------------------------


def test_a_claim_of_an_unknown_profile_is_a_warning_and_of_anothers_type_an_error() -> None:
    assert check(patient()) == [("warning", "Patient.meta.profile[0]", "p")]
    assert check(patient(), profile("Observation")) == [("error", "Patient.meta.profile[0]", "p")]


def shares(name: str) -> dict[str, Any]:
    """What a definition says that stands for another one as long as that is not loaded."""
    one = {"identity": "x", "uri": f"{BASE}{name}", "comment": "shares the rules of"}
    return {"mapping": [one, {"identity": "v2", "uri": "http://hl7.org/v2"}]}


def test_a_claim_of_a_profile_that_is_not_loaded_is_judged_by_the_one_that_shares_its_rules() -> (
    None
):
    stands = profile("Patient", rule("Patient.name", min=1), name="ours", **shares("p"))
    assert check(patient(), stands) == [("error", "Patient.name", "ours")]
    assert check(patient(name=[{"text": "A"}]), stands) == []
    assert check(observation(), stands) == [("error", "Observation.meta.profile[0]", "p")]


def test_a_profile_that_is_loaded_counts_alone() -> None:
    stands = profile("Patient", rule("Patient.name", min=1), name="ours", **shares("p"))
    loaded = profile("Patient", rule("Patient.gender", min=1))
    assert check(patient(), stands, loaded) == [("error", "Patient.gender", "p")]


def test_a_profile_may_be_based_on_one_that_another_stands_for() -> None:
    stands = profile("Patient", rule("Patient.name", min=1), name="ours", **shares("parent"))
    child = profile("Patient", rule("Patient.gender", min=1), baseDefinition=f"{BASE}parent")
    assert check(patient(), stands, child) == [
        ("error", "Patient.name", "ours"),
        ("error", "Patient.gender", "p"),
    ]


def test_only_the_mapping_that_says_so_makes_a_definition_stand_for_another() -> None:
    other = shares("p")
    other["mapping"][0]["comment"] = "is something like"
    assert check(patient(), profile("Patient", name="ours", **other)) == [
        ("warning", "Patient.meta.profile[0]", "p")
    ]


def test_an_extension_that_is_not_loaded_is_judged_by_the_one_that_shares_its_rules() -> None:
    stands = extension(
        "ours",
        "Patient.contact",
        rule("Extension.url", fixedUri=f"{BASE}ours"),
        rule("Extension.value[x]", min=1, type=[{"code": "code"}]),
    ) | shares("colour")
    red = {"url": f"{BASE}colour", "valueCode": "red"}
    there = patient(contact=[{"extension": [red], "name": {"text": "A"}}])
    assert check(there, stands, claims=()) == []
    assert check(patient(extension=[red]), stands, claims=()) == [
        ("error", "Patient.extension[0]", "colour")
    ]
    wrong = patient(contact=[{"extension": [{"url": f"{BASE}colour", "valueString": "red"}]}])
    assert check(wrong, stands, claims=())[0] == (
        "error",
        "Patient.contact[0].extension[0].valueString",
        "ours",
    )


def test_a_slice_of_extensions_holds_those_that_its_definition_stands_for() -> None:
    stands = extension("ours", "Patient") | shares("colour")
    once = profile(
        "Patient",
        sliced("Patient.extension", "value", "url"),
        rule(
            "Patient.extension:colour",
            sliceName="colour",
            max="1",
            type=[{"code": "Extension", "profile": [f"{BASE}ours"]}],
        ),
    )
    red, blue = ({"url": f"{BASE}colour", "valueCode": one} for one in ("red", "blue"))
    assert check(patient(extension=[red]), stands, once) == []
    assert check(patient(extension=[red, blue]), stands, once) == [
        ("error", "Patient.extension", "p")
    ]


def test_a_resource_that_is_held_is_told_where_it_is_not_as_its_one_profile_says() -> None:
    named = profile("Patient", rule("Patient.name", min=1), name="named")
    held = {"code": "Patient", "profile": [f"{BASE}named"]}
    definition = profile(
        "Bundle",
        sliced("Bundle.entry", "type", "resource"),
        rule("Bundle.entry:patient", sliceName="patient"),
        rule("Bundle.entry:patient.resource", type=[held]),
    )
    bundle = {**message(patient()), "meta": {"profile": [f"{BASE}p"]}}
    assert check(bundle, named, definition, claims=()) == [
        ("error", "Bundle.entry[0].resource.name", "named")
    ]


def test_a_resource_can_be_checked_by_a_profile_that_it_does_not_claim() -> None:
    library = Library()
    library.add(profile("Patient", rule("Patient.name", min=1)))
    library.compile()
    assert library.check(patient()) == []
    assert [one.path for one in library.check(patient(), f"{BASE}p")] == ["Patient.name"]
    assert [one.path for one in library.check(observation(), f"{BASE}p")] == ["Observation"]
    with pytest.raises(LookupError):
        library.check(patient(), f"{BASE}nowhere")


def test_what_is_asked_for_and_claimed_as_well_is_told_once() -> None:
    library = Library()
    library.add(profile("Patient", rule("Patient.name", min=1)))
    library.compile()
    claiming = patient(meta={"profile": [f"{BASE}other", f"{BASE}p|1.0.0"]})
    found = [one.path for one in library.check(claiming, f"{BASE}p")]
    assert found == ["Patient.meta.profile[0]", "Patient.name"]


def test_every_resource_of_a_bundle_is_checked_against_its_own_claims() -> None:
    definition = profile("Patient", rule("Patient.name", min=1))
    held = message(patient(meta={"profile": [f"{BASE}p"]}), patient())
    assert check(held, definition, claims=()) == [("error", "Bundle.entry[0].resource.name", "p")]


def test_every_problem_is_found_in_one_pass() -> None:
    definition = profile("Patient", rule("Patient.name", min=1), rule("Patient.birthDate", min=1))
    wrong = patient(gender="unsure", period={}, identifier=[{"id": "only"}])
    assert [place for _, place, _ in check(wrong, definition)] == [
        "Patient.gender",
        "Patient.identifier[0]",
        "Patient.name",
        "Patient.birthDate",
    ]
