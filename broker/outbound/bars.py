"""Delivery to BaRS receivers: what they offer is asked, then the message is posted, and judged.

Rules: BaRS Core 1.5.0 End-to-end workflow. Each call is over within SECONDS; all those that
one attempt may need (three, each with a token, each once more with another) are over in a minute.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from broker.errors import Reject
from broker.events import uuid7
from broker.outbound.bars_answer import Answer, judged
from broker.outbound.bars_headers import FHIR_JSON, headers
from broker.outbound.bars_offers import Offers
from broker.outbound.connections import Connections, bounded, read
from broker.outbound.tokens import Tokens
from broker.ports import Delivery, Outcome
from fhir_profiles.bars import exchange

SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 1.5
LARGEST: Final = 1_048_576


class Bars:
    """Sends deliveries to BaRS receivers. `source` is the URI by which this broker is known."""

    def __init__(
        self,
        connections: Connections,
        tokens: Tokens,
        source: str,
        now: Callable[[], datetime],
        *,
        seconds: float = SECONDS,
    ) -> None:
        self._connections = connections
        self._tokens = tokens
        self._source = source
        self._now = now
        self._seconds = seconds
        self._offers = Offers(now)

    async def post(self, delivery: Delivery) -> Outcome:
        """Send once, if the receiver offers to take it. Raises Retry, Reject.

        The X-Request-Id is the delivery's id, the same over every attempt: the receiver knows it
        again. A question is never asked under that id, or its message would be a duplicate.
        """
        message = exchange.read_message(delivery.body)
        if message is None:
            raise Reject("not-offered")  # what is no BaRS message, no BaRS receiver offers to take

        async def ask(path: str, core: str) -> Answer:
            said = headers(delivery, uuid7(), self._source, core=core)
            return await self._call(delivery, "GET", path, said)

        core = await self._offers.core(delivery, message, ask)
        said = headers(delivery, delivery.id, self._source, core=core) | {
            "Content-Type": FHIR_JSON,
            "use-context": message.use_context,
        }
        answer = await self._call(delivery, "POST", "$process-message", said, delivery.body)
        return judged(answer, delivery, message, self._now())

    async def _call(
        self, delivery: Delivery, method: str, path: str, said: dict[str, str], body: bytes = b""
    ) -> Answer:
        """Call with a token, where one is wanted. One that is not taken is got anew, once."""
        token = await self._tokens.token(delivery)
        answer = await self._once(delivery, method, path, said | _bearer(token), body)
        if answer.status != 401 or token is None:
            return answer
        self._tokens.forget(delivery)
        token = await self._tokens.token(delivery)
        return await self._once(delivery, method, path, said | _bearer(token), body)

    async def _once(
        self, delivery: Delivery, method: str, path: str, said: dict[str, str], body: bytes
    ) -> Answer:
        async with bounded(self._seconds):
            url = f"{delivery.endpoint.url.rstrip('/')}/{path}"
            place = self._connections.place(url, delivery)
            addresses = await self._connections.judged(place, delivery)
            async with self._connections.sent(
                method, place, addresses, said, body, connect=CONNECT_SECONDS
            ) as response:
                given = {name.lower(): value for name, value in response.headers.items()}
                # What goes on over the limit is no word of theirs that could be read.
                found = await read(response, LARGEST) or b""
                return Answer(response.status_code, given, found)


def _bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"Authorization": f"Bearer {token}"}
