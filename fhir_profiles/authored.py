"""Our own definitions as they are read: the files of `definitions/`, and the concepts that the
catalogue of pathways gives to some of its code systems."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from fhir_profiles import strict_json
from fhir_profiles.pathways import documents


@cache
def definitions() -> Mapping[str, Mapping[str, Any]]:
    """Return every definition by the name of its file, in the order of the names."""
    folder = files("fhir_profiles") / "definitions"
    read = sorted(folder.iterdir(), key=lambda entry: entry.name)
    return {
        entry.name.removesuffix(".json"): _whole(strict_json.loads(entry.read_bytes()))
        for entry in read
        if entry.name.endswith(".json")
    }


def laid_down(folder: Path) -> Path:
    """Write every definition into a folder, for a tool that reads files; return the folder."""
    folder.mkdir()
    for name, resource in definitions().items():
        (folder / f"{name}.json").write_bytes(strict_json.dumps(resource))
    return folder


def _whole(resource: dict[str, Any]) -> dict[str, Any]:
    if resource["resourceType"] == "CodeSystem" and "concept" not in resource:
        resource["concept"] = documents.concepts(resource["id"])
    return resource
