"""FHIRPath as closures: what it means, what it refuses, and that the slow library agrees."""

import cProfile
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from fhir_profiles.compiler import closures, fhirpath, r4, slow_path
from fhir_profiles.compiler.closures import NotCompiled
from fhir_profiles.compiler.fhirpath import NotFhirPath
from fhir_profiles.compiler.invariant import invariant
from fhir_profiles.compiler.operations import Env
from fhir_profiles.compiler.scope import scope
from tests import made

PATIENT: Mapping[str, Any] = {
    "resourceType": "Patient",
    "id": "p1",
    "active": True,
    "name": [
        {"use": "official", "family": "Okafor", "given": ["Ada", "Zoe"]},
        {"use": "old", "family": "Bell"},
    ],
    "birthDate": "1984-02-29",
    "_birthDate": {"extension": [{"url": "http://example.org/time", "valueTime": "10:30:00"}]},
    "_gender": {"extension": [{"url": "http://example.org/why", "valueString": "unknown"}]},
    "multipleBirthInteger": 2,
    "managingOrganization": {"reference": "Organization/o1"},
    "telecom": [{"system": "phone", "rank": 2}, {"system": "email", "rank": 1}],
}


def said(expression: str, focus: Any = PATIENT, env: Env | None = None) -> bool | None:
    return closures.truth(fhirpath.parse(expression), r4.choices())(
        [focus], env or Env(focus, focus)
    )


def found(expression: str, focus: Any = PATIENT, env: Env | None = None) -> list[Any]:
    compiled = closures.values(fhirpath.parse(expression), r4.choices())
    return list(compiled([focus], env or Env(focus, focus)))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("name.family", ["Okafor", "Bell"]),
        ("Patient.name.given", ["Ada", "Zoe"]),
        ("name[1].family", ["Bell"]),
        ("name[7].family", []),
        ("name.where(use = 'old').family", ["Bell"]),
        ("name.select(given.count())", [2, 0]),
        ("name.first().given.last()", ["Zoe"]),
        ("name.tail().family", ["Bell"]),
        ("multipleBirth", [2]),
        ("multipleBirth.ofType(integer)", [2]),
        ("multipleBirth as boolean", []),
        ("multipleBirth is integer", [True]),
        ("deceased is boolean", []),
        ("name.given | name.family | name.given", ["Ada", "Zoe", "Okafor", "Bell"]),
        ("name.given.combine(name.given).count()", [4]),
        ("telecom.rank.isDistinct()", [True]),
        ("'a' & 'b' & {}", ["ab"]),
        ("2 + 3 * 4 - 1", [13]),
        ("iif(active, 'yes', 'no')", ["yes"]),
        ("iif(deceased.exists(), 'yes')", []),
        ("birthDate.substring(0, 4).toInteger()", [1984]),
        ("'Ada'.lower().startsWith('a')", [True]),
        ("'a1'.matches('^[a-z][0-9]$')", [True]),
        ("'abc'.replaceMatches('b', '-')", ["a-c"]),
        ("%ucum", ["http://unitsofmeasure.org"]),
        ("%resource.id", ["p1"]),
        ("`name`.family.first()", ["Okafor"]),
        ("name.family.intersect('Bell')", ["Bell"]),
        ("'it''s'.length()", None),
        ("'it\\'s'", ["it's"]),
    ],
)
def test_an_expression_gives(expression: str, expected: list[Any] | None) -> None:
    if expected is None:
        with pytest.raises(NotFhirPath):
            fhirpath.parse(expression)
    else:
        assert found(expression) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("name.exists()", True),
        ("name.exists(use = 'old')", True),
        ("contact.empty()", True),
        ("name.all(family.exists())", True),
        ("name.all(given.exists())", False),
        ("active and contact.exists()", False),
        ("active xor contact.exists()", True),
        ("contact.exists() implies deceased.exists()", True),
        ("deceased = true", None),
        ("deceased = true or active", True),
        ("deceased = true and active", None),
        ("deceased = true implies active", True),
        ("(deceased = true).not()", None),
        ("active != false", True),
        ("name.count() > 1 and name.count() <= 2", True),
        ("name.use in ('official' | 'old')", True),
        ("('official' | 'old') contains 'old'", True),
        ("birthDate < '1990-01-01'", True),
        ("gender.exists()", True),
        ("gender.hasValue()", False),
        ("birthDate.hasValue()", True),
        ("name.given = name.given", True),
        ("name.given = name.family", False),
        ("children().exists()", True),
        ("descendants().where($this = 'Zoe').exists()", True),
        ("1 = true", False),
        ("'a' + active = 'atrue'", None),
        ("birthDate.startsWith(active)", None),
    ],
)
def test_an_expression_says(expression: str, expected: bool | None) -> None:
    assert said(expression) is expected


@pytest.mark.parametrize(
    ("early", "late"),
    [
        ("2024-01-01T10:00:00+01:00", "2024-01-01T09:30:00Z"),
        ("2024-01-01T10:00:00.100Z", "2024-01-01T10:00:00.2Z"),
        ("2024", "2025-01"),
        ("2024-01-01T10:00:00Z", "2024-01-01"),  # which ends with that day
    ],
)
def test_times_compare_as_moments_and_dates_as_far_as_both_are_precise(
    early: str, late: str
) -> None:
    period = {"start": early, "end": late}
    assert said("start <= end", period)
    assert not said("end < start", period)


def test_a_reference_is_followed_where_what_it_refers_to_is_at_hand() -> None:
    organisation = {"resourceType": "Organization", "id": "o1", "name": "Riverside"}
    env = Env(PATIENT, PATIENT, {"Organization/o1": organisation}.get)
    assert found("managingOrganization.resolve().name", env=env) == ["Riverside"]
    assert found("managingOrganization.resolve().ofType(Organization)", env=env) == [organisation]
    assert found("managingOrganization.resolve().ofType(Patient)", env=env) == []
    assert found("managingOrganization.resolve()") == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name.",
        "name where",
        "a =",
        "(a",
        "a[1",
        "'open",
        "a b",
        "a.where(",
        "@2020-01-01",
        "5 'mg'",
    ],
)
def test_what_is_not_fhirpath_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(NotFhirPath):
        fhirpath.parse(text)


@pytest.mark.parametrize(
    "text", ["a.memberOf('x')", "a.repeat(b)", "%unknown", "a mod b", "value.conformsTo('x')"]
)
def test_what_raw_json_cannot_say_is_left_to_the_slow_path(text: str) -> None:
    with pytest.raises(NotCompiled):
        closures.truth(fhirpath.parse(text), r4.choices())


def test_every_constraint_of_r4_is_compiled() -> None:
    for kind in r4.types().values():
        for element in kind.elements.values():
            for rule in element.constraints:
                closures.truth(fhirpath.parse(rule.expression), r4.choices())


def test_the_slow_library_says_the_same_of_everything_we_make() -> None:
    asked = 0
    for resource in made.resources():
        for kind in ("DomainResource", resource["resourceType"]):
            for element in r4.types()[kind].elements.values():
                for item in _items(resource, element.path):
                    for rule in element.constraints:
                        if "hasValue" in rule.expression or "descendants" in rule.expression:
                            continue  # it has no hasValue, and descendants take it seconds
                        fast = closures.truth(fhirpath.parse(rule.expression), r4.choices())
                        with warnings.catch_warnings():
                            warnings.simplefilter("ignore")
                            slow = slow_path.truth(rule.expression)([item], Env(resource, resource))
                        assert fast([item], Env(resource, resource)) is slow, rule
                        asked += 1
    assert asked > 500


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("Extension", {"url": "a", "valueCode": "b"}),
        ("Extension", {"url": "a", "_valueCode": {"extension": [{"url": "x", "valueCode": "y"}]}}),
        ("Extension", {"url": "a", "extension": [{"url": "b", "valueCode": "c"}]}),
        (
            "Extension",
            {"url": "a", "valueCode": "b", "extension": [{"url": "b", "valueCode": "c"}]},
        ),
        ("Extension", {"url": "a"}),
        ("Reference", {"display": "x"}),
        ("Reference", {"reference": "Patient/1"}),
        ("Reference", {"reference": "#p"}),
        ("Reference", {"reference": "#q"}),
        ("Reference", {"reference": "#"}),
    ],
)
def test_what_is_said_in_python_is_what_its_fhirpath_says(
    kind: str, value: Mapping[str, Any]
) -> None:
    root = {"resourceType": "Observation", "contained": [{"resourceType": "Patient", "id": "p"}]}
    [rule] = [one for one in r4.types()[kind].elements[""].constraints if one.key != "ele-1"]
    check = invariant(rule, "canonical", slow_path.truth)
    holds = closures.truth(fhirpath.parse(rule.expression), r4.choices())([value], Env(root, root))
    assert (check(value, scope(root)) is None) is (holds is not False)


def _dom_3() -> r4.Constraint:
    every = r4.types()["DomainResource"].elements[""].constraints
    return next(one for one in every if one.key == "dom-3")


_PATIENT: dict[str, Any] = {"resourceType": "Patient", "id": "p"}
_NAMED: dict[str, Any] = {"resourceType": "Observation", "subject": {"reference": "#p"}}


@pytest.mark.parametrize(
    "resource",
    [
        {"resourceType": "Observation"},
        _NAMED | {"contained": [_PATIENT]},
        {"resourceType": "Observation", "contained": [_PATIENT]},
        _NAMED | {"contained": [_PATIENT, {"resourceType": "Device", "id": "d"}]},
        _NAMED | {"contained": [_PATIENT | {"managingOrganization": {"reference": "#"}}]},
        {
            "resourceType": "Observation",
            "contained": [_PATIENT | {"generalPractitioner": [{"reference": "#"}]}],
        },
        {"resourceType": "Observation", "instantiatesUri": "#p", "contained": [_PATIENT]},
        {"resourceType": "Observation", "contained": [{"resourceType": "Patient"}]},
        {"resourceType": "Observation", "contained": {"resourceType": "Patient"}},
    ],
)
def test_what_is_contained_is_referred_to_as_its_fhirpath_says(resource: dict[str, Any]) -> None:
    rule = _dom_3()
    check = invariant(rule, "canonical", slow_path.truth)
    node, env = fhirpath.parse(rule.expression), Env(resource, resource)
    holds = closures.truth(node, r4.choices())([resource], env)
    assert (check(resource, scope(resource)) is None) is (holds is not False)


def test_of_many_contained_resources_each_is_not_compared_with_every_other() -> None:
    rule = _dom_3()
    check = invariant(rule, "canonical", slow_path.truth)

    def calls(number: int) -> int:
        held = [{"resourceType": "Device", "id": f"d{one}"} for one in range(number)]
        named = [{"reference": f"#d{one}"} for one in range(number)]
        resource = {"resourceType": "Observation", "focus": named, "contained": held}
        profile = cProfile.Profile()
        profile.enable()
        assert check(resource, scope(resource)) is None
        profile.disable()
        return sum(one.callcount for one in profile.getstats())

    assert calls(200) < 3 * calls(100)


def _items(resource: Mapping[str, Any], path: str) -> Iterator[Any]:
    items: list[Any] = [resource]
    for step in path.split(".") if path else ():
        ahead: list[Any] = []
        for item in items:
            value = item.get(step.removesuffix("[x]")) if isinstance(item, dict) else None
            ahead += value if isinstance(value, list) else [] if value is None else [value]
        items = ahead
    yield from items
