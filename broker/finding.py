"""FHIR resources found again in the messages that they came in: by id, and by search.

A caller finds what its organisation sent or was sent, and nothing else. What stands in a message is
returned as it was sent, with `id` and `meta` put in. A page's link is sealed: nothing that was
searched for can be read from it, and nobody else can use it.
"""

import base64
import binascii
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from broker.access import Caller
from broker.composition import CONTENT
from broker.core import Core
from broker.errors import BadRequest, Gone, Problem
from broker.referral import Relation
from broker.search import INCLUDES, Reader, Search
from broker.store import messages, resources
from broker.store.messages import Opened
from broker.store.resources import Place
from broker.store.tx import Connection
from broker.vault import RingProblem, Tampered
from fhir_profiles import bundle, stored, strict_json

_CLOSEST: Final = tuple(Relation)


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a resource, and what the caller is to it."""

    row: Any
    relation: Relation
    label: str

    @property
    def number(self) -> int:
        return int(self.row.version)

    @property
    def updated(self) -> datetime:
        found: datetime = self.row.updated_at
        return found

    @property
    def stands(self) -> bool:
        """Whether its message does: one that was replaced or withdrawn is tagged with that."""
        return _standing(self.row, self.row.id) is None


@dataclass(frozen=True, slots=True)
class Match:
    """A resource that was found, and what was asked to be included with it, by stored fullUrl."""

    id: str
    resource: bytes
    included: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of what was found; `following` leads to the next one, if there is more."""

    matches: Sequence[Match]
    following: str | None
    total: int | None = None


class Finding:
    """Finds resources. Reads only."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.reader = Reader(
            core.vault.pseudonyms,
            lambda system, value: resources.identifier_hmac(core.vault, system, value),
        )

    async def versions(self, caller: Caller, type_: str, resource_id: str) -> list[Version]:
        """Return every version of a resource, newest first; none where there is none."""
        codes = (await self._core.directory.current()).stands_for(caller.organisation)

        def read(connection: Connection) -> list[Version]:
            rows = resources.versions(connection, type_, resource_id)
            seen = resources.seen_as(connection, rows[0], codes) if rows else ()
            if seen and resources.is_standing(resource_id, rows[0]):
                last = max(one.version for one in seen)
                rows = [row for row in rows if row.version <= last]
            relation, label = Relation.NONE, "N"
            for one in seen:
                label = one.label
                relation = min(relation, Relation(one.relation), key=_CLOSEST.index)
            return [Version(row, relation, label) for row in rows]

        return await self._core.store.read(read)

    async def body(self, version: Version) -> bytes:
        """Return a version as it is read. Raises Gone where it was erased."""
        row, vault = version.row, self._core.vault
        opened = await self._core.store.read(
            lambda c: messages.payload(c, vault, row.event_id, CONTENT)
        )
        if opened is None:
            raise Gone("This has been erased under the retention rules.")
        return _as_read(row, row.id, _resource(row, row.id, opened))

    async def page(self, caller: Caller, search: Search, after: Place | None = None) -> Page:
        """Return a page of what the caller may see."""
        codes = (await self._core.directory.current()).stands_for(caller.organisation)
        return await self._core.store.read(lambda c: self._page(c, caller, codes, search, after))

    def _page(
        self,
        connection: Connection,
        caller: Caller,
        codes: Collection[str],
        search: Search,
        after: Place | None,
    ) -> Page:
        if search.is_count:
            return Page((), None, resources.count(connection, codes, search))
        rows = resources.page(connection, codes, search, after)
        shown = rows[: search.count]
        contents = messages.payloads(
            connection, self._core.vault, {row.event_id for row in shown}, CONTENT
        )
        matches: list[Match] = []
        taken: set[str] = set()
        last: Any = None
        is_cut = len(rows) > search.count
        for row in shown:
            if row.event_id in contents:  # what was erased is nothing to be found any more
                match = _match(row, contents[row.event_id], search)
                urls = {url for url, _ in match.included}
                # The same fullUrl of two senders' making would lead to the wrong patient.
                if urls & taken:
                    is_cut = True
                    break
                taken |= urls
                matches.append(match)
            last = row
        following = None
        if is_cut and last is not None:
            following = self._seal(caller, search, (last._mapping[search.order], last.resource_id))
        return Page(matches, following)

    # -- links of pages --------------------------------------------------------------------------

    def _seal(self, caller: Caller, search: Search, place: Place) -> str:
        body = strict_json.dumps({"used": search.used, "after": [place[0].isoformat(), place[1]]})
        kek_id, sealed = self._core.vault.seal_secret(body, _name(caller, search.type))
        return f"{kek_id}.{base64.urlsafe_b64encode(sealed).decode().rstrip('=')}"

    def unseal(self, caller: Caller, type_: str, token: str) -> tuple[Search, Place]:
        """Return the search and the place that a page's link leads to. Raises BadRequest."""
        kek_id, _, text = token.partition(".")
        try:
            sealed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            body = self._core.vault.open_secret(kek_id, sealed, _name(caller, type_))
        except (Tampered, RingProblem, binascii.Error, ValueError):
            wrong = Problem("http._page", "value", "It is no link of yours.", "Search again.")
            raise BadRequest("", [wrong]) from None
        said = strict_json.loads(body)
        search, _ = self.reader.read(type_, [(name, value) for name, value in said["used"]])
        at, resource_id = said["after"]
        return search, (datetime.fromisoformat(at), resource_id)


def _name(caller: Caller, type_: str) -> str:
    return f"page|{caller.organisation}|{type_}"


def _resource(row: Any, resource_id: str, content: Opened) -> bytes:
    """Return what a row of the index is of, as it stands in the content. A referral's Task is the
    only one in the content of its move, under an id of that telling."""
    if resources.is_standing(resource_id, row):
        found = (entry.resource for entry in bundle.entries(content.body))
        return next(one for one in found if bundle.resource_type_of(one) == resources.TASK)
    resource = bundle.resource_of(content.body, row.message_id, resource_id)
    if resource is None:
        raise Tampered(f"the content of {row.event_id} holds no {resource_id}")
    return resource


def _as_read(row: Any, resource_id: str, resource: bytes, summary: str = "false") -> bytes:
    return stored.as_read(
        resource,
        resource_id,
        row.version,
        row.updated_at,
        standing=_standing(row, resource_id),
        summary=summary,
    )


def _standing(row: Any, resource_id: str) -> str | None:
    """Return what became of a resource's message, if that stands no longer."""
    if resources.is_standing(resource_id, row):
        return None
    status: str = row.message_status
    return status if status in resources.STANDS_NO_LONGER else None


def _match(row: Any, content: Opened, search: Search) -> Match:
    resource = _resource(row, row.resource_id, content)
    included: dict[str, bytes] = {}
    held = bundle.held(content.body, row.message_id) if search.includes else {}
    for name in search.includes:
        for url in stored.references(resource, INCLUDES[row.type][name]):
            if url in held:
                resource_id, body = held[url]
                included[url] = stored.as_read(body, resource_id, 1, row.updated_at)
    return Match(
        row.resource_id,
        _as_read(row, row.resource_id, resource, search.summary),
        list(included.items()),
    )
