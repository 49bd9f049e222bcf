"""Extensions: known ones are as their definition says, and stand where it allows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from fhir_profiles.compiler import r4, tolerated
from fhir_profiles.compiler.finding import Check, Finding, Severity, under
from fhir_profiles.compiler.scope import Scope

Unknown = Callable[[str], Severity | None]
"""From the URL of an extension without a definition to how grave that is, or None."""

Definition = Callable[[str], "tuple[frozenset[str], Check] | None"]
"""From an extension's URL to the contexts that it may stand in, and the check of its content."""

MEMBERS: Final = ("extension", "modifierExtension")
_MEMBERS: Final = frozenset(MEMBERS)


def stands(definition: Definition, unknown: Unknown, *contexts: str) -> Check:
    """Return the check of an element's extensions; `contexts` are its paths and types."""
    here = frozenset(contexts)

    def check(value: Any, scope: Scope) -> Sequence[Finding] | None:
        if type(value) is not dict or _MEMBERS.isdisjoint(value):
            return None
        found: list[Finding] = []
        for member in MEMBERS:
            held = value.get(member)
            for place, one in enumerate(held) if isinstance(held, list) else ():
                wrong = _one(one, scope)
                if wrong:
                    found += under(f"{member}[{place}]", wrong)
        return found

    def _one(extension: Any, scope: Scope) -> Sequence[Finding] | None:
        url = extension.get("url") if isinstance(extension, dict) else None
        if not isinstance(url, str) or ":" not in url:
            return None  # a part of another extension, which is what defines it
        known = definition(url)
        if known is None:
            severity = unknown(url)
            return [] if severity is None else [_unknown(severity, url)]
        allowed, content = known
        wrong = list(content(extension, scope) or ())
        if allowed.isdisjoint(here):
            wrong.append(
                Finding("error", "structure", "", url, "This extension does not belong here.")
            )
        return wrong

    return check


def _unknown(severity: Severity, url: str) -> Finding:
    return Finding(severity, "extension", "url", url, "No definition of this extension is loaded.")


def contexts(definition: Mapping[str, Any]) -> frozenset[str]:
    """Return the paths, types and extensions that a definition allows its extension on."""
    given = definition.get("context", ())
    said = (one if isinstance(one, str) else str(one.get("expression")) for one in given)
    return frozenset([*said, *tolerated.contexts(definition["url"])])


def names_of(kind: str) -> tuple[str, ...]:
    """Return a type's name with those of all that it is based on."""
    found = [kind]
    while (base := r4.types().get(found[-1])) is not None and base.base:
        found.append(base.base)
    return tuple(found)
