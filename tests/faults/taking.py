"""A process that takes messages in, and writes down each that it answered for: to have its power
cut. `python -m tests.faults.taking FOLDER ROUNDS [PLANTED]`

It starts on an empty folder, stops half-way in good order and starts again. Its ledger, `ledger` in
the folder, stands for a disk elsewhere that keeps all that it is given.
"""

import asyncio
import copy
import itertools
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from adapters.pharmacy import ADAPTER
from broker import vault
from broker.access import Caller
from broker.directory_file import parse
from broker.events import digest, uuid7
from broker.intake import Posted
from broker.main import Broker, open_broker
from broker.settings import Settings
from broker.store import database, directory
from broker.store import store as writing
from broker.telemetry import set_up_logging

CALLER: Final = Caller("riverside-pharmacy-system", "FPH01", frozenset({"pharmacy:submit"}))
ROUND_SIZES: Final = (1, 1, 1, 3)  # so that some share a commit
HEAD_START: Final = 0.05


def settings_of(folder: Path) -> Settings:
    """Return the settings of a broker whose database and keys are on volumes of their own."""
    return Settings(data_dir=folder / "volume" / "data", keys_dir=folder / "safe" / "keys")


class Taking:
    """Posts rounds of consultations, a few at once, and keeps the ledger."""

    def __init__(self, folder: Path) -> None:
        self.settings = settings_of(folder)
        self._ledger = (folder / "ledger").open("ab", buffering=0)
        self._sizes = itertools.cycle(ROUND_SIZES)

    async def fill(self) -> None:
        """Load the directory, as an operator does first."""
        text = (files("sandbox") / "directory.yaml").read_text(encoding="utf-8")
        async with open_broker(self.settings) as broker:
            await broker.store.write(lambda tx: directory.replace(tx, parse(text)))

    async def take(self, rounds: int) -> None:
        """Start, take some rounds in, stop."""
        async with open_broker(self.settings) as broker:
            for _ in range(rounds):
                size = next(self._sizes)
                await asyncio.gather(*(self._post(broker) for _ in range(size)))

    async def _post(self, broker: Broker) -> None:
        body: dict[str, Any] = copy.deepcopy(dict(ADAPTER.examples["uncomplicated-uti"]))
        body["reference"] = f"RP-{uuid7()}"
        body["clinical_time"] = datetime.now(UTC).isoformat(timespec="seconds")
        posted = json.dumps(body).encode()
        self._write(posting=digest(posted))
        answer = await broker.intake.accept(Posted(CALLER, ADAPTER, uuid7(), posted))
        for message in json.loads(answer.body)["messages"]:
            self._write(accepted=message["id"], digest=digest(posted))

    def _write(self, **said: str) -> None:
        self._ledger.write(json.dumps(said).encode() + b"\n")


# -- what is planted ---------------------------------------------------------------------------


def synchronous_normal() -> None:
    """SQLite syncs its log only before a checkpoint, and the broker does not notice."""
    prepare = database._prepare_sqlite

    def prepare_weaker(connection: Any, record: Any) -> None:
        prepare(connection, record)
        connection.execute("PRAGMA synchronous=NORMAL")

    database._prepare_sqlite = prepare_weaker
    database.check_durability = lambda connection: None


def answer_before_commit() -> None:
    """The store tells its callers before it commits."""
    serve = writing.Store._serve

    def answer_first(self: writing.Store, group: list[writing._Job]) -> None:
        early = [job for job in group if job.future is not None]
        if early:
            writing._answer(early)
            time.sleep(HEAD_START)
        serve(self, group)

    writing.Store._serve = answer_first  # type: ignore[method-assign]


def ring_without_sync() -> None:
    """The new key ring is left to the operating system to write when it likes."""
    vault.os = SimpleNamespace(**vars(vault.os) | {"fsync": lambda descriptor: None})


PLANTED: Final[dict[str, Callable[[], None]]] = {
    plant.__name__: plant for plant in (synchronous_normal, answer_before_commit, ring_without_sync)
}


async def main(folder: Path, rounds: int, planted: str = "") -> None:
    set_up_logging("warning")
    if planted:
        PLANTED[planted]()
    taking = Taking(folder)
    await taking.fill()
    await taking.take(rounds // 2)
    await taking.take(rounds - rounds // 2)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
