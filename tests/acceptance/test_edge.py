"""What holds for every answer of every door, whatever the caller wrote and whatever broke."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from adapters.pharmacy import ADAPTER as PHARMACY
from broker.api import edge
from broker.api.app import create_app
from broker.settings import Settings
from broker.telemetry import metrics
from tests.acceptance.place import BASE, Caller, Place, consultation, first, problem

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_unexpected_error_is_answered_with_correlation_id_and_security_headers(
    tmp_path: Path,
) -> None:
    app = create_app(Settings(data_dir=tmp_path))  # never opened, so that its doors break
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
        answer = await http.get("/health/ready", headers={"x-correlation-id": "mine-1"})
    problem(answer, 500, "internal")
    assert answer.headers["x-correlation-id"] == "mine-1"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_body_that_never_ends_is_refused_in_time(
    pharmacy: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge, "BODY_SECONDS", 0.05)

    async def stalls() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(30)

    headers = {"content-type": "application/json", "idempotency-key": str(uuid4())}
    answer = await pharmacy.call("POST", PHARMACY.door, content=stalls(), headers=headers)
    assert "did not come within 0.05 seconds" in problem(answer, 408, "timed-out")["detail"]
    assert answer.headers["connection"] == "close"


async def test_a_made_up_method_is_counted_as_one_of_others(place: Place) -> None:
    for method in ("ROBIN", "EXAMPLE"):
        assert (await place.http.request(method, "/health/live")).status_code == 405
    shown = metrics().decode()
    assert 'method="other"' in shown
    assert "ROBIN" not in shown and "EXAMPLE" not in shown


@pytest.mark.parametrize("tag", ["\xb2", 'W/"\xb2"', "1\xb2"])
async def test_a_version_in_digits_that_are_no_number_matches_none(
    pharmacy: Caller, tag: str
) -> None:
    body = consultation()
    message = first(await pharmacy.submit(body))
    answer = await pharmacy.call(
        "PUT",
        f"{PHARMACY.door}/{message['id']}",
        json=body | {"plan": "Return if the rash spreads."},
        headers={"if-match": tag.encode("latin-1")},
    )
    problem(answer, 412, "stale")
