"""A partner's system: its client, its ledger, and what it does with a message once it has it.

Stores first (its own ledger, on disk), confirms then, decides last: as every receiver should.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

from sandbox import sentinels
from sandbox.arrival import Arrival
from sandbox.client import Client, Identity, NeverAnswered, NotSignedIn, Reply
from sandbox.ledger import Ledger
from sandbox.sentinels import Answer, Behaviour

WITHDRAWN: Final = "record-update-withdrawn"
_AGAIN: Final = 50
_PAUSE: Final = 0.1


class Partner:
    """One organisation's system. `async with` starts and ends it; its ledger stays behind.

    `slow_seconds` is how long XXTEST-SLOW takes, `late_seconds` XXTEST-LATE.
    """

    def __init__(
        self,
        identity: Identity,
        url: str,
        ledger: Path,
        *,
        slow_seconds: float = 1.0,
        late_seconds: float = 22.0,
        patience: float = 60.0,
    ) -> None:
        self.identity = identity
        self.ods = identity.organisation
        self.name = identity.name
        self.client = Client(url, identity, patience=patience)
        self.ledger = Ledger(ledger, identity.organisation)
        self.slow_seconds = slow_seconds
        self.late_seconds = late_seconds
        self._stored = {entry["delivery"] for entry in self.ledger.entries("received")}
        self._tries: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop, and let go of its connections and its ledger."""
        await self.stop()
        await self.client.aclose()
        self.ledger.close()

    async def start(self) -> None:
        """Begin to listen or to look; nothing more for a partner that only sends."""

    async def stop(self) -> None:
        """Stop where it is. What it had not confirmed is still the broker's to deliver."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside; a broker that never answers is written down, not raised."""

        async def watched() -> None:
            try:
                await work
            except (NeverAnswered, NotSignedIn) as error:
                self.ledger.write("failed", why=str(error))

        task = asyncio.create_task(watched())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- sending ---------------------------------------------------------------------------------

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        if_match: str | None = None,
        **facts: str,
    ) -> Reply:
        """Send something, with its own key until it is answered; both are in the ledger.

        `body` is sent as JSON, or as it is where it is bytes already.
        """
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        key = key or str(uuid4())
        door = f"{method} {path}"
        self.ledger.write("sending", door=door, key=key, **facts)
        reply = await self.client.call(method, path, sent, key=key, if_match=if_match)
        self.ledger.write(
            "answered",
            door=door,
            key=key,
            status=reply.status,
            tries=reply.tries,
            messages=_messages(reply),
            **facts,
        )
        return reply

    async def get(self, path: str, **params: str) -> Any:
        """Return what the broker answers to a question, as data; None where it refuses."""
        reply = await self.client.call("GET", path, params=params)
        return reply.json if reply.ok else None

    # -- receiving -------------------------------------------------------------------------------

    def behaviour(self, arrival: Arrival) -> Behaviour:
        """Return how this message is to be treated. Notices are always stored and confirmed."""
        if arrival.kind == "notice":
            return sentinels.DEFAULT
        return sentinels.behaviour(arrival.family)

    def tried(self, arrival: Arrival) -> int:
        """Count how often this delivery came, this time included."""
        self._tries[arrival.delivery] = self._tries.get(arrival.delivery, 0) + 1
        return self._tries[arrival.delivery]

    def store(self, arrival: Arrival) -> bool:
        """Keep a message, on disk on return; False where it was kept before: once in effect."""
        is_new = arrival.delivery not in self._stored
        self._stored.add(arrival.delivery)
        self.ledger.write("received" if is_new else "received-again", **arrival.facts())
        return is_new

    def receipt(self, arrival: Arrival, answer: Answer) -> dict[str, str]:
        """Return the receipt for a delivery, a false one where the sentinel asks for a lie."""
        said = {"delivery": arrival.delivery, "digest": arrival.digest, "ods": self.ods}
        if answer is Answer.LIE_DIGEST:
            said["digest"] = "0" * 64
        elif answer is Answer.LIE_ODS:
            said["ods"] = "ZZZ99"
        elif answer is Answer.LIE_DELIVERY:
            said["delivery"] = "00000000-0000-5000-8000-000000000000"
        lied = said["digest"] != arrival.digest or said["ods"] != self.ods
        what = "lied" if lied or said["delivery"] != arrival.delivery else "confirmed"
        self.ledger.write(what, delivery=arrival.delivery, answer=answer.value)
        return said

    async def decide(self, arrival: Arrival, behaviour: Behaviour) -> None:
        """Decide about a message that was stored and confirmed: file, reject, or move."""
        if arrival.kind == "update":
            decision = ("filed", None) if arrival.event == WITHDRAWN else behaviour.update
            if decision is not None:
                await self._acknowledge(arrival, *decision)
        elif arrival.kind == "referral" and behaviour.moves:
            referral = arrival.referral or await self._referral_of(arrival)
            for move, content in behaviour.moves:
                await self._move(arrival, referral, move, dict(content))

    async def _acknowledge(self, arrival: Arrival, outcome: str, reason: str | None) -> None:
        body = {"outcome": outcome} if reason is None else {"outcome": outcome, "reason": reason}
        path = f"/inbox/{arrival.delivery}/acknowledgement"
        # A webhook's receipt is on its way back while this runs: a 409 says that it is not there.
        reply = await self._again(
            lambda: self.client.call("PUT", path, json.dumps(body).encode()), 409
        )
        self.ledger.write(
            "decided",
            delivery=arrival.delivery,
            reference=arrival.reference,
            outcome=outcome,
            reason=reason,
            status=reply.status,
        )

    async def _referral_of(self, arrival: Arrival) -> str:
        found = await self.get(f"/messages/{arrival.message}")
        return str(found["referral"]).rpartition("/")[2]

    async def _move(
        self, arrival: Arrival, referral: str, move: str, content: dict[str, str]
    ) -> None:
        path = f"/referrals/{referral}"

        async def attempt() -> Reply:
            read = await self.client.call("GET", path)
            return await self.client.call(
                "POST",
                f"{path}/{move}",
                json.dumps(content).encode(),
                key=f"{arrival.delivery}-{move}",
                if_match=read.etag,
            )

        # 409: the receipt is still on its way; 412: somebody else moved it meanwhile.
        reply = await self._again(attempt, 409, 412)
        self.ledger.write(
            "decided",
            delivery=arrival.delivery,
            reference=arrival.reference,
            referral=referral,
            outcome=move,
            reason=content.get("reason"),
            status=reply.status,
        )

    async def _again(
        self, attempt: Callable[[], Coroutine[Any, Any, Reply]], *passing: int
    ) -> Reply:
        """Return the answer, trying again for a few seconds while it is one of `passing`."""
        reply = await attempt()
        for _ in range(_AGAIN):
            if reply.status not in passing:
                break
            await asyncio.sleep(_PAUSE)
            reply = await attempt()
        return reply


def _messages(reply: Reply) -> list[str]:
    said = reply.json if reply.ok else None
    return [one["id"] for one in said.get("messages", ())] if isinstance(said, dict) else []
