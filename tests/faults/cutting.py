"""Cuts the power of a process at its sync boundaries, and says what its broker then holds.

A boundary is one fsync or fdatasync; they count from 1. One run under the shim of power.c serves
every boundary: its trace is played on the model of disk.py, which tells the files that survive.
"""

import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from sqlalchemy import Connection, select, text

from broker import composition
from broker.errors import BrokerError
from broker.opening import open_ring, open_store
from broker.store import messages, trail
from broker.store import tables as t
from broker.vault import Vault
from sandbox.process import environment
from tests.databases import REQUIRED
from tests.faults.disk import Disk, read_trace
from tests.faults.taking import settings_of

ROOT: Final = Path(__file__).parents[2]
LEDGER: Final = "ledger"  # of taking.py: on a disk that keeps all that it is given
SECONDS: Final = 120.0
# Where a look at the survivors costs no real sync.
MEMORY: Final = Path("/dev/shm")  # noqa: S108


class NoCompiler(Exception):
    """The shim cannot be built here."""


def build_shim(folder: Path, name: str = "power") -> Path:
    """Compile power.c, or another. Raises NoCompiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        raise NoCompiler(f"{name}.c takes Linux and a C compiler, cc or gcc")
    shim = folder / f"{name}.so"
    source = Path(__file__).with_name(f"{name}.c")
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", shim, source, "-ldl", "-lpthread"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise NoCompiler(f"{compiler} cannot compile {source.name}: {built.stderr.strip()}")
    return shim


def shim_for_tests(folder: Path, name: str = "power") -> Path:
    """Compile power.c, or another; where that cannot be, skip saying so, or fail if required."""
    try:
        return build_shim(folder, name)
    except NoCompiler as error:
        if REQUIRED:
            raise
        pytest.skip(f"There was no shim: {error}")


@dataclass(frozen=True, slots=True)
class Run:
    """A run of taking.py under the shim: its folder as it was left, its trace, how it ended."""

    folder: Path
    trace: Path
    code: int
    said: str


def run(shim: Path, home: Path, rounds: int, planted: str = "", *, cut_at: int = 0) -> Run:
    """Let a process take messages in; killed where it begins the sync `cut_at`, if that is given.

    In the same home again, it starts on what the one before left, and its trace goes on.
    """
    folder, trace = (home / "disk").resolve(), home / "trace"
    folder.mkdir(parents=True, exist_ok=True)
    watched = {"POWER_FOLDER": str(folder), "POWER_TRACE": str(trace), "LD_PRELOAD": str(shim)}
    ended = subprocess.run(
        [sys.executable, "-m", "tests.faults.taking", folder, str(rounds), planted],
        cwd=ROOT,
        env=environment({**watched, "POWER_CUT_AT": str(cut_at)}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return Run(folder, trace, ended.returncode, ended.stdout)


@dataclass(frozen=True, slots=True)
class Boundary:
    """A sync: its number from 1, the path that it was of, and whether anything was posted yet."""

    number: int
    path: str
    is_of_intake: bool


def boundaries(trace: Path) -> list[Boundary]:
    """Return every boundary of a run."""
    found: list[Boundary] = []
    disk = Disk()
    has_begun = False
    for note in read_trace(trace):
        disk.play(note)
        if note.is_sync:
            has_begun = has_begun or bool(_ledger(disk)[1])
            found.append(Boundary(len(found) + 1, note.paths[0], has_begun))
    return found


@dataclass(frozen=True, slots=True)
class Cut:
    """A power cut just before or just after a boundary, and what was wrong afterwards.

    `way` says what became of what was not synced: lost, or torn. `accepted` messages had been
    answered for by then, `lost` of them are not there whole.
    """

    boundary: int
    path: str
    moment: str
    way: str
    accepted: int
    lost: int
    wrong: tuple[str, ...]

    def __str__(self) -> str:
        place = f"{self.moment} boundary {self.boundary} ({self.path or '.'}), {self.way}"
        return f"{place}: {'; '.join(self.wrong) or 'nothing wrong'}"


def every_cut(
    trace: Path, place: Path, wanted: Collection[int], *, seeds: Sequence[int] = (0,)
) -> Iterator[Cut]:
    """Yield the cuts before and after each wanted boundary, and those when all was done: all that
    was not synced lost, and torn by each seed. `place` is for what survives."""
    disk = Disk()
    cuts = Cuts(disk, place)
    number = 0

    def ways(path: str, moment: str) -> Iterator[Cut]:
        yield cuts.judge(number, path, moment, "lost", None)
        for seed in seeds:
            chance = random.Random(f"{seed} {moment} {number}")  # noqa: S311
            yield cuts.judge(number, path, moment, f"torn by {seed}", chance)

    for note in read_trace(trace):
        number += note.is_sync
        is_wanted = note.is_sync and number in wanted
        if is_wanted:
            yield from ways(note.paths[0], "before")
        disk.play(note)
        if is_wanted:
            yield from ways(note.paths[0], "after")
    yield from ways("", "long after")


class Cuts:
    """The power cuts of one disk, each judged by what a broker holds that starts on the rest."""

    def __init__(self, disk: Disk, place: Path) -> None:
        self.disk = disk
        self._place = place
        self._held: dict[str, Held] = {}  # by digest of the files: many cuts leave the same

    def judge(
        self, number: int, path: str, moment: str, way: str, chance: random.Random | None
    ) -> Cut:
        """Say what is lost, half or not to be read where the power is cut now."""
        files = self.disk.survivors(chance)
        files.pop(LEDGER, None)
        held = self._survey(files)
        accepted, posting = _ledger(self.disk)
        lost = {one for one, digest in accepted.items() if held.posted.get(one) != digest}
        wrong = list(held.wrong)
        if lost:
            wrong.append(f"{len(lost)} of {len(accepted)} accepted messages are lost")
        if strange := set(held.posted.values()) - posting:
            wrong.append(f"{len(strange)} messages hold what nobody had posted")
        return Cut(number, path, moment, way, len(accepted), len(lost), tuple(wrong))

    def _survey(self, files: dict[str, bytes]) -> "Held":
        seen = hashlib.sha256()
        for path, content in sorted(files.items()):
            seen.update(f"{path} {len(content)}\n".encode())
            seen.update(content)
        name = seen.hexdigest()
        if name not in self._held:
            self._held[name] = survey(files, self._place)
        return self._held[name]


@dataclass(slots=True)
class Held:
    """What a broker holds: the digest of what was posted, by message, and all that is wrong."""

    posted: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


def _ledger(disk: Disk) -> tuple[dict[str, str], set[str]]:
    """Return what was accepted, by message, and the digests of all that was posted."""
    entries = [json.loads(line) for line in disk.seen().get(LEDGER, b"").splitlines()]
    accepted = {entry["accepted"]: entry["digest"] for entry in entries if "accepted" in entry}
    return accepted, {entry["posting"] for entry in entries if "posting" in entry}


def survey(files: dict[str, bytes], place: Path) -> Held:
    """Start on these files as the broker does, and read every message."""
    held = Held()
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else place) as home:
        for path, content in files.items():
            target = Path(home, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch(mode=0o600)
            target.write_bytes(content)
        settings = settings_of(Path(home))
        try:
            with open_store(settings, migrate=True) as store:
                vault = Vault(open_ring(settings, store))
                store.read_now(lambda connection: _read(connection, vault, held))
        except BrokerError as error:
            held.wrong.append(f"it does not start: {error}".replace(home, ""))
    return held


def _read(connection: Connection, vault: Vault, held: Held) -> None:
    """Read every message, and check all that can be checked."""
    wrong = held.wrong
    if (said := connection.execute(text("PRAGMA integrity_check")).scalar_one()) != "ok":
        wrong.append(f"integrity_check: {said}")
    if connection.execute(text("PRAGMA foreign_key_check")).first() is not None:
        wrong.append("foreign_key_check finds rows")
    verdict = trail.verify_audit(connection)
    if verdict.broken_at is not None:
        wrong.append(f"the audit chain is broken at {verdict.broken_at}: {verdict.why}")
    found = connection.execute(select(t.message.c.id, t.message.c.event_id)).all()
    ids, carriers = [row.id for row in found], [row.event_id for row in found]
    events = connection.execute(select(t.event).order_by(t.event.c.position)).all()
    head = connection.execute(select(t.ledger_head.c.position)).scalar_one()
    if [row.position for row in events] != list(range(1, head + 1)):
        wrong.append("the ledger has gaps, or does not end at its head")
    a = t.audit.c
    audited = connection.execute(select(a.object_id).where(a.action == "message.accepted"))
    if not set(ids) == {row.message_id for row in events} == set(audited.scalars()):
        wrong.append("messages, events and audit entries do not match")
    bodies = messages.payloads(connection, vault, ids, composition.POSTED)
    contents = messages.payloads(connection, vault, carriers, composition.CONTENT)
    if bodies.keys() != set(ids) or contents.keys() != set(carriers):
        wrong.append("messages without their payload")
    for one in [*bodies.values(), *contents.values()]:
        if hashlib.sha256(one.body).hexdigest() != one.digest:
            wrong.append("a payload is not what it was")
    held.posted = {one: opened.digest for one, opened in bodies.items()}
