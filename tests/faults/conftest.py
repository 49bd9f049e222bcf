"""What the fault tests share: one run that went well, for the judge to be tested with."""

import asyncio
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.client import NeverAnswered
from sandbox.ledger import Ledger
from sandbox.world import World
from tests.faults import checker, judged
from tests.faults.copying import copy_of


@pytest.fixture(autouse=True)
def quiet_http_servers() -> Iterator[None]:
    """Connections that break off are the point here: what servers log of them is not."""
    logger = logging.getLogger("uvicorn.error")
    before, logger.disabled = logger.disabled, True
    yield
    logger.disabled = before


@dataclass(frozen=True, slots=True)
class History:
    """The files of a run: its database before and after a replay, and everybody's ledgers."""

    database: Path
    before: Path
    ledgers: tuple[Path, ...]

    def judge(self) -> checker.Verdict:
        return checker.check(self.database, self.ledgers, before=self.before)


@pytest.fixture(scope="session")
def good_run(tmp_path_factory: pytest.TempPathFactory) -> History:
    """A run in which nothing went wrong, then replayed: every kind of message and destination."""
    folder = tmp_path_factory.mktemp("good-run")

    async def run() -> History:
        nemesis = Ledger(folder / "schedule.jsonl", "nemesis")
        with closing(nemesis) as schedule:
            schedule.write("schedule")
            async with World(folder) as world:
                await _send_one_of_each(world)
                await judged.settled(world)
                before = copy_of(judged.database(world), folder / "before.db")
                judged.publish_head(world, before)
                schedule.write("fault", fault="restart")
                await world.broker.stop()
                _replay_from_the_beginning(judged.database(world))
                await world.broker.start()
                await judged.settled(world)
                schedule.write("healed", fault="restart")
                after = copy_of(judged.database(world), folder / "copy.db")
                ledgers = [partner.ledger.path for partner in world.partners]
                return History(after, before, (*ledgers, schedule.path, judged.heads_of(world)))

    return asyncio.run(run())


async def _send_one_of_each(world: World) -> None:
    pharmacy, optometrist = world.pharmacy, world.optometrist
    replies = await asyncio.gather(
        pharmacy.submit(pharmacy.consultation(practice="G99001")),
        pharmacy.submit(pharmacy.consultation(practice="G99002")),
        pharmacy.submit(pharmacy.crisis(practice="G99002")),
        pharmacy.submit(pharmacy.consultation(practice="G99001", consent_to_inform_gp=False)),
        pharmacy.submit(
            pharmacy.crisis(practice="G99001", clinical_time="2026-01-05T10:00:00+00:00")
        ),
        optometrist.submit(optometrist.referral(practice="G99002", family="XXTEST-COMPLETE")),
    )
    assert [reply.status for reply in replies] == [202] * 6
    withdrawn = replies[0].json["messages"][0]["id"]
    assert (await pharmacy.withdraw(withdrawn)).status == 202
    corrected = replies[1].json["messages"][0]["id"]
    reference = pharmacy.ledger.entries("ok", messages=[corrected])[0]["reference"]
    body = pharmacy.consultation(practice="G99002", reference=reference)
    status = 412
    while status == 412:  # it is being received and filed meanwhile
        read = await pharmacy.client.call("GET", f"/messages/{corrected}")
        status = (await pharmacy.correct(corrected, body, read.etag)).status
    assert status == 200
    await _with_unknown_outcomes(world)


async def _with_unknown_outcomes(world: World) -> None:
    """A post that was taken and whose answer got lost, one that never came, a repeat, a refusal."""
    pharmacy = world.pharmacy
    body = pharmacy.consultation(practice="G99002")
    first = await pharmacy.submit(body, key="asked-twice")
    again = await pharmacy.submit(body, key="asked-twice")
    assert first.body == again.body
    refused = await pharmacy.submit({**body, "advice": "Something else."}, key="asked-twice")
    assert refused.status == 409
    call = pharmacy.client.call

    async def taken(*asked: object, **given: object) -> object:
        await call(*asked, **given)  # type: ignore[arg-type]
        raise NeverAnswered("the answer got lost")

    async def lost(*asked: object, **given: object) -> object:
        raise NeverAnswered("the post got lost")

    for way in (taken, lost):
        pharmacy.client.call = way  # type: ignore[method-assign, assignment]
        with pytest.raises(NeverAnswered):
            await pharmacy.submit(pharmacy.consultation(practice="G99002"))
        pharmacy.client.call = call  # type: ignore[method-assign]


def _replay_from_the_beginning(database: Path) -> None:
    """Let dispatch read the whole ledger again, while no broker runs."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE cursor SET position = 0")
