"""A partner's system: its client, its ledger, and what it does with a message once it has it.

Stores first (its own ledger, on disk), confirms then, decides last: as every receiver should.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

from sandbox import sentinels
from sandbox.arrival import Arrival
from sandbox.client import PASSING, Client, Identity, NeverAnswered, NotSignedIn, Reply
from sandbox.ledger import Ledger
from sandbox.sentinels import Answer, Behaviour

WITHDRAWN: Final = "record-update-withdrawn"
_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 1.0


class Partner:
    """One organisation's system. `async with` starts and ends it; its ledger stays behind.

    `slow_seconds` is how long XXTEST-SLOW takes, `late_seconds` XXTEST-LATE; `decides_within` is
    for how long a decision that may not be made yet is made again. While `mood` is set, everything
    is treated so, whatever the patient is called.
    """

    decides_within = 5.0
    mood: Behaviour | None = None

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
                self.ledger.write("missed", why=str(error))

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
        **facts: Any,
    ) -> Reply:
        """Send something, with its own key until it is answered; both are in the ledger.

        `body` is sent as JSON, or as it is where it is bytes already.
        """
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = key or str(uuid4())
        if sent is not None:
            facts["digest"] = hashlib.sha256(sent).hexdigest()
        return await self.perform(
            "post",
            lambda: self.client.call(method, path, sent, key=given, if_match=if_match),
            door=f"{method} {path}",
            key=given,
            **facts,
        )

    async def perform(
        self, does: str, attempt: Callable[[], Coroutine[Any, Any, Reply]], **facts: Any
    ) -> Reply:
        """Do one thing at the broker; what was begun and how it ended are both in the ledger.

        Where this is cut off nothing more is written: the thing may have happened or not.
        """
        facts |= {"op": uuid4().hex, "does": does}
        self.ledger.write("invoke", **facts)
        try:
            reply = await attempt()
        except (NeverAnswered, NotSignedIn) as error:
            self.ledger.write("unknown", why=str(error), **facts)
            raise
        self.ledger.write(
            ended(reply.status),
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
        if self.mood is not None:
            return self.mood
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
        await self.perform(
            "decide",
            lambda: self._again(
                lambda: self.client.call("PUT", path, json.dumps(body).encode()), 409
            ),
            delivery=arrival.delivery,
            reference=arrival.reference,
            outcome=outcome,
            reason=reason,
        )

    async def _referral_of(self, arrival: Arrival) -> str:
        path = f"/messages/{arrival.message}"
        found = await self._again(lambda: self.client.call("GET", path))
        return str(found.json["referral"]).rpartition("/")[2]

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
        await self.perform(
            "decide",
            lambda: self._again(attempt, 409, 412),
            delivery=arrival.delivery,
            reference=arrival.reference,
            referral=referral,
            outcome=move,
            reason=content.get("reason"),
        )

    async def _again(
        self, attempt: Callable[[], Coroutine[Any, Any, Reply]], *passing: int
    ) -> Reply:
        """Return the answer, trying again for a while as long as it is one of `passing`.

        Whoever is not signed in tries again too: a clock may be wrong. Raises NotSignedIn.
        """
        ends, pause = time.monotonic() + self.decides_within, _PAUSE
        while True:
            is_over = time.monotonic() + pause >= ends
            try:
                reply = await attempt()
                if is_over or reply.status not in {401, *passing}:
                    return reply
            except NotSignedIn:
                if is_over:
                    raise
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, 1.5 * pause)


def ended(status: int) -> str:
    """Return how a thing ended that was answered with a status: ok, fail, or unknown.

    Whoever is not signed in (401) is told nothing of the thing: an earlier try may have done it.
    """
    if 200 <= status < 300:
        return "ok"
    return "unknown" if status >= 500 or status in {401, *PASSING} else "fail"


def _messages(reply: Reply) -> list[str]:
    said = reply.json if reply.ok else None
    return [one["id"] for one in said.get("messages", ())] if isinstance(said, dict) else []
