"""An outlet that sends nowhere: destinations are functions. Passes the outlets' contract suite."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from broker.errors import Reject, Retry
from broker.ports import Delivery, Outcome, Receipt
from broker.retry import Verdict, code_of, judge


@dataclass(frozen=True, slots=True)
class Answered:
    """What a destination answers: a status, and the receipt that its body holds, if any."""

    status: int = 200
    receipt: Receipt | None = None


Destination = Callable[[Delivery], Answered]


def stored(delivery: Delivery) -> Answered:
    """Answer as a destination does that has stored what it got."""
    receipt = Receipt(delivery.id, delivery.digest, delivery.destination.ods)
    return Answered(200, receipt)


@dataclass(slots=True)
class Memory:
    """Hands each delivery to the function of its destination; an unknown one is not connected."""

    destinations: Mapping[str, Destination]
    sent: list[Delivery] = field(default_factory=list)

    async def post(self, delivery: Delivery) -> Outcome:
        """Hand it over once. Raises Retry or Reject, by the same judgement as over HTTP."""
        destination = self.destinations.get(delivery.destination.ods)
        if destination is None or delivery.endpoint.channel != "webhook":
            raise Retry("not-connected")
        self.sent.append(delivery)
        answered = destination(delivery)
        verdict = judge(answered.status)
        if verdict is Verdict.REJECT:
            raise Reject(code_of(answered.status), status=answered.status)
        if verdict is Verdict.RETRY:
            raise Retry(code_of(answered.status), status=answered.status)
        return Outcome(answered.receipt, answered.status)
