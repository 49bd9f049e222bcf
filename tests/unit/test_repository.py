"""The repository as a newcomer finds it: locks, scripts and packages are whole."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
LOCKS = ["requirements.lock", "requirements-dev.lock"]
SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file())
SCRIPTS.append(ROOT / ".ci/run")


def locked(lock: str) -> Iterator[tuple[Requirement, list[str]]]:
    """Each requirement of a lock file with its hashes."""
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            requirement, *hashes = line.split("--hash=")
            yield Requirement(requirement.strip()), [value.strip() for value in hashes]


def stand_in(folder: Path, name: str, script: str) -> Path:
    """An executable that only pretends to be Python."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def ask_for_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts/python", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_readme_has_a_newcomer_make_in_the_clone_is_never_committed_with_its_keys() -> None:
    made = re.findall(r"partner new-key (\S+)", (ROOT / "README.md").read_text())
    assert made
    assert "*.pem" in (ROOT / ".gitignore").read_text().splitlines()
    assert set(re.findall(r"--key (\S+)", (ROOT / "README.md").read_text())) <= {
        f"{folder}/{name}.pem" for folder in made for name in ("private", "public")
    }


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_and_hashes_every_requirement(lock: str) -> None:
    entries = list(locked(lock))
    assert len(entries) > 20
    for requirement, hashes in entries:
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", value) for value in hashes), requirement


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_index_and_no_host(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    assert all(requirement.url is None for requirement, _ in locked(lock))
    options = re.findall(r"^\s*(-\S+?)[=\s]", text, flags=re.MULTILINE)
    assert set(options) == {"--hash"}


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        (LOCKS[0], PYPROJECT["project"]["dependencies"]),
        (LOCKS[1], PYPROJECT["project"]["dependencies"]),
        (LOCKS[1], PYPROJECT["project"]["optional-dependencies"]["dev"]),
        (LOCKS[1], PYPROJECT["build-system"]["requires"]),
    ],
    ids=["runtime", "runtime in dev", "dev", "build"],
)
def test_a_lock_holds_what_pyproject_asks_for(lock: str, wanted: list[str]) -> None:
    versions = {canonicalize_name(entry.name): str(entry.specifier) for entry, _ in locked(lock)}
    for text in wanted:
        requirement = Requirement(text)
        version = versions[canonicalize_name(requirement.name)].removeprefix("==")
        assert requirement.specifier.contains(version), f"{text}: run scripts/lock"


def test_both_locks_agree() -> None:
    runtime = {str(requirement) for requirement, _ in locked(LOCKS[0])}
    assert runtime <= {str(requirement) for requirement, _ in locked(LOCKS[1])}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_executable_strict_and_says_what_it_guarantees(script: Path) -> None:
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
    first, second, third = script.read_text().splitlines()[:3]
    assert first == "#!/usr/bin/env bash"
    assert second.startswith("# ")
    assert third == "set -euo pipefail"


def test_the_python_named_is_taken_if_it_is_suitable() -> None:
    answer = ask_for_python(PYTHON=sys.executable)
    assert answer.returncode == 0
    asked = [answer.stdout.strip(), "-c", "import sys; print(sys.version_info[:3])"]
    version = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert version.strip() == str(sys.version_info[:3])


@pytest.mark.parametrize(
    "script",
    ["echo 3.10 /usr/bin/python3.10", "echo 3.14 /usr/bin/python3.14", "exit 127"],
    ids=["too old", "too new", "does not run"],
)
def test_an_unsuitable_python_stops_with_a_sentence_that_says_what_to_do(
    tmp_path: Path, script: str
) -> None:
    unsuitable = stand_in(tmp_path, "python", script)
    for arguments in ([], ["--all"]):
        answer = ask_for_python(*arguments, PYTHON=str(unsuitable))
        assert answer.returncode == 1
        assert answer.stdout == ""
        assert answer.stderr == (
            f"PYTHON={unsuitable} is not a Python 3.11, 3.12 or 3.13 that runs and can make "
            "virtual environments: unset PYTHON, or set it to one.\n"
        )


def test_a_name_on_path_that_does_not_run_is_passed_over(tmp_path: Path) -> None:
    stand_in(tmp_path, "python3.11", "exit 127")
    stand_in(tmp_path, "python3.12", "echo 3.10 /usr/bin/python3.10")
    stand_in(tmp_path, "python3", f'exec "{sys.executable}" "$@"')
    answer = ask_for_python(PYTHON="", PATH=f"{tmp_path}:/usr/bin:/bin")
    assert answer.returncode == 0
    assert answer.stdout.count("\n") == 1


def test_no_python_at_all_stops_with_one_sentence(tmp_path: Path) -> None:
    bash = subprocess.run(["which", "bash"], capture_output=True, text=True, check=True)
    (tmp_path / "bash").symlink_to(bash.stdout.strip())
    answer = ask_for_python(PYTHON="", PATH=str(tmp_path))
    assert answer.returncode == 1
    assert answer.stderr.startswith("No Python 3.11, 3.12 or 3.13 ")
    assert answer.stderr.count("\n") == 1


def test_scripts_and_package_metadata_want_the_same_pythons() -> None:
    named = re.search(r'^versions="(.*)"$', (ROOT / "scripts/python").read_text(), re.MULTILINE)
    assert named
    wanted = SpecifierSet(PYPROJECT["project"]["requires-python"])
    every = [f"3.{minor}" for minor in range(30)]
    assert re.findall(r"3\.\d+", named[1]) == list(wanted.filter(every))


def test_every_package_of_ours_is_in_the_wheel_and_in_the_image() -> None:
    rooms = ["adapters", "broker", "consumers", "fhir_profiles", "sandbox"]
    assert sorted(PACKAGES) == [room for room in rooms if (ROOT / room).is_dir()]
    dockerfile = (ROOT / "Dockerfile").read_text()
    let_in = (ROOT / ".dockerignore").read_text().splitlines()
    for package in PACKAGES:
        assert f"COPY {package} {package}\n" in dockerfile
        assert f"!{package}" in let_in
    assert set(PYPROJECT["tool"]["importlinter"]["root_packages"]) == set(PACKAGES)
    assert set(PACKAGES) <= set(PYPROJECT["tool"]["mypy"]["packages"])


def test_only_fhir_profiles_spells_out_the_name_of_a_standards_system() -> None:
    # Our own are at referral-broker.example; of systems by URN those that we name are FHIR's.
    named = re.compile(r"https?://(?!referral-broker\.example)[\w-]+(\.[\w-]+)+|urn:ietf:(bcp|rfc)")
    spelt = [
        (str(path.relative_to(ROOT)), node.value)
        for room in ("adapters", "broker", "consumers")
        for path in sorted((ROOT / room).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and named.search(node.value)
    ]
    assert spelt == []
