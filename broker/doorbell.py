"""The doorbell: lets a command that wrote to the database wake the broker that serves from it."""

import asyncio
import contextlib
import hashlib
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path


def _address(data_dir: Path) -> Path:
    """Return a socket's path short enough for every system, the same for the same folder."""
    name = hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:24]
    return Path(tempfile.gettempdir()) / f"referral-broker-{name}.bell"


def ring(data_dir: Path) -> bool:
    """Wake the broker that serves from this folder; False where none does. A hint, never needed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bell:
        try:
            bell.sendto(b"!", str(_address(data_dir)))
        except OSError:
            return False
    return True


class Doorbell:
    """Listens for rings while the broker serves."""

    def __init__(self, data_dir: Path, answer: Callable[[], None]) -> None:
        self._path = _address(data_dir)
        self._answer = answer
        self._socket: socket.socket | None = None

    def hang(self) -> None:
        """Start listening, on the running loop."""
        self._path.unlink(missing_ok=True)
        bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        bell.setblocking(False)
        bell.bind(str(self._path))
        self._path.chmod(0o600)
        self._socket = bell
        asyncio.get_running_loop().add_reader(bell, self._rung)

    def _rung(self) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(16)
        self._answer()

    def take_down(self) -> None:
        """Stop listening."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
            self._path.unlink(missing_ok=True)
