"""What a BaRS message does to a referral that is there: its sender cancels it, or its receiver says
how it goes on. Every move is one of the referral's own table, told to whom that table says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from broker import moves, referral
from broker.access import Caller
from broker.answers import Claimed, Kept
from broker.composition import FHIR_JSON, POSTED
from broker.core import Core
from broker.directory import Directory
from broker.errors import BadRequest, Conflict, NotFound, Problem, Stale, TimedOut
from broker.events import Destination, digest, uuid7
from broker.moves import Found, Mover, Ready
from broker.referral import MOVES, Relation, State
from broker.steps import Wanted, steps_to
from broker.store import deliveries, messages, work
from broker.store.tx import Connection, Tx
from broker.vault import Binding
from fhir_profiles import strict_json
from fhir_profiles.bars import incoming as bars
from fhir_profiles.bars.incoming import Message, at, each, moment, text
from fhir_profiles.bars.meaning import Meaning, responder, words
from fhir_profiles.identifiers import uuid

OK: Final = 200
NOT_HERE: Final = "There is no such referral for this organisation."
# FHIR's statuses of the responder's Encounter, and the move that each tells. App4's text says
# `complete`, which FHIR does not have (trap 14).
_TELLS: Final[Mapping[str, str | None]] = {
    "planned": None,
    "arrived": "accept",
    "triaged": "accept",
    "in-progress": "accept",
    "onleave": "accept",
    "finished": "complete",
    "complete": "complete",
    "cancelled": "reject",
}
# Codes of rejected-reasons-bars and dos-rejected-reasons-bars in the words of our own list.
_REASONS: Final = {
    "RRNA": "no-capacity",
    "22": "no-capacity",
    "31": "no-capacity",
    "32": "no-capacity",
    "23": "not-clinically-appropriate",
    "40": "criteria-not-met",
    "42": "out-of-area",
}
_DID_NOT_ATTEND: Final = "The patient did not attend."
_REFUSED: Final = "The service refused it when it was sent: it was not taken."
_NO_WORDS: Final = "The service gave no words with it."


@dataclass(frozen=True, slots=True)
class Following:
    """A message about a referral: by whom, what it is, and its bytes."""

    caller: Caller
    message: Message
    meaning: Meaning
    place: Destination | None
    body: bytes = field(repr=False)


async def follow(core: Core, said: Following, claimed: Claimed) -> str:
    """Move the referral as the message says; durable on return. Returns its message's id.

    Raises BadRequest, NotFound, and Conflict where the referral's table forbids it.
    """
    while True:
        now = datetime.now(UTC)
        directory = await core.directory.current()
        found = await core.store.read(partial(_find, core, said, directory))
        if found is None:
            raise NotFound(NOT_HERE)
        _check_same_patient(core, found, said.message)
        if said.meaning is Meaning.CANCELLATION:
            _check_newer(found, said.message)
            wanted: Wanted | None = _cancel(said.message)
        else:
            wanted = _progress(said)
        mover = Mover(core.vault, directory, core.source, now)
        steps = steps_to(mover, found, wanted, said.caller)
        owner = steps[-1].event_id if steps else uuid7()
        binding = Binding(owner, POSTED, 1, said.caller.organisation, FHIR_JSON)
        posted = messages.sealed(core.vault, found.key, binding, said.body, digest(said.body), now)
        kept = Kept(owner, OK, None)
        try:
            await core.store.write(partial(_write, core, steps, posted, claimed, kept))
        except Stale:  # somebody else moved it meanwhile: judged anew
            continue
        return str(found.row.message_id)


def _write(
    core: Core, steps: Sequence[Ready], posted: dict[str, Any], claimed: Claimed, kept: Kept, tx: Tx
) -> None:
    for step in steps:
        step.write(tx)
    messages.put_payloads(tx, [posted])
    core.answers.keep(tx, claimed, kept)


# -- what its service refused --------------------------------------------------------------------


async def close_refused(core: Core, caller: Caller, message_id: str, delivery_id: str) -> None:
    """End a referral whose sender is told that its service does not take it, and give its delivery
    up: nobody may try that again. Safe to repeat.

    The service has nothing to be told; who got a copy is. Raises TimedOut where the delivery is
    being tried again meanwhile.
    """
    while True:
        directory = await core.directory.current()
        found = await core.store.read(partial(_refused, core, message_id))
        if found is None or referral.STAGES[State(found.row.state)].is_terminal:
            return
        ready = Mover(core.vault, directory, core.source, datetime.now(UTC)).ready(
            found,
            MOVES["cancel"],
            {"reason": "other", "note": _REFUSED},
            caller.organisation,
            caller.client_id,
            untold=frozenset({found.row.receiver}),
        )
        try:
            await core.store.write(partial(_write_refused, ready, message_id, delivery_id))
        except Stale:
            continue
        return


def _refused(core: Core, message_id: str, connection: Connection) -> Found | None:
    message = messages.get(connection, message_id)
    if message is None or message.subject_id is None:
        return None
    return moves.find(connection, core.vault, message.subject_id)


def _write_refused(ready: Ready, message_id: str, delivery_id: str, tx: Tx) -> None:
    delivery = deliveries.lock(tx, delivery_id)
    if delivery is None or delivery.state not in {"dead", "done"}:
        raise TimedOut("It is being tried again. Send this again as it was, with its X-Request-Id.")
    if delivery.state == "dead":
        deliveries.finish(tx, delivery, deliveries.GIVEN_UP, code=delivery.code)
    ready.write(tx)
    work.close_items(tx, "refused", message_id=message_id)


# -- finding -------------------------------------------------------------------------------------


def _find(core: Core, said: Following, known: Directory, connection: Connection) -> Found | None:
    """Return the referral that a message is about, if its sender may say this of it."""
    if said.meaning is Meaning.CANCELLATION:
        message_id, by = _named(connection, said.message), Relation.SENDER
    else:
        message_id, by = _answered(core, connection, said, known), Relation.ACTING
    message = messages.get(connection, message_id) if message_id else None
    if message is None or message.subject_id is None:
        return None
    found = moves.find(connection, core.vault, message.subject_id)
    if found is None or moves.relation(found.row, said.caller.organisation, known) is not by:
        return None
    return found


def _named(connection: Connection, message: Message) -> str | None:
    """Return the message of the ServiceRequest that is cancelled, by the id that we gave it."""
    url, request = message.request
    given = text(request.get("id"))
    if not given:
        said = "What is cancelled is named by the id that the answer to the referral gave it."
        path = f"{bars.path_of(message, url)}.id"
        raise BadRequest(f"{NOT_HERE} {said}", [Problem(path, "required", said)])
    known = uuid(given)
    return messages.of_resource(connection, "ServiceRequest", known) if known else None


def _answered(core: Core, connection: Connection, said: Following, known: Directory) -> str | None:
    """Return the message that a response answers: it names the Bundle that the responder got.

    That is the delivery's own or, where the sender's bytes were passed on, the sender's.
    """
    bundle = said.message.response_to
    ours = uuid(bundle)
    delivery = deliveries.get(connection, ours) if ours else None
    if delivery is not None:
        return str(delivery.message_id)
    senders = known.stands_for(said.place.ods) if said.place is not None else ()
    for ods in senders:
        hmac = core.vault.mac(f"reference|{ods}", bundle.encode())
        message_id = messages.of_reference(connection, ods, hmac)
        if message_id is not None:
            return message_id
    return None


def _check_same_patient(core: Core, found: Found, message: Message) -> None:
    """Raise BadRequest where a message about this referral names another patient."""
    if found.is_about_another(core.vault, message.patient.nhs_number):
        said = "The referral that this is about is another patient's. Nothing was done."
        url, _ = next(message.all("Patient"))
        path = f"{bars.path_of(message, url)}.identifier"
        raise BadRequest(said, [Problem(path, "invariant", said)])


def _check_newer(found: Found, message: Message) -> None:
    """Raise Conflict unless the message knows the referral as it stands: update guard of Core."""
    if found.about.content is None:
        return
    stored = bars.read(strict_json.loads(found.about.content)).request[1]
    was, now = (moment(at(one, "meta", "lastUpdated")) for one in (stored, message.request[1]))
    if was is not None and now is not None and now <= was:
        raise Conflict("The ServiceRequest is no newer than the one that is stored. Read it again.")


# -- moving --------------------------------------------------------------------------------------


def _cancel(message: Message) -> Wanted:
    request = message.request[1]
    if text(request.get("status")) == "entered-in-error":
        reason = "entered-in-error"
    else:
        reason = "other" if words(request) else "no-longer-needed"
    note = words(request)
    return Wanted("cancel", {"reason": reason} | ({"note": note} if note else {}))


def _progress(said: Following) -> Wanted | None:
    """Return the move that a response tells, or None where it tells of nothing new."""
    message = said.message
    if said.meaning is Meaning.NOT_ATTENDED:
        return Wanted("reject", {"reason": "other", "advice": _DID_NOT_ATTEND})
    encounter = responder(message)
    if message.request[1].get("status") == "completed":
        name: str | None = "complete"
    else:
        name = _TELLS.get(text(encounter.get("status")))
    reasons = _said_codes(encounter)
    spoken = words(encounter)
    match name:
        case "accept":
            return Wanted(name, {"note": spoken} if spoken else {})
        case "complete":
            return Wanted(name, {"outcome": spoken or _NO_WORDS})
        case "reject":
            reason = next((_REASONS[one] for one in reasons if one in _REASONS), "other")
            return Wanted(name, {"reason": reason, "advice": spoken or _NO_WORDS})
        case _:
            return None


def _said_codes(encounter: Mapping[str, Any]) -> list[str]:
    return [
        text(coding.get("code"))
        for concept in each(encounter, "reasonCode")
        for coding in each(concept, "coding")
    ]
