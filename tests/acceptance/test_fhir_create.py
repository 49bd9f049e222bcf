"""A ServiceRequest or Communication that a FHIR client creates is a message like any other."""

import asyncio
import copy
import json
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from broker.api.outcomes import BASE
from fhir_profiles import codes
from tests.acceptance.place import Body, Caller, Place, taken
from tests.acceptance.test_fhir_errors import outcome
from tests.acceptance.test_fhir_resources import find, sound

pytestmark = pytest.mark.asyncio(loop_scope="module")

SYSTEM = "https://gp-system.example/referral"
JSON = {"content-type": "application/fhir+json"}
NOT_CONNECTED = {"system": codes.ODS, "value": "G99005"}
PATIENT: Body = {
    "resourceType": "Patient",
    "id": "patient",
    "identifier": [{"system": codes.NHS_NUMBER, "value": "9990000018"}],
    "name": [{"family": "Example", "given": ["Robin"], "text": 'Says "reference":"#patient"'}],
    "birthDate": "1961-04-02",
}
SENDER: Body = {
    "resourceType": "Organization",
    "id": "sender",
    "identifier": [{"system": codes.ODS, "value": "G99001"}],
    "name": "Riverside Medical Practice",
}
SERVICE: Body = {
    "resourceType": "HealthcareService",
    "id": "service",
    "identifier": [{"system": codes.SERVICE_ID, "value": "RXX01-SPA"}],
    "name": "Ophthalmology single point of access",
}
MEASURED: Body = {
    "resourceType": "Observation",
    "id": "measured",
    "status": "final",
    "code": {"text": "Pressure of the right eye"},
    "subject": {"reference": "#patient"},
    "valueQuantity": {"value": 0, "unit": "mm[Hg]"},
}


def request(**changes: Any) -> Body:
    made: Body = {
        "resourceType": "ServiceRequest",
        "contained": [PATIENT, SENDER, SERVICE, MEASURED],
        "identifier": [{"system": SYSTEM, "value": str(uuid4())}],
        "status": "active",
        "intent": "order",
        "priority": "urgent",
        "code": {"text": "Please see"},
        "subject": {"reference": "#patient"},
        "authoredOn": "2026-11-20T09:30:00+00:00",
        "requester": {"reference": "#sender"},
        "performer": [{"reference": "#service"}],
        "supportingInfo": [{"reference": "#measured"}],
    }
    made |= changes
    said = json.dumps(made)
    # R4 knows no contained resource that nothing refers to.
    made["contained"] = [one for one in made["contained"] if f'"#{one["id"]}"' in said]
    return {name: value for name, value in made.items() if value is not None}


def transaction(one: Body) -> Body:
    """Return the same as a transaction, each part an entry of its own."""
    urls = {f"#{part['id']}": f"urn:uuid:{uuid4()}" for part in one["contained"]}
    bare = {name: value for name, value in one.items() if name != "contained"}
    text = json.dumps([bare, *one["contained"]])
    for old, new in urls.items():
        text = text.replace(f'"reference": "{old}"', f'"reference": "{new}"')
    focus, *parts = json.loads(text)
    held = [(f"urn:uuid:{uuid4()}", focus), *zip(urls.values(), parts, strict=True)]
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "fullUrl": url,
                "resource": resource,
                "request": {"method": "POST", "url": resource["resourceType"]},
            }
            for url, resource in held
        ],
    }


async def post(
    caller: Caller, body: Body | bytes, path: str = "", **headers: str
) -> httpx2.Response:
    if not path and isinstance(body, dict) and body["resourceType"] != "Bundle":
        path = f"/{body['resourceType']}"
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await caller.call("POST", BASE + path, content=content, headers=JSON | headers)


def called(body: Body) -> str:
    (one,) = body["identifier"]
    return f"{one['system']}|{one['value']}"


async def test_a_referral_that_is_created_arrives_is_decided_and_is_found(
    place: Place, practice: Caller, hospital: Caller
) -> None:
    body = request()
    answer = await post(practice, body)
    made = taken(answer, 201)
    own = f"{place.settings.base_url}{BASE}/ServiceRequest/{made['id']}"
    assert answer.headers["location"] == f"{own}/_history/1"
    assert answer.headers["etag"] == 'W/"1"'
    assert "contained" not in made and made["code"] == body["code"]
    assert made == sound(await practice.get(f"{BASE}/ServiceRequest/{made['id']}"))
    (found,) = await find(hospital, "ServiceRequest", identifier=called(body))
    assert found == made
    (listed,) = taken(await practice.get("/messages", limit=1), 200)["messages"]
    assert (listed["kind"], listed["priority"]) == ("referral", "urgent")
    row = await hospital.take(listed["id"])
    got = json.loads((await hospital.collect(row)).body)
    resources = {one["resource"]["resourceType"]: one for one in got["entry"]}
    assert resources["Patient"]["fullUrl"] == made["subject"]["reference"]
    assert resources["Patient"]["resource"]["name"] == PATIENT["name"]
    assert b'"value":0,' in json.dumps(got, separators=(",", ":")).encode()
    tracked = await practice.tracked(listed["id"])
    taken(await hospital.move(tracked["referral"], "accept"), 200)
    assert (await find(practice, "Task", _id=tracked["referral"].rpartition("/")[2]))[0][
        "status"
    ] == "accepted"


async def test_a_transaction_creates_one_with_all_that_it_refers_to(
    practice: Caller, hospital: Caller
) -> None:
    body = request()
    said = taken(await post(practice, transaction(body)), 200)
    assert said["type"] == "transaction-response"
    paths = [one["response"]["location"] for one in said["entry"]]
    assert [path.partition("/")[0] for path in paths] == [
        *("ServiceRequest", "Patient", "Organization", "HealthcareService", "Observation")
    ]
    for path in paths:
        sound(await hospital.get(f"{BASE}/{path}"))
    (found,) = await find(hospital, "ServiceRequest", identifier=called(body))
    assert found["id"] in paths[0]


async def test_a_communication_is_created_for_its_one_recipient(
    place: Place, hospital: Caller, practice: Caller
) -> None:
    body = {
        "resourceType": "Communication",
        "contained": [PATIENT],
        "identifier": [{"system": SYSTEM, "value": str(uuid4())}],
        "status": "completed",
        "subject": {"reference": "#patient"},
        "sender": {"identifier": {"system": codes.ODS, "value": "RXX01"}},
        "recipient": [{"identifier": {"system": codes.ODS, "value": "G99001"}}],
        "sent": "2026-11-20T09:30:00+00:00",
        "payload": [{"contentString": "Seen today; all well."}],
    }
    made = taken(await post(hospital, body), 201)
    (found,) = await find(practice, "Communication", identifier=called(body))
    assert found == made
    (listed,) = taken(await hospital.get("/messages", limit=1), 200)["messages"]
    assert listed["kind"] == "update"
    await practice.take(listed["id"])


async def test_the_same_key_gets_the_same_answer_and_stores_nothing_twice(
    practice: Caller,
) -> None:
    body, key = request(), {"idempotency-key": str(uuid4())}
    first, again = await post(practice, body, **key), await post(practice, body, **key)
    assert (first.status_code, first.content) == (again.status_code, again.content)
    assert first.headers["location"] == again.headers["location"]
    other = await post(practice, request(), **key)
    outcome(other, 409, "REC_CONFLICT", "conflict")
    assert len(await find(practice, "ServiceRequest", identifier=called(body))) == 1


async def test_what_is_there_already_is_found_or_refused(practice: Caller) -> None:
    body = request()
    condition = {"if-none-exist": f"identifier={called(body)}"}
    made = taken(await post(practice, body, **condition), 201)
    again = await post(practice, body, **condition)
    assert taken(again, 200) == made
    assert again.headers["location"].endswith(f"{made['id']}/_history/1")
    whole = transaction(body)
    whole["entry"][0]["request"]["ifNoneExist"] = f"identifier={called(body)}"
    (known,) = taken(await post(practice, whole), 200)["entry"]
    assert known["response"]["status"] == "200 OK" and made["id"] in known["response"]["location"]
    refused = outcome(await post(practice, body), 409, "REC_CONFLICT", "conflict")
    assert refused["expression"] == ["ServiceRequest.identifier"]
    for wrong in ("status=active", f"identifier={SYSTEM}|another", "identifier=x"):
        answer = await post(practice, request(), **{"if-none-exist": wrong})
        assert answer.status_code == 400, answer.text
    answer = await post(practice, request(), f"/ServiceRequest?identifier={called(body)}")
    outcome(answer, 400, "REC_BAD_REQUEST", "not-supported")


async def test_a_condition_that_cannot_be_read_is_told_where_it_stands(practice: Caller) -> None:
    for wrong in ("identifier=", "identifier=x", "status=active", f"identifier={SYSTEM}|another"):
        answer = await post(practice, request(), **{"if-none-exist": wrong})
        first = outcome(answer, 400, "REC_BAD_REQUEST", answer.json()["issue"][0]["code"])
        assert first["expression"] == ["http.If-None-Exist"]
        assert first["diagnostics"].startswith("Nothing was sent.")
        whole = transaction(request())
        whole["entry"][0]["request"]["ifNoneExist"] = wrong
        first = (await post(practice, whole)).json()["issue"][0]
        assert first["expression"] == ["Bundle.entry[0].request.ifNoneExist"]


async def test_of_many_that_create_the_same_at_once_one_does_and_the_rest_find_it(
    practice: Caller,
) -> None:
    body = request()
    condition = {"if-none-exist": f"identifier={called(body)}"}
    answers = await asyncio.gather(*(post(practice, body, **condition) for _ in range(6)))
    assert sorted(one.status_code for one in answers) == [200] * 5 + [201]
    assert len({one.json()["id"] for one in answers}) == 1


async def test_an_identifier_with_a_comma_is_asked_for_with_a_backslash(practice: Caller) -> None:
    body = request(identifier=[{"system": SYSTEM, "value": f"A,{uuid4()}"}])
    condition = {"if-none-exist": f"identifier={called(body)}".replace(",", r"\,")}
    made = taken(await post(practice, body, **condition), 201)
    assert taken(await post(practice, body, **condition), 200) == made


async def test_a_key_that_is_empty_is_no_key(practice: Caller) -> None:
    answer = await post(practice, request(), **{"idempotency-key": ""})
    outcome(answer, 400, "REC_BAD_REQUEST", "required")


async def test_a_client_that_wants_no_body_gets_the_address_alone(practice: Caller) -> None:
    for wish in ("return=minimal", 'handling=lenient, Return = "minimal"'):
        answer = await post(practice, request(), prefer=wish)
        assert (answer.status_code, answer.content) == (201, b"")
        assert "/ServiceRequest/" in answer.headers["location"]
    assert (await post(practice, request(), prefer="x-return=minimally")).content


@pytest.mark.parametrize(
    ("changes", "expression"),
    [
        ({"status": "activ"}, "ServiceRequest.status"),
        ({"status": "revoked"}, "ServiceRequest.status"),
        ({"intent": None}, "ServiceRequest.intent"),
        ({"doNotPerform": True}, "ServiceRequest.doNotPerform"),
        ({"performer": None}, "ServiceRequest.performer"),
        ({"performer": [{"reference": "#service"}] * 2}, "ServiceRequest.performer"),
        ({"performer": [{"identifier": NOT_CONNECTED}]}, "ServiceRequest.performer"),
        ({"performer": [{"display": "Somebody"}]}, "ServiceRequest.performer[0]"),
        ({"subject": {"reference": "Patient/1"}}, "ServiceRequest"),
        ({"subject": {"display": "Somebody"}}, "ServiceRequest.subject"),
        ({"subject": {"identifier": PATIENT["identifier"][0]}}, "ServiceRequest.subject"),
    ],
)
async def test_what_is_wrong_is_refused_with_its_place_and_nothing_is_sent(
    practice: Caller, changes: Body, expression: str
) -> None:
    answer = await post(practice, request(**changes))
    assert answer.status_code == 422, answer.text
    issues = answer.json()["issue"]
    assert any(one.get("expression", [""])[0].startswith(expression) for one in issues), issues
    assert issues[0]["diagnostics"].startswith("Nothing was sent.")
    assert answer.json()["resourceType"] == "OperationOutcome"


async def test_who_names_nobody_is_told_by_which_systems_somebody_is_named(
    practice: Caller,
) -> None:
    nobody = {"identifier": {"system": codes.DOS, "value": "RXX01-SPA"}}
    refused = outcome(
        await post(practice, request(performer=[nobody])),
        *(422, "REC_UNPROCESSABLE_ENTITY", "not-found"),
    )
    for system in (codes.ODS, codes.DOS, codes.SERVICE_ID):
        assert f"({system})" in refused["diagnostics"]


async def test_every_problem_is_told_at_once(practice: Caller) -> None:
    contained = copy.deepcopy(request()["contained"])
    contained[0]["birthDate"] = "yesterday"
    contained[3]["status"] = "bogus"
    issues = (await post(practice, request(contained=contained))).json()["issue"]
    places = {one["expression"][0] for one in issues}
    assert len([one for one in places if "contained" in one]) >= 2


async def test_what_is_contained_has_an_id_of_its_own_or_none_of_it_is_sent(
    practice: Caller,
) -> None:
    twin = MEASURED | {"valueQuantity": {"value": 40, "unit": "mm[Hg]"}}
    bare = {name: value for name, value in MEASURED.items() if name != "id"}
    for wrong, code in ((twin, "duplicate"), (bare, "required")):
        body = request()
        body["contained"].append(wrong)
        first = outcome(await post(practice, body), 422, "REC_UNPROCESSABLE_ENTITY", code)
        assert first["expression"] == ["ServiceRequest.contained[4].id"]
        assert await find(practice, "ServiceRequest", identifier=called(body)) == []


async def test_with_two_patients_nobody_could_say_whose_it_is(practice: Caller) -> None:
    body = request()
    body["contained"].append(PATIENT | {"id": "other"})
    body["supportingInfo"].append({"reference": "#other"})
    for sent_ in (body, transaction(body)):
        issue = (await post(practice, sent_)).json()["issue"][0]
        assert issue["code"] == "required" and issue["expression"][0].endswith(".subject")


async def test_a_time_at_the_calendars_ends_is_taken(practice: Caller) -> None:
    for moment in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        made = taken(await post(practice, request(authoredOn=moment)), 201)
        assert made["authoredOn"] == moment


async def test_another_may_not_send_in_ones_name(pharmacy: Caller) -> None:
    outcome(await post(pharmacy, request()), 403, "SEND_FORBIDDEN", "forbidden")


async def test_a_transaction_creates_and_does_nothing_else(practice: Caller) -> None:
    whole = transaction(request())
    for change, expression in (
        ({"type": "batch"}, "Bundle.type"),
        ({"entry": whole["entry"] + transaction(request())["entry"]}, "Bundle.entry"),
        ({"entry": whole["entry"][1:]}, "Bundle.entry"),
    ):
        answer = await post(practice, whole | change)
        assert answer.status_code == 422, answer.text
        assert expression in {one["expression"][0] for one in answer.json()["issue"]}
    updating = copy.deepcopy(whole)
    updating["entry"][1]["request"] = {"method": "PUT", "url": "Patient/1"}
    answer = await post(practice, updating)
    assert answer.json()["issue"][0]["expression"] == ["Bundle.entry[1].request"]


async def test_other_types_and_forms_have_no_door(practice: Caller) -> None:
    answer = await post(practice, request(), "/Communication")
    outcome(answer, 400, "REC_BAD_REQUEST", "value")
    xml = {"content-type": "application/fhir+xml"}
    answer = await practice.call("POST", f"{BASE}/ServiceRequest", content=b"<x/>", headers=xml)
    first = outcome(answer, 415, "REC_UNSUPPORTED_MEDIA_TYPE", "not-supported")
    assert "XML" in first["diagnostics"]
    other = {"content-type": "application/fhir+json; fhirVersion=3.0"}
    answer = await practice.call("POST", f"{BASE}/ServiceRequest", content=b"{}", headers=other)
    outcome(answer, 415, "REC_UNSUPPORTED_MEDIA_TYPE", "not-supported")
    other = {"content-type": "application/fhir+json; charset=iso-8859-1"}
    answer = await practice.call("POST", f"{BASE}/ServiceRequest", content=b"{}", headers=other)
    first = outcome(answer, 415, "REC_UNSUPPORTED_MEDIA_TYPE", "not-supported")
    assert "UTF-8" in first["diagnostics"]
    outcome(await post(practice, b"{", "/ServiceRequest"), 400, "REC_BAD_REQUEST", "structure")
