"""Intake: complete consultations a second, against an empty POST of the same body.

A real broker, one process, 16 keep-alive connections of a client in a process of its own. Broker
and empty POST take turns; the figure is the median of the rounds' ratios. Before each turn of the
empty POST the broker has fanned out all that it took in, so that it gets the machine for itself.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import rig, setups, stages, turns
from benchmarks.setups import Fresh

NAME: Final = "intake"
AIM: Final = 0.05


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark."""
    parser = rig.options(__doc__)
    turns.options(parser)
    parser.add_argument("--samples", type=int, default=300, help="consultations timed by stage")
    setups.run(parser, arguments, _run)


async def _run(chosen: argparse.Namespace, fresh: Fresh) -> None:
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place:
        folder = Path(place)
        machine = rig.machine(folder)
        async with rig.broker(folder / "broker", fresh()) as world, rig.ceiling() as (port, pid):
            door = await rig.pharmacy_door(world)
            rounds = await turns.take(NAME, world, door, port, pid, chosen)
        # The same database again, in this process: its broker has stopped.
        table = await stages.measure(rig.settings(world), door, chosen.samples)
    print()
    _tell_stages(table)
    ratio = turns.ratio(rounds)
    raw: dict[str, Any] = {
        "connections": chosen.connections,
        "seconds_each": chosen.seconds,
        "body_bytes": len(door.body),
        "rounds": rounds,
        "stages_ms": table,
    }
    rig.Result(setups.named(NAME, chosen.on), ratio, f"≥ {AIM}", ratio >= AIM, raw).tell(
        chosen.results, machine
    )


def _tell_stages(table: dict[str, float]) -> None:
    whole = table[stages.WHOLE]
    print("one consultation alone, in process, median of each stage")
    for stage, milliseconds in table.items():
        print(f"  {stage:<28}{milliseconds:8.3f} ms {milliseconds / whole:7.1%}")


if __name__ == "__main__":
    main(sys.argv[1:])
