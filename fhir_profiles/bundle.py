"""FHIR Bundles: made from typed resources once, then carried over byte for byte.

`content` writes the Bundle (type collection) of an event that is not yet addressed to anybody;
`message.address` makes of it what one destination gets. Entry ids come from the message id, so the
same message always has the same bytes. What came in as a message (BaRS) is itself the content
of its event, as it came: its own MessageHeader goes no further, and its resources' ids are given by
us.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from fhir.resources.R4B.fhirresourcemodel import FHIRResourceModel

from fhir_profiles import codes, identifiers, strict_json, systems, wire
from fhir_profiles.verification_status import RETIRED, to_england, with_status

URN: Final = "urn:uuid:"
_OPENING: Final = b'{"resourceType":"Bundle","type":"collection","entry":['
_CLOSING: Final = b"]}"
_RETIRED: Final = RETIRED.casefold().encode() + b'"'


# -- making --------------------------------------------------------------------------------------


def entry_id(message_id: str, name: str) -> str:
    """Return the fullUrl of an entry of a content: the same message and name give the same one.

    It is a UUIDv8 (RFC 9562): the message's first 48 bits, which are its time, and SHA-256. So what
    stands in one message stands together in every index, and new messages at its end.
    """
    return _entry_id(uuid.UUID(message_id), name)


def _entry_id(message: uuid.UUID, name: str) -> str:
    hashed = hashlib.sha256(message.bytes + name.encode()).digest()
    value = int.from_bytes(message.bytes[:6] + hashed[:10], "big")
    value = (value & ~(0xF << 76)) | (0x8 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return f"{URN}{uuid.UUID(int=value)}"


def told_id(message_id: str, name: str) -> str:
    """Return the fullUrl of what a telling adds to a content: the same one for ever (UUIDv5).

    It is kept nowhere, but computed for each telling (ADR 14).
    """
    return f"{URN}{uuid.uuid5(uuid.UUID(message_id), name)}"


@lru_cache(1024)  # the index asks for each, and so does the answer
def given_id(message_id: str, full_url: str) -> str:
    """Return the id that the broker gives a resource of a message that came in, for ever (UUIDv5).

    It is computed for each reading (ADR 14).
    """
    return str(uuid.uuid5(uuid.UUID(message_id), full_url))


class Entries:
    """Collects the entries of one message's content, each under a name that gives its fullUrl."""

    def __init__(self, message_id: str) -> None:
        self._message = uuid.UUID(message_id)
        self._entries: dict[str, FHIRResourceModel] = {}

    def url(self, name: str) -> str:
        """Return the fullUrl that the entry of this name has, or will have."""
        return _entry_id(self._message, name)

    def add(self, name: str, resource: FHIRResourceModel) -> str:
        """Add a resource and return its fullUrl. Raises ValueError if the name is taken."""
        url = self.url(name)
        if url in self._entries:
            raise ValueError(f"There is already an entry named {name!r}.")
        self._entries[url] = resource
        return url

    def body(self, carried: Sequence[bytes] = ()) -> bytes:
        """Return the content Bundle, entries in the order in which they were added."""
        return content(list(self._entries.items()), carried)


def content(
    entries: Sequence[tuple[str, FHIRResourceModel]], carried: Sequence[bytes] = ()
) -> bytes:
    """Write a Bundle of type collection. The same resources give the same bytes; digits are kept.

    The id of each resource is the uuid of its fullUrl. `carried` are whole entries that
    stand elsewhere already (see `lend`) and keep their every byte.
    """
    own = [written(url, resource) for url, resource in entries]
    return _OPENING + b",".join([*own, *carried]) + _CLOSING


def written(url: str, resource: FHIRResourceModel) -> bytes:
    """Write one entry of a Bundle. The id of its resource is the uuid of the fullUrl."""
    body = wire.write(resource, url.removeprefix(URN))
    return f'{{"fullUrl":"{url}","resource":{body}}}'.encode()


# -- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a Bundle: its fullUrl and the resource's own bytes, unchanged."""

    full_url: str
    resource: bytes


def entries(bundle: bytes) -> list[Entry]:
    """Return the entries of a Bundle, each resource byte for byte as it stands there."""
    return [entry for raw in _raw_entries(bundle) if (entry := _read(raw)) is not None]


def lend(bundle: bytes, resource_type: str, message_id: str) -> list[Entry]:
    """Return the first entry of this type and those that it refers to, for another message.

    They get ids of that message, here and in their references; nothing else of them changes. Here
    `resource` is the whole entry. None if there is no entry of the type.
    """
    raw = {entry.full_url: (raw, entry) for raw in _raw_entries(bundle) if (entry := _read(raw))}
    wanted = [
        url for url, (_, entry) in raw.items() if resource_type_of(entry.resource) == resource_type
    ][:1]
    for url in wanted:  # grows while it is read: what is lent may refer to more
        for target in references(strict_json.loads(raw[url][1].resource)):
            if target in raw and target not in wanted:
                wanted.append(target)
    renamed = {url: entry_id(message_id, url) for url in wanted}
    lent = []
    for url in wanted:
        whole = raw[url][0]
        if resource_type_of(raw[url][1].resource) == "Patient":
            whole = _in_england(whole)
        for old, new in renamed.items():
            whole = whole.replace(_uuid(old), _uuid(new))
        lent.append(Entry(renamed[url], _identified(whole, renamed[url])))
    return lent


def _identified(entry: bytes, url: str) -> bytes:
    """Return an entry whose resource has the uuid of its fullUrl as id, as ours all have."""
    own = b'"' + _uuid(url) + b'"'
    if b'"id":' + own in entry:
        return entry
    resource = dict(strict_json.members(entry))["resource"]
    return strict_json.with_member(entry, "resource", strict_json.with_member(resource, "id", own))


def _uuid(url: str) -> bytes:
    return url.removeprefix(URN).encode("ascii")


def references(element: Any) -> Iterator[str]:
    """Yield what an element refers to, at any depth."""
    if isinstance(element, list):
        for each in element:
            yield from references(each)
    elif isinstance(element, dict):
        for name, member in element.items():
            if name == "reference" and isinstance(member, str):
                yield member
            else:
                yield from references(member)


def _read(raw: bytes) -> Entry | None:
    members = dict(strict_json.members(raw))
    if "resource" not in members:
        return None
    return Entry(strict_json.loads(members.get("fullUrl", b'""')), members["resource"])


def resource_type_of(resource: bytes) -> str:
    """Return a resource's type from its bytes."""
    for name, value in strict_json.members(resource):
        if name == "resourceType":
            return str(strict_json.loads(value))
    return ""


def _raw_entries(bundle: bytes) -> list[bytes]:
    return list(strict_json.elements_of(bundle, "entry"))


# -- carrying over -------------------------------------------------------------------------------


def carried(content: bytes) -> tuple[bytes, dict[str, str]]:
    """Return all entries of a content as they stand there, and where its organisations are.

    The header of a message that came in is not among them.
    """
    bundle = json.loads(content)  # checked when it came in, so it is read without suspicion
    held = bundle.get("entry", ())
    known = organizations(held)
    if content.startswith(_OPENING) and list(bundle) == ["resourceType", "type", "entry"]:
        return content[len(_OPENING) : -len(_CLOSING)], known
    kept = []
    for raw, entry in zip(_raw_entries(content), held, strict=True):
        kind = entry.get("resource", {}).get("resourceType")
        if kind != "MessageHeader":
            kept.append(_in_england(raw) if kind == "Patient" else raw)
    return b",".join(kept), known


def patient(content: bytes) -> str | None:
    """Return the fullUrl of the patient that a content is about, if it holds one."""
    held = json.loads(content).get("entry", ())
    return next(
        (one["fullUrl"] for one in held if one["resource"]["resourceType"] == "Patient"), None
    )


def _in_england(entry: bytes) -> bytes:
    """Return a patient's entry with the NHS number's status as UK Core has it, where BaRS's own
    retired code is said; else every byte as it was."""
    if _RETIRED not in entry.lower():
        return entry
    resource = dict(strict_json.members(entry))["resource"]
    patient = strict_json.loads(resource)
    held = patient.get("identifier", [])
    identifiers = [with_status(one, to_england) for one in held]
    if identifiers == held:
        return entry
    written = strict_json.with_member(resource, "identifier", strict_json.dumps(identifiers))
    return strict_json.with_member(entry, "resource", written)


def organizations(entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the fullUrl of each organisation among entries, by its ODS code."""
    found: dict[str, str] = {}
    for entry in entries:
        resource = entry.get("resource", {})
        if resource.get("resourceType") == "Organization":
            for code in _ods_codes(resource.get("identifier", ())):
                found.setdefault(code, entry["fullUrl"])
    return found


def _ods_codes(held: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the ODS codes among identifiers, whatever spelling their senders use."""
    for one in held:
        if systems.is_same(one.get("system", ""), codes.ODS):
            code = identifiers.ods_code(one.get("value", ""))
            if code is not None:
                yield code


# -- searching -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IndexRow:
    """What one entry can be found by: the id of its resource, and its fullUrl in the Bundle."""

    resource_id: str
    full_url: str
    type: str
    status: str = ""
    code: str = ""
    priority: str = ""
    requester: str = ""
    codes: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    identifiers: tuple[tuple[str, str], ...] = ()
    authored: str = ""


def index(bundle: Mapping[str, Any], message_id: str = "") -> list[IndexRow]:
    """Return one row per entry, in order. Codes only; nothing that a person typed.

    It was checked already. Resources of a message that came in get ids of the message that it is
    here; its header has none.
    """
    held = {entry["fullUrl"]: entry["resource"] for entry in bundle.get("entry", ())}
    came_in = bundle["type"] == "message"
    return [
        _row(url, given_id(message_id, url) if came_in else resource["id"], resource, held)
        for url, resource in held.items()
        if resource["resourceType"] != "MessageHeader"
    ]


def resource_of(content: bytes, message_id: str, resource_id: str) -> bytes | None:
    """Return the resource that the index of a message's content has under this id, or None.

    Nothing is read of the other ones: a page of a search opens many contents for one each.
    """
    for raw in strict_json.elements_of(content, "entry"):
        held: dict[str, bytes] = {}
        for name, value in strict_json.members(raw):
            held[name] = value
            if name == "fullUrl" and not _is_of(strict_json.loads(value), message_id, resource_id):
                held.clear()
                break
        if "fullUrl" in held and "resource" in held:
            return held["resource"]
    return None


def _is_of(url: str, message_id: str, resource_id: str) -> bool:
    return resource_id in {url.removeprefix(URN), given_id(message_id, url)}


def held(content: bytes, message_id: str) -> dict[str, tuple[str, bytes]]:
    """Return what the entries of a message's content hold, by fullUrl: the id that the index has
    for each resource, and its bytes."""
    ids = {row.full_url: row.resource_id for row in index(json.loads(content), message_id)}
    return {
        entry.full_url: (ids[entry.full_url], entry.resource)
        for entry in entries(content)
        if entry.full_url in ids
    }


_REQUESTER: Final = ("requester", "sender", "author")
_AUTHORED: Final = ("authoredOn", "sent", "lastModified")


def _row(
    url: str, resource_id: str, resource: Mapping[str, Any], held: Mapping[str, Any]
) -> IndexRow:
    status = resource.get("status", "")
    coded, categories = _codes(resource.get("code")), _codes(resource.get("category"))
    return IndexRow(
        resource_id=resource_id,
        full_url=url,
        type=resource["resourceType"],
        status=status if isinstance(status, str) else "",
        code=next(iter([*coded, *categories]), ""),
        priority=resource.get("priority", ""),
        requester=next((_ods(one, held) for one in _requesters(resource)), ""),
        codes=coded,
        categories=categories,
        identifiers=tuple(_identifiers(resource.get("identifier"))),
        authored=next((resource[name] for name in _AUTHORED if name in resource), ""),
    )


def _requesters(resource: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield references to who asks, tells or wrote; a document has a list of those."""
    for name in _REQUESTER:
        found = resource.get(name, ())
        yield from found if isinstance(found, list | tuple) else [found]


def _identifiers(element: Any) -> Iterator[tuple[str, str]]:
    for identifier in element if isinstance(element, list) else ():
        if isinstance(identifier, Mapping) and "system" in identifier and "value" in identifier:
            yield identifier["system"], identifier["value"]


def _codes(element: Any) -> tuple[str, ...]:
    return tuple(
        f"{coding.get('system', '')}|{coding['code']}"
        for concept in (element if isinstance(element, list) else [element])
        if isinstance(concept, dict)
        for coding in concept.get("coding", ())
        if "code" in coding
    )


def _ods(reference: Mapping[str, Any], held: Mapping[str, Any]) -> str:
    """Follow a reference to an organisation, also through a role; return its ODS code."""
    target = held.get(reference.get("reference", ""), {})
    if "organization" in target:
        return _ods(target["organization"], held)
    return next(_ods_codes([*target.get("identifier", ()), reference.get("identifier", {})]), "")
