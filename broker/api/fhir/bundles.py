"""Answers to searches: a Bundle of type searchset, its resources byte for byte as they are given;
and what is said of parameters that nothing is read from."""

import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from broker.api import outcomes
from broker.api.fhir import negotiation
from broker.errors import BadRequest, Problem
from broker.search import MOST_VALUES, shown_name
from fhir_profiles import strict_json

GENERAL: Final = frozenset({negotiation.FORMAT, "_pretty"})
"""Parameters that every interaction takes; answers are compact whatever `_pretty` says."""


@dataclass(frozen=True, slots=True)
class Found:
    """A resource in its own bytes, where it stands, and why: `match`, `include`, `outcome`."""

    url: str
    resource: bytes = field(repr=False)
    mode: str = "match"


def searchset(
    found: Iterable[Found], links: Sequence[tuple[str, str]], total: int | None = None
) -> bytes:
    """Return the Bundle; `links` are (relation, URL)."""
    head: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset"}
    if total is not None:
        head["total"] = total
    head["link"] = [{"relation": relation, "url": url} for relation, url in links]
    return _with_entries(head, [_entry(one) for one in found])


def history(found: Sequence[Found], versions: Sequence[tuple[int, str]], link: str) -> bytes:
    """Return the Bundle of a resource's versions, newest first; `versions` are (number, when)."""
    head = {
        "resourceType": "Bundle",
        "type": "history",
        "total": len(found),
        "link": [{"relation": "self", "url": link}],
    }
    entries = []
    for one, (version, when) in zip(found, versions, strict=True):
        path = "/".join(one.url.split("/")[-2:])
        more = {
            "request": {"method": "PUT", "url": path},
            "response": {"status": "200", "etag": f'W/"{version}"', "lastModified": when},
        }
        opening = strict_json.dumps({"fullUrl": one.url})[:-1]
        rest = strict_json.dumps(more)[1:]
        entries.append(b'%s,"resource":%s,%s' % (opening, one.resource, rest))
    return _with_entries(head, entries)


def _entry(one: Found) -> bytes:
    opening = strict_json.dumps({"fullUrl": one.url} if one.url else {})[:-1]
    comma = b"," if one.url else b""
    search = strict_json.dumps({"mode": one.mode})
    return b'%s%s"resource":%s,"search":%s}' % (opening, comma, one.resource, search)


def _with_entries(head: dict[str, Any], entries: Sequence[bytes]) -> bytes:
    opening = strict_json.dumps(head)
    if not entries:  # R4 knows no empty list
        return opening
    return opening[:-1] + b',"entry":[' + b",".join(entries) + b"]}"


def unread(request: Request, given: Iterable[str], known: Collection[str]) -> list[Found]:
    """Return the outcome that names each parameter that is not known, or nothing.

    Raises BadRequest for them where the client asks to be told strictly.
    """
    names = [*known, *GENERAL]
    problems = []
    unknown = sorted(set(given) - set(names))
    if len(unknown) > MOST_VALUES:  # to say what each may have meant takes its time
        said = f"{len(unknown)} parameters are not known here."
        raise BadRequest("", [Problem("http.query", "too-costly", said, "Take them out.")])
    for name in unknown:
        near = difflib.get_close_matches(name, names, n=1)
        todo = f"Did you mean {near[0]}?" if near else "Take it out."
        shown = shown_name(name)
        detail = f"{shown} is not known here; nothing was read from it."
        problems.append(Problem(f"http.{shown}", "not-supported", detail, todo))
    if not problems:
        return []
    if negotiation.prefers(request, "handling=strict"):
        raise BadRequest("", problems)
    return [Found("", outcomes.warnings(problems), "outcome")]


def fresh(request: Request, body: bytes, version: int, modified: str | None = None) -> Response:
    """Return a resource with its version, or 304 where the client has that version already."""
    headers = {} if modified is None else {"Last-Modified": modified}
    tags = [one.strip() for one in request.headers.get("if-none-match", "").split(",")]
    if {f'W/"{version}"', f'"{version}"', "*"} & set(tags):
        return negotiation.answer(b"", 304, version=version, headers=headers)
    return negotiation.answer(body, version=version, headers=headers)
