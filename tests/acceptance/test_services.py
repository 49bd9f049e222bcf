"""Closed and paused services: refused at every door with whom to choose instead, never queued."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from fhir_profiles.working_days import london
from tests.acceptance import test_bars, test_fhir_create
from tests.acceptance.place import (
    OPTOMETRY,
    Body,
    Caller,
    Place,
    problem,
    referral,
    taken,
)
from tests.acceptance.test_communications import ABOUT, id_of, say
from tests.acceptance.test_converting import asked, new
from tests.acceptance.test_fhir_errors import outcome
from tests.acceptance.test_redirection import amended
from tests.acceptance.test_referral_doors import received

pytestmark = pytest.mark.asyncio(loop_scope="module")

WHY = "theatres are being repaired"
SPA_IS = "telephone: 0113 496 0401"
MACULAR_IS = "telephone: 0113 496 0403"


def paused(telephone: str) -> tuple[str, str]:
    """What pauses the service of this number in the directory."""
    return telephone, f"{telephone}\n    paused: {WHY}"


def closed_today(telephone: str) -> tuple[str, str]:
    """What closes it for today and tomorrow."""
    first = london(datetime.now(UTC)).date()
    last = first + timedelta(days=1)
    entry = f"{{first_day: {first}, last_day: {last}, reason: {WHY}}}"
    return telephone, f"{telephone}\n    closures: [{entry}]"


def refused(answer: httpx2.Response, code: str, field: str) -> Body:
    """Return the one problem for which a post was refused."""
    (one,) = problem(answer, 422, "invalid")["problems"]
    assert (one["code"], one["field"]) == (code, field)
    found: Body = one
    return found


async def how_many(place: Place) -> Any:
    return await place.rows("SELECT count(*) FROM message")


@pytest.mark.parametrize("provider", [None, {"ods": "RXX01", "service": "RXX01-SPA"}])
async def test_a_referral_to_a_paused_service_is_refused_with_who_takes_it_and_leaves_nothing(
    optometrist: Caller, place: Place, provider: Body | None
) -> None:
    body, key = referral(provider=provider), str(uuid4())
    before = await how_many(place)
    async with place.directory(paused(SPA_IS)):
        answer = await optometrist.post(OPTOMETRY.door, body, key=key)
        said = refused(answer, "service-paused", "provider" if provider else "condition")
        assert WHY in said["detail"]
        assert said["instead"] == ["RYY01/RYY01-SPA"]
        assert "01632 960401" in said["todo"]
        assert await how_many(place) == before
        # What is offered instead is taken.
        ods, _, service = said["instead"][0].partition("/")
        again = {**body, "provider": {"ods": ods, "service": service}}
        taken(await optometrist.post(OPTOMETRY.door, again))


async def test_a_closed_service_takes_what_is_posted_again_once_it_is_open(
    optometrist: Caller, place: Place
) -> None:
    body = referral(provider=None)
    async with place.directory(closed_today(SPA_IS)):
        said = refused(await optometrist.post(OPTOMETRY.door, body), "service-closed", "condition")
        assert "is closed up to and including" in said["detail"] and WHY in said["detail"]
    taken(await optometrist.post(OPTOMETRY.door, body))


async def test_what_is_for_today_begins_with_whom_to_telephone(
    optometrist: Caller, place: Place
) -> None:
    async with place.directory(paused("telephone: 0113 496 0402")):
        answer = await optometrist.post(
            OPTOMETRY.door, referral("retinal-detachment", provider=None)
        )
    told = problem(answer, 422, "invalid")
    assert told["detail"].startswith("Nothing was sent.")
    assert told["problems"][0]["code"] == "service-paused"


async def test_a_referral_is_not_redirected_to_a_paused_service_and_stays_where_it_is(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    message = await received(optometrist, hospital, referral(provider=None))
    at = message["referral"]
    version = await hospital.etag(at)
    async with place.directory(paused("telephone: 01632 960401")):
        said = {"destination": "RYY01/RYY01-SPA", "advice": "We have no surgeon until March."}
        refused(await hospital.move(at, "redirect", said), "service-paused", "destination")
    assert await hospital.etag(at) == version
    taken(await hospital.move(at, "accept"), 200)


async def test_a_conversion_to_a_paused_service_is_refused_and_the_request_stays_open(
    practice: Caller, hospital: Caller, place: Place
) -> None:
    about = await asked(practice, hospital)
    async with place.directory(paused("telephone: 0113 496 0412")):
        answer = await practice.move(about["referral"], "convert", new())
        assert refused(answer, "service-paused", "reason.code")["detail"]
    assert taken(await practice.get(about["referral"]), 200)["state"] == "received"


async def test_a_fhir_request_for_a_paused_service_is_refused_with_who_takes_it(
    practice: Caller, place: Place
) -> None:
    before = await how_many(place)
    async with place.directory(paused(SPA_IS)):
        answer = await test_fhir_create.post(practice, test_fhir_create.request())
    said = outcome(answer, 422, "REC_UNPROCESSABLE_ENTITY", "invalid")["diagnostics"]
    assert WHY in said and "RYY01/RYY01-SPA" in said
    assert await how_many(place) == before


async def test_a_bars_referral_to_a_paused_service_is_refused(
    practice: Caller, place: Place
) -> None:
    before = await how_many(place)
    async with place.directory(paused("telephone: 0113 496 0102")):
        answer = await test_bars.send(practice, test_bars.referral())
    said = outcome(answer, 422, "REC_UNPROCESSABLE_ENTITY", "invalid")["diagnostics"]
    assert WHY in said
    assert await how_many(place) == before


@pytest.mark.parametrize(
    ("shut", "goes_to"),
    [([], "FPH01-PHARMACY-FIRST"), ([paused("telephone: 0113 496 0102")], "FPH01-REFERRALS")],
    ids=["all open", "the first paused"],
)
async def test_a_shortlist_goes_on_to_the_first_that_takes_it_now(
    practice: Caller, place: Place, shut: list[tuple[str, str]], goes_to: str
) -> None:
    second = "telephone: 0113 496 0103"
    changes = [
        ("pathways: [a5t1]", "pathways: [a5t1, a8t1]"),
        (second, f"{second}\n    dos: 2000099902"),
    ]
    async with place.directory(*changes, *shut):
        shortlist = [test_bars.SERVICE, "2000099902"]
        message, answer = await test_bars.to_broker(practice, shortlist=shortlist)
        test_bars.answered(answer, message)
        await place.settled()
        sent = await test_bars.sent_message(practice)
    (acting,) = [one for one in sent["deliveries"] if one["role"] == "acting"]
    assert acting["service"] == goes_to


async def test_what_is_under_way_goes_on_after_a_reload_that_pauses_or_closes_its_service(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    for shutting in (paused, closed_today):
        body = referral(provider=None)
        (message,) = (await optometrist.submit(body))["messages"]
        at = message["referral"]
        async with place.directory(shutting(SPA_IS)):
            await hospital.take(message["id"])
            taken(await hospital.move(at, "accept"), 200)
            version = await amended(optometrist, message["id"], body)
            await hospital.take(version["id"])
            question = await say(optometrist, about=id_of(message), text="When?", **ABOUT)
            await hospital.take(question["id"])
            ended = {"outcome": "Operated; well.", "practice_actions": "None."}
            taken(await hospital.move(at, "complete", ended), 200)


async def test_the_sender_is_told_among_whom_the_receiver_was_chosen_and_nobody_else_is(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    body = referral("suspected-wet-amd", provider=None)
    async with place.directory(paused("telephone: 0113 496 0491")):
        (message, *_) = (await optometrist.submit(body))["messages"]
    expected = [
        {
            "organisation": "RXX01",
            "service": "RXX01-MACULAR",
            "name": "Northfield Hospital, macular service",
            "rank": 1,
            "verdict": "chosen",
            "in_words": "It was chosen.",
        },
        {
            "organisation": "RXZ01",
            "service": "RXZ01-MACULAR",
            "name": "Westgate Hospital, macular clinic",
            "rank": 2,
            "verdict": "service-paused",
            "in_words": "It took no new referral.",
        },
    ]
    assert message["candidates"] == expected
    # It was so then, whatever the directory says now.
    assert (await optometrist.tracked(message["id"]))["candidates"] == expected
    await hospital.take(message["id"])
    assert "candidates" not in await hospital.tracked(message["id"])


# -- choosing ------------------------------------------------------------------------------------


async def test_services_lists_who_takes_a_pathway_first_those_that_take_it_now(
    practice: Caller, place: Place
) -> None:
    async with place.directory(paused(MACULAR_IS)):
        found = taken(
            await practice.get("/services?pathway=suspected-wet-amd&postcode-area=ls"), 200
        )
    assert found["pathway"] == "suspected-wet-amd"
    other, first = found["services"]
    assert (other["organisation"], other["service"]) == ("RXZ01", "RXZ01-MACULAR")
    assert (other["takes_new"], other["why_not"], other["rank"]) == (True, None, 2)
    assert other["closures"][0]["first_day"] == "2026-12-24"
    assert other["opening_hours"][0]["days"] == ["monday", "wednesday", "friday"]
    assert other["offers"] == [{"receiver_type": "macular", "subspecialties": ["all"], "rank": 2}]
    assert (first["takes_new"], first["why_not"]) == (False, "service-paused")
    assert first["why_not_in_words"] == f"It takes no new referral for now ({WHY})."


async def test_without_an_area_all_services_are_listed_and_another_area_has_its_own(
    practice: Caller,
) -> None:
    async def listed(**given: str) -> list[str]:
        found = taken(await practice.get("/services", pathway="cataract", **given), 200)
        return [one["service"] for one in found["services"]]

    assert await listed() == ["RXX01-SPA", "RYY01-SPA"]
    assert await listed(**{"postcode-area": "BD"}) == ["RYY01-SPA"]
    assert await listed(**{"postcode-area": "ZE"}) == []


async def test_a_service_that_is_not_connected_or_takes_other_pathways_is_no_choice(
    practice: Caller, place: Place
) -> None:
    found = taken(await practice.get("/services?pathway=minor-illness"), 200)["services"]
    assert [(one["service"], one["takes_new"], one["why_not"]) for one in found] == [
        ("FPH01-REFERRALS", True, None),
        ("FPH01-PHARMACY-FIRST", False, "does-not-take"),
    ]
    gone = "  - {organisation: FPH01, service: FPH01-REFERRALS, channel: inbox, "
    async with place.directory((gone, "  # ")):
        found = taken(await practice.get("/services?pathway=minor-illness"), 200)["services"]
    assert {one["service"]: one["why_not"] for one in found} == {
        "FPH01-REFERRALS": "not-connected",
        "FPH01-PHARMACY-FIRST": "does-not-take",
    }


@pytest.mark.parametrize(
    ("query", "field", "code"),
    [
        ("pathway=cataracts", "pathway", "unknown-code"),
        ("postcode-area=LS", "pathway", "unknown-code"),
        ("pathway=cataract&postcode-area=LS1", "postcode-area", "invalid"),
        ("pathway=cataract&postcode-area=LS1%204AP", "postcode-area", "invalid"),
        ("pathway=cataract&postcode_area=LS", "postcode_area", "unknown-parameter"),
    ],
)
async def test_a_choice_that_cannot_be_read_is_refused_and_its_postcode_not_said_back(
    practice: Caller, query: str, field: str, code: str
) -> None:
    answer = await practice.get(f"/services?{query}")
    assert "4AP" not in answer.text
    refused(answer, code, field)


async def test_an_organisation_shows_when_and_why_a_place_of_it_takes_nothing_new(
    practice: Caller,
) -> None:
    shown = taken(await practice.get("/organisations/RXZ01"), 200)["takes"]
    (clinic,) = [one for one in shown if one["service"] == "RXZ01-MACULAR"]
    assert clinic["closures"] == [
        {
            "first_day": "2026-12-24",
            "last_day": "2027-01-03",
            "reason": "the clinic moves to another building",
        }
    ]
    assert clinic["paused"] is None
    shown = taken(await practice.get("/organisations/RYY01"), 200)["takes"]
    assert {one["service"]: one["paused"] for one in shown} == {
        None: None,
        "RYY01-SPA": None,
        "RYY01-OUTPATIENTS": "its waiting lists are being reviewed",
    }
