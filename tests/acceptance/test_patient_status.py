"""What the patient may be told of a message, through its door."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from broker import patient_status
from broker.referral import State
from tests.acceptance.place import Caller, Place, problem, taken
from tests.acceptance.test_redirection import SENT_ON, plain, sent_on
from tests.acceptance.test_referral_doors import received

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_every_state_of_a_referral_has_its_words() -> None:
    assert set(patient_status.REFERRAL) == set(State)


async def test_each_party_reads_the_same_words_and_nobody_else_any(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    message = await received(optometrist, hospital, plain())
    taken(await hospital.move(message["referral"], "accept"), 200)
    door = f"/messages/{message['id']}/status"
    told = taken(await optometrist.get(door), 200)
    assert told["line"] == patient_status.REFERRAL[State.ACCEPTED].line
    assert told["if_worse"] == patient_status.WORSE
    assert taken(await hospital.get(door), 200) == told
    problem(await place.of("RYY01").get(door), 404, "not-found")


async def test_who_sent_it_on_is_told_that_and_no_advice_is_read_out(
    optometrist: Caller, hospital: Caller, place: Place
) -> None:
    message = await received(optometrist, hospital, plain())
    at = message["referral"]
    taken(await hospital.move(at, "accept"), 200)
    now = (await sent_on(hospital, at))["message"]
    answer = await optometrist.get(f"/messages/{now}/status")
    told = taken(answer, 200)
    assert told["line"] == patient_status.REFERRAL[State.REDIRECTED].line
    assert SENT_ON["advice"] not in answer.text


def trail(**changes: Any) -> Any:
    """Return a trail of a referral that was accepted, changed as asked."""
    message = {"status": "sent", "label": "N", "kind": "referral"}
    message |= {name: changes.pop(name) for name in set(changes) & set(message)}
    made = {"referral": SimpleNamespace(state=changes.pop("state", "accepted"))}
    made |= {name: [] for name in ("deliveries", "items", "deadlines", "decisions")}
    return SimpleNamespace(message=SimpleNamespace(**message), **{**made, **changes})


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"label": "R"}, patient_status.PRIVATE.line),
        ({"status": "withheld"}, patient_status.UNSENT.line),
        ({"status": "withdrawn"}, patient_status.TAKEN_BACK.line),
        ({"status": "closed"}, patient_status.REFERRAL[State.ACCEPTED].line),
        ({"status": "closed", "referral": None}, patient_status.TAKEN_BACK.line),
        ({"kind": "update", "referral": None}, patient_status.UPDATE.line),
    ],
)
async def test_what_stands_no_longer_or_is_restricted_says_no_more(
    changes: dict[str, Any], line: str
) -> None:
    assert patient_status.said(trail(**changes), datetime.now(UTC))["line"] == line


@pytest.mark.parametrize(("state", "late"), [("booked", True), ("completed", False)])
async def test_what_cannot_be_delivered_says_whom_to_contact_until_it_has_ended(
    state: str, late: bool
) -> None:
    dead = SimpleNamespace(id="1", role="acting", state="dead", done_reason=None)
    told = patient_status.said(trail(state=state, deliveries=[dead]), datetime.now(UTC))
    assert told["line"] == patient_status.REFERRAL[State(state)].line
    assert (told["next"] == patient_status.LATE) is late


async def test_a_filed_update_says_so() -> None:
    acting = SimpleNamespace(id="1", role="acting", state="done", done_reason=None)
    filed = SimpleNamespace(delivery_id="1", outcome="filed")
    made = trail(kind="update", referral=None, deliveries=[acting], decisions=[filed])
    assert patient_status.said(made, datetime.now(UTC))["line"] == patient_status.FILED.line


async def test_who_sent_it_on_hears_nothing_of_what_came_after() -> None:
    told = patient_status.said(trail(state="booked"), datetime.now(UTC), sent_on=True)
    assert told["line"] == patient_status.REFERRAL[State.REDIRECTED].line
