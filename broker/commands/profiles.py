"""`profiles load | list | check`: definitions of others, and whether resources are as they say."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import track

from broker import profile_packages, settings
from broker.commands import showing
from broker.commands.showing import AsJson
from broker.errors import BrokerError
from fhir_profiles import packages, strict_json
from fhir_profiles.compiler.finding import Finding
from fhir_profiles.packages import Unreadable
from fhir_profiles.profiles import Profiles

COLOURS: Final = {"error": "red", "warning": "yellow", "information": "dim"}
STDIN: Final = Path("-")
HELP: Final = """Check FHIR resources against profiles, and load the profiles of others.

[bold]Examples[/bold]

  referral-broker profiles load fhir.r4.ukcore.stu3.tgz
  referral-broker profiles load definitions/
  referral-broker profiles check message.json
  cat message.json | referral-broker profiles check -
"""

app = typer.Typer(help=HELP, no_args_is_help=True)
Paths = Annotated[list[Path], typer.Argument(help="Files or folders.", show_default=False)]


class NothingToLoad(BrokerError):
    """What was named holds no definition of FHIR R4."""


@app.command()
def load(
    paths: Paths,
    *,
    name: Annotated[
        str, typer.Option("--name", help="What to call them; a package names itself.")
    ] = "",
) -> None:
    """Keep FHIR packages, or folders of definitions in JSON or XML, in the data directory.

    A package replaces one of the same name. Of two definitions with one URL the first loaded
    stands. A broker that serves judges FHIR that comes in by them from its next start.
    """
    data_dir = settings.load().data_dir
    found = [_package(path, name) for path in paths]
    for package in found:
        profile_packages.save(data_dir, package)
        counted = Counter(str(one["resourceType"]) for one in package.definitions)
        held = ", ".join(f"{number} {kind}" for kind, number in sorted(counted.items()))
        showing.say(f"{package.name} {package.version}".rstrip() + f": {held}.")
    for url, names in profile_packages.twice(data_dir).items():
        showing.warn(f"{url} is in {' and '.join(names)}: the first one's stands.")
    _warn_of_rules(profile_packages.profiles(data_dir))


def _warn_of_rules(profiles: Profiles) -> None:
    for rule in profiles.left_out:
        showing.warn(f"No check can be made of this rule: {rule}")
    for rule in profiles.slow:
        showing.warn(f"This rule is checked, but slowly: {rule}")


def _package(path: Path, name: str) -> profile_packages.Package:
    definitions: list[Any] = []
    version = ""
    for file in profile_packages.files([path]):
        content = file.read_bytes()
        try:
            said = packages.named(content)
            definitions += packages.definitions(content)
        except Unreadable as error:
            raise NothingToLoad(f"{file}: {error} Nothing was loaded.") from error
        if said is not None:
            name, version = name or said[0], said[1]
    if not definitions:
        raise NothingToLoad(f"{path} holds no definitions of FHIR R4.")
    return profile_packages.made_of(name or path.resolve().name, version, definitions)


@app.command("list")
def list_packages(*, as_json: AsJson = False) -> None:
    """List the packages that are loaded, in the order in which they stand.

    Rules of theirs that were not compiled are named on standard error.
    """
    data_dir = settings.load().data_dir
    found = [
        {
            "name": package.name,
            "version": package.version,
            "loaded_at": package.loaded_at,
            "definitions": len(package.definitions),
            "profiles": sum(
                one["resourceType"] == "StructureDefinition" for one in package.definitions
            ),
        }
        for package in profile_packages.load(data_dir)
    ]
    _warn_of_rules(profile_packages.profiles(data_dir))
    if as_json:
        showing.as_json(found)
        return
    showing.table(
        ("package", "version", "loaded", "definitions", "profiles"),
        [list(one.values()) for one in found],
        empty="No package is loaded: our own definitions and R4's stand.",
    )


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found of one file; `unread` says why there is nothing to find."""

    file: str
    unread: str = ""
    findings: Sequence[Finding] = field(default=())

    @property
    def is_faulty(self) -> bool:
        return any(one.severity == "error" for one in self.findings)


@app.command()
def check(
    paths: Paths,
    *,
    as_json: AsJson = False,
) -> None:
    """Check resources in files, folders or standard input (-) against every profile they claim.

    Exit 0 without errors, 1 with, 2 where something could not be read.
    """
    profiles = profile_packages.profiles(settings.load().data_dir)
    found = [_judge(file, profiles) for file in _shown(list(profile_packages.files(paths)))]
    if as_json:
        showing.as_json([_as_json(one) for one in found])
    else:
        _print(found)
    if any(one.unread for one in found):
        raise typer.Exit(2)
    if any(one.is_faulty for one in found):
        raise typer.Exit(1)


def _shown(files: Sequence[Path]) -> Iterator[Path]:
    """Show how far it is, where there is more than a glance to it and somebody looks."""
    console = showing.console(err=True)
    hidden = len(files) < 10 or not console.is_terminal
    yield from track(files, "Checking", console=console, transient=True, disable=hidden)


def _judge(file: Path, profiles: Profiles) -> Judged:
    name = "standard input" if file == STDIN else str(file)
    content = sys.stdin.buffer.read() if file == STDIN else file.read_bytes()
    try:
        resource = packages.read(content)
    except Unreadable as error:
        return Judged(name, unread=str(error))
    return Judged(name, findings=profiles.check(strict_json.dumps(resource)))


def _as_json(one: Judged) -> dict[str, Any]:
    return {
        "file": one.file,
        "unread": one.unread or None,
        "problems": [
            {
                "severity": finding.severity,
                "code": finding.code,
                "expression": finding.path,
                "rule": finding.rule,
                "text": finding.text,
            }
            for finding in one.findings
        ],
    }


def _print(found: Sequence[Judged]) -> None:
    for one in found:
        if one.unread:
            showing.warn(f"{one.file}: {one.unread}")
        elif one.findings:
            showing.table(
                ("", "where", "what", "rule"),
                [(f.severity, f.path, f.text, f.rule) for f in one.findings],
                title=one.file,
                colour=lambda row: COLOURS[str(row[0])],
            )
    faulty = sum(one.is_faulty for one in found)
    unread = sum(bool(one.unread) for one in found)
    good = len(found) - faulty - unread
    showing.say(f"{len(found)} checked: {good} without errors, {faulty} with, {unread} not read.")
