"""What the headers of a BaRS request say, decoded and checked. BaRS API 1.4.0, request headers.

`use-context` is for statistics and is not read. Who calls is its token's word: a header may only
say the same.
"""

import base64
import binascii
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from broker.errors import BadRequest, NotAcceptable, NotYours, Problem
from fhir_profiles import codes, strict_json
from fhir_profiles.bars.incoming import Target, at, identifier, text

REQUEST_ID: Final = "X-Request-Id"
CORRELATION_ID: Final = "X-Correlation-Id"
TARGET: Final = "NHSD-Target-Identifier"
ORGANISATION: Final = "NHSD-End-User-Organisation"
PRACTITIONER: Final = "NHSD-Requesting-Practitioner"
SOFTWARE: Final = "NHSD-Requesting-Software"
# The major version of BaRS Core that is spoken here.
CORE: Final = "1"


@dataclass(frozen=True, slots=True)
class Headers:
    """The ids of a request, and the service that it is for."""

    request_id: str
    correlation_id: str
    target: Target


def read(headers: Mapping[str, str], organisation: str) -> Headers:
    """Read the headers of a request by a system of this organisation.

    Raises BadRequest with everything that is wrong with them, NotAcceptable, NotYours.
    """
    problems: list[Problem] = []
    request_id = _uuid(headers, REQUEST_ID, problems)
    correlation_id = _uuid(headers, CORRELATION_ID, problems)
    target = _target(headers, problems)
    sender = _decoded(headers, ORGANISATION, "Organization", problems)
    for name, kind in ((PRACTITIONER, "PractitionerRole"), (SOFTWARE, "Device")):
        _decoded(headers, name, kind, problems)
    if problems or target is None:
        raise BadRequest("The request was not processed.", problems)
    _check_version(headers.get("accept", ""))
    if sender is not None and identifier(sender, codes.ODS) != organisation:
        raise NotYours(
            f"{ORGANISATION} names another organisation than the token, which is for "
            f"{organisation}. Get a token for the organisation that sends."
        )
    return Headers(request_id, correlation_id, target)


def _uuid(headers: Mapping[str, str], name: str, problems: list[Problem]) -> str:
    given = headers.get(name, "")
    try:
        return str(uuid.UUID(given))
    except ValueError:
        if not given:
            problems.append(_missing(name, "a UUID"))
        else:
            problems.append(Problem("", "value", f"{name} is not a UUID."))
        return ""


def _target(headers: Mapping[str, str], problems: list[Problem]) -> Target | None:
    if not headers.get(TARGET):
        problems.append(_missing(TARGET, 'Base64 of {"system": …, "value": …}'))
        return None
    found = _json(headers[TARGET])
    system, value = text(at(found, "system")), text(at(found, "value"))
    if not system or not value:
        said = f'{TARGET} is not the Base64 of a JSON object {{"system": …, "value": …}}.'
        problems.append(Problem("", "invalid", said))
        return None
    return Target(system, value)


def _decoded(
    headers: Mapping[str, str], name: str, kind: str, problems: list[Problem]
) -> Mapping[str, Any] | None:
    if name not in headers:
        return None
    found = _json(headers[name])
    if isinstance(found, dict) and found.get("resourceType") == kind:
        return found
    problems.append(Problem("", "invalid", f"{name} is not the Base64 of a FHIR {kind} in JSON."))
    return None


def _json(encoded: str) -> Any:
    try:
        return strict_json.loads(base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError):
        return None


def _missing(name: str, what: str) -> Problem:
    return Problem("", "required", f"The header {name} is missing.", f"Send {what}.")


def _check_version(accept: str) -> None:
    """Raise NotAcceptable where none of the versions asked for is of the Core spoken here."""
    versions = list(_versions(accept))
    if versions and all(one.partition(".")[0] != CORE for one in versions):
        raise NotAcceptable(f"BaRS Core {CORE} is spoken here; Accept asks for another version.")


def _versions(accept: str) -> Iterator[str]:
    for media_range in accept.split(","):
        for parameter in media_range.split(";")[1:]:
            name, _, value = parameter.partition("=")
            if name.strip().lower() == "version":
                yield value.strip().strip('"')
