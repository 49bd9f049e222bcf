"""CONTRIBUTING.md's walk-throughs, followed to the letter in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
NOT_COPIED = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache", "*.dist-info")
GROUP = "referral_broker.adapters"
TIMEOUT = 300


def walk(title: str) -> str:
    """Return what the guide says under a heading."""
    return GUIDE.split(f"## Walk-through: {title}\n", 1)[1].split("\n## ", 1)[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project, to be changed."""
    found: Path = shutil.copytree(ROOT, tmp_path / "project", ignore=NOT_COPIED, symlinks=True)
    return found


def write(copy: Path, block: str) -> None:
    """Write a file whose first line says its name."""
    name, text = block.removeprefix("# ").split("\n", 1)
    (copy / name).write_text(text, encoding="utf-8")


def set_up(copy: Path) -> None:
    """Have the copy's entry points found before those of the project itself, as its set-up does."""
    project = tomllib.loads((copy / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder = copy / f"referral_broker-{project['version']}.dist-info"
    folder.mkdir()
    said = f"Metadata-Version: 2.4\nName: referral-broker\nVersion: {project['version']}\n"
    (folder / "METADATA").write_text(said)
    lines: list[str] = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {at}" for name, at in points.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines))


def run(copy: Path, *arguments: str) -> str:
    """Run Python in the copy, and return what it printed."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def passed(copy: Path, name: str) -> int:
    """Run the tests that the guide names; return how many passed."""
    said = run(copy, "-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-k", name, *TESTS)
    return int(re.findall(r"(\d+) passed", said)[0])


TESTS = (
    *("tests/unit/test_catalogue.py", "tests/unit/test_referral_forms.py"),
    "tests/acceptance/test_pillar_referrals.py",
)


def test_a_pathway_is_two_files(copy: Path) -> None:
    for block in blocks(walk("add a pathway"), "yaml"):
        write(copy, block)
    set_up(copy)
    run(copy, "-m", "tests.pages")
    assert "### Falls prevention" in (copy / "docs" / "pathways.md").read_text(encoding="utf-8")
    assert passed(copy, "falls-prevention") >= 4


def test_a_pillar_is_a_name_a_module_and_an_entry_point(copy: Path) -> None:
    (change,) = blocks(walk("add a pillar"), "diff")
    (module,) = blocks(walk("add a pillar"), "python")
    subprocess.run(["git", "apply", "-"], input=change, text=True, cwd=copy, check=True)
    write(copy, module)
    set_up(copy)
    run(copy, "-m", "tests.pages")
    assert passed(copy, "ambulance") >= 2
    assert not [path for path in (copy / "broker").rglob("*.py") if "ambulance" in path.read_text()]
