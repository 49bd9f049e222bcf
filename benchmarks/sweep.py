"""Sweep: SIGKILL at every crash point many times, and what the judge finds after each.

No speed is measured: it is the long run of tests/faults/test_crash_points.py, with seeds of its
own. What was done is kept in sweep.jsonl beside the result, so that a run that ended too soon goes
on where it was, as long as the commit is the same.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks import rig
from broker.telemetry import set_up_logging
from sandbox.world import World
from tests.databases import running_postgresql
from tests.faults import sweeping
from tests.faults.sweeping import CASES, EVERYWHERE, SQLITE, Case, OnKafka, Worlds
from tests.kafka import running_kafka

NAME: Final = "sweep"
Kill = dict[str, Any]


class Kept:
    """What was swept on this commit, on disk after each kill."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._commit = sweeping.commit()
        self._file = path.open("a+", encoding="utf-8")
        self._file.seek(0)
        found = [json.loads(line) for line in self._file if line.endswith("\n")]
        self.kills: list[Kill] = [one for one in found if one["commit"] == self._commit]

    def has(self, **facts: str) -> bool:
        """Whether a kill with these facts was done, whatever came of it."""
        return any(facts.items() <= kill.items() for kill in self.kills)

    def add(self, **facts: Any) -> None:
        """Keep a kill."""
        self.kills.append({"commit": self._commit, **facts})
        self._file.write(json.dumps(self.kills[-1]) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def main(arguments: Sequence[str]) -> None:
    """Run it; exit 1 where anything is lost, doubled or otherwise wrong."""
    parser = rig.options(__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="kills at each point")
    parser.add_argument("--set-up", choices=(*EVERYWHERE, "all"), default="all")
    parser.add_argument("--points", default="", help="only these, with commas between")
    chosen = parser.parse_args(arguments)
    set_ups = EVERYWHERE if chosen.set_up == "all" else (chosen.set_up,)
    cases = _cases(chosen.points)
    set_up_logging("warning")
    with (
        closing(Kept(chosen.results / f"{NAME}.jsonl")) as kept,
        tempfile.TemporaryDirectory(dir=chosen.folder) as place,
    ):
        machine = rig.machine(Path(place))
        for set_up in set_ups:
            with _made_on(set_up) as make:
                for seed in map(str, range(1, chosen.seeds + 1)):
                    left = [
                        case
                        for case in cases
                        if set_up in case.on
                        and not kept.has(set_up=set_up, case=str(case), seed=seed)
                    ]
                    folder = Path(place) / f"{set_up}-{seed}"
                    asyncio.run(_sweep(kept, left, set_up, seed, Worlds(folder, make)))
        kills = kept.kills
    wrong = [kill for kill in kills if kill["wrong"]]
    raw = {
        "kills": {
            set_up: dict(Counter(kill["point"] for kill in kills if kill["set_up"] == set_up))
            for set_up in EVERYWHERE
        },
        "wrong": wrong,
    }
    aim = f"0 of {len(kills)} kills lose or double anything"
    rig.Result(NAME, float(len(wrong)), aim, not wrong, raw).tell(chosen.results, machine)
    sys.exit(bool(wrong))


def _cases(named: str) -> list[Case]:
    points = set(filter(None, named.split(",")))
    unknown = points - {case.point for case in CASES}
    if unknown:
        sys.exit(f"There is no crash point {', '.join(sorted(unknown))}.")
    return [case for case in CASES if not points or case.point in points]


@contextmanager
def _made_on(set_up: str) -> Iterator[Callable[..., World]]:
    """Yield what makes worlds on a set-up, whose servers run meanwhile."""
    if set_up == SQLITE:
        yield World
        return
    with running_postgresql() as postgresql, running_kafka(1) as kafka:
        yield OnKafka(postgresql, kafka)


async def _sweep(kept: Kept, cases: Sequence[Case], set_up: str, seed: str, worlds: Worlds) -> None:
    try:
        for case in cases:
            began, wrong = time.monotonic(), ""
            try:
                await sweeping.sweep(worlds, [case], seed)
            except AssertionError as error:
                wrong = str(error)
            seconds = round(time.monotonic() - began, 1)
            where = {"set_up": set_up, "case": str(case), "point": case.point, "seed": seed}
            kept.add(**where, nth=case.nth(seed), seconds=seconds, wrong=wrong)
            print(f"{set_up} {case} {seed}: {wrong or f'right, {seconds:g} s'}", flush=True)
    finally:
        await worlds.aclose()


if __name__ == "__main__":
    main(sys.argv[1:])
