"""The gate for all that brokers composed: what stands against a run, and that nothing slips by."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from broker import registry
from broker.events import REFERRAL_SUBMITTED, UPDATE_SUBMITTED
from fhir_profiles import codes
from tests import composed, made
from tests.composed import Composed, Left
from tests.integration.test_reference_validator import BAD
from tests.reference import gate
from tests.reference.validator import Issue

CONTENT = made.contents()["pharmacy-shingles-update"]
MADE = Composed(CONTENT, "content", UPDATE_SUBMITTED, "", "here")
SENT = Composed(made.addressed()[gate.published.MESSAGE], "sent", REFERRAL_SUBMITTED, "inbox", "s")
TOWARDS_BARS = replace(SENT, channel="bars")
STATUS = Issue(
    "Patient.identifier[0].extension[0]",
    "Terminology_TX_NoValid_1_CC",
    "None of the codings provided are in the value set 'UK Core NHS Number Verification Status' "
    f"(codes = {gate.RETIRED_STATUS}number-present-and-verified)",
)
REFUSED = {name: [Issue("", "", why)] for name, (_, _, why) in BAD.items()}


def against(one: Composed, *issues: Issue, is_official: bool = True) -> list[str]:
    return gate.problems({"x": one}, {"x": issues, **REFUSED}, is_official=is_official)


def test_what_nothing_is_wrong_with_passes() -> None:
    assert against(MADE) == against(SENT) == []
    assert composed.errors(MADE) == composed.errors(SENT) == []


def test_one_error_stands_against_the_run() -> None:
    (said,) = against(MADE, Issue("Patient.name", "rule", "It is wrong."))
    assert "Patient.name: It is wrong." in said


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_that_is_let_pass_stands_against_the_run(name: str) -> None:
    found = gate.problems({}, {**REFUSED, name: []}, is_official=True)
    assert found == [f"The reference validator let a bad file pass: {name}."]


def test_retired_codes_of_tracing_are_let_pass_towards_bars_and_nowhere_else() -> None:
    assert against(TOWARDS_BARS, STATUS) == []
    for one in (SENT, MADE):
        assert len(against(one, STATUS)) == 1
    other = Issue("Patient.identifier[0]", "rule", "Another error.")
    assert len(against(TOWARDS_BARS, STATUS, other)) == 1


def test_leave_that_nothing_needs_stands_against_the_run() -> None:
    assert len(against(TOWARDS_BARS)) == 1
    assert against(TOWARDS_BARS, is_official=False) == []  # ours knows both vocabularies


def test_a_run_that_sent_nothing_of_some_kind_does_not_pass() -> None:
    kinds = {kind for one in registry.load().consumers.values() for kind in one.types}
    every = [replace(SENT, event=kind) for kind in kinds]
    assert gate.not_seen(Left(every)) == []
    assert len(gate.not_seen(Left([]))) == len(kinds)
    assert gate.not_seen(Left(every[1:])) == [f"Nothing was sent of any {every[0].event}."]
    assert len(gate.not_seen(Left([replace(one, role="content") for one in every]))) == len(kinds)


def test_a_run_of_which_too_much_cannot_be_read_does_not_pass() -> None:
    kinds = [kind for one in registry.load().consumers.values() for kind in one.types]
    sent = [replace(SENT, event=kind) for kind in kinds] * 50
    assert gate.not_seen(Left(sent, ["x"])) == []
    assert gate.not_seen(Left(sent[:50], ["x", "y"])) != []


def test_each_is_judged_by_the_profile_that_it_is_to_follow() -> None:
    for one, name in ((MADE, "update-content"), (SENT, "message")):
        judged = json.loads(gate.claiming(one, is_official=True))
        assert judged.pop("meta")["profile"] == [f"{codes.BASE}StructureDefinition/{name}"]
        assert judged == json.loads(one.body)
    own = json.loads(gate.claiming(MADE, is_official=False))
    patient = next(
        e["resource"] for e in own["entry"] if e["resource"]["resourceType"] == "Patient"
    )
    assert patient["meta"]["profile"] == [f"{codes.BASE}StructureDefinition/Patient"]
    assert composed.errors(replace(MADE, event=REFERRAL_SUBMITTED)) != []  # of another profile


# -- one of each shape ---------------------------------------------------------------------------


def changed(change: Callable[[dict[str, Any]], None]) -> Composed:
    bundle = json.loads(CONTENT)
    change(bundle)
    return replace(MADE, body=json.dumps(bundle).encode())


def of(kind: str, bundle: dict[str, Any]) -> dict[str, Any]:
    found = (entry["resource"] for entry in bundle["entry"])
    return next(one for one in found if one["resourceType"] == kind)


def test_other_ids_times_and_words_make_no_other_shape() -> None:
    def differ(bundle: dict[str, Any]) -> None:
        of("Patient", bundle)["birthDate"] = "1950-01-01"
        of("Patient", bundle)["name"][0]["family"] = "Another"
        of("Communication", bundle)["sent"] = "2026-11-22T10:00:00Z"

    ids = CONTENT.replace(b"urn:uuid:", b"urn:uuid:0").replace(b'"id":"', b'"id":"0')
    others = [changed(differ), replace(MADE, body=ids)]
    assert composed.distinct([MADE, *others]) == [MADE]


@pytest.mark.parametrize(
    "change",
    [
        lambda bundle: bundle["entry"].append(bundle["entry"][-1]),
        lambda bundle: of("Patient", bundle).pop("birthDate"),
        lambda bundle: of("Patient", bundle).update(gender="unknown"),
        lambda bundle: of("Patient", bundle)["identifier"][0].update(system="https://x.example"),
        lambda bundle: of("Communication", bundle)["sender"].update(
            reference="urn:uuid:0199a000-0000-4000-8000-00000000000f"
        ),
    ],
    ids=["an entry more", "an element less", "a code", "a system", "a reference"],
)
def test_another_element_code_or_reference_makes_another_shape(
    change: Callable[[dict[str, Any]], None],
) -> None:
    assert len(composed.distinct([MADE, changed(change)])) == 2


def test_the_same_bytes_by_another_profile_are_judged_too() -> None:
    assert len(composed.distinct([SENT, TOWARDS_BARS])) == 2


# -- answers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "kept"),
    [
        ("POST", "$process-message", 200, True),
        ("POST", "ServiceRequest", 422, True),
        ("GET", "Nothing", 404, True),
        ("GET", "ServiceRequest", 200, False),
        ("POST", "ServiceRequest", 201, False),
        ("POST", "ServiceRequest/_search", 200, False),
    ],
)
async def test_an_answer_is_kept_unless_it_is_what_was_asked_for(
    tmp_path: Path, method: str, path: str, status: int, kept: bool
) -> None:
    issue = {"severity": "error", "code": "not-found"}
    body = json.dumps({"resourceType": "OperationOutcome", "issue": [issue]}).encode()
    answer = httpx2.Response(
        status,
        content=body,
        headers={"content-type": "application/fhir+json; fhirVersion=4.0"},
        request=httpx2.Request(method, f"http://broker.test/FHIR/R4/{path}"),
    )
    await composed.keep(tmp_path, answer)
    found = [(one.body, one.profile) for one in composed.left_in(tmp_path).composed]
    assert found == ([(body, "OperationOutcome")] if kept else [])


async def test_an_answer_that_is_no_fhir_is_not_kept(tmp_path: Path) -> None:
    request = httpx2.Request("POST", "http://broker.test/")
    await composed.keep(tmp_path, httpx2.Response(200, json={}, request=request))
    assert composed.left_in(tmp_path).composed == []
