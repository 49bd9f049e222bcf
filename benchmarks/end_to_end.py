"""End to end: from POST at the pharmacy's door to visible in the practice's inbox, at 100 a second.

Open loop: each consultation has its time to be sent, and its latency counts from that time,
however late it went out. The practice's inbox is looked at in quick succession, by cursor. The
ceiling is the same load against a list in memory behind the same HTTP stack.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from benchmarks import rig, setups
from benchmarks.load import Door, Opened, Pace, open_loop
from benchmarks.setups import Fresh

NAME: Final = "end-to-end"
AIM_P99: Final = {setups.SQLITE: 150.0, setups.POSTGRESQL: 250.0, setups.KAFKA: 250.0}


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark."""
    parser = rig.options(__doc__)
    parser.add_argument("--rate", type=float, default=100.0, help="consultations a second")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--warm-up", type=float, default=5.0, help="seconds not counted")
    parser.add_argument("--look-every", type=float, default=0.01, help="pause between looks, s")
    setups.run(parser, arguments, _run)


async def _run(chosen: argparse.Namespace, fresh: Fresh) -> None:
    pace = Pace(chosen.rate, chosen.warm_up, chosen.seconds, chosen.look_every)
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place:
        folder = Path(place)
        machine = rig.machine(folder)
        async with rig.broker(folder / "broker", fresh()) as world:
            door, inbox = await rig.pharmacy_door(world), await rig.inbox_door(world)
            with rig.clients() as clients:
                ours = await clients.run(open_loop, door, inbox, "E", pace)
        async with rig.ceiling() as (port, _):
            memory = replace(door, port=port, path="/memory"), Door(port, "/inbox")
            with rig.clients() as clients:
                theirs = await clients.run(open_loop, *memory, "E", pace)
    raw = {"pace": asdict(pace), "broker": told(ours), "ceiling": told(theirs)}
    for name, one in (("the broker", ours), ("a list in memory", theirs)):
        _tell(name, one)
    seen = rig.spread(ours.visible)
    aim = AIM_P99[chosen.on]
    rig.Result(
        setups.named(NAME, chosen.on), seen["p99"], f"p99 ≤ {aim:g} ms", seen["p99"] <= aim, raw
    ).tell(chosen.results, machine)


def told(seen: Opened) -> dict[str, Any]:
    return {
        "counted": len(seen.visible),
        "accepted_ms": rig.spread(seen.accepted),
        "visible_ms": rig.spread(seen.visible),
        "looks": seen.polls,
    }


def _tell(name: str, seen: Opened) -> None:
    for what, values in (("accepted", seen.accepted), ("visible", seen.visible)):
        said = "  ".join(f"{share} {value:7.2f}" for share, value in rig.spread(values).items())
        print(f"{name:<18}{what:<10}{said} ms")


if __name__ == "__main__":
    main(sys.argv[1:])
