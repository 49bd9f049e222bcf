"""How many resources of each type a BaRS message holds: the rule that its definition states.

Read of our own definitions, each of which names the official one that it restates as its `base`.
Types that a definition does not name may be there in any number.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from fhir_profiles.profiles import own

_FOCUS: Final[Mapping[str, Iterable[Mapping[str, Any]]]] = {
    one["base"].partition("|")[0]: one["focus"]
    for one in own()
    if one["resourceType"] == "MessageDefinition" and "base" in one
}


def known() -> Iterable[str]:
    """Return the canonical of every message definition of BaRS."""
    return _FOCUS.keys()


def counts(definition_url: str, bundle: bytes | Mapping[str, Any]) -> list[str]:
    """Return what a Bundle has too few or too many of, a sentence each; nothing: it is as defined.

    Says types and numbers only. Raises LookupError where no definition goes by this URL, with or
    without its version.
    """
    focus = _FOCUS[definition_url.partition("|")[0]]
    read = json.loads(bundle) if isinstance(bundle, bytes) else bundle
    number = Counter(
        entry.get("resource", {}).get("resourceType", "") for entry in read.get("entry", ())
    )
    return [
        f"{row['code']}: {number[row['code']]} found, {_wanted(row)} demanded."
        for row in focus
        if not _is_within(number[row["code"]], row)
    ]


def _is_within(number: int, row: Mapping[str, Any]) -> bool:
    return bool(row["min"] <= number and (row["max"] == "*" or number <= int(row["max"])))


def _wanted(row: Mapping[str, Any]) -> str:
    least, most = row["min"], row["max"]
    if most == "*":
        return f"at least {least}"
    return f"exactly {most}" if str(least) == most else f"{least} to {most}"
