"""Every file that the NHS has published, and our verdict on it: none may change unseen.

`python -m tests.integration.test_published_files` writes `tests/data/verdicts.tsv` anew; read what
changed before you keep it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fhir_profiles import packages, strict_json
from fhir_profiles.packages import Unreadable
from tests import published
from tests.published import DATA

pytestmark = pytest.mark.slow

PINNED = Path(__file__).parents[1] / "data" / "verdicts.tsv"

# What the project's references call faulty, and the end of the rule that says so.
FAULTY = [
    ("REFREQ04_-_Referral_Service_Request_-_CAD_Out_of_Area", "condition-clinical"),
    ("REFREQ05_-_Referral_Service_Request_-_CAD_Mutal_Aid_Request", "condition-clinical"),
    ("VALRESP03_-_Validation_Response_New_Full", "scene-safety-codes-bars"),
    ("REFREQ11_-_Referral_Service_Request_-_Internal_broker", "Bundle"),
    ("bars-api-1.4.0/service_request_GET-success.json", "Bundle#bdl-5"),
    ("bars-api-1.4.0/service_request_id_GET-success.json", "ServiceRequest"),
    ("bars-api-1.4.0/Endpoint_post_Endpoint_Atomic.json", "Endpoint"),
]
# NHS numbers with a wrong check digit that published examples hold, as the references list them.
WRONG_NUMBERS = (b"3478526985", b"7778521234", b"4857773456")


def verdict(path: Path) -> str:
    """Say in a word or two what becomes of a file: `good`, why it is not read, or what is wrong."""
    try:
        resource = packages.read(path.read_bytes())
    except Unreadable as error:
        return f"unreadable: {str(error).partition(':')[0].rstrip('.')}"
    found = published.profiles().check(strict_json.dumps(resource))
    rules = {one.rule.rpartition("/")[2] for one in found if one.severity == "error"}
    return f"faulty: {' '.join(sorted(rules))}" if rules else "good"


def verdicts() -> Iterator[tuple[str, str]]:
    """Give every file under its path within the folder, with our verdict."""
    for path in sorted(DATA.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(DATA)), verdict(path)


def pinned() -> dict[str, str]:
    lines = PINNED.read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t", 1) for line in lines)


@published.needed
def test_every_published_file_has_the_verdict_that_was_pinned() -> None:
    found, wanted = dict(verdicts()), pinned()
    changed = {
        path: (wanted.get(path), found.get(path))
        for path in found.keys() | wanted.keys()
        if found.get(path) != wanted.get(path)
    }
    assert changed == {}


@pytest.mark.parametrize(("name", "rule"), FAULTY)
def test_what_the_references_call_faulty_is_refused_by_the_rule_that_it_breaks(
    name: str, rule: str
) -> None:
    found = {path: said for path, said in pinned().items() if name in path}
    assert found
    for said in found.values():
        assert said.startswith("faulty: ") and rule in said.removeprefix("faulty: ").split()


def test_a_file_that_is_no_json_is_said_to_be_none() -> None:
    assert pinned()["bars/bars-api-1.4.0/document_reference_GET-success.json"] == (
        "unreadable: The body is not JSON"
    )


@published.needed
def test_a_wrong_nhs_number_is_refused_wherever_it_stands() -> None:
    for path, said in pinned().items():
        content = (DATA / path).read_bytes()
        if any(number in content for number in WRONG_NUMBERS) and said == "good":
            raise AssertionError(f"{path} holds a wrong NHS number")


def test_stu3_is_recognised_as_such() -> None:
    stu3 = [said for path, said in pinned().items() if path.startswith("bars/ers-stu3/")]
    assert set(stu3) == {"unreadable: It is FHIR STU3; R4 (4.0.1) is wanted"}


@published.needed
def test_xml_is_read_as_the_json_of_the_same_example() -> None:
    """The two were not written on the same day: words differ here and there, nothing else does."""
    pairs = [
        (xml, json)
        for xml in sorted((DATA / "bars" / "bars-ig-examples").glob("*.xml"))
        for json in [DATA / "bars" / "bars-pkg-1.37.0-examples-json" / f"{xml.stem}.json"]
        if json.exists()
    ]
    assert len(pairs) > 30
    for xml, json in pairs:
        one, other = packages.read(xml.read_bytes()), packages.read(json.read_bytes())
        assert wordless(one) == wordless(other), xml.name


def wordless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: wordless(one) for key, one in value.items()}
    if isinstance(value, list):
        return [wordless(one) for one in value]
    return "" if isinstance(value, str) else value


@published.needed
def test_of_what_is_loaded_only_slices_that_nothing_tells_apart_are_left_out() -> None:
    lab = "https://fhir.hl7.org.uk/StructureDefinition/UKCore-Observation-Lab"
    assert list(published.profiles().left_out) == [
        f"{lab}#coding:valueset-PaLM",
        f"{lab}#coding:valueset-PBCL",
    ]
    assert list(published.profiles().slow) == []  # every constraint is a closure


if __name__ == "__main__":
    text = "".join(f"{path}\t{said}\n" for path, said in verdicts())
    PINNED.write_text(text, encoding="utf-8")
