"""Where the files of attachments are: each under its id, in a folder of the day it came.

A file is written under a name of its own in `incoming` and gets its place only once it is whole and
synced. What never got there, and what no row of the database names, is left over and removed.
"""

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import BinaryIO, Final
from uuid import UUID

from broker.crashpoints import crashpoint
from broker.folders import make_folder, sync

NAME: Final = "attachments"
_INCOMING: Final = "incoming"
_BATCH: Final = 500


def day_of(identity: str) -> date:
    """Return the day on which a UUIDv7 was given."""
    return datetime.fromtimestamp((UUID(identity).int >> 80) / 1000, UTC).date()


class Draft:
    """A file on its way. Leaving it removes what was not kept."""

    def __init__(self, draft: Path, place: Path) -> None:
        self._draft, self._place = draft, place
        self.file: BinaryIO

    def __enter__(self) -> "Draft":
        descriptor = os.open(self._draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self.file = os.fdopen(descriptor, "w+b")
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self._draft.unlink(missing_ok=True)

    def keep(self) -> None:
        """Give the file its place. Durable on return, with its name."""
        self.file.flush()
        os.fsync(self.file.fileno())
        make_folder(self._place.parent, 0o700)
        crashpoint("attachment.synced")
        self._draft.rename(self._place)
        sync(self._place.parent)
        crashpoint("attachment.named")


class Folder:
    """The folder of attachments; shared by every process that answers callers."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def within(cls, data_dir: Path) -> "Folder":
        """Return the folder of a broker with this data folder."""
        return cls(data_dir / NAME)

    def file(self, identity: str) -> Path:
        """Return where the file of an attachment is."""
        return self.path / day_of(identity).isoformat() / identity

    def draft(self, identity: str) -> Draft:
        """Return a file to write to. Makes the folder for it."""
        incoming = self.path / _INCOMING
        make_folder(incoming, 0o700)
        return Draft(incoming / identity, self.file(identity))

    def has(self, identity: str, size: int) -> bool:
        """Whether there is a file of this size."""
        try:
            return self.file(identity).stat().st_size == size
        except FileNotFoundError:
            return False

    def remove(self, identity: str) -> None:
        """Remove a file, if it is there, and its day's folder with the last one."""
        place = self.file(identity)
        place.unlink(missing_ok=True)
        with suppress(OSError):  # others are in it, or it is gone already
            place.parent.rmdir()

    def remove_leftovers(
        self,
        before: float,
        since: date,
        known: Callable[[Collection[str]], Collection[str]],
    ) -> int:
        """Remove what was last written to `before` (seconds of the epoch) and is nobody's.

        That is every such draft, and of the days `since` each file that `known` does not know.
        Returns how many.
        """
        removed = 0
        for draft in _old(self.path / _INCOMING, before):
            draft.unlink(missing_ok=True)
            removed += 1
        for folder in self._days(since):
            files = {path.name: path for path in _old(folder, before)}
            names = sorted(files)
            for at in range(0, len(names), _BATCH):
                batch = names[at : at + _BATCH]
                for name in sorted(set(batch) - set(known(batch))):
                    files[name].unlink(missing_ok=True)
                    removed += 1
            with suppress(OSError):
                folder.rmdir()
        return removed

    def _days(self, since: date) -> Iterator[Path]:
        first = since.isoformat()
        for folder in sorted(self.path.iterdir()) if self.path.is_dir() else ():
            if folder.name != _INCOMING and folder.name >= first:
                yield folder


def _old(folder: Path, before: float) -> Iterator[Path]:
    """Yield the files of ours that were last written to before a time."""
    with suppress(FileNotFoundError):
        for path in list(folder.iterdir()):
            with suppress(FileNotFoundError, ValueError):
                if str(UUID(path.name)) == path.name and path.stat().st_mtime < before:
                    yield path
