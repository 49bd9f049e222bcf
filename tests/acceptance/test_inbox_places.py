"""`next` of a page of the inbox, also where what it named is gone."""

import time
from typing import Any

import pytest

from broker.api.inbox import LOOK_SECONDS
from broker.events import uuid7
from tests.acceptance.place import Caller, Place
from tests.shell import consultation

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_place_that_was_lost_with_a_disk_begins_the_list_anew(
    place: Place, pharmacy: Caller, practice: Caller
) -> None:
    """Positions of what a backup did not have are given out again: nothing there may be missed."""
    row, position = await a_delivery(place, pharmacy, practice, "PLACE-1")
    now = round(time.time())
    for after, is_listed in (
        ("", True),
        (f"{position}.{row['id']}.{now}", False),
        (f"{position + 99}.{uuid7()}.{now}", True),
        (f"{position + 99}.{row['id']}.{now}", True),
    ):
        answer = await practice.get("/inbox", after=after)
        listed = {one["id"] for one in answer.json()["deliveries"]}
        assert (row["id"] in listed) is is_listed, after


async def test_who_keeps_his_place_for_long_begins_anew_and_sees_what_came_before_it(
    place: Place, pharmacy: Caller, practice: Caller
) -> None:
    """Several dispatchers make deliveries in any order, and what was held appears where it was."""
    row, position = await a_delivery(place, pharmacy, practice, "PLACE-2")
    now = round(time.time())
    for began, state, is_listed in (
        (now - LOOK_SECONDS + 60, "open", False),
        (now - LOOK_SECONDS - 1, "open", True),
        (now - LOOK_SECONDS - 1, "all", False),
    ):
        after = f"{position}.{row['id']}.{began}"
        answer = await practice.get("/inbox", after=after, state=state)
        listed = {one["id"] for one in answer.json()["deliveries"]}
        assert (row["id"] in listed) is is_listed, (began - now, state)


async def test_the_places_of_one_look_say_all_when_it_began(
    place: Place, pharmacy: Caller, practice: Caller
) -> None:
    for number in range(3):
        await a_delivery(place, pharmacy, practice, f"PLACE-3-{number}")
    first = (await practice.get("/inbox", limit=1)).json()["next"]
    began = round(time.time()) - 100
    earlier = f"{first.rpartition('.')[0]}.{began}"
    second = (await practice.get("/inbox", limit=1, after=earlier)).json()["next"]
    assert second.endswith(f".{began}")
    assert int(first.rpartition(".")[2]) > began


async def a_delivery(
    place: Place, pharmacy: Caller, practice: Caller, reference: str
) -> tuple[dict[str, Any], int]:
    """Return a delivery as the inbox lists it, and its position."""
    sent = await pharmacy.submit(consultation(reference, "G99001"))
    row = await practice.arrived(sent["messages"][0]["id"])
    rows = await place.rows("SELECT position FROM delivery WHERE id = :id", id=row["id"])
    return row, rows[0][0]
