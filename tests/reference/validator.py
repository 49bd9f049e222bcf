"""The reference FHIR validator (HAPI) as a judge: a process of its own, fetched once by Maven."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from fhir_profiles import authored
from tests.databases import REQUIRED

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data" / "ukcore"
OFFICIAL = [
    SHARED / name
    for name in (
        "ukcore-pkg-0.23.0-json-snapshots",  # of two definitions with one URL the first counts
        "ukcore-staging-xml",
        "bars-xml",
        "bars-pkg-1.37.0-json",
        "nhsengland",
    )
]
_ERRORS = {"error", "fatal"}
_GRAVE = {"Bundle_BUNDLE_Not_Local"}  # a reference into nowhere, of which it only warns


@dataclass(frozen=True)
class Issue:
    """Something that makes a file unfit."""

    place: str
    rule: str
    text: str


def jars() -> Path:
    """Return the folder of the validator; where it cannot be had, skip saying so, or fail if it is
    required."""
    try:
        if shutil.which("java") is None:
            raise FileNotFoundError("there is no Java")
        fetched = subprocess.run(
            [ROOT / "scripts/reference-validator"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        if REQUIRED:
            raise
        pytest.skip(f"The reference validator cannot be had: {error}")
    return Path(fetched.stdout.strip())


def judge(
    files: Mapping[str, bytes], folder: Path, others: Sequence[Path] = ()
) -> dict[str, list[Issue]]:
    """Return what is wrong with each file by our definitions and others; all is laid down in
    `folder`, which is empty."""
    paths = {folder / f"{place}.json": name for place, name in enumerate(files)}
    for path, name in paths.items():
        path.write_bytes(files[name])
    judged = subprocess.run(
        [
            "java",
            "-Xmx700m",
            "-cp",
            f"{jars()}/*",
            ROOT / "tests/reference/Judge.java",
            authored.laid_down(folder / "ours"),
            *others,
        ],
        input="".join(f"{path}\n" for path in paths),
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"LC_ALL": "C.UTF-8"},
        check=True,
    )
    verdicts = [json.loads(line) for line in judged.stdout.splitlines()]
    assert verdicts[0]["definitions"] > 50, judged.stderr
    found = {paths[Path(one["path"])]: _issues(one["issues"]) for one in verdicts[1:]}
    assert found.keys() == files.keys(), judged.stderr
    return found


def _issues(said: Sequence[Sequence[str]]) -> list[Issue]:
    return [
        Issue(place or "", rule or "", text)
        for severity, place, rule, text in said
        if severity in _ERRORS or rule in _GRAVE
    ]
