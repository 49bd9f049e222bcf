"""Search: a page of 50 of one organisation's messages, among 100,000 messages and a million.

The figure is the ratio of the two p99s. Both databases are filled in bulk: one message in a hundred
is the organisation's, and only those can be opened, for only those are ever read. Pages are asked
for at random places, in turn of one and of the other, as the FHIR door asks for them: found, opened
and written out. The ceiling beside it is the opening alone of as many contents.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from benchmarks import rig
from benchmarks.validation import bundles
from broker.access import Caller
from broker.composition import CONTENT, FHIR_JSON
from broker.events import digest, uuid7
from broker.main import Broker, open_broker
from broker.search import Search
from broker.settings import Settings
from broker.store import messages
from broker.store import tables as t
from broker.store.resources import Place
from broker.store.tx import Tx
from broker.telemetry import set_up_logging
from broker.vault import Binding
from fhir_profiles import bundle

NAME: Final = "search"
AIM: Final = 1.3
PAGE: Final = 50
OWN: Final = "FPH01"
SHARE: Final = 100
CHUNK: Final = 5_000
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
CALLER: Final = Caller("benchmark", OWN, frozenset())


def main(arguments: Sequence[str]) -> None:
    """Run the benchmark."""
    parser = rig.options(__doc__)
    parser.add_argument("--small", type=int, default=100_000, help="messages in the small one")
    parser.add_argument("--large", type=int, default=1_000_000, help="messages in the large one")
    parser.add_argument("--samples", type=int, default=2_000, help="pages of each")
    asyncio.run(_run(parser.parse_args(arguments)))


async def _run(chosen: argparse.Namespace) -> None:
    set_up_logging("warning")
    sizes = {"small": chosen.small, "large": chosen.large}
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        async with AsyncExitStack() as stack:
            brokers: dict[str, Broker] = {}
            places: dict[str, list[Place]] = {}
            for name, size in sizes.items():
                at = Path(folder) / name
                settings = Settings(data_dir=at / "data", keys_dir=at / "keys")
                brokers[name] = await stack.enter_async_context(open_broker(settings))
                places[name] = await _fill(brokers[name], size)
            machine = rig.machine(Path(folder))
            took = await _measured(brokers, places, chosen.samples)
            ceiling = _opened(brokers["large"], places["large"])
    shown = {name: {"messages": sizes[name], "page_ms": rig.spread(took[name])} for name in sizes}
    for name, one in shown.items():
        print(f"{name} ({one['messages']} messages): {one['page_ms']} ms a page of {PAGE}")
    p99 = {name: rig.percentile(took[name], 0.99) for name in sizes}
    figure = round(p99["large"] / p99["small"], 3)
    raw = {**shown, "opening_ms": ceiling, "samples": chosen.samples}
    result = rig.Result(NAME, figure, f"≤ {AIM}", figure <= AIM, raw)
    result.tell(chosen.results, machine)


# -- filling -------------------------------------------------------------------------------------


async def _fill(broker: Broker, size: int) -> list[Place]:
    """Store so many messages; return where each of the organisation's own stands."""
    content = bundles()["14 kB"]
    focus = next(row for row in bundle.index(json.loads(content)) if row.type == "Communication")
    places: list[Place] = []
    for start in range(0, size, CHUNK):
        rows = _Rows(broker, content, focus)
        for number in range(start, min(start + CHUNK, size)):
            moment = START + timedelta(seconds=number)
            place = rows.add(number, moment)
            if number % SHARE == 0:
                places.append(place)
        await broker.store.write(rows.put)
    return places


class _Rows:
    """Rows of a chunk of messages, by table."""

    def __init__(self, broker: Broker, content: bytes, focus: bundle.IndexRow) -> None:
        self._broker, self._content, self._focus = broker, content, focus
        self._rows: dict[Any, list[dict[str, Any]]] = {}

    def add(self, number: int, moment: datetime) -> Place:
        """Add a message that was accepted then; the organisation's own can be opened."""
        is_own = number % SHARE == 0
        sender = OWN if is_own else f"X{number % SHARE:05}"
        message, event, resource = uuid7(), uuid7(), uuid7()
        key = self._broker.vault.new_key(message) if is_own else None
        self._put(t.message, _message(message, event, sender, moment))
        index = {
            "id": resource,
            "version": 1,
            "type": self._focus.type,
            "message_id": message,
            "event_id": event,
            "subject_id": message,
            "status": self._focus.status,
            "category": None,
            "code": None,
            "priority": None,
            "requester": sender,
            "performer": "G99001",
            "patient_pseudonym": f"{number % 50_000:064x}",
            "identifiers": None,
            "authored_at": moment,
            "updated_at": moment,
        }
        self._put(t.resource_index, index)
        for organisation, relation in (
            (sender, "sender"),
            (f"G{number % 700:05}", "copy-receiver"),
        ):
            viewer = {"organisation": organisation, "resource_id": resource, "version": 1}
            viewer |= {"type": self._focus.type, "relation": relation, "label": "N"}
            self._put(t.resource_viewer, viewer | {"authored_at": moment, "updated_at": moment})
        if key is not None:
            body = self._content.replace(self._focus.resource_id.encode(), resource.encode())
            binding = Binding(event, CONTENT, 1, sender, FHIR_JSON)
            vault = self._broker.vault
            sealed = messages.sealed(vault, key, binding, body, digest(body), moment)
            self._put(t.payload, sealed)
            row = {"id": key.id, "kek_id": key.kek_id, "wrapped": key.wrapped}
            self._put(t.message_key, row)
        return moment, resource

    def _put(self, table: Any, row: dict[str, Any]) -> None:
        self._rows.setdefault(table, []).append(row)

    def put(self, tx: Tx) -> None:
        for table, rows in self._rows.items():
            tx.execute(t.into(table), rows)


def _message(message: str, event: str, sender: str, moment: datetime) -> dict[str, Any]:
    known = {
        "id": message,
        "kind": "update",
        "status": "sent",
        "subject_id": message,
        "event_id": event,
        "key_id": message,
        "sender": sender,
        "correlation_id": message,
        "version": 1,
        "priority": "routine",
        "label": "N",
        "identity_verified": True,
        "consent": True,
        "warnings": [],
        "clinical_at": moment,
        "accepted_at": moment,
    }
    texts = dict.fromkeys(("door", "client_id", "pathway", "pathway_version", "purpose"), "x")
    return {column.name: None for column in t.message.columns} | known | texts


# -- measuring -----------------------------------------------------------------------------------


async def _measured(
    brokers: dict[str, Broker], places: dict[str, list[Place]], samples: int
) -> dict[str, list[float]]:
    """Return how long each page took, in ms; a quarter more are asked for first, to warm up."""
    pick = random.Random(4)  # noqa: S311
    took: dict[str, list[float]] = {name: [] for name in brokers}
    for _ in range(samples + samples // 4):
        for name, broker in brokers.items():
            after = pick.choice(places[name][PAGE:])
            started = time.perf_counter()
            page = await broker.finding.page(CALLER, Search("Communication", count=PAGE), after)
            took[name].append((time.perf_counter() - started) * 1000)
            if len(page.matches) != PAGE:
                sys.exit(f"a page of the {name} one has {len(page.matches)} messages")
    return {name: one[samples // 4 :] for name, one in took.items()}


def _opened(broker: Broker, places: list[Place]) -> float:
    """Return the median time in ms of opening a page's contents by their ids, and nothing else."""
    chosen = [resource for _, resource in places[:PAGE]]
    rows = t.resource_index.select().where(t.resource_index.c.id.in_(chosen))

    def once() -> float:
        events = broker.store.read_now(lambda c: [row.event_id for row in c.execute(rows)])
        started = time.perf_counter()
        broker.store.read_now(lambda c: messages.payloads(c, broker.vault, events, CONTENT))
        return (time.perf_counter() - started) * 1000

    return round(statistics.median(once() for _ in range(50)), 2)


if __name__ == "__main__":
    main(sys.argv[1:])
