"""Every pathway, from every pillar that may, through every ending: who should know knows, in order,
and nobody else does.

Read from what each party got. Who should hear of a move is the catalogue's to say.
"""

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
import yaml

from broker.referral import MOVES, Relation
from fhir_profiles.pathways.catalogue import catalogue
from tests.integration.driven import ADAPTERS, Driven, Sent, driven
from tests.shell import DIRECTORY

pytestmark = pytest.mark.slow

ENDINGS: Final = (
    ("accept", "complete"),
    ("accept", "book", "start", "complete"),
    ("accept", "book", "did-not-attend", "no-contact", "reject", "resolve"),
    ("request-information", "answer", "accept", "complete"),
    ("reject", "reinstate", "accept", "complete"),
    ("reject", "resolve"),
    ("upgrade", "accept", "start", "complete"),
    ("cancel",),
    ("decline",),
    ("accept", "deceased"),
    ("accept", "redirect", "accept", "complete"),
)
ELSEWHERE: Final = "RYY99"
BOOKED: Final = {"starts_at": "2099-12-01T10:00:00+00:00", "place": "Clinic 1"}
PRACTICE: Final = "G99001"
Ledger = dict[str, list[str]]


def places() -> str:
    """Return the example directory, and one more organisation with a twin of each service."""
    known = yaml.load(DIRECTORY.read_text(encoding="utf-8"), yaml.BaseLoader)  # noqa: S506 - texts
    (pattern,) = [one for one in known["organisations"] if one["ods"] == "RYY01"]
    known["organisations"].append({**pattern, "ods": ELSEWHERE, "name": "Another Place"})
    for one in list(known["services"]):
        offers = [{**offer, "rank": "1000"} for offer in one["offers"]]
        twin = {**one, "code": twin_of(one["code"]), "organisation": ELSEWHERE, "offers": offers}
        twin.pop("dos", None)  # one service has it
        known["services"].append(twin)
        known["endpoints"].append(
            {
                "organisation": ELSEWHERE,
                "service": twin["code"],
                "channel": "inbox",
                "takes": ["referral", "notice"],
            }
        )
    return json.dumps(known)


def twin_of(service: str) -> str:
    return f"{ELSEWHERE}-{service}"


async def lived(world: Driven, sent: Sent, steps: tuple[str, ...]) -> tuple[Ledger, Ledger]:
    """Let a referral have its course; return what each party should have got, and what it got."""
    should: Ledger = defaultdict(list)
    got: Ledger = defaultdict(list)
    for ods, _ in sent.routes:
        should[ods].append("referral")

    async def collect() -> None:
        for row in await world.deliver():
            assert row.subject_id == sent.subject
            await world.confirm(row)
            found = await world.arrived(row)
            got[row.ods].append(found.topic or "referral")

    await collect()
    for step in steps:
        before = await world.row(sent.subject)
        if step == "upgrade" and before.priority == "stat":
            continue
        content = dict(BOOKED if step == "book" else {})
        if step == "redirect":
            content["destination"] = f"{ELSEWHERE}/{twin_of(before.receiver_service)}"
        made_by = await world.move(sent.subject, step, **content)
        after = await world.row(sent.subject)
        places = {"sender": sent.sender, "receiver": before.receiver, "practice": PRACTICE}
        hears = {places[party] for party in catalogue().told(before.pathway, step)} - {made_by}
        for ods in hears:
            should[ods].append(after.state)
        if step == "redirect":
            for ods in {after.receiver} | {ods for ods, role in sent.routes if role == "copy"}:
                should[ods].append("referral")
        await collect()
    return should, got


@pytest.mark.parametrize("name", sorted(ADAPTERS))
async def test_each_who_should_know_knows_in_order_and_nobody_else(
    name: str, tmp_path: Path
) -> None:
    async with driven(tmp_path, places()) as world:
        for pathway in ADAPTERS[name].examples:
            for number, steps in enumerate(ENDINGS):
                sent = await world.refer(name, pathway, f"{pathway}-{number}")
                should, got = await lived(world, sent, steps)
                assert got == should, (name, pathway, steps)
                row = await world.row(sent.subject)
                last = MOVES[steps[-1]]
                assert last.to is not None and row.state == last.to, (pathway, steps)


async def test_what_is_overdue_when_it_is_accepted_is_said_to_be_on_its_way(
    tmp_path: Path,
) -> None:
    async with driven(tmp_path) as world:
        long_ago = datetime.now(UTC) - timedelta(days=30)
        await world.refer("dentistry.referrals", "orthodontics", "late", seen_at=long_ago)
        assert await world.broker.safety.run_once()
        arrived = [await world.arrived(row) for row in await world.deliver()]
        told = [one.text for one in arrived if one.topic == "deadline-passed"]
        stored = [one for one in told if "not confirmed as stored" in one]
        assert stored
        assert all("It is on its way." in one for one in stored)


def test_the_endings_are_all_that_a_person_can_bring_about() -> None:
    made = {step for steps in ENDINGS for step in steps}
    assert {
        move.name
        for move in MOVES.values()
        if move.to is not None and Relation.BROKER not in move.by
    } - made == {"receive"}
