"""Write fhir_profiles/r4/*.json from FHIR R4's own definitions; `scripts/r4-definitions` runs it.

Kept is what checks need: elements with their cardinality, types, bindings and constraints; the
codes of every required or extensible binding; the definitions of R4's extensions.
"""

import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from defusedxml import ElementTree

MODEL = "org/hl7/fhir/r4/model"
NS = "{http://hl7.org/fhir}"
TARGET = Path(__file__).resolve().parents[2] / "fhir_profiles" / "r4"
SKIPPED = {"id", "extension", "modifierExtension"}  # every element has them
INHERITED = {"id", "meta", "implicitRules", "language", "text", "contained", *SKIPPED}
UNIVERSAL = {"ele-1", "ext-1"}  # repeated on every element: of Element, and of Extension alone
LARGEST = 2_000  # codes of a code system that is taken along


def main() -> None:
    """Write the three files."""
    with zipfile.ZipFile(sys.argv[1]) as jar:
        profiles = [_root(jar, f"profile/profiles-{one}.xml") for one in ("types", "resources")]
        extensions = _root(jar, "extension/extension-definitions.xml")
        names = ("valuesets", "v3-codesystems", "v2-tables")
        terminology = [_root(jar, f"valueset/{one}.xml") for one in names]
    types, constraints = _types(profiles)
    defined = dict(_extensions(extensions))
    bound = {
        row["binding"][1]
        for one in types.values()
        for row in one["elements"].values()
        if "binding" in row
    }
    bound |= {
        (row["binding"]["valueSet"] or "").partition("|")[0]
        for one in defined.values()
        for row in one["differential"]["element"]
        if "binding" in row
    }
    _write("types.json", {"types": types, "constraints": constraints})
    _write("extensions.json", defined)
    _write("codes.json", _codes(terminology, bound))


def _root(jar: zipfile.ZipFile, name: str) -> Element:
    return ElementTree.fromstring(jar.read(f"{MODEL}/{name}"))


def _write(name: str, content: Any) -> None:
    TARGET.mkdir(exist_ok=True)
    lines = [f"{json.dumps(key)}:{_compact(value)}" for key, value in content.items()]
    (TARGET / name).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _compact(value: Any) -> str:
    """One line for each member, so that a change can be read."""
    if not isinstance(value, dict) or len(value) < 20:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    lines = [
        f"{json.dumps(key)}:{json.dumps(one, separators=(',', ':'), ensure_ascii=False)}"
        for key, one in value.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}"


def _value(element: Element, name: str) -> str | None:
    found = element.find(f"{NS}{name}")
    return None if found is None else found.get("value")


def _all(element: Element, name: str) -> list[Element]:
    return element.findall(f"{NS}{name}")


# -- types ---------------------------------------------------------------------------------------


def _types(roots: list[Element]) -> tuple[dict[str, Any], dict[str, Any]]:
    types: dict[str, Any] = {}
    constraints: dict[str, Any] = {}
    for root in roots:
        for definition in root.iter(f"{NS}StructureDefinition"):
            snapshot = definition.find(f"{NS}snapshot")
            if snapshot is None or _value(definition, "derivation") == "constraint":
                continue
            name = _value(definition, "type") or ""
            base = (_value(definition, "baseDefinition") or "").rpartition("/")[2]
            is_resource = _value(definition, "kind") == "resource"
            elements = dict(_elements(snapshot, name, base, constraints, is_resource=is_resource))
            types[name] = {"kind": _value(definition, "kind"), "base": base, "elements": elements}
    return types, constraints


def _elements(
    part: Element, name: str, base: str, constraints: dict[str, Any], *, is_resource: bool
) -> Iterator[tuple[str, Any]]:
    for element in _all(part, "element"):
        path = (_value(element, "path") or "")[len(name) + 1 :]
        is_root_of_inherited = base == "DomainResource" and path == ""
        if path.rpartition(".")[2] in SKIPPED and "." in path:
            continue
        if base == "DomainResource" and path in INHERITED:
            continue
        row = _element(element)
        if path == "id" and is_resource:
            row["types"] = ["id"]  # R4 itself says string here, and id in its text
        own = []
        for one in _all(element, "constraint"):
            key = _value(one, "key") or ""
            is_universal = key in UNIVERSAL and (name, path) != ("Extension", "")
            if is_universal or (is_root_of_inherited and key.startswith("dom-")):
                continue
            if any(
                (extension.get("url") or "").endswith("bestpractice")
                for extension in _all(one, "extension")
            ):
                continue  # advice to those who write, no rule
            said = [_value(one, "severity"), _value(one, "human"), _value(one, "expression")]
            if constraints.setdefault(key, said)[2] != said[2]:
                key = f"{key}@{name}"  # two types gave one key to two rules
                constraints[key] = said
            own.append(key)
        if own:
            row["constraints"] = own
        yield path, row


def _element(element: Element) -> dict[str, Any]:
    row: dict[str, Any] = {
        "min": int(_value(element, "min") or 0),
        "max": _value(element, "max") or "1",
    }
    types = []
    for one in _all(element, "type"):
        code = _value(one, "code") or ""
        targets = [
            (target.get("value") or "").rpartition("/")[2] for target in _all(one, "targetProfile")
        ]
        if code.startswith("http://hl7.org/fhirpath/"):
            code = "string"
        types.append([code, *targets] if targets and targets != ["Resource"] else code)
    if types:
        row["types"] = types
    binding = element.find(f"{NS}binding")
    if binding is not None and _value(binding, "strength") in {"required", "extensible"}:
        value_set = (_value(binding, "valueSet") or "").partition("|")[0]
        row["binding"] = [_value(binding, "strength"), value_set]
    like = _value(element, "contentReference")
    if like:
        row["like"] = like.lstrip("#")
    return row


def _extensions(root: Element) -> Iterator[tuple[str, Any]]:
    for definition in root.iter(f"{NS}StructureDefinition"):
        part = definition.find(f"{NS}differential")
        url = _value(definition, "url")
        if part is None or url is None:
            continue
        elements = [_differential(element) for element in _all(part, "element")]
        contexts = [_value(one, "expression") for one in _all(definition, "context")]
        yield (
            url,
            {
                "url": url,
                "type": "Extension",
                "context": contexts,
                "differential": {"element": elements},
            },
        )


def _differential(element: Element) -> dict[str, Any]:
    """Return an element as FHIR's JSON has it, without what only people read."""
    row: dict[str, Any] = {"path": _value(element, "path")}
    if element.get("id"):
        row["id"] = element.get("id")
    for name in ("sliceName", "min", "max", "fixedUri"):
        given = _value(element, name)
        if given is not None:
            row[name] = int(given) if name == "min" else given
    types = []
    for one in _all(element, "type"):
        targets = [target.get("value") for target in _all(one, "targetProfile")]
        types.append(
            {"code": _value(one, "code"), **({"targetProfile": targets} if targets else {})}
        )
    if types:
        row["type"] = types
    binding = element.find(f"{NS}binding")
    if binding is not None and _value(binding, "strength") in {"required", "extensible"}:
        row["binding"] = {
            "strength": _value(binding, "strength"),
            "valueSet": _value(binding, "valueSet"),
        }
    return row


# -- codes ---------------------------------------------------------------------------------------


def _codes(roots: list[Element], bound: set[str]) -> dict[str, Any]:
    systems: dict[str, Element] = {}
    sets: dict[str, Element] = {}
    for root in roots:
        for one in root.iter():
            url = _value(one, "url") if one.tag in {f"{NS}CodeSystem", f"{NS}ValueSet"} else None
            if url:
                (systems if one.tag == f"{NS}CodeSystem" else sets)[url] = one
    known = {url: found for url, one in systems.items() if (found := _code_system(one))}
    value_sets: dict[str, Any] = {}
    used: set[str] = set()
    for url in sorted(bound & set(sets)):
        value_sets[url] = _includes(url, sets, known)
        used |= {include[0] for include in value_sets[url]}
    kept = {url: known[url] for url in sorted(used & set(known))}
    return {"codeSystems": kept, "valueSets": value_sets}


def _code_system(element: Element) -> dict[str, Any] | None:
    if _value(element, "content") != "complete":
        return None
    codes: dict[str, Any] = {}

    def take(parent: Element, above: str | None) -> None:
        for concept in _all(parent, "concept"):
            code = _value(concept, "code") or ""
            broader = [above] if above else []
            broader += [
                _value(one, "valueCode") or ""
                for one in _all(concept, "property")
                if _value(one, "code") == "subsumedBy"
            ]
            codes[code] = [_value(concept, "display") or "", *broader]
            take(concept, code)

    take(element, None)
    return codes if 0 < len(codes) <= LARGEST else None


def _includes(url: str, sets: dict[str, Element], known: dict[str, Any]) -> list[Any]:
    """Return [system, codes], with None where all are meant or the codes are not known here."""
    found: list[Any] = []
    compose = sets[url].find(f"{NS}compose") if url in sets else None
    if compose is None:
        return [[url, None]]
    for include in _all(compose, "include"):
        for other in _all(include, "valueSet"):
            found += _includes((other.get("value") or "").partition("|")[0], sets, known)
        system = _value(include, "system")
        if system is None:
            continue
        codes: list[str] | None = [
            _value(one, "code") or "" for one in _all(include, "concept")
        ] or None
        filters = _all(include, "filter")
        if filters and system in known:
            codes = [
                code
                for code in known[system]
                if all(_meets(known[system], code, one) for one in filters)
            ]
        elif filters:
            system = f"{system}#filtered"
        found.append([system, codes])
    return found


def _meets(codes: dict[str, Any], code: str, criterion: Element) -> bool:
    operation, wanted = _value(criterion, "op"), _value(criterion, "value")
    seen: set[str] = set()
    ahead = [code]
    while ahead:
        one = ahead.pop()
        seen.add(one)
        ahead += [above for above in codes.get(one, [""])[1:] if above not in seen]
    match operation:
        case "is-a":
            return wanted in seen
        case "is-not-a":
            return wanted not in seen
        case "descendent-of":
            return wanted in seen and wanted != code
    sys.exit(f"a filter that is not known: {operation}")


if __name__ == "__main__":
    main()
