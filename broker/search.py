"""What a FHIR search asks for, understood: its filters, its order, and how much of it.

Pure. What cannot be read is refused, never passed over: a filter that filters nothing would show
another patient's referrals as this one's. Only names that are not known at all are left to the
caller's wish (`Prefer: handling`).
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from broker.errors import BadRequest, Problem
from fhir_profiles import codes
from fhir_profiles.identifiers import nhs_number, ods_code
from fhir_profiles.systems import Systems
from fhir_profiles.working_days import LONDON

LARGEST_PAGE: Final = 200
PAGE: Final = 50
Prefix = Literal["eq", "ne", "gt", "lt", "ge", "le", "sa", "eb"]
Summary = Literal["false", "true", "data", "count"]
_MOMENT: Final = re.compile(
    r"(eq|ne|gt|lt|ge|le|sa|eb)?(\d{4})(?:-(\d\d)(?:-(\d\d)"
    r"(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.\d+)?)?(Z|[+-]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)
_NAME: Final = re.compile(r"[A-Za-z_:.-]{1,40}")
_NHS: Final = Systems([codes.NHS_NUMBER])
_ODS: Final = Systems([codes.ODS])


@dataclass(frozen=True, slots=True)
class Is:
    """A column has one of these values."""

    column: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Holds:
    """A column of codes holds one of these: `system|code`, or `code` of any system."""

    column: str
    tokens: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class When:
    """A time compares so with one of these spans, each from its start to before its end."""

    column: str
    spans: tuple[tuple[Prefix, datetime, datetime], ...]


@dataclass(frozen=True, slots=True)
class Called:
    """It has one of these business identifiers, as HMACs."""

    hmacs: tuple[str, ...]


Test = Is | Holds | When | Called


@dataclass(frozen=True, slots=True)
class Search:
    """A search of one type. `order` is a column; `used` are the parameters as they were given."""

    type: str
    tests: tuple[Test, ...] = ()
    order: str = "updated_at"
    descending: bool = True
    count: int = PAGE
    includes: tuple[str, ...] = ()
    summary: Summary = "false"
    used: tuple[tuple[str, str], ...] = ()

    @property
    def is_count(self) -> bool:
        return self.summary == "count" or self.count == 0


@dataclass(frozen=True, slots=True)
class Parameter:
    """One search parameter: how it reads, which column, FHIR's type of it, and its words."""

    kind: str
    column: str
    type: str
    words: str


_COMMON: Final[Mapping[str, Parameter]] = {
    "_id": Parameter("id", "id", "token", "Its id."),
    "_lastUpdated": Parameter("when", "updated_at", "date", "When it was stored here."),
    "patient:identifier": Parameter(
        "patient", "patient_pseudonym", "reference", "Whose it is: system|NHS number."
    ),
    "identifier": Parameter("called", "", "token", "A business identifier: system|value."),
    "status": Parameter("code", "status", "token", "Its status, as it was sent."),
    "priority": Parameter("code", "priority", "token", "How urgent it is."),
    "code": Parameter("token", "code", "token", "What is asked for or told."),
}
_REQUESTER: Final = Parameter("ods", "requester", "reference", "By whom: an ODS code.")
_PERFORMER: Final = Parameter("ods", "performer", "reference", "Who must act: an ODS code.")
_CATEGORY: Final = Parameter("token", "category", "token", "Of which sort it is.")


def _dated(words: str) -> Parameter:
    return Parameter("when", "authored_at", "date", words)


PARAMETERS: Final[Mapping[str, Mapping[str, Parameter]]] = {
    "ServiceRequest": {
        **_COMMON,
        "category": _CATEGORY,
        "requester": _REQUESTER,
        "performer": _PERFORMER,
        "authored": _dated("When it was made."),
    },
    "Communication": {
        **{name: one for name, one in _COMMON.items() if name != "code"},
        "category": _CATEGORY,
        "sender": _REQUESTER,
        "recipient": _PERFORMER,
        "sent": _dated("When it was sent."),
    },
    "Task": {
        **{name: one for name, one in _COMMON.items() if name not in {"code", "identifier"}},
        "business-status": Parameter("token", "category", "token", "Where the referral stands."),
        "requester": _REQUESTER,
        "owner": _PERFORMER,
        "authored-on": _dated("When the referral was taken in."),
    },
}
"""Of each type. `patient:identifier` is asked with its modifier and no other way."""

INCLUDES: Final[Mapping[str, Mapping[str, str]]] = {
    "ServiceRequest": {
        "patient": "subject",
        "subject": "subject",
        "encounter": "encounter",
        "requester": "requester",
        "performer": "performer",
        "based-on": "basedOn",
    },
    "Communication": {
        "patient": "subject",
        "subject": "subject",
        "encounter": "encounter",
        "sender": "sender",
        "recipient": "recipient",
    },
    "Task": {"patient": "for", "subject": "for", "requester": "requester", "owner": "owner"},
}
"""What may be included, by the name of its search parameter: the element that refers to it."""

RESULT: Final[Mapping[str, str]] = {
    "_sort": "By a date, `-` before it: newest first. Unless given, -_lastUpdated.",
    "_count": f"How many on a page: {PAGE}, at most {LARGEST_PAGE}. 0: only how many there are.",
    "_include": "What it refers to as well: ServiceRequest:patient and so on.",
    "_summary": "true, data, count or false.",
}
PLAIN: Final = frozenset({"requester", "performer", "sender", "recipient", "owner"})
"""Parameters of references that are asked for by an ODS code, with `:identifier` or without."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads the parameters of a search; knows how patients and identifiers stand in the index."""

    pseudonym: Callable[[str], str]
    identifier_hmac: Callable[[str, str], str]

    def read(self, type_: str, given: Iterable[tuple[str, str]]) -> tuple[Search, list[str]]:
        """Return the search, and the names that are not known. Raises BadRequest, with all that is
        wrong with the rest."""
        tests: list[Test] = []
        result: dict[str, list[str]] = {}
        used: list[tuple[str, str]] = []
        unknown: list[str] = []
        problems: list[Problem] = []
        for name, value in given:
            parameter = _parameter(type_, name)
            try:
                if parameter is not None:
                    tests.append(self._test(parameter, value))
                elif name in RESULT:
                    result.setdefault(name, []).append(value)
                elif name.partition(":")[0].partition(".")[0] in _bare(type_):
                    raise _Wrong("not-supported", "It is not offered in this form.", _form(type_))
                else:
                    unknown.append(name)
                    continue
            except _Wrong as wrong:
                problems.append(
                    Problem(f"http.{shown_name(name)}", wrong.code, wrong.said, wrong.todo)
                )
            else:
                used.append((name, value))
        search = Search(type_, tuple(tests), used=tuple(used))
        search = _with_result(search, result, problems)
        if problems:
            raise BadRequest("", problems)
        return search, unknown

    def _test(self, parameter: Parameter, value: str) -> Test:
        values = tuple(one for one in value.split(",") if one)
        if not values:
            raise _Wrong("value", "It has no value.", "Give one, or leave it out.")
        match parameter.kind:
            case "id":
                return Is("id", tuple(_uuid(one) for one in values))
            case "when":
                return When(parameter.column, tuple(_span(one) for one in values))
            case "token":
                return Holds(parameter.column, values)
            case "code":
                return Is(parameter.column, tuple(one.rpartition("|")[2] for one in values))
            case "ods":
                return Is(parameter.column, tuple(_ods(one) for one in values))
            case "patient":
                return Is(parameter.column, tuple(self.pseudonym(_nhs(one)) for one in values))
            case _:
                return Called(tuple(self.identifier_hmac(*_pair(one)) for one in values))


def _with_result(
    search: Search, given: Mapping[str, Sequence[str]], problems: list[Problem]
) -> Search:
    """Return the search with what is said of its result: order, size, includes, summary."""
    more: dict[str, object] = {}
    for name, values in given.items():
        try:
            more |= _result(search.type, name, values)
        except _Wrong as wrong:
            problems.append(Problem(f"http.{name}", wrong.code, wrong.said, wrong.todo))
    return Search(search.type, search.tests, used=search.used, **more)  # type: ignore[arg-type]


def _result(type_: str, name: str, values: Sequence[str]) -> dict[str, object]:
    if name == "_include":
        allowed = {f"{type_}:{one}": one for one in INCLUDES[type_]}
        if not set(values) <= set(allowed):
            listed = ", ".join(sorted(allowed))
            raise _Wrong("not-supported", "That cannot be included.", f"One of: {listed}.")
        return {"includes": tuple(dict.fromkeys(allowed[one] for one in values))}
    if len(values) > 1:
        raise _Wrong("value", f"{name} stands twice.", "Give it once.")
    (value,) = values
    if name == "_count":
        if not (value.isascii() and value.isdigit() and len(value) < 10):
            raise _Wrong("value", "It is not a whole number.", "Write it in digits only.")
        return {"count": min(int(value), LARGEST_PAGE)}
    if name == "_summary":
        if value not in {"true", "false", "data", "count"}:
            raise _Wrong("not-supported", "There is no such summary.", "true, data, count, false.")
        return {"summary": value}
    return _order(type_, value)


def _order(type_: str, value: str) -> dict[str, object]:
    orders = {name: one.column for name, one in PARAMETERS[type_].items() if one.kind == "when"}
    column = orders.get(value.removeprefix("-"))
    if column is None:
        listed = ", ".join(f"{one}, -{one}" for one in orders)
        raise _Wrong("not-supported", "It cannot be sorted so.", f"One of: {listed}.")
    return {"order": column, "descending": value.startswith("-")}


def shown_name(name: str) -> str:
    """Return a parameter's name if it can be one: it may be anything, also a patient's number."""
    return name if _NAME.fullmatch(name) else "parameter"


# -- reading values ------------------------------------------------------------------------------


class _Wrong(Exception):
    """A parameter cannot be read."""

    def __init__(self, code: str, said: str, todo: str) -> None:
        super().__init__(said)
        self.code, self.said, self.todo = code, said, todo


def _parameter(type_: str, name: str) -> Parameter | None:
    known = PARAMETERS[type_]
    if name.endswith(":identifier") and name.removesuffix(":identifier") in PLAIN:
        name = name.removesuffix(":identifier")
    if name == "subject:identifier":
        name = "patient:identifier"
    return known.get(name)


def _bare(type_: str) -> set[str]:
    """Return the names of the parameters without modifiers, also those that are no name alone."""
    return {name.partition(":")[0] for name in PARAMETERS[type_]} | {"subject", *RESULT}


def _form(type_: str) -> str:
    return f"Those of a {type_}: {', '.join(PARAMETERS[type_])}."


def _uuid(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise _Wrong("value", "It is not an id that is given here.", "Ids are UUIDs.") from None


def _pair(text: str) -> tuple[str, str]:
    system, bar, value = text.partition("|")
    if not (system and bar and value):
        raise _Wrong("value", "It is not system|value.", "Give the system and the value.")
    return system, value


def _nhs(text: str) -> str:
    system, value = _pair(text)
    meant = _NHS.meant_by(system)
    number = nhs_number(value)
    if meant is None or meant.is_misspelt or number is None:
        said = "It is not an NHS number with its system."
        raise _Wrong("value", said, f"Give {codes.NHS_NUMBER}|<ten digits>.")
    return number


def _ods(text: str) -> str:
    system, bar, value = text.rpartition("|")
    code = ods_code(value)
    meant = _ODS.meant_by(system) if bar else None
    if code is None or (bar and (meant is None or meant.is_misspelt)):
        said = "It is not an ODS code."
        raise _Wrong("value", said, f"Give {codes.ODS}|<code>, or the code alone.")
    return code


def _span(text: str) -> tuple[Prefix, datetime, datetime]:
    """Return (prefix, start, end) of a date or time: a day, a minute, as exact as it is given.

    Where no offset is given it is London's.
    """
    found = _MOMENT.fullmatch(text.replace(" ", "+"))
    wrong = _Wrong("value", "It is not a date or time.", "Such as ge2026-11-20.")
    if found is None:
        raise wrong
    prefix, year, month, day, hour, minute, second, offset = found.groups()
    try:
        zone = datetime.fromisoformat(f"2000-01-01T00:00{offset}").tzinfo if offset else LONDON
        date = int(year), int(month or 1), int(day or 1)
        start = datetime(*date, int(hour or 0), int(minute or 0), int(second or 0), tzinfo=zone)
        end = _end(start, month, day, hour, second)
        spans = start.astimezone(UTC), end.astimezone(UTC)
    except (ValueError, OverflowError):
        raise wrong from None
    return (prefix or "eq", *spans)  # type: ignore[return-value]


def _end(
    start: datetime, month: str | None, day: str | None, hour: str | None, second: str | None
) -> datetime:
    if month is None:
        return start.replace(year=start.year + 1)
    if day is None:
        later = start + timedelta(days=31)
        return later.replace(day=1)
    if hour is None:
        return start + timedelta(days=1)
    # Naive arithmetic on a wall clock would lose an hour where the clocks change.
    return start.astimezone(UTC) + timedelta(seconds=1 if second is not None else 60)
