"""Bugs planted into a copy of the product: the working tree, its partners and the test stay sound.

Each bug is a patch beside this file, with a heading that says what it is, how it would come about,
what it would do to a patient, and by what the fault run must find it. A process that is given
`environment` as settings runs the copy and nothing else of the product.
"""

import compileall
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from tests.faults.checker.verdict import INVARIANTS

ROOT: Final = Path(__file__).parents[3]
PACKAGES: Final = ("adapters", "broker", "consumers", "fhir_profiles")
HEADINGS: Final = ("Bug", "In real life", "To a patient", "Found by")
NOT_SETTLED: Final = "not settled"
_RAN: Final = "ran"
# Whoever imports the copy writes down its process: a run shows by it that the bug was there.
_WRITES_IT_DOWN: Final = f"""
import os as _os
from pathlib import Path as _Path

with _Path(__file__).parents[1].joinpath({_RAN!r}).open("a") as _ran:
    _ran.write(f"{{_os.getpid()}}\\n")
"""


class DoesNotApply(Exception):
    """The product has changed where a bug is planted. The message says what to do."""


@dataclass(frozen=True)
class Bug:
    """A planted bug, by the name of its patch."""

    patch: Path

    @property
    def name(self) -> str:
        return self.patch.stem

    @cached_property
    def heading(self) -> Mapping[str, str]:
        """What its patch says of it, by HEADINGS."""
        text, _, _ = self.patch.read_text(encoding="utf-8").partition("\n--- a/")
        parts = (re.sub(r"\s+", " ", part).partition(": ") for part in text.strip().split("\n\n"))
        return {name: said for name, _, said in parts}

    @property
    def found_by(self) -> frozenset[str]:
        """The invariants by which it must be found, and NOT_SETTLED where that shows it."""
        return frozenset(self.heading["Found by"].split(", "))

    @property
    def row(self) -> str:
        """Its row in docs/checker.md."""
        said = (self.heading[name] for name in HEADINGS)
        return f"| {self.name} | {' | '.join(said)} |"


BUGS: Final = {path.stem: Bug(path) for path in sorted(Path(__file__).parent.glob("*.patch"))}
NAMES_OF_FINDS: Final = frozenset({*INVARIANTS, NOT_SETTLED})


@dataclass(frozen=True, slots=True)
class Planted:
    """A copy of the product, with a bug in it or sound."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What has a process run this copy: its packages come before those that are installed."""
        return {"PYTHONPATH": str(self.folder)}

    @property
    def ran_in(self) -> set[int]:
        """The processes that ran this copy."""
        ran = self.folder / _RAN
        return {int(line) for line in ran.read_text().split()} if ran.exists() else set()


def sound(folder: Path) -> Planted:
    """Copy the product as it stands in the working tree, compiled: a copy of it starts quickly."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package)
    with (folder / "broker" / "__init__.py").open("a") as first:
        first.write(_WRITES_IT_DOWN)
    compileall.compile_dir(folder, quiet=1)
    return Planted(folder)


def planted(bug: Bug, like: Planted, folder: Path) -> Planted:
    """Put a bug into a copy of a sound one. Raises DoesNotApply."""
    made = Planted(shutil.copytree(like.folder, folder, ignore=shutil.ignore_patterns(_RAN)))
    apply(bug, made)
    return made


def apply(bug: Bug, to: Planted, *options: str) -> None:
    """Put a bug into a copy. Raises DoesNotApply."""
    applied = subprocess.run(
        ["git", "apply", *options, bug.patch],
        cwd=to.folder,
        # Else a repository around the folder would be what is meant.
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(to.folder.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    if applied.returncode != 0:
        raise DoesNotApply(
            f"The planted bug {bug.name} does not apply any more: {applied.stderr.strip()}. Make "
            f"its patch anew for the product as it is now ({bug.patch.relative_to(ROOT)}; "
            "docs/checker.md, Planted bugs, says how). It must stay the bug that its heading tells."
        )
