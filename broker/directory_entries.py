"""What a directory holds: its entries, each with its shape and what can be said of it alone.

A file is checked against these shapes: unknown fields are refused, nothing is converted silently.
Looked up in `broker.directory`; read from a file by `broker.directory_file`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field

from broker.events import Destination, Kind
from broker.ports import Endpoint
from fhir_profiles import codes
from fhir_profiles.identifiers import dos_service_id, ods_code
from fhir_profiles.working_days import LONDON, is_working_day, london

ALL: Final = "all"
_LONGEST: Final = 200
_LOOKS_AHEAD: Final = 14


class Status(StrEnum):
    """Whether an organisation still exists."""

    OPEN = "open"
    CLOSED = "closed"


def _canonical(code: str) -> str:
    if ods_code(code) != code:
        raise ValueError("not an ODS code in its canonical form, 1 to 9 of A-Z and 0-9")
    return code


def _dos(text: str) -> str:
    if dos_service_id(text) != text:
        raise ValueError("not a DoS service id: digits")
    return text


def _known_pillar(code: str) -> str:
    pillars = codes.system("pillar")
    if code not in pillars:
        raise ValueError(f"no pillar; one of {', '.join(pillars.displays)}")
    return code


def _written(pattern: str, form: str) -> AfterValidator:
    """Return the check that a text is written so; `form` says to a person how."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if len(text) > _LONGEST or not compiled.fullmatch(text):
            raise ValueError(f"not {form}")
        return text

    return AfterValidator(check)


Ods = Annotated[str, AfterValidator(_canonical)]
Code = Annotated[str, _written("[A-Z0-9]+(-[A-Z0-9]+)*", "a code such as RXX01-SPA")]
Pillar = Annotated[str, AfterValidator(_known_pillar)]
Slug = Annotated[str, _written("[a-z0-9]+(-[a-z0-9]+)*", "a word such as single-point-of-access")]
Dos = Annotated[str, AfterValidator(_dos)]
Text = Annotated[str, _written(r"\S(.*\S)?", "one line of text, up to 200 characters")]
# `paused: false` would pause it otherwise, with that as the reason.
Reason = Annotated[
    str,
    _written(
        r"(?!(?i:true|false|yes|no|on|off|none|null)$)\S(.*\S)?",
        "a reason in one line of text; leave it out where the service is not paused",
    ),
]
Telephone = Annotated[str, _written(r"(\+44 |0)[0-9]+( [0-9]+)*", "a number such as 0113 496 0201")]
Area = Annotated[str, _written("[A-Z]{1,2}", "a postcode area such as LS")]
Hour = Annotated[str, _written("(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)", "a time such as 08:30")]
# A file's scalars are all texts: these two say themselves what they are.
Rank = Annotated[int, Field(ge=1, strict=False)]
Flag = Annotated[bool, Field(strict=False)]
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
Channel = Literal["inbox", "webhook", "bars"]
_WEEKDAYS: Final[tuple[Weekday, ...]] = (
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
)


class _Entry:
    """One entry of the file: pydantic refuses unknown fields and converts nothing silently."""

    __slots__ = ()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Icb(_Entry):
    """An integrated care board: the area within which referrals are routed."""

    code: Ods
    name: Text

    @property
    def key(self) -> str:
        return self.code


@dataclass(frozen=True, slots=True, kw_only=True)
class Organisation(_Entry):
    """A legal body with an ODS code. A closed one names its successor, if it has one."""

    ods: Ods
    name: Text
    pillar: Pillar
    icb: Ods
    status: Status = Status.OPEN
    successor: Ods | None = None
    telephone: Telephone = ""

    @property
    def key(self) -> str:
        return self.ods

    @property
    def is_open(self) -> bool:
        return self.status is Status.OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer(_Entry):
    """What a service takes: a receiver type, for these subspecialties (`all`: any, or none
    named), at this rank; the lowest wins."""

    receiver_type: Slug
    subspecialties: tuple[Slug, ...]
    rank: Rank

    def covers(self, receiver_type: str, subspecialty: str) -> bool:
        return self.receiver_type == receiver_type and (
            ALL in self.subspecialties or subspecialty in self.subspecialties
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours(_Entry):
    """On which weekdays a service is staffed, from when to when, London time."""

    days: tuple[Weekday, ...]
    opens: Hour
    closes: Hour
    bank_holidays: Flag = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure(_Entry):
    """From which day to which, both included and by the London calendar, a service is closed; it
    has closed for good where no last day is given. `reason` is what senders are told."""

    first_day: date
    last_day: date | None = None
    reason: Text

    def covers(self, day: date) -> bool:
        return self.first_day <= day and (self.last_day is None or day <= self.last_day)

    @property
    def words(self) -> str:
        """Say until when, and why."""
        last = self.last_day
        until = f"up to and including {last.day} {last:%B %Y}" if last is not None else "for good"
        return f"closed {until} ({self.reason})"


def _at(day: date, hour: str) -> datetime:
    """Return the moment of an hour of a day in London, as aware UTC; 24:00 is the next midnight."""
    if hour == "24:00":
        day, hour = day + timedelta(days=1), "00:00"
    return datetime.combine(day, time.fromisoformat(hour), LONDON).astimezone(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service(_Entry):
    """A part of an organisation that takes referrals of its own.

    `dos` is the id under which the Directory of Services, and so every BaRS system, knows it. On
    the days of its `closures` nobody is there. It takes no new referral then, nor while it is
    `paused`, which says to senders why; what it was sent before goes on.
    """

    code: Code
    organisation: Ods
    name: Text
    icb: Ods
    postcode_areas: tuple[Area, ...]
    offers: tuple[Offer, ...]
    opening_hours: tuple[Hours, ...]
    telephone: Telephone
    dos: Dos = ""
    closures: tuple[Closure, ...] = ()
    paused: Reason = ""

    @property
    def key(self) -> str:
        return self.code

    @property
    def destination(self) -> Destination:
        return Destination(self.organisation, self.code)

    def rank(self, receiver_type: str, subspecialty: str) -> int | None:
        """Return its rank for what is sought, or None if it does not offer it."""
        ranks = [o.rank for o in self.offers if o.covers(receiver_type, subspecialty)]
        return min(ranks, default=None)

    def closure(self, day: date) -> Closure | None:
        """Return the closure that holds on a day of the London calendar; of several the longest."""
        holding = [one for one in self.closures if one.covers(day)]
        return max(holding, key=lambda one: one.last_day or date.max, default=None)

    def is_staffed(self, moment: datetime) -> bool:
        """Tell whether somebody is there to answer; on a bank holiday only where it says so."""
        local = london(moment)
        if self.closure(local.date()) is not None:
            return False
        at = f"{local:%H:%M}"
        bank_holiday = local.weekday() < 5 and not is_working_day(local.date())
        return any(
            _WEEKDAYS[local.weekday()] in hours.days
            and hours.opens <= at < hours.closes
            and (hours.bank_holidays or not bank_holiday)
            for hours in self.opening_hours
        )

    def closes_after(self, moment: datetime) -> datetime | None:
        """Return when it next closes, as aware UTC; None where it never opens."""
        day = london(moment).date()
        for _ in range(_LOOKS_AHEAD):
            bank_holiday = day.weekday() < 5 and not is_working_day(day)
            closing = [
                _at(day, hours.closes)
                for hours in self.opening_hours
                if self.closure(day) is None
                and _WEEKDAYS[day.weekday()] in hours.days
                and (hours.bank_holidays or not bank_holiday)
            ]
            found = max((one for one in closing if one > moment), default=None)
            if found is not None:
                return found
            day += timedelta(days=1)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection(_Entry):
    """How one destination is reached (an `endpoint` of the file) and what it takes.

    A `bars` endpoint has the base URL of its FHIR API and, where it wants a token, the URL to get
    it at and the client that the broker is there.
    """

    organisation: Ods
    service: Code = ""
    channel: Channel
    url: str = ""
    token_url: str = ""
    client: str = ""
    takes: tuple[Kind, ...]
    pathways: tuple[Slug, ...] = (ALL,)

    @property
    def key(self) -> str:
        return str(self.destination)

    @property
    def destination(self) -> Destination:
        return Destination(self.organisation, self.service)

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(
            self.destination, self.channel, self.url, token_url=self.token_url, client=self.client
        )

    def accepts(self, kind: Kind, pathway: str | None = None) -> bool:
        """Tell whether it takes this kind, on this pathway if one is given."""
        return kind in self.takes and (
            pathway is None or ALL in self.pathways or pathway in self.pathways
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact(_Entry):
    """Whom to ask at an organisation, and about what. A function, not a private line."""

    organisation: Ods
    about: Literal["clinical", "technical", "safeguarding", "information-governance"]
    name: Text
    telephone: Telephone = ""
    email: str = ""

    @property
    def key(self) -> str:
        return f"{self.organisation} {self.about} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement(_Entry):
    """A data-sharing agreement: who may share with whom, for what, from and to which day."""

    code: Code
    parties: tuple[Ods, ...]
    pathways: tuple[Slug, ...]
    purpose: Slug
    valid_from: date
    valid_to: date | None = None
    document: Text

    @property
    def key(self) -> str:
        return self.code

    def is_in_force(self, today: date) -> bool:
        """Both days count."""
        return self.valid_from <= today and (self.valid_to is None or today <= self.valid_to)

    def covers(self, parties: Iterable[str], pathway: str, purpose: str) -> bool:
        return (
            purpose == self.purpose
            and (ALL in self.pathways or pathway in self.pathways)
            and all(ods in self.parties for ods in parties)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries(_Entry):
    """Everything that a directory file holds, in its order."""

    icbs: tuple[Icb, ...] = ()
    organisations: tuple[Organisation, ...] = ()
    services: tuple[Service, ...] = ()
    endpoints: tuple[Connection, ...] = ()
    contacts: tuple[Contact, ...] = ()
    agreements: tuple[Agreement, ...] = ()
