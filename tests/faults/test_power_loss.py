"""A power cut loses no message that was accepted: on SQLite, at the sync boundaries of intake.

A real process takes messages in under a preloaded shim (power.c) that writes down all that it does
to its files. At each fsync or fdatasync, before and after it, everything that was not synced is
taken away, or about half of it by sectors of 512 bytes; a name whose folder was not synced is taken
away too. A broker starts on what is left: SQLite finds the file whole, the audit chain holds, every
message that the process had answered for is there and opens to the bytes that were posted, and
nothing is there by half.

What this does not show: a disk or controller that says a sync is done which is not; bytes that
decay after they were synced; a file system that harms what is beside an interrupted write; sectors
that are smaller than 512 bytes or are torn themselves; a power cut of PostgreSQL, whose own tests
have that. Delivery, receipts and moves write through the same store, but are not cut here.

CI cuts at every boundary of starting and stopping, at every checkpoint and at some others, chosen
by the commit; `scripts/bench power` at all of the first 200, with more seeds.
"""

import random
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pytest

from tests.faults import cutting
from tests.faults.cutting import Cut, Run
from tests.faults.disk import REBUILT, Disk, File, Folder, read_trace

ROUNDS: Final = 200
INTAKE: Final = 200  # boundaries
SOME: Final = 12
FEW_ROUNDS: Final = 4
KILLED_AFTER: Final = 2  # commits of intake


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled power.c."""
    return cutting.shim_for_tests(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="module")
def chance() -> random.Random:
    """The same for one commit, so that what CI found can be found again."""
    said = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return random.Random(said.stdout.strip())  # noqa: S311


@pytest.fixture(scope="module")
def whole(shim: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run to its end, of which every boundary can be cut."""
    run = cutting.run(shim, tmp_path_factory.mktemp("whole"), ROUNDS)
    assert run.code == 0, run.said
    return run


@pytest.mark.slow
def test_what_was_accepted_is_there_after_a_power_cut_at_any_sync_boundary(
    whole: Run, tmp_path: Path, chance: random.Random
) -> None:
    every_write_is_in_the_trace(whole)
    found = cutting.boundaries(whole.trace)
    assert sum(one.is_of_intake for one in found) >= INTAKE
    commits = [one.number for one in found if one.is_of_intake and one.path.endswith("-wal")]
    wanted = {one.number for one in found} - set(commits) | set(chance.sample(commits, SOME))
    assert wrong(cutting.every_cut(whole.trace, tmp_path, wanted)) == []


@pytest.mark.slow
@pytest.mark.parametrize("killed_at", ["volume", "safe/keys", "volume/data/broker.db-wal"])
def test_a_process_killed_at_a_boundary_leaves_what_the_trace_says_and_its_next_start_is_safe(
    shim: Path, whole: Run, tmp_path: Path, killed_at: str
) -> None:
    found = cutting.boundaries(whole.trace)
    is_commit = killed_at.endswith("-wal")
    cut_at = [
        one.number for one in found if one.path == killed_at and one.is_of_intake == is_commit
    ][KILLED_AFTER if is_commit else 0]
    run = cutting.run(shim, tmp_path, FEW_ROUNDS, cut_at=cut_at)
    assert run.code == -signal.SIGKILL, run.said
    every_write_is_in_the_trace(run)
    assert len(cutting.boundaries(run.trace)) == cut_at - 1
    assert wrong(cutting.every_cut(run.trace, tmp_path, ())) == []
    again = cutting.run(shim, tmp_path, FEW_ROUNDS)
    assert again.code == 0, again.said
    every_write_is_in_the_trace(again)
    since = {one.number for one in cutting.boundaries(again.trace)[cut_at - 1 :]}
    assert wrong(cutting.every_cut(again.trace, tmp_path, since)) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("planted", "rounds"),
    [("synchronous_normal", 80), ("answer_before_commit", 6), ("ring_without_sync", 4)],
)
def test_a_broker_that_would_lose_messages_in_a_power_cut_is_found_out(
    shim: Path, tmp_path: Path, planted: str, rounds: int
) -> None:
    run = cutting.run(shim, tmp_path, rounds, planted)
    assert run.code == 0, run.said
    found = cutting.boundaries(run.trace)
    wanted = {one.number for one in found if one.is_of_intake}
    losing = [cut for cut in cutting.every_cut(run.trace, tmp_path, wanted) if cut.lost]
    assert losing, f"nothing is lost at any of {len(wanted)} boundaries"
    print(planted, *losing, sep="\n")  # noqa: T201 - told where the test is run with -rP


def every_write_is_in_the_trace(run: Run) -> None:
    """Fail if a file is not as the trace has it: then something went past the shim."""
    disk = Disk()
    for note in read_trace(run.trace):
        disk.play(note)
    there = {
        str(path.relative_to(run.folder)): path.read_bytes()
        for path in run.folder.rglob("*")
        if path.is_file() and not path.name.endswith(REBUILT)
    }
    seen = disk.seen()
    assert seen.keys() == there.keys()
    assert [path for path in there if seen[path] != there[path]] == []


def wrong(cuts: Iterable[Cut]) -> list[str]:
    return [str(cut) for cut in cuts if cut.wrong]


# -- the model ---------------------------------------------------------------------------------


def test_what_was_not_synced_is_lost_and_what_was_is_kept() -> None:
    file = File()
    file.write(0, b"kept")
    file.sync()
    file.write(2, b"and lost")
    assert (bytes(file.now), file.survivor(None)) == (b"keand lost", b"kept")
    file.truncate(1)
    assert (bytes(file.now), file.survivor(None)) == (b"k", b"kept")


def test_a_torn_write_leaves_each_sector_and_the_size_as_it_was_or_as_it_was_to_be() -> None:
    file = File()
    file.write(0, b"a" * 1024)
    file.sync()
    file.write(256, b"b" * 1024)
    found = {file.survivor(random.Random(seed)) for seed in range(200)}  # noqa: S311
    first = {b"a" * 512, b"a" * 256 + b"b" * 256}
    second = {b"a" * 512, b"b" * 512}
    third = {b"", b"b" * 256, bytes(256)}
    assert found == {one + two + more for one in first for two in second for more in third}


def test_a_sector_that_was_written_twice_never_has_only_the_second_writing() -> None:
    file = File()
    file.write(0, bytes(512))
    file.sync()
    file.write(0, b"first")
    file.write(8, b"second")
    found = {file.survivor(random.Random(seed))[:14] for seed in range(100)}  # noqa: S311
    assert found == {bytes(14), b"first" + bytes(9), b"first\0\0\0second"}


def test_a_name_is_lost_with_all_that_is_under_it_until_its_folder_is_synced() -> None:
    disk = Disk()
    file, inside = File(), Folder()
    file.write(0, b"text")
    file.sync()
    inside.change({"name": file})
    inside.sync()
    disk.root.change({"inside": inside})
    assert (disk.seen(), disk.survivors()) == ({"inside/name": b"text"}, {})
    disk.root.sync()
    assert disk.survivors() == {"inside/name": b"text"}
    inside.change({"name": None, "other": file})
    assert disk.survivors() == {"inside/name": b"text"}
    chances = [list(disk.survivors(random.Random(seed))) for seed in range(50)]  # noqa: S311
    assert {tuple(names) for names in chances} == {("inside/name",), ("inside/other",)}
