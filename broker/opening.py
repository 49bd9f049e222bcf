"""Opening what a broker stands on: its folder's lock, its store and its key ring, or refusing."""

import contextlib
import fcntl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import structlog

from broker.crashpoints import crashpoint
from broker.errors import BrokerError
from broker.folders import make_folder, sync
from broker.settings import Settings
from broker.store import ring as ring_store
from broker.store import schema
from broker.store.store import Store
from broker.vault import FileKeyRing, RingProblem

log = structlog.get_logger()


class AlreadyServing(BrokerError):
    """Another process serves from this data folder."""


@contextlib.contextmanager
def serving_lock(settings: Settings) -> Iterator[None]:
    """Hold the data folder for one serving process. Raises AlreadyServing."""
    if not settings.is_embedded:
        yield
        return
    make_folder(settings.data_dir)
    with (settings.data_dir / "serving.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AlreadyServing(
                f"Another broker serves from {settings.data_dir}. Stop it, or give this one "
                "another BROKER_DATA_DIR. For several processes use PostgreSQL."
            ) from None
        yield


@contextlib.contextmanager
def open_store(settings: Settings, *, migrate: bool = False) -> Iterator[Store]:
    """Open the store on a schema that fits; an embedded one that serves is brought up to date."""
    if settings.is_embedded:
        make_folder(settings.data_dir)
    store = Store(settings.store_url)
    try:
        if migrate:
            _migrate_embedded(settings, store)
        schema.check(store.writer)
        yield store
    finally:
        store.close()


def migrate_store(settings: Settings) -> list[str]:
    """Bring the database up to this release, an embedded one after a backup; safe to repeat.

    Returns the revisions that were applied.
    """
    if settings.is_embedded:
        make_folder(settings.data_dir)
    store = Store(settings.store_url)
    try:
        return (
            _migrate_embedded(settings, store)
            if settings.is_embedded
            else schema.migrate(store.writer)
        )
    finally:
        store.close()


def _migrate_embedded(settings: Settings, store: Store) -> list[str]:
    found = schema.current(store.writer)
    if found == schema.revisions()[-1]:
        return []
    if found is not None and not schema.is_empty(store.writer):
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        backup = settings.data_dir / f"before-upgrade-{found}-{stamp}.db"
        schema.back_up(store.writer, backup)
        crashpoint("migrate.backed-up")
        log.info("schema.backed-up", path=str(backup))
    applied = schema.migrate(store.writer)
    log.info("schema.migrated", revisions=applied)
    return applied


def open_ring(settings: Settings, store: Store) -> FileKeyRing:
    """Return the key ring, proved to be the one that the data was sealed with.

    Made only in embedded mode on an empty database; elsewhere it must be given. Raises RingProblem.
    """
    checks = ring_checks(store)
    path: Path = settings.ring_path
    if not path.exists() and settings.is_embedded and not checks:
        ring = FileKeyRing.create(path)
        log.info("ring.created", path=str(path))
    else:
        ring = prove_ring(path, checks)
    held = ring.checks()
    fresh = {key_id: held[key_id] for key_id in held if key_id not in checks}
    if fresh:
        if settings.is_embedded:  # whoever made the ring may have been killed before its name was
            sync(path.parent)
        store.write_now(lambda tx: ring_store.put_checks(tx, fresh))
    return ring


def ring_checks(store: Store) -> dict[str, str]:
    """Return what proves each key that the data was sealed with, by key id."""
    return store.read_now(ring_store.checks)


def prove_ring(path: Path, checks: Mapping[str, str]) -> FileKeyRing:
    """Return the key ring of a file if it holds every key that is checked. Raises RingProblem."""
    ring = FileKeyRing.load(path)
    held = ring.checks()
    for key_id, value in checks.items():
        if key_id not in held or held[key_id][1] != value:
            raise RingProblem(
                f"The key ring at {path} lacks the key {key_id} that the database was sealed "
                "with. Restore the ring that has it; starting without it could lose messages."
            )
    return ring
