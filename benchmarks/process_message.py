"""BaRS referrals a second through `$process-message`, against an empty POST of the same body.

A real broker, one process, 16 keep-alive connections of a client in a process of its own; every
check on, every message durable and answered with its own Bundle. The figure is the median of the
rounds' ratios.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import rig, setups, turns
from benchmarks.setups import Fresh

NAME: Final = "process-message"
AIM: Final = 0.30


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark."""
    parser = rig.options(__doc__)
    turns.options(parser)
    setups.run(parser, arguments, _run)


async def _run(chosen: argparse.Namespace, fresh: Fresh) -> None:
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place:
        folder = Path(place)
        machine = rig.machine(folder)
        async with rig.broker(folder / "broker", fresh()) as world, rig.ceiling() as (port, pid):
            door = await rig.bars_door(world)
            rounds = await turns.take(NAME, world, door, port, pid, chosen)
    ratio = turns.ratio(rounds)
    raw = {
        "connections": chosen.connections,
        "seconds_each": chosen.seconds,
        "body_bytes": len(door.body),
        "rounds": rounds,
    }
    rig.Result(setups.named(NAME, chosen.on), ratio, f"≥ {AIM}", ratio >= AIM, raw).tell(
        chosen.results, machine
    )


if __name__ == "__main__":
    main(sys.argv[1:])
