"""What is published of an event: its FHIR content, or its facts, sealed with its topic's key."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from broker import telling
from broker.composition import CONTENT, FHIR_JSON, JSON, SCHEMA
from broker.core import Core
from broker.directory import Directory
from broker.events import REFERRAL_MOVED, Recorded
from broker.log import Quarantined, Record
from broker.store import ledger, messages
from broker.store.messages import Opened
from broker.store.tx import Connection
from broker.telling import About, Teller
from broker.topics import TOPIC_OF
from broker.vault import Tampered
from fhir_profiles import strict_json

FACTS: Final = "https://referral-broker.example/schemas/event-facts|1.0.0"
UNREADABLE: Final = "unreadable"


@dataclass(frozen=True, slots=True)
class _Source:
    """An event with its content. `about` is the referral of a move that has no content: the
    receiver's receipt, which is a move too."""

    event: Recorded
    content: Opened | None = None
    about: About | None = None


async def sealed(core: Core, records: Sequence[Record]) -> tuple[list[Record], list[Quarantined]]:
    """Return the ledger's records with their data, and those whose content was altered.

    An event without FHIR content, or whose message was erased, is published with its facts: ids and
    codes. Opened and sealed in a reading thread, so that nobody waits for it.
    """
    directory = await core.directory.current()
    return await core.store.read(lambda connection: _sealed(core, connection, records, directory))


def _sealed(
    core: Core, connection: Connection, records: Sequence[Record], directory: Directory
) -> tuple[list[Record], list[Quarantined]]:
    sources = _load(core, connection, [record.id for record in records])
    found: list[Record] = []
    unfit: list[Quarantined] = []
    for record in records:
        source = sources.get(record.id)
        if source is None:
            unfit.append(Quarantined(record.id, UNREADABLE))
        else:
            found.append(_with_data(core, record, source, directory))
    return found, unfit


def _load(core: Core, connection: Connection, ids: Sequence[str]) -> Mapping[str, _Source]:
    """Return the sources by event id; one that does not open is left out, and holds up nothing."""
    found = {}
    events = ledger.by_id(connection, ids)
    contents = messages.opened(connection, core.vault, ids, CONTENT)
    for event in events:
        content = contents.get(event.id)
        try:
            if isinstance(content, Tampered):
                raise content
            about = None
            if content is None and event.type == REFERRAL_MOVED:
                about = telling.about(connection, core.vault, event.facts["about"])
        except Tampered:
            continue
        found[event.id] = _Source(event, content, about)
    return found


def _with_data(core: Core, record: Record, source: _Source, directory: Directory) -> Record:
    body, content_type, schema = _data(core, source, directory)
    data = core.vault.seal_for(TOPIC_OF[record.type], body, record.id, content_type)
    return replace(record, data=data, dataschema=schema)


def _data(core: Core, source: _Source, directory: Directory) -> tuple[bytes, str, str]:
    """Return (data, its media type, its schema): the same for ever, but for names of places."""
    event = source.event
    if source.content is not None:
        return source.content.body, FHIR_JSON, event.dataschema
    if source.about is not None and source.about.content is not None:
        teller = Teller(core.vault, directory, core.source, event.time)
        receiver = event.facts["by"]
        task = teller.task(source.about, event.id, state=event.facts["to"], receiver=receiver)
        return task.body, FHIR_JSON, SCHEMA
    facts = {"facts": event.facts, "priority": event.priority.value, "message": event.message_id}
    return strict_json.dumps(facts), JSON, FACTS
