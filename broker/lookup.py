"""Names and addresses as the system knows them: look-ups that hold nobody up, and its own ones."""

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial


class Lookup:
    """Looks names up, one at a time per name, each in a thread that nobody waits for.

    A name server that hangs cannot be interrupted: it holds up one thread per name, not the
    look-ups of others and not the end of the process.
    """

    def __init__(self) -> None:
        self._running: dict[tuple[str, int], asyncio.Future[Sequence[str]]] = {}

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """Return every address of a name, in the system's order. Raises OSError."""
        key = (host, port)
        found = self._running.get(key)
        if found is None:
            loop = asyncio.get_running_loop()
            found = self._running[key] = loop.create_future()
            found.add_done_callback(lambda done: self._forget(key, done))
            threading.Thread(
                target=_look_up, args=(host, port, loop, found), name="outbound-lookup", daemon=True
            ).start()
        # Shielded: an attempt that is out of time must not end it for the others.
        return await asyncio.shield(found)

    def _forget(self, key: tuple[str, int], done: asyncio.Future[Sequence[str]]) -> None:
        del self._running[key]
        if not done.cancelled():
            done.exception()  # seen, even if nobody waits for it any more


def _look_up(
    host: str,
    port: int,
    loop: asyncio.AbstractEventLoop,
    future: asyncio.Future[Sequence[str]],
) -> None:
    tell: Callable[[], None]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        tell = partial(_tell, future, addresses, None)
    except OSError as error:
        tell = partial(_tell, future, (), error)
    with suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(tell)


def _tell(
    future: asyncio.Future[Sequence[str]], addresses: Sequence[str], error: OSError | None
) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(addresses)
    else:
        future.set_exception(error)


def is_own(address: str) -> bool:
    """Whether the address is one of this machine's own: only those can be bound to.

    Where the system lets anything be bound to (ip_nonlocal_bind), this cannot be told: False.
    """
    return _can_bind(address) and not _can_bind("192.0.2.1")


def _can_bind(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
