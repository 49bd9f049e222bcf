"""What a client creates, with what it refers to: read, and made the content of a message.

Two shapes are known: a resource with the others contained in it, and a transaction of which each
entry creates one. Every value keeps its bytes; ids are given, and references follow them.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from fhir_profiles import bundle, strict_json
from fhir_profiles.compiler.finding import Finding

FOCUSES: Final = ("ServiceRequest", "Communication")
_URN: Final = "urn:uuid:"
_OWN: Final = "#"


@dataclass(frozen=True, slots=True)
class Created:
    """What is created: each resource with its bytes by what refers to it, and which it is about.

    `paths` say where each stands in what was posted; `condition` is the focus's `ifNoneExist`.
    """

    parts: Mapping[str, bytes] = field(repr=False)
    focus: str
    paths: Mapping[str, str]
    is_transaction: bool
    condition: str = ""

    @property
    def type(self) -> str:
        return bundle.resource_type_of(self.parts[self.focus])

    def named(self, message_id: str) -> dict[str, str]:
        """Return the fullUrl of each part in the content of a message, by what refers to it."""
        return {name: bundle.entry_id(message_id, name) for name in self.parts}

    def content(self, message_id: str) -> bytes:
        """Return the content of a message: the same parts under ids of that message."""
        named = self.named(message_id)
        held = [_entry(url, _renamed(self.parts[name], named)) for name, url in named.items()]
        return bundle.content([], held)


def read(body: bytes, resource: Mapping[str, Any]) -> Created | list[Finding]:
    """Read what was posted; it is FHIR already. Returns why it cannot be taken, if it cannot."""
    is_transaction = resource.get("resourceType") == "Bundle"
    made = _transaction(body, resource) if is_transaction else _contained(body)
    if isinstance(made, list):
        return made
    return list(_dangling(made)) or made


def _contained(body: bytes) -> Created:
    members = dict(strict_json.members(body))
    held = list(strict_json.elements_of(body, "contained"))
    members.pop("contained", None)
    kind = strict_json.loads(members["resourceType"])
    parts, paths = {_OWN: strict_json.written(members)}, {_OWN: kind}
    for place, one in enumerate(held):
        name = _OWN + str(strict_json.loads(dict(strict_json.members(one)).get("id", b'""')))
        parts[name], paths[name] = one, f"{kind}.contained[{place}]"
    return Created(parts, _OWN, paths, is_transaction=False)


def _transaction(body: bytes, posted: Mapping[str, Any]) -> Created | list[Finding]:
    wrong: list[Finding] = []
    if posted.get("type") != "transaction":
        return [_wrong("value", "Bundle.type", "Post a Bundle of type transaction.")]
    parts: dict[str, bytes] = {}
    paths: dict[str, str] = {}
    about: list[tuple[str, str]] = []
    for place, raw in enumerate(strict_json.elements_of(body, "entry")):
        entry, path = json.loads(raw), f"Bundle.entry[{place}]"
        resource, request = entry.get("resource", {}), entry.get("request", {})
        kind, url = resource.get("resourceType", ""), entry.get("fullUrl", "")
        if request.get("method") != "POST" or request.get("url") != kind:
            said = "Each entry creates its resource: method POST, url its type."
            wrong.append(_wrong("not-supported", f"{path}.request", said))
        if not url.startswith(_URN):
            wrong.append(_wrong("value", f"{path}.fullUrl", "Give it as urn:uuid:<uuid>."))
        if kind in FOCUSES:
            about.append((url, request.get("ifNoneExist", "")))
        elif "ifNoneExist" in request:
            said = "Only what is asked for or told is created on a condition."
            wrong.append(_wrong("not-supported", f"{path}.request.ifNoneExist", said))
        parts[url] = dict(strict_json.members(raw)).get("resource", b"{}")
        paths[url] = f"{path}.resource"
    if len(about) != 1:
        said = f"One {' or '.join(FOCUSES)} is created at a time; here are {len(about)}."
        wrong.append(_wrong("invariant", "Bundle.entry", said))
    if wrong:
        return wrong
    focus, condition = about[0]
    return Created(parts, focus, paths, is_transaction=True, condition=condition)


def _dangling(made: Created) -> Iterator[Finding]:
    for name, part in made.parts.items():
        for reference in bundle.references(json.loads(part)):
            if reference not in made.parts:
                said = "It refers to what was not sent with it; give an identifier, or send it too."
                yield _wrong("not-found", made.paths[name], said)


def _renamed(part: bytes, named: Mapping[str, str]) -> bytes:
    """Return a resource with every reference to a part under its new name."""
    text = part.decode()

    def follow(found: re.Match[str]) -> str:
        name = json.loads(found[2])
        return f"{found[1]}{json.dumps(named[name])}" if name in named else found[0]

    return _REFERENCE.sub(follow, text).encode()


# A quotation mark within a text is escaped, so no text can look like this.
_REFERENCE: Final = re.compile(r'(?<!\\)("reference"\s*:\s*)("(?:[^"\\]|\\.)*")')


def _entry(url: str, part: bytes) -> bytes:
    own = strict_json.dumps(url.removeprefix(_URN))
    return b'{"fullUrl":%s,"resource":%s}' % (
        strict_json.dumps(url),
        strict_json.with_member(part, "id", own),
    )


def _wrong(code: str, path: str, said: str) -> Finding:
    return Finding("error", code, path, "", said)
