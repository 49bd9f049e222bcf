"""A door and the empty POST of the same body take turns, so that both get the same machine.

Before each turn of the empty POST the broker has fanned out all that it took in.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from benchmarks import rig
from benchmarks.load import Closed, Door, closed_loop
from sandbox.world import World

EMPTY: Final = "empty"


def options(parser: argparse.ArgumentParser) -> None:
    """Add how many turns there are, and how long each is."""
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn")
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds before each turn")
    parser.add_argument("--connections", type=int, default=16)


async def take(
    name: str, world: World, door: Door, port: int, pid: int, chosen: argparse.Namespace
) -> list[dict[str, Any]]:
    """Return what each round saw: of the door as `name`, and of the empty POST at a port."""
    empty = replace(door, port=port, path="/empty", accepted=202)
    rounds = []
    with rig.clients() as clients:
        for number in range(chosen.rounds):
            load = (f"R{number}", chosen.connections, chosen.warm_up, chosen.seconds)
            used = rig.cpu_seconds(world.broker.pid or 0)
            ours = await clients.run(closed_loop, door, *load)
            behind = await rig.backlog(world)
            drained = await rig.drained(world)
            used = rig.cpu_seconds(world.broker.pid or 0) - used
            one = _told(name, ours, used)
            used = rig.cpu_seconds(pid)
            theirs = await clients.run(closed_loop, empty, *load)
            one |= _told(EMPTY, theirs, rig.cpu_seconds(pid) - used)
            one |= {
                "ratio": round(ours.per_second / theirs.per_second, 4),
                "not_fanned_out_at_end": behind,
                "fanned_out_after_seconds": round(drained, 2),
            }
            rounds.append(one)
            _tell_round(name, number, one)
    return rounds


def ratio(rounds: Sequence[Mapping[str, Any]]) -> float:
    """Return the figure: the median of the rounds' ratios."""
    found: float = statistics.median(one["ratio"] for one in rounds)
    return round(found, 4)


def _told(name: str, seen: Closed, cpu_seconds: float) -> dict[str, Any]:
    return {
        f"{name}_per_second": round(seen.per_second, 1),
        f"{name}_cpu_ms_each": round(cpu_seconds / seen.all_requests * 1000, 3),
        f"{name}_ms": rig.spread(seen.milliseconds),
    }


def _tell_round(name: str, number: int, one: Mapping[str, Any]) -> None:
    print(
        f"round {number + 1}: {name} {one[f'{name}_per_second']:6.1f}/s"
        f"  p50 {one[f'{name}_ms']['p50']:5.1f}  p99 {one[f'{name}_ms']['p99']:5.1f} ms"
        f"  CPU {one[f'{name}_cpu_ms_each']:5.2f} ms   empty POST {one['empty_per_second']:6.1f}/s"
        f"  CPU {one['empty_cpu_ms_each']:5.2f} ms   ratio {one['ratio']:.4f}"
        f"   fanned out {one['fanned_out_after_seconds']:.1f} s later",
        flush=True,
    )
