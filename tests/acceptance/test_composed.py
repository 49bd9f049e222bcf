"""What a broker composed is read back whole from what it left behind, so that it can be judged."""

import pytest

from tests import composed
from tests.acceptance.place import Caller, Place, consultation, first
from tests.samples import a_message

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.embedded]


async def test_all_that_was_made_and_sent_is_read_back_as_it_went_out(
    place: Place, pharmacy: Caller, practice: Caller
) -> None:
    message = first(await pharmacy.submit(consultation(practice="G99001")))["id"]
    row = await practice.take(message)
    collected = await practice.collect(row)
    await place.settled()
    left = composed.left_in(place.folder)
    (sent,) = (one for one in left.composed if row["id"] in one.where)
    assert (sent.body, sent.role, sent.channel) == (collected.body, "sent", "inbox")
    assert (sent.event, sent.profile) == ("record.update.submitted.v1", "message")
    made = await place.rows("SELECT count(*) FROM payload WHERE role IN ('content', 'sent')")
    assert (len(left.composed), left.unreadable) == (made[0][0], [])


async def test_what_a_test_lays_down_itself_was_composed_by_no_broker(place: Place) -> None:
    sample = a_message(place.broker.vault)
    before = composed.left_in(place.folder)
    await place.broker.store.write(sample.put)
    assert composed.left_in(place.folder) == before


async def test_what_does_not_open_is_said_to_be_unreadable(place: Place, pharmacy: Caller) -> None:
    await pharmacy.submit(consultation(practice="G99001"))
    await place.settled()
    ring = place.settings.ring_path
    before = composed.left_in(place.folder)
    whole = ring.read_bytes()
    try:
        ring.write_text("{}")
        left = composed.left_in(place.folder)
    finally:
        ring.write_bytes(whole)
    assert before.composed and (left.composed, len(left.unreadable)) == ([], 1)
