"""What other processes commit on the same PostgreSQL: heard of at once, by LISTEN and NOTIFY.

A hint and no more: whatever wakes here is also polled for, so what is missed comes later.
"""

import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

import psycopg
import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from broker.store.tx import EVERY_TOPIC

CHANNEL: Final = "referral_broker"
DEAF_SECONDS: Final = 1.0
_NOTIFY: Final = text("SELECT pg_notify(:channel, :said)")

log = structlog.get_logger()


def tell(connection: Connection, teller: str, topics: set[str]) -> None:
    """Let other processes hear of these topics once this transaction is committed."""
    said = f"{teller}|{','.join(sorted(topics))}"
    connection.execute(_NOTIFY, {"channel": CHANNEL, "said": said})


class Ears:
    """Calls `heard(topics)`, from a thread of its own, for what others commit."""

    def __init__(self, engine: Engine, teller: str, heard: Callable[[set[str]], None]) -> None:
        self._engine = engine
        self._teller = teller
        self._heard = heard
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-ears", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Hear no more, at once; the thread ends within DEAF_SECONDS."""
        self._stopping.set()

    def _run(self) -> None:
        was_deaf = False
        while not self._stopping.is_set():
            try:
                with closing(self._engine.raw_connection()) as connection:
                    self._listen(connection.driver_connection, was_deaf=was_deaf)
            except (psycopg.Error, DBAPIError):
                was_deaf = True
                log.warning("store.deaf")
                self._stopping.wait(DEAF_SECONDS)

    def _listen(self, connection: Any, *, was_deaf: bool) -> None:
        connection.autocommit = True
        connection.execute(f"LISTEN {CHANNEL}")
        if was_deaf:
            self._pass_on(set(EVERY_TOPIC))  # whatever was said meanwhile
        while not self._stopping.is_set():
            for one in connection.notifies(timeout=DEAF_SECONDS):
                teller, _, topics = one.payload.partition("|")
                if teller != self._teller:
                    self._pass_on(set(topics.split(",")))

    def _pass_on(self, topics: set[str]) -> None:
        if not self._stopping.is_set():  # else who listened is gone, and its event loop with it
            self._heard(topics)
