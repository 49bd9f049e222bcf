"""The directory: who there is, how each is reached and what it takes. An immutable snapshot.

Look-ups are exact: a code is compared as it stands, in its canonical form, and a service never
inherits its organisation's endpoint, so that nothing can arrive at a place that was not named.
Read from a file by `broker.directory_file`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field

from broker.events import Destination, Kind
from broker.ports import Endpoint, Party
from fhir_profiles import codes
from fhir_profiles.identifiers import dos_service_id, ods_code
from fhir_profiles.systems import Systems
from fhir_profiles.working_days import is_working, is_working_day, london

GENERAL_PRACTICE: Final = "general-practice"
ALL: Final = "all"
_LONGEST: Final = 200
_TARGETS: Final = Systems([codes.DOS, codes.ODS, codes.SERVICE_ID])


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
Slug = Annotated[str, _written("[a-z0-9]+(-[a-z0-9]+)*", "a word such as eye-casualty")]
Dos = Annotated[str, AfterValidator(_dos)]
Text = Annotated[str, _written(r"\S(.*\S)?", "one line of text, up to 200 characters")]
Telephone = Annotated[str, _written(r"(\+44 |0)[0-9]+( [0-9]+)*", "a number such as 0113 496 0201")]
Area = Annotated[str, _written("[A-Z]{1,2}", "a postcode area such as LS")]
Hour = Annotated[str, _written("(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)", "a time such as 08:30")]
# A file's scalars are all texts: these two say themselves what they are.
Rank = Annotated[int, Field(ge=1, strict=False)]
Flag = Annotated[bool, Field(strict=False)]
Weekday = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
Channel = Literal["inbox", "webhook", "bars"]
BARS: Final = "bars"
"""The channel of an endpoint that speaks BaRS."""
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
class Service(_Entry):
    """A part of an organisation that takes referrals of its own.

    `dos` is the id under which the Directory of Services, and so every BaRS system, knows it.
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

    def is_staffed(self, moment: datetime) -> bool:
        """Tell whether somebody is there to answer; on a bank holiday only where it says so."""
        local = london(moment)
        at = f"{local:%H:%M}"
        bank_holiday = local.weekday() < 5 and not is_working_day(local.date())
        return any(
            _WEEKDAYS[local.weekday()] in hours.days
            and hours.opens <= at < hours.closes
            and (hours.bank_holidays or not bank_holiday)
            for hours in self.opening_hours
        )


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


def _index() -> Any:
    return field(init=False, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Directory:
    """An immutable snapshot with look-ups by key. Two are equal if their entries are."""

    entries: Entries = Entries()
    icbs: Mapping[str, Icb] = _index()
    organisations: Mapping[str, Organisation] = _index()
    services: Mapping[str, Service] = _index()
    connections: Mapping[Destination, Connection] = _index()

    def __post_init__(self) -> None:
        indices: dict[str, dict[Any, Any]] = {
            "icbs": {icb.code: icb for icb in self.entries.icbs},
            "organisations": {one.ods: one for one in self.entries.organisations},
            "services": {service.code: service for service in self.entries.services},
            "connections": {one.destination: one for one in self.entries.endpoints},
        }
        for name, index in indices.items():
            object.__setattr__(self, name, MappingProxyType(index))

    def service(self, destination: Destination) -> Service | None:
        """Return the service that a destination names, if it is that organisation's."""
        service = self.services.get(destination.service)
        if service is None or service.organisation != destination.ods:
            return None
        return service

    def target(self, destination: Destination) -> tuple[str, str]:
        """Return (system, value) by which BaRS names the place: its DoS service id, else its code.

        A service without a DoS id is named by its own code in our system of them.
        """
        service = self.service(destination)
        if service is not None and service.dos:
            return codes.DOS, service.dos
        if destination.service:
            return codes.SERVICE_ID, destination.service
        return codes.ODS, destination.ods

    def by_target(self, system: str, value: str) -> Destination | None:
        """Return the place that BaRS names so, the system in any spelling; None if it is nobody."""
        meant = _TARGETS.meant_by(system)
        if meant is None or meant.is_misspelt or not value:
            return None  # many services have no DoS id: nothing must not name one of them
        if meant.system == codes.ODS:
            return Destination(value) if value in self.organisations else None
        for service in self.entries.services:
            if value == (service.dos if meant.system == codes.DOS else service.code):
                return service.destination
        return None

    def services_of(self, ods: str) -> tuple[Service, ...]:
        """Return the services of one organisation, in the order of the file."""
        return tuple(s for s in self.entries.services if s.organisation == ods)

    def offering(self, receiver_type: str, subspecialty: str) -> tuple[Service, ...]:
        """Return the services of open organisations that offer what is sought."""
        return tuple(
            service
            for service in self.entries.services
            if service.rank(receiver_type, subspecialty) is not None
            and self.is_open(service.organisation)
        )

    def is_open(self, ods: str) -> bool:
        """Tell whether the organisation is known and open."""
        organisation = self.organisations.get(ods)
        return organisation is not None and organisation.is_open

    def resolve_successor(self, ods: str) -> Organisation | None:
        """Return the open organisation that stands for this code now: itself or a successor.

        None if the code is unknown or the chain ends in a closed organisation.
        """
        seen = set()
        organisation = self.organisations.get(ods)
        while organisation is not None and not organisation.is_open:
            if organisation.ods in seen or organisation.successor is None:
                return None
            seen.add(organisation.ods)
            organisation = self.organisations.get(organisation.successor)
        return organisation

    def practice(self, ods: str | None) -> Organisation | None:
        """Return the open practice that keeps the record now: the one of this code or a successor.

        None where the code is nobody's, or somebody's who is no general practice.
        """
        found = self.resolve_successor(ods or "")
        return found if found is not None and found.pillar == GENERAL_PRACTICE else None

    def name(self, destination: Destination) -> str:
        """Return what a person calls the place; its code if the directory does not know it."""
        organisation = self.organisations.get(destination.ods)
        if organisation is None:
            return str(destination)
        service = self.service(destination)
        return organisation.name if service is None else f"{organisation.name}, {service.name}"

    def name_now(self, destination: Destination) -> str:
        """Return what a person calls the place and, where it has closed, who stands for it now."""
        name, now = self.name(destination), self.resolve_successor(destination.ods)
        if now is None or now.ods == destination.ods:
            return name
        return f"{name} (now {now.name})"

    def telephone(self, destination: Destination) -> str:
        """Return the service's number, else the organisation's, else nothing."""
        service = self.service(destination)
        if service is not None:
            return service.telephone
        organisation = self.organisations.get(destination.ods)
        return organisation.telephone if organisation is not None else ""

    def stands_for(self, ods: str) -> frozenset[str]:
        """Return the codes that an open organisation answers for: its own, and those of the closed
        ones that it succeeds."""
        closed = (one.ods for one in self.entries.organisations if not one.is_open)
        inherited = {
            code
            for code in closed
            if (successor := self.resolve_successor(code)) is not None and successor.ods == ods
        }
        return frozenset({ods, *inherited})

    def party(self, destination: Destination) -> Party:
        """Return the place as a message names it; only its code if it is not known."""
        organisation = self.organisations.get(destination.ods)
        name = organisation.name if organisation is not None else ""
        return Party(destination.ods, name, self.telephone(destination), destination.service)

    def channel(self, destination: Destination) -> str:
        """Return how the place is reached, or nothing where it is not connected."""
        connection = self.connections.get(destination)
        return connection.channel if connection is not None else ""

    def agreement(
        self, parties: Iterable[str], pathway: str, purpose: str, today: date
    ) -> Agreement | None:
        """Return the first agreement in force among the parties on a pathway for a purpose."""
        named = tuple(parties)
        for agreement in self.entries.agreements:
            if agreement.is_in_force(today) and agreement.covers(named, pathway, purpose):
                return agreement
        return None

    def whom_to_telephone(self, destination: Destination, now: datetime) -> str:
        """Say whom to telephone about a same-day matter: the place, its successor, or 111."""
        organisation = self.organisations.get(destination.ods)
        if organisation is not None and not organisation.is_open:
            has_closed = f"{organisation.name} has closed"
            successor = self.resolve_successor(organisation.ods)
            if successor is None:
                return f"{has_closed}: telephone NHS 111."
            return f"{has_closed}. {self.whom_to_telephone(Destination(successor.ods), now)}"
        service = self.service(destination)
        staffed = service.is_staffed(now) if service is not None else is_working(now)
        number = self.telephone(destination)
        if staffed and number:
            return f"Telephone {self.name(destination)} on {number}."
        if not number:
            return f"No telephone number is known of {self.name(destination)}: telephone NHS 111."
        return f"{self.name(destination)} ({number}) is closed now: telephone NHS 111."
