"""What a FHIR search asks for, understood: its filters, its order, and how much of it.

Pure. What cannot be read is refused, never passed over: a filter that filters nothing would show
another patient's referrals as this one's. Only names that are not known at all are left to the
caller's wish (`Prefer: handling`).
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from broker import search_values
from broker.errors import BadRequest, Problem
from broker.search_values import Prefix, Wrong

LARGEST_PAGE: Final = 200
PAGE: Final = 50
# In all of a search: more than this no database takes, and no address (that of its next page).
MOST_VALUES: Final = 500
LONGEST: Final = 20_000
Summary = Literal["false", "true", "data", "count"]
_NAME: Final = re.compile(r"[A-Za-z_:.-]{1,40}")


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

    pseudonyms: Callable[[str], Iterable[str]]
    identifier_hmac: Callable[[str, str], str]

    def read(self, type_: str, given: Iterable[tuple[str, str]]) -> tuple[Search, list[str]]:
        """Return the search, and the names that are not known. Raises BadRequest, with all that is
        wrong with the rest."""
        given = list(given)
        _limit(given)
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
                    raise Wrong("not-supported", "It is not offered in this form.", _form(type_))
                else:
                    unknown.append(name)
                    continue
            except Wrong as wrong:
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
        given = search_values.each(value)
        match parameter.kind:
            case "id":
                return Is("id", tuple(search_values.uuid(one) for one in given))
            case "when":
                return When(parameter.column, tuple(search_values.span(one) for one in given))
            case "token":
                return Holds(parameter.column, given)
            case "code":
                return Is(parameter.column, tuple(one.rpartition("|")[2] for one in given))
            case "ods":
                return Is(parameter.column, tuple(search_values.ods(one) for one in given))
            case "patient":
                numbers = [search_values.nhs(one) for one in given]
                return Is(parameter.column, tuple(p for n in numbers for p in self.pseudonyms(n)))
            case _:
                return Called(
                    tuple(self.identifier_hmac(*search_values.pair(one)) for one in given)
                )


def _limit(given: Sequence[tuple[str, str]]) -> None:
    """Raise BadRequest for a search that is longer than can be carried out."""
    said = ""
    if sum(1 + value.count(",") for _, value in given) > MOST_VALUES:
        said = f"A search has at most {MOST_VALUES} values."
    elif sum(len(f"{name}{value}".encode()) for name, value in given) > LONGEST:
        said = f"A search is at most {LONGEST} bytes long."
    if said:
        raise BadRequest("", [Problem("http.query", "too-costly", said, "Make several of it.")])


def _with_result(
    search: Search, given: Mapping[str, Sequence[str]], problems: list[Problem]
) -> Search:
    """Return the search with what is said of its result: order, size, includes, summary."""
    more: dict[str, object] = {}
    for name, values in given.items():
        try:
            more |= _result(search.type, name, values)
        except Wrong as wrong:
            problems.append(Problem(f"http.{name}", wrong.code, wrong.said, wrong.todo))
    return Search(search.type, search.tests, used=search.used, **more)  # type: ignore[arg-type]


def _result(type_: str, name: str, values: Sequence[str]) -> dict[str, object]:
    if name == "_include":
        allowed = {f"{type_}:{one}": one for one in INCLUDES[type_]}
        if not set(values) <= set(allowed):
            listed = ", ".join(sorted(allowed))
            raise Wrong("not-supported", "That cannot be included.", f"One of: {listed}.")
        return {"includes": tuple(dict.fromkeys(allowed[one] for one in values))}
    if len(values) > 1:
        raise Wrong("value", f"{name} stands twice.", "Give it once.")
    (value,) = values
    if name == "_count":
        if not (value.isascii() and value.isdigit() and len(value) < 10):
            raise Wrong("value", "It is not a whole number.", "Write it in digits only.")
        return {"count": min(int(value), LARGEST_PAGE)}
    if name == "_summary":
        if value not in {"true", "false", "data", "count"}:
            raise Wrong("not-supported", "There is no such summary.", "true, data, count, false.")
        return {"summary": value}
    return _order(type_, value)


def _order(type_: str, value: str) -> dict[str, object]:
    orders = {name: one.column for name, one in PARAMETERS[type_].items() if one.kind == "when"}
    column = orders.get(value.removeprefix("-"))
    if column is None:
        listed = ", ".join(f"{one}, -{one}" for one in orders)
        raise Wrong("not-supported", "It cannot be sorted so.", f"One of: {listed}.")
    return {"order": column, "descending": value.startswith("-")}


def shown_name(name: str) -> str:
    """Return a parameter's name if it can be one: it may be anything, also a patient's number."""
    return name if _NAME.fullmatch(name) else "parameter"


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
