"""One message that the broker cannot work on: it is somebody's work, and holds nobody else up."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from broker.errors import NotFound
from broker.events import Role, uuid7
from broker.main import open_broker
from broker.parts import EMBEDDED
from broker.settings import Settings
from broker.store import work
from broker.store.tx import Tx
from consumers.record_update import RecordUpdate
from consumers.referral_delivery import ReferralDelivery
from tests.acceptance.place import (
    Body,
    Caller,
    Place,
    consultation,
    eventually,
    first,
    referral,
    taken,
)
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
    said = [line for line in logs if line["event"] == "dispatch.not-composed"]
    # Once for each dispatcher that looked at it at the same time.
    assert {(line["event_id"], line["log_level"]) for line in said} == {(sample.event_id, "error")}
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


# -- fanned out again --------------------------------------------------------------------------

OPERATOR = "operator:ann"


def broken(
    monkeypatch: pytest.MonkeyPatch, consumer: type[Any], *roles: Role
) -> Callable[[], None]:
    """Let a consumer compose nothing for these roles (for all, if none is named); return what
    mends it."""
    sound = consumer.compose

    def compose(self: Any, event: Any, content: bytes, to: Any) -> bytes:
        if not roles or to.role in roles:
            raise ValueError("a fault of ours")
        body: bytes = sound(self, event, content, to)
        return body

    monkeypatch.setattr(consumer, "compose", compose)
    return lambda: monkeypatch.setattr(consumer, "compose", sound)


async def not_composed(place: Place, message: Body) -> str:
    """Return the event of a message, once it stands on the work-list as not composed."""

    async def event() -> str | None:
        found = await place.rows(
            "SELECT object_id FROM work_item WHERE message_id = :m AND code = 'not-composed'"
            " AND closed_at IS NULL",
            m=message["id"],
        )
        return found[0].object_id if found else None

    found: str = await eventually(event)
    return found


async def test_what_could_not_be_composed_arrives_once_its_event_is_fanned_out_again(
    place: Place, pharmacy: Caller, practice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend = broken(monkeypatch, RecordUpdate)
    update = first(await pharmacy.submit(consultation(practice="G99001")))
    event = await not_composed(place, update)
    again = place.broker.dispatch.again
    still = await again(event, OPERATOR)
    assert (still.made, still.trouble) == (0, "not-composed")
    assert await not_composed(place, update) == event
    mend()
    mended = await again(event, OPERATOR)
    assert (mended.made, mended.trouble) == (1, None)
    await practice.take(update["id"])
    (item,) = await place.rows("SELECT * FROM work_item WHERE object_id = :e", e=event)
    assert item.closed_reason == "fanned-out"
    audited = await place.rows(
        "SELECT actor FROM audit WHERE action = 'event.fanned-out' AND object_id = :e", e=event
    )
    assert [row.actor for row in audited] == [OPERATOR] * 2
    with pytest.raises(NotFound):
        await again(update["id"], OPERATOR)


async def test_what_was_composed_already_is_not_composed_again(
    place: Place, optometrist: Caller, practice: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend = broken(monkeypatch, ReferralDelivery, Role.COPY)
    sent = first(await optometrist.submit(referral(practice="G99001")), "referral")
    event = await not_composed(place, sent)
    bodies = "SELECT owner_id, sealed FROM payload WHERE role = 'sent' AND owner_id IN "
    bodies += "(SELECT id FROM delivery WHERE event_id = :e) ORDER BY created_at"
    before = await place.rows(bodies, e=event)
    mend()
    assert (await place.broker.dispatch.again(event, OPERATOR)).made == 1
    assert (await place.broker.dispatch.again(event, OPERATOR)).made == 0
    after = await place.rows(bodies, e=event)
    assert (len(before), len(after)) == (1, 2) and before[0] in after
    await practice.take(sent["id"])


async def test_an_event_that_was_never_fanned_out_is_fanned_out_behind_those_before_it(
    place: Place, pharmacy: Caller, practice: Caller
) -> None:
    update = first(await pharmacy.submit(consultation(practice="G99001")))
    (row,) = await place.rows("SELECT event_id FROM message WHERE id = :m", m=update["id"])
    await place.broker.dispatch.again(row.event_id, OPERATOR)
    await place.settled()
    assert len(await place.rows("SELECT 1 FROM delivery WHERE event_id = :e", e=row.event_id)) == 1
    await practice.take(update["id"])


@pytest.mark.parametrize("is_amended", [False, True], ids=["cancelled", "amended"])
async def test_what_was_cancelled_or_replaced_meanwhile_does_not_arrive_after_that(
    place: Place,
    optometrist: Caller,
    hospital: Caller,
    monkeypatch: pytest.MonkeyPatch,
    is_amended: bool,
) -> None:
    mend = broken(monkeypatch, ReferralDelivery)
    body = referral(practice="G99001")
    sent = first(await optometrist.submit(body), "referral")
    event = await not_composed(place, sent)
    mend()
    if is_amended:
        path = f"/optometry/{sent['referral'].removeprefix('/')}"
        etag = await optometrist.etag(sent["referral"])
        taken(await optometrist.put(path, body | {"symptoms": "Worse"}, if_match=etag), 200)
    else:
        cancel = {"reason": "patient-request"}
        taken(await optometrist.move(sent["referral"], "cancel", cancel), 200)
    await place.settled()
    assert (await place.broker.dispatch.again(event, OPERATOR)).made == 2
    assert sent["id"] not in {row["message"] for row in await hospital.inbox("open")}
    shown = (await optometrist.tracked(sent["id"]))["deliveries"]
    assert {(one["state"], one["done_reason"]) for one in shown} == {("done", "superseded")}


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
            async with broker.running(EMBEDDED):

                async def logged() -> bool:
                    return bool(logs)

                await eventually(logged)
    assert "XXTEST-POISON" not in str(logs) and "9990000018" not in str(logs)
    assert (logs[0]["event"], logs[0]["error"]) == ("dispatch.failed", "ValueError")
    assert logs[0]["point"].startswith("test_one_bad_message.py:")
