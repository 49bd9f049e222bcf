"""Backups of an embedded broker: a copy made while it serves, and a broker made of a copy.

Beside the copy of the database, in a folder of the same name and `.attachments`, are the files of
all attachments that it names.

Keys are never in a backup: whoever finds one can read no message. What is made of a copy is marked
as restored before anybody can serve from it, so that it sends nothing blindly (`restoring`).
"""

import shutil
from datetime import UTC, datetime
from pathlib import Path

from broker import restoring
from broker.attachments import copying
from broker.attachments.folder import Folder
from broker.audit import Entry
from broker.crashpoints import crashpoint
from broker.errors import Refused
from broker.folders import sync_file
from broker.opening import prove_ring, ring_checks, serving_lock
from broker.settings import Settings
from broker.store import attachments, schema
from broker.store.database import sqlite_url
from broker.store.store import Store

FILE = "broker.db"


def back_up(store: Store, files: Folder, target: Path, actor: str) -> Path:
    """Copy a SQLite database as `schema.back_up` does, to a file or into a folder, and the files of
    its attachments beside it.

    Durable on return. Raises Refused where something is there already, NotWhole where the file of
    an attachment is missing that a message names.
    """
    if target.is_dir():
        target /= f"broker-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db"
    if target.exists():
        raise Refused(f"There is something at {target} already: name another file.")
    schema.back_up(
        store.writer,
        target,
        lambda draft: copying.copy(
            schema.look_into(draft, attachments.every), files, Folder(beside(target))
        ),
    )
    entry = Entry("database.backed-up", actor, "", "database", "", {"file": target.name})
    store.write_now(lambda tx: tx.audit(entry))
    return target


def restore(settings: Settings, backup: Path, actor: str) -> None:
    """Make the database of an empty data folder from a backup, marked as restored.

    Durable on return; before that there is no database at all. Raises Refused where there is one,
    NotADatabase, WrongSchema, RingProblem where the keys are not those that it was sealed with, or
    NotWhole where the file of an attachment is missing that a message names.
    """
    target = settings.data_dir / FILE
    with serving_lock(settings):
        drafts = set(settings.data_dir.glob(f"{FILE}{schema.DRAFT}*"))
        if set(settings.data_dir.glob(f"{FILE}*")) - drafts:
            raise Refused(
                f"There is a database in {settings.data_dir} already; nothing was changed. Move it "
                "away, or set BROKER_DATA_DIR to an empty folder."
            )
        if not backup.is_file():
            raise Refused(f"There is no file {backup}.")
        draft = schema.draft_of(target)
        try:
            shutil.copyfile(backup, draft)
            schema.demand_whole(draft)
            crashpoint("restore.copied")
            _mark(settings, draft, actor)
            copying.copy(
                schema.look_into(draft, attachments.every),
                Folder(beside(backup)),
                Folder.within(settings.data_dir),
            )
            sync_file(draft)
            draft.rename(target)
            crashpoint("restore.named")
            sync_file(target)
        finally:
            schema.remove(draft)


def beside(backup: Path) -> Path:
    """Return where the files of a backup's attachments are."""
    return backup.with_name(f"{backup.name}.attachments")


def _mark(settings: Settings, draft: Path, actor: str) -> None:
    """Bring a copy up to this release, prove that its keys are there, and mark it as restored."""
    store = Store(sqlite_url(draft))
    try:
        schema.migrate(store.writer)
        prove_ring(settings.ring_path, ring_checks(store))
        store.write_now(lambda tx: restoring.begin(tx, actor))
    finally:
        store.close()  # with the last connection SQLite writes all of it into the one file
