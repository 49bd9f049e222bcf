"""Flatness: what end-to-end is with a million messages in the ledger, against what it is with none.

Two brokers of one set-up, an empty one and one that was filled by copying what a message left, take
turns at the same load. The figure is the ratio of the two p99s, each the median of its turns.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks import filling, rig, setups
from benchmarks.end_to_end import told
from benchmarks.load import Pace, open_loop
from benchmarks.setups import Fresh
from sandbox.ledger import until
from sandbox.world import World

NAME: Final = "flatness"
AIM: Final = 1.3
LIVES_WITHIN: Final = 60.0


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark."""
    parser = rig.options(__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000, help="in the ledger before")
    parser.add_argument("--rate", type=float, default=60.0, help="consultations a second")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each turn")
    parser.add_argument("--warm-up", type=float, default=4.0, help="seconds before each turn")
    parser.add_argument("--rounds", type=int, default=3)
    setups.run(parser, arguments, _run)


async def _run(chosen: argparse.Namespace, fresh: Fresh) -> None:
    pace = Pace(chosen.rate, chosen.warm_up, chosen.seconds, look_every=0.01, page=200)
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place:
        folder = Path(place)
        machine = rig.machine(folder)
        async with (
            rig.broker(folder / "empty", fresh()) as empty,
            rig.broker(folder / "full", fresh()) as full,
        ):
            filled = await _fill(full, chosen.messages)
            worlds = {"empty": empty, "full": full}
            rounds = [await _turns(worlds, number, pace) for number in range(chosen.rounds)]
    p99 = {
        name: statistics.median(one[name]["visible_ms"]["p99"] for one in rounds)
        for name in ("empty", "full")
    }
    ratio = round(p99["full"] / p99["empty"], 3)
    raw = {"pace": asdict(pace), "filled": filled, "p99_ms": p99, "rounds": rounds}
    rig.Result(setups.named(NAME, chosen.on), ratio, f"≤ {AIM}", ratio <= AIM, raw).tell(
        chosen.results, machine
    )


async def _fill(world: World, messages: int) -> dict[str, Any]:
    """Have one message live its life, and copy what it left."""
    await world.practice.start()
    await world.pharmacy.submit(world.pharmacy.consultation())

    def is_filed() -> bool:
        return world.practice.ledger.first("ok", does="decide", outcome="filed") is not None

    if not await until(is_filed, LIVES_WITHIN):
        sys.exit("The practice has not filed its message.")
    await world.practice.stop()
    await rig.drained(world)
    await world.broker.stop()
    started = time.perf_counter()
    rows = await asyncio.to_thread(filling.fill, rig.settings(world).store_url, messages - 1)
    took = round(time.perf_counter() - started, 1)
    print(f"filled: {messages} messages, {rows} rows, in {took} s", flush=True)
    await world.broker.start()
    return {"messages": messages, "rows": rows, "seconds": took}


async def _turns(worlds: dict[str, World], number: int, pace: Pace) -> dict[str, Any]:
    found = {}
    for name, world in worlds.items():
        door, inbox = await rig.pharmacy_door(world), await rig.inbox_door(world)
        with rig.clients() as clients:
            seen = await clients.run(open_loop, door, inbox, f"F{number}", pace)
        await rig.drained(world)
        found[name] = told(seen)
        print(f"round {number + 1}: {name:<6}{found[name]['visible_ms']} ms", flush=True)
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
