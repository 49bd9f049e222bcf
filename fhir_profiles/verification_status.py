"""How far an NHS number was traced, in England's codes and in the retired ones that BaRS demands.

Both ways are read of one ConceptMap in `definitions/`. What it does not know is left as it is.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from fhir_profiles import systems
from fhir_profiles.codes import EXT_NHS_NUMBER_STATUS, concept_map

_GROUP: Final = concept_map("nhs-number-verification-status")
RETIRED: Final[str] = _GROUP["target"]
"""The code system that BaRS demands and UK Core has retired."""

_BARS: Final[Mapping[str, Mapping[str, str]]] = {
    one["code"]: {"code": one["target"][0]["code"], "display": one["target"][0]["display"]}
    for one in _GROUP["element"]
}
_ENGLAND: Final[Mapping[str, Mapping[str, str]]] = {
    one["target"][0]["code"]: {"code": one["code"], "display": one["display"]}
    for one in _GROUP["element"]
}


def to_bars(coding: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a coding of England's as BaRS wants it; any other one as it is."""
    return _mapped(coding, _GROUP["source"], _BARS, _GROUP["target"])


def to_england(coding: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a coding of BaRS's as UK Core wants it; any other one as it is."""
    return _mapped(coding, _GROUP["target"], _ENGLAND, _GROUP["source"])


def with_status(
    identifier: Mapping[str, Any], mapped: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> Mapping[str, Any]:
    """Return an identifier whose verification status, if it has one, is coded the other way."""
    if not any(one.get("url") == EXT_NHS_NUMBER_STATUS for one in identifier.get("extension", ())):
        return identifier
    extensions = []
    for one in identifier["extension"]:
        if one.get("url") == EXT_NHS_NUMBER_STATUS:
            status = one["valueCodeableConcept"]
            coding = [mapped(each) for each in status.get("coding", ())]
            one = {**one, "valueCodeableConcept": {**status, "coding": coding}}
        extensions.append(one)
    return {**identifier, "extension": extensions}


def _mapped(
    coding: Mapping[str, Any],
    source: str,
    table: Mapping[str, Mapping[str, str]],
    target: str,
) -> Mapping[str, Any]:
    other = table.get(coding.get("code", ""))
    if other is None or systems.normal(coding.get("system", "")) != systems.normal(source):
        return coding
    return {**coding, "system": target, **other}
