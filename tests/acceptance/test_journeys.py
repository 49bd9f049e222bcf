"""The two journeys, from end to end, over real HTTP: a broker process, and partners of its own.

Every claim is read in two places: in what the broker shows, and in a partner's own ledger.
"""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from broker.move_content import REJECTION_REASONS
from sandbox import sentinels
from sandbox.acts import heard, tracked
from sandbox.ledger import until
from sandbox.partner import Partner
from sandbox.world import World
from tests import composed

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

PRACTICES = ("G99001", "G99002")  # one collects from its inbox, one is called by webhook
VIA = {"G99001": "inbox", "G99002": "webhook"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A broker as a process of its own, with a pharmacy, an optometrist, two GPs and an SPA."""
    async with World(tmp_path_factory.mktemp("world")) as made:
        yield made
    assert composed.faults_in(made.folder) == []


def practice_of(world: World, ods: str) -> Partner:
    return world.practice if ods == "G99001" else world.webhook_practice


# -- a pharmacist's consultation reaches the GP's record -----------------------------------------


@pytest.mark.parametrize("ods", PRACTICES)
async def test_a_consultation_is_filed_without_the_practice_asking_and_the_pharmacist_sees_it(
    world: World, ods: str
) -> None:
    pharmacy, practice = world.pharmacy, practice_of(world, ods)
    body = pharmacy.consultation(practice=ods)
    sent = await pharmacy.submit(body)
    assert sent.status == 202
    (message,) = sent.json["messages"]
    (stored,) = await world.received(sent, practice)
    assert (stored["kind"], stored["via"]) == ("update", VIA[ods])
    assert stored["reference"] == body["reference"]
    shown = await tracked(pharmacy, message["id"], lambda view: "filed it" in view["line"])
    assert shown["line"] == f"{practice.name} filed it in the patient's record."
    (delivery,) = shown["deliveries"]
    assert (delivery["channel"], delivery["outcome"]) == (VIA[ods], "filed")
    assert [one["matches"] for one in delivery["receipts"]] == [True]
    times = [delivery[at] for at in ("accepted_at", "received_at", "acknowledged_at")]
    assert times == sorted(times) and all(times)
    told = await heard(pharmacy, message["id"], "update-filed")
    assert practice.name in told["text"]
    assert not shown["next"]


@pytest.mark.parametrize("ods", PRACTICES)
@pytest.mark.parametrize("reason", sentinels.UPDATE_REASONS)
async def test_a_consultation_is_rejected_and_the_pharmacist_sees_why(
    world: World, ods: str, reason: str
) -> None:
    pharmacy, practice = world.pharmacy, practice_of(world, ods)
    family = f"XXTEST-REJECT-{reason.upper()}"
    sent = await pharmacy.submit(pharmacy.consultation(practice=ods, family=family))
    (message,) = sent.json["messages"]
    told = await heard(pharmacy, message["id"], "update-rejected")
    words = sentinels.UPDATE_REASONS[reason]
    assert words in told["text"] and practice.name in told["text"]
    shown = await pharmacy.track(message["id"])
    said = f"{practice.name} rejected it: {words}."
    if reason == "not-registered-here":  # the only one after which something is still to be done
        assert shown["line"] == f"{said} It is the sender's turn."
        assert shown["next"]["whose_turn"] == pharmacy.ods
    else:
        assert (shown["line"], shown["next"]) == (said, None)
    assert shown["deliveries"][0]["outcome_reason"] == reason
    is_open = bool(shown["open_items"])
    assert is_open is (reason == "not-registered-here")


@pytest.mark.parametrize("ods", PRACTICES)
async def test_a_crisis_makes_a_task_that_the_practice_accepts_and_the_pharmacist_hears(
    world: World, ods: str
) -> None:
    pharmacy, practice = world.pharmacy, practice_of(world, ods)
    sent = await pharmacy.submit(pharmacy.crisis(practice=ods))
    update, task = sent.json["messages"]
    assert (update["kind"], task["kind"], task["priority"]) == ("update", "referral", "stat")
    stored = await world.received(sent, practice)
    assert {one["kind"] for one in stored} == {"update", "referral"}
    assert await heard(pharmacy, update["id"], "update-filed")
    assert await heard(pharmacy, task["id"], "accepted")
    shown = await pharmacy.get(task["referral"])
    assert shown["state"] == "accepted"


# -- an optometrist's referral reaches the hospital ----------------------------------------------


@pytest.mark.parametrize("ods", PRACTICES)
async def test_a_referral_is_accepted_then_completed_and_optometrist_and_gp_hear_of_each(
    world: World, ods: str
) -> None:
    optometrist, hospital, practice = world.optometrist, world.hospital, practice_of(world, ods)
    body = optometrist.referral("cataract", practice=ods, family="XXTEST-COMPLETE")
    sent = await optometrist.submit(body)
    (message,) = sent.json["messages"]
    stored = await world.received(sent, hospital, practice)
    assert [(one["partner"], one["kind"]) for one in stored] == [
        ("RXX01", "referral"),
        (ods, "update"),
    ]
    for listener in (optometrist, practice):
        assert await heard(listener, message["id"], "accepted")
        done = await heard(listener, message["id"], "completed")
        assert sentinels.OUTCOME in done["advice"] and sentinels.ACTIONS in done["advice"]
    shown = await optometrist.get(message["referral"])
    assert (shown["state"], shown["allowed_moves"]) == ("completed", [])
    trail = await optometrist.track(message["id"])
    assert [one["move"] for one in trail["moves"]] == ["receive", "accept", "complete"]
    assert {one["by"] for one in trail["moves"]} == {"RXX01"}
    # The decider is not told its own decisions.
    assert not hospital.ledger.entries("received", about=message["id"])


@pytest.mark.parametrize("reason", REJECTION_REASONS)
async def test_a_referral_is_rejected_with_advice_and_optometrist_and_gp_hear_of_it(
    world: World, reason: str
) -> None:
    optometrist = world.optometrist
    family = f"XXTEST-REJECT-{reason.upper()}"
    body = optometrist.referral("raised-pressure", practice="G99001", family=family)
    (message,) = (await optometrist.submit(body)).json["messages"]
    for listener in (optometrist, world.practice):
        told = await heard(listener, message["id"], "rejected")
        assert REJECTION_REASONS[reason] in told["text"]
        assert told["advice"] == sentinels.ADVICE
    shown = await optometrist.get(message["referral"])
    assert (shown["state"], shown["waits_for"]) == ("rejected", "sender")
    tracked = await optometrist.track(message["id"])
    assert tracked["line"] == "Rejected, by Northfield Hospital. It is the sender's turn."
    assert tracked["moves"][-1]["said"]["advice"] == sentinels.ADVICE


@pytest.mark.parametrize("ods", PRACTICES)
async def test_the_gps_copy_may_be_rejected_while_the_hospital_accepts(
    world: World, ods: str
) -> None:
    optometrist = world.optometrist
    body = optometrist.referral("cataract", practice=ods, family="XXTEST-REJECT-MOVED-AWAY")
    (message,) = (await optometrist.submit(body)).json["messages"]
    assert await heard(optometrist, message["id"], "update-rejected")
    assert await heard(optometrist, message["id"], "accepted")
    shown = await optometrist.track(message["id"])
    outcomes = {one["organisation"]: one["outcome_reason"] for one in shown["deliveries"]}
    assert outcomes == {"RXX01": None, ods: "moved-away"}
    assert shown["state"] == "accepted"


# -- what every connection must bear -------------------------------------------------------------


@pytest.mark.parametrize("family", ["XXTEST-RECOVER", "XXTEST-RESET", "XXTEST-SLOW"], ids=str.lower)
async def test_a_practice_in_trouble_has_it_once_in_effect(world: World, family: str) -> None:
    pharmacy, practice = world.pharmacy, world.practice
    sent = await pharmacy.submit(pharmacy.consultation(practice="G99001", family=family))
    (message,) = sent.json["messages"]
    assert await heard(pharmacy, message["id"], "update-filed")
    assert len(practice.ledger.entries("received", message=message["id"])) == 1


@pytest.mark.parametrize("family", ["XXTEST-SILENT", "XXTEST-LIE-DIGEST", "XXTEST-LIE-ODS"])
@pytest.mark.parametrize("ods", PRACTICES)
async def test_what_is_not_proved_is_not_shown_as_received(
    world: World, ods: str, family: str
) -> None:
    pharmacy, practice = world.pharmacy, practice_of(world, ods)
    sent = await pharmacy.submit(pharmacy.consultation(practice=ods, family=family))
    (message,) = sent.json["messages"]
    word = "misbehaved" if family == "XXTEST-SILENT" else "lied"
    assert await until(
        lambda: [
            one
            for one in practice.ledger.entries(word)
            if one["answer" if word == "lied" else "how"] == family.removeprefix("XXTEST-").lower()
        ],
        15,
    )
    (delivery,) = (await pharmacy.track(message["id"]))["deliveries"]
    assert delivery["received_at"] is None and delivery["acknowledged_at"] is None


@pytest.mark.slow
async def test_after_a_restart_the_trail_stands_and_a_repeat_gets_the_same_bytes(
    world: World,
) -> None:
    pharmacy = world.pharmacy
    body = pharmacy.consultation(practice="G99001")
    sent = await pharmacy.submit(body, key="before-and-after")
    (message,) = sent.json["messages"]
    assert await heard(pharmacy, message["id"], "update-filed")
    before = await pharmacy.track(message["id"])
    assert await world.broker.stop() == 0
    await world.broker.start()
    assert await pharmacy.track(message["id"]) == before
    again = await pharmacy.submit(body, key="before-and-after")
    assert (again.status, again.body) == (sent.status, sent.body)
