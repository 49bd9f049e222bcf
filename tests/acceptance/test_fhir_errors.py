"""What goes wrong under `/FHIR/R4` is told as an OperationOutcome, whatever it is."""

import httpx2
import pytest

from broker.api import problems
from fhir_profiles.profiles import ours
from tests.acceptance.place import Body, Place

pytestmark = pytest.mark.asyncio(loop_scope="module")
SYSTEM = "https://fhir.nhs.uk/CodeSystem/http-error-codes"


def outcome(answer: httpx2.Response, status: int, nhs_code: str, issue: str) -> Body:
    """Return the first issue of an answer that is an OperationOutcome of this kind."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/fhir+json; charset=utf-8"
    found = ours().check(answer.content, "OperationOutcome")
    assert [one for one in found if one.severity == "error"] == []
    first: Body = answer.json()["issue"][0]
    (coding,) = first["details"]["coding"]
    assert (coding["system"], coding["code"]) == (SYSTEM, nhs_code)
    assert coding["display"].endswith(f" - {nhs_code}")
    assert (first["severity"], first["code"]) == ("error", issue)
    return first


async def test_a_path_that_is_not_there_is_told_as_an_operation_outcome(place: Place) -> None:
    for path in ("/FHIR/R4/", "/FHIR/R4/Nothing", "/FHIR/R4/Patient/$merge"):
        outcome(await place.http.get(path), 404, "REC_NOT_FOUND", "not-found")
    native = await place.http.get("/FHIR/R4x")
    assert native.headers["content-type"] == "application/problem+json"


async def test_both_ids_of_a_request_come_back_also_on_an_error(place: Place) -> None:
    ids = {"x-request-id": "ab7d-1", "x-correlation-id": "cd8e-2"}
    answer = await place.http.get("/FHIR/R4/Nothing", headers=ids)
    assert {name: answer.headers[name] for name in ids} == ids
    strange = await place.http.get("/FHIR/R4/Nothing", headers={"x-request-id": "Robin Example"})
    assert "x-request-id" not in strange.headers


async def test_who_must_send_again_is_told_the_header_by_which_that_door_knows_it() -> None:
    for path, header in (
        ("/FHIR/R4/$process-message", b"X-Request-Id"),
        ("/FHIR/R4/ServiceRequest", b"Idempotency-Key"),
        ("/FHIR/R4", b"Idempotency-Key"),
        ("/pharmacy/consultations", b"Idempotency-Key"),
    ):
        assert header in problems.stopping({"type": "http", "path": path}).body
