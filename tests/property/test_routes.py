"""Routing over random directories: merged, closed, unconnected, contradictory. Nothing strays."""

import itertools
import random
from dataclasses import replace
from datetime import UTC, date, datetime

from hypothesis import event, given, settings
from hypothesis import strategies as st

from broker.choosing import Verdict
from broker.directory import Directory
from broker.directory_entries import (
    Closure,
    Connection,
    Entries,
    Icb,
    Offer,
    Organisation,
    Service,
    Status,
)
from broker.events import Destination, Kind, Priority, Role, delivered_as
from broker.ports import Endpoint, Seek, Want
from broker.routing import recheck, route

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)  # a Monday
TODAY = NOW.date()
CLOSED_NOW = (Closure(first_day=TODAY, last_day=TODAY, reason="away"),)
CLOSED_LATER = (Closure(first_day=date(2026, 11, 24), reason="away"),)
ICBS = ("QXX", "QYY")
CODES = tuple(f"A{n}" for n in range(4))
SERVICES = tuple(f"S{n}" for n in range(4))
TYPES = ("spa", "eye-casualty")
SUBSPECIALTIES = ("glaucoma", "cornea")
AREAS = {"LS": "LS1 4AP", "BD": "BD1 1AA"}
PATHWAYS = ("eye-care", "other")
PLACES = [Destination(ods, service) for ods in CODES for service in ("", *SERVICES)]


def make(seed: int) -> Directory:
    """A directory as no file could make it: successors in circles, endpoints of nobody.

    Made from a seed and not drawn piece by piece: evenly spread, and a hundred times as fast.
    """
    pick = random.Random(seed)  # noqa: S311
    organisations = [
        Organisation(
            ods=ods,
            name="Somewhere",
            pillar=pick.choice(("general-practice", "general-practice", "secondary-care")),
            icb=pick.choice(ICBS),
            status=pick.choice((Status.OPEN, Status.OPEN, Status.OPEN, Status.CLOSED)),
            successor=pick.choice((None, *CODES)),
            telephone="01632 960001",
        )
        for ods in CODES
    ]
    services = [
        Service(
            code=code,
            organisation=pick.choice(CODES),
            name="service",
            icb=pick.choice(ICBS),
            postcode_areas=pick.choice((("LS",), ("BD",), ("LS", "BD"), ())),
            offers=tuple(
                Offer(
                    receiver_type=pick.choice(TYPES),
                    subspecialties=pick.choice((("all",), ("glaucoma",), ("glaucoma", "cornea"))),
                    rank=pick.randint(1, 2),
                )
                for _ in range(pick.randint(1, 3))
            ),
            opening_hours=(),
            telephone="01632 960002",
            closures=pick.choice(((), (), (), CLOSED_NOW, CLOSED_LATER)),
            paused=pick.choice(("", "", "", "no room")),
        )
        for code in SERVICES
    ]
    connections = [
        Connection(
            organisation=place.ods,
            service=place.service,
            channel="inbox",
            takes=pick.choice((tuple(Kind), tuple(Kind), (Kind.REFERRAL,), (Kind.UPDATE,), ())),
            pathways=pick.choice((("all",), ("all",), ("other",))),
        )
        for place in PLACES
    ]
    return Directory(
        Entries(
            icbs=tuple(Icb(code=code, name=code) for code in ICBS),
            organisations=tuple(one for one in organisations if pick.random() < 0.9),
            services=tuple(one for one in services if pick.random() < 0.8),
            endpoints=tuple(one for one in connections if pick.random() < 0.8),
        )
    )


def make_want(pick: random.Random) -> Want:
    """A message with one to three seeks of any sort."""
    seeks = []
    for _ in range(pick.randint(1, 3)):
        receiver_type = pick.choice(("", "general-practice", *TYPES, *TYPES))
        # Without a receiver type, a place must be named.
        is_named = not receiver_type or pick.random() < 0.3
        seeks.append(
            Seek(
                role=pick.choice(list(Role)),
                receiver_type=receiver_type,
                subspecialty=pick.choice(("", *SUBSPECIALTIES)),
                named=pick.choice(PLACES) if is_named else None,
                practice=pick.choice((None, "ZZZ", *CODES)),
                postcode=pick.choice((None, "nonsense", *AREAS.values())),
            )
        )
    return want(*seeks, kind=pick.choice(list(Kind)), required=pick.random() < 0.5)


def want(*seeks: Seek, kind: Kind = Kind.REFERRAL, required: bool = True) -> Want:
    return Want(
        key="one",
        kind=kind,
        pathway="eye-care",
        pathway_version="1",
        priority=Priority.ROUTINE,
        seeks=seeks,
        happened=datetime(2026, 11, 23, tzinfo=UTC),
        required=required,
        if_left_out="" if required else "No task was sent.",
    )


@settings(max_examples=1000, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_route_leads_only_to_a_known_open_connected_place_that_takes_it(seed: int) -> None:
    directory = make(seed)
    pick = random.Random(seed)  # noqa: S311
    sent = 0
    for _ in range(100):
        wanted = make_want(pick)
        routed = route(wanted, "SENDER", directory, NOW)
        sent += bool(routed.routes)
        for one in routed.routes:
            place = one.destination
            assert one.reason.endswith(".")
            assert directory.organisations[place.ods].status is Status.OPEN
            if place.service:
                assert directory.services[place.service].organisation == place.ods
            connection = directory.connections[place]
            kind = delivered_as(wanted.kind, one.role)
            assert kind in connection.takes
            assert "all" in connection.pathways or wanted.pathway in connection.pathways
            assert isinstance(recheck(place, kind, directory, wanted.pathway), Endpoint)
            if place.service and kind is Kind.REFERRAL and one.role is Role.ACTING:
                assert takes_new_by_hand(directory, place)
        destinations = [one.destination for one in routed.routes]
        assert len(set(destinations)) == len(destinations)
    event(f"sent: {sent // 10 * 10} or more of 100")


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_seek_is_answered_and_only_an_acting_one_can_refuse(seed: int) -> None:
    directory = make(seed)
    pick = random.Random(seed)  # noqa: S311
    for _ in range(100):
        wanted = make_want(pick)
        routed = route(wanted, "SENDER", directory, NOW)
        told = [*routed.warnings, *routed.problems]
        assert all(problem.code and problem.detail for problem in told)
        assert routed.routes or told
        has_acting = any(seek.role is Role.ACTING for seek in wanted.seeks)
        if routed.problems:
            assert has_acting
            assert wanted.required
            assert not routed.routes
        if routed.left_out:
            assert has_acting
            assert not wanted.required
            assert not routed.routes
            assert routed.left_out.startswith("No task was sent.")
        if routed.routes and has_acting:
            assert routed.routes[0].role is Role.ACTING


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_search_finds_the_unique_lowest_rank_and_refuses_every_tie(seed: int) -> None:
    directory = make(seed)
    for receiver_type, subspecialty, practice, area in itertools.product(
        TYPES, ("", *SUBSPECIALTIES), (None, "ZZZ", *CODES), (None, *AREAS)
    ):
        postcode = AREAS[area] if area else None
        seek = Seek(Role.ACTING, receiver_type, subspecialty, None, practice, postcode)
        best = best_by_hand(directory, receiver_type, subspecialty, practice, area)
        routed = route(want(seek), "SENDER", directory, NOW)
        if (
            len(best) == 1
            and isinstance(recheck(best[0], Kind.REFERRAL, directory, "eye-care"), Endpoint)
            and takes_new_by_hand(directory, best[0])
        ):
            event("sent")
            assert [one.destination for one in routed.routes] == best
            chosen, *others = routed.candidates
            assert (chosen.destination, chosen.verdict) == (best[0], Verdict.CHOSEN)
            for one in others:
                is_shut = one.verdict in {Verdict.CLOSED, Verdict.PAUSED}
                assert is_shut is not takes_new_by_hand(directory, one.destination)
                assert one.rank > chosen.rank
            continue
        assert not routed.routes
        (problem,) = routed.problems
        if len(best) > 1:
            event("tie")
            assert problem.code == "tie"
            taking = [str(place) for place in best if takes_new_by_hand(directory, place)]
            assert sorted(problem.instead) == sorted(taking)
        if problem.code.startswith("service-"):
            event("shut")
            assert str(best[0]) not in problem.instead
            for place in problem.instead:  # what is offered instead is taken
                again = replace(seek, named=Destination(*place.split("/")))
                assert route(want(again), "SENDER", directory, NOW).routes


def takes_new_by_hand(directory: Directory, place: Destination) -> bool:
    service = directory.services[place.service]
    return not service.paused and service.closures != CLOSED_NOW


def best_by_hand(
    directory: Directory,
    receiver_type: str,
    subspecialty: str,
    practice: str | None,
    area: str | None,
) -> list[Destination]:
    """The same question answered in the plainest way, without any of the code under test."""
    practices = [o for o in directory.entries.organisations if o.pillar == "general-practice"]
    icb = next((o.icb for o in practices if o.ods == practice), None)
    open_ones = {o.ods for o in directory.entries.organisations if o.status is Status.OPEN}
    ranked: list[tuple[int, Destination]] = []
    for service in directory.entries.services:
        inside = service.icb == icb if icb else area in service.postcode_areas
        ranks = [
            offer.rank
            for offer in service.offers
            if offer.receiver_type == receiver_type
            and ("all" in offer.subspecialties or subspecialty in offer.subspecialties)
        ]
        if inside and ranks and service.organisation in open_ones:
            ranked.append((min(ranks), Destination(service.organisation, service.code)))
    lowest = min((rank for rank, _ in ranked), default=0)
    return [place for rank, place in ranked if rank == lowest]


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_order_of_the_file_changes_no_route(seed: int) -> None:
    directory = make(seed)
    entries = directory.entries
    other = Directory(
        Entries(
            icbs=entries.icbs[::-1],
            organisations=entries.organisations[::-1],
            services=entries.services[::-1],
            endpoints=entries.endpoints[::-1],
        )
    )
    pick = random.Random(seed)  # noqa: S311
    for _ in range(100):
        wanted = make_want(pick)
        one = route(wanted, "SENDER", directory, NOW)
        assert one.routes == route(wanted, "SENDER", other, NOW).routes


@given(seed=st.integers(0, 2**32), ods=st.sampled_from((*CODES, "ZZZ")))
def test_a_successor_is_always_open_and_is_found_even_in_a_circle(seed: int, ods: str) -> None:
    directory = make(seed)
    found = directory.resolve_successor(ods)
    if found is not None:
        assert found.is_open
    if directory.is_open(ods):
        assert found is directory.organisations[ods]
