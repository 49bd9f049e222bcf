"""A request for advice becomes a referral with everything that was said: nobody types it again.

The words are those that were posted, on the pathway that is named now; what was asked, answered and
advised goes along, and so do the images. Who asked converts, and its receiver only where the
request allows it: the new referral is theirs who asked all the same. In one transaction with the
end of the request. See docs/adr/0023-advice-becomes-a-referral.md.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from broker import conversing, moves
from broker.access import Caller
from broker.answers import Answer
from broker.composition import POSTED
from broker.core import Core
from broker.directory import Directory
from broker.errors import Conflict, NotFound, Problem, Refused
from broker.events import REFERRAL_MOVED
from broker.intake import Intake, Submission, told
from broker.moves import Found, Mover, Ready
from broker.moving import NOT_HERE, Asked, check_version
from broker.ports import Adapter, Needs
from broker.preparing import TALK, Prepared
from broker.reading import read_object, understand
from broker.referral import Relation, State
from broker.steps import Wanted, steps_to
from broker.store import ledger, messages, threads
from broker.store.tx import Connection
from broker.vault import Vault
from fhir_profiles import strict_json
from fhir_profiles.pathways.catalogue import catalogue

CAME_OF: Final = "came-of"
"""What the events of a referral say of the request for advice that it was made of: its subject."""
_ALLOWED: Final = "may_convert"
# What was said of the request alone: the referral has another pathway, and goes somewhere else.
_NOT_CARRIED: Final = frozenset(
    {"reference", "pathway", "reason", "red_flags", "provider", _ALLOWED}
)
# Who the patient is, and that they agree, nobody says anew.
_KEPT: Final = frozenset({"patient", "consent", "clinician", "practice", _ALLOWED})
# What a move may carry that somebody said to somebody.
_SAID: Final = ("question", "answer", "advice", "outcome", "note")


@dataclass(frozen=True, slots=True)
class _Case:
    """A request for advice as it stands, and the body that was posted."""

    found: Found
    posted: Mapping[str, Any]
    enclosed: tuple[Mapping[str, Any], ...]
    owners: frozenset[str]
    """Who uploaded what goes along: the parties of the conversation."""


@dataclass(frozen=True, slots=True)
class Before:
    """What a referral goes on from: the request's message, and what was said about it."""

    message: str
    said: tuple[str, ...]

    def on(self, needs: Needs) -> Needs:
        """Return the needs of a referral that goes on from it."""
        return replace(needs, based_on=self.message, said_before=self.said)


class Converting:
    """Makes referrals of requests for advice."""

    def __init__(self, core: Core, intake: Intake, adapters: Mapping[str, Adapter]) -> None:
        self._core = core
        self._intake = intake
        self._adapters = adapters

    async def convert(self, asked: Asked) -> Answer:
        """Make a referral of a request; durable on return, and the request has ended.

        The body names the `pathway`, its `reason` and a `reference` of the new referral's own, and
        any field of the sender's own form that the request did not say, or said otherwise. Raises
        NotFound, Refused, PreconditionRequired, Stale, Conflict.
        """
        organisation = asked.caller.organisation
        request = f"POST /referrals/{asked.subject}/convert"
        async with self._core.answers.claim(
            organisation, asked.key, request, asked.body
        ) as claimed:
            if claimed.known is not None:
                return claimed.known
            said = read_object(asked.body)
            case = await self._read(asked)
            row, message = case.found.row, case.found.about.message
            adapter = self._adapters[message.door]
            _check(said, case)
            body = {
                **{name: it for name, it in case.posted.items() if name not in _NOT_CARRIED},
                # The case is assessed anew, and the patient's time on the new pathway begins.
                "assessed_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "attachments": list(case.enclosed),
                **said,
            }
            before = await self._core.store.read(
                lambda c: before_of(c, self._core.vault, row.subject_id)
            )

            def read(directory: Directory, now: datetime) -> tuple[Any, Needs]:
                form, needs = understand(adapter, body, row.sender, directory, now)
                if catalogue().entries[needs.wants[0].pathway].becomes_referral:
                    raise _refused("pathway", "is-for-advice", "That is for advice, too.")
                return form, before.on(needs)

            async def steps(made: Prepared, directory: Directory, now: datetime) -> list[Ready]:
                new = made.messages[0].row
                again = await self._read(asked)
                mover = Mover(self._core.vault, directory, self._core.source, now)
                by = _by(again.found, asked.caller, directory)
                wanted = _end(again.found, by, new["id"], new["pathway"])
                return steps_to(mover, again.found, wanted, asked.caller)

            submission = Submission(
                # It is whoever asked that refers, whose system it was.
                caller=Caller(asked.caller.client_id, row.sender, asked.caller.scopes),
                door=adapter.name,
                translator=adapter,
                raw=body,
                read=read,
                answer=told,
                posted=strict_json.dumps(body),
                facts={CAME_OF: row.subject_id},
                correlation_id=message.correlation_id,
                owners=case.owners,
                steps=steps,
            )
            return (await self._intake.take(submission, claimed)).answer

    async def _read(self, asked: Asked) -> _Case:
        directory = await self._core.directory.current()
        return await self._core.store.read(lambda c: self._case(c, asked, directory))

    def _case(self, connection: Connection, asked: Asked, directory: Directory) -> _Case:
        found = moves.find(connection, self._core.vault, asked.subject)
        if found is None:
            raise NotFound(NOT_HERE)
        row, message = found.row, found.about.message
        check_version(asked.version, row.version, f"/referrals/{asked.subject}")
        entry = catalogue().entries.get(row.pathway)
        if entry is None or not entry.becomes_referral:
            raise Conflict("This is no request for advice: redirect it, or refer anew.")
        opened = messages.payload(connection, self._core.vault, message.id, POSTED)
        if opened is None or message.door not in self._adapters:
            raise Conflict("This request came as FHIR, in nobody's own words: refer anew.")
        posted = read_object(opened.body)
        is_sender = _by(found, asked.caller, directory) is Relation.SENDER
        if not is_sender and posted.get(_ALLOWED) is not True:
            raise Conflict(
                "Who asked has not allowed that its receiver makes a referral of it. Recommend one "
                "(the outcome referral-recommended): then it is theirs to convert."
            )
        said = list(_conversation(connection, row.subject_id, row.sender))
        bodies = messages.payloads(
            connection, self._core.vault, [one.id for _, one in said], POSTED
        )
        enclosed = [*posted.get("attachments", ())]
        for body in bodies.values():
            enclosed += read_object(body.body).get("attachments", ())
        return _Case(
            found,
            posted,
            tuple({one["id"]: one for one in enclosed}.values()),
            frozenset(one.sender for _, one in said),
        )


def _check(said: Mapping[str, Any], case: _Case) -> None:
    """Raise Refused where a body says anew who the patient is or who refers, or names what does not
    belong to the case: that is carried over as it was said."""
    parties = {name for name, it in case.posted.items() if isinstance(it, dict) and "ods" in it}
    problems = [
        Problem(name, "carried-over", "It is carried over as it was said.", "Leave it out.")
        for name in sorted((_KEPT | parties - _NOT_CARRIED) & said.keys())
    ]
    known = {one["id"] for one in case.enclosed}
    chosen = said.get("attachments", ())
    for at, one in enumerate(chosen if isinstance(chosen, list) else ()):
        if isinstance(one, dict) and one.get("id") not in known:
            detail = "This was neither sent with the request nor in what was said about it."
            todo = "Name only what was, or leave `attachments` out: then all of it goes along."
            problems.append(Problem(f"attachments[{at}].id", "unknown-attachment", detail, todo))
    if problems:
        raise Refused.all_of(problems)


def before_of(connection: Connection, vault: Vault, subject: str) -> Before:
    """Return what a referral goes on from that was made of this request."""
    found = moves.find(connection, vault, subject)
    if found is None:
        raise NotFound(NOT_HERE)
    sender = found.row.sender
    said: list[tuple[datetime, str, str]] = []
    talk = list(_conversation(connection, subject, sender))
    contents = messages.payloads(connection, vault, [event.id for event, _ in talk], "content")
    for event, row in talk:
        words = conversing.words(contents[event.id].body) if event.id in contents else None
        if words is not None:
            said.append((row.accepted_at, row.sender, f"{event.facts[TALK]}: {words['text']}"))
    moved = [one for one in ledger.events_of(connection, subject) if one.type == REFERRAL_MOVED]
    opened = messages.payloads(connection, vault, [one.id for one in moved], moves.SAID)
    for event in moved:
        content = strict_json.loads(opened[event.id].body) if event.id in opened else {}
        said += [
            (event.time, event.facts["by"], f"{name}: {content[name]}")
            for name in _SAID
            if content.get(name)
        ]
    lines = tuple(f"{at:%Y-%m-%d %H:%M}, {by}, {words}" for at, by, words in sorted(said))
    return Before(found.row.message_id, lines)


def came_of(connection: Connection, subject: str) -> str | None:
    """Return the request that a referral was made of, by its subject."""
    events = ledger.events_of(connection, subject)
    return events[0].facts.get(CAME_OF) if events else None


def _conversation(
    connection: Connection, subject: str, requester: str
) -> Iterator[tuple[Any, Any]]:
    """Yield the event and the message of all that who asked said or was told about a request."""
    for thread in threads.about(connection, subject):
        events = [one for one in ledger.events_of(connection, thread) if TALK in one.facts]
        rows = messages.by_id(connection, [one.message_id for one in events if one.message_id])
        for event in events:
            row = rows.get(event.message_id or "")
            if row is None or row.status != "sent":
                continue
            if row.sender == requester or any(
                route.destination.ods == requester for route in event.routes
            ):
                yield event, row


def _by(found: Found, caller: Caller, directory: Directory) -> Relation:
    """Return as what somebody converts: as who asked, where they are both."""
    held = moves.relations(found.row, caller.organisation, directory)
    return Relation.SENDER if Relation.SENDER in held else held[0]


def _end(found: Found, by: Relation, new: str, pathway: str) -> Wanted:
    """Return how the request ends: it has become what was asked about."""
    words = f"It became a referral ({catalogue().entries[pathway].name}): /messages/{new}"
    if by is not Relation.SENDER:
        return Wanted("complete", {"outcome": words})
    if State(found.row.state) in {State.REJECTED, State.EXPIRED}:
        return Wanted("resolve", {"note": words})
    return Wanted("cancel", {"reason": "referred-elsewhere", "note": words})


def _refused(field: str, code: str, detail: str) -> Refused:
    todo = "Send the pathway that the patient is to be referred on."
    return Refused.all_of([Problem(field, code, detail, todo)])
