"""Notices: a message to one party, caused by an event, that says what became of another message.

A notice is made in the transaction of what it tells of, so nothing that happened goes untold. Its
ids come from its cause: the same thing never tells twice.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from broker.composition import Composing, compose
from broker.events import (
    NOTICE_ISSUED,
    Destination,
    Kind,
    Priority,
    Role,
    Route,
    caused_id,
)
from broker.store import messages
from broker.store.messages import NewMessage
from broker.store.tx import Tx
from broker.vault import Vault

DOOR: Final = "broker"


def ids(cause: str, to: Destination, topic: str) -> tuple[str, str]:
    """Return (message id, event id) of the notice to a party that a cause brings about."""
    return (
        caused_id(cause, "notices", str(to), f"{topic}.message"),
        caused_id(cause, "notices", str(to), f"{topic}.event"),
    )


def prepare(
    vault: Vault,
    about: Any,
    *,
    cause: str,
    topic: str,
    to: Destination,
    by: str,
    content: bytes,
    focus: str,
    reason: str,
    source: str,
    now: datetime,
    priority: Priority | None = None,
    supersedes: bool = False,
) -> NewMessage:
    """Compose the notice to one party about a message, on that message's own subject; it is as
    urgent as that is, unless a `priority` is given."""
    message_id, event_id = ids(cause, to, topic)
    return compose(
        vault,
        Composing(
            id=message_id,
            kind=Kind.NOTICE,
            subject=about.subject_id,
            event_type=NOTICE_ISSUED,
            event_id=event_id,
            source=source,
            sender=by,
            client=DOOR,
            door=DOOR,
            correlation_id=about.correlation_id,
            conversation=about.conversation,
            content=content,
            focus=focus,
            routes=(Route(to, Role.NOTICE, reason),),
            priority=priority or Priority(about.priority),
            happened=now,
            now=now,
            causation_id=cause,
            pathway=about.pathway,
            pathway_version=about.pathway_version,
            patient=(about.pseudonym_key, about.patient_pseudonym)
            if about.patient_pseudonym
            else None,
            practice=about.practice,
            identity_verified=about.identity_verified,
            label=about.label,
            consent=about.consent,
            agreement=about.agreement,
            purpose=about.purpose,
            facts={
                "topic": topic,
                "about": about.id,
                **({"supersedes": "unsent"} if supersedes else {}),
            },
        ),
    )


def put(tx: Tx, prepared: Iterable[NewMessage]) -> None:
    """Store notices; one that its cause has already brought about is skipped."""
    for notice in prepared:
        if not messages.exists(tx, notice.row["id"]):
            messages.put(tx, notice)
