"""`profiles load | list | check`, as somebody uses them who has files and wants to know."""

import gzip
import io
import json
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from broker import cli
from broker.main import open_broker
from broker.settings import Settings

pytestmark = pytest.mark.slow

NAMED = {
    "resourceType": "StructureDefinition",
    "url": "https://example.org/StructureDefinition/named",
    "version": "1.0.0",
    "name": "Named",
    "status": "active",
    "fhirVersion": "4.0.1",
    "kind": "resource",
    "abstract": False,
    "type": "Patient",
    "baseDefinition": "http://hl7.org/fhir/StructureDefinition/Patient",
    "derivation": "constraint",
    "differential": {"element": [{"id": "Patient.name", "path": "Patient.name", "min": 1}]},
}
NAMED_IN_XML = """<?xml version="1.0" encoding="UTF-8"?>
<StructureDefinition xmlns="http://hl7.org/fhir">
  <url value="https://example.org/StructureDefinition/named"/>
  <name value="Named"/><status value="active"/><fhirVersion value="4.0.1"/>
  <kind value="resource"/><abstract value="false"/><type value="Patient"/>
  <baseDefinition value="http://hl7.org/fhir/StructureDefinition/Patient"/>
  <derivation value="constraint"/>
  <differential>
    <element id="Patient.name"><path value="Patient.name"/><min value="1"/></element>
  </differential>
</StructureDefinition>"""
CLAIMS = {"meta": {"profile": [NAMED["url"]]}}
GOOD = {"resourceType": "Patient", **CLAIMS, "name": [{"family": "Okafor"}]}
BAD = {"resourceType": "Patient", **CLAIMS, "gender": "unsure"}
STU3 = {
    "resourceType": "Patient",
    "meta": {"profile": ["https://fhir.nhs.uk/STU3/StructureDefinition/x"]},
}


@dataclass(frozen=True)
class Shell:
    """Runs the commands in a data directory of their own."""

    folder: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self.capture.readouterr()
        code = cli.main(["profiles", *arguments])
        said = self.capture.readouterr()
        return code, said.out, said.err

    def file(self, name: str, content: Mapping[str, Any] | str | bytes) -> str:
        """Write a file and return its path."""
        path = self.folder / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Mapping):
            content = json.dumps(content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)


@pytest.fixture
def shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shell]:
    monkeypatch.setenv("BROKER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("COLUMNS", "240")
    yield Shell(tmp_path, capsys)
    structlog.reset_defaults()  # the commands log to a stream that ends with the test


def package(*resources: Mapping[str, Any], **said: str) -> bytes:
    """A FHIR npm package of these definitions."""
    held = {"package.json": {"name": "example.core", "version": "1.2.3", **said}}
    held |= {f"{place}.json": dict(one) for place, one in enumerate(resources)}
    held[".index.json"] = {"files": []}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in held.items():
            data = json.dumps(content).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def test_a_number_is_compared_digit_by_digit_with_what_a_loaded_profile_fixes(shell: Shell) -> None:
    value = "Observation.valueQuantity.value"
    is_it = {"key": "v-1", "severity": "error", "human": "It is.", "expression": "value = 0.1"}
    tenth = {
        **NAMED,
        "type": "Observation",
        "differential": {
            "element": [
                {"id": value, "path": value, "fixedDecimal": 0.1},
                {"id": value[:-6], "path": value[:-6], "constraint": [is_it]},
            ]
        },
    }
    shell("load", shell.file("core.tgz", package(tenth)))
    code, out, _ = shell("check", shell.file("tenth.json", measured(0.1)))
    assert code == 0, out
    code, out, _ = shell("check", "--json", shell.file("more.json", measured(0.11)))
    assert code == 1 and "v-1" in out and "another value than is fixed" in out


def measured(value: float) -> dict[str, Any]:
    quantity = {"value": value, "unit": "mm"}
    code = {"text": "Width"}
    return {
        "resourceType": "Observation",
        **CLAIMS,
        "status": "final",
        "code": code,
        "valueQuantity": quantity,
    }


def test_what_claims_a_profile_is_checked_against_it_once_it_is_loaded(shell: Shell) -> None:
    bad = shell.file("bad.json", {"resourceType": "Patient", **CLAIMS})
    code, out, _ = shell("check", bad)
    assert code == 0 and "This profile is not loaded" in out
    code, out, _ = shell("load", shell.file("core.tgz", package(NAMED)))
    assert (code, out) == (0, "example.core 1.2.3: 1 StructureDefinition.\n")
    code, out, _ = shell("check", bad)
    assert code == 1
    assert "Patient.name" in out and "name is missing." in out and NAMED["url"] in out
    assert out.endswith("1 checked: 0 without errors, 1 with, 0 not read.\n")


@pytest.mark.parametrize("content", [json.dumps(NAMED), NAMED_IN_XML], ids=["JSON", "XML"])
def test_a_folder_of_definitions_is_a_package_under_its_name(shell: Shell, content: str) -> None:
    file = Path(shell.file("mine/named." + ("xml" if content[0] == "<" else "json"), content))
    shell.file("mine/package.json", {"name": "not this"})
    assert shell("load", str(file.parent))[:2] == (0, "mine: 1 StructureDefinition.\n")
    code, _, _ = shell("check", shell.file("bad.json", {"resourceType": "Patient", **CLAIMS}))
    assert code == 1
    code, out, _ = shell("list", "--json")
    [held] = json.loads(out)
    assert (held["name"], held["definitions"], held["profiles"]) == ("mine", 1, 1)
    assert "mine" in shell("list")[1]


def test_a_package_replaces_one_of_its_name_and_of_two_the_first_loaded_stands(
    shell: Shell,
) -> None:
    looser = {**NAMED, "differential": {"element": [{"id": "Patient", "path": "Patient"}]}}
    nameless = shell.file("bad.json", {"resourceType": "Patient", **CLAIMS})
    shell("load", shell.file("core.tgz", package(NAMED)))
    _, _, err = shell("load", shell.file("other.tgz", package(looser, name="other")))
    assert f"{NAMED['url']} is in example.core and other: the first one's stands." in err
    assert shell("check", nameless)[0] == 1
    shell("load", shell.file("core.tgz", package(looser, version="2.0.0")))
    assert shell("check", nameless)[0] == 0
    held = [(one["name"], one["version"]) for one in json.loads(shell("list", "--json")[1])]
    assert held == [("other", "1.2.3"), ("example.core", "2.0.0")]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.tgz", b"\x1f\x8bnot a package", "It is no FHIR package"),
        ("a.tgz", gzip.compress(b"x", mtime=0), "It is no FHIR package"),
        ("a.json", b"{", "is not JSON"),
        ("a.json", b"[]", "no resource of FHIR R4"),
        ("a.xml", b"<Patient/>", "no FHIR R4 in XML"),
        ("a.xml", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "declares a document type"),
        ("a.json", json.dumps(GOOD).encode(), "holds no definitions"),
        ("a.json", json.dumps({**NAMED, "fhirVersion": "5.0.0"}).encode(), "of FHIR 5.0.0"),
        ("a.tgz", package({**NAMED, "fhirVersion": "3.0.2"}), "0.json: It is of FHIR 3.0.2"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else None,  # a gzip has the time in it
)
def test_what_cannot_be_loaded_is_told_and_leaves_nothing(
    shell: Shell, name: str, content: bytes, said: str
) -> None:
    good = shell.file("good.tgz", package(NAMED))
    code, _, err = shell("load", good, shell.file(name, content))
    assert code == 2 and said in err
    assert shell("list", "--json")[1] == "[]\n"


SLOW = "name.family.toChars().count() > 1"
UNCOMPILED = {
    "id": "Patient.name",
    "path": "Patient.name",
    "maxLength": 3,
    "constraint": [
        {"key": "x-1", "severity": "error", "human": "No initial alone.", "expression": SLOW}
    ],
}
ODD = {**NAMED, "differential": {"element": [UNCOMPILED]}}


def test_rules_that_are_not_compiled_are_named_when_they_are_loaded_and_listed(
    shell: Shell,
) -> None:
    load = shell("load", shell.file("core.tgz", package(ODD)))
    for _, _, err in (load, shell("list"), shell("list", "--json")):
        assert "No check can be made of this rule: Patient.name.maxLength" in err
        assert f"This rule is checked, but slowly: {SLOW}" in err


async def test_rules_that_are_not_compiled_are_named_at_start_up(
    shell: Shell, tmp_path: Path
) -> None:
    shell("load", shell.file("core.tgz", package(ODD)))
    settings = Settings(data_dir=tmp_path / "data", keys_dir=tmp_path / "keys")
    with capture_logs() as lines:
        async with open_broker(settings):
            pass
    told = [(one["event"], one["rule"]) for one in lines if "rule" in one]
    assert told == [
        ("profiles.rule-left-out", "Patient.name.maxLength"),
        ("profiles.rule-slow", SLOW),
    ]


def test_every_problem_is_told_with_its_place_and_its_rule(shell: Shell) -> None:
    shell("load", shell.file("core.tgz", package(NAMED)))
    code, out, _ = shell("check", "--json", shell.file("bad.json", BAD))
    [found] = json.loads(out)
    assert code == 1 and found["unread"] is None
    errors = [one for one in found["problems"] if one["severity"] == "error"]
    assert [(one["code"], one["expression"]) for one in errors] == [
        ("code-invalid", "Patient.gender"),
        ("required", "Patient.name"),
    ]
    assert errors[1]["rule"] == NAMED["url"]
    assert "unsure" not in out


def test_a_folder_is_checked_file_by_file_and_summed_up(shell: Shell) -> None:
    folder = Path(shell.file("all/good.json", {"resourceType": "Patient", "active": True})).parent
    shell.file("all/deeper/bad.json", BAD)
    shell.file("all/old.json", STU3)
    shell.file("all/notes.txt", "nothing to do with FHIR")
    code, out, err = shell("check", str(folder))
    assert code == 2  # something could not be read
    assert "old.json: It is FHIR STU3; R4 (4.0.1) is wanted." in err
    assert out.endswith("3 checked: 1 without errors, 1 with, 1 not read.\n")


def test_xml_is_checked_as_the_json_of_the_same_resource(shell: Shell) -> None:
    patient = '<Patient xmlns="http://hl7.org/fhir"><gender value="unsure"/></Patient>'
    code, out, _ = shell("check", shell.file("a.xml", patient))
    assert code == 1 and "Patient.gender" in out


def test_standard_input_is_read_where_a_dash_stands(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    for content, code in ((GOOD, 0), (BAD, 1), ("nothing", 2)):
        text = json.dumps(content) if isinstance(content, Mapping) else content
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert shell("check", "-")[0] == code


def test_a_file_that_is_not_there_is_said_to_be_missing(shell: Shell) -> None:
    code, _, err = shell("check", str(shell.folder / "nowhere.json"))
    assert code == 2 and "nowhere.json: No such file or directory." in err


def test_a_damaged_package_is_named(shell: Shell) -> None:
    shell("load", shell.file("core.tgz", package(NAMED)))
    [kept] = (shell.folder / "data" / "profiles").glob("*.json")
    kept.write_text("{")
    code, _, err = shell("list")
    assert code == 2 and f"{kept} is damaged" in err
