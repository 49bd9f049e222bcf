"""The directory: who there is, how each is reached and what it takes. An immutable snapshot.

Look-ups are exact: a code is compared as it stands, in its canonical form, and a service never
inherits its organisation's endpoint, so that nothing can arrive at a place that was not named.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, Final

from broker.directory_entries import Agreement, Connection, Entries, Icb, Organisation, Service
from broker.events import Destination
from broker.ports import Party
from fhir_profiles import codes
from fhir_profiles.systems import Systems
from fhir_profiles.working_days import (
    end_of_day,
    is_working,
    is_working_day,
    london,
    next_working_day_end,
)

GENERAL_PRACTICE: Final = "general-practice"
BARS: Final = "bars"
"""The channel of an endpoint that speaks BaRS."""
_TARGETS: Final = Systems([codes.DOS, codes.ODS, codes.SERVICE_ID])
_NOTHING: Final = Entries()


def _index() -> Any:
    return field(init=False, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Directory:
    """An immutable snapshot with look-ups by key. Two are equal if their entries are."""

    entries: Entries = _NOTHING
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

    def alike(self, service: Service) -> tuple[Service, ...]:
        """Return what else, of open organisations, is of one type with a service."""
        types = {offer.receiver_type for offer in service.offers}
        return tuple(
            one
            for one in self.entries.services
            if one != service
            and self.is_open(one.organisation)
            and any(offer.receiver_type in types for offer in one.offers)
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

    def closes_after(self, destination: Destination, moment: datetime) -> datetime:
        """Return when the place next closes; one that does not say so closes as all do."""
        service = self.service(destination)
        known = service.closes_after(moment) if service is not None else None
        if known is not None:
            return known
        today = end_of_day(london(moment).date())
        is_today = is_working_day(london(moment).date()) and today > moment
        return today if is_today else next_working_day_end(moment, 1)

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
