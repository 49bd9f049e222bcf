"""A referral to a pharmacy: a consultation ends it; what nobody sees is reminded of, and closes."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from broker import registry
from tests.acceptance.place import (
    Body,
    Caller,
    Place,
    consultation,
    eventually,
    first,
    problem,
    taken,
)
from tests.acceptance.test_referral_doors import moves_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXAMPLES = registry.load().adapters["general-practice.referrals"].examples


@pytest.fixture
def referrer(place: Place) -> Caller:
    return place.of("G99001")


async def referred(
    referrer: Caller, place: Place, *, takes: bool = True, **changes: Any
) -> tuple[Caller, Body]:
    """Refer a minor illness; return the pharmacy and the message."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    body = {
        **EXAMPLES["minor-illness"],
        "assessed_at": now,
        "reference": str(uuid4()),
        **{name: one for name, one in changes.items() if name != "patient"},
    }
    body["patient"] = {**body["patient"], **changes.get("patient", {})}
    (message,) = taken(await referrer.post("/general-practice/referrals", body))["messages"]
    pharmacy = place.of(message["destinations"][0]["organisation"])
    if takes:
        await pharmacy.take(message["id"])
    return pharmacy, message


def clock(shown: Body, kind: str) -> Body | None:
    return next((one for one in shown["deadlines"] if one["kind"] == kind), None)


async def closed(referrer: Caller, at: str) -> Body:
    """Return the referral once it has closed by itself."""

    async def look() -> Body | None:
        shown = taken(await referrer.get(at), 200)
        return shown if shown["state"] == "expired" else None

    found: Body = await eventually(look)
    return found


async def test_the_pharmacy_is_reminded_on_the_day_and_once(referrer: Caller, place: Place) -> None:
    pharmacy, message = await referred(referrer, place)
    shown = await referrer.tracked(message["id"])
    reminded, closes = (clock(shown, kind) for kind in ("reminded", "closed"))
    assert reminded is not None
    assert closes is not None
    assert reminded["by"] < closes["by"]
    assert "Pharmacy First" in closes["rule"]
    await place.move_deadline_back(message["id"], "reminded")
    told = await pharmacy.heard(message["id"], "reminder")
    assert "else the referral closes without contact" in told.text
    for _ in range(3):
        await place.broker.safety.run_once()
    assert await pharmacy.notices(message["id"]) == ["reminder"]
    assert await referrer.notices(message["id"]) == []
    assert await referrer.overdue(message["id"]) == set()


@pytest.mark.parametrize("takes", [True, False])
async def test_what_nobody_saw_closes_to_the_sender_who_says_what_is_done_instead(
    referrer: Caller, place: Place, takes: bool
) -> None:
    pharmacy, message = await referred(referrer, place, takes=takes)
    await place.move_deadline_back(message["id"], "closed")
    shown = await closed(referrer, message["referral"])
    assert (shown["state_in_words"], shown["waits_for"]) == ("closed without contact", "sender")
    told = await referrer.heard(message["id"], "expired")
    assert "No contact with the patient was recorded by" in told.advice
    await pharmacy.heard(message["id"], "expired")
    assert "resolve" in moves_of(shown)
    trail = await referrer.tracked(message["id"])
    assert trail["line"].startswith("Closed without contact.")
    assert (clock(trail, "resolved") or {})["whose_turn"] == "G99001"
    (decided,) = [one for one in trail["deadlines"] if one["kind"] == "decided"]
    assert (decided["met_at"], decided["lapsed"]) == (None, "expired")


async def test_a_later_consultation_that_names_it_still_completes_it(
    referrer: Caller, place: Place
) -> None:
    pharmacy, message = await referred(referrer, place)
    await place.move_deadline_back(message["id"], "closed")
    await closed(referrer, message["referral"])
    source = {
        "kind": "general-practice",
        "organisation": "G99001",
        "referral": message["referral"].rpartition("/")[2],
    }
    body = consultation("minor-illness", source=source)
    number = EXAMPLES["minor-illness"]["patient"]["nhs_number"]
    body["patient"] = {**body["patient"], "nhs_number": number}
    answer = taken(await pharmacy.post("/pharmacy/consultations", body))
    assert first(answer)
    shown = taken(await referrer.get(message["referral"]), 200)
    assert (shown["state"], shown["waits_for"]) == ("completed", None)
    trail = await referrer.tracked(message["id"])
    assert all(one["met_at"] or one["lapsed"] for one in trail["deadlines"])


async def test_what_the_pharmacy_takes_on_neither_closes_nor_is_reminded_of(
    referrer: Caller, place: Place
) -> None:
    pharmacy, message = await referred(referrer, place)
    taken(await pharmacy.move(message["referral"], "accept"), 200)
    shown = await referrer.tracked(message["id"])
    for kind in ("reminded", "closed"):
        assert (clock(shown, kind) or {})["lapsed"] == "accepted"


@pytest.mark.parametrize(
    "changes",
    [
        {"patient": {"birth_date": f"{datetime.now(UTC).year - 12}-01-31"}},
        {"patient": {"safeguarding": "Worries about the home."}},
        {"red_flags": ["signs-of-sepsis"]},
    ],
)
async def test_a_childs_and_whoever_is_at_risk_never_closes_alone(
    referrer: Caller, place: Place, changes: Body
) -> None:
    pharmacy, message = await referred(referrer, place, **changes)
    shown = await referrer.tracked(message["id"])
    assert clock(shown, "closed") is None
    assert (clock(shown, "contacted") or {})["whose_turn"] == pharmacy.ods
    await place.move_deadline_back(message["id"], "contacted", "reminded")

    async def listed() -> bool:
        return "contacted-overdue" in await referrer.overdue(message["id"])

    await eventually(listed)
    await referrer.heard(message["id"], "deadline-passed")
    told = await pharmacy.heard(message["id"], "reminder")
    assert "it does not close by itself" in told.text
    assert taken(await referrer.get(message["referral"]), 200)["state"] == "received"


async def test_nobody_may_let_a_referral_close_but_time(referrer: Caller, place: Place) -> None:
    pharmacy, message = await referred(referrer, place)
    for caller in (referrer, pharmacy):
        assert "expire" not in moves_of(taken(await caller.get(message["referral"]), 200))
        problem(await caller.move(message["referral"], "expire"), 404, "not-found")


async def test_other_pathways_wait_for_their_receiver(referrer: Caller, place: Place) -> None:
    body = {**EXAMPLES["blood-pressure-check"], "reference": str(uuid4())}
    (message,) = taken(await referrer.post("/general-practice/referrals", body))["messages"]
    shown = await referrer.tracked(message["id"])
    assert clock(shown, "closed") is None
    assert clock(shown, "reminded") is None
