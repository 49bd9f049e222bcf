"""The OpenAPI page, read by somebody who builds against it: what it says is what the doors do."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from jsonschema import Draft202012Validator

from broker import registry
from broker.access import OPEN_ROUTES
from broker.ports import Adapter
from fhir_profiles import strict_json
from tests.acceptance.place import Body, Caller, Place, first, reading, taken

pytestmark = pytest.mark.asyncio(loop_scope="module")

PILLARS = sorted(
    adapter.door
    for name, adapter in registry.load().adapters.items()
    if name not in {"pharmacy", "optometry"}
)


async def page_of(place: Place) -> Body:
    page: Body = (await place.http.get("/openapi.json")).json()
    return page


def schema_of(page: Body, method: str, route: str, answer: httpx2.Response) -> Body:
    """Return the schema that the page has for an answer, with all that it refers to."""
    told = page["paths"][route][method]["responses"]
    content = told.get(str(answer.status_code), told["default"])["content"]
    media_type = answer.headers["content-type"]
    return {"components": page["components"], **content[media_type]["schema"]}


async def test_what_the_doors_of_a_pharmacy_answer_is_what_the_page_says(
    place: Place, pharmacy: Caller
) -> None:
    page = await page_of(place)
    door, corrected = "/pharmacy/consultations", "/pharmacy/consultations/{identity}"
    body = reading(196, 124)
    task = first(taken(await pharmacy.post(door, body)), "referral")
    update = first(await pharmacy.submit(standing := reading(120, 80)))
    own = f"{door}/{update['id']}"
    calls = f"/messages/{task['id']}/telephone-calls"
    for method, route, answer in (
        ("post", door, await pharmacy.post(door, reading(120, 80))),
        ("post", door, await pharmacy.post(door, reading(196, 124))),
        ("post", door, await pharmacy.post(door, reading(196, 124, practice="G99003"))),
        ("post", door, await pharmacy.post(door, reading(196, 124, consent_to_inform_gp=False))),
        ("post", door, await pharmacy.post(door, reading(196, 124) | {"colour": 1})),
        ("post", door, await pharmacy.post(door, body)),
        ("post", door, await pharmacy.post(door, b"[")),
        ("put", corrected, await pharmacy.put(own, standing)),
        ("put", corrected, await pharmacy.put(own, standing, if_match='W/"1"')),
        ("post", "/messages/{message}/telephone-calls", await pharmacy.post(calls, {})),
    ):
        schema = schema_of(page, method, route, answer)
        wrong = [one.message for one in Draft202012Validator(schema).iter_errors(answer.json())]
        assert (route, answer.status_code, wrong) == (route, answer.status_code, [])


@pytest.mark.parametrize("adapter", registry.load().adapters.values(), ids=lambda one: one.name)
async def test_what_a_door_answers_to_its_first_example_is_what_the_page_says(
    place: Place, adapter: Adapter
) -> None:
    page = await page_of(place)
    example = next(iter(adapter.examples.values()))
    now = datetime.now(UTC)
    said = strict_json.loads(json.dumps(example).encode())
    sender = place.of(
        adapter.needs(adapter.accepts.model_validate(said, context={"now": now}), now).organisation
    )
    body = {**example, "reference": str(uuid4())}
    answers = [await sender.post(adapter.door, body)]
    services = "icb: QXX\n    postcode_areas"
    async with place.directory((services, f"paused: away\n    {services}")):
        answers.append(await sender.post(adapter.door, {**body, "reference": str(uuid4())}))
    assert answers[0].status_code == 202
    for answer in answers:
        schema = schema_of(page, "post", adapter.door, answer)
        wrong = [one.message for one in Draft202012Validator(schema).iter_errors(answer.json())]
        assert (answer.status_code, wrong) == (answer.status_code, [])


async def test_the_page_tells_of_every_header_that_a_door_demands(place: Place) -> None:
    page = await page_of(place)
    told: dict[tuple[str, str], set[str]] = {}
    for route, path in page["paths"].items():
        for method, operation in path.items():
            given: list[Any] = operation.get("parameters", [])
            told[method, route] = {one["name"] for one in given if one["in"] == "header"}
            assert (operation.get("security") == []) is (route in OPEN_ROUTES)
    posts = {route for method, route in told if method == "post"} - {"/oauth2/token"}
    native = {route for route in posts if not route.startswith("/FHIR/R4")}
    assert {route for route in native if "Idempotency-Key" not in told["post", route]} == set()
    assert told["post", "/FHIR/R4/$process-message"] == {
        *("X-Request-Id", "X-Correlation-Id", "NHSD-Target-Identifier"),
        *("NHSD-End-User-Organisation", "NHSD-Requesting-Practitioner", "NHSD-Requesting-Software"),
    }
    versioned = {(method, route) for (method, route), names in told.items() if "If-Match" in names}
    assert versioned == {
        ("put", "/pharmacy/consultations/{identity}"),
        ("put", "/optometry/referrals/{identity}"),
        *(("put", f"{door}/{{identity}}") for door in PILLARS),
        ("post", "/referrals/{referral}/convert"),
        ("post", "/referrals/{referral}/{move}"),
        ("put", "/FHIR/R4/{moved}/{id}"),
    }


async def test_the_page_tells_of_every_code_that_a_call_or_a_closure_may_have(
    place: Place, pharmacy: Caller
) -> None:
    page = await page_of(place)

    def codes(door: str, name: str) -> list[str]:
        body = page["paths"][f"/messages/{{message}}/{door}"]["post"]["requestBody"]["content"]
        found: list[str] = body["application/json"]["schema"]["properties"][name]["enum"]
        return found

    task = first(await pharmacy.submit(reading(196, 124)), "referral")
    for outcome in codes("telephone-calls", "outcome"):
        said = {"outcome": outcome}
        taken(await pharmacy.post(f"/messages/{task['id']}/telephone-calls", said), 201)
    for reason in codes("closure", "reason"):
        update = first(await pharmacy.submit(reading(120, 80)))
        taken(await pharmacy.post(f"{update['url']}/closure", {"reason": reason}), 200)


async def test_the_page_shows_what_fhirs_doors_take_and_how_they_refuse(place: Place) -> None:
    page = await page_of(place)
    search = page["paths"]["/FHIR/R4/{focus}"]["get"]
    told = {one["name"]: one for one in search["parameters"]}
    assert told["focus"]["schema"]["enum"] == ["ServiceRequest", "Communication", "Task"]
    for name in ("patient:identifier", "_sort", "_count", "_include", "authored", "status"):
        assert told[name]["in"] == "query" and told[name]["description"]
    form = page["paths"]["/FHIR/R4/{focus}/_search"]["post"]["requestBody"]["content"]
    assert "patient:identifier" in str(form["application/x-www-form-urlencoded"])
    for route, path in page["paths"].items():
        if route.startswith("/FHIR/R4"):
            for operation in path.values():
                contents = [one["content"] for one in operation["responses"].values()]
                assert {name for one in contents for name in one} == {"application/fhir+json"}
    refused = await place.http.get("/FHIR/R4/ServiceRequest")
    schema = {**page["components"]["schemas"]["OperationOutcome"], "components": {}}
    assert list(Draft202012Validator(schema).iter_errors(refused.json())) == []
