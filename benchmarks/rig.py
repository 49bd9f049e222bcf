"""What the benchmarks stand on: the two servers, the process with the clients, and the result."""

import argparse
import asyncio
import json
import math
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx2

from benchmarks.load import MARK, Door
from broker.settings import PREFIX, Settings
from broker.telemetry import set_up_logging
from sandbox import bars
from sandbox.process import environment, free_port
from sandbox.world import INBOX_PRACTICE, PHARMACY, World, caller

T = TypeVar("T")
RESULTS: Final = Path(__file__).parent / "results"
STARTS_WITHIN: Final = 20.0
DRAINS_WITHIN: Final = 120.0
BARS_SERVICE: Final = "2000099901"
_COMMITS: Final = 50


def options(about: str | None) -> argparse.ArgumentParser:
    """Return the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for NAME.json")
    parser.add_argument("--folder", type=Path, help="where the database is put (a real disk)")
    return parser


# -- the two servers -----------------------------------------------------------------------------


@asynccontextmanager
async def broker(
    folder: Path, more: Mapping[str, str], *, role: str = "all", has_pillars: bool = False
) -> AsyncIterator[World]:
    """Run a broker of its own, one process, as it is in production; no partner is there but us.
    `more` are settings of it."""
    set_up_logging("warning")
    chosen = {"BROKER_ADMIN_PORT": str(free_port()), **more}
    who = {"starts_partners": False, "has_pillars": has_pillars}
    async with World(folder, settings=chosen, roles=(role,), **who) as world:
        yield world


def settings(world: World) -> Settings:
    """Return the settings with which its broker can be opened in this process, once it stopped."""
    given = world.broker.settings.items()
    named = {name.removeprefix(PREFIX).lower(): value for name, value in given}
    return Settings.model_validate(named)


@asynccontextmanager
async def ceiling(wanted_port: int = 0) -> AsyncIterator[tuple[int, int]]:
    """Run the server that promises nothing, on the same stack; yields its port and process id."""
    port = free_port(wanted_port)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "uvicorn", "benchmarks.ceiling:app", "--port", str(port)),
        *("--interface", "asgi3", "--ws", "none", "--lifespan", "off"),
        *("--no-access-log", "--no-server-header", "--no-proxy-headers", "--log-level", "warning"),
        env=environment({"PYTHONPATH": str(Path(__file__).parents[1])}),
    )
    try:
        async with asyncio.timeout(STARTS_WITHIN), httpx2.AsyncClient(trust_env=False) as http:
            while True:
                try:
                    await http.post(f"http://127.0.0.1:{port}/empty", content=b"{}")
                    break
                except httpx2.TransportError:
                    await asyncio.sleep(0.05)
        yield port, process.pid
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def pharmacy_door(world: World, practice: str = INBOX_PRACTICE) -> Door:
    """Return the door of the pharmacy with a token for it, and a consultation that just ended."""
    headers = {"Authorization": f"Bearer {await _token(world, PHARMACY)}"}
    body = world.pharmacy.consultation(reference=MARK.decode(), practice=practice)
    posted = json.dumps(body, ensure_ascii=False).encode()
    return Door(world.port, world.pharmacy.door, headers, posted)


async def bars_door(world: World) -> Door:
    """Return the BaRS door with a token for the practice, and its referral to the pharmacy."""
    message = bars.referral(sender=INBOX_PRACTICE, receiver=PHARMACY, service=BARS_SERVICE)
    token = {"Authorization": f"Bearer {await _token(world, INBOX_PRACTICE)}"}
    headers = {**bars.headers(BARS_SERVICE), **token}
    for each in ("X-Request-Id", "Content-Type"):  # each request has its own
        del headers[each]
    body = json.dumps({**message, "id": MARK.decode()}).encode()
    return Door(world.port, "/FHIR/R4/$process-message", headers, body, accepted=200)


async def inbox_door(world: World) -> Door:
    """Return the inbox of the practice, with a token for it."""
    headers = {"Authorization": f"Bearer {await _token(world, INBOX_PRACTICE)}"}
    return Door(world.port, "/inbox", headers)


async def _token(world: World, ods: str) -> str:
    client = caller(world, ods)
    try:
        return await client.token()
    finally:
        await client.aclose()


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has used so far, in all of its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Return how much memory a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def backlog(world: World) -> int:
    """Return how many events are not fanned out yet."""
    port = world.broker.settings["BROKER_ADMIN_PORT"]
    async with httpx2.AsyncClient(trust_env=False, timeout=30.0) as http:
        said = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    lines = (line.split() for line in said.splitlines())
    return int(
        float(
            next(
                line[1]
                for line in lines
                if line[:1] == ['broker_ledger_unread_events{reader="dispatch"}']
            )
        )
    )


async def drained(world: World) -> float:
    """Wait until everything that was accepted is fanned out; return how long that took."""
    started = time.perf_counter()
    async with asyncio.timeout(DRAINS_WITHIN):
        while await backlog(world):  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.1)
    return time.perf_counter() - started


class Clients:
    """The process with the clients."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    async def run(self, load: Callable[..., T], *arguments: Any) -> T:
        """Run a load there and return what it saw."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, load, *arguments)


@contextmanager
def clients() -> Iterator[Clients]:
    """Start the process with the clients, and end it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield Clients(pool)


# -- the result ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Result:
    """A figure against its aim, and everything that it was made of."""

    name: str
    figure: float
    aim: str
    met: bool
    raw: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name}: {self.figure:g} (aim {self.aim})"

    def tell(self, results: Path, machine: dict[str, Any]) -> None:
        """Write the result down and print its line, which is the last."""
        results.mkdir(parents=True, exist_ok=True)
        document = {
            "name": self.name,
            "figure": self.figure,
            "aim": self.aim,
            "met": self.met,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine,
            "raw": self.raw,
        }
        path = results / f"{self.name}.json"
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(self)


def machine(folder: Path) -> dict[str, Any]:
    """Return what the figures depend on: the machine, its load before, and a commit's time."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "bare_commit_ms": round(_commit(folder), 2),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor()


def _commit(folder: Path) -> float:
    """Return the median time in ms of a commit that survives power loss, with nothing else."""
    took = []
    with tempfile.TemporaryDirectory(dir=folder) as place:
        connection = sqlite3.connect(Path(place) / "bare.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE t (x BLOB)")
        for _ in range(_COMMITS):
            started = time.perf_counter()
            connection.execute("INSERT INTO t VALUES (zeroblob(1000))")
            took.append((time.perf_counter() - started) * 1000)
        connection.close()
    return statistics.median(took)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that this share of all are at most as large as."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the percentiles that are worth knowing, rounded."""
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}
    return {name: round(percentile(values, share), 2) for name, share in shares.items()}
