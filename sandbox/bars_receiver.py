"""A BaRS receiver on loopback: it says what it offers, takes messages, and answers as it is told.

    receiver = BarsReceiver()
    await receiver.start()
    receiver.script.append(Scripted(503, headers={"Retry-After": "120"}))   # for the next message
    …
    receiver.calls            # everything that it was sent
    await receiver.stop()

Unless a script says otherwise it does what BaRS Core 1.5.0 demands of a receiver: it checks headers
before content, knows a request again by its X-Request-Id, and answers a message with its own second
Encounter, whose identifier is the reference for people.
"""

import asyncio
import base64
import binascii
import json
import ssl
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import uvicorn
from fastapi import FastAPI, Request, Response

from fhir_profiles.bars.incoming import EVENTS, REASONS
from sandbox.listening import Resettable, Server
from sandbox.process import free_port

BASE: Final = "/FHIR/R4"
REFERRAL: Final = (
    "https://fhir.nhs.uk/MessageDefinition/bars-message-servicerequest-request-referral"
)
CANCELLED: Final = (
    "https://fhir.nhs.uk/MessageDefinition/bars-message-servicerequest-request-cancelled"
)
SHORT: Final = (
    "https://fhir.nhs.uk/MessageDefinition/bars-message-servicerequest-response-referral-short"
)
ERRORS: Final = "https://fhir.nhs.uk/CodeSystem/http-error-codes"
OUTCOME: Final = "https://fhir.hl7.org.uk/StructureDefinition/UKCore-OperationOutcome"
FHIR_JSON: Final = "application/fhir+json"
IDS: Final = ("x-request-id", "x-correlation-id")


@dataclass(frozen=True, slots=True)
class Call:
    """What the receiver was sent; header names in lower case."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    body: bytes

    def decoded(self, header: str) -> Any:
        """Return what a Base64 header holds."""
        return json.loads(base64.b64decode(self.headers[header], validate=True))


@dataclass(frozen=True, slots=True)
class Scripted:
    """One answer: a resource, or bytes as they are; `echo` is whether the ids are given back.

    `drops`: the connection is broken off, and nothing is answered.
    """

    status: int
    body: Mapping[str, Any] | bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    echo: bool = True
    after: float = 0.0
    drops: bool = False


@dataclass
class Offered:
    """What it says of itself; a status other than 200 is all that it says."""

    definitions: tuple[str, ...] = (REFERRAL, CANCELLED, SHORT)
    versions: tuple[str, ...] = ("1.0.0-beta",)
    cache_control: str = ""
    core: str = "1.5.0"
    metadata: int = 200
    definitions_status: int = 200


class BarsReceiver:
    """One service that takes BaRS messages. A call without the wanted token is answered 401."""

    def __init__(self, *, reference: str = "PF-2048", tls: ssl.SSLContext | None = None) -> None:
        self.offered = Offered()
        self.script: deque[Scripted] = deque()
        self.calls: list[Call] = []
        self.tokens: set[str] | None = None
        self._reference = reference
        self._tls = tls
        self._port = free_port()
        self.given: dict[str, str] = {}
        self._seen: set[str] = set()
        self._server: Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        """The base of its FHIR API."""
        return f"http://127.0.0.1:{self._port}{BASE}"

    @property
    def messages(self) -> list[Call]:
        """What was posted to $process-message, however it was answered."""
        return [call for call in self.calls if call.method == "POST"]

    @property
    def questions(self) -> list[str]:
        """Which of its descriptions were asked for."""
        return [call.path for call in self.calls if call.method == "GET"]

    async def start(self) -> None:
        """Listen; connections are taken on return."""
        config = uvicorn.Config(
            self._app(),
            host="127.0.0.1",
            port=self._port,
            http=Resettable,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        config.load()
        config.ssl = self._tls
        self._server = Server(config)
        self._serving = asyncio.create_task(self._server.serve())
        while not self._server.started:
            if self._serving.done():
                self._serving.result()
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            await self._serving
            self._server = self._serving = None

    def _app(self) -> FastAPI:
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

        @app.api_route("/{path:path}", methods=["GET", "POST"])
        async def any_call(request: Request) -> Response:
            call = Call(
                request.method,
                request.url.path.removeprefix(f"{BASE}/"),
                tuple(request.query_params.multi_items()),
                {name.lower(): value for name, value in request.headers.items()},
                await request.body(),
            )
            self.calls.append(call)
            scripted = self.answer(call)
            await asyncio.sleep(scripted.after)
            if scripted.drops and request.client is not None:
                Resettable.reset(request.client.port)
            return _response(call, scripted)

        return app

    def answer(self, call: Call) -> Scripted:
        """Return what is said to a call: what was scripted, else what the standard demands."""
        if call.method == "POST" and self.script:
            return self.script.popleft()
        refused = self._header_problem(call)
        if refused is not None:
            return refused
        match call.method, call.path:
            case "GET", "metadata":
                return self._metadata()
            case "GET", "MessageDefinition":
                return self._message_definitions(call)
            case "POST", "$process-message":
                return self._process(call)
        return outcome(501, "REC_NOT_IMPLEMENTED", "not-supported")

    def _header_problem(self, call: Call) -> Scripted | None:
        """Return the answer to what is wrong with the headers: these are judged first."""
        token = call.headers.get("authorization", "").removeprefix("Bearer ")
        if self.tokens is not None and token not in self.tokens:
            return outcome(401, "REC_UNAUTHORIZED", "security")
        for name in IDS:
            if name not in call.headers:
                return outcome(400, "REC_BAD_REQUEST", "required")
            if not _is_uuid(call.headers[name]):
                return outcome(400, "REC_BAD_REQUEST", "value")
        if "version=1." not in call.headers.get("accept", ""):
            return outcome(406, "REC_NOT_ACCEPTABLE", "processing")
        try:
            target = call.decoded("nhsd-target-identifier")
        except (KeyError, ValueError, binascii.Error):
            return outcome(400, "REC_BAD_REQUEST", "invalid")
        if set(target) != {"system", "value"}:
            return outcome(400, "REC_BAD_REQUEST", "structure")
        return None

    def _metadata(self) -> Scripted:
        said = self.offered
        if said.metadata != 200:
            return Scripted(said.metadata)
        statement = {
            "resourceType": "CapabilityStatement",
            "status": "active",
            "date": "2026-07-16",
            "kind": "instance",
            "fhirVersion": "4.0.1",
            "format": ["json"],
            "rest": [{"mode": "server"}],
            "messaging": [
                {
                    "supportedMessage": [
                        {"mode": "receiver", "definition": one} for one in said.definitions
                    ]
                }
            ],
        }
        return Scripted(200, statement, self._described())

    def _message_definitions(self, call: Call) -> Scripted:
        said = self.offered
        if said.definitions_status != 200:
            return Scripted(said.definitions_status)
        if [name for name, _ in call.query] != ["context", "context"]:
            return outcome(400, "REC_BAD_REQUEST", "required")
        found = [
            {"resourceType": "MessageDefinition", "url": url, "version": version}
            for url in said.definitions
            for version in said.versions
        ]
        searchset = {
            "resourceType": "Bundle",
            "type": "searchset",
            "total": len(found),
            "entry": [{"resource": one} for one in found],
        }
        return Scripted(200, searchset, self._described())

    def _described(self) -> dict[str, str]:
        made = {"content-type": f"{FHIR_JSON}; version={self.offered.core}"}
        return made | (
            {"cache-control": self.offered.cache_control} if self.offered.cache_control else {}
        )

    def _process(self, call: Call) -> Scripted:
        request = call.headers["x-request-id"]
        if request in self._seen:
            return outcome(409, "REC_CONFLICT", "duplicate")
        try:
            bundle = json.loads(call.body)
            header = bundle["entry"][0]["resource"]
            endpoint = header["destination"][0]["endpoint"]
        except (ValueError, LookupError, TypeError):
            return outcome(400, "REC_BAD_REQUEST", "structure")
        target = call.decoded("nhsd-target-identifier")
        if endpoint != f"{target['system']}|{target['value']}":
            return outcome(400, "REC_BAD_REQUEST", "invariant")
        version = bundle.get("meta", {}).get("versionId", "")
        if not version:
            return outcome(400, "REC_BAD_REQUEST", "invariant")
        if not version.startswith("1."):
            return outcome(422, "REC_UNPROCESSABLE_ENTITY", "not-supported")
        self._seen.add(request)
        return Scripted(200, self.accepted(bundle))

    def accepted(self, bundle: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a message that is taken: with ids, and the second Encounter."""
        now = datetime.now(UTC).isoformat()
        kept = [
            {**entry, "resource": {**entry["resource"], "id": str(uuid.uuid4())}}
            for entry in bundle["entry"][1:]
        ]
        self.given |= {one["fullUrl"]: one["resource"]["id"] for one in kept}
        header = bundle["entry"][0]["resource"]
        encounter = {
            "resourceType": "Encounter",
            "id": str(uuid.uuid4()),
            "meta": {"lastUpdated": now},
            "identifier": [
                {"system": "https://receiver.example/Id/case", "value": self._reference}
            ],
            "status": "planned",
            "class": {
                "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode",
                "code": "EMER",
            },
        }
        answer = {
            "resourceType": "MessageHeader",
            "meta": {"lastUpdated": now},
            "eventCoding": {"system": EVENTS, "code": "servicerequest-response"},
            "destination": [{"endpoint": header["source"]["endpoint"]}],
            "source": {"name": "A receiver", "endpoint": header["destination"][0]["endpoint"]},
            "reason": {"coding": [{"system": REASONS, "code": "new"}]},
            "response": {"identifier": bundle["id"], "code": "ok"},
            "focus": header["focus"],
            "definition": SHORT,
        }
        return {
            "resourceType": "Bundle",
            "id": str(uuid.uuid4()),
            "meta": {"versionId": bundle["meta"]["versionId"], "lastUpdated": now},
            "type": "message",
            "timestamp": now,
            "entry": [
                {"fullUrl": f"urn:uuid:{uuid.uuid4()}", "resource": answer},
                *kept,
                {"fullUrl": f"urn:uuid:{uuid.uuid4()}", "resource": encounter},
            ],
        }


def outcome(status: int, code: str, issue: str, diagnostics: str = "", **given: Any) -> Scripted:
    """Return an error as a receiver tells it: the status with an OperationOutcome."""
    said = {
        "resourceType": "OperationOutcome",
        "meta": {"profile": [OUTCOME]},
        "issue": [
            {
                "severity": "error",
                "code": issue,
                "details": {
                    "coding": [{"system": ERRORS, "code": code, "display": f"{status} - {code}"}]
                },
                **({"diagnostics": diagnostics} if diagnostics else {}),
            }
        ],
    }
    return Scripted(status, said, **given)


def _response(call: Call, scripted: Scripted) -> Response:
    body = scripted.body
    echoed = {name: call.headers[name] for name in IDS if scripted.echo and name in call.headers}
    return Response(
        body if isinstance(body, bytes) else json.dumps(body).encode(),
        scripted.status,
        {"content-type": FHIR_JSON, **echoed, **scripted.headers},
    )


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
