"""Where messages go, why, and what the sender reads when one cannot."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker import choosing
from broker.choosing import Candidate, Verdict
from broker.directory import Directory
from broker.directory_entries import Entries
from broker.directory_file import parse
from broker.events import Destination, Kind, Priority, Role, Route
from broker.ports import Endpoint, FieldPaths, Seek, Want
from broker.routing import Routed, recheck, route, takes_new

EXAMPLE = (Path(__file__).parents[2] / "sandbox" / "directory.yaml").read_text("utf-8")
DIRECTORY = parse(EXAMPLE)
NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)  # a Monday
SUNDAY = datetime(2026, 11, 22, 10, tzinfo=UTC)
SPA = Destination("RXX01", "RXX01-SPA")
CASUALTY = Destination("RXX01", "RXX01-EYE-CASUALTY")
OFFERS_SPA_LAST = "receiver_type: spa, subspecialties: [all], rank: 3"
PATHS = FieldPaths("provider", "patient.practice", "condition")


def want(
    *seeks: Seek,
    kind: Kind = Kind.REFERRAL,
    left_out: str = "",
    priority: Priority = Priority.ROUTINE,
) -> Want:
    return Want(
        key="one",
        kind=kind,
        pathway="eye-care",
        pathway_version="1",
        priority=priority,
        seeks=seeks,
        happened=datetime(2026, 11, 23, 9, 0, tzinfo=UTC),
        required=not left_out,
        if_left_out=left_out,
    )


def seek(
    receiver_type: str = "spa",
    *,
    role: Role = Role.ACTING,
    subspecialty: str = "glaucoma",
    named: Destination | None = None,
    practice: str | None = "G99001",
    postcode: str | None = None,
) -> Seek:
    return Seek(role, receiver_type, subspecialty, named, practice, postcode)


def gp(practice: str | None, role: Role = Role.ACTING) -> Seek:
    return Seek(role, "general-practice", practice=practice)


def go(
    *seeks: Seek,
    kind: Kind = Kind.REFERRAL,
    directory: Directory = DIRECTORY,
    left_out: str = "",
    sender: str = "TPX01",
) -> Routed:
    wanted = want(*seeks, kind=kind, left_out=left_out)
    return route(wanted, sender, directory, NOW, paths=PATHS)


def changed(old: str, new: str) -> Directory:
    assert old in EXAMPLE
    return parse(EXAMPLE.replace(old, new))


def test_a_referral_goes_to_the_only_service_of_its_kind_in_the_practices_icb() -> None:
    routed = go(seek())
    assert routed.routes == (
        Route(
            SPA,
            Role.ACTING,
            "The only one of the lowest rank (1) for spa, glaucoma in QXX, "
            "the ICB of the registered practice.",
        ),
    )
    assert not routed.problems
    assert not routed.warnings
    assert routed.agreement == "DSA-EYE-CARE"


@pytest.mark.parametrize(
    ("receiver_type", "service"),
    [
        ("eye-casualty", "RXX01-EYE-CASUALTY"),
        ("urgent-eye", "TPX03-URGENT-EYE"),
        ("macular", "RXX01-MACULAR"),
    ],
)
def test_each_receiver_type_has_its_service(receiver_type: str, service: str) -> None:
    routed = go(seek(receiver_type, subspecialty=""))
    assert [one.destination for one in routed.routes] == [Destination(service[:5], service)]


def test_without_a_known_practice_the_area_of_the_postcode_decides() -> None:
    for practice in (None, "Y00000"):
        routed = go(seek(practice=practice, postcode="bd1 1aa"))
        assert routed.routes == (
            Route(
                Destination("RYY01", "RYY01-SPA"),
                Role.ACTING,
                "The only one of the lowest rank (1) for spa, glaucoma in the area of the "
                "postcode.",
            ),
        )


def test_the_practices_icb_comes_before_the_postcode() -> None:
    routed = go(seek(practice="G99002", postcode="BD1 1AA"))
    assert routed.routes[0].destination == SPA


def test_a_closed_practice_still_says_in_which_icb_to_look() -> None:
    assert go(seek(practice="G99004")).routes[0].destination == SPA


def test_with_neither_practice_nor_postcode_it_is_refused_with_all_candidates() -> None:
    (problem,) = go(seek(practice=None)).problems
    assert problem.code == "area-not-known"
    assert problem.field == "patient.practice"
    assert "0113 496 0401" in problem.todo
    assert "01632 960401" in problem.todo


def test_no_route_and_no_reason_says_anything_about_the_patient() -> None:
    routed = go(seek(practice=None, postcode="LS1 4AP"))
    assert "LS" not in routed.routes[0].reason
    refused = go(seek("macular", practice=None, postcode="BD1 1AA"))
    assert "BD" not in refused.problems[0].detail


def test_nobody_in_the_area_is_refused_with_the_candidates_elsewhere() -> None:
    (problem,) = go(seek("macular", practice=None, postcode="BD1 1AA")).problems
    assert problem.code == "no-destination"
    assert problem.field == "condition"
    assert problem.detail == "Nobody takes macular, glaucoma in the area of the postcode."
    assert problem.todo == (
        "Name or telephone one of: Northfield Hospital, macular service "
        "(RXX01/RXX01-MACULAR), 0113 496 0403; Westgate Hospital, macular clinic "
        "(RXZ01/RXZ01-MACULAR), 0113 496 0491."
    )
    (nobody,) = go(seek("dental")).problems
    assert nobody.todo == "No service in the directory takes it now."


def test_a_tie_is_refused_with_those_that_tie() -> None:
    directory = changed("icb: QYY\n    postcode_areas: [BD]", "icb: QXX\n    postcode_areas: [BD]")
    (problem,) = go(seek(), directory=directory).problems
    assert problem.code == "tie"
    assert problem.detail == (
        "2 services take spa, glaucoma at the same rank (1) in QXX, the ICB of the registered "
        "practice."
    )
    assert "0113 496 0401" in problem.todo
    assert "01632 960401" in problem.todo


def test_the_lowest_rank_wins_per_subspecialty() -> None:
    spa_of_southmoor = (
        "icb: QYY\n    postcode_areas: [BD]\n    telephone: 01632 960401\n    offers:\n"
    )
    directory = changed(
        spa_of_southmoor + "      - {receiver_type: spa, subspecialties: [all], rank: 1}",
        spa_of_southmoor.replace("QYY", "QXX")
        + "      - {receiver_type: spa, subspecialties: [cornea], rank: 1}\n"
        + "      - {receiver_type: spa, subspecialties: [all], rank: 2}",
    )
    assert go(seek(), directory=directory).routes[0].destination == SPA
    assert go(seek(subspecialty="cornea"), directory=directory).problems[0].code == "tie"


def test_a_service_that_names_subspecialties_is_not_sought_without_one() -> None:
    directory = changed(
        "postcode_areas: [BD]\n    telephone: 01632 960401\n    offers:\n"
        "      - {receiver_type: spa, subspecialties: [all], rank: 1}",
        "postcode_areas: [BD]\n    telephone: 01632 960401\n    offers:\n"
        "      - {receiver_type: spa, subspecialties: [glaucoma], rank: 1}",
    )
    assert go(seek(practice=None, postcode="BD1 1AA"), directory=directory).routes
    unnamed = go(seek(subspecialty="", practice=None, postcode="BD1 1AA"), directory=directory)
    assert unnamed.problems[0].code == "no-destination"


def test_the_service_of_lowest_rank_is_never_silently_replaced_by_the_next() -> None:
    directory = parse(
        EXAMPLE.replace("icb: QYY\n    postcode_areas", "icb: QXX\n    postcode_areas")
        .replace("rank: 1", "rank: 2", 1)
        .replace("  - {organisation: RYY01, service: RYY01-SPA, channel: inbox, ", "  # ")
    )
    (problem,) = go(seek(), directory=directory).problems
    assert problem.code == "not-connected"
    assert problem.todo == (
        "Telephone Southmoor Hospital, ophthalmology single point of access on 01632 960401."
    )


def test_the_named_provider_comes_first() -> None:
    named = Destination("RYY01", "RYY01-SPA")
    routed = go(seek(named=named))
    assert routed.routes == (
        Route(named, Role.ACTING, "The provider that was named; it takes spa, glaucoma."),
    )


def test_a_named_hospital_gets_it_at_the_service_that_takes_it() -> None:
    assert go(seek("eye-casualty", named=Destination("RXX01"))).routes[0].destination == CASUALTY


def test_a_named_provider_that_does_not_take_it_is_refused_with_the_candidates() -> None:
    for named in (Destination("RYY01"), Destination("RYY01", "RYY01-SPA")):
        (problem,) = go(seek("eye-casualty", named=named)).problems
        assert problem.code == "does-not-take"
        assert problem.field == "provider"
        assert "does not take eye-casualty" in problem.detail
        assert "0113 496 0402" in problem.todo


def test_candidates_are_those_of_the_area_as_long_as_there_are_any() -> None:
    (problem,) = go(seek(named=Destination("RXX01", "RXX01-MACULAR"))).problems
    assert "0113 496 0401" in problem.todo
    assert "01632" not in problem.todo


def test_a_named_provider_with_two_services_of_the_same_rank_must_be_named_closer() -> None:
    directory = changed("receiver_type: macular", "receiver_type: spa")
    (problem,) = go(seek(named=Destination("RXX01")), directory=directory).problems
    assert problem.code == "tie"
    assert "RXX01/RXX01-SPA" in problem.todo
    assert "RXX01/RXX01-MACULAR" in problem.todo


@pytest.mark.parametrize(
    ("named", "says"),
    [
        (Destination("RZZ99"), "Northfield Hospital, ophthalmology single point of access"),
        (Destination("RXX01", "RYY01-SPA"), "RXX01/RXX01-SPA"),
    ],
)
def test_a_named_place_that_the_directory_does_not_know_is_refused(
    named: Destination, says: str
) -> None:
    (problem,) = go(seek(named=named)).problems
    assert problem.code == "unknown-destination"
    assert problem.detail == f"{named} is not in the directory."
    assert says in problem.todo
    assert "MACULAR" not in problem.todo  # which does not take what is sought


def test_general_practice_is_the_registered_practice_itself() -> None:
    routed = go(gp("G99002"), kind=Kind.UPDATE, sender="FPH01")
    assert routed.routes == (Route(Destination("G99002"), Role.ACTING, "The registered practice."),)
    assert routed.agreement == "DSA-QXX-PHARMACY"


def test_a_named_practice_comes_before_the_registered_one() -> None:
    other = Seek(Role.ACTING, "general-practice", named=Destination("G99002"), practice="G99001")
    routed = go(other, kind=Kind.UPDATE)
    assert routed.routes[0] == Route(
        Destination("G99002"), Role.ACTING, "The practice that was named."
    )


def test_a_service_that_the_named_practice_does_not_have_is_refused() -> None:
    odd = Seek(Role.ACTING, "general-practice", named=Destination("G99001", "RXX01-SPA"))
    (problem,) = go(odd, kind=Kind.UPDATE).problems
    assert (problem.field, problem.code) == ("provider", "unknown-destination")


def test_a_closed_practice_is_refused_and_its_successor_named() -> None:
    (problem,) = go(gp("G99004"), kind=Kind.UPDATE).problems
    assert problem.code == "closed"
    assert problem.field == "patient.practice"
    assert problem.detail == (
        "Old Mill Surgery (G99004) is closed. Its successor is Riverside Medical Practice (G99001)."
    )
    assert problem.todo == "Send it to G99001, or telephone 0113 496 0201."


def test_a_closed_practice_without_successor_is_refused_all_the_same() -> None:
    directory = changed("    successor: G99001\n", "")
    (problem,) = go(gp("G99004"), kind=Kind.UPDATE, directory=directory).problems
    assert problem.detail == "Old Mill Surgery (G99004) is closed and has no successor."


def test_a_practice_that_is_not_connected_is_refused_and_its_number_given() -> None:
    (problem,) = go(gp("G99005"), kind=Kind.UPDATE).problems
    assert problem.code == "not-connected"
    assert problem.todo == "Telephone Orchard Practice on 0113 496 0205."


def test_an_unknown_practice_is_refused() -> None:
    (problem,) = go(gp("G00000"), kind=Kind.UPDATE).problems
    assert (problem.field, problem.code) == ("patient.practice", "unknown-destination")
    assert go(gp(None), kind=Kind.UPDATE).problems[0].code == "practice-not-known"


def test_a_mistyped_practice_that_is_somebody_else_is_refused() -> None:
    (problem,) = go(gp("TPX01"), kind=Kind.UPDATE).problems
    assert problem.code == "not-a-practice"


def test_a_practice_that_takes_updates_only_leaves_the_task_out_and_names_its_number() -> None:
    routed = go(gp("G99003"), left_out="No task was sent.")
    assert not routed.routes
    assert not routed.problems
    assert routed.left_out == ("No task was sent. Telephone Lakeside Practice on 0113 496 0203.")
    assert [problem.code for problem in routed.warnings] == ["left-out"]
    assert go(gp("G99003"), kind=Kind.UPDATE).routes
    assert go(gp("G99003")).problems[0].code == "does-not-take"


@pytest.mark.parametrize(
    ("practice", "code"),
    [
        ("G99004", "copy-closed"),
        ("G99005", "copy-not-connected"),
        ("G00000", "copy-unknown-destination"),
        (None, "copy-practice-not-known"),
    ],
)
def test_a_copy_that_cannot_go_is_a_warning_and_never_stops_the_referral(
    practice: str | None, code: str
) -> None:
    routed = go(gp(practice, Role.COPY), seek())
    assert [one.destination for one in routed.routes] == [SPA]
    assert not routed.problems
    (warning,) = routed.warnings
    assert warning.code == code
    assert warning.detail.startswith("No copy was sent. ")


def test_whoever_acts_gets_no_copy_beside_it() -> None:
    routed = go(gp("G99001", Role.COPY), gp("G99001"), kind=Kind.UPDATE)
    assert [(one.destination.ods, one.role) for one in routed.routes] == [("G99001", Role.ACTING)]


def test_a_notice_goes_to_the_place_that_is_named_whatever_it_offers() -> None:
    to_sender = Seek(Role.NOTICE, "", named=Destination("X99012"))
    assert go(to_sender, kind=Kind.NOTICE).routes[0].destination == Destination("X99012")
    assert go(to_sender, kind=Kind.UPDATE).warnings[0].code == "notice-does-not-take"


def test_a_code_of_another_pillar_than_the_one_that_is_meant_gets_nothing() -> None:
    carer = Seek(Role.COPY, "", named=Destination("TPX01"), pillar="dentistry")
    routed = go(gp("G99001"), carer, kind=Kind.UPDATE)
    assert [one.destination.ods for one in routed.routes] == ["G99001"]
    assert [one.code for one in routed.warnings] == ["copy-another-pillar"]


def test_an_endpoint_may_take_some_pathways_only() -> None:
    directory = changed(
        "service: RXX01-SPA, channel: inbox, takes: [referral, update, notice]}",
        "service: RXX01-SPA, channel: inbox, takes: [referral, notice], pathways: [cataract]}",
    )
    (problem,) = go(seek(), directory=directory).problems
    assert problem.code == "does-not-take"
    assert recheck(SPA, Kind.NOTICE, directory) == Endpoint(SPA, "inbox")
    assert recheck(SPA, Kind.REFERRAL, directory, "eye-care") == "does-not-take"


def test_a_refusal_of_what_is_not_taken_names_others_that_do() -> None:
    directory = parse(
        EXAMPLE.replace("icb: QYY\n    postcode_areas", "icb: QXX\n    postcode_areas")
        .replace("rank: 1", "rank: 2", 1)
        .replace(
            "service: RYY01-SPA, channel: inbox, takes: [referral, update, notice]",
            "service: RYY01-SPA, channel: inbox, takes: [notice]",
        )
        .replace("receiver_type: macular, subspecialties: [all], rank: 1", OFFERS_SPA_LAST)
        .replace("  - {organisation: RXX01, service: RXX01-MACULAR, channel: inbox, ", "  # ")
    )
    (problem,) = go(seek(), directory=directory).problems
    assert problem.code == "does-not-take"
    # The macular service offers it too, but cannot be reached.
    assert problem.todo.endswith(
        "Name or telephone one of: Northfield Hospital, ophthalmology single point of access "
        "(RXX01/RXX01-SPA), 0113 496 0401."
    )


def test_a_named_provider_that_is_not_connected_is_told_under_the_name_it_was_given() -> None:
    directory = changed("  - {organisation: RYY01, service: RYY01-SPA, channel: inbox, ", "  # ")
    (problem,) = go(seek(named=Destination("RYY01", "RYY01-SPA")), directory=directory).problems
    assert (problem.field, problem.code) == ("provider", "not-connected")


def test_a_refusal_names_ten_candidates_at_most() -> None:
    one = EXAMPLE[EXAMPLE.index("  - code: RXX01-MACULAR") : EXAMPLE.index("  - code: RYY01-SPA")]
    many = "".join(one.replace("RXX01-MACULAR", f"RXX01-MACULAR-{n}") for n in range(12))
    directory = changed(one, one + many)
    (problem,) = go(seek("macular"), directory=directory).problems
    assert problem.detail.startswith("13 services take macular, glaucoma at the same rank (1)")
    assert problem.todo.count("0113 496 0403") == 10


def test_an_endpoint_of_a_service_that_is_gone_leads_nowhere() -> None:
    entries = DIRECTORY.entries
    directory = Directory(
        Entries(
            icbs=entries.icbs,
            organisations=entries.organisations,
            endpoints=entries.endpoints,
        )
    )
    assert SPA in directory.connections
    assert recheck(SPA, Kind.REFERRAL, directory) == "not-connected"


def test_without_an_agreement_the_route_stands_and_no_code_is_claimed() -> None:
    routed = go(seek(), sender="FPH01")
    assert routed.routes
    assert routed.agreement == ""


def test_at_each_attempt_the_place_is_looked_up_again() -> None:
    hilltop = Destination("G99002")
    assert recheck(hilltop, Kind.UPDATE, DIRECTORY) == Endpoint(
        hilltop, "webhook", "http://127.0.0.1:9902/inbound"
    )
    assert recheck(Destination("G99004"), Kind.UPDATE, DIRECTORY) == "closed"
    assert recheck(Destination("G99005"), Kind.UPDATE, DIRECTORY) == "not-connected"
    assert recheck(Destination("G00000"), Kind.UPDATE, DIRECTORY) == "not-connected"
    assert recheck(Destination("RXX01"), Kind.REFERRAL, DIRECTORY) == "not-connected"
    assert recheck(Destination("RYY01", "RXX01-SPA"), Kind.REFERRAL, DIRECTORY) == "not-connected"
    assert recheck(Destination("G99003"), Kind.REFERRAL, DIRECTORY) == "does-not-take"


@pytest.mark.parametrize(
    ("priority", "now", "says"),
    [
        (Priority.STAT, NOW, "Telephone Orchard Practice on 0113 496 0205."),
        (
            Priority.STAT,
            SUNDAY,
            "Orchard Practice (0113 496 0205) is closed now: telephone NHS 111.",
        ),
        (Priority.ROUTINE, SUNDAY, "Telephone Orchard Practice on 0113 496 0205."),
    ],
    ids=["same-day in hours", "same-day out of hours", "routine out of hours"],
)
def test_who_cannot_be_reached_is_telephoned_if_somebody_is_there(
    priority: Priority, now: datetime, says: str
) -> None:
    seek = Seek(Role.ACTING, "general-practice", practice="G99005")
    routed = route(want(seek, kind=Kind.UPDATE, priority=priority), "FPH01", DIRECTORY, now)
    assert routed.telephone == says
    assert routed.problems[0].todo == says


def test_where_nobody_takes_it_nobody_is_named_to_telephone() -> None:
    seek = Seek(Role.ACTING, "dragon-clinic", practice="G99001")
    routed = route(want(seek), "FOP01", DIRECTORY, NOW)
    assert routed.problems[0].code == "no-destination"
    assert routed.telephone == ""


def test_a_place_that_is_no_practice_says_nothing_of_where_to_look() -> None:
    # FPH01 is a pharmacy of QXX: a code that was mistyped, for a patient who lives in BD.
    found = go(seek(practice="FPH01", postcode="BD1 1AA"))
    (route,) = found.routes
    assert route.destination == Destination("RYY01", "RYY01-SPA")
    assert "the area of the postcode" in route.reason


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (
            NOW,
            "Send it to G99001. Old Mill Surgery has closed. "
            "Telephone Riverside Medical Practice on 0113 496 0201.",
        ),
        (
            SUNDAY,
            "Send it to G99001. Old Mill Surgery has closed. "
            "Riverside Medical Practice (0113 496 0201) is closed now: telephone NHS 111.",
        ),
    ],
    ids=["in hours", "out of hours"],
)
def test_what_is_for_today_names_of_a_closed_places_successor_who_answers_now(
    now: datetime, says: str
) -> None:
    wanted = want(gp("G99004"), kind=Kind.UPDATE, priority=Priority.STAT)
    routed = route(wanted, "FPH01", DIRECTORY, now)
    assert routed.telephone == says


def test_what_is_for_today_and_has_no_successor_to_go_to_is_for_nhs_111() -> None:
    directory = changed("    status: closed\n    successor: G99001", "    status: closed")
    wanted = want(gp("G99004"), kind=Kind.UPDATE, priority=Priority.STAT)
    routed = route(wanted, "FPH01", directory, NOW)
    assert routed.telephone == "Old Mill Surgery has closed: telephone NHS 111."


def test_what_is_sought_is_said_in_the_pillars_own_words_where_it_has_them() -> None:
    wanted = replace(seek("macular", practice=None, postcode="BD1 1AA"), words="macular clinics")
    assert (
        go(wanted).problems[0].detail == "Nobody takes macular clinics in the area of the postcode."
    )


# -- closed and paused services ------------------------------------------------------------------

MACULAR = Destination("RXX01", "RXX01-MACULAR")
OTHER_MACULAR = Destination("RXZ01", "RXZ01-MACULAR")
CHRISTMAS = datetime(2026, 12, 28, 10, tzinfo=UTC)  # a Monday on which RXZ01-MACULAR is closed


def with_paused(*codes: str, why: str = "no consultant until March") -> Directory:
    """The example, with these services paused."""
    services = tuple(
        replace(one, paused=why) if one.code in codes else one for one in DIRECTORY.entries.services
    )
    return Directory(replace(DIRECTORY.entries, services=services))


@pytest.mark.parametrize("named", [MACULAR, Destination("RXX01"), None])
def test_a_paused_service_is_refused_with_whom_to_send_it_to_instead(
    named: Destination | None,
) -> None:
    (problem,) = go(seek("macular", named=named), directory=with_paused("RXX01-MACULAR")).problems
    assert problem.code == "service-paused"
    assert problem.field == ("provider" if named else "condition")
    assert problem.detail == (
        "Northfield Hospital, macular service (RXX01/RXX01-MACULAR) takes no new referral for now "
        "(no consultant until March)."
    )
    assert problem.todo == (
        "Name or telephone one of: Westgate Hospital, macular clinic (RXZ01/RXZ01-MACULAR), "
        "0113 496 0491."
    )
    assert problem.instead == ("RXZ01/RXZ01-MACULAR",)
    assert not go(seek("macular", named=OTHER_MACULAR)).problems


@pytest.mark.parametrize(
    ("now", "is_closed"),
    [
        (datetime(2026, 12, 23, 23, 59, tzinfo=UTC), False),
        (datetime(2026, 12, 24, 0, 0, tzinfo=UTC), True),
        (datetime(2027, 1, 3, 23, 59, tzinfo=UTC), True),
        (datetime(2027, 1, 4, 0, 0, tzinfo=UTC), False),  # in the night, and it waits
    ],
)
def test_a_service_is_closed_from_the_first_day_to_the_last_by_the_london_calendar(
    now: datetime, is_closed: bool
) -> None:
    routed = route(want(seek("macular", named=OTHER_MACULAR)), "TPX01", DIRECTORY, now, paths=PATHS)
    assert [one.code for one in routed.problems] == (["service-closed"] if is_closed else [])
    if is_closed:
        assert routed.problems[0].detail == (
            "Westgate Hospital, macular clinic (RXZ01/RXZ01-MACULAR) is closed up to and including "
            "3 January 2027 (the clinic moves to another building) and takes no new referral."
        )
        assert routed.problems[0].instead == (str(MACULAR),)


def test_a_closure_without_a_last_day_is_for_good() -> None:
    directory = changed(
        "last_day: 2027-01-03, reason: the clinic moves", "reason: the clinic moves"
    )
    wanted = want(seek("macular", named=OTHER_MACULAR))
    (problem,) = route(wanted, "TPX01", directory, CHRISTMAS.replace(year=2036)).problems
    assert "is closed for good (the clinic moves to another building)" in problem.detail


def test_where_nobody_else_takes_it_the_paused_service_itself_is_telephoned() -> None:
    directory = with_paused("RXX01-MACULAR", "RXZ01-MACULAR")
    (problem,) = go(seek("macular"), directory=directory).problems
    assert problem.todo == "Telephone Northfield Hospital, macular service on 0113 496 0403."
    assert problem.instead == ()


@pytest.mark.parametrize(
    ("now", "says"),
    [
        (NOW, "Telephone Westgate Hospital, macular clinic on 0113 496 0491. "),
        (
            SUNDAY,
            "Westgate Hospital, macular clinic (0113 496 0491) is closed now: telephone NHS 111. ",
        ),
    ],
)
def test_what_is_for_today_is_telephoned_to_whoever_takes_it_and_is_there(
    now: datetime, says: str
) -> None:
    directory = with_paused("RXX01-MACULAR")
    wanted = want(seek("macular"), priority=Priority.STAT)
    assert route(wanted, "TPX01", directory, now).telephone.startswith(says)


def test_who_is_offered_instead_takes_it_now_and_can_be_reached() -> None:
    directory = with_paused("RXX01-MACULAR", "RXZ01-MACULAR")
    (nobody,) = go(seek("macular", practice=None, postcode="BD1 1AA"), directory=directory).problems
    assert nobody.code == "no-destination"
    assert nobody.todo == "No service in the directory takes it now."
    assert nobody.instead == ()
    unconnected = changed("  - {organisation: RXZ01, service: RXZ01-MACULAR, ", "  # ")
    services = with_paused("RXX01-MACULAR").entries.services
    directory = Directory(replace(unconnected.entries, services=services))
    assert go(seek("macular"), directory=directory).problems[0].instead == ()


def test_a_paused_service_named_without_a_type_is_replaced_by_what_is_of_a_type_with_it() -> None:
    directory = with_paused("RXX01-MACULAR")
    (problem,) = go(seek("", named=MACULAR), directory=directory).problems
    assert (problem.code, problem.instead) == ("service-paused", (str(OTHER_MACULAR),))


@pytest.mark.parametrize(
    ("kind", "role"),
    [(Kind.UPDATE, Role.ACTING), (Kind.NOTICE, Role.NOTICE), (Kind.REFERRAL, Role.COPY)],
)
def test_only_what_is_to_be_taken_on_is_no_longer_taken(kind: Kind, role: Role) -> None:
    routed = go(
        replace(seek("", named=MACULAR), role=role),
        kind=kind,
        directory=with_paused("RXX01-MACULAR"),
    )
    assert [one.destination for one in routed.routes] == [MACULAR]


def test_what_is_under_way_at_a_paused_service_goes_on() -> None:
    directory = with_paused("RXX01-MACULAR")
    wanted = want(seek("macular"))
    assert route(wanted, "TPX01", directory, NOW, under_way=[MACULAR]).routes
    assert not route(wanted, "TPX01", directory, NOW, under_way=[OTHER_MACULAR]).routes
    for kind in Kind:
        assert isinstance(recheck(MACULAR, kind, directory, "eye-care"), Endpoint)


def test_whether_a_place_takes_new_referrals_is_told_with_the_reason_why_not() -> None:
    assert takes_new(MACULAR, "eye-care", DIRECTORY, NOW) == Endpoint(MACULAR, "inbox")
    paused = with_paused("RXX01-MACULAR")
    assert takes_new(MACULAR, "eye-care", paused, NOW) == "service-paused"
    assert takes_new(OTHER_MACULAR, "eye-care", DIRECTORY, CHRISTMAS) == "service-closed"
    assert takes_new(Destination("FPH01"), "eye-care", DIRECTORY, NOW) == "does-not-take"
    assert takes_new(Destination("G99004"), "eye-care", DIRECTORY, NOW) == "closed"


# -- explaining ----------------------------------------------------------------------------------


def test_a_route_that_was_searched_tells_its_candidates_and_what_ruled_each_out() -> None:
    chosen = Candidate(MACULAR, 1, Verdict.CHOSEN)
    for directory, now, verdict in [
        (DIRECTORY, NOW, Verdict.RANKED_LOWER),
        (DIRECTORY, CHRISTMAS, Verdict.CLOSED),
        (with_paused("RXZ01-MACULAR"), NOW, Verdict.PAUSED),
    ]:
        routed = route(want(seek("macular"), gp("G99001", Role.COPY)), "TPX01", directory, now)
        assert routed.candidates == (chosen, Candidate(OTHER_MACULAR, 2, verdict))
        assert choosing.read(choosing.written(routed.candidates)) == list(routed.candidates)


def test_a_named_organisation_chooses_among_its_own_services_and_a_named_service_has_no_rival() -> (
    None
):
    routed = go(seek("macular", named=Destination("RXX01")))
    assert routed.candidates == (Candidate(MACULAR, 1, Verdict.CHOSEN),)
    assert go(seek("macular", named=MACULAR)).candidates == ()
    assert go(gp("G99001"), kind=Kind.UPDATE).candidates == ()
    assert choosing.read(choosing.written(())) == []


def test_candidates_are_told_by_name_with_the_verdict_in_words() -> None:
    told = choosing.told([Candidate(OTHER_MACULAR, 2, Verdict.CLOSED)], DIRECTORY)
    assert told == [
        {
            "organisation": "RXZ01",
            "service": "RXZ01-MACULAR",
            "name": "Westgate Hospital, macular clinic",
            "rank": 2,
            "verdict": "service-closed",
            "in_words": "It was closed.",
        }
    ]
    assert set(choosing.WORDS) == set(Verdict)


def test_ten_candidates_are_told_at_most_and_the_chosen_one_is_among_them() -> None:
    one = EXAMPLE[EXAMPLE.index("  - code: RXX01-MACULAR") : EXAMPLE.index("  - code: RYY01-SPA")]
    lower = one.replace("rank: 1", "rank: 2")
    many = "".join(lower.replace("RXX01-MACULAR", f"RXX01-A{n}") for n in range(12))
    routed = go(seek("macular"), directory=changed(one, many + one))
    assert len(routed.candidates) == 10
    assert routed.candidates[0] == Candidate(MACULAR, 1, Verdict.CHOSEN)


def test_a_place_that_the_broker_named_has_the_reason_that_it_gave() -> None:
    named = seek("", role=Role.NOTICE, named=Destination("G99001"))
    assert go(named, kind=Kind.NOTICE).routes[0].reason == "The place that was named."
    known = replace(named, because="It sent the referral.")
    assert go(known, kind=Kind.NOTICE).routes[0].reason == "It sent the referral."


def test_where_nobody_of_the_area_takes_it_now_those_elsewhere_are_offered() -> None:
    elsewhere = Destination("RYY01", "RYY01-SPA")
    directory = with_paused("RXX01-SPA")
    for wanted in (seek(), seek(named=SPA), seek("", named=SPA)):
        (problem,) = go(wanted, directory=directory).problems
        assert (problem.code, problem.instead) == ("service-paused", (str(elsewhere),))
