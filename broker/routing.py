"""From what a message needs to where it goes, each with the reason why in one sentence.

A route leads only to a place that the directory knows, that is open, connected and takes this kind.
Nothing is rerouted silently: a closed place names its successor and is refused, a tie is refused,
and a service that may not be reached, or takes no new referral, is never replaced by the next in
rank: the refusal names those that do. Only the acting receiver can be a reason to refuse; a copy
that cannot go is a coded warning. No sentence here says anything about a patient.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from broker.choosing import Candidate, shut, verdict
from broker.directory import GENERAL_PRACTICE, Directory
from broker.directory_entries import Connection, Service
from broker.errors import DeliveryCode, Problem
from broker.events import Destination, Kind, Priority, Role, Route, delivered_as
from broker.ports import Endpoint, FieldPaths, Seek, Want
from fhir_profiles.identifiers import postcode_area
from fhir_profiles.working_days import london

MOST_CANDIDATES: Final = 10
UNNAMED: Final = FieldPaths()
NOWHERE: Final = frozenset[Destination]()


@dataclass(frozen=True, slots=True)
class Routed:
    """Where one wanted message goes.

    With `problems` the post is refused and there are no routes. With `left_out` this message alone
    is not made, and that sentence is the first that the sender must read. `telephone` says whom to
    telephone instead, where that is known. `agreement` is the code of the data-sharing agreement in
    force between sender and acting receiver, if there is one. `candidates` are those among which
    the acting receiver was chosen, it first; none where the sender named it.
    """

    routes: tuple[Route, ...] = ()
    warnings: tuple[Problem, ...] = ()
    problems: tuple[Problem, ...] = ()
    left_out: str = ""
    telephone: str = ""
    agreement: str = ""
    candidates: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    destination: Destination
    reason: str


@dataclass(frozen=True, slots=True)
class _Missed:
    field: str
    code: str
    detail: str
    todo: str
    telephone: str = ""
    instead: tuple[str, ...] = ()

    def as_problem(self) -> Problem:
        return Problem(self.field, self.code, self.detail, self.todo, self.instead)


def route(
    want: Want,
    sender: str,
    directory: Directory,
    now: datetime,
    *,
    purpose: str = "direct-care",
    paths: FieldPaths = UNNAMED,
    under_way: Collection[Destination] = NOWHERE,
) -> Routed:
    """Find every destination of one message, or say all that stands in the way and what to do.

    What goes on at a place where it is `under_way` is no new referral there.
    """
    routes: dict[Destination, Route] = {}
    candidates: tuple[Candidate, ...] = ()
    warnings: list[Problem] = []
    problems: list[Problem] = []
    telephone = ""
    # The acting receiver first: where it would also get a copy, it gets the one message.
    for seek in sorted(want.seeks, key=lambda seek: seek.role is not Role.ACTING):
        found = _find(seek, directory, paths, now)
        if isinstance(found, _Found):
            found = _reachable(found, seek, want, directory, paths, now, under_way)
        if isinstance(found, _Found):
            routes.setdefault(found.destination, Route(found.destination, seek.role, found.reason))
            if seek.role is Role.ACTING:
                candidates += _considered(seek, found.destination, directory, now)
        elif seek.role is Role.ACTING:
            problems.append(found.as_problem())
            telephone = telephone or found.telephone
        else:
            detail = f"No {seek.role} was sent. {found.detail}"
            code = f"{seek.role}-{found.code}"
            warnings.append(Problem(found.field, code, detail, found.todo))
    if problems and want.required:
        return Routed((), tuple(warnings), tuple(problems), telephone=telephone)
    if problems:
        first = problems[0]
        sentence = f"{want.if_left_out} {first.todo}".strip()
        left_out = Problem(first.field, "left-out", f"{sentence} {first.detail}")
        return Routed(warnings=(left_out, *warnings), left_out=sentence)
    agreement = _agreement(want, sender, routes.values(), directory, purpose, now)
    return Routed(
        tuple(routes.values()), tuple(warnings), agreement=agreement, candidates=candidates
    )


def recheck(
    destination: Destination, kind: Kind, directory: Directory, pathway: str | None = None
) -> Endpoint | DeliveryCode:
    """Return how the place is reached now, or the code that says why it is not.

    Asked again at each attempt: a route is a promise about the past, the directory is the present.
    """
    connection = _connection(destination, directory)
    if not isinstance(connection, Connection):
        return connection
    return connection.endpoint if connection.accepts(kind, pathway) else "does-not-take"


def takes_new(
    destination: Destination, pathway: str, directory: Directory, now: datetime
) -> Endpoint | str:
    """Return how a place is reached that takes new referrals on a pathway, or the code that says
    why it takes none: those of `recheck`, and those of `choosing.shut`."""
    reached = recheck(destination, Kind.REFERRAL, directory, pathway)
    why = shut(destination, directory, now)
    return why.verdict if isinstance(reached, Endpoint) and why is not None else reached


def missed(seek: Seek, directory: Directory, paths: FieldPaths, now: datetime) -> Problem | None:
    """Return why there is no place for what is sought, whatever is to be sent there; else None."""
    found = _find(seek, directory, paths, now)
    if isinstance(found, _Found):
        connection = _connection(found.destination, directory)
        if isinstance(connection, Connection):
            return None
        found = _cut_off(found.destination, connection, _path(seek, paths), directory)
    return found.as_problem()


def whom_to_telephone(seek: Seek | None, directory: Directory, now: datetime) -> str:
    """Say whom the sender telephones where nothing could be sent; nothing if that is not known."""
    found = _find(seek, directory, UNNAMED, now) if seek is not None else None
    if isinstance(found, _Found):
        return directory.whom_to_telephone(found.destination, now)
    return found.telephone if found is not None else ""


# -- finding -------------------------------------------------------------------------------------


def _find(seek: Seek, directory: Directory, paths: FieldPaths, now: datetime) -> _Found | _Missed:
    if seek.receiver_type == GENERAL_PRACTICE:
        return _practice(seek, directory, paths, now)
    if seek.named is not None:
        return _named(seek, seek.named, directory, paths, now)
    return _search(seek, directory, paths, now)


def _practice(
    seek: Seek, directory: Directory, paths: FieldPaths, now: datetime
) -> _Found | _Missed:
    """The registered practice itself, or the practice that the sender named in its stead."""
    path = paths.practice if seek.named is None else paths.named
    destination = seek.named or (Destination(seek.practice) if seek.practice else None)
    if destination is None:
        detail = "No registered practice was given, so it is not known which one should get this."
        return _Missed(path, "practice-not-known", detail, "Give its ODS code.")
    organisation = directory.organisations.get(destination.ods)
    if organisation is None or (destination.service and not directory.service(destination)):
        return _unknown(path, destination, directory, now)
    # A mistyped code may well be somebody's: a patient's record must not go to a pharmacy.
    if organisation.pillar != GENERAL_PRACTICE:
        detail = f"{organisation.name} ({organisation.ods}) is not a general practice."
        return _Missed(path, "not-a-practice", detail, "Check the ODS code.")
    why = "The registered practice." if seek.named is None else "The practice that was named."
    return _Found(destination, why)


def _named(
    seek: Seek, named: Destination, directory: Directory, paths: FieldPaths, now: datetime
) -> _Found | _Missed:
    """The provider that was named; where only the organisation was, its own best service."""
    if named.ods not in directory.organisations:
        return _unknown(paths.named, named, directory, now, _candidates(seek, directory))
    organisation = directory.organisations[named.ods]
    if seek.pillar and organisation.pillar != seek.pillar:
        detail = f"{organisation.name} ({named.ods}) is not of {seek.pillar.replace('-', ' ')}."
        return _Missed(paths.named, "another-pillar", detail, "Check the ODS code.")
    if not directory.is_open(named.ods) or not seek.receiver_type:
        # Whether it can be reached is asked next: a closed place is refused with its successor.
        return _Found(named, seek.because or "The place that was named.")
    services = directory.services_of(named.ods)
    if named.service:
        service = directory.service(named)
        if service is None:
            rank = (seek.receiver_type, seek.subspecialty)
            taking = [one for one in services if one.rank(*rank) is not None]
            candidates = taking or _candidates(seek, directory)
            return _unknown(paths.named, named, directory, now, candidates)
        services = (service,)
    best = _lowest(seek, services)
    if len(best) > 1:
        detail = f"{directory.name(named)} has several services that take {_sought(seek)}."
        return _one_of(paths.named, "tie", detail, best, directory, now)
    if not best:
        detail = f"{directory.name(named)} ({named}) does not take {_sought(seek)}."
        others = _candidates(seek, directory)
        return _one_of(paths.named, "does-not-take", detail, others, directory, now)
    return _Found(best[0].destination, f"The provider that was named; it takes {_sought(seek)}.")


def _search(seek: Seek, directory: Directory, paths: FieldPaths, now: datetime) -> _Found | _Missed:
    """The unique service of lowest rank in the practice's ICB, else in the postcode's area."""
    area = _area(seek, directory)
    if area is None:
        detail = "Neither a practice in the directory nor a postcode says in which area to look."
        anybody = _candidates(seek, directory)
        return _one_of(paths.practice, "area-not-known", detail, anybody, directory, now)
    services, where = area
    best = _lowest(seek, services)
    if not best:
        detail = f"Nobody takes {_sought(seek)} in {where}."
        elsewhere = _candidates(seek, directory)
        field = seek.field or paths.sought
        return _one_of(field, "no-destination", detail, elsewhere, directory, now)
    rank = best[0].rank(seek.receiver_type, seek.subspecialty)
    if len(best) > 1:
        detail = f"{len(best)} services take {_sought(seek)} at the same rank ({rank}) in {where}."
        return _one_of(seek.field or paths.sought, "tie", detail, best, directory, now)
    reason = f"The only one of the lowest rank ({rank}) for {_sought(seek)} in {where}."
    return _Found(best[0].destination, reason)


def _area(seek: Seek, directory: Directory) -> tuple[Sequence[Service], str] | None:
    """Return the services among which to look, and the area in words that tell no address."""
    offering = directory.offering(seek.receiver_type, seek.subspecialty)
    practice = directory.organisations.get(seek.practice or "")
    if practice is not None and practice.pillar == GENERAL_PRACTICE:
        inside = [service for service in offering if service.icb == practice.icb]
        return inside, f"{practice.icb}, the ICB of the registered practice"
    area = postcode_area(seek.postcode or "")
    if area is None:
        return None
    inside = [service for service in offering if area in service.postcode_areas]
    return inside, "the area of the postcode"


def _lowest(seek: Seek, services: Iterable[Service]) -> list[Service]:
    """Return all services that share the lowest rank for what is sought."""
    ranked = [
        (rank, service)
        for service in services
        if (rank := service.rank(seek.receiver_type, seek.subspecialty)) is not None
    ]
    lowest = min((rank for rank, _ in ranked), default=None)
    return [service for rank, service in ranked if rank == lowest]


def _candidates(seek: Seek, directory: Directory) -> Sequence[Service]:
    """Return who takes what is sought: in the area if there is one, else anywhere."""
    area = _area(seek, directory)
    if area is not None and area[0]:
        return area[0]
    return directory.offering(seek.receiver_type, seek.subspecialty)


def _considered(
    seek: Seek, chosen: Destination, directory: Directory, now: datetime
) -> tuple[Candidate, ...]:
    """Return among whom a place was chosen, it first, and what ruled each of the others out."""
    if seek.receiver_type in {"", GENERAL_PRACTICE} or (seek.named and seek.named.service):
        return ()
    area = None if seek.named else _area(seek, directory)
    among = area[0] if area is not None else directory.services_of(chosen.ods)
    candidates = [
        Candidate(one.destination, rank, verdict(one, chosen, directory, now))
        for one in among
        if (rank := one.rank(seek.receiver_type, seek.subspecialty)) is not None
    ]
    candidates.sort(key=lambda one: (one.destination != chosen, one.rank, str(one.destination)))
    return tuple(candidates[:MOST_CANDIDATES])


# -- reaching ------------------------------------------------------------------------------------


def _reachable(
    found: _Found,
    seek: Seek,
    want: Want,
    directory: Directory,
    paths: FieldPaths,
    now: datetime,
    under_way: Collection[Destination],
) -> _Found | _Missed:
    """Return what was found if it can be reached now, else why not and what to do instead."""
    place, path = found.destination, _path(seek, paths)
    kind = delivered_as(want.kind, seek.role)
    reached = recheck(place, kind, directory, want.pathway)
    is_new = seek.role is Role.ACTING and kind is Kind.REFERRAL and place not in under_way
    closed = shut(place, directory, now) if is_new else None
    # What is for today cannot wait until somebody is there again.
    is_for_today = want.priority is Priority.STAT
    if isinstance(reached, Endpoint):
        if closed is None:
            return found
        code, words = closed.verdict.value, closed.words
    elif reached == "does-not-take":
        code, words = reached, f"does not take this ({kind}, {want.pathway})"
    else:
        today = directory.whom_to_telephone(place, now) if is_for_today else ""
        return _cut_off(place, reached, path, directory, today)
    others = _others(place, seek, kind, want.pathway, directory, now)
    is_replaced = closed is not None and bool(others)
    if is_for_today:
        whom = others[0].destination if is_replaced else place
        call = directory.whom_to_telephone(whom, now)
    else:  # the numbers of those who take it instead stand in what is offered
        call = "" if is_replaced else _telephone(place, directory)
    todo = " ".join(filter(None, [call, _name_one(others, directory) if others else ""]))
    detail = f"{directory.name(place)} ({place}) {words}."
    return _Missed(path, code, detail, todo, todo, _instead(others))


def _others(
    place: Destination,
    seek: Seek,
    kind: Kind,
    pathway: str,
    directory: Directory,
    now: datetime,
) -> list[Service]:
    """Return who takes now what a place does not: in the area, or where nobody there does,
    anywhere; the lowest rank first."""
    service = directory.service(place)
    if seek.receiver_type or service is None:
        anywhere = directory.offering(seek.receiver_type, seek.subspecialty)
        area = _area(seek, directory)
        near: Sequence[Service] = area[0] if area is not None else ()
    else:  # BaRS names a place and no type of service
        anywhere = directory.alike(service)
        near = [one for one in anywhere if one.icb == service.icb]
    for among in (near, anywhere):
        taking = [
            one
            for one in among
            if one.destination != place
            and isinstance(recheck(one.destination, kind, directory, pathway), Endpoint)
            and shut(one.destination, directory, now) is None
        ]
        if taking:
            break
    return sorted(taking, key=lambda one: one.rank(seek.receiver_type, seek.subspecialty) or 0)


def _path(seek: Seek, paths: FieldPaths) -> str:
    """Return the field that the place was found by."""
    if seek.named is not None:
        return paths.named
    if seek.receiver_type == GENERAL_PRACTICE:
        return paths.practice
    return seek.field or paths.sought


def _connection(destination: Destination, directory: Directory) -> Connection | DeliveryCode:
    """Return how an open place is connected, or the code that says why nothing reaches it."""
    organisation = directory.organisations.get(destination.ods)
    if organisation is not None and not organisation.is_open:
        return "closed"
    connection = directory.connections.get(destination)
    if organisation is None or connection is None:
        return "not-connected"
    if destination.service and directory.service(destination) is None:
        return "not-connected"
    return connection


def _cut_off(
    place: Destination, code: DeliveryCode, path: str, directory: Directory, today: str = ""
) -> _Missed:
    """Say that nothing reaches a place; `today` says who answers now, if it cannot wait."""
    if code == "closed":
        return _closed(place, path, directory, today)
    detail = f"{directory.name(place)} ({place}) is not connected to the broker."
    todo = today or _telephone(place, directory)
    return _Missed(path, code, detail, todo, todo)


def _telephone(place: Destination, directory: Directory) -> str:
    return f"Telephone {directory.name(place)} on {directory.telephone(place)}."


def _closed(place: Destination, path: str, directory: Directory, today: str) -> _Missed:
    """Name the successor of a closed place; `today` says who answers now, if it cannot wait."""
    name = f"{directory.name(place)} ({place})"
    successor = directory.resolve_successor(place.ods)
    if successor is None:
        return _Missed(path, "closed", f"{name} is closed and has no successor.", today, today)
    detail = f"{name} is closed. Its successor is {successor.name} ({successor.ods})."
    todo = f"Send it to {successor.ods}, or telephone {successor.telephone}."
    if today:
        todo = f"Send it to {successor.ods}. {today}"
    return _Missed(path, "closed", detail, todo, todo)


def _agreement(
    want: Want,
    sender: str,
    routes: Iterable[Route],
    directory: Directory,
    purpose: str,
    now: datetime,
) -> str:
    for one in routes:
        if one.role is Role.ACTING:
            parties = (sender, one.destination.ods)
            agreement = directory.agreement(parties, want.pathway, purpose, london(now).date())
            return agreement.code if agreement is not None else ""
    return ""


# -- words ---------------------------------------------------------------------------------------


def _unknown(
    path: str,
    destination: Destination,
    directory: Directory,
    now: datetime,
    instead: Sequence[Service] = (),
) -> _Missed:
    code, detail = "unknown-destination", f"{destination} is not in the directory."
    if not instead:
        return _Missed(path, code, detail, "Check the code.")
    return _one_of(path, code, detail, instead, directory, now)


def _one_of(
    path: str,
    code: str,
    detail: str,
    services: Sequence[Service],
    directory: Directory,
    now: datetime,
) -> _Missed:
    taking = [one for one in services if shut(one.destination, directory, now) is None]
    todo = _name_one(taking, directory)
    return _Missed(path, code, detail, todo, todo if taking else "", _instead(taking))


def _sought(seek: Seek) -> str:
    if seek.words:
        return seek.words
    return f"{seek.receiver_type}, {seek.subspecialty}" if seek.subspecialty else seek.receiver_type


def _instead(services: Sequence[Service]) -> tuple[str, ...]:
    return tuple(str(one.destination) for one in services[:MOST_CANDIDATES])


def _name_one(services: Iterable[Service], directory: Directory) -> str:
    """Say whom the sender may name instead, with their telephone numbers."""
    candidates = [
        f"{directory.name(service.destination)} ({service.destination}), {service.telephone}"
        for service in services
    ][:MOST_CANDIDATES]
    if not candidates:
        return "No service in the directory takes it now."
    return f"Name or telephone one of: {'; '.join(candidates)}."
