"""The API: every door in one application, its OpenAPI page served from the wheel."""

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from broker import registry
from broker.api import (
    attachments,
    communications,
    described,
    health,
    inbox,
    messages,
    native,
    organisations,
    pathways,
    problems,
    process_message,
    referrals,
    services,
    token,
)
from broker.api.calling import only_known_parameters
from broker.api.edge import Edge
from broker.api.fhir import capability, creation, definitions, negotiation, resources, tasks
from broker.main import open_broker
from broker.parts import EMBEDDED, Part
from broker.ports import Adapter
from broker.settings import Settings

NATIVE_DOORS = (
    *(messages, communications, referrals, inbox, attachments),
    *(organisations, pathways, services),
)
TITLE = "Referral Broker"
ABOUT = (
    "Referrals and clinical messages between general practice, pharmacy, optometry, dentistry and "
    "hospitals. Get a token at `/oauth2/token`, post in your own words, collect from your inbox."
)
# What every native route asks first.
NATIVE = [Depends(only_known_parameters)]
# And every one under /FHIR/R4.
FHIR = [Depends(negotiation.acceptable)]


class _App(FastAPI):
    """The application within its edge: outside even of what answers unexpected errors."""

    def build_middleware_stack(self) -> ASGIApp:
        return Edge(super().build_middleware_stack())


def create_app(settings: Settings, parts: Collection[Part] = EMBEDDED) -> FastAPI:
    """Return the application. Its lifespan opens the broker and does what these parts do."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_broker(settings) as broker, broker.running(parts):
            app.state.broker = broker
            yield

    app = _App(
        title=TITLE,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # it would say a query, with all that stands in it, once more
    )
    adapters = registry.load().adapters
    app.include_router(token.router)
    for adapter in adapters.values():
        app.include_router(native.router_for(adapter))
    for module in NATIVE_DOORS:
        app.include_router(module.router, dependencies=NATIVE)
    app.include_router(health.router)
    modules = (capability, creation, definitions, process_message, resources, tasks)
    fhir = [one.router for one in modules]
    for router in fhir:
        app.include_router(router, dependencies=FHIR)
    app.state.fhir_routes = [route for router in fhir for route in router.routes]
    _document(app, adapters)
    problems.install(app)
    return app


def _document(app: FastAPI, adapters: Mapping[str, Adapter]) -> None:
    """Serve the OpenAPI document and a page that reads it, with no asset from elsewhere."""
    made: dict[str, Any] = {}

    def document() -> dict[str, Any]:
        if not made:
            made.update(get_openapi(title=TITLE, version="1", description=ABOUT, routes=app.routes))
            schemas = made.setdefault("components", {}).setdefault("schemas", {})
            for adapter in adapters.values():
                schemas.update(native.schemas_of(adapter))
            made["components"]["securitySchemes"] = {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
            }
            made["security"] = [{"token": []}]
            described.complete(made)
        return made

    app.openapi = document  # type: ignore[method-assign]

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi(_: Request) -> Response:
        return JSONResponse(document())

    @app.get("/docs", include_in_schema=False)
    async def docs(_: Request) -> Response:
        return HTMLResponse(PAGE)

    @app.get("/docs/start.js", include_in_schema=False)
    async def start(_: Request) -> Response:
        return Response(START, media_type="text/javascript")

    assets = Path(fastapi_offline.__file__).parent / "static"
    app.mount("/docs/assets", StaticFiles(directory=assets))


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Referral Broker API</title>
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""

START = """window.onload = () => SwaggerUIBundle({
  url: "/openapi.json", dom_id: "#page", deepLinking: true, validatorUrl: null
});
"""
