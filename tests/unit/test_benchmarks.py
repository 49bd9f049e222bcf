"""The benchmarks: what they leave behind, and that each can be run. No figure is judged here."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import rig
from benchmarks.rig import Result
from tests.faults import cutting
from tests.kafka import MARKS, demand_kafka
from tests.reference import validator

ROOT = Path(__file__).parents[2]
NAMES = [
    *("end-to-end", "faults", "flatness", "intake", "mixed", "power", "process-message"),
    *("recovery", "relay", "search", "serial-point", "soak", "sweep", "validation"),
]
QUICK = {
    "intake": ("--rounds", "1", "--seconds", "1", "--warm-up", "0.2", "--samples", "5"),
    "process-message": ("--rounds", "1", "--seconds", "1", "--warm-up", "0.2"),
    "end-to-end": ("--rate", "10", "--seconds", "1", "--warm-up", "0.5"),
    "flatness": (
        *("--messages", "300", "--rounds", "1"),
        *("--rate", "10", "--seconds", "1", "--warm-up", "0.5"),
    ),
    "mixed": ("--rate", "5", "--seconds", "2", "--warm-up", "0.5", "--pairs", "1"),
    "recovery": ("--undelivered", "10"),
    "relay": ("--events", "20", "--rounds", "1"),
    "serial-point": ("--rounds", "1", "--seconds", "0.5"),
    "soak": ("--minutes", "0.15", "--warm-up", "0.02", "--rate", "8"),
    "faults": ("--deliveries", "1", "--set-up", "sqlite"),
    "power": ("--boundaries", "4", "--planted-rounds", "40"),
    "search": ("--small", "6000", "--large", "12000", "--samples", "20"),
    "sweep": ("--set-up", "sqlite", "--points", "intake.parsed", "--seeds", "1"),
    "validation": ("--samples", "20", "--judgements", "3"),
}
ROUND = {
    "set_up": "SQLite",
    "seed": 1,
    "at": "2026-11-20T10:00:00+00:00",
    "acted": {"kills": 2},
    "deliveries": 40,
    "faulted": 25,
    "faulted_by": {"the broker is killed": 25},
    "counts": {"posts": 30},
    "violations": [],
}
MACHINE = {
    "cores",
    "processor",
    "system",
    "python",
    "sqlite",
    "load_before",
    "bare_commit_ms",
}
SPREAD = {"p50", "p90", "p99", "p99.9", "max"}


def test_scripts_bench_lists_every_benchmark_and_nothing_else() -> None:
    said = subprocess.run(
        [ROOT / "scripts/bench"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert sorted(said[1:]) == NAMES


def test_a_result_is_told_in_one_line_and_written_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = Result("intake", 0.0625, "≥ 0.05", True, {"rounds": [1, 2]})
    result.tell(tmp_path / "results", {"cores": 2})
    assert capsys.readouterr().out == "intake: 0.0625 (aim ≥ 0.05)\n"
    written = json.loads((tmp_path / "results" / "intake.json").read_text())
    assert written.pop("at")
    assert written == {
        "name": "intake",
        "figure": 0.0625,
        "aim": "≥ 0.05",
        "met": True,
        "machine": {"cores": 2},
        "raw": {"rounds": [1, 2]},
    }


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50), (0.99, 99), (0.999, 100), (1.0, 100), (0.0, 1)]
)
def test_a_percentile_is_one_of_the_values(share: float, expected: int) -> None:
    assert rig.percentile(range(100, 0, -1), share) == expected


def quick_run(name: str, folder: Path) -> Any:
    """Run a benchmark for a second or two; return its last line and its result."""
    if name == "validation":
        validator.jars()
    elif name == "relay":
        demand_kafka()
    elif name == "power":
        cutting.shim_for_tests(folder)
    elif name == "faults":  # what a round does is what tests/faults/test_nemeses.py does
        (folder / "rounds.jsonl").write_text(json.dumps(ROUND) + "\n")
    module = f"benchmarks.{name.replace('-', '_')}"
    ran = subprocess.run(
        [sys.executable, "-m", module, *QUICK[name], "--results", folder, "--folder", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.splitlines()[-1], json.loads((folder / f"{name}.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, id="relay-to-kafka", marks=MARKS) if name == "relay" else name
        for name in NAMES
    ],
)
def test_a_benchmark_ends_with_its_figure_and_leaves_behind_what_it_was_made_of(
    name: str, tmp_path: Path
) -> None:
    last, result = quick_run(name, tmp_path)
    assert re.fullmatch(rf"{name}: -?\d+(\.\d+)?(e-\d+)? \(aim .+\)", last)
    assert last == f"{name}: {result['figure']:g} (aim {result['aim']})"
    assert result["name"] == name
    assert isinstance(result["figure"], float)
    assert isinstance(result["met"], bool)
    assert set(result["machine"]) == MACHINE
    raw = result["raw"]
    if name in {"intake", "process-message"}:
        (one,) = raw["rounds"]
        assert one["ratio"] == result["figure"]
        assert one[f"{name}_per_second"] > 0
        assert one["empty_per_second"] > 0
        assert set(one[f"{name}_ms"]) == set(one["empty_ms"]) == SPREAD
    if name == "intake":
        assert list(raw["stages_ms"])[:3] == ["authenticate", "key look-up", "parse"]
        assert list(raw["stages_ms"])[-1] == "whole"
        assert all(took > 0 for took in raw["stages_ms"].values())
    elif name == "search":
        pages = [raw[one]["page_ms"]["p99"] for one in ("small", "large")]
        assert result["figure"] == pytest.approx(pages[1] / pages[0], rel=0.05)
        assert raw["opening_ms"] > 0
    elif name == "validation":
        assert raw["bundles"]["3.5 kB"]["ours_ms"] == result["figure"]
        for one in raw["bundles"].values():
            assert one["ours_ms"] > 0 and one["fhir_resources_ms"] > 0 and one["reference_ms"] > 0
    elif name == "end-to-end":
        for side in ("broker", "ceiling"):
            assert raw[side]["counted"] == 10
            assert set(raw[side]["visible_ms"]) == SPREAD
        assert raw["broker"]["visible_ms"]["p99"] == result["figure"]
    elif name == "flatness":
        assert raw["filled"]["messages"] == 300
        assert raw["filled"]["rows"] > 300 * 40
        assert result["figure"] == pytest.approx(
            raw["p99_ms"]["full"] / raw["p99_ms"]["empty"], 0.01
        )
    elif name == "relay":
        (one,) = raw["rounds"]
        assert one["records"] >= 20
        assert one["relay_per_second"] > 0 and one["producer_per_second"] > 0
    elif name == "recovery":
        assert raw["delivered"] >= 10
        assert raw["delivered_again"] == 0
    elif name == "serial-point":
        (one,) = raw["rounds"]
        assert one["bare_commits_per_second"] > 0 and one["events_per_second"]["1"] > 0
    elif name == "soak":
        assert raw["posted"] > 20
        assert all(mib > 50 for _, mib in raw["resident_mib"])
    elif name == "mixed":
        (pair,) = raw["pairs"]
        for run in pair.values():
            assert run["destinations"] > 3
            assert run["counted"] > 0 and set(run["others_ms"]) == SPREAD
        ratio = pair["unwell"]["others_ms"]["p99"] / pair["well"]["others_ms"]["p99"]
        assert result["figure"] == pytest.approx(ratio, abs=0.001)
    elif name == "power":
        assert result["figure"] == len(raw["wrong"]) == 0
        assert raw["cuts"] > raw["boundaries"] > 4
        assert all(raw["planted"].values())
    elif name == "sweep":
        assert result["figure"] == len(raw["wrong"]) == 0
        assert raw["kills"] == {"sqlite": {"intake.parsed": 1}, "postgresql-kafka": {}}
    elif name == "faults":
        (one,) = raw["rounds"]
        assert one == ROUND
        assert raw["faulted_deliveries"] == 25
        report = (tmp_path / "report.md").read_text()
        assert "Nothing was wrong with any." in report
