"""`$process-message`: takes a BaRS message in, answers it, and knows it again.

A request is known by its X-Request-Id, for ever: after success a repeat is a `duplicate`, which is
the proof that it arrived; a final refusal is repeated as it was; another body under the id is a
`conflict`. BaRS Core 1.5.0, transactional integrity.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from broker import routing
from broker.access import Caller
from broker.answers import BARS, Answer, Claimed
from broker.bars import understanding
from broker.bars.composing import SOFTWARE
from broker.bars.following import Following, close_refused, follow
from broker.bars.headers import Headers
from broker.bars.understanding import NOTHING, Carried, Receiving, Understood, understand
from broker.bars.waiting import Waiting, Word
from broker.core import Core
from broker.directory import BARS as SPEAKS_BARS
from broker.directory import Directory
from broker.errors import ANSWERS, Duplicate, NotOffered, Refused, TimedOut
from broker.events import Destination, Kind, Role
from broker.intake import Intake, Submission
from broker.ports import Endpoint, Needs
from broker.preparing import Prepared
from broker.reading import read_object
from broker.store import messages
from broker.telling import BARS_DOOR, replies_to, source_of
from fhir_profiles import codes
from fhir_profiles.bars import answer as answering
from fhir_profiles.bars import incoming as bars
from fhir_profiles.bars.answer import Answering, Planned
from fhir_profiles.bars.incoming import Message, Target
from fhir_profiles.bars.meaning import Meaning
from fhir_profiles.compiler.finding import Finding
from fhir_profiles.profiles import Profiles

DOOR: Final = BARS_DOOR
OK: Final = 200
# All of a request is to be over within 5 s (BaRS, non-functional requirements).
PATIENCE: Final = 4.5
HELD: Final = "Held by the broker, not yet with the service."
TAKEN: Final = "With the service."
# Sent again after one of these, a request may fare better: it is not remembered as refused.
_PASSING: Final = frozenset({401, 403, 408, 425, 429})


@dataclass(frozen=True, slots=True)
class Arrived:
    """A request as it came: by whom, what its headers say, and its bytes."""

    caller: Caller
    headers: Headers
    body: bytes = field(repr=False)
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class PassedOn:
    """A referral whose service speaks BaRS; `is_unchanged`: it gets the very bytes that came."""

    message_id: str
    message: Message
    is_unchanged: bool


@dataclass(frozen=True, slots=True)
class Done:
    """What was made of a message: our answer, and what may yet be answered by its service."""

    answer: Answer
    passed_on: PassedOn | None = None


class Bars:
    """The front door for BaRS messages. Any number may run, in any number of processes."""

    def __init__(
        self, core: Core, intake: Intake, profiles: Profiles, broker: Target | None
    ) -> None:
        self._core = core
        self._intake = intake
        self._profiles = profiles
        self._broker = broker
        self._waiting = Waiting(core)

    async def process(self, arrived: Arrived) -> Answer:
        """Take a message in and return the message that answers it. Durable on return.

        Raises Refused with nothing stored but that it was refused, or Unavailable.
        """
        ends = asyncio.get_running_loop().time() + PATIENCE
        organisation, headers = arrived.caller.organisation, arrived.headers
        request = f"$process-message {headers.target}"
        async with self._core.answers.claim(
            organisation, headers.request_id, request, arrived.body, family=BARS
        ) as claimed:
            if claimed.used is not None:
                return await self._again(arrived, claimed, ends)
            try:
                done = await self._process(arrived, claimed)
            except Refused as refused:
                if ANSWERS[refused.code].status not in _PASSING:
                    await self._core.answers.remember_refusal(claimed, refused, arrived.caller)
                raise
            if done.passed_on is None:
                return done.answer
            return await self._word(arrived, done.passed_on, ends) or done.answer

    async def _again(self, arrived: Arrived, claimed: Claimed, ends: float) -> Answer:
        """Answer a request that was answered before: as it was refused, else that it was taken.

        Who cannot be told otherwise asks until the service has answered. Raises Refused.
        """
        if claimed.refused is not None:
            raise claimed.refused
        message_id = await self._referred(claimed)
        if message_id is not None:
            known = await self._core.directory.current()
            source = source_of(arrived.body)
            waits = not _hears(arrived.caller.organisation, source, known)
            word = await self._waiting.word(message_id, ends if waits else 0)
            if word.is_refused or (waits and word.is_given_up):
                return await self._refused(arrived, message_id, word)
            if waits and not word.is_taken:
                raise _not_yet(arrived.caller.organisation)
        raise Duplicate("This request was taken before; nothing was done again.")

    async def _referred(self, claimed: Claimed) -> str | None:
        """Return the message that a request sent; None where it moved one that was there."""
        if claimed.used is None:
            return None
        owner = claimed.used.owner_id
        message = await self._core.store.look_up(lambda c: messages.get(c, owner))
        return None if message is None else owner

    async def _process(self, arrived: Arrived, claimed: Claimed) -> Done:
        message = bars.read(read_object(arrived.body))
        findings = self._profiles.check(arrived.body, "BARSBundleMessage", read=message.bundle)
        known = await self._core.directory.current()
        understood = self._understand(arrived, message, findings, known)
        if understood.meaning is Meaning.REFERRAL:
            return await self._refer(arrived, understood, findings, known, claimed)
        said = Following(
            arrived.caller, message, understood.meaning, understood.place, arrived.body
        )
        message_id = await follow(self._core, said, claimed)
        by = Answering(message_id, datetime.now(UTC), SOFTWARE, self._core.source)
        return Done(Answer(OK, answering.answer(arrived.body, message, by)))

    def _understand(
        self, arrived: Arrived, message: Message, findings: Sequence[Finding], known: Directory
    ) -> Understood:
        target, organisation = arrived.headers.target, arrived.caller.organisation
        at_door = Receiving(target, organisation, known, self._broker)
        return understand(message, at_door, findings)

    # -- new referrals ---------------------------------------------------------------------------

    async def _refer(
        self,
        arrived: Arrived,
        first: Understood,
        findings: Sequence[Finding],
        first_known: Directory,
        claimed: Claimed,
    ) -> Done:
        organisation, message = arrived.caller.organisation, first.message

        def read(known: Directory, now: datetime) -> tuple[Any, Needs]:
            understood = first
            if known is not first_known:
                understood = self._understand(arrived, message, findings, known)
            needs = understanding.needs(understood, organisation, known, now)
            _check_can_be_told(organisation, understood, known)
            return (arrived.body, message), needs

        taken = await self._intake.take(
            Submission(
                caller=arrived.caller,
                door=DOOR,
                translator=Carried(),
                raw=message.bundle,
                read=read,
                answer=lambda prepared: self._held(arrived, message, prepared),
                repeats=False,
                facts=_form(first.place),
                conversation=arrived.headers.correlation_id,
                traceparent=arrived.traceparent,
            ),
            claimed,
        )
        made = taken.prepared.messages[0]
        place = next(one.destination for one in made.event.routes if one.role is Role.ACTING)
        if taken.directory.channel(place) != SPEAKS_BARS:
            return Done(taken.answer)
        return Done(taken.answer, PassedOn(made.row["id"], message, place == first.place))

    # -- what is passed on -----------------------------------------------------------------------

    async def _word(self, arrived: Arrived, passed: PassedOn, ends: float) -> Answer | None:
        """Return what a BaRS receiver says of a referral that was passed on to it, if it says it
        in time. None: it is held, and its sender will hear.

        Raises TimedOut where the sender could not hear: it must ask again.
        """
        word = await self._waiting.word(passed.message_id, ends)
        if word.is_taken:
            return self._taken(arrived, passed, word)
        if word.is_refused:
            return await self._refused(arrived, passed.message_id, word)
        organisation = arrived.caller.organisation
        known = await self._core.directory.current()
        if not _hears(organisation, passed.message.source, known):
            raise _not_yet(organisation)
        return None

    def _taken(self, arrived: Arrived, passed: PassedOn, word: Word) -> Answer:
        """Return the receiver's own answer; ours, where it got another message than was sent or
        said no more than that it has it."""
        answer, message = word.answer, passed.message
        by = Answering(passed.message_id, word.delivery.received_at, SOFTWARE, self._core.source)
        if passed.is_unchanged and answer is not None and answer.status == OK:
            return Answer(OK, answering.passed_on(answer.body, message, by))
        words = TAKEN
        if answer is not None and answer.reference is not None:
            words = f"{TAKEN} Its own reference is {answer.reference}."
        planned = Planned(codes.CASE_REFERENCE, answering.spoken(passed.message_id), words)
        return Answer(OK, answering.answer(arrived.body, message, by, planned))

    async def _refused(self, arrived: Arrived, message_id: str, word: Word) -> Answer:
        """Return the receiver's own refusal; the referral is over. Raises NotOffered where it gave
        none. Safe to repeat."""
        await close_refused(self._core, arrived.caller, message_id, word.delivery.id)
        code = word.delivery.code
        if not word.is_refused:
            raise NotOffered(
                f"This was given up ({code}): nothing proves that the service has it, and it is "
                "cancelled here. Please make sure that the patient is seen to."
            )
        if word.answer is not None:
            return Answer(word.answer.status, word.answer.body)
        raise NotOffered(f"The service does not take this ({code}); it was not sent.")

    def _held(self, arrived: Arrived, message: Message, prepared: Prepared) -> Answer:
        """Return the answer that claims no more than that the broker holds it."""
        made = prepared.messages[0].row
        by = Answering(made["id"], made["accepted_at"], SOFTWARE, self._core.source)
        planned = Planned(codes.CASE_REFERENCE, answering.spoken(made["id"]), HELD)
        return Answer(OK, answering.answer(arrived.body, message, by, planned))


def _form(place: Destination | None) -> dict[str, str]:
    """Return what the event of a BaRS message says of it: whose bytes it may go to unchanged."""
    return {"form": DOOR} if place is None else {"form": DOOR, "addressed": str(place)}


def _check_can_be_told(organisation: str, understood: Understood, known: Directory) -> None:
    """Raise NotOffered where nobody could tell the sender that it was not delivered after all.

    What is passed on at once to a BaRS receiver is answered by that receiver.
    """
    place = understood.place
    if place is not None and known.channel(place) == SPEAKS_BARS:
        return
    if not _hears(organisation, understood.message.source, known):
        raise NotOffered(
            f"{NOTHING} {organisation} has no inbox, webhook or BaRS server that takes notices, so "
            "it could not be told if this were not delivered. Have one entered in the directory."
        )


def _hears(organisation: str, source: Target | None, known: Directory) -> bool:
    """Whether a sender can be told of what becomes of its messages."""
    place = replies_to(Destination(organisation), source, known)
    return isinstance(routing.recheck(place, Kind.NOTICE, known), Endpoint)


def _not_yet(organisation: str) -> TimedOut:
    return TimedOut(
        "The service has not answered yet. Send this again as it was, with the same X-Request-Id, "
        f"until it has: {organisation} cannot be told otherwise."
    )
