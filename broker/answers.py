"""Remembered answers: the same key and body get the same answer again, for ever.

A key belongs to (organisation, family of doors). It is used up only by success, in the same
transaction as what it did. In-flight keys are told to wait; another process's are caught by the
key's row.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from broker.composition import JSON
from broker.errors import Conflict, Gone, KeyRequired, TooEarly
from broker.events import digest
from broker.store import keys, messages
from broker.store.keys import Scope, Used
from broker.store.store import Store
from broker.store.tx import Connection, Tx
from broker.vault import Binding, MessageKey, Vault

NATIVE: Final = "native"
ROLE: Final = "answer"
LONGEST_KEY: Final = 255


@dataclass(frozen=True, slots=True)
class Answer:
    """What a caller is told: a status and a JSON body."""

    status: int
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A key that this request may use up, or the answer that it already got."""

    scope: Scope
    request_hmac: str
    known: Answer | None


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer sealed and ready to be stored with what it tells of."""

    owner: str
    status: int
    row: dict[str, Any] | None


class Answers:
    """Keeps the answers of one process's requests apart and remembers them."""

    def __init__(self, store: Store, vault: Vault) -> None:
        self._store = store
        self._vault = vault
        self._in_flight: set[Scope] = set()

    @asynccontextmanager
    async def claim(
        self, organisation: str, key: str | None, request: str, body: bytes
    ) -> AsyncIterator[Claimed]:
        """Hold a key while a request is worked on; `request` is its method and path.

        Raises KeyRequired, TooEarly, Conflict for another request under the same key, Gone.
        """
        scope = self._scope(organisation, key)
        if scope in self._in_flight:
            raise TooEarly(
                "A request with this Idempotency-Key is still being worked on. Wait, then send "
                "it again with the same key.",
                retry_after=1,
            )
        self._in_flight.add(scope)
        try:
            request_hmac = self._vault.mac(f"request|{request}", body)
            known = await self._store.look_up(lambda c: self._recall(c, scope, request_hmac))
            yield Claimed(scope, request_hmac, known)
        finally:
            self._in_flight.discard(scope)

    def seal(
        self, key: MessageKey, owner: str, organisation: str, answer: Answer, now: datetime
    ) -> Kept:
        """Seal an answer under the key of the message that it tells of."""
        binding = Binding(owner, ROLE, 1, organisation, JSON)
        body = answer.body
        row = messages.sealed(self._vault, key, binding, body, digest(body), now)
        return Kept(owner, answer.status, row)

    def keep(self, tx: Tx, claimed: Claimed, kept: Kept) -> None:
        """Use the key up and store the answer, in the transaction of what it did."""
        if kept.row is not None:
            messages.put_payloads(tx, [kept.row])
        keys.put(tx, claimed.scope, Used(claimed.request_hmac, kept.owner, kept.status))

    def _scope(self, organisation: str, key: str | None) -> Scope:
        if key is None or not 1 <= len(key) <= LONGEST_KEY or not _is_visible(key):
            raise KeyRequired(
                "Send an Idempotency-Key header of 1 to 255 visible ASCII characters: a new one "
                "for each new message, the same one when you send the same message again."
            )
        key_hmac = self._vault.mac(f"key|{organisation}|{NATIVE}", key.encode())
        return Scope(organisation, NATIVE, key_hmac)

    def _recall(self, connection: Connection, scope: Scope, request_hmac: str) -> Answer | None:
        used = keys.find(connection, scope)
        if used is None:
            return None
        if used.body_hmac != request_hmac:
            raise Conflict(
                f"This Idempotency-Key was used for another request ({used.owner_id}). Use a new "
                "key for a new message."
            )
        answer = messages.payload(connection, self._vault, used.owner_id, ROLE)
        if answer is not None:
            return Answer(used.status, answer.body)
        message = messages.get(connection, used.owner_id)
        if message is not None and message.status == "withheld":
            # Nothing of it was kept, its answer included: the same body gives the same again.
            return None
        raise Gone(
            f"What this key was used for ({used.owner_id}) has since been erased under the "
            "retention rules. It is not taken again."
        )


def _is_visible(key: str) -> bool:
    return all("!" <= character <= "~" for character in key)
