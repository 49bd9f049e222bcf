"""Remembered answers: the same key and body get the same answer again, for ever.

A key belongs to (organisation, family of doors). It is used up by success, in the same transaction
as what it did; at the BaRS door also by a final refusal. In-flight keys are told to wait; another
process's are caught by the key's row.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from broker.access import Caller
from broker.audit import Entry
from broker.composition import JSON
from broker.errors import ANSWERS, Conflict, Gone, KeyRequired, Refused, TooEarly
from broker.events import digest, uuid7
from broker.store import keys, messages
from broker.store.keys import Scope, Used
from broker.store.store import Store
from broker.store.tx import Connection, Tx
from broker.vault import Binding, MessageKey, Vault
from fhir_profiles import strict_json

NATIVE: Final = "native"
BARS: Final = "bars"
FHIR: Final = "fhir"
# The header by which each family of doors knows a request again.
HEADERS: Final = {NATIVE: "Idempotency-Key", BARS: "X-Request-Id", FHIR: "Idempotency-Key"}
ROLE: Final = "answer"
LONGEST_KEY: Final = 255
FIRST_REFUSAL: Final = 400


@dataclass(frozen=True, slots=True)
class Answer:
    """What a caller is told: a status and a JSON body."""

    status: int
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Claimed:
    """A key that this request may use up, or what was made of it before.

    `known` is the answer that it got, where that is said again; `refused` its final refusal, where
    its family remembers those; `used` what it was used for.
    """

    scope: Scope
    request_hmac: str
    known: Answer | None = None
    used: Used | None = None
    refused: Refused | None = None


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
        self, organisation: str, key: str | None, request: str, body: bytes, family: str = NATIVE
    ) -> AsyncIterator[Claimed]:
        """Hold a key while a request is worked on; `request` is its method and path.

        Raises KeyRequired, TooEarly, Conflict for another request under the same key, Gone.
        """
        scope = self._scope(organisation, key, family)
        if scope in self._in_flight:
            raise TooEarly(
                f"A request with this {HEADERS[family]} is still being worked on. Wait, then send "
                "it again with the same one.",
                retry_after=1,
            )
        self._in_flight.add(scope)
        try:
            request_hmac = self._vault.mac(f"request|{request}", body)
            yield await self._store.look_up(lambda c: self._recall(c, scope, request_hmac))
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

    async def remember_refusal(self, claimed: Claimed, refused: Refused, caller: Caller) -> None:
        """Use a key up with a refusal that a repeat gets again. Durable on return."""
        owner, organisation = uuid7(), caller.organisation
        key = self._vault.new_key(owner)
        said = strict_json.dumps(refused.as_json())
        kept = self.seal(
            key, owner, organisation, Answer(ANSWERS[refused.code].status, said), datetime.now(UTC)
        )
        facts = {"door": claimed.scope.family, "code": refused.code}
        entry = Entry("message.refused", caller.client_id, organisation, "request", owner, facts)

        def write(tx: Tx) -> None:
            messages.put_key(tx, key)
            tx.audit(entry)
            self.keep(tx, claimed, kept)

        await self._store.write(write)

    def _scope(self, organisation: str, key: str | None, family: str) -> Scope:
        key = demand_key(key, family)
        key_hmac = self._vault.mac(f"key|{organisation}|{family}", key.encode())
        return Scope(organisation, family, key_hmac)

    def _recall(self, connection: Connection, scope: Scope, request_hmac: str) -> Claimed:
        used = keys.find(connection, scope)
        if used is None:
            return Claimed(scope, request_hmac)
        header = HEADERS[scope.family]
        if used.body_hmac != request_hmac:
            raise Conflict(
                f"This {header} was used for another request ({used.owner_id}). Use a new one for "
                "a new message."
            )
        kept = messages.payload(connection, self._vault, used.owner_id, ROLE)
        if kept is not None and used.status < FIRST_REFUSAL:
            return Claimed(scope, request_hmac, Answer(used.status, kept.body), used)
        if kept is not None:
            refused = Refused.from_json(strict_json.loads(kept.body))
            return Claimed(scope, request_hmac, used=used, refused=refused)
        if scope.family == BARS and used.status < FIRST_REFUSAL:
            return Claimed(scope, request_hmac, used=used)  # nobody is told twice what it was told
        message = messages.get(connection, used.owner_id)
        if message is not None and message.status == "withheld":
            # Nothing of it was kept, its answer included: the same body gives the same again.
            return Claimed(scope, request_hmac)
        raise Gone(
            f"What this {header} was used for ({used.owner_id}) has since been erased under the "
            "retention rules. It is not taken again."
        )


def demand_key(key: str | None, family: str = NATIVE) -> str:
    """Return a key that may be used. Raises KeyRequired."""
    if key is None or not 1 <= len(key) <= LONGEST_KEY or not _is_visible(key):
        raise KeyRequired(
            f"Send an {HEADERS[family]} header of 1 to 255 visible ASCII characters: a new one "
            "for each new message, the same one when you send the same message again."
        )
    return key


def _is_visible(key: str) -> bool:
    return all("!" <= character <= "~" for character in key)
