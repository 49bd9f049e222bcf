"""`GET /FHIR/R4/metadata`: what is offered, drawn up from the routes that run, so always true."""

import re
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from broker import offering
from broker.api.calling import broker_of
from broker.api.described import OPEN
from broker.api.fhir import bundles, negotiation
from broker.api.fhir.types import CLASSES, SEARCHED
from broker.api.outcomes import BASE
from fhir_profiles import codes, served

OPERATIONS: Final = {"process-message": codes.PROCESS_MESSAGE}
_SHAPES: Final = {
    ("GET", ""): "search-type",
    ("POST", "/_search"): "search-type",
    ("POST", ""): "create",
    ("GET", "/{id}"): "read",
    ("PUT", "/{id}"): "update",
    ("GET", "/{id}/_history"): "history-instance",
    ("GET", "/{id}/_history/{version}"): "vread",
}
_CLASS: Final = re.compile(r"/\{\w+:(definition|focus|party|created|moved)\}(.*)")

router = APIRouter(prefix=BASE, tags=["FHIR definitions"])


@router.get("/metadata", summary="What is offered under /FHIR/R4", openapi_extra=OPEN)
async def metadata(request: Request) -> Response:
    """A CapabilityStatement. Keep it for up to 12 hours."""
    bundles.unread(request, request.query_params, ("mode",))
    base = broker_of(request).settings.base_url + BASE
    found = statement(request.app.state.fhir_routes, base)
    return negotiation.answer(found, headers={"Cache-Control": "max-age=43200"})


def statement(routes: Iterable[BaseRoute], base: str) -> dict[str, Any]:
    """Return the CapabilityStatement of these routes at a base URL."""
    offers = list(offered(routes))
    types: dict[str, list[str]] = {}
    for type_, interaction in offers:
        if type_ and interaction not in types.setdefault(type_, []):
            types[type_].append(interaction)
    system = [{"code": name} for type_, name in offers if not type_ and name not in OPERATIONS]
    operations = [
        {"name": name, "definition": OPERATIONS[name]}
        for type_, name in offers
        if not type_ and name in OPERATIONS
    ]
    rest: dict[str, Any] = {
        "mode": "server",
        "security": {
            "service": [
                {"coding": [{"system": f"{codes.HL7}restful-security-service", "code": "OAuth"}]}
            ],
            "description": "An access token of /oauth2/token, but for definitions and this.",
        },
        "resource": [_resource(type_, types[type_]) for type_ in sorted(types)],
    }
    own = {"interaction": system, "operation": operations}
    rest |= {name: value for name, value in own.items() if value}
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": max(str(one.resource.get("date", "")) for one in served.definitions().values()),
        "kind": "instance",
        "software": {"name": "Referral Broker", "version": version("referral-broker")},
        "implementation": {"description": "Referral Broker", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "rest": [rest],
        "messaging": [_messaging(base, takes=bool(operations))],
    }


def offered(routes: Iterable[BaseRoute]) -> Iterator[tuple[str, str]]:
    """Yield (type, interaction) of every route: the type is empty for what is the system's."""
    for route in routes:
        if not isinstance(route, Route):
            continue
        below = route.path.removeprefix(BASE)
        (method,) = (route.methods or set()) - {"HEAD"}
        classed = _CLASS.fullmatch(below)
        if classed is not None:
            for type_ in CLASSES[classed[1]]:
                yield type_, _SHAPES[method, classed[2].replace(":id}", "}")]
        elif below == "":
            yield "", "transaction"
        elif below.startswith("/$"):
            yield "", below.removeprefix("/$")


def _resource(type_: str, interactions: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": type_,
        "interaction": [{"code": code} for code in interactions],
        "versioning": "versioned" if "vread" in interactions else "no-version",
    }
    if "read" in interactions:
        made["conditionalRead"] = "not-match"
    if "create" in interactions:
        made["conditionalCreate"] = True
    if "search-type" not in interactions:
        return made
    searched = SEARCHED[type_]
    if searched.includes:
        made["searchInclude"] = [f"{type_}:{name}" for name in searched.includes]
    made["searchParam"] = [
        {"name": name, "type": kind, "documentation": words}
        for name, (kind, words) in searched.parameters.items()
    ]
    return made


def _messaging(base: str, *, takes: bool) -> dict[str, Any]:
    """Return which messages are sent and, where they are taken, which and at which address."""
    known = [one for one in served.definitions().values() if one.type == "MessageDefinition"]
    supported = [
        {"mode": "sender", "definition": one.url} for one in known if "base" not in one.resource
    ]
    # What BaRS defines is taken and sent alike, under the names that BaRS has for it.
    supported += [
        {"mode": mode, "definition": offering.as_bars(one.resource)["url"]}
        for one in known
        if offering.is_taken(one.resource)
        for mode in ("receiver", "sender")
    ]
    made: dict[str, Any] = {
        "documentation": "Every message has a receipt and a deadline; see /docs.",
        "supportedMessage": supported,
    }
    if takes:
        protocol = {"system": f"{codes.HL7}message-transport", "code": "http"}
        made["endpoint"] = [{"protocol": protocol, "address": f"{base}/$process-message"}]
    return made
