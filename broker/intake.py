"""Intake: the one way in. Answered only when durable; nothing half-done is left behind.

A request is read, understood, routed, translated and sealed; then one transaction stores key,
messages, events, payloads, referrals, deadlines and audit entries together.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from broker import conversing, similar
from broker.access import Caller
from broker.answers import Answer, Claimed, Kept
from broker.attachments import enclosing
from broker.attachments.enclosing import Enclosing
from broker.audit import Entry
from broker.closing import closing
from broker.conversing import Conversing
from broker.core import Core
from broker.crashpoints import crashpoint
from broker.current_directory import StaleDirectory
from broker.directory import Directory
from broker.errors import Conflict, Problem, Refused, Stale
from broker.events import Kind, digest, uuid7
from broker.moves import Ready
from broker.ports import Adapter, Enclosed, Needs, Talks, Translator, Withheld
from broker.preparing import Origin, Prepared, new_slot, plan, prepare, pseudonym_of
from broker.reading import own, read_object, understand
from broker.store import keys, messages, referrals
from broker.store.tx import Tx
from fhir_profiles import strict_json

ACCEPTED: Final = 202
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Posted:
    """A request as it came: by whom, at which door, with which key, and its bytes."""

    caller: Caller
    adapter: Adapter
    key: str | None
    body: bytes = field(repr=False)
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """What a door has made of a request, before it is known where it goes.

    `read` understands it by the directory of the moment and may refuse it. `answer` is what its
    sender is told, and gets again if it `repeats`. `posted` is kept where the content is not itself
    what was posted; `facts` stand in the event. A `correlation_id` joins it to what it goes on
    from; beside its sender `owners` may have uploaded what it encloses; `steps` are the moves that
    it makes of another referral.
    """

    caller: Caller
    door: str
    translator: Translator
    raw: Mapping[str, Any] = field(repr=False)
    read: Callable[[Directory, datetime], tuple[Any, Needs]]
    answer: Callable[[Prepared], Answer]
    repeats: bool = True
    posted: bytes | None = field(default=None, repr=False)
    facts: Mapping[str, str] = field(default_factory=dict)
    conversation: str | None = None
    correlation_id: str | None = None
    owners: frozenset[str] = frozenset()
    steps: Callable[[Prepared, Directory, datetime], Awaitable[Sequence[Ready]]] | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a submission, by which directory, and what its sender is told."""

    prepared: Prepared
    answer: Answer
    directory: Directory


class Intake:
    """Takes requests in. One per process; any number of processes."""

    def __init__(self, core: Core, enclosing: Enclosing, conversing: Conversing) -> None:
        self._core = core
        self._enclosing = enclosing
        self._conversing = conversing

    async def accept(self, posted: Posted) -> Answer:
        """Take a request in. Durable on return; a repeat gets the same answer again.

        Raises Refused with nothing stored, or Unavailable, after which it may be sent again.
        """
        adapter, organisation = posted.adapter, posted.caller.organisation
        door = f"POST {adapter.door}"
        async with self._core.answers.claim(organisation, posted.key, door, posted.body) as claimed:
            if claimed.known is not None:
                return claimed.known
            raw = read_object(posted.body)
            crashpoint("intake.parsed")
            withheld = adapter.withheld(raw)
            if withheld is not None:
                return await self._withhold(posted, withheld, claimed)
            submission = Submission(
                caller=posted.caller,
                door=adapter.name,
                translator=adapter,
                raw=raw,
                read=lambda known, now: understand(adapter, raw, organisation, known, now),
                answer=told,
                posted=posted.body,
                traceparent=posted.traceparent,
            )
            return (await self.take(submission, claimed)).answer

    # -- taking ----------------------------------------------------------------------------------

    async def take(self, submission: Submission, claimed: Claimed) -> Taken:
        """Route, translate and store what a door has read; durable on return.

        Uses the key up. Raises Refused with nothing stored.
        """
        caller = submission.caller
        while True:
            now = datetime.now(UTC)
            directory = await self._core.directory.current()
            request, needs = submission.read(directory, now)
            ending = await closing(self._core, needs, caller, directory, now)
            needs = await self._conversing.about(ending.needs, caller, directory)
            version = self._core.directory.version
            translator = submission.translator
            planned = replace(
                plan(translator, submission.raw, needs, directory, now),
                aside=await self._known_to_sender(needs, directory, now),
            )
            owners = directory.stands_for(needs.organisation) | submission.owners
            enclosures = await self._enclosing.look_up(
                needs.attachments, planned.routes, owners, directory, now
            )
            origin = self._origin(submission, needs, claimed)
            slots = {
                one.want.key: conversing.slot(
                    new_slot(one.want, needs.subject, submission.facts), needs.talks
                )
                for one in planned.planned
            }
            prepared = prepare(
                *(translator, request, planned, slots, origin, directory, self._core.vault, now),
                enclosures,
            )
            steps = ending.steps(planned, caller)
            if submission.steps is not None:
                steps += await submission.steps(prepared, directory, now)
            answer = submission.answer(prepared)
            kept = self._kept(submission, prepared, answer, now)
            crashpoint("intake.sealed")

            def write(
                tx: Tx,
                prepared: Prepared = prepared,
                kept: Kept = kept,
                version: int = version,
                steps: Sequence[Ready] = steps,
                talks: Talks | None = needs.talks,
                named: Sequence[Enclosed] = needs.attachments,
                owners: Collection[str] = owners,
            ) -> None:
                self._core.directory.check(tx, version)
                self._core.answers.keep(tx, claimed, kept)
                enclosing.claim(tx, named, owners)
                self._write(tx, submission, prepared)
                conversing.write(tx, talks, prepared.messages[0].event.subject)
                for step in steps:
                    step.write(tx)

            try:
                await self._core.store.write(write)
            except (StaleDirectory, Stale):  # judged anew
                continue
            crashpoint("intake.before-answer")
            for new in prepared.messages:
                log.info(
                    "message.accepted",
                    correlation_id=origin.correlation_id,
                    message_id=new.row["id"],
                    kind=new.row["kind"],
                    priority=new.row["priority"],
                    door=new.row["door"],
                    organisation=caller.organisation,
                )
            return Taken(prepared, answer, directory)

    async def _known_to_sender(
        self, needs: Needs, directory: Directory, now: datetime
    ) -> tuple[Problem, ...]:
        vault = self._core.vault
        return await self._core.store.look_up(
            lambda connection: similar.known_to_sender(connection, vault, needs, directory, now)
        )

    def _origin(self, submission: Submission, needs: Needs, claimed: Claimed) -> Origin:
        caller, vault = submission.caller, self._core.vault
        return Origin(
            organisation=caller.organisation,
            client=caller.client_id,
            door=submission.door,
            correlation_id=submission.correlation_id or uuid7(),
            conversation=submission.conversation,
            source=self._core.source,
            reference_hmac=self.reference(caller.organisation, needs.reference),
            body_hmac=claimed.request_hmac,
            posted=submission.posted,
            patient=pseudonym_of(vault, needs),
            traceparent=submission.traceparent,
        )

    def _kept(
        self, submission: Submission, prepared: Prepared, answer: Answer, now: datetime
    ) -> Kept:
        first = prepared.messages[0]
        if not submission.repeats:
            return Kept(first.row["id"], answer.status, None)
        organisation = submission.caller.organisation
        return self._core.answers.seal(first.key, first.row["id"], organisation, answer, now)

    def reference(self, organisation: str, reference: str) -> str:
        """Return the HMAC under which a sender's own reference is kept."""
        return self._core.vault.mac(f"reference|{organisation}", reference.encode())

    def _write(self, tx: Tx, submission: Submission, prepared: Prepared) -> None:
        caller, first = submission.caller, prepared.messages[0].row
        path = submission.translator.paths.reference
        _refuse_known_reference(tx, first["sender"], first["reference_hmac"], path)
        for new in prepared.messages:
            messages.put(tx, new)
            tx.audit(
                Entry(
                    "message.accepted",
                    caller.client_id,
                    caller.organisation,
                    "message",
                    new.row["id"],
                    {
                        "kind": new.row["kind"],
                        "door": new.row["door"],
                        "content": digest(new.payloads[0]["sealed"]),
                    },
                )
            )
        for row in prepared.referrals:
            referrals.put(tx, row)

    # -- withholding -----------------------------------------------------------------------------

    async def _withhold(
        self,
        posted: Posted,
        withheld: Withheld,
        claimed: Claimed,
    ) -> Answer:
        """The patient refused: keep that it was refused, and nothing else of what was posted."""
        if withheld.problems:
            raise Refused.all_of(withheld.problems)
        organisation = posted.caller.organisation
        own(withheld.organisation, organisation)
        reference_hmac = self.reference(organisation, withheld.reference)
        row = _withheld_row(posted, withheld.kind, reference_hmac, claimed.request_hmac)

        def write(tx: Tx) -> tuple[str, datetime]:
            used = keys.find(tx.connection, claimed.scope)
            if used is not None:
                known = messages.get(tx.connection, used.owner_id)
                return used.owner_id, known.accepted_at if known else tx.now
            _refuse_known_reference(
                tx, organisation, reference_hmac, posted.adapter.paths.reference
            )
            messages.put_withheld(tx, row)
            tx.audit(
                Entry(
                    "message.withheld",
                    posted.caller.client_id,
                    organisation,
                    "message",
                    row["id"],
                    {"door": posted.adapter.name},
                )
            )
            self._core.answers.keep(tx, claimed, Kept(row["id"], ACCEPTED, None))
            return row["id"], tx.now

        message_id, at = await self._core.store.write(write)
        body = {
            "read_first": list(withheld.read_first),
            "messages": [
                {
                    "id": message_id,
                    "kind": withheld.kind,
                    "status": "withheld",
                    "url": f"/messages/{message_id}",
                    "destinations": [],
                    "deadlines": [],
                }
            ],
            "accepted_at": at.isoformat(),
            "warnings": [],
        }
        return Answer(ACCEPTED, strict_json.dumps(body))


def told(prepared: Prepared) -> Answer:
    """Return what the sender of a native body is answered."""
    return Answer(ACCEPTED, strict_json.dumps(prepared.answer()))


def _refuse_known_reference(tx: Tx, sender: str, reference_hmac: str, path: str) -> None:
    known = messages.of_reference(tx.connection, sender, reference_hmac)
    if known is None:
        return
    todo = "To correct what was sent, PUT its new body; anything else needs a reference of its own."
    named = messages.get(tx.connection, known)
    if named is not None and named.status == "withheld":
        todo = "Nothing was sent under it; use a reference of its own."
    raise Conflict(
        f"Your reference was used before, for message {known}. {todo}",
        [Problem(path, "reference-used", f"It names message {known}.", "Use another.")],
    )


def _withheld_row(
    posted: Posted, kind: Kind, reference_hmac: str, body_hmac: str
) -> dict[str, Any]:
    """Return the row of a message that was not sent: no event, subject, payload or patient."""
    return {
        "id": uuid7(),
        "kind": kind.value,
        "status": "withheld",
        "subject_id": None,
        "event_id": None,
        "key_id": None,
        "door": posted.adapter.name,
        "sender": posted.caller.organisation,
        "client_id": posted.caller.client_id,
        "reference_hmac": reference_hmac,
        "body_hmac": body_hmac,
        "correlation_id": uuid7(),
        "replaces": None,
        "version": 1,
        "pathway": "",
        "pathway_version": "",
        "priority": "routine",
        "practice": None,
        "patient_pseudonym": None,
        "pseudonym_key": None,
        "identity_verified": False,
        "label": "N",
        "consent": False,
        "agreement": None,
        "purpose": "direct-care",
        "warnings": [],
        "closed_reason": None,
    }
