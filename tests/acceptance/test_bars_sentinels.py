"""Sentinel targets: what the sender gets from each, through a running broker."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from importlib.resources import files
from itertools import starmap

import httpx2
import pytest
import pytest_asyncio

from broker.directory_file import parse
from broker.store import directory
from sandbox import bars
from sandbox.bars_receiver import Call
from sandbox.bars_sentinels import ORGANISATION, TABLE, Gets, SentinelReceiver, joined
from tests.acceptance.place import Body, Place
from tests.acceptance.test_bars import answered, resources, send
from tests.acceptance.test_fhir_errors import outcome

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]
HEARS, DEAF = "G99001", "G99003"
AT_ONCE = 8
Sent = tuple[Body, httpx2.Response]


def referral(sender: str, dos: str) -> Body:
    return bars.referral(sender=sender, receiver=ORGANISATION, service=dos)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def answers(place: Place) -> AsyncIterator[Mapping[tuple[str, str], Sent]]:
    """What a sender that can be told later, and one that cannot, got from each target."""
    receiver = SentinelReceiver()
    await receiver.start()
    whole = parse(joined(place.directory_text, receiver.url))
    await place.broker.store.write(lambda tx: directory.replace(tx, whole))

    async def ask(sender: str, dos: str) -> tuple[tuple[str, str], Sent]:
        message = referral(sender, dos)
        return (sender, dos), (message, await send(place.of(sender), message, dos))

    pairs = [(sender, dos) for sender in (HEARS, DEAF) for dos in TABLE]
    # Who is to be answered in time is not asked by sixty at once.
    quick = [pair for pair in pairs if TABLE[pair[1]].gets is not Gets.HELD]
    turns = [[pair for pair in pairs if pair not in quick]]
    turns += [quick[first : first + AT_ONCE] for first in range(0, len(quick), AT_ONCE)]
    yield {pair: sent for turn in turns for pair, sent in await asyncio.gather(*starmap(ask, turn))}
    await receiver.stop()


@pytest.mark.parametrize("dos", TABLE)
async def test_a_sender_gets_what_the_table_says(
    answers: Mapping[tuple[str, str], Sent], dos: str
) -> None:
    target = TABLE[dos]
    message, answer = answers[HEARS, dos]
    if target.gets is Gets.ERROR:
        assert target.scripted is not None
        assert (answer.status_code, answer.json()) == (
            target.scripted.status,
            target.scripted.body,
        )
        return
    said = answered(answer, message)
    _, planned = resources(said, "Encounter")
    is_held = "Held by the broker, not yet with the service." in str(planned.get("text"))
    assert is_held is (target.gets is Gets.HELD)


@pytest.mark.parametrize("dos", TABLE)
async def test_a_sender_that_cannot_be_told_later_is_never_told_that_it_is_held(
    answers: Mapping[tuple[str, str], Sent], dos: str
) -> None:
    message, answer = answers[DEAF, dos]
    match TABLE[dos].gets:
        case Gets.HELD:
            outcome(answer, 408, "REC_TIMEOUT", "timeout")
        case Gets.TAKEN:
            answered(answer, message)
        case Gets.ERROR:
            assert answer.json() == answers[HEARS, dos][1].json()


async def test_every_answer_has_the_ids_and_every_error_is_sound(
    answers: Mapping[tuple[str, str], Sent],
) -> None:
    for (_, dos), (_, answer) in answers.items():
        assert answer.headers["x-request-id"] and answer.headers["x-correlation-id"], dos
        if answer.status_code >= 400:
            (issue,) = answer.json()["issue"]
            (coding,) = issue["details"]["coding"]
            outcome(answer, answer.status_code, coding["code"], issue["code"])


@pytest.mark.usefixtures("answers")
@pytest.mark.parametrize(
    ("dos", "code"),
    [
        ("2000000001", "connection-lost"),
        ("2000000002", "intermediary"),
        ("2000050301", "answered-5xx"),
    ],
)
async def test_what_keeps_a_message_from_its_target_is_what_the_target_does(
    place: Place, dos: str, code: str
) -> None:
    found = await place.rows(
        "SELECT DISTINCT code FROM delivery WHERE service = :s", s=TABLE[dos].service
    )
    assert [row.code for row in found] == [code]


async def test_a_slow_receiver_has_it_already_when_it_comes_again() -> None:
    receiver = SentinelReceiver()
    (slow,) = (one for one in TABLE.values() if one.after)
    message = json.dumps(referral(HEARS, slow.dos)).encode()
    headers = {name.lower(): value for name, value in bars.headers(slow.dos).items()}
    call = Call("POST", "$process-message", (), headers, message)
    first, again = receiver.answer(call), receiver.answer(call)
    assert (first.status, first.after) == (200, slow.after)
    assert (again.status, again.after) == (409, 0)


async def test_a_number_tells_its_status_and_nothing_goes_to_a_target_that_was_not_named() -> None:
    found = parse(joined((files("sandbox") / "directory.yaml").read_text("utf-8"), "http://x/"))
    for dos, target in TABLE.items():
        scripted = target.scripted
        if scripted is not None and scripted.echo and not scripted.drops:
            assert dos[5:8] == str(scripted.status)
        assert found.services[target.service].offers == ()
