"""Validation: ms for a Bundle of about 3.5 kB and one of about 14 kB, all checks on.

Next to fhir.resources, which parses the same Bundles and checks no profile, and to the reference
validator, warm, with the same definitions. Official ones are taken from where the project's tests
find them (../shared/data/ukcore), or from the folders that are named.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from fhir.resources.R4B.bundle import Bundle

from adapters.pharmacy import ADAPTER
from benchmarks import rig
from broker import profile_packages
from broker.events import Role
from broker.ports import Context, Party
from fhir_profiles import authored, focus, strict_json
from fhir_profiles.message import Site
from fhir_profiles.profiles import Profiles

NAME: Final = "validation"
AIM: Final = 0.4
FASTER: Final = 40
ROOT: Final = Path(__file__).parents[1]
OFFICIAL: Final = ROOT.parent / "shared" / "data" / "ukcore"
FOLDERS: Final = ("ukcore-pkg-0.23.0-json-snapshots", "ukcore-staging-xml", "bars-xml")
NOW: Final = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
IDS: Final = {
    "update": "0199a000-0000-7000-8000-000000000001",
    "referral": "0199a000-0000-7000-8000-000000000002",
}
PRACTICE: Final = Party("G99001", "Riverside Medical Practice", "0113 496 0201")
SENDER: Final = Party("FPH01", "Riverside Pharmacy", "0113 496 0101")


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark."""
    parser = rig.options(__doc__)
    parser.add_argument("--samples", type=int, default=400, help="checks of each Bundle")
    parser.add_argument(
        "--judgements", type=int, default=60, help="of the reference, after as many"
    )
    parser.add_argument("--definitions", type=Path, nargs="*", help="folders of official ones")
    chosen = parser.parse_args(arguments)
    folders = chosen.definitions
    if folders is None:
        folders = [OFFICIAL / name for name in FOLDERS if (OFFICIAL / name).is_dir()]
    profiles = Profiles(map(profile_packages.definitions, folders))
    held = bundles()
    table: dict[str, dict[str, float]] = {}
    for name, content in held.items():
        wrong = [one for one in profiles.check(content) if one.severity == "error"]
        if wrong:
            sys.exit(f"the {name} Bundle is faulty: {wrong[0]}")
        table[name] = {
            "bytes": len(content),
            "ours_ms": _median(profiles.check, content, chosen.samples),
            "fhir_resources_ms": _median(Bundle.model_validate_json, content, chosen.samples // 4),
        }
    for name, milliseconds in _judged(held, folders, chosen.judgements).items():
        table[name]["reference_ms"] = milliseconds
    _tell(table, chosen, len(folders))


def bundles() -> Mapping[str, bytes]:
    """Return a message that tells of a referral's move, and a consultation."""
    body = strict_json.loads(strict_json.dumps(ADAPTER.examples["blood-pressure-check"]))
    request = ADAPTER.accepts.model_validate(body, context={"now": NOW})
    wanted = ADAPTER.needs(request, NOW)
    context = Context(
        message_ids={want.key: IDS[want.key] for want in wanted.wants},
        sender=SENDER,
        practice=PRACTICE,
        destinations={want.key: ((PRACTICE, Role.ACTING),) for want in wanted.wants},
        correlation_id=IDS["update"],
        now=NOW,
        warnings=wanted.warnings,
    )
    content = ADAPTER.translate(request, context)[0].content
    told = focus.task(
        IDS["referral"],
        referral=IDS["update"],
        state="accepted",
        moved=NOW,
        requester=Site(SENDER.ods, SENDER.name),
        owner=Site(PRACTICE.ods, PRACTICE.name),
        original=focus.Original(IDS["update"], "ServiceRequest", "C-1", content),
    )
    return {"3.5 kB": told.body, "14 kB": content}


def _median(run: Callable[[bytes], object], content: bytes, samples: int) -> float:
    took = []
    for _ in range(samples + samples // 4):
        started = time.perf_counter()
        run(content)
        took.append((time.perf_counter() - started) * 1000)
    return round(statistics.median(took[samples // 4 :]), 4)


def _judged(
    held: Mapping[str, bytes], folders: Sequence[Path], judgements: int
) -> dict[str, float]:
    """Return the median time of the reference validator for each Bundle, once it is warm."""
    found = subprocess.run(  # noqa: S603 - a script of ours
        [ROOT / "scripts/reference-validator"], capture_output=True, text=True, check=True
    )
    with tempfile.TemporaryDirectory() as place:
        ours = authored.laid_down(Path(place) / "ours")
        paths = {Path(place) / f"{number}.json": name for number, name in enumerate(held)}
        for path, name in paths.items():
            path.write_bytes(held[name])
        lines = [str(path) for path in paths] * (2 * judgements)
        ran = subprocess.run(  # noqa: S603 - the validator that the script fetched
            [
                *("java", "-Xmx700m", "-cp", f"{found.stdout.strip()}/*"),
                *(ROOT / "tests/reference/Judge.java", *folders, ours),
            ],
            input="\n".join(lines) + "\n",
            capture_output=True,
            text=True,
            check=True,
        )
    took: dict[str, list[float]] = {name: [] for name in held}
    for line in ran.stdout.splitlines()[1:]:
        one = json.loads(line)
        took[paths[Path(one["path"])]].append(one["ms"])
    return {name: round(statistics.median(ms[judgements:]), 2) for name, ms in took.items()}


def _tell(table: Mapping[str, dict[str, float]], chosen: argparse.Namespace, folders: int) -> None:
    for name, one in table.items():
        times = one["reference_ms"] / one["ours_ms"]
        print(
            f"{name:>7} ({one['bytes']:.0f} bytes)  ours {one['ours_ms']:7.3f} ms   "
            f"fhir.resources' parse {one['fhir_resources_ms']:7.3f} ms   "
            f"reference validator {one['reference_ms']:6.2f} ms ({times:.0f} times ours)"
        )
    small = table["3.5 kB"]
    figure = small["ours_ms"]
    met = figure <= AIM and small["reference_ms"] >= FASTER * figure
    machine = rig.machine(chosen.folder or Path(tempfile.gettempdir()))
    raw = {"bundles": table, "folders_of_official_definitions": folders}
    rig.Result(NAME, figure, f"≤ {AIM} ms", met, raw).tell(chosen.results, machine)


if __name__ == "__main__":
    main(sys.argv[1:])
