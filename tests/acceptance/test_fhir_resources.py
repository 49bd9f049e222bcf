"""What was sent, as a FHIR client finds it again: its own, in its own bytes, and nobody else's."""

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from broker.api.outcomes import BASE
from broker.composition import CONTENT
from broker.store import messages
from broker.store import tables as t
from broker.telemetry import metrics
from fhir_profiles import bundle, codes, strict_json
from fhir_profiles.profiles import ours
from tests.acceptance.place import (
    Body,
    Caller,
    Place,
    consultation,
    first,
    reading,
    referral,
    taken,
)
from tests.acceptance.test_fhir_errors import outcome

pytestmark = pytest.mark.asyncio(loop_scope="module")
REFERENCE = codes.SENDER_REFERENCE
NOWHERE = "00000000-0000-7000-8000-000000000000"


def sound(answer: httpx2.Response) -> Body:
    """Return an answer in FHIR; all that is wrong is that what it refers to stands elsewhere."""
    said = taken(answer, 200)
    assert answer.headers["content-type"] == "application/fhir+json; charset=utf-8"
    errors = [one for one in ours().check(answer.content) if one.severity == "error"]
    assert [one for one in errors if one.code != "not-found"] == []
    return said


async def find(caller: Caller, type_: str, **parameters: Any) -> list[Body]:
    """Return the resources that match, of every page."""
    found: list[Body] = []
    answer = await caller.get(f"{BASE}/{type_}", **parameters)
    while True:
        page = sound(answer)
        entries = page.get("entry", [])
        found += [one["resource"] for one in entries if one["search"]["mode"] == "match"]
        following = link(page, "next")
        if following is None:
            return found
        answer = await caller.call("GET", following)


def link(page: Body, relation: str) -> str | None:
    return next((one["url"] for one in page["link"] if one["relation"] == relation), None)


def called(body: Body) -> str:
    """Return how a search names what was sent under a body's own reference."""
    holder = body.get("pharmacy") or body["optical_practice"]
    return f"{REFERENCE}/{holder['ods']}|{body['reference']}"


async def sent(caller: Caller, body: Body) -> tuple[Body, Body]:
    """Send a body; return its message and the resource that it is about."""
    said = await caller.submit(body)
    message = said["messages"][0]
    type_ = "Communication" if message["kind"] == "update" else "ServiceRequest"
    (found,) = await find(caller, type_, identifier=f"{codes.MESSAGE_ID}|{message['id']}")
    return message, found


async def content(place: Place, message: str) -> bytes:
    (row,) = await place.rows("SELECT event_id FROM message WHERE id = :id", id=message)
    vault = place.broker.vault
    opened = await place.broker.store.read(
        lambda c: messages.payload(c, vault, row.event_id, CONTENT)
    )
    assert opened is not None
    return opened.body


# -- read ----------------------------------------------------------------------------------------


async def test_a_read_returns_the_stored_bytes_with_only_id_and_meta_put_in(
    place: Place, pharmacy: Caller
) -> None:
    message, found = await sent(pharmacy, reading(196, 124))
    stored = await content(place, message["id"])
    held = bundle.held(stored, message["id"])
    for row in bundle.index(json.loads(stored)):
        answer = await pharmacy.get(f"{BASE}/{row.type}/{row.resource_id}")
        read, kept = sound(answer), dict(strict_json.members(held[row.full_url][1]))
        shown = dict(strict_json.members(answer.content))
        assert shown.keys() == kept.keys() | {"id", "meta"}
        assert {n: v for n, v in shown.items() if n != "meta"} == {
            **{n: v for n, v in kept.items() if n != "meta"},
            "id": json.dumps(row.resource_id).encode(),
        }
        before = strict_json.loads(kept.get("meta", b"{}"))
        assert read["meta"] == before | {
            "versionId": "1",
            "lastUpdated": read["meta"]["lastUpdated"],
        }
        assert (answer.headers["etag"], read["id"]) == ('W/"1"', row.resource_id)
        assert answer.headers["cache-control"] == "no-store"
    assert found["id"] in {row.resource_id for row in bundle.index(json.loads(stored))}


async def test_who_has_this_version_is_not_sent_it_again(pharmacy: Caller) -> None:
    _, found = await sent(pharmacy, consultation())
    path = f"{BASE}/Communication/{found['id']}"
    again = await pharmacy.call("GET", path, headers={"if-none-match": 'W/"9", W/"1"'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["last-modified"].endswith("GMT")


async def test_who_has_what_was_withdrawn_since_is_told_so_and_not_that_it_is_the_same(
    pharmacy: Caller,
) -> None:
    message, found = await sent(pharmacy, consultation())
    path, known = f"{BASE}/Communication/{found['id']}", {"if-none-match": 'W/"1"'}
    assert (await pharmacy.call("GET", path, headers=known)).status_code == 304
    taken(await pharmacy.post(f"{message['url']}/withdrawal"))
    again = sound(await pharmacy.call("GET", path, headers=known))
    assert [one["code"] for one in again["meta"]["tag"]] == ["withdrawn"]


async def test_sender_receivers_and_copies_read_it_and_nobody_else(
    place: Place, optometrist: Caller, hospital: Caller, practice: Caller
) -> None:
    message, found = await sent(optometrist, referral("raised-pressure"))
    stored = json.loads(await content(place, message["id"]))
    (patient,) = [row for row in bundle.index(stored) if row.type == "Patient"]
    for path in (
        f"{BASE}/ServiceRequest/{found['id']}",
        f"{BASE}/ServiceRequest/{found['id']}/_history",
        f"{BASE}/ServiceRequest/{found['id']}/_history/1",
        f"{BASE}/Patient/{patient.resource_id}",
    ):
        for caller in (optometrist, hospital, practice):
            sound(await caller.get(path))
        for ods in ("RYY01", "FPH01", "G99002"):
            outcome(await place.of(ods).get(path), 404, "REC_NOT_FOUND", "not-found")
    for path in (
        f"Patient/{found['id']}",
        f"ServiceRequest/{found['id']}/_history/2",
        f"ServiceRequest/{found['id'].replace('-', '')}",
        f"ServiceRequest/urn:uuid:{found['id']}",
        f"ServiceRequest/{'a' * 65}",
        "ServiceRequest/%00",
        "Task/x",
    ):
        outcome(await optometrist.get(f"{BASE}/{path}"), 404, "REC_NOT_FOUND", "not-found")
    for caller in (optometrist, hospital, practice):
        assert found["id"] in [one["id"] for one in await find(caller, "ServiceRequest")]
    for ods in ("RYY01", "G99002"):
        assert found["id"] not in [one["id"] for one in await find(place.of(ods), "ServiceRequest")]


async def test_what_is_restricted_is_seen_by_its_parties_alone(
    place: Place, optometrist: Caller, hospital: Caller, practice: Caller
) -> None:
    _, found = await sent(optometrist, referral("raised-pressure"))
    chosen = update(t.resource_viewer).where(t.resource_viewer.c.resource_id == found["id"])
    await place.broker.store.write(lambda tx: tx.execute(chosen.values(label="R")))
    path = f"{BASE}/ServiceRequest/{found['id']}"
    for caller in (optometrist, hospital):
        sound(await caller.get(path))
        assert len(await find(caller, "ServiceRequest", _id=found["id"])) == 1
    outcome(await practice.get(path), 404, "REC_NOT_FOUND", "not-found")
    assert await find(practice, "ServiceRequest", _id=found["id"]) == []


async def test_what_was_erased_is_gone_and_not_found_any_more(
    place: Place, pharmacy: Caller
) -> None:
    message, found = await sent(pharmacy, consultation())
    (row,) = await place.rows("SELECT key_id FROM message WHERE id = :id", id=message["id"])
    erase = t.message_key.delete().where(t.message_key.c.id == row.key_id)
    await place.broker.store.write(lambda tx: tx.execute(erase))
    answer = await pharmacy.get(f"{BASE}/Communication/{found['id']}")
    assert (answer.status_code, answer.json()["issue"][0]["code"]) == (410, "deleted")
    assert await find(pharmacy, "Communication", _id=found["id"]) == []


async def test_who_succeeds_another_finds_what_was_sent_to_it_once(
    place: Place, pharmacy: Caller, practice: Caller
) -> None:
    _, found = await sent(pharmacy, consultation(practice="G99002"))
    assert await find(practice, "Communication", _id=found["id"]) == []
    open_one = "ods: G99002\n    name: Hilltop Surgery\n    pillar: general-practice\n    icb: QXX"
    closed = f"{open_one}\n    status: closed\n    successor: G99001"
    async with place.directory((open_one, closed)):
        assert len(await find(practice, "Communication", _id=found["id"])) == 1
        every = [one["id"] for one in await find(practice, "Communication", _count=3)]
        assert len(every) == len(set(every))
        sound(await practice.get(f"{BASE}/Communication/{found['id']}"))
        count = sound(await practice.get(f"{BASE}/Communication", _summary="count"))
        assert count["total"] == len(every)


# -- versions ------------------------------------------------------------------------------------


async def test_an_amended_referral_is_another_resource_and_the_old_one_says_so(
    optometrist: Caller, hospital: Caller
) -> None:
    body = referral("raised-pressure")
    message, old = await sent(optometrist, body)
    await hospital.take(message["id"])
    tag = await optometrist.etag(message["url"])
    changed = body | {"symptoms": "Worse since yesterday."}
    taken(
        await optometrist.put(f"/optometry/referrals/{message['id']}", changed, if_match=tag), 200
    )
    read = sound(await hospital.get(f"{BASE}/ServiceRequest/{old['id']}"))
    assert [one["code"] for one in read["meta"]["tag"]] == ["replaced"]
    reference = next(i for i in old["identifier"] if i["value"] == body["reference"])
    (new,) = await find(
        hospital, "ServiceRequest", identifier=f"{reference['system']}|{reference['value']}"
    )
    assert new["id"] != old["id"] and "tag" not in new["meta"]
    assert await find(hospital, "ServiceRequest", _id=old["id"]) == []
    past = sound(await optometrist.get(f"{BASE}/ServiceRequest/{old['id']}/_history"))
    assert [one["resource"]["id"] for one in past["entry"]] == [old["id"]]


async def test_what_was_withdrawn_says_so_and_is_not_found_any_more(pharmacy: Caller) -> None:
    message, found = await sent(pharmacy, consultation())
    taken(await pharmacy.post(f"{message['url']}/withdrawal"))
    read = sound(await pharmacy.get(f"{BASE}/Communication/{found['id']}"))
    assert [one["code"] for one in read["meta"]["tag"]] == ["withdrawn"]
    assert await find(pharmacy, "Communication", _id=found["id"]) == []


async def test_a_task_says_where_its_referral_stands_version_by_version(
    place: Place, optometrist: Caller, hospital: Caller, practice: Caller
) -> None:
    message, _ = await sent(optometrist, referral("raised-pressure"))
    await hospital.take(message["id"])
    task_id = message["referral"].rpartition("/")[2]
    path = f"{BASE}/Task/{task_id}"
    outcome(await hospital.get(path), 404, "REC_NOT_FOUND", "not-found")  # nothing decided yet
    taken(await hospital.move(message["referral"], "accept"), 200)
    accepted = await optometrist.get(path)
    assert sound(accepted)["businessStatus"]["coding"][0]["code"] == "accepted"
    assert accepted.headers["etag"] == await hospital.etag(message["referral"])
    said = {"outcome": "Seen and treated."}
    taken(await hospital.move(message["referral"], "complete", said), 200)
    (done,) = await find(practice, "Task", _id=task_id, status="completed")
    assert (done["id"], done["businessStatus"]["coding"][0]["code"]) == (task_id, "completed")
    assert await find(practice, "Task", _id=task_id, status="accepted") == []
    for name in ("business-status", "owner", "requester:identifier"):
        value = {"business-status": "completed", "owner": "RXX01"}.get(name, f"{codes.ODS}|TPX01")
        assert task_id in [one["id"] for one in await find(hospital, "Task", **{name: value})]
    past = sound(await optometrist.get(f"{path}/_history"))
    states = [one["resource"]["businessStatus"]["coding"][0]["code"] for one in past["entry"]]
    assert states == ["completed", "accepted"]
    for one in past["entry"]:
        number = one["resource"]["meta"]["versionId"]
        assert sound(await hospital.get(f"{path}/_history/{number}")) == one["resource"]
    outcome(await place.of("RYY01").get(path), 404, "REC_NOT_FOUND", "not-found")
    assert task_id not in [one["id"] for one in await find(place.of("RYY01"), "Task")]


# -- search --------------------------------------------------------------------------------------


async def test_each_parameter_finds_what_it_says_and_leaves_out_the_rest(
    optometrist: Caller, hospital: Caller
) -> None:
    _, found = await sent(optometrist, referral("raised-pressure"))
    coding = found["category"][0]["coding"][0]
    updated = found["meta"]["lastUpdated"]
    for name, good, bad in (
        ("_id", found["id"], NOWHERE),
        ("status", f"completed,{found['status']}", "revoked"),
        ("priority", found["priority"], "stat"),
        ("category", f"{coding['system']}|{coding['code']}", f"{coding['system']}|nothing"),
        ("category", coding["code"], f"{coding['system']}x|{coding['code']}"),
        ("code", found["code"]["coding"][0]["code"], "%"),
        ("requester", "TPX01", "TPX02"),
        ("requester:identifier", f"{codes.ODS}|TPX01", f"{codes.ODS}|RXX01"),
        ("performer", "RXX01", "TPX01"),
        ("authored", "ge2026-01-01", "lt2026-01-01"),
        ("authored", found["authoredOn"][:10], f"sa{found['authoredOn'][:10]}"),
        ("_lastUpdated", f"le{updated}", "eb2026-01-01T00:00:00Z"),
    ):
        for value, is_found in ((good, True), (bad, False)):
            ids = [one["id"] for one in await find(hospital, "ServiceRequest", **{name: value})]
            assert (found["id"] in ids) is is_found, (name, value)


async def test_a_patients_referrals_are_found_by_nhs_number_in_any_spelling_of_its_system(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    body = referral("raised-pressure")
    body["patient"] |= {"nhs_number": "9990001014", "nhs_number_status": "01"}
    _, found = await sent(optometrist, body)
    patient = "https://fhir.nhs.uk/Id/nhs-number|9990001014"
    for value in (patient, patient.replace("Id", "id").replace("https", "http")):
        ids = {one["id"] for one in await find(hospital, "ServiceRequest", **{PATIENT: value})}
        assert ids == {found["id"]}
    form = {PATIENT: patient, "status": "active"}
    posted = await hospital.call("POST", f"{BASE}/ServiceRequest/_search", data=form)
    assert [one["resource"]["id"] for one in sound(posted)["entry"]] == [found["id"]]
    assert await find(place.of("RYY01"), "ServiceRequest", **{PATIENT: patient}) == []
    other = patient.replace("9990001014", "9990000018")
    assert found["id"] not in [
        one["id"] for one in await find(hospital, "ServiceRequest", **{PATIENT: other})
    ]


PATIENT = "patient:identifier"


async def test_a_patients_number_stands_in_no_link_log_metric_or_audit_entry(
    place: Place, hospital: Caller
) -> None:
    number = "9990001014"
    query = f"{PATIENT}={codes.NHS_NUMBER}|{number}&_count=1&identifier=a|Zq81"
    with capture_logs() as lines:
        pages = [
            await hospital.call("GET", f"{BASE}/ServiceRequest?{query}"),
            await hospital.call("GET", f"{BASE}/ServiceRequest?{PATIENT}={number}"),
            await hospital.call("GET", f"{BASE}/ServiceRequest/{number}?{query}"),
            await hospital.call(
                "POST",
                f"{BASE}/ServiceRequest/_search",
                data={PATIENT: f"{codes.NHS_NUMBER}|{number}", number: number},
            ),
        ]
    assert [one.status_code for one in pages] == [200, 400, 404, 200]
    assert len(lines) >= len(pages)
    audit = await place.rows("SELECT * FROM audit")
    for said in ("9990001014", "Zq81"):
        for held in (
            repr(lines),
            metrics().decode(),
            repr(audit),
            *(one.text for one in pages[1:]),
        ):
            assert said not in held
        assert all(said not in one["url"] for one in pages[0].json()["link"])
    self = link(pages[0].json(), "self")
    assert self is not None
    assert parse_qs(urlsplit(self).query, keep_blank_values=True)[PATIENT] == [""]


async def test_pages_are_stable_while_rows_arrive_and_their_links_tell_nothing(
    place: Place, pharmacy: Caller, practice: Caller
) -> None:
    for _ in range(5):
        await pharmacy.submit(consultation())
    every = [one["id"] for one in await find(practice, "Communication", _count=200)]
    for order in ("-_lastUpdated", "_lastUpdated", "-sent", "sent"):
        wanted = [one["id"] for one in await find(practice, "Communication", _sort=order)]
        assert sorted(wanted) == sorted(every)
        read: list[str] = []
        parameters = {"_sort": order, "_count": 2, "sender": "FPH01"}
        page = sound(await practice.get(f"{BASE}/Communication", **parameters))
        while True:
            read += [one["resource"]["id"] for one in page["entry"]]
            following = link(page, "next")
            if following is None:
                break
            assert list(parse_qs(urlsplit(following).query)) == ["_page"]
            await pharmacy.submit(consultation())  # one more, while it is read
            page = sound(await practice.call("GET", following))
            if len(read) > 40:
                break
        if order.startswith("-"):
            assert read == wanted
        else:
            assert read[: len(wanted)] == wanted
        assert len(read) == len(set(read))
        every = [one["id"] for one in await find(practice, "Communication", _count=200)]


async def test_a_pages_link_is_for_who_was_given_it_and_cannot_be_made_up(
    place: Place, pharmacy: Caller, practice: Caller
) -> None:
    await pharmacy.submit(consultation())
    await pharmacy.submit(consultation())
    page = sound(await practice.get(f"{BASE}/Communication", _count=1))
    following = link(page, "next")
    assert following is not None
    sound(await practice.call("GET", following))
    wrong = [
        (pharmacy, following),
        (practice, following.replace("Communication", "ServiceRequest")),
        (practice, following[:-4]),
        (practice, f"{following}&status=active"),
        (practice, f"{BASE}/Communication?_page=nonsense"),
        (practice, f"{BASE}/Communication?_page=kek-1.\u00e9"),
    ]
    for caller, url in wrong:
        answer = await caller.call("GET", url)
        assert outcome(answer, 400, "REC_BAD_REQUEST", answer.json()["issue"][0]["code"])[
            "expression"
        ] == ["http._page"]


async def test_what_a_resource_refers_to_comes_with_it_where_it_is_asked_for(
    optometrist: Caller,
) -> None:
    _, found = await sent(optometrist, referral("raised-pressure"))
    answer = await optometrist.call(
        "GET",
        f"{BASE}/ServiceRequest?_id={found['id']}&_include=ServiceRequest:patient"
        "&_include=ServiceRequest:requester",
    )
    match, *included = sound(answer)["entry"]
    assert [one["search"]["mode"] for one in included] == ["include"] * 2
    by_url = {one["fullUrl"]: one["resource"] for one in included}
    patient = by_url[found["subject"]["reference"]]
    assert patient["resourceType"] == "Patient"
    assert found["requester"]["reference"] in by_url
    read = sound(await optometrist.get(f"{BASE}/Patient/{patient['id']}"))
    assert read == patient
    assert match["fullUrl"] == f"http://broker.test{BASE}/ServiceRequest/{found['id']}"


async def test_a_summary_is_marked_and_a_count_is_only_a_number(optometrist: Caller) -> None:
    _, found = await sent(optometrist, referral("raised-pressure"))
    (short,) = await find(optometrist, "ServiceRequest", _id=found["id"], _summary="true")
    assert "SUBSETTED" in [one["code"] for one in short["meta"]["tag"]]
    assert short["subject"] == found["subject"] and "note" not in short
    (data,) = await find(optometrist, "ServiceRequest", _id=found["id"], _summary="data")
    assert data | {"meta": 0} == {n: v for n, v in found.items() if n != "text"} | {"meta": 0}
    for parameters in ({"_summary": "count"}, {"_count": 0}):
        page = sound(await optometrist.get(f"{BASE}/ServiceRequest", **parameters))
        assert page["total"] == len(await find(optometrist, "ServiceRequest"))
        assert "entry" not in page


async def test_a_parameter_that_is_not_known_is_named_or_refused(pharmacy: Caller) -> None:
    path = f"{BASE}/Communication?statu=completed&_count=1"
    page = sound(await pharmacy.call("GET", path))
    assert link(page, "self") == f"http://broker.test{BASE}/Communication?_count=1"
    last = page["entry"][-1]
    assert last["search"]["mode"] == "outcome"
    assert last["resource"]["issue"][0]["expression"] == ["http.statu"]
    _, found = await sent(pharmacy, consultation())
    own = f"{BASE}/Communication/{found['id']}"
    sound(await pharmacy.get(f"{own}/_history?_since=2030"))
    for one in (path, f"{own}?_elements=id", f"{own}/_history?_since=2030"):
        for wish in ("handling=strict", 'return=minimal; Handling = "strict"'):
            strict = await pharmacy.call("GET", one, headers={"prefer": wish})
            outcome(strict, 400, "REC_BAD_REQUEST", "not-supported")


async def test_the_parameters_of_a_posted_search_are_a_form(pharmacy: Caller) -> None:
    path = f"{BASE}/Communication/_search"
    sound(await pharmacy.call("POST", path))
    sound(await pharmacy.call("POST", f"{path}?_count=1", data={"status": "completed"}))
    wrong = await pharmacy.call("POST", path, json={"status": "completed"})
    outcome(wrong, 415, "REC_UNSUPPORTED_MEDIA_TYPE", "not-supported")


async def test_a_body_of_another_type_is_refused_though_its_length_is_not_said(
    pharmacy: Caller,
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"patient:identifier": "x|1"}'

    path, json_ = f"{BASE}/Communication/_search", {"content-type": "application/json"}
    for headers in (json_, {}):
        wrong = await pharmacy.call("POST", path, content=chunks(), headers=headers)
        outcome(wrong, 415, "REC_UNSUPPORTED_MEDIA_TYPE", "not-supported")


async def test_a_form_that_is_not_utf_8_is_refused(pharmacy: Caller) -> None:
    path = f"{BASE}/Communication/_search"
    form = {"content-type": "application/x-www-form-urlencoded"}
    wrong = await pharmacy.call("POST", path, content=b"\xff=1", headers=form)
    outcome(wrong, 400, "REC_BAD_REQUEST", "invalid")


async def test_notices_of_a_patient_are_found_with_what_they_are_about(
    pharmacy: Caller, practice: Caller
) -> None:
    body = consultation()
    body["patient"] |= {"nhs_number": "9990001022", "nhs_number_status": "01"}
    update_ = first(await pharmacy.submit(body))
    row = await practice.take(update_["id"])
    said = {"outcome": "rejected", "reason": "content-query", "note": "Which side?"}
    taken(await practice.decide(row, **said), 200)
    patient = f"{codes.NHS_NUMBER}|9990001022"
    assert len(await find(pharmacy, "Communication", **{PATIENT: patient})) == 2
