"""A broker that does nothing by itself: a test says what happens, and when."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Connection, select

from broker import receipts, registry
from broker.access import Caller
from broker.directory_file import parse
from broker.intake import Posted
from broker.main import Broker, open_broker
from broker.moving import Asked
from broker.ports import Receipt
from broker.referral import MOVES, Relation
from broker.settings import Settings
from broker.store import directory, messages, referrals
from broker.store import tables as t
from fhir_profiles import strict_json
from fhir_profiles.pathways.catalogue import catalogue
from sandbox import arrival
from tests.shell import DIRECTORY

ADAPTERS: Final = {
    name: one for name, one in registry.load().adapters.items() if name.endswith(".referrals")
}
# What a move must carry, said of anybody.
CONTENT: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "upgrade": {"priority": "stat"},
        "redirect": {"advice": "We have no room until March.", "patient_agrees": "yes"},
        "reject": {"reason": "criteria-not-met", "advice": "Watch and wait."},
        "complete": {"outcome": "Seen and treated."},
        "cancel": {"reason": "no-longer-needed"},
        "request-information": {"question": "Since when?"},
        "answer": {"answer": "Since last week."},
        "resolve": {"note": "The patient is seen here."},
    }
)


@dataclass(frozen=True)
class Sent:
    """A referral on its way."""

    message: str
    subject: str
    sender: str
    priority: str
    routes: tuple[tuple[str, str], ...]
    """(ODS code, role) of each who gets it."""


@dataclass
class Driven:
    """Its doors without HTTP, and its dispatcher when it is asked."""

    broker: Broker
    read_up_to: int = 0
    keys: int = field(default=0)

    def by(self, ods: str) -> Caller:
        return Caller("driven", ods, frozenset())

    async def refer(
        self, name: str, pathway: str, reference: str, seen_at: datetime | None = None
    ) -> Sent:
        """Post an example as its pillar does, of a patient who was seen then, or just now."""
        adapter = ADAPTERS[name]
        body = dict(adapter.examples[pathway]) | {
            "reference": reference,
            "assessed_at": (seen_at or datetime.now(UTC)).isoformat(timespec="seconds"),
        }
        ods = body[adapter.accepts.sender_field]["ods"]
        posted = Posted(self.by(ods), adapter, reference, json.dumps(body).encode())
        answer = json.loads((await self.broker.intake.accept(posted)).body)
        (message,) = answer["messages"]
        return Sent(
            message["id"],
            message["referral"].rpartition("/")[2],
            ods,
            message["priority"],
            tuple((one["organisation"], one["role"]) for one in message["destinations"]),
        )

    async def row(self, subject: str) -> Any:
        return await self.broker.store.read(lambda c: referrals.get(c, subject))

    async def move(self, subject: str, name: str, **content: str) -> str:
        """Make a move by whose it is; return who that is."""
        row = await self.row(subject)
        said = {**CONTENT.get(name, {}), **content}
        entry = catalogue().entries[row.pathway]
        if name == "complete" and entry.suspected_cancer:
            said["diagnosis"] = "cancer-excluded"
        by: str = row.sender if MOVES[name].by == {Relation.SENDER} else row.receiver
        self.keys += 1
        body = strict_json.dumps(said)
        key = f"{subject}-{self.keys}"
        await self.broker.moving.move(Asked(self.by(by), subject, name, key, body, row.version))
        return by

    async def deliver(self) -> list[Any]:
        """Fan out what was recorded; return the deliveries that were made of it."""
        while await self.broker.dispatch.run_once():
            pass
        made = await self.broker.store.read(self._made)
        if made:
            self.read_up_to = made[-1].position
        return made

    def _made(self, connection: Connection) -> list[Any]:
        d = t.delivery.c
        wanted = select(t.delivery).where(d.position > self.read_up_to)
        return list(connection.execute(wanted.order_by(d.position, d.id)))

    async def confirm(self, row: Any) -> None:
        """Let a destination's system say that it has stored a delivery."""
        said = Receipt(row.id, row.digest, row.ods)
        await receipts.take(self.broker.core, row, said, via="inbox", client="driven")

    async def arrived(self, row: Any) -> arrival.Arrival:
        """Read a delivery as its destination does: from the bytes that it gets."""
        sent = await self.broker.store.read(
            lambda c: messages.payload(c, self.broker.vault, row.id, "sent")
        )
        assert sent is not None
        return arrival.read(row.id, row.kind, "inbox", sent.body)


@asynccontextmanager
async def driven(folder: Path, places: str | None = None) -> AsyncIterator[Driven]:
    """Open a broker of its own, with the example directory, or with these places."""
    settings = Settings(data_dir=folder / "data", keys_dir=folder / "keys", allow_plain_http=True)
    async with open_broker(settings) as broker:
        known = parse(places or DIRECTORY.read_text(encoding="utf-8"))
        await broker.store.write(lambda tx: directory.replace(tx, known))
        yield Driven(broker)
