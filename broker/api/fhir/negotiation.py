"""What a FHIR client may ask to be answered in, and send: JSON of R4, and of BaRS's major version.

One place for everything under `/FHIR/R4`. Errors are told in JSON whatever was asked for.
"""

import re
from collections.abc import Iterator
from email.message import Message
from email.utils import collapse_rfc2231_value
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from broker.api.outcomes import CONTENT_TYPE
from broker.errors import NotAcceptable, Problem, UnsupportedMediaType
from fhir_profiles import strict_json

FORMAT: Final = "_format"
FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = frozenset({"json", "application/json", "application/fhir+json"})
XML: Final = frozenset({"xml", "text/xml", "application/xml", "application/fhir+xml"})
ANY: Final = frozenset({"*/*", "application/*"})
FHIR_VERSIONS: Final = frozenset({"4.0", "4.0.1"})
BARS_MAJOR: Final = "1"
TODO: Final = "Ask for application/fhir+json."
_UNWANTED: Final = re.compile(r"0(\.0*)?")


async def acceptable(request: Request) -> None:
    """Raise NotAcceptable where no form that is asked for can be had: `_format` before Accept."""
    asked = request.query_params.getlist(FORMAT) or request.headers.getlist("accept")
    ranges = list(_ranges(asked))
    if not ranges:
        return
    wrong = [_wrong(name, parameters) for name, parameters in ranges]
    if None in wrong:
        return
    field = f"http.{FORMAT if FORMAT in request.query_params else 'Accept'}"
    raise NotAcceptable(
        "The answer cannot be had in this form.",
        [Problem(field, "processing", said, TODO) for said in dict.fromkeys(filter(None, wrong))],
    )


def readable(request: Request) -> None:
    """Raise UnsupportedMediaType unless the body is FHIR in JSON, of the version spoken here."""
    given = request.headers.get("content-type", "")
    name, parameters = next(_ranges([given]), ("", {}))
    if name in JSON:
        said = _wrong(name, parameters)
        if said is None and parameters.get("charset", "utf-8").lower() != "utf-8":
            said = "FHIR is read in UTF-8 only."
        if said is None:
            return
        raise UnsupportedMediaType(said)
    what = "FHIR in XML is not read here" if name in XML else f"This was {name[:60] or 'nothing'}"
    raise UnsupportedMediaType(f"{what}. Send application/fhir+json.")


def prefers(request: Request, wish: str) -> bool:
    """Whether the client would have it so, such as `return=minimal`; as RFC 7240 writes it."""
    wishes = ",".join(request.headers.getlist("prefer")).replace(";", ",").split(",")
    return wish in ["".join(one.split()).replace('"', "").lower() for one in wishes]


def answer(
    body: Any,
    status: int = 200,
    *,
    version: int | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Return FHIR in JSON that no cache keeps, with its version as ETag."""
    sent = {"Cache-Control": "no-store", "Content-Type": CONTENT_TYPE, **(headers or {})}
    if version is not None:
        sent["ETag"] = f'W/"{version}"'
    content = body if isinstance(body, bytes) else strict_json.dumps(body)
    return Response(content, status, sent)


def _ranges(given: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each media range with its parameters, but those that are wanted not at all."""
    for line in given:
        for one in line.split(","):
            message = Message()
            # A `+` that was not escaped in a query arrives as a space.
            message["content-type"] = one.strip().replace("fhir ", "fhir+")
            pairs = message.get_params() or []
            if not pairs or not pairs[0][0]:
                continue
            parameters = {name.lower(): collapse_rfc2231_value(value) for name, value in pairs[1:]}
            if not _UNWANTED.fullmatch(parameters.get("q", "1")):
                yield pairs[0][0].lower(), parameters


def _wrong(name: str, parameters: dict[str, str]) -> str | None:
    """Return why an answer in this form cannot be had, or None where it can."""
    if name in XML:
        return "FHIR in XML is not offered here."
    if name not in JSON | ANY:
        return "This form is not offered here."
    if parameters.get("fhirversion", "4.0") not in FHIR_VERSIONS:
        return "FHIR R4 (4.0.1) is spoken here, and no other version."
    if parameters.get("version", BARS_MAJOR).partition(".")[0] != BARS_MAJOR:
        return "Version 1 of BaRS is spoken here, and no other major version."
    return None
