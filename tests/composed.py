"""What brokers composed while tests ran, read back from what they left behind.

The content of each event and what each destination was sent stand in their databases: a broker's
own work, unless it is what somebody posted. Answers are not kept by a broker: `keep` does it.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
from sqlalchemy import Connection, create_engine, select
from sqlalchemy.exc import DBAPIError

from broker import creating
from broker.composition import CONTENT, FHIR_JSON, POSTED
from broker.dispatch import SENT
from broker.events import (
    REFERRAL_AMENDED,
    REFERRAL_REDIRECTED,
    REFERRAL_SUBMITTED,
    UPDATE_SUBMITTED,
    digest,
)
from broker.store import messages
from broker.store import tables as t
from broker.store.database import sqlite_url
from broker.vault import FileKeyRing, RingProblem, Tampered, Vault
from fhir_profiles.compiler.finding import Finding
from fhir_profiles.profiles import ours
from tests import samples

ANSWER: Final = "answer"
BARS: Final = "bars"
_ANSWERED: Final = "answered"
_CONTENTS: Final = {
    UPDATE_SUBMITTED: "update-content",
    REFERRAL_SUBMITTED: "referral-content",
    REFERRAL_AMENDED: "referral-content",
    REFERRAL_REDIRECTED: "referral-content",
}


@dataclass(frozen=True, slots=True)
class Composed:
    """One piece of FHIR that a broker made: of which event, and by which channel it was sent.

    `role` is that of its payload; an answer has no event.
    """

    body: bytes = field(repr=False)
    role: str
    event: str
    channel: str
    where: str

    @property
    def type(self) -> str:
        """The type of the resource."""
        return str(json.loads(self.body)["resourceType"])

    @property
    def is_towards_bars(self) -> bool:
        """Whether it was made for somebody who speaks BaRS."""
        return self.channel == BARS

    @property
    def profile(self) -> str:
        """The name of our profile that it is to follow as a whole."""
        if self.type == "OperationOutcome":
            return self.type
        if self.is_towards_bars:
            return "BARSBundleMessage"
        return "message" if self.role == SENT else _CONTENTS.get(self.event, "notice-content")


@dataclass(slots=True)
class Left:
    """What was found in a folder; `unreadable` is what does not open: tests damage some."""

    composed: list[Composed] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def left_in(folder: Path) -> Left:
    """Return all that brokers composed whose data lies anywhere below a folder."""
    left = Left()
    for database in sorted(folder.rglob("broker.db")):
        ring = database.parent.parent / "keys" / "ring.json"
        if not ring.is_file():
            continue  # a store that no broker ran on
        engine = create_engine(sqlite_url(database))
        try:
            with engine.connect() as connection:
                _read(connection, Vault(FileKeyRing.load(ring)), str(database), left)
        except (RingProblem, DBAPIError):
            left.unreadable.append(str(database))
        finally:
            engine.dispose()
    for path in sorted(folder.rglob(f"{_ANSWERED}/*.json")):
        left.composed.append(Composed(path.read_bytes(), ANSWER, "", BARS, str(path)))
    return left


async def keep(folder: Path, answer: httpx2.Response) -> None:
    """Keep an answer that a broker composed: to a message, or that it refuses something.

    What is collected, read or found stands in its database, or is its sender's.
    """
    if answer.headers.get("content-type", "").startswith(FHIR_JSON):
        body = await answer.aread()
        is_message = answer.request.url.path.endswith("$process-message")
        if is_message or answer.status_code >= 400:
            (folder / _ANSWERED).mkdir(exist_ok=True)
            (folder / _ANSWERED / f"{digest(body)}.json").write_bytes(body)


def _read(connection: Connection, vault: Vault, name: str, left: Left) -> None:
    p, d, e, k = t.payload.c, t.delivery.c, t.event.c, t.message_key.c
    as_it_came = set(connection.scalars(select(p.digest).where(p.role == POSTED)))
    rows = connection.execute(
        select(t.payload, k.kek_id, k.wrapped, d.channel, e.type, e.source, t.message.c.door)
        .join(t.message_key, k.id == p.key_id)
        .outerjoin(t.delivery, d.id == p.owner_id)
        .outerjoin(t.event, e.id.in_((p.owner_id, d.event_id)))
        .outerjoin(t.message, t.message.c.id == e.message_id)
        .where(p.role.in_((CONTENT, SENT)))
        .order_by(p.role)
    )
    for row in rows:
        if row.source == samples.SOURCE:
            continue  # laid down by a test
        if row.role == CONTENT and row.door == creating.DOOR:
            continue  # a client's own resources
        where = f"{name}, {row.role} of {row.owner_id}"
        try:
            body = messages.open_row(vault, row).body
        except Tampered:
            left.unreadable.append(where)
            continue
        if row.role == CONTENT and json.loads(body)["type"] == "message":
            as_it_came.add(row.digest)  # its sender's message is the content of its event
        if row.digest not in as_it_came:
            made = Composed(body, row.role, row.type or "", row.channel or "", where)
            left.composed.append(made)


def errors(one: Composed) -> list[Finding]:
    """Return what our own checks find wrong with it."""
    return [found for found in ours().check(one.body, one.profile) if found.severity == "error"]


def faults_in(folder: Path) -> list[tuple[Composed, Finding]]:
    """Return what our own checks find wrong with anything that was composed there."""
    found = distinct(left_in(folder).composed)
    return [(one, wrong) for one in found for wrong in errors(one)]


# -- one of each shape ---------------------------------------------------------------------------

_CODED: Final = frozenset(
    {
        *("resourceType", "type", "profile", "system", "code", "url", "valueCode"),
        *("status", "intent", "priority", "use", "gender", "mode"),
    }
)
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def distinct(found: Iterable[Composed]) -> list[Composed]:
    """Return the first of each shape: those alike have the same elements, codes and references."""
    first: dict[str, Composed] = {}
    for one in found:
        shape = json.dumps(_shape(json.loads(one.body), "", {}))
        first.setdefault(f"{one.profile} {shape}", one)
    return list(first.values())


def _shape(element: Any, name: str, ids: dict[str, int]) -> Any:
    """Return an element without times, numbers and words, each id as how many came before it."""
    if isinstance(element, Mapping):
        return {key: _shape(value, key, ids) for key, value in element.items()}
    if isinstance(element, list):
        return [_shape(value, name, ids) for value in element]
    if not isinstance(element, str):
        return type(element).__name__
    if name in _CODED:
        return element
    identity = _UUID.search(element)
    return ids.setdefault(identity[0], len(ids)) if identity else ""
