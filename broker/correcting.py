"""Corrections: a whole new body replaces what was sent, and the replacement is judged anew.

A linked new version goes to whoever received the old one. A new escalation makes a new referral;
one that vanished cancels the joined referral if nobody has taken it on, else leaves it open and
says so; one that stands, and whose referral has had its course, is not made again. A change of
practice withdraws the old version from the old practice.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from broker import assigning, move_clocks, triage
from broker.access import Caller
from broker.answers import ROLE, Answer
from broker.attachments import enclosing
from broker.attachments.enclosing import Enclosing
from broker.audit import Entry
from broker.closing import closing
from broker.composition import POSTED
from broker.conversing import Conversing, check_same_thread
from broker.converting import before_of, came_of
from broker.core import Core
from broker.crashpoints import crashpoint
from broker.current_directory import StaleDirectory
from broker.directory import Directory
from broker.errors import Conflict, NotFound, Problem, Refused, Stale
from broker.events import Destination, Kind
from broker.moves import Found, Ready
from broker.moving import check_version
from broker.ports import Adapter, Needs, Want
from broker.preparing import Origin, Plan, Planned, Prepared, plan, prepare, pseudonym_of
from broker.reading import read_object, understand
from broker.retracting import Retractor
from broker.sent import Sent, check_standing, lock, read, retire
from broker.store import messages, referrals, triages, work
from broker.store.messages import NewMessage
from broker.store.tx import Connection, Tx
from fhir_profiles import strict_json

CORRECTED: Final = 200


@dataclass(frozen=True, slots=True)
class Correction:
    """A new body for a message that was sent, against the version that it is to replace."""

    caller: Caller
    adapter: Adapter
    message: str
    version: int | None
    body: bytes = field(repr=False)
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a correction comes to."""

    prepared: Prepared
    withdrawals: Sequence[NewMessage]
    cancels: Sequence[Ready]
    amended: Sequence[tuple[Found, Planned, NewMessage]]
    steps: Sequence[Ready]


class Correcting:
    """Replaces what was sent by what should have been sent."""

    def __init__(self, core: Core, enclosing: Enclosing, conversing: Conversing) -> None:
        self._core = core
        self._enclosing = enclosing
        self._conversing = conversing

    async def correct(self, asked: Correction) -> Answer:
        """Replace a message; durable on return. The same body again gets the same answer.

        Raises Refused, PreconditionRequired, Stale, Conflict, NotFound.
        """
        raw = read_object(asked.body)
        request_hmac = self._request_hmac(asked.message, asked.body)
        own = (await self._core.directory.current()).stands_for(asked.caller.organisation)
        sent = await self._core.store.read(lambda c: read(c, self._core.vault, asked.message, own))
        if sent is None or sent.message.door != asked.adapter.name:
            raise NotFound("There is nothing here for this caller.")
        known = await self._core.store.read(lambda c: self._repeated(c, sent, asked.body))
        if known is not None:
            return known
        check_standing(sent.message)
        if sent.message.reference_hmac is None:
            posted = await self._core.store.read(lambda c: messages.posted_with(c, sent.message))
            raise Conflict(
                "This message came of another one: "
                f"PUT {asked.adapter.door}/{posted} corrects both."
            )
        check_version(asked.version, sent.version, f"/messages/{asked.message}")
        if asked.adapter.withheld(raw) is not None:
            raise Conflict(
                f"The patient no longer consents: take it back with {_taking_back(sent.message)}."
            )
        while True:
            try:
                return await self._correct(asked, sent, raw, request_hmac)
            except StaleDirectory:
                continue
            except Stale:  # perhaps by the very same request, which was sent again too soon
                known = await self._core.store.read(lambda c: self._repeated(c, sent, asked.body))
                if known is None:
                    raise
                return known

    async def _correct(
        self, asked: Correction, sent: Sent, raw: Mapping[str, Any], request_hmac: str
    ) -> Answer:
        now = datetime.now(UTC)
        organisation, client = asked.caller.organisation, asked.caller.client_id
        directory = await self._core.directory.current()
        request, needs = understand(asked.adapter, raw, organisation, directory, now, sent.first_at)
        self._check_reference(sent, needs, directory.stands_for(organisation))
        answered = sent.answers.subject_id if sent.answers is not None else None
        ending = await closing(self._core, needs, asked.caller, directory, now, answered)
        needs = await self._conversing.about(ending.needs, asked.caller, directory)
        needs = await self._goes_on(needs, sent)
        check_same_thread(needs, sent.message.subject_id)
        version = self._core.directory.version
        planned = plan(asked.adapter, raw, needs, directory, now, sent.under_way)
        planned = assigning.following(planned, sent, self._core.vault)
        retractor = Retractor(self._core.vault, directory, self._core.source, now)
        before = await self._wanted_before(asked.adapter, sent, directory)
        called = await self._core.store.read(lambda c: assigning.called(c, sent))
        assigned = assigning.assign(planned, sent, before, called, retractor)
        assigning.check_can_be_changed(planned, assigned, directory)
        slots, amended = assigned.slots, assigned.amended
        abandoned = [one for one in sent.referrals if one not in amended.values()]
        cancels, left = retractor.cancellations(abandoned, organisation, client)
        if needs.closes is None or needs.closes.referral != answered:
            left += retractor.answered(sent)
        planned = Plan(
            needs,
            tuple(one for one in planned.planned if one.want.key in slots),
            planned.warnings,
            (*assigned.said, *left, *planned.read_first),
        )
        planned = assigning.taken(planned, amended)
        origin = Origin(
            organisation=organisation,
            client=client,
            door=asked.adapter.name,
            correlation_id=sent.message.correlation_id,
            source=self._core.source,
            reference_hmac=sent.message.reference_hmac,
            body_hmac=request_hmac,
            posted=asked.body,
            patient=pseudonym_of(self._core.vault, needs),
            traceparent=asked.traceparent,
        )
        owners = directory.stands_for(organisation)
        enclosures = await self._enclosing.look_up(
            needs.attachments, planned.routes, owners, directory, now
        )
        prepared = prepare(
            *(asked.adapter, request, planned, slots, origin, directory, self._core.vault, now),
            enclosures,
        )
        gone = _no_longer_told(sent, planned)
        parts = _Parts(
            prepared,
            [retractor.withdrawal(sent, gone, client, asked.adapter.name)] if gone else [],
            cancels,
            [
                (amended[one.want.key], one, new)
                for one, new in zip(planned.planned, prepared.messages, strict=True)
                if one.want.key in amended
            ],
            ending.steps(planned, asked.caller),
        )
        answer = Answer(
            CORRECTED,
            strict_json.dumps(
                {
                    **prepared.answer(),
                    "replaces": sent.message.id,
                    "cancelled": [f"/referrals/{one.found.row.subject_id}" for one in cancels],
                    "version": sent.version + 1,  # the subject is locked at the one that was read
                }
            ),
        )
        first = prepared.messages[0]
        kept = self._core.answers.seal(first.key, first.row["id"], organisation, answer, now)

        def write(tx: Tx) -> None:
            self._core.directory.check(tx, version)
            lock(tx, sent)
            enclosing.claim(tx, needs.attachments, owners)
            self._write(tx, asked, sent, parts)
            if kept.row is not None:
                messages.put_payloads(tx, [kept.row])

        await self._core.store.write(write)
        crashpoint("correction.written")
        return answer

    async def _goes_on(self, needs: Needs, sent: Sent) -> Needs:
        """Return the needs with what was said before, of what a request for advice became."""
        request = await self._core.store.read(lambda c: came_of(c, sent.message.subject_id))
        if request is None:
            return needs
        before = await self._core.store.read(lambda c: before_of(c, self._core.vault, request))
        return before.on(needs)

    async def _wanted_before(
        self, adapter: Adapter, sent: Sent, directory: Directory
    ) -> Mapping[str, Want]:
        """Return what the version to be replaced asked for, by key, if a referral of it has ended.

        Nothing where it cannot be read any more: whatever is asked for then counts as new.
        """
        if not sent.ended:
            return {}
        old = sent.message
        posted = await self._core.store.read(
            lambda c: messages.payload(c, self._core.vault, old.id, POSTED)
        )
        if posted is None:
            return {}
        try:
            _, needs = understand(
                adapter, read_object(posted.body), old.sender, directory, old.accepted_at
            )
        except Refused:
            return {}
        return {want.key: want for want in needs.wants}

    def _request_hmac(self, message: str, body: bytes) -> str:
        return self._core.vault.mac(f"request|PUT {message}", body)

    def _repeated(self, connection: Connection, sent: Sent, body: bytes) -> Answer | None:
        old = sent.message
        # Named by its referral, it is already the version that this very request made.
        later = messages.replacement_of(connection, old.id)
        for made, replaced in ((later, old.id), (old, old.replaces)):
            if made is None or replaced is None:
                continue
            if made.body_hmac == self._request_hmac(replaced, body):
                answer = messages.payload(connection, self._core.vault, made.id, ROLE)
                return Answer(CORRECTED, answer.body) if answer else None
        return None

    def _check_reference(self, sent: Sent, needs: Needs, own: Collection[str]) -> None:
        # Kept under the code that first posted it, whichever successor corrects it.
        reference = needs.reference.encode()
        given = {self._core.vault.mac(f"reference|{code}", reference) for code in own}
        if sent.message.reference_hmac not in given:
            problem = Problem(
                "reference",
                "reference-changed",
                "A correction carries the reference of what it corrects.",
                "Give the reference that the message was sent with.",
            )
            raise Refused("1 problem found; nothing was stored.", [problem])

    def _write(self, tx: Tx, asked: Correction, sent: Sent, parts: _Parts) -> None:
        old = sent.message
        for found, _, _ in parts.amended:
            subject = tx.lock_subject(found.row.subject_id)
            if subject is None or subject.version != found.row.version:
                raise Stale("The referral moved meanwhile. Read it again, then correct.")
        # The reference goes over to the version that stands.
        messages.release_reference(tx, old.id)
        for cancel in parts.cancels:
            cancel.write(tx)
        for new in (*parts.withdrawals, *parts.prepared.messages):
            messages.put(tx, new)
        for step in parts.steps:
            step.write(tx)
        for row in parts.prepared.referrals:
            referrals.put(tx, row)
        for found, _, new in parts.amended:
            work.carry(tx, found.row.message_id, new.row["id"], move_clocks.OWN)
        retire(tx, old, "replaced")
        for found, one, new in parts.amended:
            _amend(tx, found, one, new)
            if found.about.message.id != old.id:
                retire(tx, found.about.message, "replaced")
        tx.audit(
            Entry(
                "message.replaced",
                asked.caller.client_id,
                asked.caller.organisation,
                "message",
                old.id,
                {"by": parts.prepared.messages[0].row["id"]},
            )
        )


def _taking_back(message: Any) -> str:
    """Return the door that takes back what was sent: a referral is cancelled."""
    if message.kind == Kind.REFERRAL:
        return f"POST /referrals/{message.subject_id}/cancel with the reason patient-request"
    return f"POST /messages/{message.id}/withdrawal"


def _no_longer_told(sent: Sent, planned: Plan) -> list[Destination]:
    """Return the places that received the old version and do not get the new one."""
    told = {
        route.destination
        for one in planned.planned
        if one.want.kind == sent.message.kind
        for route in one.routes
    }
    return [place for place in sent.places if place not in told]


def _amend(tx: Tx, found: Found, one: Planned, new: NewMessage) -> None:
    """Let the referral's newest message be the one that stands."""
    before = triage.of(found.row)
    after = triage.amended(found.row, one.asked or one.want.priority)
    referrals.change(
        tx,
        found.row.subject_id,
        message_id=new.row["id"],
        priority=after.priority.value,
        practice=new.row["practice"],
    )
    if after.kept != before.kept:
        triages.put(tx, found.row.subject_id, **after.kept)
