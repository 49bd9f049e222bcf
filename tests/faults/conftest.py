"""What the fault tests share: one run that went well, for the judge to be tested with."""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandbox.world import World
from tests.faults import checker, judged


@pytest.fixture(autouse=True)
def quiet_http_servers() -> Iterator[None]:
    """Connections that break off are the point here: what servers log of them is not."""
    logger = logging.getLogger("uvicorn.error")
    before, logger.disabled = logger.disabled, True
    yield
    logger.disabled = before


@dataclass(frozen=True, slots=True)
class History:
    """The files of a run."""

    database: Path
    ledgers: tuple[Path, ...]

    def judge(self) -> checker.Verdict:
        return checker.check(self.database, self.ledgers)


@pytest.fixture(scope="session")
def good_run(tmp_path_factory: pytest.TempPathFactory) -> History:
    """A run in which nothing went wrong: every kind of message, every kind of destination."""
    folder = tmp_path_factory.mktemp("good-run")

    async def run() -> History:
        async with World(folder) as world:
            pharmacy, optometrist = world.pharmacy, world.optometrist
            replies = await asyncio.gather(
                pharmacy.submit(pharmacy.consultation(practice="G99001")),
                pharmacy.submit(pharmacy.consultation(practice="G99002")),
                pharmacy.submit(pharmacy.crisis(practice="G99002")),
                optometrist.submit(
                    optometrist.referral(practice="G99002", family="XXTEST-COMPLETE")
                ),
            )
            assert [reply.status for reply in replies] == [202] * 4
            await judged.settled(world)
            ledgers = tuple(partner.ledger.path for partner in world.partners)
            copy = checker.copy_of(judged.database(world), folder / "copy.db")
            return History(copy, ledgers)

    return asyncio.run(run())
