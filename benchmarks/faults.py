"""Faults: deliveries made while everything breaks that can, judged, until there were enough.

No speed is measured: it is the long run of tests/faults/test_nemeses.py. Each round is a broker of
its own under load, on SQLite, on PostgreSQL, or on PostgreSQL with a Kafka of three nodes, which
every nemesis that fits breaks in an order by chance, now and then two at once; then it heals,
settles and is judged. What a round found is appended to `rounds.jsonl` in --folder; a run that is
started again in the same folder goes on. It ends with a report for whoever answers for safety.
"""

import asyncio
import json
import random
import shutil
import sys
import traceback
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from benchmarks import rig
from broker.telemetry import set_up_logging
from tests.databases import PostgreSQL, running_postgresql
from tests.faults import cutting, storm
from tests.faults.nemeses import NEMESES
from tests.kafka import Kafka, running_kafka

NAME: Final = "faults"
SET_UPS: Final[Mapping[str, str]] = {
    "sqlite": storm.SQLITE,
    "postgresql": storm.ON_POSTGRESQL,
    "kafka": storm.ON_KAFKA,
}
# As many as a machine of two cores serves without falling behind.
SENDERS: Final = {storm.SQLITE: 16, storm.ON_POSTGRESQL: 10, storm.ON_KAFKA: 5}
ROUNDS: Final = "rounds.jsonl"
REPORT: Final = "report.md"
LONG_SHARE: Final = 0.2  # of the rounds in which everything lasts longer than in CI
KILLS: Final = 0.3  # of the nemeses during which a process is killed as well
# What is wrong where an invariant of docs/checker.md is broken.
WRONG: Final[Mapping[str, tuple[str, ...]]] = {
    "lost": ("I1", "I2", "I10", "I14"),
    "misdelivered": ("I3", "I4", "I5", "I6", "I18", "I19"),
    "duplicate effects": ("I7", "I8"),
    "out of order": ("I9",),
    "late in silence": ("I13",),
    "not rightly in the audit": ("I11", "I12"),
}

LIMITS: Final = (
    "Everything ran on one machine: the network between hosts is imitated by a proxy, and only "
    "between the broker and its database.",
    "No power was cut and no disk lied: `scripts/bench power` cuts it, on SQLite. What ended "
    "uncleanly of PostgreSQL and Kafka were their processes, not their machines.",
    "PostgreSQL was one server: the fail-over to a standby that lags behind would lose what the "
    "standby had not got.",
    "The clocks of the broker's processes were wrong, never that of the database's server; an "
    "embedded broker's clock is its database's. What is taken while it is wrong has deadlines that "
    "are wrong by as much.",
    "Receivers were simulators: what a real system does with what it has received is not seen.",
    "It is a count of cases by chance, not a proof: a fault that needs a rarer moment may be left. "
    "`scripts/bench sweep` kills the broker at every named point of its code.",
)

Round = dict[str, Any]


def main(arguments: Sequence[str]) -> None:
    """Run it; exit 1 where anything is wrong, or a round did not settle."""
    parser = rig.options(__doc__)
    parser.set_defaults(folder=rig.RESULTS / NAME)
    parser.add_argument("--deliveries", type=int, default=30_000, help="faulted, over all set-ups")
    parser.add_argument("--set-up", choices=[*SET_UPS, "all"], default="all")
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    chosen = parser.parse_args(arguments)
    set_up_logging("critical")
    chosen.folder.mkdir(parents=True, exist_ok=True)
    machine = rig.machine(chosen.folder)
    wanted = list(SET_UPS.values()) if chosen.set_up == "all" else [SET_UPS[chosen.set_up]]
    each = -(-chosen.deliveries // len(wanted))
    for set_up in wanted:
        _until_enough(set_up, each, chosen.folder, chosen.seed)
    rounds = _rounds(chosen.folder)
    wrong = sum(_wrong(one) for one in rounds)
    made = sum(one.get("faulted", 0) for one in rounds)
    report = _report(rounds, machine)
    (chosen.folder / REPORT).write_text(report, encoding="utf-8")
    print(report)
    is_met = not wrong and made >= chosen.deliveries
    aim = f"0 wrong of {chosen.deliveries} faulted deliveries; {made} were made"
    raw = {"rounds": rounds, "faulted_deliveries": made}
    rig.Result(NAME, float(wrong), aim, is_met, raw).tell(chosen.results, machine)
    sys.exit(not is_met)


# -- rounds --------------------------------------------------------------------------------------


def _until_enough(set_up: str, wanted: int, folder: Path, seed: int) -> None:
    """Run rounds of a set-up until so many faulted deliveries were made in all of its rounds."""
    with ExitStack() as stack:
        postgresql, kafka = None, None
        while True:
            rounds = [one for one in _rounds(folder) if one["set_up"] == set_up]
            if sum(one.get("faulted", 0) for one in rounds) >= wanted:
                return
            if sum(_wrong(one) for one in rounds):
                return  # it is known to be wrong: somebody has to look
            if set_up != storm.SQLITE and postgresql is None:
                postgresql = stack.enter_context(running_postgresql())
            if set_up == storm.ON_KAFKA and kafka is None:
                kafka = stack.enter_context(running_kafka(3))
            found = _round(set_up, folder, seed + len(rounds), postgresql, kafka)
            with (folder / ROUNDS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
            print(
                f"{set_up}, seed {found['seed']}: {found.get('faulted', 0)} faulted "
                f"deliveries, {_wrong(found)} wrong"
            )


def _round(
    set_up: str, folder: Path, seed: int, postgresql: PostgreSQL | None, kafka: Kafka | None
) -> Round:
    """Run one round and return what it found; its files are left only where something is wrong."""
    home = folder / f"{set_up} {seed}".replace(" ", "-").lower()
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    chance = random.Random(f"{set_up} {seed}")  # noqa: S311

    async def run() -> storm.Outcome:
        shim = cutting.build_shim(home, "harm")
        async with storm.stage(
            set_up, home / "world", chance, postgresql=postgresql, kafka=kafka, shim=shim
        ) as stage:
            return await storm.run(
                stage,
                storm.that_fit(stage, chance),
                senders=SENDERS[set_up],
                is_long=chance.random() < LONG_SHARE,
                kills=KILLS,
            )

    found: Round = {"set_up": set_up, "seed": seed, "at": datetime.now(UTC).isoformat()}
    try:
        outcome = asyncio.run(run())
    except (AssertionError, TimeoutError) as error:
        said = traceback.format_exception_only(error)
        return {**found, "unsettled": "".join(said)}
    if not outcome.verdict.violations:
        shutil.rmtree(home)
    return {**found, **outcome.as_record()}


def _rounds(folder: Path) -> list[Round]:
    path = folder / ROUNDS
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _wrong(one: Round) -> int:
    return len(one.get("violations", ())) + ("unsettled" in one)


# -- the report ----------------------------------------------------------------------------------


def _report(rounds: Sequence[Round], machine: Mapping[str, Any]) -> str:
    """Say in Markdown what was done, checked and found, and what this cannot show."""
    made = sum(one.get("deliveries", 0) for one in rounds)
    faulted = sum(one.get("faulted", 0) for one in rounds)
    broken = Counter(invariant for one in rounds for invariant, _ in one.get("violations", ()))
    unsettled = sum("unsettled" in one for one in rounds)
    found = [(what, sum(broken[one] for one in which)) for what, which in WRONG.items()]
    found.append(("rounds that did not come to rest", unsettled))
    acted = _sum(rounds, "acted")
    parts = [
        "# Deliveries under faults",
        f"{len(rounds)} rounds, {made:,} deliveries, of which {faulted:,} were under way while "
        "something was broken. "
        + (
            "Nothing was wrong with any."
            if not broken and not unsettled
            else "**SOMETHING IS WRONG.**"
        ),
        "## What was found",
        _table(("what", "how many"), found),
        "## What was done",
        "In each round the broker runs as it does in production, in processes of its own, on a "
        "real database (and a real Kafka). A pharmacy and an optometrist send consultations and "
        "referrals without pause, urgent ones among them; some twice, some twice at once, some "
        "again long after, some are given up by the sender before they are answered and sent "
        "again. Two practices and a hospital receive, confirm and decide. Meanwhile each of the "
        "following happens once, in an order by chance, and now and then a process is killed in "
        "the middle of it. Then everything is mended, and all must come to rest within "
        f"{storm.SETTLES_WITHIN:g} seconds.",
        _table(
            ("what was broken", "how", "deliveries under way"),
            [(one.name, one.words, f"{_sum(rounds, 'faulted_by')[one.name]:,}") for one in NEMESES],
        ),
        "That each really happened is counted by somebody else than the broker:",
        _table(("what was seen", "how often"), [(k, f"{acted[k]:,}") for k in sorted(acted)]),
        "## On what",
        _table(
            (
                "set-up",
                "rounds",
                "deliveries",
                "faulted",
                "sent",
                "outcome unknown to the sender",
                "came twice and were recognised",
                "at rest after, at most",
            ),
            [
                _row(set_up, [one for one in rounds if one["set_up"] == set_up])
                for set_up in SET_UPS.values()
            ],
        ),
        f"{machine['cores']} cores of {machine['processor']}, {machine['system']}.",
        "## What was checked",
        "Every sender and every receiver writes down, on its own disk and before it answers, what "
        "it sent and what it got. After each round a judge that shares no code with the broker "
        "compares these books with a copy of the broker's database: that everything that was "
        "accepted is there, unaltered, arrived at the place it was sent to and nowhere else, about "
        "the same patient, once, in its order; that nothing arrived that nobody sent; that nothing "
        "is shown as received or decided that was not; that whatever is late or failed is on "
        "somebody's work-list and its sender told; and that the audit is whole. docs/checker.md "
        "says how each is decided. The judge itself is tested with histories that were spoiled by "
        "hand, and with faults planted in the broker.",
        "## What this does not show",
        "\n".join(f"- {one}" for one in LIMITS),
    ]
    return "\n\n".join(parts) + "\n"


def _row(set_up: str, rounds: Sequence[Round]) -> tuple[Any, ...]:
    counts = _sum(rounds, "counts")
    return (
        set_up,
        len(rounds),
        f"{sum(one.get('deliveries', 0) for one in rounds):,}",
        f"{sum(one.get('faulted', 0) for one in rounds):,}",
        f"{counts['posts']:,}",
        f"{counts['posts with unknown outcome']:,}",
        f"{counts['come again and recognised']:,}",
        f"{max((one.get('settled_in', 0.0) for one in rounds), default=0.0):.0f} s",
    )


def _sum(rounds: Sequence[Round], name: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for one in rounds:
        total.update(one.get(name, {}))
    return total


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


if __name__ == "__main__":
    main(sys.argv[1:])
