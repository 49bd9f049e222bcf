"""Serving: the API and /metrics in one process and one loop, until a signal says stop.

After SIGTERM or SIGINT the process ends with 0 within 15 seconds, whatever hangs: requests get
HTTP_SECONDS, attempts at deliveries `main.DRAIN_SECONDS`, and LAST_SECONDS after the signal nobody
is waited for any more. That loses nothing: what was answered is durable, and what was under way is
tried again.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, Final

import structlog
import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, Gauge
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from broker import telemetry
from broker.api.app import create_app
from broker.errors import BrokerError, Unavailable
from broker.events import Priority
from broker.opening import serving_lock
from broker.parts import Part
from broker.readiness import readers, readiness
from broker.settings import PREFIX, Settings
from broker.store import gauges
from broker.store.store import Store
from broker.telemetry import what_and_where

HTTP_SECONDS: Final = 4
LAST_SECONDS: Final = 13.0
SPARING_SECONDS: Final = 10.0
SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger()


class PortTaken(BrokerError):
    """The address cannot be listened on. The message says how to mend it."""


class NoPublicUrl(BrokerError):
    """The broker could not tell its partners where it is reached. The message mends it."""


def run(settings: Settings, parts: Collection[Part], tell: Callable[[str], None]) -> None:
    """Do what these parts do until SIGTERM or SIGINT; over within 15 seconds of it, whatever hangs.

    `tell` gets one sentence with the real addresses once calls are answered. Raises a BrokerError
    where it cannot start; then nothing was taken or sent.
    """
    _take_over_logs()
    with serving_lock(settings):
        pass  # asked first: that a broker serves already says more than that its port is taken
    with contextlib.ExitStack() as stack:
        api, admin = None, None
        if Part.API in parts:
            api = stack.enter_context(_bound(settings.host, settings.port, "PORT"))
            _check_told(settings, api)
            settings = settings.model_copy(update={"port": api.getsockname()[1]})
        elif Part.WORKER in parts and not settings.public_url:
            raise NoPublicUrl(
                f"A worker tells receivers where they give receipts, which is not where it runs: "
                f"set {PREFIX}PUBLIC_URL as the API's processes have it."
            )
        if settings.admin_port:
            admin = stack.enter_context(_bound(settings.host, settings.admin_port, "ADMIN_PORT"))
        last = stack.enter_context(_patience(LAST_SECONDS))
        try:
            asyncio.run(_serve(settings, parts, api, admin, tell, last))
        except BaseExceptionGroup as group:
            raise _first(group) from group


def _check_told(settings: Settings, api: socket.socket) -> None:
    if not settings.public_url and ip_address(api.getsockname()[0]).is_unspecified:
        raise NoPublicUrl(
            f"{PREFIX}HOST is every address of this machine and {PREFIX}PUBLIC_URL is empty: "
            f"set {PREFIX}PUBLIC_URL to the URL that partners call (https://…), for they sign "
            "in for it and give receipts at it."
        )


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what ended the process, of all that ended with it."""
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


async def _serve(
    settings: Settings,
    parts: Collection[Part],
    api: socket.socket | None,
    admin: socket.socket | None,
    tell: Callable[[str], None],
    last: threading.Timer,
) -> None:
    stop = asyncio.Event()
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    app = create_app(settings, parts)  # it opens the broker, also where nobody calls it
    async with app.router.lifespan_context(app):
        servers = []
        if api is not None:
            servers.append(_Server(app, api))
        if admin is not None:
            servers.append(_Server(Admin(settings, app.state.broker.store), admin))
        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(server.serve(sockets=[server.socket]))
            for server in servers:
                await server.listening.wait()
            # What is loaded by now stays for good: no later collection looks at it, for 0.1 s.
            gc.collect()
            gc.freeze()
            _announce(parts, api, admin, tell)
            await stop.wait()
            log.info("stopping")
            last.start()
            for server in servers:
                server.should_exit = True
    log.info("stopped")


def _announce(
    parts: Collection[Part],
    api: socket.socket | None,
    admin: socket.socket | None,
    tell: Callable[[str], None],
) -> None:
    said = f"The broker's {' and '.join(sorted(parts))} runs"
    if api is not None:
        said = f"The broker serves on {_url(api)}"
        log.info("serving", address=_url(api))
    if admin is not None:
        metrics = f"{_url(admin)}/metrics"
        said = f"{said}, metrics on {metrics}"
        log.info("serving.metrics", address=metrics)
    tell(f"{said}. Stop it with Ctrl-C or SIGTERM.")


class _Server(uvicorn.Server):
    """One listening socket. Signals are the process's affair, not any one server's."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",  # it holds both servers, so it is entered once, around them
                interface="asgi3",
                ws="none",
                access_log=False,  # a query may name a patient; broker.api.edge logs without it
                server_header=False,
                proxy_headers=False,
                log_config=None,
                timeout_graceful_shutdown=HTTP_SECONDS,
            )
        )
        self.socket = listener
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Admin:
    """Answers GET /metrics, its gauges as the database stands at that moment, and /health/live and
    /health/ready, in every process; 404 to all else."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        answer = await self._answer(scope["method"], scope["path"])
        await answer(scope, receive, send)

    async def _answer(self, method: str, path: str) -> Response:
        match method, path:
            case "GET", "/metrics":
                return await self._metrics()
            case "GET", "/health/live":
                return PlainTextResponse("live")
            case "GET", "/health/ready":
                found = await readiness(self._settings, self._store)
                return PlainTextResponse(found, found.status)
            case _:
                return PlainTextResponse("not found", 404)

    async def _metrics(self) -> Response:
        now, groups = datetime.now(UTC), readers(self._settings)
        try:
            found = await self._store.read(lambda connection: gauges.read(connection, now, groups))
        except Unavailable:
            return PlainTextResponse("unavailable", 503)
        _set(telemetry.QUEUE_AGE, dict.fromkeys(Priority, 0.0) | dict(found.queue_age))
        _set(telemetry.DELIVERIES, dict.fromkeys(gauges.UNFINISHED, 0) | dict(found.deliveries))
        _set(telemetry.OVERDUE, found.overdue)
        _set_late(found.late)
        _set(telemetry.PAUSED, dict.fromkeys(Priority, 0.0) | dict(found.paused))
        _set(telemetry.UNREAD, {name: one.events for name, one in found.behind.items()})
        _set(telemetry.UNREAD_SECONDS, {name: one.seconds for name, one in found.behind.items()})
        return Response(telemetry.metrics(), headers={"content-type": CONTENT_TYPE_LATEST})


def _set(gauge: Gauge, values: Mapping[str, float]) -> None:
    """Show these values and no others: what there is none of any more must not linger."""
    gauge.clear()
    for label, value in values.items():
        gauge.labels(label).set(value)


def _set_late(found: Mapping[tuple[str, str, str], int]) -> None:
    """Show what is overdue by pillar: its doors begin with its name."""
    late: Counter[tuple[str, str, str]] = Counter()
    for (door, pathway, clock), count in found.items():
        late[door.partition(".")[0], pathway, clock] += count
    telemetry.LATE.clear()
    for labels, count in late.items():
        telemetry.LATE.labels(*labels).set(count)


# -- the process ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _bound(host: str, port: int, setting: str) -> Iterator[socket.socket]:
    """Hold an address: who connects waits until he is served. Raises PortTaken."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _no_port(host, port, setting, error) from None
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            # Another socket may be bound with SO_REUSEADDR too: only listening shows the conflict.
            listener.listen()
        except OSError as error:
            raise _no_port(host, port, setting, error) from None
        yield listener


def _no_port(host: str, port: int, setting: str, error: OSError) -> PortTaken:
    return PortTaken(
        f"{host}:{port} cannot be listened on: {error.strerror}. Stop what uses it, or set "
        f"{PREFIX}{setting} (or {PREFIX}HOST) to another."
    )


def _url(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextlib.contextmanager
def _patience(seconds: float) -> Iterator[threading.Timer]:
    """Give a timer that, once started, ends the process when it runs out."""
    timer = threading.Timer(seconds, _end)
    timer.daemon = True
    try:
        yield timer
    finally:
        timer.cancel()


def _end() -> None:
    log.error("stopped.unfinished")
    os._exit(0)


class _Plain(logging.Handler):
    """Hands what libraries log to our own log: what kind of thing went wrong and where in the
    code, but no text that was put together from values, for these may be a patient's.

    Of each place in a library's code one line in SPARING_SECONDS: while Kafka is away, its client
    says so a hundred times a second.
    """

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._last: dict[tuple[str, int], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        place = record.name, record.lineno
        if record.created - self._last.get(place, 0.0) < SPARING_SECONDS:
            return
        self._last[place] = record.created
        said: dict[str, Any] = {}
        if record.name.startswith("uvicorn"):
            said["cause"] = str(record.msg).strip()[:200]  # the template, not what was filled in
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            said |= what_and_where(error)
        log.log(record.levelno, f"library.{record.name}", **said)


def _take_over_logs() -> None:
    root = logging.getLogger()
    root.handlers = [_Plain(logging.WARNING)]
    root.setLevel(logging.WARNING)
