"""Folders and names that a power cut does not take away, and with them all that is inside."""

import os
from contextlib import suppress
from pathlib import Path


def make_folder(path: Path, mode: int = 0o777) -> None:
    """Make a folder and those above it that are missing. Durable on return; safe to repeat.

    The parent is synced where the folder is there already too: whoever made it may have been killed
    before that.
    """
    if not path.parent.exists():
        make_folder(path.parent)
    path.mkdir(mode=mode, exist_ok=True)
    with suppress(PermissionError):  # we cannot have made anything in a folder that is not ours
        sync(path.parent)


def sync_file(path: Path) -> None:
    """Have a file and its name survive a loss of power."""
    for one in (path, path.parent):
        sync(one)


def sync(path: Path) -> None:
    """Make a file's content durable, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
