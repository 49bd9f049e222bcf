"""Taking back: a message entered in error is withdrawn from whoever got it; a loop is closed.

`Retractor` draws up the parts that corrections need too: the withdrawal of one version from one
place, and the cancelling of a joined referral that nobody has accepted yet.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from broker import referral
from broker.access import Caller
from broker.acknowledging import STAYS_OPEN
from broker.answers import Answer, Claimed
from broker.audit import Entry
from broker.composition import Composing, compose
from broker.core import Core
from broker.crashpoints import crashpoint
from broker.deadlines import DeadlineKind
from broker.directory import Directory
from broker.errors import Conflict, Gone, NotFound, Problem, Refused, Stale
from broker.events import (
    UPDATE_WITHDRAWN,
    Destination,
    Kind,
    Priority,
    Route,
    caused_id,
)
from broker.moves import Found, Mover, Ready
from broker.preparing import COMMUNICATIONS
from broker.reading import read_object, unknown_code
from broker.referral import State
from broker.sent import Sent, check_standing, lock, read, retire
from broker.store import messages, work
from broker.store.messages import NewMessage
from broker.store.tx import Tx
from broker.vault import Vault
from fhir_profiles import focus, strict_json
from fhir_profiles.message import Site

ENTERED_IN_ERROR: Final = "entered-in-error"
CLOSURES: Final[Mapping[str, str]] = {
    "sent-another-way": "sent to the right place another way",
    "told-by-telephone": "told by telephone",
    "patient-told": "the patient has been told what to do",
    "no-longer-needed": "no longer needed",
    "duplicate": "the same was sent already",
}
# Until somebody at the receiver has taken the patient on, a referral may be cancelled unseen.
NOT_TAKEN_ON: Final = frozenset({State.REQUESTED, State.RECEIVED, State.INFORMATION_REQUESTED})


@dataclass(frozen=True, slots=True)
class Retractor:
    """Draws up what is taken back: with whose keys, by which directory, and at which time."""

    vault: Vault
    directory: Directory
    source: str
    now: datetime

    def withdrawal(
        self, sent: Sent, to: Sequence[Destination], client: str, door: str
    ) -> NewMessage:
        """Compose the word to these places that a message was entered in error.

        It is as urgent as what it withdraws, but asks for nothing to be done today: no call is due.
        """
        old = sent.message
        cause = f"{old.id}"
        kind = "withdrawal" if len(to) == len(sent.places) else f"withdrawal {to[0]}"
        message_id = caused_id(cause, "retracting", kind, "message")
        sender = self.directory.party(Destination(old.sender))
        receiver = self.directory.party(to[0])
        content = focus.notice(
            message_id,
            topic="message-withdrawn",
            text=(
                f"{sender.name} withdraws its message of {old.accepted_at:%d %B %Y, %H:%M} UTC: "
                "it was entered in error. Mark what you filed of it as entered in error."
            ),
            sent=self.now,
            sender=Site(sender.ods, sender.name),
            receiver=Site(receiver.ods, receiver.name, receiver.service),
            original=sent.about.original,
            subject=old.subject_id,
        )
        return compose(
            self.vault,
            Composing(
                id=message_id,
                kind=Kind.UPDATE,
                subject=old.subject_id,
                event_type=UPDATE_WITHDRAWN,
                event_id=caused_id(cause, "retracting", kind, "event"),
                source=self.source,
                sender=old.sender,
                client=client,
                door=door,
                correlation_id=old.correlation_id,
                conversation=old.conversation,
                content=content.body,
                focus=content.focus,
                routes=tuple(
                    Route(route.destination, route.role, "received what is withdrawn")
                    for route in sent.routes
                    if route.destination in to
                ),
                priority=Priority(old.priority),
                happened=self.now,
                now=self.now,
                causation_id=old.event_id,
                replaces=old.id,
                version=old.version + 1,
                pathway=old.pathway,
                pathway_version=old.pathway_version,
                practice=old.practice,
                identity_verified=old.identity_verified,
                label=old.label,
                consent=old.consent,
                agreement=old.agreement,
                purpose=old.purpose,
                unclocked=frozenset({DeadlineKind.TELEPHONE}),
                facts={"reason": "withdrawn", "about": old.id, **_supersedes(old)},
            ),
        )

    def cancellation(self, found: Found, organisation: str, client: str) -> Ready | None:
        """Draw up the cancelling of a joined referral; None where somebody has taken it on."""
        if State(found.row.state) not in NOT_TAKEN_ON:
            return None
        mover = Mover(self.vault, self.directory, self.source, self.now)
        cancel = referral.MOVES["cancel"]
        return mover.ready(found, cancel, {"reason": ENTERED_IN_ERROR}, organisation, client)

    def cancellations(
        self, found: Sequence[Found], organisation: str, client: str
    ) -> tuple[list[Ready], list[str]]:
        """Cancel what nobody has taken on; say of each whether it is cancelled or stays open."""
        ready, said = [], []
        for one in found:
            cancelling = self.cancellation(one, organisation, client)
            if cancelling is None:
                said.append(self.standing(one, "stays open"))
                continue
            ready.append(cancelling)
            place = Destination(one.row.receiver, one.row.receiver_service)
            said.append(
                f"The referral /referrals/{one.row.subject_id} is cancelled, and "
                f"{self.directory.name(place)} is told. If you telephoned there, telephone again."
            )
        return ready, said

    def answered(self, sent: Sent) -> list[str]:
        """Say that the referral which the message answered stays as that left it; whom to tell."""
        row = sent.answers
        if row is None:
            return []
        stage = referral.STAGES[State(row.state)].words
        who = self.directory.whom_to_telephone(Destination(row.sender), self.now)
        return [
            f"The referral /referrals/{row.subject_id} stays {stage}, though the message that said "
            f"so no longer answers it. {who}"
        ]

    def standing(self, found: Found, becomes: str) -> str:
        """Say what becomes of a joined referral, how its receiver has it, and whom to telephone."""
        row = found.row
        place = Destination(row.receiver, row.receiver_service)
        stage = referral.STAGES[State(row.state)].words
        return (
            f"The referral /referrals/{row.subject_id} {becomes}: {self.directory.name(place)} has "
            f"it as {stage}. {self.directory.whom_to_telephone(place, self.now)}"
        )


@dataclass(frozen=True, slots=True)
class Retraction:
    """A withdrawal or closure that somebody asks for."""

    caller: Caller
    message: str
    key: str | None
    body: bytes = field(repr=False)


class Retracting:
    """The doors that take a message back or close its loop."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def withdraw(self, asked: Retraction) -> Answer:
        """Withdraw a message as entered in error, at any time, also after it was filed."""
        request = f"POST /messages/{asked.message}/withdrawal"
        organisation = asked.caller.organisation
        async with self._core.answers.claim(
            organisation, asked.key, request, asked.body
        ) as claimed:
            return claimed.known or await _until_it_stands(lambda: self._withdraw(asked, claimed))

    async def _withdraw(self, asked: Retraction, claimed: Claimed) -> Answer:
        _nothing_but(asked.body, {})
        sent = await self._read(asked)
        old = sent.message
        if old.kind == Kind.REFERRAL:
            raise Conflict(
                f"This is a referral: POST /referrals/{old.subject_id}/cancel with the reason "
                f"{ENTERED_IN_ERROR}."
            )
        now = datetime.now(UTC)
        directory = await self._core.directory.current()
        retractor = Retractor(self._core.vault, directory, self._core.source, now)
        client, organisation = asked.caller.client_id, asked.caller.organisation
        new = retractor.withdrawal(sent, sent.places, client, old.door)
        cancels, said = retractor.cancellations(sent.referrals, organisation, client)
        said += retractor.answered(sent)
        answer = Answer(
            202,
            strict_json.dumps(
                {
                    "read_first": said,
                    "message": new.row["id"],
                    "withdraws": old.id,
                    "cancelled": [f"/referrals/{one.found.row.subject_id}" for one in cancels],
                    "told": [str(place) for place in sent.places],
                }
            ),
        )
        kept = self._core.answers.seal(new.key, new.row["id"], organisation, answer, now)

        def write(tx: Tx) -> None:
            lock(tx, sent)
            messages.put(tx, new)
            for cancel in cancels:
                cancel.write(tx)
            retire(tx, old, "withdrawn")
            tx.audit(Entry("message.withdrawn", client, organisation, "message", old.id))
            self._core.answers.keep(tx, claimed, kept)

        await self._core.store.write(write)
        crashpoint("withdrawal.written")
        return answer

    async def close(self, asked: Retraction) -> Answer:
        """Close the open loop of an update with a coded reason: it leaves its lists.

        Of a referral, only that its copy was rejected as not registered here; its course goes on.
        """
        request = f"POST /messages/{asked.message}/closure"
        organisation = asked.caller.organisation
        async with self._core.answers.claim(
            organisation, asked.key, request, asked.body
        ) as claimed:
            return claimed.known or await _until_it_stands(lambda: self._close(asked, claimed))

    async def _close(self, asked: Retraction, claimed: Claimed) -> Answer:
        reason = _nothing_but(asked.body, CLOSURES)
        sent = await self._read(asked)
        old, organisation = sent.message, asked.caller.organisation
        is_referral = old.kind == Kind.REFERRAL
        if is_referral and not await self._has_a_stray_copy(old.id):
            raise Conflict(
                "A referral closes by its moves: complete it, reject it or "
                f"POST /referrals/{old.subject_id}/cancel."
            )
        answer = Answer(200, strict_json.dumps({"message": old.id, "closed": reason}))
        if old.status == "closed":
            if old.closed_reason != reason:
                raise Conflict(f"This message was already closed: {old.closed_reason}.")
            return answer
        now = datetime.now(UTC)
        key = await self._core.store.read(
            lambda c: messages.key_of(c, self._core.vault, old.key_id)
        )
        if key is None:
            raise Gone("This message has been erased under the retention rules.")
        owner = caused_id(old.id, "retracting", organisation, "closure", sent.version)
        kept = self._core.answers.seal(key, owner, organisation, answer, now)

        def write(tx: Tx) -> None:
            lock(tx, sent)
            if is_referral:
                work.close_items(tx, reason, code=STAYS_OPEN, message_id=old.id)
            else:
                work.lapse(tx, old.id, "closed")
                work.leave_lists(tx, reason, old.id)
                messages.set_status(tx, old.id, "closed", reason)
            tx.bump(old.subject_id)
            tx.audit(
                Entry(
                    "message.closed",
                    asked.caller.client_id,
                    organisation,
                    "message",
                    old.id,
                    {"what": STAYS_OPEN if is_referral else "update", "reason": reason},
                )
            )
            self._core.answers.keep(tx, claimed, kept)

        await self._core.store.write(write)
        return answer

    async def _has_a_stray_copy(self, message_id: str) -> bool:
        """Whether a copy, rejected as not registered here, still waits for the sender."""
        items = await self._core.store.read(lambda c: work.items_of(c, message_id))
        return any(one.code == STAYS_OPEN for one in items)

    async def _read(self, asked: Retraction) -> Sent:
        own = (await self._core.directory.current()).stands_for(asked.caller.organisation)
        sent = await self._core.store.read(lambda c: read(c, self._core.vault, asked.message, own))
        if sent is None:
            raise NotFound("There is nothing here for this caller.")
        check_standing(sent.message)
        return sent


async def _until_it_stands(draw_up: Callable[[], Awaitable[Answer]]) -> Answer:
    """Draw up and write, anew where the message changed in between: the caller named no version."""
    while True:
        try:
            return await draw_up()
        except Stale:
            continue


def _supersedes(old: Any) -> dict[str, str]:
    """Say that nothing earlier need be sent any more; in a thread the rest was said all the same,
    and who gets this gets what it withdraws first."""
    return {} if old.door == COMMUNICATIONS else {"supersedes": "unsent"}


def _nothing_but(body: bytes, reasons: Mapping[str, str]) -> str:
    """Read a body that holds a coded reason, or nothing at all. Raises Refused."""
    content = read_object(body) if body else {}
    problems = [
        Problem(name, "unknown-field", f"There is no field {name}.", "Leave it out.")
        for name in content
        if name != "reason" or not reasons
    ]
    reason = content.get("reason")
    if reasons and not (isinstance(reason, str) and reason in reasons):
        todo = f"Give one of: {', '.join(reasons)}."
        problems.append(unknown_code("reason", reason, todo))
    if problems:
        raise Refused.all_of(problems)
    return str(reason or "")
