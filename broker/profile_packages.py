"""Packages of FHIR definitions that were loaded: kept in the data directory, one file each."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from broker.errors import BrokerError
from fhir_profiles import packages, strict_json
from fhir_profiles.profiles import Profiles, ours

FOLDER: Final = "profiles"
_UNFIT: Final = re.compile(r"[^A-Za-z0-9._-]+")


class DamagedPackage(BrokerError):
    """A package in the data directory cannot be read. The message says which."""


@dataclass(frozen=True, slots=True)
class Package:
    """Definitions that were loaded together, under the name and version of their package."""

    name: str
    version: str
    loaded_at: datetime
    definitions: Sequence[Mapping[str, Any]] = field(repr=False)

    @property
    def profiles(self) -> int:
        return sum(one["resourceType"] == "StructureDefinition" for one in self.definitions)


def save(data_dir: Path, package: Package) -> None:
    """Keep a package; it replaces one of the same name. There whole, or not at all."""
    folder = data_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{_UNFIT.sub('-', package.name)}.json"
    document = {
        "name": package.name,
        "version": package.version,
        "loaded_at": package.loaded_at.isoformat(),
        "definitions": list(package.definitions),
    }
    made = target.with_suffix(".part")
    made.write_bytes(strict_json.dumps(document))
    made.replace(target)


def load(data_dir: Path) -> list[Package]:
    """Return every package that is kept, the one that was loaded first first."""
    paths = sorted((data_dir / FOLDER).glob("*.json"))
    return sorted(map(_read, paths), key=lambda package: package.loaded_at)


def twice(data_dir: Path) -> dict[str, list[str]]:
    """Return every URL that more than one package defines, with their names in order."""
    found: dict[str, list[str]] = {}
    for package in load(data_dir):
        for one in package.definitions:
            found.setdefault(one["url"], []).append(package.name)
    return {url: names for url, names in found.items() if len(names) > 1}


def profiles(data_dir: Path) -> Profiles:
    """Return the checks of our own definitions and of every package that is kept."""
    loaded = load(data_dir)
    return Profiles(package.definitions for package in loaded) if loaded else ours()


def made_of(name: str, version: str, definitions: Iterable[Mapping[str, Any]]) -> Package:
    """Return a package of these definitions, loaded now."""
    return Package(name, version, datetime.now(UTC), list(definitions))


def files(paths: Iterable[Path]) -> Iterator[Path]:
    """Return the files that are meant: of a folder those that may hold FHIR, in order of name."""
    for path in paths:
        if path.is_dir():
            found = (one for one in path.rglob("*") if one.suffix in {".json", ".xml"})
            yield from sorted(one for one in found if one.name not in packages.NO_RESOURCES)
        else:
            yield path


def definitions(folder: Path) -> Iterator[Mapping[str, Any]]:
    """Return the definitions in a folder's files. Raises Unreadable."""
    for path in files([folder]):
        yield from packages.definitions(path.read_bytes())


def _read(path: Path) -> Package:
    try:
        held = json.loads(path.read_bytes(), parse_float=Decimal)  # as resources are read
        at = datetime.fromisoformat(held["loaded_at"])
        return Package(held["name"], held["version"], at, held["definitions"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedPackage(
            f"{path} is damaged: take it away and load the package again."
        ) from error
