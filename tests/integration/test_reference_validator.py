"""What we make and what we define, judged by the reference validator of FHIR: it finds no fault.

A Bundle of ours names no profile of ours when it is sent, so the copy that is judged does. Each is
judged twice: with every official claim replaced by the definition of ours that stands for it, and,
where the definitions of UK Core and BaRS are at hand, as it is.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from broker.events import REFERRAL_SUBMITTED
from fhir_profiles import authored, codes, profiles, strict_json
from fhir_profiles.compiler.library import shared
from tests import made
from tests.reference import validator

pytestmark = pytest.mark.slow

MISSING = [folder for folder in validator.OFFICIAL if not folder.is_dir()]
OURS = f"{codes.BASE}StructureDefinition/"
STANDS_FOR = {
    f'"{canonical}"'.encode(): f'"{definition["url"]}"'.encode()
    for definition in profiles.own()
    for canonical in shared(definition)
}


def definitions() -> dict[str, bytes]:
    """Every file of ours that defines something."""
    held = authored.definitions().items()
    return {f"{name}.json": strict_json.dumps(one) for name, one in held}


def bundles() -> dict[str, bytes]:
    """Every Bundle that we make, each with the profile that it is to follow."""
    found = {**made.contents(), **made.told()}
    named = {name: claiming(content, made.profile_of(name)) for name, content in found.items()}
    sent = {name: claiming(one, "message") for name, one in made.addressed().items()}
    return named | sent | made.by_bars()


def claiming(bundle: bytes, profile: str) -> bytes:
    claim = f',"meta":{{"profile":["{OURS}{profile}"]}},"type":'.encode()
    return bundle.replace(b',"type":', claim, 1)


def by_ours_alone(content: bytes) -> bytes:
    for official, ours in STANDS_FOR.items():
        content = content.replace(official, ours)
    return content


# -- what is bad: twenty files with one fault each -------------------------------------------------

UPDATE = "pharmacy-shingles-update"
REFERRAL = "optometry-cataract-referral"
MESSAGE = f"{REFERRAL_SUBMITTED}-acting-{REFERRAL}"
MOVE = "move-accepted"

Fault = Callable[[dict[str, Any]], None]


def of(kind: str, change: Fault) -> Fault:
    """A fault of the first resource of a type."""

    def spoil(bundle: dict[str, Any]) -> None:
        held = (entry["resource"] for entry in bundle["entry"])
        change(next(one for one in held if one["resourceType"] == kind))

    return spoil


def without(name: str) -> Fault:
    return lambda held: held.pop(name)


def having(**elements: Any) -> Fault:
    return lambda held: held.update(elements)


def twice(name: str) -> Fault:
    return lambda held: held[name].append(held[name][0])


def element(identity: str, **elements: Any) -> Fault:
    """A fault of an element of a definition."""

    def spoil(definition: dict[str, Any]) -> None:
        found = (one for one in definition["differential"]["element"] if one["id"] == identity)
        next(found).update(elements)

    return spoil


def untraced(patient: dict[str, Any]) -> None:
    status = patient["identifier"][0]["extension"][0]["valueCodeableConcept"]
    status["coding"][0]["code"] = "99"


def unheaded(communication: dict[str, Any]) -> None:
    del communication["payload"][0]["extension"]


def not_summed_up(communication: dict[str, Any]) -> None:
    for payload in communication["payload"]:
        coding = payload["extension"][0]["valueCoding"]
        if coding["code"] == "clinical-summary":
            coding |= {"code": "history", "display": "History"}


def misspelt(communication: dict[str, Any]) -> None:
    communication["payload"][0]["extension"][0]["url"] = f"{OURS}headings"


def known_twice(bundle: dict[str, Any]) -> None:
    bundle["entry"].append(bundle["entry"][-1])


def unclaimed(patient: dict[str, Any]) -> None:
    patient["meta"]["profile"] = [f"{OURS}Patients"]


NOBODY = {"reference": "urn:uuid:0199a000-0000-4000-8000-00000000000f"}
BAD: dict[str, tuple[str, Fault, str]] = {
    "a status that FHIR does not have": (
        UPDATE,
        of("Observation", having(status="done")),
        "observation-status#done",
    ),
    "no subject where FHIR demands one": (
        REFERRAL,
        of("ServiceRequest", without("subject")),
        "ServiceRequest.subject: minimum",
    ),
    "an element that FHIR does not have": (UPDATE, of("Patient", having(surname="A")), "'surname'"),
    "a day that no month has": (UPDATE, of("Patient", having(birthDate="1984-02-30")), "birthDate"),
    "a reference into nowhere": (
        UPDATE,
        of("Encounter", having(subject=NOBODY)),
        "Bundle_BUNDLE_Not_Local",
    ),
    "an entry twice": (UPDATE, known_twice, "bdl-7"),
    "a profile that nobody defines": (
        UPDATE,
        of("Patient", unclaimed),
        "/Patients' has not been checked",
    ),
    "an extension that nobody defines": (
        UPDATE,
        of("Communication", misspelt),
        "/headings could not be found",
    ),
    "an extension of another type": (
        UPDATE,
        of("Patient", having(extension=[{"url": f"{OURS}EthnicCategory", "valueString": "A"}])),
        "but found type string",
    ),
    "an extension in another place": (
        UPDATE,
        of("Patient", having(extension=[{"url": f"{OURS}ContactRank", "valuePositiveInt": 1}])),
        "ContactRank is not allowed",
    ),
    "a tracing status that nobody has": (
        UPDATE,
        of("Patient", untraced),
        "ValueSet/nhs-number-verification-status",
    ),
    "two NHS numbers": (
        UPDATE,
        of("Patient", twice("identifier")),
        "Patient.identifier:nhsNumber: max",
    ),
    "two ODS codes": (UPDATE, of("Organization", twice("identifier")), "odsOrganisationCode: max"),
    "an allergy to nothing": (
        "pharmacy-uncomplicated-uti-update",
        of("AllergyIntolerance", without("code")),
        "AllergyIntolerance.code: minimum",
    ),
    "an update of nobody's": (
        UPDATE,
        of("Communication", without("sender")),
        "Communication.sender: minimum",
    ),
    "words under no heading": (UPDATE, of("Communication", unheaded), "payload.extension: minimum"),
    "a consultation that is not summed up": (
        UPDATE,
        of("Communication", not_summed_up),
        "update#update-1",
    ),
    "a move to no state": (
        MOVE,
        of("Task", without("businessStatus")),
        "Task.businessStatus: minimum",
    ),
    "a message about nothing": (
        MESSAGE,
        of("MessageHeader", without("focus")),
        "MessageHeader.focus: minimum",
    ),
    "a definition of what FHIR does not have": (
        "profile-patient.json",
        element("Patient.name", id="Patient.surname", path="Patient.surname"),
        "Patient.surname",
    ),
}


def bad() -> dict[str, bytes]:
    good = definitions() | {name: by_ours_alone(one) for name, one in bundles().items()}
    found = {}
    for name, (source, spoil, _) in BAD.items():
        spoilt = json.loads(good[source])
        spoil(spoilt)
        found[name] = json.dumps(spoilt).encode()
    return found


# -- the verdicts --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_ours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[validator.Issue]]:
    """The verdict of the reference validator on each file, by our definitions and FHIR's alone."""
    good = {name: by_ours_alone(one) for name, one in bundles().items()}
    files = definitions() | good | bad()
    return validator.judge(files, tmp_path_factory.mktemp("judged"))


def test_every_resource_that_we_make_names_its_profile() -> None:
    for name, content in bundles().items():
        bundle = json.loads(content)
        for held in (bundle, *(entry["resource"] for entry in bundle["entry"])):
            assert held["meta"]["profile"], (name, held["resourceType"])


def test_the_reference_validator_finds_no_fault_by_our_definitions(
    by_ours: Mapping[str, list[validator.Issue]],
) -> None:
    assert faults({name: found for name, found in by_ours.items() if name not in BAD}) == {}


def test_the_reference_validator_refuses_what_is_bad_and_says_why(
    by_ours: Mapping[str, list[validator.Issue]],
) -> None:
    assert len(BAD) == 20
    for name, (_, _, why) in BAD.items():
        found = by_ours[name]
        assert any(why in f"{one.place} {one.rule} {one.text}" for one in found), (name, found)


@pytest.fixture(scope="module")
def by_official(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[validator.Issue]]:
    """The verdict on each file by the definitions of UK Core and BaRS."""
    if MISSING:
        pytest.skip("the definitions of UK Core and BaRS are not at hand")
    folder = tmp_path_factory.mktemp("official")
    return validator.judge(definitions() | bundles(), folder, validator.OFFICIAL)


# BaRS demands the words of a list that UK Core, on which it is built, has since replaced.
TRACED = "https://fhir.hl7.org.uk/ValueSet/UKCore-NHSNumberVerificationStatus"


def test_the_reference_validator_finds_no_fault_by_the_official_definitions(
    by_official: Mapping[str, list[validator.Issue]],
) -> None:
    left = {
        name: [one for one in found if not (name in made.by_bars() and TRACED in one.text)]
        for name, found in by_official.items()
    }
    assert faults(left) == {}


def test_the_one_fault_that_is_let_pass_towards_bars_is_still_one(
    by_official: Mapping[str, list[validator.Issue]],
) -> None:
    traced = {
        name
        for name, message in made.by_bars().items()
        if b"NHSNumberVerificationStatus" in message
    }
    assert traced
    for name in traced:
        assert any(TRACED in one.text for one in by_official[name]), name


def faults(verdicts: Mapping[str, list[validator.Issue]]) -> dict[str, list[validator.Issue]]:
    return {name: issues for name, issues in verdicts.items() if issues}
