"""Recovery: seconds from the start of a broker that was killed until all that it owed is delivered.

Sending is paused while consultations for one practice, which is called, are taken and fanned out.
Then the broker is killed, started again and may send: the clock runs from its start until the
practice, which is no more than an answer, has confirmed each.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx2

from benchmarks import rig, setups
from benchmarks.load import closed_loop
from benchmarks.setups import Fresh
from sandbox.world import INBOX_PRACTICE, WEBHOOK_PRACTICE, World

NAME: Final = "recovery"
AIM: Final = 60.0
CONNECTIONS: Final = 16
LOAD_SECONDS: Final = 2.0
PATIENCE: Final = 1_800.0
LOOK_EVERY: Final = 0.2


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark."""
    parser = rig.options(__doc__)
    parser.add_argument("--undelivered", type=int, default=10_000)
    setups.run(parser, arguments, _run)


async def _run(chosen: argparse.Namespace, fresh: Fresh) -> None:
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place:
        folder = Path(place)
        machine = rig.machine(folder)
        async with rig.broker(folder / "broker", fresh()) as world:
            await _told(world, "endpoints", "pause", WEBHOOK_PRACTICE)
            accepted = await _owed(world, chosen.undelivered)
            await world.broker.kill()
            called = urlsplit(world.webhook_practice.url).port or 0
            await world.webhook_practice.stop()
            async with rig.ceiling(called) as (port, _):
                assert port == called
                started = time.perf_counter()
                await world.broker.start()
                serving = time.perf_counter() - started
                await _told(world, "endpoints", "resume", WEBHOOK_PRACTICE)
                again = await _delivered(port, accepted)
                took = time.perf_counter() - started
    raw = {
        "delivered": accepted,
        "delivered_again": again,
        "seconds": round(took, 1),
        "serving_after_seconds": round(serving, 2),
        "per_second": round(accepted / took, 1),
    }
    print(raw)
    seconds = round(took * 10_000 / accepted, 1)
    rig.Result(
        setups.named(NAME, chosen.on), seconds, f"≤ {AIM:g} s for 10,000", seconds <= AIM, raw
    ).tell(chosen.results, machine)


async def _owed(world: World, wanted: int) -> int:
    """Have so many consultations taken and fanned out, or some more; return how many."""
    door = await rig.pharmacy_door(world)
    assert door.body.count(INBOX_PRACTICE.encode()) == 1
    door = replace(door, body=door.body.replace(INBOX_PRACTICE.encode(), WEBHOOK_PRACTICE.encode()))
    accepted = 0
    with rig.clients() as clients:
        while accepted < wanted:
            load = (f"W{accepted}", CONNECTIONS, 0.0, LOAD_SECONDS)
            accepted += (await clients.run(closed_loop, door, *load)).all_requests
    await rig.drained(world)
    return accepted


async def _delivered(port: int, wanted: int) -> int:
    """Wait until so many deliveries have come; return how many came again."""
    async with httpx2.AsyncClient(trust_env=False) as http, asyncio.timeout(PATIENCE):
        while True:
            said = (await http.get(f"http://127.0.0.1:{port}/confirmed")).json()
            if said["deliveries"] >= wanted:
                return int(said["again"])
            await asyncio.sleep(LOOK_EVERY)


async def _told(world: World, *words: str) -> None:
    code, said = await world.cli(*words)
    if code != 0:
        sys.exit(said)


if __name__ == "__main__":
    main(sys.argv[1:])
