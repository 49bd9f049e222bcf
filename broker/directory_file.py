"""The directory file: strict YAML in, a Directory out, every problem named with its place.

Nothing is guessed: duplicate keys, unknown fields, aliases and tags are refused, and every scalar
is a text until the shape of its entry says otherwise (YAML alone makes `no` a falsehood and an
octal number of `01632`). A file with a problem loads nothing of itself.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from broker.directory import BARS, GENERAL_PRACTICE, Directory
from broker.directory_entries import (
    ALL,
    Agreement,
    Connection,
    Contact,
    Entries,
    Organisation,
    Service,
)
from broker.errors import Problem, Refused
from broker.events import Kind

KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "icb": "icbs",
        "organisation": "organisations",
        "service": "services",
        "endpoint": "endpoints",
        "contact": "contacts",
        "agreement": "agreements",
    }
)
"""What one entry is called, and the section of the file that holds them."""

_ENTRIES: Final = TypeAdapter(Entries)


def parse(text: str) -> Directory:
    """Read a directory file whole, or raise Refused with every problem and its path.

    Shapes are checked first, references between entries once every shape is right.
    """
    try:
        loader = _Loader(text)
        data = loader.get_single_data()
    except (yaml.YAMLError, RecursionError) as error:
        raise _refused([_unreadable(error)]) from None
    if not isinstance(data, dict):
        sections = f"It has the sections {', '.join(KINDS.values())}."
        raise _refused([Problem("", "invalid", "The file is not a mapping.", sections)])
    return _build(data, loader.duplicates)


def rows(directory: Directory) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield each entry as kind, key and JSON-ready fields; `from_rows` gives them back."""
    whole = _ENTRIES.dump_python(directory.entries, mode="json", exclude_defaults=True)
    for kind, section in KINDS.items():
        entries = getattr(directory.entries, section)
        for entry, written in zip(entries, whole.get(section, ()), strict=True):
            yield kind, entry.key, written


def from_rows(entries: Iterable[tuple[str, str, Mapping[str, Any]]]) -> Directory:
    """Build a directory from what `rows` gave, as strictly as from a file."""
    data: dict[str, list[Mapping[str, Any]]] = {}
    for kind, _, entry in entries:
        data.setdefault(KINDS[kind], []).append(entry)
    return _build(data, [])


@dataclass(frozen=True, slots=True)
class Change:
    """One entry that differs between two directories; reads as a line."""

    kind: str
    key: str
    action: Literal["added", "removed", "changed"]
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        line = f"{self.action} {self.kind} {self.key}"
        return f"{line}: {'; '.join(self.details)}" if self.details else line


def difference(old: Directory, new: Directory) -> list[Change]:
    """Return every entry that was added, removed or changed, field by field, in a stable order."""
    changes = []
    for kind, section in KINDS.items():
        before = {entry.key: entry for entry in getattr(old.entries, section)}
        after = {entry.key: entry for entry in getattr(new.entries, section)}
        for key in sorted(before.keys() | after.keys()):
            if key not in before:
                changes.append(Change(kind, key, "added"))
            elif key not in after:
                changes.append(Change(kind, key, "removed"))
            elif before[key] != after[key]:
                changes.append(Change(kind, key, "changed", _details(before[key], after[key])))
    return changes


def _details(before: Any, after: Any) -> tuple[str, ...]:
    return tuple(
        f"{name} {_shown(was)} → {_shown(now)}"
        for name in (one.name for one in fields(before))
        if (was := getattr(before, name)) != (now := getattr(after, name))
    )


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_shown(one) for one in value) + "]"
    if hasattr(value, "__dataclass_fields__"):
        return " ".join(_shown(getattr(value, name)) for name in value.__dataclass_fields__)
    return str(value) if value not in (None, "") else "none"


# -- shapes --------------------------------------------------------------------------------------


class _Loader(yaml.BaseLoader):
    """YAML of texts, lists and mappings and nothing else; duplicate keys are collected."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.duplicates: list[Problem] = []

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(
                problem="aliases and tags are refused", problem_mark=event.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        times = Counter(key.value for key, _ in node.value if isinstance(key.value, str))
        for key, count in times.items():
            if count > 1:
                place = f"line {node.start_mark.line + 1}"
                detail = f"{key} stands {count} times in the entry that begins here."
                self.duplicates.append(Problem(place, "duplicate-key", detail, "Keep one of them."))
        return super().construct_mapping(node, deep)


def _build(data: Mapping[str, Any], problems: list[Problem]) -> Directory:
    try:
        entries = _ENTRIES.validate_json(json.dumps(data))
    except ValidationError as error:
        wrong = [_malformed(one) for one in error.errors(include_url=False)]
        raise _refused([*problems, *wrong]) from None
    directory = Directory(entries)
    problems = [*problems, *_cross_check(directory)]
    if problems:
        raise _refused(problems)
    return directory


def _refused(problems: list[Problem]) -> Refused:
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return Refused(f"The directory file has {count}; nothing was loaded.", problems)


def _unreadable(error: Exception) -> Problem:
    mark = getattr(error, "problem_mark", None)
    place = "" if mark is None else f"line {mark.line + 1}"
    why = getattr(error, "problem", None) or str(error).splitlines()[0]
    return Problem(place, "malformed", f"Not YAML: {why}.")


# What pydantic finds, by the first word of its code, as whoever writes the file reads it.
_WORDS: Final = MappingProxyType(
    {
        "bool": "neither true nor false",
        "dataclass": "not an entry; write its fields, each with a name and a value",
        "date": "not a day such as 2026-11-30",
        "greater": "not a whole number from 1 on",
        "int": "not a whole number from 1 on",
        "string": "not a text",
        "tuple": "not a list; write [one, another], or [] for none",
    }
)


def _malformed(error: ErrorDetails) -> Problem:
    path, kind = error["loc"], error["type"]
    place = _path(*path)
    if kind == "missing":
        return Problem(place, "missing", f"{path[-1]} is missing.")
    if kind == "unexpected_keyword_argument":
        return Problem(place, "unknown-field", f"There is no field {path[-1]} here.")
    if kind in {"literal_error", "enum"}:
        said = f"none of {error['ctx']['expected']}"
    else:
        said = _WORDS.get(kind.partition("_")[0], error["msg"].removeprefix("Value error, "))
    return Problem(place, "invalid", f"{said}.")


def _path(*parts: int | str) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return path.removeprefix(".")


# -- references ----------------------------------------------------------------------------------


def _cross_check(directory: Directory) -> Iterator[Problem]:
    """Yield everything that is wrong between entries of a file whose shapes are right."""
    yield from _repeated(directory)
    checks: dict[str, Callable[[Directory, Any], Iterator[tuple[str, str]]]] = {
        "organisations": _organisation,
        "services": _service,
        "endpoints": _endpoint,
        "contacts": _contact,
        "agreements": _agreement,
    }
    for section, check in checks.items():
        for index, entry in enumerate(getattr(directory.entries, section)):
            for name, detail in check(directory, entry):
                place = _path(section, index, name)
                yield Problem(place, "inconsistent", f"{entry.key}: {detail}")


def _repeated(directory: Directory) -> Iterator[Problem]:
    for kind, section in KINDS.items():
        seen = set()
        for index, entry in enumerate(getattr(directory.entries, section)):
            if entry.key in seen:
                detail = f"There is another {kind} {entry.key}."
                yield Problem(_path(section, index), "duplicate", detail)
            seen.add(entry.key)
    named = Counter(service.dos for service in directory.entries.services if service.dos)
    for index, service in enumerate(directory.entries.services):
        if named[service.dos] > 1:
            detail = f"Several services have the DoS id {service.dos}."
            yield Problem(_path("services", index, "dos"), "duplicate", detail)


def _organisation(directory: Directory, entry: Organisation) -> Iterator[tuple[str, str]]:
    if entry.icb not in directory.icbs:
        yield "icb", f"there is no ICB {entry.icb}."
    if entry.is_open and entry.successor is not None:
        yield "successor", "an open organisation has no successor."
    if entry.is_open and not entry.telephone:
        yield "telephone", "an open organisation needs a number: it is what a refusal names."
    if entry.successor is not None and entry.successor not in directory.organisations:
        yield "successor", f"there is no organisation {entry.successor}."
    elif entry.successor is not None and directory.resolve_successor(entry.ods) is None:
        yield "successor", "the chain of successors does not end in an open organisation."


def _service(directory: Directory, entry: Service) -> Iterator[tuple[str, str]]:
    if entry.organisation not in directory.organisations:
        yield "organisation", f"there is no organisation {entry.organisation}."
    if entry.icb not in directory.icbs:
        yield "icb", f"there is no ICB {entry.icb}."
    sought = Counter((o.receiver_type, name) for o in entry.offers for name in o.subspecialties)
    for (receiver_type, subspecialty), count in sought.items():
        if count > 1:
            yield "offers", f"{receiver_type} for {subspecialty} is offered {count} times."
    for offer in entry.offers:
        if offer.receiver_type == GENERAL_PRACTICE:
            yield "offers", "general practice is the registered practice, never a service."
        if not offer.subspecialties:
            yield "offers", f"{offer.receiver_type} names no subspecialty; write [{ALL}] for any."
    for hours in entry.opening_hours:
        if hours.opens >= hours.closes:
            yield "opening_hours", f"{hours.opens} is not before {hours.closes}."
    for number, closure in enumerate(entry.closures):
        if closure.last_day is not None and closure.last_day < closure.first_day:
            yield f"closures[{number}].last_day", "it ends before it begins."


def _endpoint(directory: Directory, entry: Connection) -> Iterator[tuple[str, str]]:
    if entry.organisation not in directory.organisations:
        yield "organisation", f"there is no organisation {entry.organisation}."
    elif entry.service and directory.service(entry.destination) is None:
        yield "service", f"{entry.organisation} has no service {entry.service}."
    if not entry.takes:
        yield "takes", "an endpoint that takes nothing is no endpoint; leave it out."
    if not entry.pathways:
        yield "pathways", f"write [{ALL}] for any pathway."
    if entry.channel == "inbox" and entry.url:
        yield "url", "an inbox is collected from; it has no url."
    if entry.channel != "inbox" and not _is_plain_url(entry.url):
        yield "url", f"a {entry.channel} needs a http or https url without user, query or fragment."
    if entry.channel == BARS:
        if Kind.UPDATE in entry.takes:
            yield "takes", "BaRS has no message for the record: a bars takes referral and notice."
        if bool(entry.token_url) != bool(entry.client):
            yield "token_url", "a token_url and a client go together."
        if entry.token_url and not _is_plain_url(entry.token_url):
            yield "token_url", "it needs a http or https url without user, query or fragment."
    elif entry.token_url or entry.client:
        yield "token_url", f"a {entry.channel} wants no token."


def _contact(directory: Directory, entry: Contact) -> Iterator[tuple[str, str]]:
    if entry.organisation not in directory.organisations:
        yield "organisation", f"there is no organisation {entry.organisation}."
    if not entry.telephone and not entry.email:
        yield "telephone", "give a telephone number or an e-mail address."


def _agreement(directory: Directory, entry: Agreement) -> Iterator[tuple[str, str]]:
    for ods in entry.parties:
        if ods not in directory.organisations:
            yield "parties", f"there is no organisation {ods}."
    if len(set(entry.parties)) < 2:
        yield "parties", "an agreement is between two parties or more."
    if not entry.pathways:
        yield "pathways", f"write [{ALL}] for any pathway."
    if entry.valid_to is not None and entry.valid_to < entry.valid_from:
        yield "valid_to", "it ends before it begins."


def _is_plain_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port_is_right = parts.port is None or parts.port > 0
    except ValueError:
        return False
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and plain and port_is_right
