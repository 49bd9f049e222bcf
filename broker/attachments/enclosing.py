"""What a message encloses: taken only if all that it names is there, is the sender's, and matches.

Judged twice by the same rules: before translation, which tells the receiver of each what the broker
itself knows of it, and again in the accepting transaction, which claims them for the message.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from broker.access import Scope
from broker.attachments.folder import Folder
from broker.attachments.sealing import sealed_size
from broker.directory import BARS, Directory
from broker.errors import Problem, Refused
from broker.events import Destination, Role, Route
from broker.ports import Attached, Enclosed
from broker.store import attachments, clients
from broker.store.attachments import ContentKey
from broker.store.store import Store
from broker.store.tx import Connection, Tx
from broker.vault import Vault

FIELD: Final = "attachments"
_AGAIN: Final = "Upload it again, under a new Idempotency-Key, and name what that answers."


@dataclass(frozen=True, slots=True)
class Enclosures:
    """What a body encloses, by id: the key of each, and what may be told of it."""

    keys: Mapping[str, ContentKey] = field(default_factory=dict, repr=False)
    attached: Mapping[str, Attached] = field(default_factory=dict)


NONE_ENCLOSED: Final = Enclosures()


class Enclosing:
    """Judges what bodies enclose, and claims it for their messages."""

    def __init__(self, store: Store, vault: Vault, folder: Folder, base_url: str) -> None:
        self._store, self._vault = store, vault
        self._folder, self._base_url = folder, base_url

    async def look_up(
        self,
        named: Sequence[Enclosed],
        routes: Iterable[Route],
        owners: Collection[str],
        directory: Directory,
        now: datetime,
    ) -> Enclosures:
        """Return what a body encloses. Raises Refused, in the body's own words.

        `owners` are the organisations whose uploads may be named, `routes` where the body goes.
        """
        if not named:
            return NONE_ENCLOSED

        def read(c: Connection) -> tuple[dict[str, Any], dict[str, ContentKey | None]]:
            rows = attachments.found(c, {one.id for one in named})
            return rows, {one: attachments.content_key(c, self._vault, one) for one in rows}

        rows, keys = await self._store.read(read)
        problems = list(_problems(named, rows, owners, now))
        if not problems:
            problems = await asyncio.to_thread(lambda: list(self._lost(named, rows, keys)))
        for route in routes:
            if route.role is Role.ACTING:
                problems += await cannot_fetch(
                    self._store, route.destination, FIELD, directory, now
                )
        if problems:
            raise Refused.all_of(problems)
        return Enclosures(
            {name: key for name, key in keys.items() if key is not None},
            {
                name: Attached(name, row.digest, row.content_type, row.size, self.url(name))
                for name, row in rows.items()
            },
        )

    def url(self, attachment: str) -> str:
        """Return where an attachment is fetched."""
        return f"{self._base_url}/attachments/{attachment}"

    def _lost(
        self,
        named: Sequence[Enclosed],
        rows: Mapping[str, Any],
        keys: Mapping[str, ContentKey | None],
    ) -> Iterator[Problem]:
        """Yield what is in the database and cannot be had any more."""
        for one in named:
            there = self._folder.has(one.id, sealed_size(rows[one.id].size))
            if not there or keys[one.id] is None:
                said = "Its content is not here any more."
                yield Problem(f"{one.field}.id", "not-there", said, _AGAIN)


def claim(tx: Tx, named: Sequence[Enclosed], owners: Collection[str]) -> None:
    """Claim what a body encloses for its messages, in the transaction that accepts them.

    Raises Refused where one of them has gone or lapsed since it was looked up.
    """
    if not named:
        return
    ids = {one.id for one in named}
    problems = list(_problems(named, attachments.claim(tx, ids), owners, tx.now))
    if problems:
        raise Refused.all_of(problems)
    attachments.set_claimed(tx, ids)


async def cannot_fetch(
    store: Store, place: Destination, where: str, directory: Directory, now: datetime
) -> list[Problem]:
    """Return why a place cannot be sent attachments: one that BaRS leads to gets links, and needs
    a client here that may follow them."""
    if directory.channel(place) != BARS:
        return []
    codes, scope = directory.stands_for(place.ods), Scope.ATTACHMENTS_READ
    if await store.read(lambda c: clients.may_any(c, codes, scope, now)):
        return []
    problem = Problem(
        where,
        "cannot-fetch",
        f"{directory.name(place)} gets messages by BaRS, which carries attachments as links only, "
        "and no system of theirs is registered here to follow one.",
        "Send it without attachments and get them there another way, or have the operator register "
        f"a client of theirs ({scope}).",
    )
    return [problem]


def _problems(
    named: Sequence[Enclosed], rows: Mapping[str, Any], owners: Collection[str], now: datetime
) -> Iterator[Problem]:
    for one in named:
        row = rows.get(one.id)
        # Another organisation's reads like one that never was.
        if row is None or row.organisation not in owners:
            said = "Your organisation has uploaded no such attachment, or it was not named in time."
            yield Problem(f"{one.field}.id", "unknown-attachment", said, _AGAIN)
        elif row.claimed_at is None and row.expires_at <= now:
            said = "It was not named in time after it was uploaded."
            yield Problem(f"{one.field}.id", "expired", said, _AGAIN)
        elif row.digest != one.sha256:
            said = "This is not the SHA-256 of what was uploaded under this id."
            todo = (
                "Send the one that the upload was answered with; if yours is right, upload again."
            )
            yield Problem(f"{one.field}.sha256", "mismatch", said, todo)
