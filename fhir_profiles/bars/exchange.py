"""What the two ends of a BaRS call read of each other: the message, what is offered, the answer.

Each reader takes bytes as they came and never raises: what cannot be read is None or nothing.
Rules: BaRS Core 1.5.0, Message-Headers, Content-Negotiation, Transactional-integrity and (for the
receiver's reference) Standard-Pattern-Composite-Messages.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from fhir_profiles import codes, strict_json
from fhir_profiles.bars import incoming
from fhir_profiles.bars.codes import USE_CASES

OWN: Final = codes.system("use-case").url
_LONGEST_REFERENCE: Final = 64
_CODE: Final = re.compile(r"[A-Za-z0-9-]{1,32}")


@dataclass(frozen=True, slots=True)
class Message:
    """What is said of a message outside of it. Codes and ids only: nothing of a patient."""

    id: str
    version: str
    definition: str
    use_case_system: str
    use_case: str
    category: str
    event: str
    reason: str

    @property
    def use_context(self) -> str:
        """The header of that name: for statistics only, no receiver may go by it."""
        return "|".join((self.use_case, self.category, self.event, self.reason))


@dataclass(frozen=True, slots=True)
class Response:
    """What a message answers: the id of the Bundle that it is the answer to, and how."""

    identifier: str
    code: str


def read_message(body: bytes) -> Message | None:
    """Read a BaRS message; None for anything else."""
    found = incoming.read(_resource(body, "Bundle") or {})
    event = _code(found.event)
    if incoming.unreadable(found) or not event:
        return None
    use_cases = {system: _code(found.use_case(system)) for system in (USE_CASES, OWN)}
    system = next((one for one, code in use_cases.items() if code), USE_CASES)
    return Message(
        id=found.id,
        version=found.version,
        definition=found.definition,
        use_case_system=system,
        use_case=use_cases[system],
        category=_code(found.category),
        event=event,
        reason=_code(found.reason),
    )


def context(target: tuple[str, str], message: Message) -> str:
    """Return the query that asks which definitions a service offers for a message's use case."""
    return urlencode(
        [
            ("context", "|".join(target)),
            ("context", f"{message.use_case_system}|{message.use_case}"),
        ]
    )


def definitions(statement: bytes) -> frozenset[str] | None:
    """Return the message definitions that a CapabilityStatement lists; None if it is none.

    Whether as sender or as receiver is not looked at: published statements say `sender` of all.
    """
    found = _resource(statement, "CapabilityStatement")
    if found is None:
        return None
    listed = _at(found, "messaging", "supportedMessage", "definition")
    return frozenset(_bare(one) for one in listed if isinstance(one, str))


def versions(searchset: bytes) -> tuple[tuple[str, str], ...] | None:
    """Return (definition, version) of each MessageDefinition of a Bundle; None if it is none."""
    found = _resource(searchset, "Bundle")
    if found is None:
        return None
    return tuple(
        (_bare(_text(one, "url")), _text(one, "version"))
        for one in _resources(found, "MessageDefinition")
    )


def is_offered(
    message: Message, listed: frozenset[str], offered: Sequence[tuple[str, str]] | None
) -> bool:
    """Whether a receiver takes this message: its definition is listed and, where versions are
    known, one of them has the major version that the message follows."""
    definition = _bare(message.definition)
    if definition not in listed:
        return False
    return offered is None or any(
        url == definition and major(version) and major(version) == major(message.version)
        for url, version in offered
    )


def major(version: str) -> str:
    """Return the part of a version that must be equal at both ends; nothing if it has none."""
    first = version.partition(".")[0]
    return first if first.isascii() and first.isdigit() else ""


def read_response(body: bytes) -> Response | None:
    """Return what a message answers; None where it is no message, or answers nothing."""
    bundle = _resource(body, "Bundle")
    if bundle is None or bundle.get("type") != "message":
        return None
    header = next(_resources(bundle, "MessageHeader"), None)
    if not any(_at(header, "response")):
        return None
    return Response(_text(header, "response", "identifier"), _text(header, "response", "code"))


def reference(body: bytes) -> str | None:
    """Return the receiver's own reference, which a person can read out: one short line, or None.

    It is the identifier of the Encounter `planned` that the receiver adds in its answer.
    """
    for encounter in _resources(_resource(body, "Bundle"), "Encounter"):
        value = _text(encounter, "identifier", "value").strip()
        if encounter.get("status") == "planned" and value:
            return value if len(value) <= _LONGEST_REFERENCE and value.isprintable() else None
    return None


def request_id(body: bytes) -> str | None:
    """Return the id that a message gives its ServiceRequest, or None."""
    request = next(_resources(_resource(body, "Bundle"), "ServiceRequest"), None)
    return _text(request, "id") or None


def is_fhir(body: bytes) -> bool:
    """Whether it is a FHIR resource at all."""
    return _resource(body) is not None


def is_outcome(body: bytes) -> bool:
    """Whether it is an OperationOutcome that names an issue: a receiver's own word."""
    return any(_at(_resource(body, "OperationOutcome"), "issue", "code"))


def is_duplicate(body: bytes) -> bool:
    """Whether it says that the request was processed before: the one issue code of that meaning."""
    return "duplicate" in _at(_resource(body, "OperationOutcome"), "issue", "code")


def _resource(body: bytes, kind: str | None = None) -> Mapping[str, Any] | None:
    try:
        found = strict_json.loads(body)
    except (strict_json.NotStrictJson, ArithmeticError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("resourceType"), str):
        return None
    return found if kind in (None, found["resourceType"]) else None


def _resources(bundle: Mapping[str, Any] | None, kind: str) -> Iterator[Mapping[str, Any]]:
    for found in _at(bundle, "entry", "resource"):
        if isinstance(found, Mapping) and found.get("resourceType") == kind:
            yield found


def _at(found: Any, *path: str) -> Iterator[Any]:
    """Yield what stands at a path, within every element of the lists on the way."""
    if isinstance(found, list):
        for one in found:
            yield from _at(one, *path)
    elif not path:
        yield found
    elif isinstance(found, Mapping) and path[0] in found:
        yield from _at(found[path[0]], *path[1:])


def _text(found: Any, *path: str) -> str:
    return next((one for one in _at(found, *path) if isinstance(one, str)), "")


def _code(found: str) -> str:
    """Return a code in lower case; it goes into a header: what may be more than a code is none."""
    return found.lower() if _CODE.fullmatch(found) else ""


def _bare(canonical: str) -> str:
    return canonical.partition("|")[0]
