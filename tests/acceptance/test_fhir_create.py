"""A ServiceRequest or Communication that a FHIR client creates is a message like any other."""

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
    outcome(await post(practice, body), 409, "REC_CONFLICT", "conflict")
    for wrong in ("status=active", f"identifier={SYSTEM}|another", "identifier=x"):
        answer = await post(practice, request(), **{"if-none-exist": wrong})
        assert answer.status_code == 400, answer.text
    answer = await post(practice, request(), f"/ServiceRequest?identifier={called(body)}")
    outcome(answer, 400, "REC_BAD_REQUEST", "not-supported")


async def test_a_client_that_wants_no_body_gets_the_address_alone(practice: Caller) -> None:
    answer = await post(practice, request(), prefer="return=minimal")
    assert (answer.status_code, answer.content) == (201, b"")
    assert "/ServiceRequest/" in answer.headers["location"]


@pytest.mark.parametrize(
    ("changes", "expression"),
    [
        ({"status": "activ"}, "ServiceRequest.status"),
        ({"status": "revoked"}, "ServiceRequest.status"),
        ({"intent": None}, "ServiceRequest.intent"),
        ({"performer": None}, "ServiceRequest.performer"),
        ({"performer": [{"reference": "#service"}] * 2}, "ServiceRequest.performer"),
        ({"performer": [{"identifier": NOT_CONNECTED}]}, "ServiceRequest.performer"),
        ({"performer": [{"display": "Somebody"}]}, "ServiceRequest.performer[0]"),
        ({"subject": {"reference": "Patient/1"}}, "ServiceRequest"),
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


async def test_every_problem_is_told_at_once(practice: Caller) -> None:
    contained = copy.deepcopy(request()["contained"])
    contained[0]["birthDate"] = "yesterday"
    contained[3]["status"] = "bogus"
    issues = (await post(practice, request(contained=contained))).json()["issue"]
    places = {one["expression"][0] for one in issues}
    assert len([one for one in places if "contained" in one]) >= 2


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
    outcome(await post(practice, b"{", "/ServiceRequest"), 400, "REC_BAD_REQUEST", "structure")
