"""What BaRS receivers offer: asked before the first message, then known for a while.

Safest is what is done: a message goes only to a receiver that lists its definition in a version of
the same major number. What it does not list is never sent, but said to a person at once; before
that it is asked afresh, so that no message dies of what was true yesterday. That it cannot be asked
may pass, and is tried again. Only its MessageDefinitions may be missing for good (404, 501): some
peers do not have them, and the receiver checks each message itself.
"""

import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from broker.errors import Reject, Retry
from broker.outbound.bars_answer import Answer, passing
from broker.outbound.bars_headers import CORE, negotiated
from broker.ports import Delivery, Endpoint
from fhir_profiles.bars import exchange
from fhir_profiles.bars.exchange import Message

USUAL: Final = timedelta(hours=12)
LONGEST: Final = timedelta(hours=24)
MOST_OFFERS: Final = 4_096
_MAX_AGE: Final = re.compile(r"max-age=\"?([0-9]{1,9})\"?")

Ask = Callable[[str, str], Awaitable[Answer]]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Offer:
    """What one service offers for one use case. `versions` are None where it does not tell them."""

    definitions: frozenset[str]
    versions: tuple[tuple[str, str], ...] | None
    core: str
    until: datetime

    def takes(self, message: Message) -> bool:
        return exchange.is_offered(message, self.definitions, self.versions)


class Offers:
    """Knows what receivers offer. An endpoint that was refreshed by an operator is asked anew."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        # The endpoint holds when it was last refreshed: what was known before stands under another.
        self._known: OrderedDict[tuple[Endpoint, tuple[str, str], str], Offer] = OrderedDict()

    async def core(self, delivery: Delivery, message: Message, ask: Ask) -> str:
        """Return the Core version to send a message in, if it is offered. Raises Retry, Reject.

        `ask(path, core)` gets what stands under the endpoint's base.
        """
        key = (delivery.endpoint, delivery.target, message.use_case)
        known = self._known.get(key)
        if known is not None and known.until > self._now() and known.takes(message):
            return known.core
        asked = self._known[key] = await self._ask(delivery, message, ask)
        self._known.move_to_end(key)
        while len(self._known) > MOST_OFFERS:
            self._known.popitem(last=False)
        if not asked.takes(message):
            log.warning(
                "outbound.not-offered",
                delivery_id=delivery.id,
                organisation=delivery.destination.ods,
                service=delivery.destination.service,
            )
            raise Reject("not-offered")
        return asked.core

    async def _ask(self, delivery: Delivery, message: Message, ask: Ask) -> Offer:
        at = self._now()
        statement = await ask("metadata", CORE)
        definitions = exchange.definitions(statement.body)
        if statement.status != 200:
            raise passing(statement, at)
        if definitions is None:
            raise Retry("intermediary")
        core = negotiated(statement.headers.get("content-type", ""))
        query = exchange.context(delivery.target, message)
        searched = await ask(f"MessageDefinition?{query}", core)
        versions = None
        if searched.status not in (404, 501):
            versions = exchange.versions(searched.body)
            if searched.status != 200:
                raise passing(searched, at)
            if versions is None:
                raise Retry("intermediary")
        return Offer(definitions, versions, core, at + _age((statement, searched)))


def _age(answers: Iterable[Answer]) -> timedelta:
    """Return for how long answers may be kept: as the strictest of them says."""
    return min(_said(answer.headers.get("cache-control", "").lower()) for answer in answers)


def _said(cache_control: str) -> timedelta:
    if "no-store" in cache_control or "no-cache" in cache_control:
        return timedelta()
    found = _MAX_AGE.search(cache_control)
    return min(timedelta(seconds=int(found[1])), LONGEST) if found else USUAL
