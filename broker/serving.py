"""Serving: the API and /metrics in one process and one loop, until a signal says stop.

After SIGTERM or SIGINT the process ends with 0 within 15 seconds, whatever hangs: requests get
HTTP_SECONDS, attempts at deliveries `main.DRAIN_SECONDS`, and LAST_SECONDS after the signal nobody
is waited for any more. That loses nothing: what was answered is durable, what was under way is
tried again.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog
import uvicorn
from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from broker import telemetry
from broker.api.app import create_app
from broker.dispatch import GROUP
from broker.errors import BrokerError, Unavailable
from broker.events import Priority
from broker.main import serving_lock
from broker.settings import PREFIX, Settings
from broker.store import gauges
from broker.store.gauges import Gauges
from broker.store.store import Store

HTTP_SECONDS: Final = 4
LAST_SECONDS: Final = 13.0
WAITING_STATES: Final = ("due", "held", "dead")

log = structlog.get_logger()


class PortTaken(BrokerError):
    """The address cannot be listened on. The message says how to mend it."""


def run(settings: Settings, tell: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; over within 15 seconds of it, whatever hangs.

    `tell` gets one sentence with the real addresses once calls are answered. Raises a BrokerError
    where it cannot start; then nothing was begun.
    """
    _take_over_logs()
    with serving_lock(settings):
        pass  # asked first: a broker that serves already says more than its port being taken
    api = _bind(settings.host, settings.port, "PORT")
    admin = None
    try:
        if settings.admin_port or settings.port == 0:
            admin = _admin_socket(settings)
        real = settings.model_copy(update={"port": _port(api), "admin_port": _port(admin)})
        asyncio.run(_Serving(real, api, admin, tell).run())
    finally:
        for one in (api, admin):
            if one is not None:
                one.close()
        _nobody_waits.cancel()


def _admin_socket(settings: Settings) -> socket.socket | None:
    if not settings.admin_port:
        return None
    return _bind(settings.host, settings.admin_port, "ADMIN_PORT")
