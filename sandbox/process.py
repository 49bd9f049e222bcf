"""The broker as a real process of its own: started, waited for, killed, started again."""

import asyncio
import os
import random
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx2

STARTS_WITHIN: Final = 90.0  # several at once, on a machine that is busy
STOPS_WITHIN: Final = 20.0
_LOOK_EVERY: Final = 0.05
_SHOWN: Final = 2_000
_PORTS: Final = range(20_000, 32_768)


class NotServing(Exception):
    """The broker did not come up, or went away by itself. The message ends with its log."""


def free_port(wanted: int = 0) -> int:
    """Return a port of loopback that is free now: the wanted one if it is. None that the system
    lends to outgoing calls: whoever listens there soon would find it taken."""
    others = random.SystemRandom().sample(_PORTS, 100)
    for port in (wanted, *others) if wanted else others:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no port of loopback is free")


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with these settings of the broker and no others."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("BROKER_") and name != "CRASHPOINT"
    }
    return {**kept, **settings}


def command(*arguments: str) -> list[str]:
    """Return how `referral-broker` is started with the Python that runs now, wherever it is."""
    start = "import sys; from broker.cli import main; sys.exit(main())"
    return [sys.executable, "-P", "-c", start, *arguments]


class BrokerProcess:
    """`referral-broker serve` on fixed ports and folders, so that it can be started again.

    `url` is where it says that it is ready: its API's, or where its role has none its metrics'.
    """

    def __init__(
        self, url: str, settings: Mapping[str, str], log: Path, *, role: str = "all"
    ) -> None:
        self.url = url
        self.role = role
        self.settings = dict(settings)
        self.log_path = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process's id while it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process is not None else None

    async def start(self, *, crashpoint: str = "", **settings: str) -> None:
        """Start it; it takes messages on return. Raises NotServing.

        `crashpoint` (broker/crashpoints.py) makes it kill itself there; `settings` are for this
        start only.
        """
        chosen = environment({**self.settings, **settings})
        if crashpoint:
            chosen["CRASHPOINT"] = crashpoint
        with self.log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command("serve", "--role", self.role),
                env=chosen,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        await self._wait_until_ready()

    async def _wait_until_ready(self) -> None:
        loop = asyncio.get_running_loop()
        ends = loop.time() + STARTS_WITHIN
        async with httpx2.AsyncClient(trust_env=False, timeout=5.0) as http:
            while loop.time() < ends:
                if self.pid is None:
                    raise NotServing(f"The broker went away while it started.\n{self._tail()}")
                try:
                    if (await http.get(f"{self.url}/health/ready")).status_code == 200:
                        return
                except httpx2.TransportError:
                    pass
                await asyncio.sleep(_LOOK_EVERY)
        raise NotServing(f"The broker was not ready within {STARTS_WITHIN:g} s.\n{self._tail()}")

    async def kill(self) -> int:
        """Kill it at once, as a power cut would (SIGKILL); return the id that it had."""
        process = self._running()
        process.kill()
        await process.wait()
        return process.pid

    def freeze(self) -> None:
        """Let it stand still (SIGSTOP), in whatever it does."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on where it stood still."""
        self._running().send_signal(signal.SIGCONT)

    @property
    def is_frozen(self) -> bool:
        """Whether it stands still, by the word of the system (Linux)."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(") ")[2][0] == "T"

    async def died(self, seconds: float = 30.0) -> int:
        """Wait until it has gone by itself, at a crash point; return its exit code."""
        return await asyncio.wait_for(self._running().wait(), seconds)

    async def stop(self) -> int | None:
        """Ask it to end (SIGTERM); return its exit code. One that hangs is killed: then -9."""
        process = self._process
        if process is None:
            return None
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), STOPS_WITHIN)
            except TimeoutError:
                process.kill()
                await process.wait()
        return process.returncode

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise NotServing("The broker was never started.")
        return self._process

    def _tail(self) -> str:
        return self.log_path.read_text(errors="replace")[-_SHOWN:]
