"""The files of attachments as a backup has them: all that the copied database names, or none."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from broker.attachments.folder import Folder
from broker.attachments.sealing import sealed_size
from broker.crashpoints import crashpoint
from broker.errors import BrokerError
from broker.folders import make_folder, sync


class NotWhole(BrokerError):
    """Files are missing that a database names. The message says where."""


def copy(rows: Sequence[Any], source: Folder, target: Folder) -> None:
    """Copy the files of these attachments. Durable on return; safe to repeat.

    An upload that no message names may have lapsed meanwhile and is left out. Raises NotWhole where
    any other is missing.
    """
    held = {row.id for row in rows if source.has(row.id, sealed_size(row.size))}
    missing = [row.id for row in rows if row.id not in held and row.claimed_at is not None]
    if missing:
        raise NotWhole(
            f"{len(missing)} attachments of messages are not in {source.path}, the first of them "
            f"{missing[0]}. Nothing was made; put the folder there that belongs to this database."
        )
    folders = set()
    for identity in sorted(held):
        place = target.file(identity)
        make_folder(place.parent, 0o700)
        _copy_file(source.file(identity), place)
        folders.add(place.parent)
    for folder in folders:
        sync(folder)
    crashpoint("attachments.copied")


def _copy_file(source: Path, target: Path) -> None:
    """Copy a file that never changes; it stands under its name only once it is whole."""
    draft = target.with_name(f"{target.name}.part")
    with source.open("rb") as read, draft.open("wb") as written:
        os.fchmod(written.fileno(), 0o600)
        shutil.copyfileobj(read, written, 1024 * 1024)
        written.flush()
        os.fsync(written.fileno())
    draft.rename(target)
