"""Near-duplicates: another message of the same patient, kind and pathway, not long before.

Never refused, held or changed for it. Whoever gets the later one in the ledger's order is told by a
flag beside its content, as much of the other as it may know; its sender only where it is itself a
party of the other. See docs/adr/0021-near-duplicates-are-flagged.md.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from broker.access import UNRESTRICTED
from broker.directory import Directory
from broker.errors import Problem
from broker.events import Destination, Kind, Recorded
from broker.ports import Alike, Needs
from broker.referral import State
from broker.store import similar
from broker.store.tx import Connection
from broker.vault import Vault
from fhir_profiles import strict_json
from fhir_profiles.bars import incoming
from fhir_profiles.pathways.catalogue import catalogue

CODE: Final = "similar-message"
# What was taken back or turned away, nobody acts on: a new one takes its place.
_OVER: Final = (State.CANCELLED.value, State.REJECTED.value, State.RESOLVED.value)
_ANYWHERE: Final = 2**62
_KINDS: Final = frozenset({Kind.UPDATE, Kind.REFERRAL})


@dataclass(frozen=True, slots=True)
class Other:
    """Another message that is like one: whose, when, and who was sent it."""

    message: str
    sender: str
    accepted_at: datetime
    is_restricted: bool
    told: frozenset[str]

    def is_known_to(self, own: Collection[str]) -> bool:
        """Whether who answers for these ODS codes is one of its parties."""
        return self.sender in own or not self.told.isdisjoint(own)


def before(
    connection: Connection, vault: Vault, event: Recorded, message: Any, content: bytes
) -> Sequence[Other]:
    """Return what is like a message that stands in the ledger, and stood there before it."""
    if message.patient_pseudonym is None or message.kind not in _KINDS:
        return ()
    pseudonyms = [message.patient_pseudonym]
    if vault.has_rotated:  # the other may stand under another key
        number = incoming.read(strict_json.loads(content)).patient.nhs_number
        pseudonyms += vault.pseudonyms(number) if number else []
    return _find(
        connection,
        pseudonyms,
        message.kind,
        message.pathway,
        message.accepted_at,
        before=event.position,
        correlation=message.correlation_id,
        subject=message.subject_id,
    )


def known_to_sender(
    connection: Connection, vault: Vault, needs: Needs, directory: Directory, now: datetime
) -> tuple[Problem, ...]:
    """Return what the sender is told of what it is about to send: of the others that it knows."""
    if not needs.nhs_number:
        return ()
    own = directory.stands_for(needs.organisation)
    pseudonyms = vault.pseudonyms(needs.nhs_number)
    return tuple(
        _warning(other)
        for kind, pathway in dict.fromkeys((want.kind, want.pathway) for want in needs.wants)
        for other in _find(connection, pseudonyms, kind, pathway, now)
        if other.is_known_to(own)
    )


def told(
    others: Sequence[Other], sender: str, to: Destination, directory: Directory
) -> list[Alike]:
    """Return what one receiver is told of the others, newest first.

    Of one that it is no party of: that it is there, and when; of a restricted one, nothing.
    """
    own = directory.stands_for(to.ods)
    found = []
    for other in others:
        is_known = other.is_known_to(own)
        if is_known or not other.is_restricted:
            same = other.sender == sender
            message = other.message if is_known else None
            found.append(Alike(other.accepted_at, same, message))
    return found


def _find(
    connection: Connection,
    pseudonyms: Sequence[str],
    kind: str,
    pathway: str,
    at: datetime,
    before: int = _ANYWHERE,
    correlation: str = similar.NOTHING,
    subject: str = similar.NOTHING,
) -> Sequence[Other]:
    window = catalogue().window(pathway)
    if window is None:
        return ()
    rows = similar.like(
        connection,
        pseudonyms=pseudonyms,
        kind=kind,
        pathway=pathway,
        since=window.since(at),
        before=before,
        over=_OVER,
        correlation=correlation,
        subject=subject,
    )
    return [_other(row) for row in rows]


def _other(row: Any) -> Other:
    return Other(
        row.id,
        row.sender,
        row.accepted_at,
        row.label not in UNRESTRICTED,
        frozenset(ods for ods, *_ in row.routes),
    )


def _warning(other: Other) -> Problem:
    return Problem(
        "patient.nhs_number",
        CODE,
        f"/messages/{other.message} is like this one: the same patient and pathway, accepted "
        f"{other.accepted_at:%Y-%m-%d %H:%M} UTC. This one is sent all the same.",
        "If only one of them is needed, take the other back.",
    )
