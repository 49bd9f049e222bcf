"""What goes out as BaRS: referrals, their end, and word to their senders, and what is carried."""

import json
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from fhir_profiles import codes, verification_status
from fhir_profiles.bars import answer, definitions
from fhir_profiles.bars.codes import CANCELLED, REQUEST, RESPONSE, use_case
from fhir_profiles.bars.outgoing import held
from fhir_profiles.bundle import given_id
from fhir_profiles.pathways.pharmacy import pharmacy
from tests import made
from tests.published import DATA, needed

CANCEL = made.told()["move-cancelled"]
REFERRALS = sorted(name for name in made.contents() if made.profile_of(name) == "referral-content")
EYE = made.contents()["optometry-cataract-referral"]
OURS, BARS = (
    "https://fhir.hl7.org.uk/CodeSystem/UKCore-NHSNumberVerificationStatus" + end
    for end in ("England", "")
)
Read = dict[str, Any]


def of(message: bytes, kind: str) -> list[Read]:
    return [dict(one.resource) for one in held(message) if one.type == kind]


def only(message: bytes, kind: str) -> Read:
    (found,) = of(message, kind)
    return found


def header(message: bytes) -> Read:
    first = json.loads(message)["entry"][0]["resource"]
    assert first["resourceType"] == "MessageHeader"
    return dict(first)


def target(message: bytes, reference: Mapping[str, str]) -> Read:
    """What a reference leads to in its Bundle."""
    (found,) = [one for one in held(message) if one.full_url == reference["reference"]]
    return dict(found.resource)


# -- every message -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", made.by_bars())
def test_every_message_is_as_its_profiles_and_its_definition_say(name: str) -> None:
    message = made.by_bars()[name]
    assert made.errors(message) == []
    definition = {"request": REQUEST, "cancellation": CANCELLED, "response": RESPONSE}
    said = header(message)["definition"]
    assert said == definition[name.split("-")[1]]
    assert definitions.counts(said, message) == []


@pytest.mark.parametrize("name", made.by_bars())
def test_every_message_says_its_version_and_of_everything_when_it_changed(name: str) -> None:
    message = json.loads(made.by_bars()[name])
    assert message["id"] == made.DELIVERY and message["type"] == "message"
    assert message["meta"]["versionId"] == "1.0.0"
    assert message["meta"]["lastUpdated"] == message["timestamp"]
    assert all(one["resource"]["meta"]["lastUpdated"] for one in message["entry"])
    urls = Counter(one["fullUrl"] for one in message["entry"])
    assert set(urls.values()) == {1}


@pytest.mark.parametrize("name", REFERRALS)
def test_a_new_message_is_of_one_time(name: str) -> None:
    message = json.loads(made.by_bars()[f"bars-request-{name}"])
    times = {one["resource"]["meta"]["lastUpdated"] for one in message["entry"]}
    assert times == {message["meta"]["lastUpdated"]}


def test_a_later_message_stamps_what_has_changed_and_nothing_else() -> None:
    before = {one.full_url: one.resource for one in held(made.bars_request(EYE))}
    for message in (made.bars_notice(CANCEL, EYE, to=made.HOSPITAL), told("move-accepted")):
        changed = set()
        for one in held(message):
            was = before.get(one.full_url, {})
            if one.resource != was:
                changed.add(one.type)
                assert one.resource["meta"]["lastUpdated"] == made.LATER.isoformat()
        assert changed - {"Encounter"} == {"MessageHeader", "ServiceRequest"}


def test_the_same_delivery_gives_the_same_bytes() -> None:
    assert made.by_bars.__wrapped__() == made.by_bars()


def test_no_message_writes_a_dos_service_in_the_other_spelling() -> None:
    assert not any(b"http://fhir.nhs.uk/Id/dos" in one for one in made.by_bars().values())


# -- a referral ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REFERRALS)
def test_what_is_carried_keeps_its_bytes_but_for_the_time_that_bars_demands(name: str) -> None:
    content = made.contents()[name]
    stamp = f',"lastUpdated":"{made.NOW.isoformat()}"'.encode()
    sent = {one.full_url: one.raw for one in held(made.bars_request(content))}
    written_anew = {"ServiceRequest", "Patient", "Encounter"}
    carried = [one for one in held(content) if one.type not in written_anew]
    assert len(carried) > 5
    for one in carried:
        assert sent[one.full_url].count(stamp) == 1
        assert sent[one.full_url].replace(stamp, b"") == one.raw
    assert {one.full_url for one in held(content)} <= sent.keys()


def test_digits_are_kept_of_what_is_carried_and_of_what_is_written_anew() -> None:
    content = EYE
    for kind, said in (
        ("Observation", b'"valueQuantity":{ "value" : 1.50 }'),
        ("ServiceRequest", b'"quantityQuantity":{"value":37.40}'),
    ):
        raw = next(one.raw for one in held(EYE) if one.type == kind)
        content = content.replace(raw, raw.replace(b'"status":', said + b',"status":', 1))
    message = made.bars_request(content)
    assert b'{ "value" : 1.50 }' in message and b'{"value":37.40}' in message


@pytest.mark.parametrize("name", REFERRALS)
def test_a_referral_becomes_one_that_bars_takes_and_keeps_all_that_is_clinical(name: str) -> None:
    was = only(made.contents()[name], "ServiceRequest")
    message = made.bars_request(made.contents()[name])
    now = only(message, "ServiceRequest")
    changed = {
        *("meta", "basedOn", "intent", "category", "encounter", "occurrencePeriod", "performer"),
        "requester",
    }
    assert {key: now[key] for key in was.keys() - changed} == {
        key: was[key] for key in was.keys() - changed
    }
    assert (now["status"], now["intent"]) == ("active", "plan")
    (category,) = now["category"]
    bars, ours = category["coding"]
    assert (bars["code"], bars["display"]) == ("referral", "Transfer of Care")
    assert ours["system"] == codes.system("use-case").url
    assert "usecases-categories-bars" not in message.decode()
    assert now["occurrencePeriod"]["start"]
    assert target(message, now["basedOn"][-1])["resourceType"] == "CarePlan"
    assert target(message, now["performer"][0])["name"] == "Eye clinic"
    asks = target(message, now["requester"])
    assert asks["resourceType"] == "Practitioner"
    role = target(message, was["requester"])
    assert target(message, role["practitioner"]) == asks


def test_the_header_names_both_ends_as_the_directory_does_and_where_to_reply() -> None:
    message = made.bars_request(EYE)
    first = header(message)
    assert first["eventCoding"]["code"] == "servicerequest-request"
    assert first["reason"]["coding"][0]["code"] == "new"
    (destination,) = first["destination"]
    assert destination["endpoint"] == "https://fhir.nhs.uk/Id/dos-service-id|2000099999"
    receiver = target(message, destination["receiver"])
    assert receiver["identifier"][0]["value"] == "RXX01"
    assert target(message, first["sender"])["identifier"][0]["value"] == "FPH01"
    assert first["source"]["endpoint"] == f"{codes.ODS}|FPH01"
    assert first["source"]["contact"]["value"] == "0113 496 0101"
    assert target(message, first["focus"][0])["resourceType"] == "ServiceRequest"
    assert "response" not in first


def test_the_care_plan_says_in_words_what_is_asked_and_points_to_its_window() -> None:
    content = made.contents()["pharmacy-blood-pressure-check-referral"]
    message = made.bars_request(content)
    plan, asked = only(message, "CarePlan"), only(content, "ServiceRequest")
    assert (plan["status"], plan["intent"]) == ("completed", "plan")
    (activity,) = plan["activity"]
    text = activity["outcomeCodeableConcept"][0]["text"]
    assert asked["code"]["text"] in text and f"Priority: {asked['priority']}." in text
    assert all(note["text"] in text for note in asked["note"])
    task = target(message, activity["reference"])
    assert (task["status"], task["intent"]) == ("requested", "order")
    assert task["restriction"]["period"] == asked["occurrencePeriod"]


def test_without_an_end_of_its_window_there_is_no_task() -> None:
    assert "end" not in only(EYE, "ServiceRequest").get("occurrencePeriod", {})
    message = made.bars_request(EYE)
    assert of(message, "Task") == []
    assert "reference" not in only(message, "CarePlan")["activity"][0]


@pytest.mark.parametrize("name", REFERRALS)
def test_the_senders_encounter_has_a_number_to_read_out_and_the_journey(name: str) -> None:
    content = made.contents()[name]
    met = only(made.bars_request(content), "Encounter")
    asked = only(content, "ServiceRequest")
    assert met["identifier"][0]["value"] == asked["identifier"][1]["value"]
    assert met["status"] == "finished" and met["class"]["code"] and met["period"]["start"]
    (journey,) = met["episodeOfCare"]
    # Pinned: an onward referral of the same correlation bears the same one for ever.
    assert journey == {"reference": "EpisodeOfCare/fb5c4fb7-2510-5ecb-8470-440e1335d636"}


def test_an_encounter_that_there_is_keeps_what_it_says() -> None:
    content = made.contents()["pharmacy-blood-pressure-check-referral"]
    was, now = only(content, "Encounter"), only(made.bars_request(content), "Encounter")
    assert {key: now[key] for key in was if key != "meta"} == {
        key: it for key, it in was.items() if key != "meta"
    }


@pytest.mark.parametrize("name", REFERRALS)
def test_the_patient_has_one_contact_of_the_first_rank_and_a_status_of_bars(name: str) -> None:
    was = only(made.contents()[name], "Patient")
    now = only(made.bars_request(made.contents()[name]), "Patient")
    ranks = [one["extension"][0]["valuePositiveInt"] for one in now["contact"]]
    assert ranks == list(range(1, len(ranks) + 1))
    for contact in now["contact"]:
        assert [one["rank"] for one in contact.get("telecom", ())] in ([], [1])
    for identifier in now.get("identifier", ()):
        for extension in identifier.get("extension", ()):
            (coding,) = extension["valueCodeableConcept"]["coding"]
            assert coding["system"] == BARS
    assert was["name"] == now["name"] and was.get("birthDate") == now.get("birthDate")


def test_who_speaks_for_the_patient_is_reached_first() -> None:
    content = json.loads(EYE)
    patient = next(one for one in content["entry"] if one["resource"]["resourceType"] == "Patient")
    guardian = {
        "resourceType": "RelatedPerson",
        "id": "0199a000-0000-4000-8000-00000000000a",
        "meta": {"profile": ["https://fhir.hl7.org.uk/StructureDefinition/UKCore-RelatedPerson"]},
        "patient": {"reference": patient["fullUrl"]},
        "relationship": [{"text": "mother"}],
        "name": [{"family": "Okafor"}],
        "telecom": [{"system": "phone", "value": "0113 496 0003"}],
    }
    entry = {"fullUrl": f"urn:uuid:{guardian['id']}", "resource": guardian}
    content["entry"].append(entry)
    message = made.bars_request(json.dumps(content).encode())
    first, second = only(message, "Patient")["contact"]
    assert first["relationship"] == [{"text": "mother"}]
    assert first["telecom"][0] == {"system": "phone", "value": "0113 496 0003", "rank": 1}
    assert second["relationship"][0]["coding"][0]["code"] == "ONESELF"
    del guardian["telecom"]
    message = made.bars_request(json.dumps(content).encode())
    assert only(message, "Patient")["contact"][1]["relationship"] == [{"text": "mother"}]


def test_consent_is_for_direct_care_and_implied() -> None:
    consent = only(made.bars_request(EYE), "Consent")
    assert consent["status"] == "active"
    assert consent["scope"]["coding"][0]["code"] == "patient-privacy"
    assert consent["category"][0]["coding"][0]["code"] == "DRC"
    assert consent["policyRule"]["coding"][0]["code"] == "IMPLIED"


def test_the_service_is_known_by_its_dos_id_and_provided_by_its_organisation() -> None:
    message = made.bars_request(EYE)
    service = only(message, "HealthcareService")
    assert service["identifier"] == [
        {"system": "https://fhir.nhs.uk/Id/dos-service-id", "value": "2000099999"}
    ]
    assert service["active"] is True and service["name"] == "Eye clinic"
    assert target(message, service["providedBy"])["name"] == "Northfield Hospital"


# -- a referral that came by BaRS ----------------------------------------------------------------

# As a sender's own system made it: another Bundle, and another header.
CAME = (
    made.bars_request(EYE)
    .replace(made.DELIVERY.encode(), b"0199a000-0000-7000-8000-0000000000aa")
    .replace(header(made.bars_request(EYE))["id"].encode(), b"0199a000-0000-4000-8000-0000000000bb")
)


def test_to_the_very_place_that_its_sender_addressed_it_is_what_came() -> None:
    sent = made.bars_request(CAME, form="bars", addressed="RXX01/RXX01-EYE")
    assert sent == CAME


def test_to_another_place_it_is_a_new_message_around_the_same_bytes() -> None:
    sent = made.bars_request(CAME, made.ELSEWHERE, form="bars", addressed="RXX01/RXX01-EYE")
    was, now = held(CAME), held(sent)
    assert json.loads(sent)["id"] == made.DELIVERY
    assert [one.raw for one in now[1 : len(was)]] == [one.raw for one in was[1:]]
    assert [one.type for one in now[len(was) :]] == ["Organization", "HealthcareService"]
    first = header(sent)
    assert first["id"] != header(CAME)["id"]
    (destination,) = first["destination"]
    assert destination["endpoint"] == "https://fhir.nhs.uk/Id/dos-service-id|2000088888"
    assert target(sent, destination["receiver"])["name"] == "Southfield Hospital"
    assert made.errors(sent) == [] and definitions.counts(REQUEST, sent) == []


def test_it_keeps_the_version_of_the_rules_that_it_was_made_by_and_its_tool() -> None:
    tool = {
        "url": "https://fhir.nhs.uk/StructureDefinition/CDSSExtension",
        "extension": [{"url": "RequesterCDSSsoftware", "valueString": "Pathways"}],
    }
    came = json.loads(CAME)
    came["meta"]["versionId"] = "1.2.0"
    came["entry"][0]["resource"]["extension"] = [tool]
    sent = made.bars_request(json.dumps(came).encode(), made.ELSEWHERE, form="bars", addressed="-")
    assert json.loads(sent)["meta"]["versionId"] == "1.2.0"
    assert header(sent)["extension"] == [tool]


@needed
@pytest.mark.parametrize("stem", ["REFREQ01", "REFREQ03", "REFREQ06"])
def test_a_published_referral_is_told_on_cancelled_and_answered(stem: str) -> None:
    (path,) = (DATA / "bars" / "bars-pkg-1.37.0-examples-json").glob(f"{stem}_*.json")
    came = path.read_bytes()
    facts = {"form": "bars", "addressed": "RXX01/RXX01-EYE"}
    moved = made.told()["move-accepted"]
    made_of_it = {
        REQUEST: made.bars_request(came, made.ELSEWHERE, **facts),
        CANCELLED: made.bars_notice(CANCEL, came, to=made.HOSPITAL, **facts),
        RESPONSE: made.bars_notice(moved, came, **facts),
    }
    faults = {(one.code, one.text) for one in made.errors(came)}  # invented numbers and codes
    for definition, message in made_of_it.items():
        assert definitions.counts(definition, message) == []
        assert {(one.code, one.text) for one in made.errors(message)} <= faults
        assert json.loads(message)["meta"]["versionId"] == json.loads(came)["meta"]["versionId"]


def test_what_is_there_in_another_spelling_is_not_added() -> None:
    came = CAME.replace(codes.DOS.encode(), b"http://fhir.nhs.uk/Id/dos-service-id").replace(
        codes.ODS.encode(), b"https://fhir.nhs.uk/id/ods-organization-code"
    )
    sent = made.bars_request(came, form="bars", addressed="-")
    assert [one.raw for one in held(sent)[1:]] == [one.raw for one in held(came)[1:]]


# -- its end -------------------------------------------------------------------------------------


def test_a_cancellation_names_the_request_as_it_went_out_and_why_it_ends() -> None:
    went = {one.full_url: one.type for one in held(made.bars_request(EYE))}
    message = made.bars_notice(CANCEL, EYE, to=made.HOSPITAL)
    first, asked = header(message), only(message, "ServiceRequest")
    assert first["reason"]["coding"][0]["code"] == "update"
    assert first["eventCoding"]["code"] == "servicerequest-request"
    assert asked["status"] == "revoked"
    assert asked["reasonCode"] == [{"text": "Not needed any more.\nCome back if it gets worse."}]
    for one in held(message)[1:]:
        assert went[one.full_url] == one.type
    assert {one.type for one in held(message)} == {
        *("MessageHeader", "ServiceRequest", "Patient", "Organization")
    }


def test_the_id_that_the_receiver_gave_is_said_back_to_it() -> None:
    given = "5d0f5a4e-1111-4222-8333-444455556666"
    message = made.bars_notice(CANCEL, EYE, to=made.HOSPITAL, given_id=given)
    assert only(message, "ServiceRequest")["id"] == given


def test_what_came_by_bars_is_cancelled_under_the_urls_that_it_came_with() -> None:
    message = made.bars_notice(
        CANCEL, CAME, to=made.HOSPITAL, form="bars", addressed="RXX01/RXX01-EYE"
    )
    patient = next(one.raw for one in held(CAME) if one.type == "Patient")
    assert patient in message and definitions.counts(CANCELLED, message) == []


@pytest.mark.parametrize("state", ["requested", "accepted", "information-requested"])
def test_bars_has_no_message_that_tells_a_receiver_of_anything_but_its_end(state: str) -> None:
    message = made.bars_notice(made.told()[f"move-{state}"], EYE, to=made.HOSPITAL)
    assert header(message)["eventCoding"]["system"] == codes.system("message-event").url


def test_who_is_neither_end_of_a_referral_is_told_as_everybody_is() -> None:
    message = made.bars_notice(CANCEL, EYE, to=made.ELSEWHERE)
    assert header(message)["eventCoding"]["system"] == codes.system("message-event").url


# -- word to its sender --------------------------------------------------------------------------


def told(name: str, **facts: str) -> bytes:
    return made.bars_notice(made.told()[name], CAME if facts else EYE, **facts)


def receivers(message: bytes) -> Read:
    """The receiver's own encounter of a response: what it is about."""
    return target(message, header(message)["focus"][0])


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("requested", "planned"),
        ("received", "planned"),
        ("accepted", "in-progress"),
        ("rejected", "cancelled"),
        ("completed", "finished"),
        ("did-not-attend", "in-progress"),
        ("deceased", "cancelled"),
        ("expired", "cancelled"),
    ],
)
def test_the_receivers_encounter_tells_how_far_it_is(state: str, status: str) -> None:
    message = told(f"move-{state}")
    assert receivers(message)["status"] == status
    done = "completed" if state == "completed" else "active"
    assert only(message, "ServiceRequest")["status"] == done


def test_a_response_names_what_it_answers_and_comes_from_the_service_that_was_asked() -> None:
    first = header(told("move-accepted"))
    assert first["response"] == {"identifier": made.WENT_AS, "code": "ok"}
    assert first["eventCoding"]["code"] == "servicerequest-response"
    assert first["source"]["endpoint"] == made.HOSPITAL.endpoint
    assert first["destination"][0]["endpoint"] == made.REFERRER.endpoint


def test_what_came_by_bars_is_answered_under_its_own_id_with_its_senders_encounter() -> None:
    message = told("move-accepted", form="bars", addressed="RXX01/RXX01-EYE")
    assert header(message)["response"]["identifier"] == json.loads(CAME)["id"]
    encounter = next(one.raw for one in held(CAME) if one.type == "Encounter")
    assert encounter in message
    request = next(one.full_url for one in held(CAME) if one.type == "ServiceRequest")
    assert only(message, "ServiceRequest")["id"] == given_id(made.IDS["referral"], request)


def test_a_person_finds_the_case_by_the_reference_that_the_first_answer_gave() -> None:
    (identifier,) = receivers(told("move-accepted"))["identifier"]
    reference = answer.spoken(made.IDS["referral"])
    assert identifier == {"system": codes.CASE_REFERENCE, "value": reference}


def test_the_receivers_encounter_is_the_same_one_in_every_response() -> None:
    urls = {
        header(message)["focus"][0]["reference"]
        for name, message in made.by_bars().items()
        if name.startswith("bars-response") and name.endswith("optometry-cataract-referral")
    }
    assert urls == {answer.own_encounter(made.IDS["referral"])}


def test_a_rejection_says_why_in_bars_own_code_and_in_the_receivers_words() -> None:
    (reason,) = receivers(told("move-rejected"))["reasonCode"]
    assert reason["coding"][0]["code"] == "OTH"
    assert reason["text"] == "Not needed any more.\nCome back if it gets worse."


def test_a_receiver_without_room_is_told_as_bars_codes_it() -> None:
    full = made.told()["move-rejected"].replace(
        b"Not needed any more.", b"Cannot be seen here within the time needed"
    )
    (reason,) = receivers(made.bars_notice(full, EYE))["reasonCode"]
    assert reason["coding"][0]["code"] == "RRNA"
    assert reason["text"].startswith("Cannot be seen here")


def test_a_move_without_words_of_its_own_says_what_it_is() -> None:
    plain = json.loads(made.told()["move-did-not-attend"])
    for entry in plain["entry"]:
        entry["resource"].pop("statusReason", None)
    message = made.bars_notice(json.dumps(plain).encode(), EYE)
    (reason,) = receivers(message)["reasonCode"]
    assert reason["text"].startswith("Did not attend") and "coding" not in reason


def test_a_failure_is_told_to_a_sender_that_speaks_bars_in_words() -> None:
    own = receivers(told("notice-deadline-passed-ServiceRequest"))
    assert own["status"] == "planned"
    assert own["reasonCode"][0]["text"].startswith("Riverside Medical Practice has filed it.")


def test_a_notice_whose_referral_is_not_at_hand_is_told_as_everybody_is() -> None:
    message = made.bars_notice(CANCEL, None)
    assert header(message)["eventCoding"]["system"] == codes.system("message-event").url


# -- the codes -----------------------------------------------------------------------------------


def test_every_pathway_is_of_a_use_case_and_none_is_of_bars_own() -> None:
    found = {use_case(name) for name in pharmacy().consultations}
    assert found == {"pharmacy-to-general-practice"}
    assert use_case("cataract") == "optometry-to-eye-care"
    assert use_case("orthodontics") == "dentistry-to-dental-care"
    assert use_case("podiatry") == "referral"
    assert use_case("a pathway of tomorrow") == "referral"


def test_a_tracing_status_goes_to_bars_and_back() -> None:
    for code in codes.system("nhs-number-verification-status").displays:
        coding = {"system": OURS, "code": code, "userSelected": True}
        there = verification_status.to_bars(coding)
        assert there["system"] == BARS and there["code"] != code and there["userSelected"]
        back = verification_status.to_england(there)
        assert (back["system"], back["code"]) == (OURS, code)


def test_a_status_that_has_no_counterpart_stays_as_it_is() -> None:
    wales = {"system": BARS, "code": "number-present-and-traced-using-welsh-nhs-ar"}
    other = {"system": "http://terminology.hl7.org/CodeSystem/v3-NullFlavor", "code": "NI"}
    assert verification_status.to_england(wales) == wales
    assert verification_status.to_england(other) == other == verification_status.to_bars(other)


def test_counts_say_what_there_is_too_few_and_too_many_of() -> None:
    message = json.loads(made.bars_request(EYE))
    entries = message["entry"]
    message["entry"] = [
        *(one for one in entries if one["resource"]["resourceType"] != "CarePlan"),
        *(one for one in entries if one["resource"]["resourceType"] == "Encounter"),
    ]
    assert definitions.counts(f"{REQUEST}|1.0.0-beta", message) == [
        "Encounter: 2 found, exactly 1 demanded.",
        "CarePlan: 0 found, exactly 1 demanded.",
    ]
    message["entry"] = [*entries, *2 * [{"resource": {"resourceType": "Device"}}]]
    assert definitions.counts(REQUEST, message) == ["Device: 2 found, 0 to 1 demanded."]
    with pytest.raises(LookupError):
        definitions.counts("https://fhir.nhs.uk/MessageDefinition/nobodys", message)


@needed
def test_published_messages_hold_what_their_definition_says_but_for_those_known_to_be_faulty() -> (
    None
):
    seen, faulty = 0, set()
    for path in sorted((DATA / "bars" / "bars-pkg-1.37.0-examples-json").glob("*.json")):
        bundle = json.loads(path.read_bytes())
        if bundle.get("type") != "message":
            continue
        seen += 1
        said = bundle["entry"][0]["resource"].get("definition")
        try:
            found = definitions.counts(said or "", bundle)
        except LookupError:
            found = ["There is no such definition."]
        if found:
            faulty.add(path.name.partition("_")[0].rstrip("-"))
    assert seen > 15
    assert faulty == {"REFREQ8B", "REFREQ8C", "REFREQ9A", "REFRESP02", "REFRESP03", "SERVREQ02"}


def test_journeys_and_urls_are_uuids() -> None:
    for message in made.by_bars().values():
        for one in held(message):
            assert uuid.UUID(one.full_url.removeprefix("urn:uuid:"))


def test_a_place_without_a_telephone_has_no_contact() -> None:
    silent = replace(made.HOSPITAL, telephone="")
    message = made.bars_request(EYE, silent)
    assert "telecom" not in target(message, header(message)["destination"][0]["receiver"])
