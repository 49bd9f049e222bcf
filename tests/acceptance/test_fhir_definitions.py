"""What is defined and what is offered, as anybody may read it; and in which forms."""

import httpx2
import pytest

from broker import offering
from broker.api.fhir import capability
from broker.api.fhir.types import CREATED
from broker.api.outcomes import BASE
from fhir_profiles import codes, served
from fhir_profiles.bars.codes import USE_CASES
from fhir_profiles.profiles import ours, own
from tests.acceptance.place import Body, Place, taken
from tests.acceptance.test_fhir_errors import outcome

pytestmark = pytest.mark.asyncio(loop_scope="module")
SPA = f"{codes.SERVICE_ID}|RXX01-SPA"
FHIR_JSON = "application/fhir+json; charset=utf-8"


def sound(answer: httpx2.Response) -> Body:
    """Return an answer that is FHIR as R4 and our profiles have it."""
    said = taken(answer, 200)
    assert answer.headers["content-type"] == FHIR_JSON
    assert [one for one in ours().check(answer.content) if one.severity == "error"] == []
    return said


async def test_every_definition_can_be_read_and_found_by_its_url_without_a_token(
    place: Place,
) -> None:
    urls = {one["url"] for one in own()} | {one.url for one in served.definitions().values()}
    assert len(urls) > 100
    for one in served.definitions().values():
        path = f"{BASE}/{one.type}"
        assert taken(await place.http.get(f"{path}/{one.id}"), 200) == one.resource
        found = taken(await place.http.get(path, params={"url": one.url}), 200)
        assert one.resource in [entry["resource"] for entry in found["entry"]]
        urls.discard(one.url)
    assert urls == set()


async def test_definitions_are_searched_by_name_and_id_page_by_page(place: Place) -> None:
    path = f"{BASE}/CodeSystem"
    every = sound(await place.http.get(path))
    read: list[str] = []
    url = f"{path}?_count=10"
    while url:
        page = sound(await place.http.get(url))
        assert page["total"] == every["total"]
        read += [entry["fullUrl"] for entry in page["entry"]]
        url = next((one["url"] for one in page["link"] if one["relation"] == "next"), "")
    assert read == [entry["fullUrl"] for entry in every["entry"]]
    (named,) = sound(await place.http.get(path, params={"name": "WARN"}))["entry"]
    (known,) = sound(await place.http.get(path, params={"_id": "warning"}))["entry"]
    assert named == known and known["search"] == {"mode": "match"}
    assert sound(await place.http.get(path, params={"_id": "nothing"}))["total"] == 0
    for query, number in (
        ("_id=warning,nothing,message-event", 2),
        ("_id=warning&_id=message-event", 0),
        ("name=warn,Message&_id=warning", 1),
        (f"url=x,{named['resource']['url']}", 1),
        (f"url={named['resource']['url']}&url=x", 0),
        ("_count=100000", every["total"]),
    ):
        assert sound(await place.http.get(f"{path}?{query}"))["total"] == number, query
    outcome(await place.http.get(f"{path}/nothing"), 404, "REC_NOT_FOUND", "not-found")


async def test_who_has_a_version_is_not_sent_it_again(place: Place) -> None:
    path = f"{BASE}/CodeSystem/warning"
    tag = (await place.http.get(path)).headers["etag"]
    again = await place.http.get(path, headers={"if-none-match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    other = await place.http.get(path, headers={"if-none-match": 'W/"2"'})
    assert other.status_code == 200


async def test_a_parameter_that_is_not_known_is_named_or_refused(place: Place) -> None:
    path = f"{BASE}/CodeSystem?nam=Warning"
    said = sound(await place.http.get(path))
    assert said["link"][0]["url"].endswith("/CodeSystem")
    last = said["entry"][-1]
    assert last["search"] == {"mode": "outcome"}
    (issue,) = last["resource"]["issue"]
    assert (issue["severity"], issue["expression"]) == ("warning", ["http.nam"])
    assert "Did you mean name?" in issue["diagnostics"]
    strict = {"prefer": "respond-async, handling=strict"}
    refused = await place.http.get(path, headers=strict)
    outcome(refused, 400, "REC_BAD_REQUEST", "not-supported")
    many = "&".join(f"colour{number}" for number in range(501))
    refused = await place.http.get(f"{BASE}/CodeSystem?{many}")
    outcome(refused, 400, "REC_BAD_REQUEST", "too-costly")
    strange = await place.http.get(f"{BASE}/CodeSystem?Robin|Example=1", headers=strict)
    assert "Robin" not in strange.text


@pytest.mark.parametrize(
    "asked",
    [
        "application/fhir+json",
        "application/json",
        "application/fhir+json; version=1.4.0",
        "application/fhir+json;version=1.0.0;fhirVersion=4.0",
        "application/fhir+xml, application/fhir+json;q=0.5",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "application/fhir+json; version*=utf-8''1.4.0; q*=utf-8''0.5",
        "text/turtle;q=0.00",
        "",
    ],
)
async def test_json_of_r4_is_answered_to_whoever_takes_it(place: Place, asked: str) -> None:
    sound(await place.http.get(f"{BASE}/CodeSystem/warning", headers={"accept": asked}))


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("application/fhir+xml", "FHIR in XML is not offered here."),
        ("text/turtle", "This form is not offered here."),
        ("application/fhir+json; fhirVersion=3.0", "FHIR R4 (4.0.1) is spoken here"),
        ("application/fhir+json; version=2.0.0", "Version 1 of BaRS is spoken here"),
        ("application/json;q=0, application/xml", "FHIR in XML is not offered here."),
        ("application/json;q=0.0, application/xml;q=0.001", "FHIR in XML is not offered here."),
    ],
)
async def test_another_form_or_version_is_406_and_says_why(
    place: Place, asked: str, why: str
) -> None:
    answer = await place.http.get(f"{BASE}/CodeSystem/warning", headers={"accept": asked})
    first = outcome(answer, 406, "REC_NOT_ACCEPTABLE", "processing")
    assert why in first["diagnostics"] and first["expression"] == ["http.Accept"]


async def test_the_parameter_format_goes_before_the_header(place: Place) -> None:
    path, xml = f"{BASE}/CodeSystem/warning", {"accept": "application/fhir+xml"}
    for form in ("json", "application/fhir+json", "application/fhir%2Bjson", "application/json"):
        sound(await place.http.get(f"{path}?_format={form}", headers=xml))
    answer = await place.http.get(f"{path}?_format=xml")
    assert outcome(answer, 406, "REC_NOT_ACCEPTABLE", "processing")["expression"] == [
        "http._format"
    ]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/Slot?status=free"),
        ("GET", "/Appointment/1"),
        ("POST", "/DocumentReference"),
        ("POST", "/Patient"),
        ("PUT", "/ServiceRequest/1"),
        ("PATCH", "/ServiceRequest/1"),
        ("DELETE", "/Task/1"),
        ("PUT", "/CodeSystem/warning"),
        ("GET", "/_history"),
    ],
)
async def test_what_fhir_knows_and_is_not_offered_is_501(
    place: Place, method: str, path: str
) -> None:
    answer = await place.http.request(method, BASE + path)
    outcome(answer, 501, "REC_NOT_IMPLEMENTED", "not-supported")


async def test_a_wrong_method_is_405_and_names_those_that_are_right(place: Place) -> None:
    answer = await place.http.request("DELETE", f"{BASE}/metadata")
    outcome(answer, 405, "REC_METHOD_NOT_ALLOWED", "not-supported")
    assert answer.headers["allow"] == "GET"


async def test_the_statement_is_sound_and_names_what_this_is(place: Place) -> None:
    answer = await place.http.get(f"{BASE}/metadata")
    said = sound(answer)
    assert (said["resourceType"], said["fhirVersion"]) == ("CapabilityStatement", "4.0.1")
    assert said["implementation"]["url"] == f"{place.settings.base_url}{BASE}"
    assert said["format"] == ["application/fhir+json", "json"]
    assert "no-store" not in answer.headers["cache-control"]
    ours = [one for one in own() if one["resourceType"] == "MessageDefinition"]
    supported = said["messaging"][0]["supportedMessage"]
    # What BaRS defines goes by the name that BaRS has for it: both ends compare that.
    assert {one["definition"] for one in supported} == {
        *(one["url"] for one in ours if "base" not in one),
        *(url for one in ours if (url := one.get("base", "").partition("|")[0]) in offering.TAKEN),
    }
    taken_ = {one["definition"] for one in supported if one["mode"] == "receiver"}
    assert taken_ == set(offering.TAKEN)


async def test_the_statement_says_what_the_routes_do_and_nothing_else(place: Place) -> None:
    said = taken(await place.http.get(f"{BASE}/metadata"), 200)["rest"][0]
    stated = {
        (one["type"], interaction["code"])
        for one in said["resource"]
        for interaction in one["interaction"]
    }
    stated |= {("", one["code"]) for one in said.get("interaction", ())}
    stated |= {("", one["name"]) for one in said.get("operation", ())}
    assert stated == set(capability.offered(place.app.state.fhir_routes))
    # Every read answers If-None-Match; a create, If-None-Exist.
    assert all(one["conditionalRead"] == "not-match" for one in said["resource"])
    assert {one["type"] for one in said["resource"] if one.get("conditionalCreate")} == set(CREATED)
    caller = place.of("FPH01")
    for type_, interaction in stated:
        method, path = DOORS.get(interaction, ("POST", "/$" + interaction))
        answer = await caller.call(method, f"{BASE}{path.format(type_)}")
        missing = answer.status_code in {405, 501} or "at this path" in answer.text
        assert not missing, (type_, interaction, answer.text)


DOORS = {
    "read": ("GET", "/{}/00000000-0000-7000-8000-000000000000"),
    "vread": ("GET", "/{}/00000000-0000-7000-8000-000000000000/_history/1"),
    "history-instance": ("GET", "/{}/00000000-0000-7000-8000-000000000000/_history"),
    "search-type": ("GET", "/{}"),
    "create": ("POST", "/{}"),
    "update": ("PUT", "/{}/00000000-0000-7000-8000-000000000000"),
    "transaction": ("POST", ""),
}


async def test_message_definitions_are_asked_for_by_service_and_use_case(place: Place) -> None:
    path = f"{BASE}/MessageDefinition"
    both = {"context": [SPA, f"{USE_CASES}|a5t1"]}
    found = sound(await place.http.get(path, params=both))
    assert all(entry["resource"]["useContext"] for entry in found.get("entry", ()))
    refused = await place.http.get(path, params={"context": SPA})
    outcome(refused, 400, "REC_BAD_REQUEST", "required")
