"""Our definitions: whole, unambiguous, compiled without loss, and kept by everything we make."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fhir_profiles import codes, profiles
from fhir_profiles.compiler.library import Library, shared
from tests import made

FOLDER = Path(profiles.__file__).parent / "definitions"
FILES = {path.name: json.loads(path.read_bytes()) for path in sorted(FOLDER.glob("*.json"))}
OURS = profiles.own()
PROFILES = [one for one in OURS if one["resourceType"] == "StructureDefinition"]
DEFINED = [one for one in OURS if one["resourceType"] == "MessageDefinition"]
MESSAGES = [one for one in DEFINED if "base" not in one]
ROUTED = (
    *("Bundle", "MessageHeader", "ServiceRequest", "Communication", "Task", "Patient"),
    *("RelatedPerson", "Organization", "Practitioner", "PractitionerRole", "HealthcareService"),
    *("Location", "Device", "Encounter", "Condition", "Observation", "AllergyIntolerance"),
    *("Procedure", "MedicationDispense", "MedicationStatement", "Questionnaire"),
    *("QuestionnaireResponse", "DocumentReference", "Appointment", "Consent", "Flag"),
    *("CarePlan", "Provenance", "AuditEvent", "OperationOutcome"),
)
BUNDLES = {**made.contents(), **made.told(), **made.addressed(), **made.by_bars()}


def test_every_definition_says_what_it_is_and_whose_rules_it_shares() -> None:
    for one in OURS:
        assert one["url"].rpartition("/")[2] == one["id"] or not one["url"].startswith(codes.BASE)
        assert one["version"] and one["status"] == "active", one["url"]
        assert one.get("description") or one.get("mapping"), one["url"]


def test_no_two_definitions_have_one_url_or_stand_for_one_profile() -> None:
    urls = Counter(one["url"] for one in OURS)
    urls.update(canonical for one in PROFILES for canonical in shared(one))
    assert [url for url, number in urls.items() if number > 1] == []


def test_every_file_holds_a_definition_or_the_identifier_systems() -> None:
    without = [name for name, one in FILES.items() if "url" not in one]
    assert without == ["identifier-systems.json"]
    assert len(OURS) == len(FILES) - 1


def test_every_definition_compiles_with_nothing_left_out_and_nothing_that_is_slow() -> None:
    slow: list[str] = []

    def listed(expression: str) -> Callable[..., bool | None]:
        slow.append(expression)
        return lambda *_: True

    library = Library(listed)
    for one in OURS:
        library.add(one)
    library.compile()
    assert (list(library.left_out), slow) == ([], [])


def test_every_type_that_we_make_or_route_has_a_profile_of_ours_that_names_an_official_one() -> (
    None
):
    makes = {
        held["resourceType"]
        for content in BUNDLES.values()
        for held in (entry["resource"] for entry in json.loads(content)["entry"])
    }
    named = {one["type"] for one in PROFILES if shared(one)}
    assert {*makes, *ROUTED} - named == set()


def test_ours_alone_know_every_profile_and_extension_of_what_we_make() -> None:
    for name, content in BUNDLES.items():
        unknown = [
            one.text
            for one in profiles.ours().check(content)
            if one.code in {"not-found", "extension"}
        ]
        assert unknown == [], name


def test_there_is_one_message_definition_for_each_event_of_ours_and_no_other() -> None:
    events = Counter(one["eventCoding"]["code"] for one in MESSAGES)
    assert events == Counter(codes.system("message-event").displays.keys())
    for one in MESSAGES:
        assert one["eventCoding"]["system"] == codes.system("message-event").url


def test_a_message_definition_names_profiles_of_the_types_that_it_counts() -> None:
    types = {one["url"]: one["type"] for one in PROFILES}
    for one in DEFINED:
        for focus in one["focus"]:
            assert types[focus["profile"]] == focus["code"], one["url"]


def test_a_message_definition_that_restates_one_of_bars_names_it_and_no_two_the_same() -> None:
    named = [one["base"] for one in DEFINED if "base" in one]
    assert len(set(named)) == len(named) == 9
    for base in named:
        assert base.startswith("https://fhir.nhs.uk/MessageDefinition/bars-message-")


# -- what we make --------------------------------------------------------------------------------


def test_each_bundle_that_we_make_is_as_its_profile_says() -> None:
    for name, content in {**made.contents(), **made.told()}.items():
        assert made.errors(content, made.profile_of(name)) == [], name
    for name, sent in made.addressed().items():
        assert made.errors(sent, "message") == [], name


def test_each_message_holds_as_many_resources_of_each_type_as_its_definition_says() -> None:
    definitions = {one["eventCoding"]["code"]: one["focus"] for one in MESSAGES}
    sent = set()
    for name, message in made.addressed().items():
        held = [entry["resource"] for entry in json.loads(message)["entry"]]
        event = held[0]["eventCoding"]["code"]
        sent.add(event)
        number = Counter(one["resourceType"] for one in held)
        known = {focus["code"]: focus for focus in definitions[event]}
        assert number.keys() <= known.keys(), name
        for kind, focus in known.items():
            most = len(held) if focus["max"] == "*" else int(focus["max"])
            assert focus["min"] <= number[kind] <= most, (name, kind)
    assert sent == definitions.keys()


def spoilt(name: str, kind: str, change: Callable[[dict[str, Any]], object]) -> list[str]:
    """Where a Bundle of ours breaks its profile once its first resource of a type is changed."""
    content, profile = (
        (made.addressed()[name], "message")
        if name in made.addressed()
        else ({**made.contents(), **made.told()}[name], made.profile_of(name))
    )
    bundle = json.loads(content)
    held = (entry["resource"] for entry in bundle["entry"])
    change(bundle if kind == "Bundle" else next(one for one in held if one["resourceType"] == kind))
    found = made.errors(json.dumps(bundle).encode(), profile)
    return [f"{one.path.rpartition('resource.')[2]} {one.rule.rpartition('/')[2]}" for one in found]


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda held: held.pop(name)


def not_summed_up(communication: dict[str, Any]) -> None:
    for payload in communication["payload"]:
        if payload["extension"][0]["valueCoding"]["code"] == "clinical-summary":
            payload["extension"][0]["valueCoding"] = {"code": "history"}


UPDATE = "pharmacy-shingles-update"
REFERRAL = "optometry-cataract-referral"
MESSAGE = f"referral.request.submitted.v1-acting-{REFERRAL}"
BROKEN: Mapping[str, tuple[str, str, Callable[[dict[str, Any]], object], str]] = {
    "an update from nobody": (UPDATE, "Communication", without("sender"), "sender update"),
    "an update about nobody": (UPDATE, "Communication", without("subject"), "subject update"),
    "an update to nobody": (UPDATE, "Communication", without("recipient"), "recipient update"),
    "an update that says nothing": (UPDATE, "Communication", without("payload"), "payload update"),
    "words under no heading": (
        UPDATE,
        "Communication",
        lambda held: held["payload"][0].pop("extension"),
        "payload[0].extension update",
    ),
    "a consultation that is not summed up": (
        UPDATE,
        "Communication",
        not_summed_up,
        "Bundle.entry[10].resource update#update-1",
    ),
    "an update of no patient": (
        UPDATE,
        "Bundle",
        lambda bundle: bundle["entry"].pop(3),
        "Bundle.entry update-content",
    ),
    "a resource that says not what it is": (
        UPDATE,
        "Observation",
        without("meta"),
        "Bundle update-content#made-1",
    ),
    "a referral from nobody": (
        REFERRAL,
        "ServiceRequest",
        without("requester"),
        "requester referral",
    ),
    "a referral that is a plan": (
        REFERRAL,
        "ServiceRequest",
        lambda held: held.update(intent="plan"),
        "intent referral",
    ),
    "a notice of no topic": (
        "notice-update-filed-Communication",
        "Communication",
        without("topic"),
        "topic notice",
    ),
    "a move to no state": (
        "move-accepted",
        "Task",
        without("businessStatus"),
        "businessStatus move",
    ),
    "a message about nothing": (MESSAGE, "MessageHeader", without("focus"), "focus header"),
    "a message to nobody": (MESSAGE, "MessageHeader", without("destination"), "destination header"),
    "a message of no time": (MESSAGE, "Bundle", without("timestamp"), "Bundle.timestamp message"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_we_must_never_make_is_refused_by_its_profile(name: str) -> None:
    bundle, kind, change, wanted = BROKEN[name]
    assert wanted in spoilt(bundle, kind, change)
