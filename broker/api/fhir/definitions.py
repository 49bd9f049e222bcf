"""Our definitions, open to all: read by id, searched; and what a service takes of BaRS."""

from collections.abc import Sequence
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from broker import offering
from broker.api.calling import broker_of
from broker.api.described import OPEN
from broker.api.fhir import bundles, negotiation
from broker.api.fhir.bundles import Found
from broker.api.fhir.types import Definition
from broker.api.outcomes import BASE
from broker.errors import NotFound
from fhir_profiles import served, strict_json

ALL: Final = 500
PARAMETERS: Final = ("_id", "url", "name", "_count", "_offset")
CONTEXT: Final = "context"

router = APIRouter(prefix=BASE, tags=["FHIR definitions"])


@router.get("/{definition:definition}", summary="Search our definitions", openapi_extra=OPEN)
async def search(
    request: Request,
    definition: Definition,
    id: Annotated[list[str] | None, Query(alias="_id")] = None,  # noqa: A002 - as FHIR calls it
    url: Annotated[list[str] | None, Query()] = None,
    name: Annotated[list[str] | None, Query(description="How its name begins.")] = None,
    context: Annotated[
        list[str] | None,
        Query(description="Of a MessageDefinition: a service and a use case, each system|value."),
    ] = None,
    count: Annotated[int, Query(alias="_count", ge=0)] = ALL,
    offset: Annotated[int, Query(alias="_offset", ge=0)] = 0,
) -> Response:
    """With `context` a MessageDefinition says what the service takes for that use case."""
    is_message = definition == "MessageDefinition"
    known = [*PARAMETERS, CONTEXT] if is_message else PARAMETERS
    outcome = bundles.unread(request, request.query_params, known)
    every = [one for one in served.definitions().values() if one.type == definition]
    resources = [
        one.resource
        for one in every
        if all(one.id in given.split(",") for given in id or ())
        and all(one.url in given.split(",") for given in url or ())
        and all(
            one.name.casefold().startswith(tuple(given.casefold().split(",")))
            for given in name or ()
        )
    ]
    if is_message and context is not None:
        directory = await broker_of(request).directory.current()
        resources = [*offering.taken(offering.read(context), resources, directory)]
    base = broker_of(request).settings.base_url + BASE
    given = [(key, value) for key, value in request.query_params.multi_items() if key in known]
    links = [("self", _link(base, definition, given))]
    if count and offset + count < len(resources):
        rest = [pair for pair in given if pair[0] != "_offset"]
        links.append(("next", _link(base, definition, [*rest, ("_offset", str(offset + count))])))
    page = [
        Found(f"{base}/{definition}/{one['id']}", strict_json.dumps(one))
        for one in resources[offset : offset + count]
    ]
    return negotiation.answer(bundles.searchset([*page, *outcome], links, len(resources)))


@router.get(
    "/{definition:definition}/{id:id}", summary="Read a definition of ours", openapi_extra=OPEN
)
async def read(request: Request, definition: Definition, id: str) -> Response:  # noqa: A002
    found = served.definitions().get((definition, id))
    if found is None:
        raise NotFound("There is no such definition here.")
    return bundles.fresh(request, found.body, 1)


def _link(base: str, type_: str, parameters: Sequence[tuple[str, str]]) -> str:
    query = urlencode(parameters, safe=":/|")
    return f"{base}/{type_}{'?' if query else ''}{query}"
