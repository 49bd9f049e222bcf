"""One message that the broker cannot work on: it is somebody's work, and holds nobody else up."""

from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from broker.events import uuid7
from broker.main import open_broker
from broker.settings import Settings
from broker.store import work
from broker.store.tx import Tx
from consumers.record_update import RecordUpdate
from tests.acceptance.place import Caller, Place, consultation, eventually, first
from tests.samples import PRACTICE, Sample, a_message

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def bad_message(place: Place, *deadlines: str) -> Sample:
    """Store a message whose content is no Bundle, with deadlines that have passed."""
    sample = a_message(place.broker.vault)

    def write(tx: Tx) -> None:
        sample.put(tx)
        passed = [
            {
                "id": uuid7(),
                "message_id": sample.id,
                "kind": kind,
                "version": 1,
                "owner": PRACTICE,
                "source": "",
                "due_at": tx.now - timedelta(minutes=1),
                "cleared_at": None,
                "raised_at": None,
            }
            for kind in deadlines
        ]
        if passed:
            work.put_deadlines(tx, passed)

    await place.broker.store.write(write)
    return sample


async def items(place: Place, sample: Sample) -> set[str]:
    found = await place.rows("SELECT code FROM work_item WHERE message_id = :m", m=sample.id)
    return {row.code for row in found}


async def test_a_message_that_cannot_be_composed_is_on_the_work_list_and_those_behind_it_arrive(
    place: Place, pharmacy: Caller, practice: Caller
) -> None:
    with capture_logs() as logs:
        sample = await bad_message(place)
        update = first(await pharmacy.submit(consultation(practice="G99001")))
        assert await practice.arrived(update["id"])
    assert await items(place, sample) == {"not-composed"}
    assert not await place.rows("SELECT 1 FROM delivery WHERE message_id = :m", m=sample.id)
    (line,) = [line for line in logs if line["event"] == "dispatch.not-composed"]
    assert (line["event_id"], line["log_level"]) == (sample.event_id, "error")
    assert sample.content.decode() not in str(logs)


async def test_of_what_could_not_be_composed_the_sender_is_not_told_that_it_can_be_collected(
    place: Place, pharmacy: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compose(*_: object) -> bytes:
        raise ValueError("a fault of ours")

    monkeypatch.setattr(RecordUpdate, "compose", compose)
    update = first(await pharmacy.submit(consultation(practice="G99001")))

    async def is_listed() -> bool:
        found = await place.rows("SELECT code FROM work_item WHERE message_id = :m", m=update["id"])
        return [row.code for row in found] == ["not-composed"]

    await eventually(is_listed)
    await place.move_deadline_back(update["id"], "received")
    told = await pharmacy.heard(update["id"], "deadline-passed")
    assert "cannot be collected" in told.text and "still there" not in told.text


async def test_a_deadline_that_nobody_can_be_told_of_is_raised_with_all_the_others(
    place: Place, pharmacy: Caller, practice: Caller
) -> None:
    sample = await bad_message(place, "received", "filed")
    update = first(await pharmacy.submit(consultation(practice="G99001")))
    await practice.arrived(update["id"])
    await place.move_deadline_back(update["id"], "received")
    assert await pharmacy.heard(update["id"], "deadline-passed")
    wanted = {"received-overdue", "filed-overdue", "not-composed"}

    async def listed() -> bool:
        return await items(place, sample) == wanted

    await eventually(listed)


async def test_a_round_that_fails_is_logged_with_its_kind_and_place_and_none_of_its_words(
    tmp_path: Path,
) -> None:
    async def run_once() -> int:
        raise ValueError("cannot compose for XXTEST-POISON 9990000018")

    settings = Settings(data_dir=tmp_path / "data", keys_dir=tmp_path / "keys")
    async with open_broker(settings) as broker:
        broker.dispatch.run_once = run_once  # type: ignore[method-assign]
        with capture_logs() as logs:
            async with broker.running():

                async def logged() -> bool:
                    return bool(logs)

                await eventually(logged)
    assert "XXTEST-POISON" not in str(logs) and "9990000018" not in str(logs)
    assert (logs[0]["event"], logs[0]["error"]) == ("dispatch.failed", "ValueError")
    assert logs[0]["point"].startswith("test_one_bad_message.py:")
