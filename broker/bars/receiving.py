"""`$process-message`: takes a BaRS message in, answers it, and knows it again.

A request is known by its X-Request-Id, for ever: after success a repeat is a `duplicate`, which is
the proof that it arrived; a final refusal is repeated as it was; another body under the id is a
`conflict`. BaRS Core 1.5.0, transactional integrity.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from broker import routing
from broker.access import Caller
from broker.addressing_bars import SOFTWARE
from broker.answers import BARS, Answer, Claimed
from broker.bars import understanding
from broker.bars.following import Following, follow
from broker.bars.headers import Headers
from broker.bars.understanding import NOTHING, Carried, Receiving, Understood, understand
from broker.core import Core
from broker.directory import Directory
from broker.errors import ANSWERS, Duplicate, NotOffered, Refused
from broker.events import Destination, Kind
from broker.intake import Intake, Submission
from broker.ports import Endpoint, Needs
from broker.preparing import Prepared
from broker.reading import read_object
from fhir_profiles import codes
from fhir_profiles.bars import answer as answering
from fhir_profiles.bars import incoming as bars
from fhir_profiles.bars.answer import Answering, Planned
from fhir_profiles.bars.incoming import Message, Target
from fhir_profiles.bars.meaning import Meaning
from fhir_profiles.compiler.finding import Finding
from fhir_profiles.profiles import Profiles

DOOR: Final = "bars"
OK: Final = 200
HELD: Final = "Held by the broker, not yet with the service."
# Sent again after one of these, a request may fare better: it is not remembered as refused.
_PASSING: Final = frozenset({401, 403, 408, 425, 429})


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request as it came: by whom, what its headers say, and its bytes."""

    caller: Caller
    headers: Headers
    body: bytes = field(repr=False)
    traceparent: str | None = None


class Bars:
    """The front door for BaRS messages. Any number may run, in any number of processes."""

    def __init__(
        self, core: Core, intake: Intake, profiles: Profiles, broker: Target | None
    ) -> None:
        self._core = core
        self._intake = intake
        self._profiles = profiles
        self._broker = broker

    async def process(self, arrived: Arrived) -> Answer:
        """Take a message in and return the message that answers it. Durable on return.

        Raises Refused with nothing stored but that it was refused, or Unavailable.
        """
        organisation, headers = arrived.caller.organisation, arrived.headers
        request = f"$process-message {headers.target}"
        async with self._core.answers.claim(
            organisation, headers.request_id, request, arrived.body, family=BARS
        ) as claimed:
            if claimed.used is not None:
                raise self._again(claimed)
            try:
                return await self._process(arrived, claimed)
            except Refused as refused:
                if ANSWERS[refused.code].status not in _PASSING:
                    await self._core.answers.remember_refusal(claimed, refused, organisation)
                raise

    def _again(self, claimed: Claimed) -> Refused:
        """Return what is said to a request that was answered before."""
        if claimed.refused is not None:
            return claimed.refused
        return Duplicate("This request was taken before; nothing was done again.")

    async def _process(self, arrived: Arrived, claimed: Claimed) -> Answer:
        message = bars.read(read_object(arrived.body))
        findings = self._profiles.check(arrived.body, "BARSBundleMessage")
        understood = self._understand(
            arrived, message, findings, await self._core.directory.current()
        )
        if understood.meaning is Meaning.REFERRAL:
            return await self._refer(arrived, understood, findings, claimed)
        said = Following(
            arrived.caller, message, understood.meaning, understood.place, arrived.body
        )
        message_id = await follow(self._core, said, claimed)
        by = Answering(message_id, datetime.now(UTC), SOFTWARE, self._core.source)
        return Answer(OK, answering.answer(arrived.body, message, by))

    def _understand(
        self, arrived: Arrived, message: Message, findings: Sequence[Finding], known: Directory
    ) -> Understood:
        target, organisation = arrived.headers.target, arrived.caller.organisation
        at_door = Receiving(target, organisation, known, self._broker)
        return understand(message, at_door, findings)

    # -- new referrals ---------------------------------------------------------------------------

    async def _refer(
        self, arrived: Arrived, first: Understood, findings: Sequence[Finding], claimed: Claimed
    ) -> Answer:
        organisation, message = arrived.caller.organisation, first.message

        def read(known: Directory, now: datetime) -> tuple[Any, Needs]:
            understood = self._understand(arrived, message, findings, known)
            needs = understanding.needs(understood, organisation, known, now)
            _check_can_be_told(organisation, understood.place, known)
            return (arrived.body, message), needs

        taken = await self._intake.take(
            Submission(
                caller=arrived.caller,
                door=DOOR,
                translator=Carried(),
                raw=message.bundle,
                read=read,
                answer=lambda prepared: Answer(OK, self._held(arrived, message, prepared)),
                repeats=False,
                facts=_form(first.place),
                conversation=arrived.headers.correlation_id,
                traceparent=arrived.traceparent,
            ),
            claimed,
        )
        return taken.answer

    def _held(self, arrived: Arrived, message: Message, prepared: Prepared) -> bytes:
        """Return the answer that claims no more than that the broker holds it."""
        made = prepared.messages[0].row
        by = Answering(made["id"], made["accepted_at"], SOFTWARE, self._core.source)
        reference = answering.spoken(made["id"])
        planned = Planned(codes.CASE_REFERENCE, reference, HELD)
        return answering.answer(arrived.body, message, by, planned)


def _form(place: Destination | None) -> dict[str, str]:
    """Return what the event of a BaRS message says of it: whose bytes it may go to unchanged."""
    return {"form": DOOR} if place is None else {"form": DOOR, "addressed": str(place)}


def _check_can_be_told(organisation: str, place: Destination | None, known: Directory) -> None:
    """Raise NotOffered where nobody could tell the sender that it was not delivered after all.

    What is passed on at once to a BaRS receiver is answered by that receiver.
    """
    hears = isinstance(routing.recheck(Destination(organisation), Kind.NOTICE, known), Endpoint)
    if not hears and (place is None or known.channel(place) != "bars"):
        raise NotOffered(
            f"{NOTHING} {organisation} has no inbox, webhook or BaRS server that takes notices, so "
            "it could not be told if this were not delivered. Have one entered in the directory."
        )
