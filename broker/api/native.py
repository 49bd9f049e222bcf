"""The pillars' own doors: one per adapter, in that pillar's own words."""

import time
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from broker import trails
from broker.access import Action
from broker.api.calling import (
    Identity,
    allow,
    answer,
    body_of,
    broker_of,
    caller_of,
    only_known_parameters,
    version_of,
)
from broker.api.described import KEY, VERSION, answers, takes
from broker.correcting import Correction
from broker.errors import Refused
from broker.events import read_traceparent
from broker.intake import Posted
from broker.ports import Adapter
from broker.reading import telling_danger
from broker.telemetry import INTAKE_SECONDS
from fhir_profiles import strict_json


def router_for(adapter: Adapter) -> APIRouter:
    """Return the door of one adapter."""
    router = APIRouter(tags=[adapter.name])

    async def post(request: Request) -> Response:
        caller = await caller_of(request)
        allow(caller, Action.SUBMIT, door=adapter.name)
        started = time.perf_counter()
        outcome = "failed"
        try:
            body = await body_of(request)
            broker = broker_of(request)
            async with telling_danger(adapter, body, broker.directory.current):
                await only_known_parameters(request)
                made = await broker.intake.accept(
                    Posted(
                        caller=caller,
                        adapter=adapter,
                        key=request.headers.get("idempotency-key"),
                        body=body,
                        traceparent=read_traceparent(request.headers.get("traceparent")),
                    )
                )
            outcome = "accepted"
        except Refused as refused:
            outcome = refused.code
            raise
        finally:
            elapsed = time.perf_counter() - started
            INTAKE_SECONDS.labels(adapter.name, outcome).observe(elapsed)
        return answer(made.body, made.status)

    router.add_api_route(
        adapter.door,
        post,
        methods=["POST"],
        status_code=202,
        summary=(adapter.accepts.__doc__ or "").strip().split("\n")[0],
        name=f"post_{adapter.name}",
        openapi_extra={
            **answers(202, "Accepted"),
            "parameters": [KEY],
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"$ref": f"#/components/schemas/{adapter.accepts.__name__}"},
                        "examples": {
                            name: {"value": example} for name, example in adapter.examples.items()
                        },
                    }
                },
            },
        },
    )
    _add_correction(router, adapter)
    return router


def _add_correction(router: APIRouter, adapter: Adapter) -> None:
    """Add the door that corrects what was posted here: the whole body again, with If-Match."""

    async def put(request: Request, identity: Identity) -> Response:
        caller = await caller_of(request)
        broker = broker_of(request)
        codes = (await broker.directory.current()).stands_for(caller.organisation)
        message, relation, label = await broker.store.read(
            lambda c: trails.addressed(c, identity, codes)
        )
        body = await body_of(request)
        async with telling_danger(adapter, body, broker.directory.current, is_correction=True):
            allow(caller, Action.CORRECT, relation, label=label, door=adapter.name)
            await only_known_parameters(request)
            made = await broker.correcting.correct(
                Correction(
                    caller=caller,
                    adapter=adapter,
                    message=message,
                    version=version_of(request),
                    body=body,
                    traceparent=read_traceparent(request.headers.get("traceparent")),
                )
            )
        return answer(made.body, made.status, version=strict_json.loads(made.body)["version"])

    router.add_api_route(
        f"{adapter.door}/{{identity:uuid}}",
        put,
        methods=["PUT"],
        summary="Correct what was sent: the whole body, with If-Match",
        name=f"correct_{adapter.name}",
        openapi_extra={
            **answers(200, "Corrected"),
            **takes(VERSION, body={"$ref": f"#/components/schemas/{adapter.accepts.__name__}"}),
        },
    )


def schemas_of(adapter: Adapter) -> dict[str, Any]:
    """Return the JSON schemas of what a door takes, by name."""
    schema = adapter.accepts.model_json_schema(
        ref_template="#/components/schemas/{model}", mode="validation"
    )
    found: dict[str, Any] = schema.pop("$defs", {})
    return {**found, adapter.accepts.__name__: schema}
