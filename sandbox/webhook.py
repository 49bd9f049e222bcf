"""A practice that is called: it listens, verifies the signature, and answers with its receipt."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from standardwebhooks import Webhook, WebhookVerificationError
from starlette.requests import ClientDisconnect

from sandbox import arrival
from sandbox.arrival import Arrival
from sandbox.listening import Resettable, Server
from sandbox.partner import Partner
from sandbox.process import free_port
from sandbox.sentinels import Answer, Behaviour

PATH: Final = "/inbound"
ELSEWHERE: Final = "/elsewhere"
_DRIP_EVERY: Final = 0.2
_STOP_SECONDS: Final = 1
_LOG: Final = logging.getLogger("uvicorn.error")
_STORED_ANYWAY: Final = frozenset({Answer.RESET, Answer.LATE, Answer.SLOW, Answer.BARE})


class WebhookPartner(Partner):
    """Listens on loopback. A delivery without a good signature is answered 401 and not stored.

    While it `is_nowhere` every call is answered 404, as where a deployment has lost its route.
    """

    def __init__(self, *identity: Any, secret: bytes, port: int = 0, **settings: Any) -> None:
        super().__init__(*identity, **settings)
        self._webhook = Webhook(secret)
        self._port = port
        self._socket: socket.socket | None = None
        self._server: Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self.is_nowhere = False
        self._answers: dict[Answer, Callable[..., Coroutine[Any, Any, Response]]] = {
            Answer.SLOW: self._slowly,
            Answer.LATE: self._late,
            Answer.SILENT: self._never,
            Answer.FAIL: self._with_500,
            Answer.RECOVER: self._with_500,
            Answer.REFUSE: self._with_422,
            Answer.BARE: self._bare,
            Answer.REDIRECT: self._redirecting,
            Answer.DRIP: self._dripping,
            Answer.RESET: self._resetting,
        }

    @property
    def url(self) -> str:
        """Where the broker is to call. Known once the port is: given, or after `reserve`."""
        return f"http://127.0.0.1:{self._port}{PATH}"

    def reserve(self) -> None:
        """Take the port (the wanted one if it is free) without listening yet."""
        self._port = free_port(self._port)
        taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", self._port))
        self._socket = taken

    async def move(self) -> None:
        """Listen at another address; what is called at the old one is refused."""
        await self.stop()
        self._port = 0
        self.reserve()
        await self.start()

    async def start(self) -> None:
        """Listen; connections are taken on return."""
        if self._socket is None:
            self.reserve()
        taken, self._socket = self._socket, None
        config = uvicorn.Config(
            self._app(),
            http=Resettable,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        self._server = Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[taken] if taken else None))
        await self._server.listening.wait()

    async def idle(self) -> None:
        """Return once all that was begun here has ended."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def stop(self) -> None:
        """Stop listening: from here on a connection is refused."""
        if self._server is not None and self._serving is not None:
            self._server.should_exit = True
            # What is made to wait for ever is cut off here: that is no news to whoever stops it.
            _LOG.disabled = True
            await self._serving
            _LOG.disabled = False
            self._server = self._serving = None
        if self._socket is not None:
            self._socket.close()
        await super().stop()

    def _app(self) -> FastAPI:
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

        @app.post(PATH)
        async def inbound(request: Request) -> Response:
            return await self._inbound(request)

        @app.post(ELSEWHERE)
        async def elsewhere(request: Request) -> Response:
            self.ledger.write("followed", delivery=request.headers.get("webhook-id", ""))
            return Response(status_code=204)

        return app

    async def _inbound(self, request: Request) -> Response:
        try:
            body = await request.body()
        except ClientDisconnect:  # the broker died while it sent: it will send again
            return Response(status_code=400)
        if self.is_nowhere:
            return Response(status_code=404)
        try:
            self._webhook.verify(body, dict(request.headers), json_parse=False)
        except WebhookVerificationError as error:
            self.ledger.write("refused", why=str(error))
            return Response(status_code=401)
        found = arrival.read(
            request.headers["webhook-id"],
            request.headers["referral-broker-kind"],
            "webhook",
            body,
        )
        behaviour = self.behaviour(found)
        tries = self.tried(found)
        answer = behaviour.answer
        is_over = (answer is Answer.RECOVER and tries > 2) or (
            answer in {Answer.RESET, Answer.LATE} and tries > 1
        )
        if answer in self._answers and not is_over:
            self.ledger.write("misbehaved", how=answer.value, tries=tries, delivery=found.delivery)
            if answer in _STORED_ANYWAY:
                self.store(found)
            return await self._answers[answer](request, found, behaviour)
        return self._normally(found, behaviour)

    def _normally(self, found: Arrival, behaviour: Behaviour) -> Response:
        self.store(found)
        return self._confirmed(found, behaviour)

    def _confirmed(self, found: Arrival, behaviour: Behaviour) -> Response:
        """Confirm what was stored, and decide once the answer is on its way."""
        said = self.receipt(found, behaviour.answer)
        if behaviour.decides:
            self.spawn(self.decide(found, behaviour))
        return Response(json.dumps(said), media_type="application/json")

    # -- trouble ---------------------------------------------------------------------------------

    async def _slowly(self, _: Request, found: Arrival, behaviour: Behaviour) -> Response:
        await asyncio.sleep(self.slow_seconds)
        return self._confirmed(found, behaviour)

    async def _late(self, _: Request, found: Arrival, behaviour: Behaviour) -> Response:
        await asyncio.sleep(self.late_seconds)
        return self._confirmed(found, behaviour)

    async def _never(self, request: Request, *_: Any) -> Response:
        await request.receive()  # nothing more comes but that the other end went away
        return Response(status_code=503)

    async def _with_500(self, *_: Any) -> Response:
        return Response(status_code=500)

    async def _with_422(self, *_: Any) -> Response:
        return Response(status_code=422)

    async def _bare(self, *_: Any) -> Response:
        return Response(status_code=200)

    async def _redirecting(self, *_: Any) -> Response:
        where = self.url.replace(PATH, ELSEWHERE)
        return Response(status_code=307, headers={"Location": where})

    async def _dripping(self, *_: Any) -> Response:
        async def drops() -> AsyncIterator[bytes]:
            while True:
                yield b" "
                await asyncio.sleep(_DRIP_EVERY)

        return StreamingResponse(drops(), media_type="application/json")

    async def _resetting(self, request: Request, *_: Any) -> Response:
        Resettable.reset(request.client.port if request.client else 0)
        return Response(status_code=503)  # nobody is there to read it
