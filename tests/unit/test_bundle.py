"""Bundles: pinned bytes, digits kept, and entries that are carried over byte for byte."""

import hashlib
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.observation import Observation
from fhir.resources.R4B.patient import Patient
from hypothesis import given
from hypothesis import strategies as st

from fhir_profiles import bundle, clinical, codes, focus, resources, strict_json, structure
from fhir_profiles.blocks import TracedPatient
from fhir_profiles.bundle import Entries
from fhir_profiles.message import Header, Site, address
from tests.made import errors

MESSAGE = "0199a000-0000-7000-8000-000000000001"
OTHER = "0199a000-0000-7000-8000-000000000002"
DELIVERY = "0199a000-0000-7000-8000-00000000000d"
SUMMER = timezone(timedelta(hours=1))
NOW = datetime(2026, 10, 1, 14, 30, tzinfo=SUMMER)
SENDER = Site("FPH01", "Riverside Pharmacy")
RECEIVER = Site("G99001", "Riverside Medical Practice")


def a_patient() -> Patient:
    block = TracedPatient.model_validate(
        {
            "name": {"family": "Ökafor", "given": "Adaeze"},
            "birth_date": "1984-02-29",
            "nhs_number": "9990000018",
            "nhs_number_status": "01",
        },
        context={"now": NOW},
    )
    return resources.patient(block)


def a_content(number: str = "1.50", *organisations: str) -> bytes:
    entries = Entries(MESSAGE)
    for ods in organisations:
        entries.add(ods, resources.organization(ods))
    patient = entries.add("patient", a_patient())
    measured = clinical.observation(
        code=resources.concept(codes.SNOMED, "703421000", None, "Body temperature"),
        patient=patient,
        performer=patient,
        taken=NOW,
        value=resources.quantity(Decimal(number), "Cel"),
    )
    entries.add("observation", measured)
    return entries.body()


def a_header(**changes: Any) -> Header:
    values: dict[str, Any] = {
        "bundle_id": DELIVERY,
        "header_id": bundle.told_id(DELIVERY, "header"),
        "event": "record-update",
        "timestamp": NOW,
        "source_name": "Referral Broker",
        "source_endpoint": "https://broker.example",
        "sender": SENDER,
        "receiver": RECEIVER,
        "focus": (bundle.entry_id(MESSAGE, "observation"),),
    }
    return Header(**values | changes)


def resource(body: bytes, kind: str) -> dict[str, Any]:
    found = (strict_json.loads(entry.resource) for entry in bundle.entries(body))
    return next(each for each in found if each["resourceType"] == kind)


# -- making --------------------------------------------------------------------------------------


def test_the_id_of_an_entry_is_pinned() -> None:
    assert bundle.entry_id(MESSAGE, "patient") == "urn:uuid:0199a000-0000-8d12-be88-e049f1686a75"


def test_an_id_that_is_computed_for_each_reading_or_telling_is_the_one_that_was_answered() -> None:
    of_patient = "f50903f2-94f8-5cbd-a485-1db19a2b3323"
    assert bundle.given_id(MESSAGE, "patient") == of_patient
    assert bundle.told_id(MESSAGE, "patient") == f"urn:uuid:{of_patient}"


def test_the_bytes_of_a_content_are_pinned() -> None:
    assert hashlib.sha256(a_content("1.50", "FPH01")).hexdigest() == (
        "4c237b35812fb273d16a950f5dd984171eb427f456a6fa6e232e68cc3646d3e5"
    )


def test_the_same_resources_give_the_same_bytes() -> None:
    assert a_content() == a_content()


@pytest.mark.parametrize("number", ["1.50", "37.0", "0.10", "140", "1E+2"])
def test_a_number_keeps_its_digits(number: str) -> None:
    assert f'"value":{number},'.encode() in a_content(number)


def test_times_keep_their_offset_and_dates_stay_dates() -> None:
    body = a_content()
    assert b'"effectiveDateTime":"2026-10-01T14:30:00+01:00"' in body
    assert b'"birthDate":"1984-02-29"' in body


def test_the_id_of_a_resource_is_that_of_its_full_url() -> None:
    for entry in bundle.entries(a_content()):
        assert entry.full_url == f"urn:uuid:{strict_json.loads(entry.resource)['id']}"


def test_an_extension_of_a_primitive_stands_beside_it() -> None:
    unknown: dict[str, Any] = {
        "_birthDate": {"extension": [{"url": "https://x.example/why", "valueCode": "unknown"}]}
    }
    body = bundle.content([(bundle.entry_id(MESSAGE, "p"), Patient(**unknown, active=True))])
    assert resource(body, "Patient") == {
        "resourceType": "Patient",
        "id": bundle.entry_id(MESSAGE, "p").removeprefix("urn:uuid:"),
        "active": True,
        **unknown,
    }


def test_contained_resources_bytes_and_flags_are_written() -> None:
    made = Observation.model_validate(
        {
            "status": "final",
            "code": {"text": "x"},
            "contained": [{"resourceType": "Patient", "id": "p", "photo": [{"data": "aGk="}]}],
            "valueBoolean": False,
            "issued": "2026-10-01T14:30:00.123+01:00",
        }
    )
    out = resource(bundle.content([(bundle.entry_id(MESSAGE, "o"), made)]), "Observation")
    assert out["contained"] == [{"resourceType": "Patient", "id": "p", "photo": [{"data": "aGk="}]}]
    assert out["valueBoolean"] is False
    assert out["issued"] == "2026-10-01T14:30:00.123000+01:00"


def test_the_library_reads_back_what_was_written() -> None:
    made = Bundle.model_validate(strict_json.loads(a_content("1.50", "FPH01")))
    again = [(entry.fullUrl, entry.resource) for entry in made.entry]
    assert bundle.content(again) == a_content("1.50", "FPH01")


def test_two_entries_never_have_one_name() -> None:
    entries = Entries(MESSAGE)
    entries.add("patient", a_patient())
    with pytest.raises(ValueError, match="patient"):
        entries.add("patient", a_patient())


# -- addressing ----------------------------------------------------------------------------------


def test_the_bytes_of_an_addressed_message_are_pinned() -> None:
    body = address(a_content(), a_header(reason="new"))
    assert hashlib.sha256(body).hexdigest() == (
        "7ee9b7f9651c0b87def0bdecc1cc6afbe1670cc66ce17e8e232204ca6569ecc3"
    )


def test_a_message_begins_with_its_header_and_is_r4() -> None:
    body = address(a_content(), a_header(reason="update", response_to=OTHER))
    assert errors(body) == []
    message = strict_json.loads(body)
    assert (message["id"], message["type"]) == (DELIVERY, "message")
    assert message["timestamp"] == NOW.isoformat()
    header = message["entry"][0]["resource"]
    assert header["resourceType"] == "MessageHeader"
    assert header["eventCoding"]["code"] == "record-update"
    assert header["reason"]["coding"][0]["code"] == "update"
    assert header["response"]["identifier"] == OTHER
    assert header["focus"] == [{"reference": bundle.entry_id(MESSAGE, "observation")}]


@pytest.mark.parametrize(
    "identifier",
    [
        {"system": "https://fhir.nhs.uk/id/ods-organization-code", "value": "g99001"},
        {"system": "http://fhir.nhs.uk/Id/ods-organization-code/", "value": " G99001 "},
    ],
)
def test_an_organisation_is_known_by_its_ods_code_however_its_sender_spells_it(
    identifier: dict[str, str],
) -> None:
    theirs = {"resourceType": "Organization", "identifier": [{"use": "old"}, identifier]}
    assert bundle.organizations([{"fullUrl": "urn:x", "resource": theirs}]) == {"G99001": "urn:x"}


def test_an_organisation_of_another_system_or_with_no_code_is_not_known() -> None:
    held = [
        {"system": codes.ODS},
        {"system": codes.ODS, "value": "no code"},
        {"system": "https://fhir.nhs.uk/Id/ods-site-code", "value": "G99001"},
    ]
    theirs = {"resourceType": "Organization", "identifier": held}
    assert bundle.organizations([{"fullUrl": "urn:x", "resource": theirs}]) == {}


def test_the_index_knows_a_requester_however_its_sender_spells_the_system() -> None:
    system = "https://fhir.nhs.uk/id/ods-organization-code"
    request = {
        "resourceType": "ServiceRequest",
        "id": "r",
        "requester": {"identifier": {"system": system, "value": "fph01"}},
    }
    held = [{"fullUrl": "urn:r", "resource": request}]
    theirs = strict_json.dumps({"type": "message", "entry": held})
    assert [row.requester for row in bundle.index(strict_json.loads(theirs), MESSAGE)] == ["FPH01"]


def test_every_reference_of_a_message_stands_in_it() -> None:
    body = address(a_content("1", "FPH01"), a_header())
    urls = {entry.full_url for entry in bundle.entries(body)}
    for entry in bundle.entries(body):
        text = entry.resource.decode()
        for part in text.split('"reference":"')[1:]:
            assert part.split('"')[0] in urls


def test_an_organisation_of_the_content_is_used_and_another_is_added() -> None:
    body = address(a_content("1", "FPH01"), a_header())
    header = resource(body, "MessageHeader")
    assert header["sender"]["reference"] == bundle.entry_id(MESSAGE, "FPH01")
    assert header["destination"][0]["receiver"]["reference"] == bundle.told_id(
        DELIVERY, "organization G99001"
    )
    added = resource(address(a_content(), a_header()), "Organization")
    assert added["identifier"] == [{"system": codes.ODS, "value": "FPH01"}]
    assert added["name"] == "Riverside Pharmacy"


def test_a_service_is_the_endpoint_where_there_is_one() -> None:
    one = resource(address(a_content(), a_header()), "MessageHeader")
    assert one["destination"][0]["endpoint"] == f"{codes.ODS}|G99001"
    spa = Site("RXX01", "Northfield Hospital", "RXX01-SPA")
    two = resource(address(a_content(), a_header(receiver=spa)), "MessageHeader")
    assert two["destination"][0]["endpoint"] == f"{codes.SERVICE_ID}|RXX01-SPA"


def test_a_message_from_an_organisation_to_itself_names_it_once() -> None:
    body = address(a_content(), a_header(receiver=SENDER))
    kinds = [bundle.resource_type_of(entry.resource) for entry in bundle.entries(body)]
    assert kinds.count("Organization") == 1


def test_a_timestamp_without_an_offset_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="offset"):
        address(a_content(), a_header(timestamp=datetime(2026, 10, 1, 12)))  # noqa: DTZ001


def test_an_unknown_event_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        address(a_content(), a_header(event="gossip"))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.sampled_from(["1.50", "-0.0", "1e-7", "1.0E+10"]).map(Decimal),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
spaces = st.text(alphabet=" \t\r\n", max_size=3)


@given(st.lists(st.tuples(json_values, spaces), max_size=5))
def test_whatever_stands_in_an_entry_is_carried_over_byte_for_byte(
    held: list[tuple[Any, str]],
) -> None:
    raw = [
        b'{%s"fullUrl" : "urn:uuid:%d",%s"resource":%s{"resourceType":"Basic","x":%s}}'
        % (blank.encode(), place, blank.encode(), blank.encode(), strict_json.dumps(value))
        for place, (value, blank) in enumerate(held)
    ]
    content = (
        b'{"resourceType":"Bundle", "type":"collection","entry" : [' + b" , ".join(raw) + b"]}"
    )
    body = address(content, a_header())
    assert body.endswith(b",".join([b"", *raw]) + b"]}")
    carried = bundle.entries(body)[-len(raw) :] if raw else []
    assert [entry.resource for entry in carried] == [
        entry.resource for entry in bundle.entries(content)
    ]


# -- searching -----------------------------------------------------------------------------------


def test_the_index_has_one_row_per_entry_with_codes_only() -> None:
    rows = bundle.index(strict_json.loads(a_content("1", "FPH01")))
    assert [row.type for row in rows] == ["Organization", "Patient", "Observation"]
    assert rows[2].code == f"{codes.SNOMED}|703421000"
    assert rows[2].status == "final"
    assert "kafor" not in repr(rows)


def test_the_index_takes_the_first_of_a_documents_authors_for_who_wrote_it() -> None:
    by = {"identifier": {"system": codes.ODS, "value": "FPH01"}}
    for authors, known in (([by, by], "FPH01"), ([], "")):
        held = {"resourceType": "DocumentReference", "status": "current", "author": authors}
        url = "urn:uuid:01932f6e-5b1c-7d2e-9f3a-4b5c6d7e8f90"
        entry = [{"fullUrl": url, "resource": held}]
        content = {"resourceType": "Bundle", "type": "message", "entry": entry}
        assert [row.requester for row in bundle.index(content, MESSAGE)] == [known]


def test_the_index_follows_a_requester_through_its_role_to_the_organisation() -> None:
    entries = Entries(MESSAGE)
    site = entries.add("site", resources.organization("FPH01"))
    patient = entries.add("patient", a_patient())
    role = entries.add(
        "role",
        resources.practitioner_role(entries.url("who"), site, resources.concept("s", "R1290")),
    )
    entries.add(
        "request",
        focus.service_request(
            identifiers=focus.message_identifiers(MESSAGE, "FPH01", "R-1"),
            category=resources.concept("s", "category"),
            code=resources.concept("s", "code"),
            priority="urgent",
            patient=patient,
            requester=role,
            performers=[],
            authored=NOW,
        ),
    )
    row = bundle.index(strict_json.loads(entries.body()))[-1]
    assert (row.requester, row.priority, row.code) == ("FPH01", "urgent", "s|code")


# -- notices and moves ---------------------------------------------------------------------------

ORIGINAL = focus.Original(MESSAGE, "ServiceRequest", "R-1", a_content("1", "G99001"))


def test_a_task_tells_a_referrals_state_in_both_vocabularies() -> None:
    told = focus.task(
        OTHER,
        referral=DELIVERY,
        state="did-not-attend",
        moved=NOW,
        requester=SENDER,
        owner=RECEIVER,
        original=ORIGINAL,
        reason="Did not come, twice",
        advice="Please refer again if needed.",
        priority="routine",
    )
    assert errors(told.body) == []
    task = resource(told.body, "Task")
    assert told.focus.endswith(task["id"])
    assert task["status"] == "failed"
    assert task["businessStatus"]["coding"][0]["code"] == "did-not-attend"
    assert task["statusReason"] == {"text": "Did not come, twice"}
    assert task["note"] == [{"text": "Please refer again if needed."}]
    assert task["focus"]["identifier"] == {"system": codes.MESSAGE_ID, "value": MESSAGE}
    assert task["groupIdentifier"] == {"system": codes.SUBJECT_ID, "value": DELIVERY}


def test_every_state_of_a_referral_has_a_task_status() -> None:
    states = codes.system("referral-state")
    for state in states.displays:
        told = focus.task(
            OTHER,
            referral=DELIVERY,
            state=state,
            moved=NOW,
            requester=SENDER,
            owner=RECEIVER,
            original=ORIGINAL,
        )
        assert errors(told.body) == []


def test_a_notice_answers_the_original_and_says_why() -> None:
    told = focus.notice(
        OTHER,
        topic="update-rejected",
        text="Riverside Medical Practice rejected the update: the patient has died.",
        sent=NOW,
        sender=RECEIVER,
        receiver=SENDER,
        original=focus.Original(MESSAGE, "Communication", "C-1"),
        subject=DELIVERY,
        reason=("rejection-reason", "deceased"),
        advice="Please check the record.",
    )
    assert errors(told.body) == []
    notice = resource(told.body, "Communication")
    assert told.focus.endswith(notice["id"])
    assert notice["inResponseTo"][0]["identifier"]["value"] == MESSAGE
    assert notice["topic"]["coding"][0]["code"] == "update-rejected"
    assert notice["statusReason"]["coding"][0]["code"] == "deceased"
    assert notice["payload"] == [
        {"contentString": "Riverside Medical Practice rejected the update: the patient has died."}
    ]
    assert "subject" not in notice


def test_a_notice_of_a_referral_is_about_it_for_only_a_communication_is_answered() -> None:
    told = focus.notice(
        OTHER,
        topic="referral-moved",
        text="Accepted.",
        sent=NOW,
        sender=RECEIVER,
        receiver=SENDER,
        original=focus.Original(MESSAGE, "ServiceRequest", "C-1"),
        subject=DELIVERY,
    )
    assert errors(told.body) == []
    notice = resource(told.body, "Communication")
    assert "inResponseTo" not in notice
    assert [one["identifier"]["value"] for one in notice["about"]] == [MESSAGE, DELIVERY, "C-1"]


def test_what_tells_of_a_message_repeats_its_patient_under_ids_of_its_own() -> None:
    content = a_content("1", "G99001")
    told = focus.notice(
        OTHER,
        topic="referral-moved",
        text="Accepted.",
        sent=NOW,
        sender=RECEIVER,
        receiver=SENDER,
        original=focus.Original(MESSAGE, "ServiceRequest", "R-1", content),
    )
    assert errors(told.body) == []
    before, after = resource(content, "Patient"), resource(told.body, "Patient")
    assert before["id"] != after["id"]
    assert before | {"id": ""} == after | {"id": ""}
    notice = resource(told.body, "Communication")
    assert notice["subject"]["reference"] == f"urn:uuid:{after['id']}"
    ids = [
        row.resource_id
        for one in (content, told.body)
        for row in bundle.index(strict_json.loads(one))
    ]
    assert len(ids) == len(set(ids))


def test_a_patient_that_is_lent_brings_its_practice_along() -> None:
    entries = Entries(MESSAGE)
    practice = entries.add("practice", resources.organization("G99001"))
    patient = a_patient()
    patient.generalPractitioner = [resources.reference(practice)]
    entries.add("patient", patient)
    lent = bundle.lend(entries.body(), "Patient", OTHER)
    again = bundle.entries(bundle.content([], [entry.resource for entry in lent]))
    assert [bundle.resource_type_of(entry.resource) for entry in again] == [
        "Patient",
        "Organization",
    ]
    assert lent[1].full_url.encode() in lent[0].resource
    assert bundle.lend(entries.body(), "Device", OTHER) == []


def test_bytes_that_are_not_r4_are_told_every_problem_with_its_path() -> None:
    issues = structure.check(b'{"resourceType":"Patient","gender":"x y ","birthDate":"soon"}')
    assert {issue.path for issue in issues} == {"Patient.gender", "Patient.birthDate"}
    assert structure.check(b"{")[0].severity == "error"


def test_dates_may_stand_where_times_do() -> None:
    assert resources.period(date(2026, 10, 1), datetime(2026, 10, 8, tzinfo=UTC)).start == date(
        2026, 10, 1
    )


@pytest.mark.parametrize(
    ("start", "end", "written"),
    [
        (NOW, NOW.date(), NOW.date()),
        (datetime(2026, 9, 30, 23, 30, tzinfo=UTC), NOW.date(), NOW.date()),  # in London
        (NOW, date(2026, 10, 2), NOW),
        (NOW, None, NOW),
    ],
)
def test_a_period_that_ends_with_the_day_on_which_it_starts_is_that_day(
    start: datetime, end: date | None, written: date
) -> None:
    period = resources.period(start, end)
    assert (period.start, period.end) == (written, end)
