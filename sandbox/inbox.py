"""A partner that collects: looks into its inbox, stores, confirms, decides."""

import asyncio
import json
from typing import Any, Final

from sandbox import arrival
from sandbox.arrival import Arrival
from sandbox.client import NeverAnswered, NotSignedIn
from sandbox.partner import Partner
from sandbox.sentinels import Answer

_AT_ONCE: Final = 8
# What has to be told apart over HTTP only: over an inbox these collect and do nothing more.
_MUTE: Final = frozenset(
    {Answer.SILENT, Answer.FAIL, Answer.REFUSE, Answer.BARE, Answer.REDIRECT, Answer.DRIP}
)


class InboxPartner(Partner):
    """Looks every `look_every` seconds. Everything in its inbox is stored once in effect."""

    look_every = 0.2

    def __init__(self, *identity: Any, **settings: Any) -> None:
        super().__init__(*identity, **settings)
        self._taken: set[str] = set()
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def start(self) -> None:
        """Begin to look."""
        self._taken.clear()
        self.spawn(self._look())

    async def _look(self) -> None:
        while True:
            try:
                await self.look_once()
            except (NeverAnswered, NotSignedIn) as error:
                self.ledger.write("missed", why=str(error))
            await asyncio.sleep(self.look_every)

    async def look_once(self) -> None:
        """Begin to take whatever stands in the inbox and is not being taken already.

        What has gone from it and stands there again was sent again: it is taken again.
        """
        after, listed = "", set()
        while True:
            page = await self.get("/inbox", limit="200", after=after)
            if page is None:
                return
            for row in page["deliveries"]:
                listed.add(row["id"])
                if row["id"] not in self._taken:
                    self._taken.add(row["id"])
                    self.spawn(self._take(row))
            after = page["next"] or ""
            if not after:
                self._taken &= listed
                return

    async def _take(self, row: dict[str, Any]) -> None:
        async with self._room:
            try:
                done = await self._handle(row)
            except (NeverAnswered, NotSignedIn) as error:
                self.ledger.write("missed", delivery=row["id"], why=str(error))
                done = False
        if not done:  # seen again at the next look
            self._taken.discard(row["id"])

    async def _handle(self, row: dict[str, Any]) -> bool:
        """Take one delivery; False where it is to be taken again."""
        collected = await self.client.call("GET", f"/inbox/{row['id']}")
        if not collected.ok:
            self.ledger.write("missed", delivery=row["id"], why=f"collect: {collected.status}")
            return False
        subject = row["subject"] if row["kind"] == "referral" else ""
        found = arrival.read(row["id"], row["kind"], "inbox", collected.body, referral=subject)
        behaviour = self.behaviour(found)
        answer, tries = behaviour.answer, self.tried(found)
        if answer in _MUTE:
            self.ledger.write("misbehaved", how=answer.value, **found.facts())
            return True
        if answer is Answer.RECOVER and tries < 3:
            self.ledger.write("misbehaved", how=answer.value, **found.facts())
            return False
        self.store(found)
        if answer is Answer.RESET and tries == 1:
            return False
        if answer in {Answer.SLOW, Answer.LATE}:
            late = answer is Answer.LATE
            await asyncio.sleep(self.late_seconds if late else self.slow_seconds)
        if await self._confirm(found, answer):
            await self.decide(found, behaviour)
        return True

    async def _confirm(self, found: Arrival, answer: Answer) -> bool:
        said = json.dumps(self.receipt(found, answer)).encode()
        reply = await self.client.call("PUT", f"/inbox/{found.delivery}/receipt", said)
        if not reply.ok:
            self.ledger.write("missed", delivery=found.delivery, why=f"receipt: {reply.status}")
        return reply.ok
