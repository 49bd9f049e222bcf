"""Intake: complete consultations a second, against an empty POST of the same body.

A real broker, one worker, 16 keep-alive connections of a client in a process of its own. Broker and
empty POST take turns; the figure is the median of the rounds' ratios. Before each turn of the empty
POST the broker has fanned out all that it took in, so that it gets the machine for itself.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks import rig, stages
from benchmarks.load import Closed, closed_loop

NAME: Final = "intake"
AIM: Final = 0.05


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark."""
    parser = rig.options(__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds before each turn")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--samples", type=int, default=300, help="consultations timed by stage")
    asyncio.run(_run(parser.parse_args(arguments)))


async def _run(chosen: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place:
        folder = Path(place)
        machine = rig.machine(folder)
        async with rig.broker(folder / "broker") as world, rig.ceiling() as (port, pid):
            door = await rig.pharmacy_door(world)
            empty = replace(door, port=port, path="/empty")
            rounds = []
            with rig.clients() as clients:
                for number in range(chosen.rounds):
                    load = (f"R{number}", chosen.connections, chosen.warm_up, chosen.seconds)
                    used = rig.cpu_seconds(world.broker.pid or 0)
                    ours = await clients.run(closed_loop, door, *load)
                    behind = await rig.backlog(world)
                    drained = await rig.drained(world)
                    used = rig.cpu_seconds(world.broker.pid or 0) - used
                    one = _told("intake", ours, used)
                    used = rig.cpu_seconds(pid)
                    theirs = await clients.run(closed_loop, empty, *load)
                    one |= _told("empty", theirs, rig.cpu_seconds(pid) - used)
                    one |= {
                        "ratio": round(ours.per_second / theirs.per_second, 4),
                        "not_fanned_out_at_end": behind,
                        "fanned_out_after_seconds": round(drained, 2),
                    }
                    rounds.append(one)
                    _tell_round(number, one)
        # The same database again, in this process: its broker has stopped.
        table = await stages.measure(rig.settings(world), door, chosen.samples)
    print()
    _tell_stages(table)
    ratio = round(statistics.median(one["ratio"] for one in rounds), 4)
    raw: dict[str, Any] = {
        "connections": chosen.connections,
        "seconds_each": chosen.seconds,
        "body_bytes": len(door.body),
        "rounds": rounds,
        "stages_ms": table,
    }
    rig.Result(NAME, ratio, f"≥ {AIM}", ratio >= AIM, raw).tell(chosen.results, machine)


def _told(name: str, seen: Closed, cpu_seconds: float) -> dict[str, Any]:
    return {
        f"{name}_per_second": round(seen.per_second, 1),
        f"{name}_cpu_ms_each": round(cpu_seconds / seen.all_requests * 1000, 3),
        f"{name}_ms": rig.spread(seen.milliseconds),
    }


def _tell_round(number: int, one: dict[str, Any]) -> None:
    print(
        f"round {number + 1}: intake {one['intake_per_second']:6.1f}/s"
        f"  p50 {one['intake_ms']['p50']:5.1f}  p99 {one['intake_ms']['p99']:5.1f} ms"
        f"  CPU {one['intake_cpu_ms_each']:5.2f} ms   empty POST {one['empty_per_second']:6.1f}/s"
        f"  CPU {one['empty_cpu_ms_each']:5.2f} ms   ratio {one['ratio']:.4f}"
        f"   fanned out {one['fanned_out_after_seconds']:.1f} s later",
        flush=True,
    )


def _tell_stages(table: dict[str, float]) -> None:
    whole = table[stages.WHOLE]
    print("one consultation alone, in process, median of each stage")
    for stage, milliseconds in table.items():
        print(f"  {stage:<28}{milliseconds:8.3f} ms {milliseconds / whole:7.1%}")


if __name__ == "__main__":
    main(sys.argv[1:])
