"""Telephone calls: the record that somebody spoke to somebody about a same-day message."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from broker.access import Caller
from broker.answers import Answer, Claimed
from broker.audit import Entry
from broker.composition import JSON
from broker.core import Core
from broker.deadlines import DeadlineKind
from broker.errors import Conflict, Gone, Problem, Refused
from broker.events import digest, uuid7
from broker.reading import read_object, unknown_code
from broker.store import messages, referrals, work
from broker.store.tx import Connection, Tx
from broker.vault import Binding
from fhir_profiles import strict_json, values

OUTCOMES: Final = ("spoke-to-clinician", "spoke-to-staff", "left-message", "no-answer")
# Only these meet the duty: somebody there knows.
REACHED: Final = ("spoke-to-clinician", "spoke-to-staff")
# A call is often made while the patient is still there, before the time that is given.
EARLIER: Final = timedelta(hours=1)
LONGEST_NOTE: Final = 2_000
NOTE: Final = "note"


@dataclass(frozen=True, slots=True)
class Called:
    """A call that somebody records, about one of its own messages."""

    caller: Caller
    message: Any
    key: str | None
    body: bytes = field(repr=False)


class Calls:
    """Keeps the record of telephone calls."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def record(self, called: Called) -> Answer:
        """Record a call; durable on return. The note is sealed. Raises Refused, Conflict."""
        request = f"POST /messages/{called.message.id}/telephone-calls"
        organisation = called.caller.organisation
        async with self._core.answers.claim(
            organisation, called.key, request, called.body
        ) as claimed:
            return claimed.known or await self._record(called, claimed)

    async def _record(self, called: Called, claimed: Claimed) -> Answer:
        now = datetime.now(UTC)
        message = called.message
        if message.key_id is None:
            raise Conflict("Nothing was sent under this message: there is nothing to call about.")
        at, outcome, note = _read(read_object(called.body), message.clinical_at, now)
        key, duties = await self._core.store.read(
            lambda c: (messages.key_of(c, self._core.vault, message.key_id), _duties(c, message))
        )
        if key is None:
            raise Gone("This message has been erased under the retention rules.")
        call_id = uuid7()
        organisation = called.caller.organisation
        said = strict_json.dumps({"note": note})
        sealed = messages.sealed(
            self._core.vault,
            key,
            Binding(call_id, NOTE, 1, organisation, JSON),
            said,
            digest(said),
            now,
        )
        meets = outcome in REACHED and message.id in duties
        answer = Answer(
            201,
            strict_json.dumps(
                {
                    "id": call_id,
                    "outcome": outcome,
                    "meets_the_duty": meets,
                    "read_first": _elsewhere(message, duties),
                }
            ),
        )
        kept = self._core.answers.seal(key, call_id, organisation, answer, now)

        def write(tx: Tx) -> None:
            referrals.put_call(
                tx,
                {
                    "id": call_id,
                    "message_id": message.id,
                    "organisation": organisation,
                    "client_id": called.caller.client_id,
                    "outcome": outcome,
                    "called_at": at,
                    "recorded_at": tx.now,
                },
            )
            messages.put_payloads(tx, [sealed])
            if meets:
                work.clear(tx, message.id, DeadlineKind.TELEPHONE)
            tx.audit(
                Entry(
                    "call.recorded",
                    called.caller.client_id,
                    organisation,
                    "message",
                    message.id,
                    {"outcome": outcome},
                )
            )
            self._core.answers.keep(tx, claimed, kept)

        await self._core.store.write(write)
        return answer


def _duties(connection: Connection, message: Any) -> set[str]:
    """Return which messages of the same post stand and somebody must telephone about."""
    joined = messages.joined(connection, message.correlation_id)
    standing = [one.id for one in joined if one.status == "sent"]
    rows = work.deadlines_of(connection, standing)
    return {row.message_id for row in rows if row.kind == DeadlineKind.TELEPHONE}


def _elsewhere(message: Any, duties: set[str]) -> list[str]:
    if message.id in duties:
        return []
    return [
        f"The duty to telephone is /messages/{one}'s: record the call there."
        for one in sorted(duties)
    ]


def _read(body: dict[str, Any], happened: datetime, now: datetime) -> tuple[datetime, str, str]:
    problems = [
        Problem(name, "unknown-field", f"There is no field {name}.", "Leave it out.")
        for name in body
        if name not in {"called_at", "outcome", "note"}
    ]
    at = _moment(body["called_at"], now) if "called_at" in body else now
    if at is None:
        problems.append(
            Problem(
                "called_at",
                "invalid",
                "called_at is not a past time with its offset.",
                "Give it as 2026-11-22T10:15:00+00:00.",
            )
        )
    elif at < happened - EARLIER:
        problems.append(
            Problem(
                "called_at",
                "too-early",
                "called_at is before what the message tells of.",
                "Record a call about this message, at the time when it was made.",
            )
        )
    outcome = body.get("outcome")
    if not (isinstance(outcome, str) and outcome in OUTCOMES):
        listed = ", ".join(OUTCOMES)
        problems.append(unknown_code("outcome", outcome, f"Give one of: {listed}."))
    note = body.get("note", "")
    if not isinstance(note, str) or len(note) > LONGEST_NOTE:
        problems.append(
            Problem(
                "note",
                "invalid",
                f"note is not a text of up to {LONGEST_NOTE} characters.",
                "Send a shorter text, or leave it out.",
            )
        )
    if problems:
        raise Refused.all_of(problems)
    return at or now, str(outcome), note


def _moment(given: Any, now: datetime) -> datetime | None:
    """Return a past time with its offset, or None."""
    at = values.date_or_time(given)
    if isinstance(at, datetime) and at.tzinfo is not None and at <= now + values.GRACE:
        return at
    return None
