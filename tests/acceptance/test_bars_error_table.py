"""BaRS's error table, row by row: what the broker answers is provoked, and tells of no patient.

The table is BaRS Core 1.5.0's, error handling; docs/bars.md says of each row when it is answered or
why never. What a sender gets of a receiver's errors is in test_bars_sentinels.py.
"""

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest
from structlog.testing import capture_logs

from broker.bars import receiving
from broker.errors import ANSWERS
from sandbox import bars, bars_sentinels
from sandbox.bars_receiver import OUTCOME, BarsReceiver, Scripted
from tests.acceptance.place import BASE, Body, Caller, Place
from tests.acceptance.test_bars import DOOR, SERVICE, answered, resources, send
from tests.acceptance.test_bars_passed_on import PHARMACY
from tests.acceptance.test_fhir_errors import outcome

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

DOCS = (Path(__file__).parents[2] / "docs" / "bars.md").read_text(encoding="utf-8")
PATIENT = {
    "name": [{"text": "Zephyrine Quillfeather", "family": "Quillfeather", "given": ["Zephyrine"]}],
    "birthDate": "1931-10-17",
    "telecom": [{"system": "phone", "value": "07700 900317"}],
    "address": [{"line": ["7 Gooseberry Row"], "postalCode": "LS2 7QZ"}],
}
NHS_NUMBER = "9990000077"
WRONG_NUMBER = "9990000078"
REST = "/FHIR/R4/ServiceRequest"
COMPLAINT = "Wheezes after gardening"
WORDS = (
    *("quillfeather", "zephyrine", "1931-10-17", "900317", "gooseberry", "ls2 7qz"),
    *("999000007", COMPLAINT.lower()),
)


@dataclass
class Asked:
    """One message about a patient whose every detail is unlike any other, and where it is sent."""

    place: Place
    monkeypatch: pytest.MonkeyPatch
    sender: str = "G99001"
    ids: dict[str, str] = field(default_factory=lambda: bars.headers(SERVICE))
    message: Body = field(init=False)

    def __post_init__(self) -> None:
        self.message = bars.referral(
            sender=self.sender, receiver="FPH01", service=SERVICE, nhs_number=NHS_NUMBER
        )
        resources(self.message, "Patient")[0].update(PATIENT)
        resources(self.message, "Condition")[0]["code"]["text"] = COMPLAINT

    @property
    def body(self) -> bytes:
        return json.dumps(self.message).encode()

    @property
    def caller(self) -> Caller:
        return self.place.of(self.sender)

    async def sent(self, **headers: str | None) -> httpx2.Response:
        return await send(self.caller, self.message, **{**self.ids, **headers})

    async def got(self, path: str) -> httpx2.Response:
        return await self.caller.call("GET", path, headers=self.ids)

    async def posted(self, content: bytes) -> httpx2.Response:
        return await self.caller.call("POST", DOOR, content=content, headers=self.ids)

    @asynccontextmanager
    async def slow_service(self) -> AsyncIterator[BarsReceiver]:
        """The service has a BaRS server of its own, which takes half a second to answer."""
        receiver = BarsReceiver()
        receiver.script.append(Scripted(200, receiver.accepted(self.message), after=0.5))
        await receiver.start()
        speaks = PHARMACY.replace("channel: inbox", f"channel: bars\n    url: {receiver.url}")
        async with self.place.directory((PHARMACY, speaks)):
            yield receiver
        await receiver.stop()


Provoke = Callable[[Asked], Awaitable[httpx2.Response]]


async def with_a_bad_number(asked: Asked) -> httpx2.Response:
    number = resources(asked.message, "Patient")[0]["identifier"][0]
    number["value"] = WRONG_NUMBER
    return await asked.sent()


async def as_xml(asked: Asked) -> httpx2.Response:
    return await asked.sent(**{"Content-Type": "application/fhir+xml"})


async def to_nobody(asked: Asked) -> httpx2.Response:
    target = bars.headers("2000099999")["NHSD-Target-Identifier"]
    return await asked.sent(**{"NHSD-Target-Identifier": target})


async def without_version(asked: Asked) -> httpx2.Response:
    del asked.message["meta"]["versionId"]
    return await asked.sent()


async def without_token(asked: Asked) -> httpx2.Response:
    return await asked.place.http.post(DOOR, content=asked.body, headers=asked.ids)


async def without_scope(asked: Asked) -> httpx2.Response:
    other = await asked.place.with_scopes("G99001", {"inbox:read"})
    return await send(other, asked.message, **asked.ids)


async def in_anothers_name(asked: Asked) -> httpx2.Response:
    name = "NHSD-End-User-Organisation"
    return await asked.sent(**{name: bars.headers(SERVICE, organisation="G99002")[name]})


async def response_to_nothing(asked: Asked) -> httpx2.Response:
    stray = bars.response(asked.message, encounter="in-progress", bundle=str(uuid4()))
    ids = {name: asked.ids[name] for name in ("X-Request-Id", "X-Correlation-Id")}
    return await send(asked.place.of("FPH01"), stray, "G99001", bars.ODS, **ids)


async def to_a_slow_service_by_who_cannot_be_told(asked: Asked) -> httpx2.Response:
    deaf = Asked(asked.place, asked.monkeypatch, sender="G99003", ids=asked.ids)
    asked.monkeypatch.setattr(receiving, "PATIENCE", 0.1)
    async with deaf.slow_service():
        return await deaf.sent()


async def twice(asked: Asked) -> httpx2.Response:
    answered(await asked.sent(), asked.message)
    return await asked.sent()


async def twice_with_another_body(asked: Asked) -> httpx2.Response:
    answered(await asked.sent(), asked.message)
    asked.message["timestamp"] = "2026-11-22T10:00:00+00:00"
    return await asked.sent()


async def twice_at_once(asked: Asked) -> httpx2.Response:
    async with asked.slow_service():
        first = asyncio.create_task(asked.sent())
        await asyncio.wait({first}, timeout=0.2)
        assert not first.done()
        again = await asked.sent()
        answered(await first, asked.message)
        return again


async def another_use_case(asked: Asked) -> httpx2.Response:
    resources(asked.message, "ServiceRequest")[0]["category"][0]["coding"][1]["code"] = "a1t1"
    return await asked.sent()


async def by_a_bug(asked: Asked) -> httpx2.Response:
    """A bug whose own words are the whole message; the server beneath hears of it too."""

    def fails(*_: object) -> None:
        raise ValueError(json.dumps(asked.message))

    token = await asked.place.token("G99001", "acceptance")
    transport = httpx2.ASGITransport(asked.place.app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=BASE) as http:
        asked.monkeypatch.setattr(receiving, "understand", fails)
        headers = {**asked.ids, "authorization": f"Bearer {token}"}
        return await http.post(DOOR, content=asked.body, headers=headers)


async def into_a_locked_database(asked: Asked) -> httpx2.Response:
    await asked.got("/messages")  # signed in already
    path = asked.place.folder / "data" / "broker.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        try:
            return await asked.sent()
        finally:
            other.execute("ROLLBACK")


Row = tuple[int, str, str]

# In the order of the standard's table; what it does not have stands where it would.
PROVOKED: dict[Row, Provoke] = {
    (400, "REC_BAD_REQUEST", "invalid"): lambda a: a.sent(**{"NHSD-Target-Identifier": "%%%"}),
    (400, "REC_BAD_REQUEST", "required"): lambda a: a.sent(**{"NHSD-Target-Identifier": None}),
    (400, "REC_BAD_REQUEST", "value"): with_a_bad_number,
    (400, "REC_BAD_REQUEST", "invariant"): without_version,
    (400, "REC_BAD_REQUEST", "not-supported"): lambda a: a.got(f"{REST}?_sort=weight"),
    (400, "REC_BAD_REQUEST", "structure"): lambda a: a.posted(a.body[:-1]),
    (401, "SEND_UNAUTHORIZED", "login"): without_token,
    (401, "REC_UNAUTHORIZED", "forbidden"): in_anothers_name,
    (403, "SEND_FORBIDDEN", "forbidden"): without_scope,
    (404, "REC_NOT_FOUND", "not-found"): response_to_nothing,
    (404, "PROXY_NOT_FOUND", "not-found"): to_nobody,
    (405, "REC_METHOD_NOT_ALLOWED", "not-supported"): lambda a: a.got(DOOR),
    (406, "REC_NOT_ACCEPTABLE", "processing"): lambda a: a.sent(Accept="application/fhir+xml"),
    (408, "REC_TIMEOUT", "timeout"): to_a_slow_service_by_who_cannot_be_told,
    (409, "REC_CONFLICT", "duplicate"): twice,
    (409, "REC_CONFLICT", "conflict"): twice_with_another_body,
    (413, "REC_BAD_REQUEST", "too-long"): lambda a: a.posted(a.body + b" " * 2_000_000),
    (415, "REC_UNSUPPORTED_MEDIA_TYPE", "not-supported"): as_xml,
    (422, "REC_UNPROCESSABLE_ENTITY", "not-supported"): another_use_case,
    (425, "REC_TOO_EARLY", "duplicate"): twice_at_once,
    (500, "REC_SERVER_ERROR", "exception"): by_a_bug,
    (501, "REC_NOT_IMPLEMENTED", "not-supported"): lambda a: a.got("/FHIR/R4/Slot?status=free"),
    (503, "REC_SERVICE_UNAVAILABLE", "transient"): into_a_locked_database,
}
# The standard's table, whole.
STANDARD = {
    (400, "REC_BAD_REQUEST"): "invalid required value invariant not-supported",
    (400, "SEND_BAD_REQUEST"): "required value invalid",
    (400, "PROXY_BAD_REQUEST"): "structure invalid",
    (401, "SEND_UNAUTHORIZED"): "login expired security unknown",
    (401, "REC_UNAUTHORIZED"): "security forbidden",
    (403, "SEND_FORBIDDEN"): "forbidden",
    (403, "REC_FORBIDDEN"): "forbidden security",
    (404, "REC_NOT_FOUND"): "not-found",
    (404, "PROXY_NOT_FOUND"): "not-found multiple-matches",
    (405, "SEND_METHOD_NOT_ALLOWED"): "not-supported",
    (406, "SEND_NOT_ACCEPTABLE"): "processing",
    (406, "REC_NOT_ACCEPTABLE"): "processing",
    (408, "REC_TIMEOUT"): "timeout",
    (409, "REC_CONFLICT"): "duplicate conflict",
    (422, "REC_UNPROCESSABLE_ENTITY"): "not-supported too-costly",
    (425, "REC_TOO_EARLY"): "duplicate",
    (429, "SEND_TOO_MANY_REQUESTS"): "throttled",
    (500, "REC_SERVER_ERROR"): "exception transient no-store too-costly",
    (500, "PROXY_SERVER_ERROR"): "exception transient",
    (501, "REC_NOT_IMPLEMENTED"): "not-supported",
    (503, "REC_SERVICE_UNAVAILABLE"): "transient",
    (503, "PROXY_UNAVAILABLE"): "transient",
}
# A status for which http-error-codes has no code bears another's.
CODED = {413: 400}
# Below /FHIR/R4 only, and tested there: erased, a version gone by, no version named.
BY_REST = {410, 412, 428}


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            row,
            id=" ".join(map(str, row)),
            marks=[pytest.mark.embedded] if provoke is into_a_locked_database else [],
        )
        for row, provoke in PROVOKED.items()
    ],
)
async def test_an_error_is_told_as_the_table_has_it_and_says_nothing_of_the_patient(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    row: Row,
) -> None:
    status, code, issue = row
    asked = Asked(place, monkeypatch)
    with capture_logs() as lines:
        answer = await PROVOKED[row](asked)
    outcome(answer, status, code, issue)
    said = answer.json()
    assert said["meta"]["profile"] == [OUTCOME]
    for one in said["issue"]:
        (coding,) = one["details"]["coding"]
        assert coding["display"] == f"{CODED.get(status, status)} - {code}"
        assert one["diagnostics"]
    for name in ("X-Request-Id", "X-Correlation-Id"):
        assert answer.headers[name] == asked.ids[name]
    assert lines
    told = f"{answer.text} {answer.headers} {lines} {caplog.text}".lower()
    assert [word for word in WORDS if word in told] == []


async def test_the_words_that_must_not_be_told_do_stand_in_what_is_sent(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = Asked(place, monkeypatch).body.decode().lower()
    assert [word for word in WORDS if word not in sent] == []


@pytest.mark.parametrize(
    "fails",
    [by_a_bug, pytest.param(into_a_locked_database, marks=pytest.mark.embedded), twice_at_once],
)
async def test_after_what_may_pass_the_same_request_is_taken_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, fails: Provoke
) -> None:
    asked = Asked(place, monkeypatch)
    assert (await fails(asked)).status_code in {425, 500, 503}
    monkeypatch.undo()
    if fails is not twice_at_once:
        answered(await asked.sent(), asked.message)
    outcome(await asked.sent(), 409, "REC_CONFLICT", "duplicate")


async def test_a_method_that_is_not_allowed_is_answered_with_those_that_are(
    place: Place, practice: Caller
) -> None:
    assert (await practice.call("GET", DOOR)).headers["allow"] == "POST"


# -- what docs/bars.md says ----------------------------------------------------------------------


def documented(heading: str) -> list[Row]:
    """Return the rows of the table under a heading: its first three columns."""
    section = DOCS.partition(f"\n### {heading}\n")[2].partition("\n#")[0]
    lines = re.findall(r"^\| (\d{3}) \| `(\w+)` \| (.+?) \|", section, re.MULTILINE)
    return [
        (int(status), code, issue)
        for status, code, issues in lines
        for issue in issues.replace("`", "").split(", ")
    ]


async def test_the_documented_table_is_what_is_provoked_here() -> None:
    assert documented("What the broker answers") == list(PROVOKED)


async def test_every_row_of_the_standard_is_given_or_said_to_be_not() -> None:
    absent = documented("What it never answers")
    rows = {(*key, issue) for key, issues in STANDARD.items() for issue in issues.split()}
    assert len(absent) == len(set(absent))
    assert set(absent) == rows - PROVOKED.keys()


async def test_every_error_that_can_be_answered_is_in_the_table() -> None:
    told = {(one.status, one.nhs_code) for one in ANSWERS.values() if one.status not in BY_REST}
    assert told == {(status, code) for status, code, _ in PROVOKED}


async def test_the_documented_sentinel_targets_are_those_that_there_are() -> None:
    (_, *rows) = bars_sentinels.as_table()
    section = DOCS.partition("\n## Trying errors\n")[2]
    found = re.findall(r"^\| (\d{10}) \| (.*) \| (\w+) \|$", section, re.MULTILINE)
    assert [(dos, words.replace("`", ""), gets) for dos, words, gets in found] == rows
