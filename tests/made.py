"""Everything that the adapters make of their own examples, for tests that look at all of it."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from adapters.optometry import ADAPTER as OPTOMETRY
from adapters.pharmacy import ADAPTER as PHARMACY
from broker.events import Role
from broker.ports import Adapter, Context, Party
from fhir_profiles import strict_json
from fhir_profiles.compiler.finding import Finding
from fhir_profiles.profiles import ours

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
PRACTICE = Party("Y90001", "Riverside Medical Practice", "0113 496 0201")
SENDER = Party("FPH01", "Riverside Pharmacy", "0113 496 0101")
CORRELATION = "0199a000-0000-7000-8000-000000000009"
IDS = {
    "update": "0199a000-0000-7000-8000-000000000001",
    "referral": "0199a000-0000-7000-8000-000000000002",
}


@cache
def contents() -> Mapping[str, bytes]:
    """Return the Bundle of every message that an example asks for, by its name."""
    found = {}
    for adapter in (PHARMACY, OPTOMETRY):
        for name, example in adapter.examples.items():
            for key, content in _translated(adapter, example):
                found[f"{adapter.name}-{name}-{key}"] = content
    return found


def errors(content: bytes) -> list[Finding]:
    """Return what is wrong with a Bundle of ours: nothing ever should be."""
    return [one for one in ours().check(content) if one.severity == "error"]


def resources() -> Iterator[Mapping[str, Any]]:
    """Return the resources of all those Bundles."""
    for content in contents().values():
        for entry in json.loads(content)["entry"]:
            yield entry["resource"]


def _translated(adapter: Adapter, example: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    body = strict_json.loads(json.dumps(example).encode())  # which keeps the digits of numbers
    request = adapter.accepts.model_validate(body, context={"now": NOW})
    wanted = adapter.needs(request, NOW)
    context = Context(
        message_ids={want.key: IDS[want.key] for want in wanted.wants},
        sender=SENDER,
        practice=PRACTICE if wanted.practice else None,
        destinations={want.key: ((PRACTICE, Role.ACTING),) for want in wanted.wants},
        correlation_id=CORRELATION,
        now=NOW,
        warnings=wanted.warnings,
    )
    for draft in adapter.translate(request, context):
        yield draft.key, draft.content
