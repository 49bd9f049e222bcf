"""A disk as it is after a power cut: what was synced is there, what was not may be lost or torn.

Plays the trace of tests/faults/power.c. The strictest reading of POSIX: a file's bytes and size
survive only where it was synced since, its name only where its folder was. Kept by halves, every
sector of 512 bytes stands at some moment of its own since the last sync, and of the changes to a
folder's names the first few are kept.
"""

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SECTOR: Final = 512
# SQLite's index of the log is shared memory in a file: after a power cut it is made anew.
REBUILT: Final = "-shm"
_HEAD: Final = struct.Struct("<cQQI")


@dataclass(frozen=True, slots=True)
class Note:
    """One thing that was done: `what` as in power.c."""

    what: str
    inode: int = 0
    at: int = 0
    data: bytes = field(default=b"", repr=False)

    @property
    def is_sync(self) -> bool:
        return self.what in {"s", "f"}

    @property
    def paths(self) -> list[str]:
        return self.data.decode().split("\0")


def read_trace(path: Path) -> Iterator[Note]:
    """Yield what was done, in its order."""
    with path.open("rb") as trace:
        while head := trace.read(_HEAD.size):
            what, inode, at, size = _HEAD.unpack(head)
            yield Note(what.decode(), inode, at, trace.read(size))


@dataclass(slots=True)
class File:
    """The bytes as the process sees them, as they were last synced, and what was done since."""

    now: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    unsynced: list[tuple[int, bytes, int]] = field(default_factory=list)  # offset, bytes, size then

    def write(self, at: int, data: bytes) -> None:
        if at > len(self.now):
            self.now.extend(bytes(at - len(self.now)))
        self.now[at : at + len(data)] = data
        self.unsynced.append((at, data, len(self.now)))

    def truncate(self, size: int) -> None:
        cut = len(self.now) - size
        if cut > 0:
            del self.now[size:]
        else:
            self.now.extend(bytes(-cut))
        self.unsynced.append((size, bytes(max(cut, 0)), size))

    def sync(self) -> None:
        if self.unsynced:
            self.synced = bytes(self.now)
            self.unsynced.clear()

    def survivor(self, chance: random.Random | None) -> bytes:
        """Return what is there after a power cut; without `chance` all that is unsynced is lost."""
        if chance is None or not self.unsynced:
            return self.synced
        size = chance.choice([len(self.synced), *(size for *_, size in self.unsynced)])
        found = bytearray(self.synced)
        found.extend(
            bytes(max(0, max(at + len(data) for at, data, _ in self.unsynced) - len(found)))
        )
        pieces: dict[int, list[tuple[int, bytes]]] = {}
        for at, data, _ in self.unsynced:
            done = 0
            while done < len(data):
                sector = (at + done) // SECTOR
                piece = data[done : (sector + 1) * SECTOR - at]
                pieces.setdefault(sector, []).append((at + done, piece))
                done += len(piece)
        for versions in pieces.values():
            for at, piece in versions[: chance.randint(0, len(versions))]:
                found[at : at + len(piece)] = piece
        return bytes(found[:size]) + bytes(max(0, size - len(found)))


@dataclass(slots=True)
class Folder:
    """The names as the process sees them, as they were last synced, and what was done since."""

    now: dict[str, "File | Folder"] = field(default_factory=dict)
    synced: dict[str, "File | Folder"] = field(default_factory=dict)
    unsynced: list[dict[str, "File | Folder | None"]] = field(default_factory=list)

    def change(self, names: "dict[str, File | Folder | None]") -> None:
        """Give and take names, all of these or none of them."""
        _rename(self.now, names)
        self.unsynced.append(names)

    def sync(self) -> None:
        self.synced = dict(self.now)
        self.unsynced.clear()

    def survivors(self, chance: random.Random | None) -> "dict[str, File | Folder]":
        found = dict(self.synced)
        if chance is not None:
            for names in self.unsynced[: chance.randint(0, len(self.unsynced))]:
                _rename(found, names)
        return found


def _rename(folder: dict[str, File | Folder], names: dict[str, File | Folder | None]) -> None:
    for name, node in names.items():
        if node is None:
            del folder[name]
        else:
            folder[name] = node


class Disk:
    """One folder of a disk."""

    def __init__(self) -> None:
        self.root = Folder()
        self._files: dict[int, File] = {}

    def play(self, note: Note) -> None:
        """Do what was done."""
        match note.what:
            case "c":
                self._files[note.inode] = made = File()  # the inode's number may be used again
                self._change(*note.paths, node=made)
            case "d":
                self._change(*note.paths, node=Folder())
            case "u":
                self._change(*note.paths, node=None)
            case "l":
                there, name = note.paths
                self._change(name, node=self._find(there))
            case "r":
                self._move(*note.paths)
            case "w":
                self._files[note.inode].write(note.at, note.data)
            case "t":
                self._files[note.inode].truncate(note.at)
            case "s":
                self._files[note.inode].sync()
            case "f":
                self._folder(note.paths[0]).sync()

    def seen(self) -> dict[str, bytes]:
        """Return every file as the process sees it: what a kill leaves behind."""
        return {path: bytes(file.now) for path, file in _files(self.root.now, lambda f: f.now)}

    def survivors(self, chance: random.Random | None = None) -> dict[str, bytes]:
        """Return every file that is there after a power cut now.

        Without `chance` all that is unsynced is lost, with it about half.
        """
        names = self.root.survivors(chance)
        found = _files(names, lambda folder: folder.survivors(chance))
        return {path: file.survivor(chance) for path, file in found}

    def _change(self, path: str, *, node: File | Folder | None) -> None:
        folder, _, name = path.rpartition("/")
        self._folder(folder).change({name: node})

    def _move(self, old: str, new: str) -> None:
        folder, _, name = old.rpartition("/")
        to, _, becomes = new.rpartition("/")
        if to != folder:
            raise NotImplementedError(f"{old} was moved to another folder, {new}")
        self._folder(folder).change({name: None, becomes: self._find(old)})

    def _folder(self, path: str) -> Folder:
        found = self._find(path)
        assert isinstance(found, Folder), path
        return found

    def _find(self, path: str) -> File | Folder:
        found: File | Folder = self.root
        for name in filter(None, path.split("/")):
            assert isinstance(found, Folder), path
            found = found.now[name]
        return found


def _files(
    names: dict[str, File | Folder], inside: Callable[[Folder], dict[str, File | Folder]]
) -> Iterator[tuple[str, File]]:
    for name, node in names.items():
        if isinstance(node, Folder):
            for path, file in _files(inside(node), inside):
                yield f"{name}/{path}", file
        elif not name.endswith(REBUILT):
            yield name, node
