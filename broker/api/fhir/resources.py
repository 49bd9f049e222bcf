"""What was sent, as FHIR resources: read, history, search. Each finds its own, and no other's."""

from collections.abc import Iterable, Sequence
from email.utils import format_datetime
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from broker.access import Action, Caller
from broker.api.calling import allow, body_of, broker_of, caller_of
from broker.api.described import takes
from broker.api.fhir import bundles, negotiation
from broker.api.fhir.bundles import Found
from broker.api.fhir.types import FOCUS, Focus, Party
from broker.api.outcomes import BASE
from broker.errors import BadRequest, NotFound, Problem
from broker.finding import Page, Version
from broker.search import PARAMETERS, RESULT, Search
from broker.search_values import identity

PAGE: Final = "_page"
# In the link to itself a search says that it was by these, and not whose.
UNSAID: Final = frozenset({"patient:identifier", "subject:identifier", "identifier"})

router = APIRouter(prefix=BASE, tags=["FHIR resources"])


# -- read ----------------------------------------------------------------------------------------


async def _versions(request: Request, type_: str, resource_id: str) -> list[Version]:
    """Return every version of a resource that the caller may read. Raises NotFound."""
    caller = await caller_of(request)
    bundles.unread(request, request.query_params, ())
    known = identity(resource_id)  # one of another shape is not there, like another's
    found = await broker_of(request).finding.versions(caller, type_, known) if known else []
    if not found:
        allow(caller, Action.READ_RESOURCE)
        raise NotFound("There is nothing here for this caller.")
    allow(caller, Action.READ_RESOURCE, found[0].relation, label=found[0].label)
    return found


async def _answered(request: Request, version: Version) -> Response:
    body = await broker_of(request).finding.body(version)
    modified = format_datetime(version.updated, usegmt=True)
    if not version.stands:  # it is no other version, and yet not what the client has seen
        headers = {"Last-Modified": modified}
        return negotiation.answer(body, version=version.number, headers=headers)
    return bundles.fresh(request, body, version.number, modified)


@router.get("/{focus:focus}/{id:id}", summary="Read what was asked for or told")
async def read(request: Request, focus: Focus, id: str) -> Response:  # noqa: A002 - FHIR's word
    """As it was sent, with `id` and `meta` put in. A Task says where its referral stands now."""
    return await _answered(request, (await _versions(request, focus, id))[0])


@router.get("/{focus:focus}/{id:id}/_history", summary="Every version, newest first")
async def history(request: Request, focus: Focus, id: str) -> Response:  # noqa: A002
    found = await _versions(request, focus, id)
    broker = broker_of(request)
    url = f"{broker.settings.base_url}{BASE}/{focus}/{found[0].row.id}"
    bodies = [Found(url, await broker.finding.body(one)) for one in found]
    versions = [(one.number, one.updated.isoformat(timespec="milliseconds")) for one in found]
    return negotiation.answer(bundles.history(bodies, versions, f"{url}/_history"))


@router.get("/{focus:focus}/{id:id}/_history/{version:id}", summary="Read one version")
async def vread(request: Request, focus: Focus, id: str, version: str) -> Response:  # noqa: A002
    for one in await _versions(request, focus, id):
        if str(one.number) == version:
            return await _answered(request, one)
    raise NotFound("There is nothing here for this caller.")


@router.get("/{party:party}/{id:id}", summary="Read who or what a message speaks of")
async def read_party(request: Request, party: Party, id: str) -> Response:  # noqa: A002
    """As it stood in that message: the same person in two messages is two resources."""
    return await _answered(request, (await _versions(request, party, id))[0])


# -- search --------------------------------------------------------------------------------------


def _told() -> list[dict[str, Any]]:
    """Return the parameters of a search as the page shows them."""
    told: dict[str, dict[str, Any]] = {}
    for type_ in FOCUS:
        for name, one in PARAMETERS[type_].items():
            shown = told.setdefault(
                name,
                {
                    "name": name,
                    "in": "query",
                    "schema": {"type": "string"},
                    "description": one.words,
                },
            )
            shown["description"] += f" {type_}."
    told |= {
        name: {"name": name, "in": "query", "schema": {"type": "string"}, "description": words}
        for name, words in RESULT.items()
    }
    return list(told.values())


_TOLD: Final = _told()


@router.get(
    "/{focus:focus}", summary="Search what was asked for or told", openapi_extra=takes(*_TOLD)
)
async def search(request: Request, focus: Focus) -> Response:
    """Yours alone: what you sent and what was sent to you. `POST …/_search` keeps a patient's
    identifier out of addresses. Follow `next` as it is given."""
    return await _searched(request, await _searcher(request), focus, [])


@router.post(
    "/{focus:focus}/_search",
    summary="Search, with the parameters in the body",
    openapi_extra={
        "requestBody": {
            "content": {
                negotiation.FORM: {
                    "schema": {
                        "type": "object",
                        "properties": {one["name"]: one["schema"] for one in _TOLD},
                    }
                }
            }
        }
    },
)
async def search_by_post(request: Request, focus: Focus) -> Response:
    caller = await _searcher(request)
    body = await body_of(request, empty=True, types=(negotiation.FORM,))
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise BadRequest("The parameters are not UTF-8.") from None
    return await _searched(request, caller, focus, parse_qsl(text, keep_blank_values=True))


async def _searcher(request: Request) -> Caller:
    """Return who searches. Raises Unauthenticated, Forbidden."""
    caller = await caller_of(request)
    allow(caller, Action.SEARCH_RESOURCES)
    return caller


async def _searched(
    request: Request, caller: Caller, type_: str, posted: Sequence[tuple[str, str]]
) -> Response:
    finding = broker_of(request).finding
    given = [*request.query_params.multi_items(), *posted]
    given = [pair for pair in given if pair[0] not in bundles.GENERAL]
    tokens = [value for name, value in given if name == PAGE]
    outcome: list[Found] = []
    if tokens:
        if len(given) > 1:
            wrong = Problem("http._page", "invalid", "It goes alone.", "Follow the link as given.")
            raise BadRequest("", [wrong])
        wanted, after = finding.unseal(caller, type_, tokens[0])
        page = await finding.page(caller, wanted, after)
    else:
        wanted, unknown = finding.reader.read(type_, given)
        outcome = bundles.unread(request, unknown, [*PARAMETERS[type_], *RESULT])
        page = await finding.page(caller, wanted)
    return _bundle(request, wanted, page, tokens, outcome)


def _bundle(
    request: Request, search: Search, page: Page, tokens: Sequence[str], outcome: Iterable[Found]
) -> Response:
    base = f"{broker_of(request).settings.base_url}{BASE}"
    url = f"{base}/{search.type}"
    query = urlencode(
        [(name, "" if name in UNSAID else value) for name, value in search.used], safe=":/|,"
    )
    own = f"{PAGE}={quote(tokens[0])}" if tokens else query
    links = [("self", f"{url}?{own}" if own else url)]
    if page.following is not None:
        links.append(("next", f"{url}?{PAGE}={quote(page.following)}"))
    found: list[Found] = []
    for match in page.matches:
        found.append(Found(f"{url}/{match.id}", match.resource))
        found += [Found(at, body, "include") for at, body in match.included]
    return negotiation.answer(bundles.searchset([*found, *outcome], links, page.total))
