"""The BaRS applications that are taken, read once from `applications.yaml`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import yaml

from fhir_profiles import codes


@dataclass(frozen=True, slots=True)
class UseCase:
    """One kind of referral. `code` in lower case, as it is sent; compared without case."""

    system: str
    code: str
    display: str
    application: str
    versions: frozenset[int]
    is_withdrawn: bool
    is_to_broker: bool

    def takes_version(self, version: str) -> bool:
        """Whether a payload of this application version is understood: by its major number."""
        major = version.partition(".")[0]
        return major.isascii() and major.isdigit() and int(major) in self.versions


@cache
def use_cases() -> Mapping[str, UseCase]:
    """Return every use case that is taken, by its code."""
    text = (files("fhir_profiles") / "bars" / "applications.yaml").read_text(encoding="utf-8")
    found = [one for application in yaml.safe_load(text) for one in _use_cases(application)]
    return MappingProxyType({one.code: one for one in found})


def _use_cases(entry: Mapping[str, Any]) -> list[UseCase]:
    found: Mapping[str, str]
    if "code_system" in entry:
        own = codes.system(entry["code_system"])
        system, found = own.url, own.displays
    else:
        system, found = entry["system"], entry["use_cases"]
    return [
        UseCase(
            system=system,
            code=code,
            display=display,
            application=entry["application"],
            versions=frozenset(entry["versions"]),
            is_withdrawn=code in entry.get("withdrawn", ()),
            is_to_broker=entry.get("to_broker", False),
        )
        for code, display in found.items()
    ]
