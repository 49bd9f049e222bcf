"""Every route, as a caller finds it: signed in or not, with and without the scope, and as nobody.

The routes are read from the application, so that a new one is held to this from its first day.
"""

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from starlette.routing import Mount

from broker import registry
from broker.access import OPEN_ROUTES, TABLE, Scope, submit_scope
from broker.api.fhir.types import CLASSES
from broker.errors import ANSWERS
from broker.store import clients
from tests.acceptance.place import (
    EVERYTHING,
    Body,
    Caller,
    Place,
    consultation,
    first,
    problem,
    reading,
    referral,
    taken,
)
from tests.acceptance.test_attachments import naming, uploaded
from tests.acceptance.test_fhir_errors import outcome

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The page at /docs and all that it loads, from the wheel.
DOCS_ASSETS = ("/docs/start.js", "/docs/assets")
NOWHERE = "00000000-0000-7000-8000-000000000000"
# Every door but the two that stand below by themselves.
PILLARS = {
    name: one
    for name, one in registry.load().adapters.items()
    if name not in {"pharmacy", "optometry"}
}
GOOD: dict[str, Any] = {
    "/pharmacy/consultations": consultation(),
    "/optometry/referrals": referral(),
    **{one.door: next(iter(one.examples.values())) for one in PILLARS.values()},
}

# What each route needs, by hand: its scope, and which object its path names.
NEEDS: dict[tuple[str, str], tuple[str, str]] = {
    ("GET", "/inbox"): (Scope.INBOX_READ, ""),
    ("GET", "/inbox/{}"): (Scope.INBOX_READ, "delivery"),
    ("PUT", "/inbox/{}/receipt"): (Scope.INBOX_WRITE, "delivery"),
    ("PUT", "/inbox/{}/acknowledgement"): (Scope.INBOX_WRITE, "delivery"),
    ("GET", "/referrals/{}"): (Scope.REFERRALS_READ, "referral"),
    ("POST", "/referrals/{}/convert"): (Scope.REFERRALS_WRITE, "referral"),
    ("POST", "/referrals/{}/{}"): (Scope.REFERRALS_WRITE, "referral"),
    ("GET", "/messages/{}"): (Scope.MESSAGES_READ, "message"),
    ("GET", "/messages/{}/status"): (Scope.MESSAGES_READ, "message"),
    ("GET", "/messages"): (Scope.MESSAGES_READ, ""),
    ("GET", "/overdue"): (Scope.MESSAGES_READ, ""),
    ("GET", "/communications/{}/thread"): (Scope.MESSAGES_READ, "message"),
    ("POST", "/messages/{}/telephone-calls"): (Scope.MESSAGES_WRITE, "message"),
    ("POST", "/messages/{}/withdrawal"): (Scope.MESSAGES_WRITE, "message"),
    ("POST", "/messages/{}/closure"): (Scope.MESSAGES_WRITE, "message"),
    ("POST", "/FHIR/R4/$process-message"): (Scope.BARS, ""),
    ("POST", "/attachments"): (Scope.ATTACHMENTS_WRITE, ""),
    ("GET", "/attachments/{}"): (Scope.ATTACHMENTS_READ, "attachment"),
    ("GET", "/organisations/{}"): (Scope.DIRECTORY_READ, ""),
    ("GET", "/services"): (Scope.DIRECTORY_READ, ""),
    ("GET", "/pathways"): (Scope.DIRECTORY_READ, ""),
    ("GET", "/pathways/{}"): (Scope.DIRECTORY_READ, ""),
    ("GET", "/FHIR/R4/ServiceRequest"): (Scope.FHIR_READ, ""),
    ("POST", "/FHIR/R4/ServiceRequest/_search"): (Scope.FHIR_READ, ""),
    ("GET", "/FHIR/R4/ServiceRequest/{}"): (Scope.FHIR_READ, "resource"),
    ("GET", "/FHIR/R4/ServiceRequest/{}/_history"): (Scope.FHIR_READ, "resource"),
    ("GET", "/FHIR/R4/ServiceRequest/{}/_history/{}"): (Scope.FHIR_READ, "resource"),
    ("POST", "/FHIR/R4/ServiceRequest"): (Scope.FHIR_WRITE, ""),
    ("PUT", "/FHIR/R4/Task/{}"): (Scope.FHIR_WRITE, "referral"),
    ("POST", "/FHIR/R4"): (Scope.FHIR_WRITE, ""),
    ("GET", "/FHIR/R4/Patient/{}"): (Scope.FHIR_READ, "resource"),
    ("POST", "/pharmacy/consultations"): (submit_scope("pharmacy"), ""),
    ("PUT", "/pharmacy/consultations/{}"): (submit_scope("pharmacy"), "message"),
    ("POST", "/optometry/referrals"): (submit_scope("optometry"), ""),
    ("PUT", "/optometry/referrals/{}"): (submit_scope("optometry"), "message"),
    **{
        (method, path): (submit_scope(name), kind)
        for name, adapter in PILLARS.items()
        for method, path, kind in (
            ("POST", adapter.door, ""),
            ("PUT", f"{adapter.door}/{{}}", "message"),
        )
    },
}
OBJECTS = [one for one, (_, kind) in NEEDS.items() if kind]


def routes(found: Any) -> Iterator[tuple[str, str]]:
    """Yield (method, path) of every route, however deep it was included."""
    for route in found:
        if isinstance(route, Mount):
            yield "GET", route.path
        elif getattr(route, "methods", None):
            yield from ((method, route.path) for method in route.methods - {"HEAD"})
        else:
            inner = getattr(route, "original_router", None) or getattr(route, "app", None)
            yield from routes(getattr(inner, "routes", ()))


def plain(path: str) -> str:
    """Return a path without the names of its parameters; one type stands for its whole class."""
    for name, types in CLASSES.items():
        path = re.sub(rf"\{{{name}(:{name})?\}}", types[0], path)
    return re.sub(r"\{[^}]*\}", "{}", path)


OPEN = {plain(path) for path in OPEN_ROUTES}


def filled(path: str, identity: str) -> str:
    """Return a path with an identity in it, and a move where one is asked for."""
    return path.replace("{}", identity, 1).replace("{}", "accept")


def refused(answer: httpx2.Response, status: int, code: str) -> Body:
    """Return the problem that an answer tells in the words of its door, FHIR's or a native one."""
    if not answer.request.url.path.startswith("/FHIR/R4"):
        return problem(answer, status, code)
    told = ANSWERS[code]
    return {"detail": outcome(answer, status, told.nhs_code, told.fhir_issue)["diagnostics"]}


async def ask(
    caller: Caller | None, place: Place, method: str, path: str, identity: str = NOWHERE
) -> httpx2.Response:
    """Call a route with a body and headers that it would take."""
    given: dict[str, Any] = {}
    if method != "GET":
        body = next((b for door, b in GOOD.items() if path.startswith(door)), {})
        headers = {"idempotency-key": str(uuid4()), "if-match": 'W/"1"'}
        given = {"json": body, "headers": headers}
    if caller is None:
        return await place.http.request(method, filled(path, identity), **given)
    return await caller.call(method, filled(path, identity), **given)


async def test_every_route_is_known_here(place: Place) -> None:
    found = {(method, plain(path)) for method, path in routes(place.app.routes)}
    open_ones = {(m, p) for m, p in found if p in OPEN or p in DOCS_ASSETS}
    assert found - open_ones == set(NEEDS)
    assert {p for _, p in open_ones} == {*OPEN, *DOCS_ASSETS}
    assert {str(scope) for scope, _ in NEEDS.values()} == set(EVERYTHING)
    assert {rule.scope for rule in TABLE.values()} >= set(Scope)


@pytest.mark.parametrize(("method", "path"), NEEDS)
@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer nonsense", "Basic YTpi", "Bearer a.b.c"]
)
async def test_without_a_token_every_route_is_401(
    place: Place, method: str, path: str, header: str | None
) -> None:
    headers = {} if header is None else {"authorization": header}
    for identity in (NOWHERE, "not-a-uuid"):
        at = filled(path, identity)
        answer = await place.http.request(method, at, json={}, headers=headers)
        if identity == NOWHERE or "uuid" not in at:
            refused(answer, 401, "unauthenticated")
            assert answer.headers["www-authenticate"].startswith("Bearer")
        else:
            assert answer.status_code in {401, 404}


@pytest.mark.parametrize("path", [*sorted(OPEN), "/docs/start.js", "/docs/assets/swagger-ui.css"])
async def test_the_open_routes_answer_without_one(place: Place, path: str) -> None:
    if path == "/oauth2/token":
        answer = await place.http.post(path, data={})
        assert answer.status_code == 400 and "error" in answer.json()
    else:
        answer = await place.http.get(filled(path, "notice"))
        assert answer.status_code == 200
    if path.startswith("/health"):
        assert re.fullmatch(r"[a-z]+", answer.text)
    if path == "/docs":
        loaded = re.findall(r'(?:src|href)="([^"]*)"', answer.text)
        assert loaded and all(one.startswith("/") for one in loaded)


@pytest.mark.parametrize(("method", "path"), NEEDS)
async def test_without_its_scope_every_route_is_403_whatever_it_names(
    place: Place, method: str, path: str
) -> None:
    scope, _ = NEEDS[method, path]
    caller = await place.with_scopes("FPH01", set(EVERYTHING) - {str(scope)})
    update = first(await place.of("FPH01").submit(consultation()))
    answers = [await ask(caller, place, method, path, one) for one in (NOWHERE, update["id"])]
    for answer in answers:
        assert str(scope) in refused(answer, 403, "forbidden")["detail"]
    assert answers[0].content == answers[1].content


@pytest.mark.parametrize("scope", EVERYTHING)
async def test_one_scope_alone_opens_only_its_own_routes(place: Place, scope: str) -> None:
    caller = await place.with_scopes("TPX02", {scope})
    for (method, path), (needed, _) in NEEDS.items():
        answer = await ask(caller, place, method, path)
        if needed == scope:
            # The posts say another organisation: that is refused too, but for another reason.
            assert answer.status_code != 401 and "scope" not in answer.text
        else:
            refused(answer, 403, "forbidden")


async def objects(place: Place) -> dict[str, list[str]]:
    """Return the ids of real objects of every kind, with nothing to do with any stranger."""
    pharmacy, optometrist = place.of("FPH01"), place.of("TPX01")
    sent = await pharmacy.submit(reading(196, 124))
    image = await uploaded(optometrist)
    sight_test = referral("raised-pressure", attachments=naming(image))
    (referred,) = (await optometrist.submit(sight_test))["messages"]
    practice, hospital = place.of("G99001"), place.of("RXX01")
    task = first(sent, "referral")
    rows = [
        await practice.take(first(sent)["id"]),
        await practice.arrived(task["id"]),
        await hospital.take(referred["id"]),
        await practice.arrived(referred["id"]),
    ]
    taken(await practice.decide(rows[0], outcome="filed"), 200)
    withheld = consultation(consent_to_inform_gp=False)
    (kept,) = taken(await pharmacy.post("/pharmacy/consultations", withheld))["messages"]
    messages = [first(sent)["id"], task["id"], referred["id"], kept["id"]]
    subjects = [one["referral"].rpartition("/")[2] for one in (task, referred)]
    known = f"'{first(sent)['id']}', '{referred['id']}'"
    indexed = await place.rows(f"SELECT id FROM resource_index WHERE message_id IN ({known})")  # noqa: S608
    return {
        "resource": [row.id for row in indexed],
        "delivery": [row["id"] for row in rows],
        "referral": subjects,
        "attachment": [image["id"]],
        "message": messages + subjects,  # a correction may name the referral too
    }


async def test_to_a_stranger_what_is_there_reads_like_what_is_not(place: Place) -> None:
    found = await objects(place)
    for method, path in OBJECTS:
        _, kind = NEEDS[method, path]
        for ods in ("RYY01", "FPH02", "G99003"):
            stranger = place.of(ods)
            absent = await ask(stranger, place, method, path)
            refused(absent, 404, "not-found")
            for identity in found[kind]:
                there = await ask(stranger, place, method, path, identity)
                assert there.status_code == 404, (method, path, there.text)
                assert there.content == absent.content
                assert _shape(there) == _shape(absent)


def _shape(answer: httpx2.Response) -> dict[str, str]:
    return {n: v for n, v in answer.headers.items() if n not in {"x-correlation-id", "date"}}


async def test_one_kind_of_id_is_not_another(place: Place) -> None:
    found = await objects(place)
    owner = place.of("FPH01")
    for method, path in OBJECTS:
        _, kind = NEEDS[method, path]
        for other in {"delivery", "referral", "message", "resource", "attachment"} - {kind}:
            for identity in set(found[other]) - set(found[kind]):
                if "pharmacy" in path or "optometry" in path:
                    continue
                answer = await ask(owner, place, method, path, identity)
                refused(answer, 404, "not-found")


async def test_an_adapters_door_corrects_only_what_came_through_it(
    place: Place, pharmacy: Caller
) -> None:
    update = first(await pharmacy.submit(consultation()))
    answer = await ask(pharmacy, place, "PUT", "/optometry/referrals/{}", update["id"])
    refused(answer, 404, "not-found")


async def test_revoking_a_grant_or_a_key_ends_a_token_that_was_given_out(place: Place) -> None:
    caller = await place.with_scopes("FPH02", {"messages:read"})
    taken(await caller.get("/messages"), 200)
    await place.broker.store.write(lambda tx: clients.revoke_grant(tx, caller.client, "FPH02"))
    refused(await caller.get("/messages"), 401, "unauthenticated")


async def test_answers_are_not_kept_by_any_cache_and_carry_a_correlation_id(
    place: Place, pharmacy: Caller
) -> None:
    update: Body = first(await pharmacy.submit(consultation()))
    for path in (update["url"], "/messages", "/inbox", "/overdue", f"/messages/{NOWHERE}"):
        answer = await pharmacy.call("GET", path, headers={"x-correlation-id": "mine-1"})
        assert answer.headers["cache-control"] == "no-store", path
        assert answer.headers["x-correlation-id"] == "mine-1"
        assert answer.headers["x-content-type-options"] == "nosniff"
    forged = await pharmacy.call("GET", "/messages", headers={"x-correlation-id": "a b\tc"})
    assert forged.headers["x-correlation-id"] != "a b\tc"
