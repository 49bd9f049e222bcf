"""Fetching: whoever a message is addressed to gets what it names, whole and proved, or nothing."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import structlog

from broker.access import Caller
from broker.attachments.folder import Folder
from broker.attachments.sealing import opened, prove
from broker.audit import Entry
from broker.core import Core
from broker.errors import Gone, Unavailable
from broker.events import Role
from broker.referral import RELATIONS, Relation
from broker.store import attachments
from broker.store.attachments import ContentKey
from broker.store.tx import Connection
from broker.vault import Tampered

_CLOSEST: Final = tuple(RELATIONS.values())
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Seen:
    """An attachment as an organisation may see it: its row, what the organisation is to those
    messages that name it, and the label of the one to which it is the closest."""

    row: Any
    relation: Relation
    label: str = "N"
    messages: frozenset[str] = frozenset()


class Fetching:
    """Gives attachments out."""

    def __init__(self, core: Core, folder: Folder) -> None:
        self._core, self._folder = core, folder

    async def seen(self, attachment: str, organisation: str) -> Seen:
        """Return what an attachment is to an organisation: the closest of all it is."""
        codes = (await self._core.directory.current()).stands_for(organisation)

        def read(connection: Connection) -> Seen:
            row = attachments.found(connection, [attachment]).get(attachment)
            if row is None:
                return Seen(None, Relation.NONE)
            told = attachments.addressed(connection, attachment, codes)
            if told:
                closest = min(told, key=lambda one: _CLOSEST.index(RELATIONS[Role(one.role)]))
                messages = frozenset(str(one.message_id) for one in told)
                return Seen(row, RELATIONS[Role(closest.role)], closest.label, messages)
            return Seen(row, Relation.SENDER if row.organisation in codes else Relation.NONE)

        return await self._core.store.read(read)

    async def fetch(self, caller: Caller, seen: Seen) -> ContentKey:
        """Return the key of an attachment whose file is there, whole, and holds what was uploaded.

        That it was fetched stands in the audit. Raises Gone, Tampered, or Unavailable where this
        process does not find the file.
        """
        vault, row = self._core.vault, seen.row
        identity = str(row.id)
        key = await self._core.store.read(
            lambda c: attachments.content_key(c, vault, identity, seen.messages)
        )
        if key is None:
            raise Gone("This attachment has been erased under the retention rules.")
        await self._prove(row, key)
        entry = Entry(
            *("attachment.fetched", caller.client_id, caller.organisation, "attachment", identity),
            {"content": row.digest},
        )
        await self._core.store.write(lambda tx: tx.audit(entry))
        return key

    async def _prove(self, row: Any, key: ContentKey) -> None:
        def read() -> None:
            with self._folder.file(row.id).open("rb") as file:
                prove(file, key.raw, row.id, row.digest)

        try:
            await asyncio.to_thread(read)
        except OSError as error:
            log.error("attachment.not-there", item=row.id, code=str(error.errno))
            said = "The file of this attachment cannot be read here."
            raise Unavailable(f"{said} Try again; if it stays so, tell the operator.") from error
        except Tampered:
            log.error("attachment.tampered", item=row.id)
            raise

    def content(self, row: Any, key: ContentKey) -> Iterator[bytes]:
        """Yield what was uploaded, piece by piece. Raises Tampered, and then is not whole."""
        with self._folder.file(row.id).open("rb") as file:
            yield from opened(file, key.raw, row.id)
