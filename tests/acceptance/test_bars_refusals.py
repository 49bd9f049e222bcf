"""What the BaRS front door refuses, and in which order; its error table has a module of its own."""

import base64
import copy
import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from fhir_profiles.bars import applications, incoming
from sandbox import bars
from tests.acceptance.place import Body, Caller, Place
from tests.acceptance.test_bars import DOOR, SERVICE, answered, referral, resources, send
from tests.acceptance.test_fhir_errors import outcome

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

Change = Callable[[Body], Any]


def header(message: Body) -> Body:
    found: Body = message["entry"][0]["resource"]
    return found


def request(message: Body) -> Body:
    found: Body = message["entry"][1]["resource"]
    return found


# -- headers -------------------------------------------------------------------------------------

MISSING = ("X-Request-Id", "X-Correlation-Id", "NHSD-Target-Identifier")
WRONG = [
    ("X-Request-Id", "not-a-uuid", "value"),
    ("X-Correlation-Id", "12", "value"),
    ("NHSD-Target-Identifier", "%%%", "invalid"),
    ("NHSD-Target-Identifier", base64.b64encode(b"{").decode(), "invalid"),
    ("NHSD-Target-Identifier", bars.encoded({"system": bars.DOS}), "invalid"),
    ("NHSD-Target-Identifier", bars.encoded("2000099901"), "invalid"),
    ("NHSD-End-User-Organisation", "e30=", "invalid"),
    ("NHSD-Requesting-Practitioner", bars.encoded({"resourceType": "Patient"}), "invalid"),
    ("NHSD-Requesting-Software", "bm90IEpTT04=", "invalid"),
]


@pytest.mark.parametrize("name", MISSING)
async def test_a_header_that_is_missing_is_400_required(practice: Caller, name: str) -> None:
    answer = await send(practice, referral(), **{name: None})
    assert name in outcome(answer, 400, "REC_BAD_REQUEST", "required")["diagnostics"]


@pytest.mark.parametrize(("name", "value", "issue"), WRONG)
async def test_a_header_that_is_wrong_is_400_and_named(
    practice: Caller, name: str, value: str, issue: str
) -> None:
    answer = await send(practice, referral(), **{name: value})
    assert name in outcome(answer, 400, "REC_BAD_REQUEST", issue)["diagnostics"]


async def test_all_that_is_wrong_with_the_headers_is_told_at_once(practice: Caller) -> None:
    gone = dict.fromkeys(MISSING)
    answer = await send(practice, referral(), **gone, **{"NHSD-Requesting-Software": "x"})
    outcome(answer, 400, "REC_BAD_REQUEST", "required")
    assert [one["code"] for one in answer.json()["issue"]] == ["required"] * 3 + ["invalid"]


async def test_a_message_without_good_ids_is_never_processed(
    practice: Caller, place: Place
) -> None:
    before = await place.rows("SELECT count(*) FROM idempotency_key")
    message = referral()
    await send(practice, message, **{"X-Request-Id": "no"})
    assert await place.rows("SELECT count(*) FROM idempotency_key") == before
    answered(await send(practice, message), message)


async def test_the_shapes_that_the_standards_own_samples_have_are_read(practice: Caller) -> None:
    # NHSD-Requesting-Software in the API's samples is no valid Device (objects for arrays).
    device = {
        "resourceType": "Device",
        "deviceName": {"name": "Example", "type": "manufacturer-name"},
        "version": {"value": "1"},
    }
    message = referral()
    own = bars.headers(SERVICE, organisation="G99001")
    more = {"NHSD-Requesting-Software": bars.encoded(device), "use-context": "anything | at all"}
    answered(await send(practice, message, **{**own, **more}), message)


async def test_a_header_cannot_make_the_caller_another_organisation(practice: Caller) -> None:
    own = bars.headers(SERVICE, organisation="G99002")
    outcome(await send(practice, referral(), **own), 401, "REC_UNAUTHORIZED", "forbidden")


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer x.y.z", "Basic YTpi"])
async def test_without_a_good_token_it_is_401(place: Place, authorization: str) -> None:
    headers = bars.headers(SERVICE) | {"authorization": authorization}
    answer = await place.http.post(DOOR, content=json.dumps(referral()), headers=headers)
    outcome(answer, 401, "SEND_UNAUTHORIZED", "login")
    assert answer.headers["x-request-id"] == headers["X-Request-Id"]


async def test_without_its_scope_it_is_403(place: Place) -> None:
    other = await place.with_scopes("G99001", {"inbox:read"})
    outcome(await send(other, referral()), 403, "SEND_FORBIDDEN", "forbidden")


async def test_another_major_version_of_core_is_406(practice: Caller) -> None:
    accept = {"Accept": "application/fhir+json; version=2.0.0"}
    answer = await send(practice, referral(), **accept)
    outcome(answer, 406, "REC_NOT_ACCEPTABLE", "processing")
    both = {"Accept": "application/fhir+json; version=2.0.0, application/fhir+json;version=1.1.0"}
    message = referral()
    answered(await send(practice, message, **both), message)


async def test_a_target_that_nobody_has_is_404_of_who_routes(practice: Caller) -> None:
    answer = await send(practice, referral(), "2000099999")
    outcome(answer, 404, "PROXY_NOT_FOUND", "not-found")


async def test_another_content_type_is_415(practice: Caller) -> None:
    answer = await send(practice, referral(), **{"Content-Type": "application/fhir+xml"})
    outcome(answer, 415, "REC_UNSUPPORTED_MEDIA_TYPE", "not-supported")


async def test_an_answer_later_is_not_offered(practice: Caller) -> None:
    headers = bars.headers(SERVICE)
    content = json.dumps(referral())
    answer = await practice.call("POST", f"{DOOR}?async=true", content=content, headers=headers)
    outcome(answer, 501, "REC_NOT_IMPLEMENTED", "not-supported")


# -- the message ---------------------------------------------------------------------------------


def _other_receiver(message: Body) -> None:
    header(message)["destination"][0]["receiver"] = header(message)["sender"]


def _two(message: Body, kind: str) -> None:
    (first, *_) = (one for one in message["entry"] if one["resource"]["resourceType"] == kind)
    again = copy.deepcopy(first)
    again["fullUrl"] = f"urn:uuid:{uuid4()}"
    message["entry"].append(again)


def _drop(message: Body, kind: str) -> None:
    message["entry"] = [one for one in message["entry"] if one["resource"]["resourceType"] != kind]


# In the order in which a receiver checks: each is told before those that follow.
FAULTS: list[tuple[str, Change, str, str]] = [
    ("no message", lambda m: m.update(type="collection"), "value", "Bundle.type"),
    ("no header", lambda m: m["entry"].pop(0), "structure", "Bundle.entry[0].resource"),
    ("no id", lambda m: m.pop("id"), "required", "Bundle.id"),
    ("no url", lambda m: m["entry"][1].pop("fullUrl"), "required", "Bundle.entry[1].fullUrl"),
    (
        "another receiver",
        _other_receiver,
        "invariant",
        "Bundle.entry[0].resource.destination[0].receiver",
    ),
    (
        "another endpoint",
        lambda m: header(m)["destination"][0].update(endpoint=f"{bars.DOS}|1"),
        "invariant",
        "Bundle.entry[0].resource.destination[0].endpoint",
    ),
    (
        "nowhere to answer",
        lambda m: header(m)["source"].update(endpoint="C-1042"),
        "value",
        "Bundle.entry[0].resource.source.endpoint",
    ),
    (
        "an unknown event",
        lambda m: header(m)["eventCoding"].update(code="Robin Example"),
        "value",
        "Bundle.entry[0].resource.eventCoding",
    ),
    ("no version", lambda m: m["meta"].pop("versionId"), "invariant", "Bundle.meta.versionId"),
    (
        "no category",
        lambda m: request(m).pop("category"),
        "invariant",
        "Bundle.entry[1].resource.category",
    ),
    (
        "no definition",
        lambda m: header(m).pop("definition"),
        "required",
        "Bundle.entry[0].resource.definition",
    ),
    (
        "a definition that nobody has",
        lambda m: header(m).update(definition="https://fhir.nhs.uk/MessageDefinition/mine"),
        "invariant",
        "Bundle.entry[0].resource.definition",
    ),
    (
        "one Encounter too many",
        lambda m: _two(m, "Encounter"),
        "invariant",
        "Bundle.entry[0].resource.definition",
    ),
    (
        "no CarePlan",
        lambda m: _drop(m, "CarePlan"),
        "invariant",
        "Bundle.entry[0].resource.definition",
    ),
    (
        "another focus",
        lambda m: header(m)["focus"][0].update(reference=m["entry"][2]["fullUrl"]),
        "invariant",
        "Bundle.entry[0].resource.focus[0]",
    ),
    (
        "statuses that do not go together",
        lambda m: request(m).update(status="revoked"),
        "invariant",
        "Bundle.entry[0].resource.reason",
    ),
    (
        "a bad check digit",
        lambda m: resources(m, "Patient")[0]["identifier"][0].update(value="9990000019"),
        "value",
        "Bundle.entry[6].resource.identifier[0].value",
    ),
]


@pytest.mark.parametrize(
    ("change", "issue", "path"), [one[1:] for one in FAULTS], ids=[one[0] for one in FAULTS]
)
async def test_a_message_that_is_wrong_is_400_and_says_where(
    practice: Caller, place: Place, change: Change, issue: str, path: str
) -> None:
    before = await place.rows("SELECT count(*) FROM event")
    message = referral()
    change(message)
    found = outcome(await send(practice, message), 400, "REC_BAD_REQUEST", issue)
    assert found["expression"] == [path]
    assert found["diagnostics"].startswith("Nothing was sent.")
    await place.settled()
    assert await place.rows("SELECT count(*) FROM event") == before


@pytest.mark.parametrize("first", range(len(FAULTS) - 1))
async def test_what_a_receiver_checks_first_is_told_first(practice: Caller, first: int) -> None:
    message = referral()
    # What comes later first, so that the earlier fault is not made good by it.
    for _, change, _, _ in reversed(FAULTS[first : first + 2]):
        change(message)
    _, _, issue, path = FAULTS[first]
    found = outcome(await send(practice, message), 400, "REC_BAD_REQUEST", issue)
    assert found["expression"] == [path]


NOT_OFFERED: list[tuple[str, Change]] = [
    ("booking", lambda m: header(m)["eventCoding"].update(code="booking-request")),
    ("validation", lambda m: request(m)["category"][0]["coding"][0].update(code="validation")),
    ("use case", lambda m: request(m)["category"][0]["coding"][1].update(code="a1t1")),
    ("application version", lambda m: m["meta"].update(versionId="2.0.0")),
    ("no version at all", lambda m: m["meta"].update(versionId="latest")),
    ("to the broker", lambda m: request(m)["category"][0]["coding"][1].update(code="a8t1")),
    ("not by this service", lambda m: request(m)["category"][0]["coding"][1].update(code="a5t2")),
]


@pytest.mark.parametrize(
    "change", [one[1] for one in NOT_OFFERED], ids=[one[0] for one in NOT_OFFERED]
)
async def test_what_is_not_offered_is_422(practice: Caller, change: Change) -> None:
    message = referral()
    change(message)
    answer = await send(practice, message)
    outcome(answer, 422, "REC_UNPROCESSABLE_ENTITY", "not-supported")


async def test_a_sender_that_could_not_hear_of_a_failure_is_refused(place: Place) -> None:
    message = bars.referral(sender="G99003", receiver="FPH01", service=SERVICE)
    found = outcome(
        await send(place.of("G99003"), message), 422, "REC_UNPROCESSABLE_ENTITY", "not-supported"
    )
    assert "could not be told" in found["diagnostics"]


async def test_a_body_that_is_no_json_or_too_large_is_refused(practice: Caller) -> None:
    for content, status, issue in ((b"{", 400, "structure"), (b" " * 2_000_000, 413, "too-long")):
        headers = bars.headers(SERVICE)
        answer = await practice.call("POST", DOOR, content=content, headers=headers)
        outcome(answer, status, "REC_BAD_REQUEST", issue)


async def test_nothing_of_a_patient_is_in_any_refusal(practice: Caller) -> None:
    said = []
    for _, change, *_ in [*FAULTS, *NOT_OFFERED]:
        message = referral()
        change(message)
        said.append((await send(practice, message)).text)
    whole = "".join(said)
    for private in ("Robin", 'Example"', "999000001", "1980-02-29", "07700 900142"):
        assert private not in whole


# -- what is taken -------------------------------------------------------------------------------


async def test_a_patient_without_an_nhs_number_is_taken_and_marked_not_verified(
    practice: Caller, place: Place
) -> None:
    message = referral(nhs_number=None)
    answered(await send(practice, message), message)
    rows = await place.rows(
        "SELECT identity_verified, warnings FROM message ORDER BY accepted_at DESC LIMIT 1"
    )
    assert not rows[0].identity_verified
    assert "identity-not-verified" in str(rows[0].warnings)


async def test_a_use_case_in_capitals_is_the_same() -> None:
    """Read and not sent: it would be carried on as it came, and be no code of BaRS's there too."""
    message = incoming.read(referral(use_case="A5T1"))
    systems = {one.system for one in applications.use_cases().values()}
    assert message.use_case(*systems) == "a5t1"


@pytest.mark.parametrize(
    "system",
    ["http://fhir.nhs.uk/Id/dos-service-id", "https://fhir.nhs.uk/id/dos-service-id"],
)
async def test_a_service_ids_system_may_be_spelt_as_the_standard_itself_spells_it(
    practice: Caller, system: str
) -> None:
    message = referral(system=system)
    answered(await send(practice, message), message)


async def test_a_times_offset_need_not_be_utc(practice: Caller) -> None:
    message = referral()
    request(message)["authoredOn"] = "2026-11-22T09:30:00.1234567+05:30"
    answered(await send(practice, message), message)
