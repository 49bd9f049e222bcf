"""Which messages of BaRS a service takes, by service and use case."""

from importlib.resources import files
from typing import Any

import pytest

from broker import offering
from broker.directory import Directory
from broker.directory_file import parse
from broker.errors import BadRequest
from fhir_profiles import codes
from fhir_profiles.bars.codes import (
    GUIDE_USE_CASES,
    OWN_USE_CASES,
    REQUEST,
    RESPONSE,
    USE_CASES,
)
from fhir_profiles.bars.incoming import EVENTS

BARS: dict[str, Any] = {
    "url": "one",
    "version": "9",
    "base": f"{REQUEST}|1.0.0-beta",
    "eventCoding": {"system": EVENTS, "code": "servicerequest-request"},
}
ANSWER = BARS | {
    "base": f"{RESPONSE}|1.0.0",
    "eventCoding": {"system": EVENTS, "code": "servicerequest-response"},
}
VALIDATION = BARS | {"base": REQUEST.replace("referral", "validation")}
OURS: dict[str, Any] = {"url": "two", "eventCoding": {"system": "https://other.example"}}
CASE = f"{USE_CASES}|a5t1"
SPA = f"{codes.SERVICE_ID}|RXX01-SPA"


@pytest.fixture(scope="module")
def directory() -> Directory:
    return parse((files("sandbox") / "directory.yaml").read_text(encoding="utf-8"))


def taken(directory: Directory, *contexts: str) -> list[dict[str, Any]]:
    return offering.taken(offering.read(contexts), [BARS, ANSWER, VALIDATION, OURS], directory)


def test_a_service_takes_the_messages_of_bars_and_each_says_so(directory: Directory) -> None:
    found, answer = taken(directory, SPA, f"{USE_CASES}|A5T1")
    # Under the name that BaRS has for it.
    assert (found["url"], found["version"]) == (REQUEST, "1.0.0-beta")
    assert answer["url"] == RESPONSE and "base" not in found
    said = [one["valueCodeableConcept"]["coding"][0] for one in found["useContext"]]
    assert said == [
        {"system": codes.SERVICE_ID, "code": "RXX01-SPA"},
        {"system": USE_CASES, "code": "a5t1"},
    ]
    assert {one["code"]["code"] for one in found["useContext"]} == {"workflow"}
    assert not any("useContext" in one for one in (BARS, ANSWER))


@pytest.mark.parametrize(
    "asked",
    [f"{OWN_USE_CASES.url}|optometry-to-eye-care", f"{GUIDE_USE_CASES}|a5t1", f"{USE_CASES}|a5t1"],
)
def test_a_definition_names_the_use_case_by_the_system_that_was_asked_for(
    directory: Directory, asked: str
) -> None:
    found, _ = taken(directory, SPA, asked)
    (named,) = found["useContext"][1]["valueCodeableConcept"]["coding"]
    assert f"{named['system']}|{named['code']}" == asked


def test_systems_are_known_in_any_spelling(directory: Directory) -> None:
    guide = CASE.replace("usecases", "usecase").replace("https", "http")
    assert taken(directory, SPA.replace("https", "http"), guide)


@pytest.mark.parametrize(
    ("service", "case"),
    [
        (f"{codes.SERVICE_ID}|NOBODY", "a5t1"),
        (f"{codes.ODS}|G99005", "a5t1"),  # not connected
        (f"{codes.ODS}|G99003", "a5t1"),  # takes no referrals
        (f"{codes.ODS}|G99004", "a5t1"),  # closed
    ],
)
def test_who_does_not_take_it_has_no_definition_for_it(
    directory: Directory, service: str, case: str
) -> None:
    assert taken(directory, service, f"{USE_CASES}|{case}") == []


@pytest.mark.parametrize(
    ("service", "case"),
    [
        (f"{codes.DOS}|2000099901", "a8t1"),  # connected for a5t1 only
        (f"{codes.ODS}|TPX01", "a5t1"),  # takes notices
    ],
)
def test_who_takes_no_referral_but_notices_is_only_answered(
    directory: Directory, service: str, case: str
) -> None:
    found = taken(directory, service, f"{USE_CASES}|{case}")
    assert [one["url"] for one in found] == [RESPONSE]


@pytest.mark.parametrize(
    ("contexts", "kind"),
    [
        ((SPA,), "required"),
        ((CASE,), "required"),
        ((SPA, SPA, CASE), "value"),
        ((SPA, CASE, CASE), "value"),
        ((SPA, "a5t1"), "value"),
        ((SPA, "https://nowhere.example|a5t1"), "value"),
        ((SPA, f"{USE_CASES}|"), "value"),
    ],
)
def test_a_context_that_is_missing_or_malformed_is_named(
    contexts: tuple[str, ...], kind: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        offering.read(contexts)
    assert [(one.field, one.code) for one in caught.value.problems] == [("http.context", kind)]
