"""Uploads: sealed while they are read, looked into, and there only once that is durable.

What breaks off leaves nothing. The bytes are kept exactly as they came: what is answered is their
SHA-256, by which a message names them.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog

from broker.access import Caller
from broker.answers import Answer, Claimed, demand_key
from broker.attachments import kinds
from broker.attachments.folder import Draft, Folder
from broker.attachments.kinds import FIELD, HEAD, NOT_TAKEN, Kind
from broker.attachments.sealing import Sealer, opened
from broker.audit import Entry
from broker.core import Core
from broker.errors import Problem, Refused, TooLarge, Unavailable
from broker.events import uuid7
from broker.store import attachments, messages
from broker.store.attachments import ContentKey
from broker.store.tx import Tx
from fhir_profiles import strict_json

LIMIT: Final = 25 * 1024 * 1024
"""The largest attachment, in bytes."""
CREATED: Final = 201
_DOOR: Final = "POST /attachments"
# Written in one go: a thread for each small part that comes would cost more than the writing.
_AT_ONCE: Final = 1024 * 1024
# How many are looked into at a time: each is wholly in memory then.
_LOOKED_INTO: Final = 2

log = structlog.get_logger()


class Uploading:
    """Takes attachments in."""

    def __init__(self, core: Core, folder: Folder, keep: timedelta) -> None:
        self._core, self._folder, self._keep = core, folder, keep
        self._looking = asyncio.Semaphore(_LOOKED_INTO)

    async def upload(self, caller: Caller, key: str | None, parts: AsyncIterator[bytes]) -> Answer:
        """Take a file in; durable on return. The same file under the same key gets the same answer.

        Raises Refused with nothing kept, or Unavailable, after which it may be sent again.
        """
        demand_key(key)  # before anything is read for it
        if not await self._core.store.look_up(attachments.is_there):
            raise Unavailable("The database has no place for attachments yet; nothing was stored.")
        identity, raw = uuid7(), secrets.token_bytes(32)
        try:
            with await asyncio.to_thread(self._folder.draft, identity) as draft:
                sealer, kind = await self._read(parts, draft, raw, identity)
                await self._look(draft, kind, raw, identity)
                organisation, digest = caller.organisation, bytes.fromhex(sealer.digest)
                async with self._core.answers.claim(organisation, key, _DOOR, digest) as claimed:
                    if claimed.known is not None:
                        return claimed.known
                    await asyncio.to_thread(draft.keep)
                    content = ContentKey(identity, organisation, kind.value, raw)
                    return await self._put(caller, content, sealer, claimed)
        except OSError as error:
            log.error("attachment.not-written", code=str(error.errno))
            raise Unavailable("It could not be stored here; nothing was kept.") from error

    async def _read(
        self, parts: AsyncIterator[bytes], draft: Draft, raw: bytes, identity: str
    ) -> tuple[Sealer, Kind]:
        """Seal what comes into the draft, as far as it can be something that is taken."""
        sealer = Sealer(draft.file, raw, identity)
        waiting, head, kind, size = bytearray(), bytearray(), None, 0
        async for part in parts:
            size += len(part)
            if size > LIMIT:
                raise TooLarge(f"An attachment has at most {LIMIT} bytes; nothing was stored.")
            head += part[: HEAD - len(head)]
            if kind is None and len(head) == HEAD:
                kind = _kind(head)
            waiting += part
            if len(waiting) >= _AT_ONCE:
                await asyncio.to_thread(sealer.write, bytes(waiting))
                waiting.clear()
        if size == 0:
            raise Refused.all_of([Problem(FIELD, "missing", "The body is empty.", NOT_TAKEN.todo)])
        kind = kind or _kind(head)
        await asyncio.to_thread(sealer.write, bytes(waiting))
        await asyncio.to_thread(sealer.finish)
        return sealer, kind

    async def _look(self, draft: Draft, kind: Kind, raw: bytes, identity: str) -> None:
        """Read back what was written, and look into it. Raises Refused."""

        def look() -> list[Problem]:
            draft.file.seek(0)
            return list(kinds.problems(kind, b"".join(opened(draft.file, raw, identity))))

        async with self._looking:
            problems = await asyncio.to_thread(look)
        if problems:
            raise Refused.all_of(problems)

    async def _put(
        self, caller: Caller, content: ContentKey, sealer: Sealer, claimed: Claimed
    ) -> Answer:
        now, vault = datetime.now(UTC), self._core.vault
        identity, organisation = content.attachment, caller.organisation
        key = vault.new_key(identity)
        row: dict[str, Any] = {
            "id": identity,
            "organisation": organisation,
            "client_id": caller.client_id,
            "content_type": content.content_type,
            "size": sealer.size,
            "digest": sealer.digest,
            "created_at": now,
            "expires_at": now + self._keep,
            "claimed_at": None,
        }
        said = {
            "id": identity,
            "sha256": sealer.digest,
            "content_type": content.content_type,
            "size": sealer.size,
            "expires_at": row["expires_at"].isoformat(),
        }
        answer = Answer(CREATED, strict_json.dumps(said))
        kept = self._core.answers.seal(key, identity, organisation, answer, now)
        facts = {"content_type": content.content_type, "content": sealer.digest}
        entry = Entry(
            *("attachment.uploaded", caller.client_id, organisation, "attachment", identity), facts
        )

        def write(tx: Tx) -> None:
            messages.put_key(tx, key)
            attachments.put(tx, row, content.sealed(vault, key))
            self._core.answers.keep(tx, claimed, kept)
            tx.audit(entry)

        await self._core.store.write(write)
        log.info("attachment.uploaded", item=identity, organisation=organisation)
        return answer


def _kind(head: bytes | bytearray) -> Kind:
    """Return what a file is. Raises Refused where that is not taken."""
    kind = kinds.kind_of(bytes(head))
    if kind is None:
        raise Refused.all_of([NOT_TAKEN])
    return kind
