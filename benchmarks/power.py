"""Power: what a power cut loses at each of the first sync boundaries of intake, on SQLite.

No speed is measured: it is the long run of tests/faults/test_power_loss.py, which says what is done
at a boundary and what that does not show. Every boundary of the start is cut too. Then come brokers
with a planted fault each, of which the same cuts must find every one.
"""

import itertools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import rig
from broker.telemetry import set_up_logging
from tests.faults import cutting
from tests.faults.cutting import Cut
from tests.faults.taking import PLANTED

NAME: Final = "power"
_PLANTED_ROUNDS: Final = 80


def main(arguments: Sequence[str]) -> None:
    """Run it; exit 1 where something is lost, or a planted fault is not found."""
    parser = rig.options(__doc__)
    parser.add_argument("--boundaries", type=int, default=200, help="of intake")
    parser.add_argument("--seeds", type=int, default=1, help="ways in which each cut tears")
    parser.add_argument("--planted-rounds", type=int, default=_PLANTED_ROUNDS)
    chosen = parser.parse_args(arguments)
    set_up_logging("warning")
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place:
        folder = Path(place)
        machine = rig.machine(folder)
        shim = cutting.build_shim(folder)
        cuts = _cut(shim, folder / "sound", chosen.boundaries, chosen.boundaries, chosen.seeds)
        wrong = [cut for cut in cuts if cut.wrong]
        found = {}
        for planted in PLANTED:
            rounds = chosen.planted_rounds
            tried = _cut(shim, folder / planted, rounds, chosen.boundaries, 1, planted)
            found[planted] = [cut for cut in tried if cut.lost]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    for planted, losing in found.items():
        print(f"planted: {planted}; these boundaries lose messages")
        _tell(losing)
    raw: dict[str, Any] = {
        "boundaries": len({cut.boundary for cut in cuts}),
        "cuts": len(cuts),
        "accepted": max(cut.accepted for cut in cuts),
        "wrong": [str(cut) for cut in wrong],
        "planted": {planted: [str(cut) for cut in losing] for planted, losing in found.items()},
    }
    is_met = not wrong and all(found.values())
    aim = f"0 of {len(cuts)} cuts lose or harm; every planted fault is found"
    rig.Result(NAME, float(len(wrong)), aim, is_met, raw).tell(chosen.results, machine)
    sys.exit(not is_met)


def _cut(
    shim: Path, home: Path, rounds: int, most: int, seeds: int, planted: str = ""
) -> list[Cut]:
    """Cut a run at the first boundaries of its intake; where nothing is planted at those of its
    start too."""
    run = cutting.run(shim, home, rounds, planted)
    if run.code != 0:
        raise RuntimeError(run.said)
    found = cutting.boundaries(run.trace)
    wanted = [one.number for one in found if one.is_of_intake][:most]
    if not planted:
        wanted += [one.number for one in found if not one.is_of_intake]
    return list(cutting.every_cut(run.trace, home, wanted, seeds=range(seeds)))


def _tell(cuts: Sequence[Cut]) -> None:
    """Print a line for each boundary: how many of the accepted each of its cuts loses."""
    for _, group in itertools.groupby(cuts, key=lambda cut: cut.boundary):
        these = list(group)
        losses = ", ".join(f"{cut.moment} {cut.way} {cut.lost}/{cut.accepted}" for cut in these)
        print(f"  {these[0].boundary:4} {these[0].path}: {losses}")


if __name__ == "__main__":
    main(sys.argv[1:])
