"""A referral's content for the place that it is sent on to: all that was said, asked of another.

Every resource gets an id of the new message's, as each message has its own; of what was said no
byte changes. The request's performer is the new place, and a note says who sent it on and why.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from fhir_profiles import resources, strict_json
from fhir_profiles.bundle import (
    URN,
    Entry,
    carried,
    content,
    entries,
    entry_id,
    references,
    resource_type_of,
    written,
)
from fhir_profiles.focus import Content
from fhir_profiles.message import Site

_ENTRY: Final = b'{"fullUrl":"%s","resource":%s}'


def redirected(
    body: bytes,
    focus: str,
    *,
    old_message: str,
    message: str,
    performer: Site,
    performer_type: str,
    priority: str,
    said: str,
) -> Content:
    """Return the content of the next version. `body` is a content of our own making, `focus` the
    fullUrl of its ServiceRequest, `priority` what it is taken for; `said` is the note."""
    held = entries(body)
    known = carried(body)[1]
    renamed = {one.full_url: entry_id(message, one.full_url) for one in held}
    renamed |= {f"{URN}{old_message}": f"{URN}{message}"}
    here = renamed.get(known.get(performer.ods, ""), entry_id(message, f"to {performer.ods}"))
    made = [_renamed(one, renamed) for one in held]
    about = renamed[focus]
    made = [
        Entry(
            about,
            _with_priority(_asked_of(one.resource, here, performer_type, said), priority),
        )
        if one.full_url == about
        else one
        for one in made
    ]
    raw = [_ENTRY % (one.full_url.encode(), one.resource) for one in _spoken_of(made, here)]
    if performer.ods not in known:
        raw.append(written(here, resources.organization(performer.ods, performer.name or None)))
    return Content(content([], raw), about)


def taken_as(body: bytes, focus: str, priority: str) -> bytes:
    """Return a content of our own making with the priority that its referral is taken for, where
    its sender asked for another. `focus` is the fullUrl of its ServiceRequest."""
    return content(
        [],
        [
            _ENTRY
            % (
                one.full_url.encode(),
                _with_priority(one.resource, priority) if one.full_url == focus else one.resource,
            )
            for one in entries(body)
        ],
    )


def _with_priority(request: bytes, priority: str) -> bytes:
    return strict_json.with_member(request, "priority", strict_json.dumps(priority))


def _renamed(entry: Entry, renamed: Mapping[str, str]) -> Entry:
    resource = entry.resource
    for old, new in renamed.items():
        resource = resource.replace(_uuid(old), _uuid(new))
    return Entry(renamed[entry.full_url], resource)


def _uuid(url: str) -> bytes:
    return url.removeprefix(URN).encode("ascii")


def _asked_of(request: bytes, performer: str, performer_type: str, said: str) -> bytes:
    """Return the request with its new performer, and the note."""
    old = dict(strict_json.members(request))
    notes = [*strict_json.elements(old.get("note", b"[]")), strict_json.dumps({"text": said})]
    for name, value in (
        ("performerType", strict_json.dumps({"text": performer_type})),
        ("performer", strict_json.dumps([{"reference": performer}])),
        ("note", b"[" + b",".join(notes) + b"]"),
    ):
        request = strict_json.with_member(request, name, value)
    return request


def _spoken_of(held: Iterable[Entry], performer: str) -> Iterable[Entry]:
    """Leave out organisations of which nothing speaks any more: whom it is no longer asked of."""
    named: set[Any] = {performer}
    for one in held:
        named.update(references(json.loads(one.resource)))
    return [
        one
        for one in held
        if one.full_url in named or resource_type_of(one.resource) != "Organization"
    ]
