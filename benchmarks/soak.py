"""Soak: how much more memory the broker holds after a long steady load, its partners all there.

Consultations go to a practice that collects from its inbox and to one that is called, which confirm
and file each. The figure is the growth in MiB from the first minute after the warm-up to the last,
by medians; of a run of two hours, the slope in MiB an hour.
"""

import argparse
import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import rig, setups
from benchmarks.setups import Fresh
from sandbox.world import INBOX_PRACTICE, WEBHOOK_PRACTICE, World

NAME: Final = "soak"
AIM_MIB: Final = 8.0
AIM_MIB_AN_HOUR: Final = 1.0
LONG: Final = 120.0
SAMPLE_SECONDS: Final = 5.0
MINUTE: Final = 60.0


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark."""
    parser = rig.options(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="after the warm-up")
    parser.add_argument("--warm-up", type=float, default=3.0, help="minutes")
    parser.add_argument("--rate", type=float, default=20.0, help="consultations a second")
    setups.run(parser, arguments, _run)


async def _run(chosen: argparse.Namespace, fresh: Fresh) -> None:
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place:
        folder = Path(place)
        machine = rig.machine(folder)
        async with rig.broker(folder / "broker", fresh()) as world:
            for partner in world.partners:
                await partner.start()
            minutes = chosen.warm_up + chosen.minutes
            seen, posted = await _watched(world, minutes * MINUTE, chosen.rate)
    seen = [(at - chosen.warm_up * MINUTE, mib) for at, mib in seen]
    after = [one for one in seen if one[0] >= 0]
    span = min(MINUTE, after[-1][0] / 2)
    first = statistics.median(mib for at, mib in after if at <= span)
    last = statistics.median(mib for at, mib in after if at >= after[-1][0] - span)
    slope = statistics.linear_regression(*zip(*after, strict=True)).slope * 3600
    is_long = chosen.minutes >= LONG
    figure, aim = (slope, AIM_MIB_AN_HOUR) if is_long else (last - first, AIM_MIB)
    unit = "MiB an hour" if is_long else "MiB"
    raw: dict[str, Any] = {
        "rate": chosen.rate,
        "posted": posted,
        "minutes": chosen.minutes,
        "first_mib": round(first, 2),
        "last_mib": round(last, 2),
        "mib_an_hour": round(slope, 2),
        "resident_mib": [(round(at), round(mib, 1)) for at, mib in seen],
    }
    print(f"{posted} posted; from {first:.1f} to {last:.1f} MiB; {slope:+.2f} MiB an hour")
    name = setups.named(f"{NAME}-long" if is_long else NAME, chosen.on)
    rig.Result(name, round(figure, 2), f"< {aim:g} {unit}", figure < aim, raw).tell(
        chosen.results, machine
    )


async def _watched(
    world: World, seconds: float, rate: float
) -> tuple[list[tuple[float, float]], int]:
    """Post at a rate for so long: (seconds since the beginning and MiB held, how many were posted).

    Raises ExceptionGroup where something is not taken.
    """
    began = time.perf_counter()
    seen: list[tuple[float, float]] = []
    practices = itertools.cycle((INBOX_PRACTICE, WEBHOOK_PRACTICE))
    pid = world.broker.pid or 0

    async def post() -> None:
        reply = await world.pharmacy.submit(world.pharmacy.consultation(practice=next(practices)))
        if reply.status != 202:
            raise RuntimeError(f"answered {reply.status}")

    async with asyncio.TaskGroup() as group:
        for number in itertools.count():
            now = time.perf_counter() - began
            if now >= seconds:
                break
            if now >= len(seen) * SAMPLE_SECONDS:
                seen.append((now, rig.resident_mib(pid)))
            group.create_task(post())
            await asyncio.sleep(max(0.0, (number + 1) / rate - now))
    return seen, number


if __name__ == "__main__":
    main(sys.argv[1:])
