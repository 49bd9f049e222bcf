"""The directory file is read strictly, and the example is what its comments say."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from broker.directory import Directory
from broker.directory_entries import Status
from broker.directory_file import difference, from_rows, parse, rows
from broker.errors import Refused
from broker.events import Destination, Kind
from broker.ports import Party
from fhir_profiles.pathways.catalogue import catalogue

EXAMPLE = (Path(__file__).parents[2] / "sandbox" / "directory.yaml").read_text("utf-8")
DIRECTORY = parse(EXAMPLE)
SPA = Destination("RXX01", "RXX01-SPA")

MINIMAL = """
icbs:
  - {code: QXX, name: North}
organisations:
  - {ods: AA1, name: One, pillar: general-practice, icb: QXX, telephone: 0113 496 0001}
"""


def refused(text: str) -> list[tuple[str, str]]:
    with pytest.raises(Refused) as caught:
        parse(text)
    assert caught.value.problems
    assert all(problem.detail for problem in caught.value.problems)
    return [(problem.field, problem.code) for problem in caught.value.problems]


def with_more(*sections: str) -> str:
    return MINIMAL + "\n".join(sections)


def test_the_example_holds_every_party_of_the_demo() -> None:
    assert set(DIRECTORY.organisations) == {
        *("FPH01", "G99001", "G99002", "G99003", "G99004", "G99005"),
        *(
            "TPX01",
            "TPX03",
            "RXX01",
            "RYY01",
            "RXZ01",
            "V99001",
            "V99002",
            "RYC01",
            "Y99011",
            "X99012",
        ),
    }
    assert set(DIRECTORY.icbs) == {"QXX", "QYY"}
    offered = {
        offer.receiver_type
        for organisation in DIRECTORY.organisations
        for service in DIRECTORY.services_of(organisation)
        for offer in service.offers
    }
    wanted = {one for entry in catalogue().entries.values() for one in entry.receivers}
    assert wanted - offered == {"general-practice"}


def test_each_place_of_the_example_takes_what_its_part_in_the_demo_needs() -> None:
    takes = {str(d): set(c.takes) for d, c in DIRECTORY.connections.items()}
    everything = {Kind.UPDATE, Kind.REFERRAL, Kind.NOTICE}
    assert takes["FPH01"] == takes["TPX01"] == {Kind.UPDATE, Kind.NOTICE}  # outcomes too
    assert takes["G99001"] == takes["G99002"] == everything
    assert takes["G99003"] == {Kind.UPDATE}
    assert takes["RXX01/RXX01-SPA"] == everything
    assert "G99005" not in takes
    assert "G99004" not in takes
    hilltop = DIRECTORY.connections[Destination("G99002")].endpoint
    assert (hilltop.channel, hilltop.url) == ("webhook", "http://127.0.0.1:9902/inbound")


def test_the_example_uses_only_telephone_numbers_kept_for_drama() -> None:
    numbers = [o.telephone for o in DIRECTORY.entries.organisations if o.telephone]
    numbers += [s.telephone for s in DIRECTORY.entries.services]
    numbers += [c.telephone for c in DIRECTORY.entries.contacts if c.telephone]
    assert numbers
    assert all(number.startswith(("0113 496 0", "01632 960")) for number in numbers)


def test_every_pair_of_parties_that_writes_to_each_other_has_an_agreement() -> None:
    today = date(2026, 11, 23)
    for parties in (("FPH01", "G99001"), ("TPX01", "RXX01"), ("TPX01", "G99002")):
        assert DIRECTORY.agreement(parties, "any-pathway", "direct-care", today)
    assert not DIRECTORY.agreement(("FPH01", "RXX01"), "any-pathway", "direct-care", today)
    assert not DIRECTORY.agreement(("FPH01", "G99001"), "any-pathway", "research", today)
    assert not DIRECTORY.agreement(
        ("FPH01", "G99001"), "any-pathway", "direct-care", date(2025, 12, 31)
    )


def test_an_agreement_holds_on_its_first_and_last_day() -> None:
    directory = parse(
        with_more(
            "  - {ods: BB1, name: Two, pillar: pharmacy, icb: QXX, telephone: 0113 496 0002}",
            "agreements:",
            "  - {code: DSA, parties: [AA1, BB1], pathways: [uti], purpose: direct-care,",
            "     valid_from: 2026-02-01, valid_to: 2026-02-28, document: Agreement}",
        )
    )
    for day, pathway, holds in [
        (date(2026, 1, 31), "uti", False),
        (date(2026, 2, 1), "uti", True),
        (date(2026, 2, 28), "uti", True),
        (date(2026, 3, 1), "uti", False),
        (date(2026, 2, 1), "other", False),
    ]:
        found = directory.agreement(("BB1", "AA1"), pathway, "direct-care", day)
        assert (found is not None) == holds


def test_a_closed_organisation_is_stood_for_by_its_successor() -> None:
    successor = DIRECTORY.resolve_successor("G99004")
    assert successor is not None
    assert successor.ods == "G99001"
    itself = DIRECTORY.resolve_successor("G99001")
    assert itself is not None
    assert itself.ods == "G99001"
    assert DIRECTORY.resolve_successor("G00000") is None
    both = "Old Mill Surgery (now Riverside Medical Practice)"
    assert DIRECTORY.name_now(Destination("G99004")) == both
    for open_or_unknown in (SPA, Destination("ZZZ")):
        assert DIRECTORY.name_now(open_or_unknown) == DIRECTORY.name(open_or_unknown)


def test_a_service_is_found_only_under_its_own_organisation() -> None:
    assert DIRECTORY.service(SPA) is not None
    assert DIRECTORY.service(Destination("RYY01", "RXX01-SPA")) is None
    assert DIRECTORY.name(SPA) == "Northfield Hospital, ophthalmology single point of access"
    assert DIRECTORY.name(Destination("ZZZ")) == "ZZZ"
    assert DIRECTORY.telephone(SPA) == "0113 496 0401"
    assert DIRECTORY.telephone(Destination("G99005")) == "0113 496 0205"
    assert DIRECTORY.telephone(Destination("ZZZ")) == ""


@pytest.mark.parametrize(
    ("moment", "spa", "casualty"),
    [
        (datetime(2026, 11, 23, 8, 0, tzinfo=UTC), True, True),
        (datetime(2026, 11, 23, 18, 29, tzinfo=UTC), True, True),
        (datetime(2026, 11, 23, 18, 30, tzinfo=UTC), False, True),
        (datetime(2026, 11, 23, 20, 0, tzinfo=UTC), False, False),
        (datetime(2026, 11, 22, 12, 0, tzinfo=UTC), False, True),  # a Sunday
        (datetime(2026, 12, 25, 12, 0, tzinfo=UTC), False, True),  # Christmas Day
        (datetime(2026, 7, 1, 17, 29, tzinfo=UTC), True, True),  # British Summer Time
        (datetime(2026, 7, 1, 17, 30, tzinfo=UTC), False, True),
    ],
)
def test_a_service_is_staffed_by_the_london_clock(
    moment: datetime, spa: bool, casualty: bool
) -> None:
    assert DIRECTORY.services["RXX01-SPA"].is_staffed(moment) is spa
    assert DIRECTORY.services["RXX01-EYE-CASUALTY"].is_staffed(moment) is casualty


def test_whom_to_telephone_is_the_place_itself_or_111_out_of_hours() -> None:
    day = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    night = datetime(2026, 11, 23, 23, 0, tzinfo=UTC)
    practice = Destination("G99001")
    assert DIRECTORY.whom_to_telephone(practice, day) == (
        "Telephone Riverside Medical Practice on 0113 496 0201."
    )
    assert DIRECTORY.whom_to_telephone(practice, night) == (
        "Riverside Medical Practice (0113 496 0201) is closed now: telephone NHS 111."
    )
    assert "on 0113 496 0401." in DIRECTORY.whom_to_telephone(SPA, day)
    assert DIRECTORY.whom_to_telephone(Destination("G99998"), day) == (
        "No telephone number is known of G99998: telephone NHS 111."
    )


def test_whom_to_telephone_of_a_closed_place_is_its_successor_or_111() -> None:
    day = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    assert DIRECTORY.whom_to_telephone(Destination("G99004"), day) == (
        "Old Mill Surgery has closed. Telephone Riverside Medical Practice on 0113 496 0201."
    )
    hospital = replace(DIRECTORY.organisations["RXX01"], status=Status.CLOSED)
    alone = Directory(replace(DIRECTORY.entries, organisations=(hospital,)))
    assert alone.whom_to_telephone(SPA, day) == (f"{hospital.name} has closed: telephone NHS 111.")


MOVING = datetime(2026, 12, 28, 12, 0, tzinfo=UTC)  # a Monday, the clinic is closed
MOVED = datetime(2027, 1, 4, 12, 0, tzinfo=UTC)


def test_nobody_is_there_on_the_days_of_a_closure() -> None:
    clinic = DIRECTORY.services["RXZ01-MACULAR"]
    assert clinic.is_staffed(MOVED)
    assert not clinic.is_staffed(MOVING)
    assert DIRECTORY.whom_to_telephone(clinic.destination, MOVING) == (
        "Westgate Hospital, macular clinic (0113 496 0491) is closed now: telephone NHS 111."
    )
    # It closes in the evening before, and then not before the evening of the first day after.
    before = datetime(2026, 12, 23, 12, 0, tzinfo=UTC)
    assert clinic.closes_after(before) == datetime(2026, 12, 23, 17, 0, tzinfo=UTC)
    assert clinic.closes_after(MOVING) == datetime(2027, 1, 4, 17, 0, tzinfo=UTC)


def test_of_several_closures_the_one_that_ends_last_is_told() -> None:
    clinic = DIRECTORY.services["RXZ01-MACULAR"]
    (first,) = clinic.closures
    for later in (replace(first, last_day=date(2027, 2, 1)), replace(first, last_day=None)):
        for closures in ((first, later), (later, first)):
            assert replace(clinic, closures=closures).closure(MOVING.date()) == later
    assert clinic.closure(MOVED.date()) is None


def test_what_is_alike_is_of_a_type_with_it_and_of_an_open_organisation() -> None:
    pharmacy = DIRECTORY.services["FPH01-REFERRALS"]
    assert [one.code for one in DIRECTORY.alike(pharmacy)] == ["FPH01-PHARMACY-FIRST"]
    assert [one.code for one in DIRECTORY.alike(DIRECTORY.services["RXX01-SPA"])] == ["RYY01-SPA"]
    shut = changed_organisation("FPH01", status=Status.CLOSED)
    assert shut.alike(pharmacy) == ()


def changed_organisation(ods: str, **fields: Any) -> Directory:
    organisations = tuple(
        replace(one, **fields) if one.ods == ods else one for one in DIRECTORY.entries.organisations
    )
    return Directory(replace(DIRECTORY.entries, organisations=organisations))


@pytest.mark.parametrize(
    ("line", "field", "code", "detail"),
    [
        (
            "closures: [{first_day: 24/12/2026, reason: moves}]",
            "closures[0].first_day",
            "invalid",
            "not a day such as 2026-11-30.",
        ),
        (
            "closures: [{first_day: 2026-12-24, last_day: 2026-12-23, reason: moves}]",
            "closures[0].last_day",
            "inconsistent",
            "RXX01-SPA: it ends before it begins.",
        ),
        (
            "closures: [{first_day: 2026-12-24}]",
            "closures[0].reason",
            "missing",
            "reason is missing.",
        ),
        (
            "paused: false",
            "paused",
            "invalid",
            "not a reason in one line of text; leave it out where the service is not paused.",
        ),
        (
            "paused: 'Yes'",
            "paused",
            "invalid",
            "not a reason in one line of text; leave it out where the service is not paused.",
        ),
    ],
)
def test_a_closure_or_pause_that_says_nothing_is_refused_where_it_stands(
    line: str, field: str, code: str, detail: str
) -> None:
    with pytest.raises(Refused) as caught:
        parse(
            EXAMPLE.replace("telephone: 0113 496 0401\n", f"telephone: 0113 496 0401\n    {line}\n")
        )
    (problem,) = caught.value.problems
    assert (problem.field, problem.code, problem.detail) == (f"services[0].{field}", code, detail)


def test_a_directory_survives_the_database_and_back() -> None:
    stored = json.loads(json.dumps(list(rows(DIRECTORY))))
    assert {kind for kind, _, _ in stored} == {
        *("icb", "organisation", "service", "endpoint", "contact", "agreement")
    }
    assert len({(kind, key) for kind, key, _ in stored}) == len(stored)
    assert from_rows(stored) == DIRECTORY


def test_an_empty_directory_knows_nobody() -> None:
    empty = Directory()
    assert from_rows(()) == empty
    assert list(rows(empty)) == []
    assert not empty.is_open("G99001")


def test_an_unknown_field_is_refused_by_its_name_and_path() -> None:
    assert refused(MINIMAL.replace("name: One", "name: One, colour: red")) == [
        ("organisations[0].colour", "unknown-field")
    ]
    assert refused(with_more("surgeries: []")) == [("surgeries", "unknown-field")]


def test_a_pillar_that_nobody_is_of_is_refused_with_those_there_are() -> None:
    with pytest.raises(Refused) as caught:
        parse(MINIMAL.replace("pillar: general-practice", "pillar: general-practise"))
    (problem,) = caught.value.problems
    assert problem.field == "organisations[0].pillar"
    assert "general-practice, pharmacy, optometry" in problem.detail


def test_every_wrong_shape_is_told_at_once() -> None:
    text = with_more(
        "services:",
        "  - {code: s, organisation: AA1, name: S, icb: QXX, postcode_areas: [Leeds],",
        "     telephone: ring us, opening_hours: [], offers: [",
        "       {receiver_type: spa, subspecialties: [all], rank: 0},",
        "       {receiver_type: SPA, rank: two, subspecialties: all}]}",
        "endpoints:",
        "  - {organisation: aa1, channel: fax, takes: [letters]}",
        "agreements:",
        "  - {parties: [AA1], pathways: [all], purpose: x, valid_from: 2026-02-30, document: D}",
    )
    assert refused(text) == [
        ("services[0].code", "invalid"),
        ("services[0].postcode_areas[0]", "invalid"),
        ("services[0].offers[0].rank", "invalid"),
        ("services[0].offers[1].receiver_type", "invalid"),
        ("services[0].offers[1].subspecialties", "invalid"),
        ("services[0].offers[1].rank", "invalid"),
        ("services[0].telephone", "invalid"),
        ("endpoints[0].organisation", "invalid"),
        ("endpoints[0].channel", "invalid"),
        ("endpoints[0].takes[0]", "invalid"),
        ("agreements[0].code", "missing"),
        ("agreements[0].valid_from", "invalid"),
    ]


def test_what_is_written_otherwise_than_expected_is_told_with_an_example() -> None:
    with pytest.raises(Refused) as caught:
        parse(MINIMAL.replace("0113 496 0001", "0113-496"))
    (one,) = caught.value.problems
    assert one.field == "organisations[0].telephone"
    assert one.detail == "not a number such as 0113 496 0201."


def test_every_wrong_shape_is_told_in_words_of_the_file() -> None:
    text = with_more(
        "  - one",
        "services:",
        "  - {code: S, organisation: AA1, name: S, icb: QXX, postcode_areas: LS, offers: [",
        "       {receiver_type: spa, subspecialties: [all], rank: 0},",
        "       {receiver_type: spa, subspecialties: [all], rank: first}],",
        "     telephone: 0113 496 0001, opening_hours: [",
        "       {days: [Monday], opens: 08:00, closes: 18:30, bank_holidays: perhaps}]}",
        "agreements:",
        "  - {code: D, parties: [AA1], pathways: [all], purpose: x, valid_from: 31/12/2026,",
        "     valid_to: 2026-02-30, document: D}",
        "contacts:",
    )
    with pytest.raises(Refused) as caught:
        parse(text)
    said = {one.field: one.detail for one in caught.value.problems}
    assert not [detail for detail in said.values() if "Input" in detail or "valid" in detail]
    assert "such as 2026-11-30" in said["agreements[0].valid_from"]
    assert "such as 2026-11-30" in said["agreements[0].valid_to"]
    assert "'monday', 'tuesday'" in said["services[0].opening_hours[0].days[0]"]
    assert said["services[0].offers[0].rank"] == "not a whole number from 1 on."
    assert said["services[0].offers[1].rank"] == "not a whole number from 1 on."
    assert said["services[0].opening_hours[0].bank_holidays"] == "neither true nor false."
    for place in ("services[0].postcode_areas", "contacts"):
        assert said[place].startswith("not a list")
    assert said["organisations[1]"].startswith("not an entry")


def test_every_broken_reference_is_told_at_once() -> None:
    text = with_more(
        "  - {ods: AA2, name: Two, pillar: pharmacy, icb: QZZ}",
        "  - {ods: AA3, name: Three, pillar: pharmacy, icb: QXX, status: closed, successor: AA9}",
        "  - {ods: AA4, name: Four, pillar: pharmacy, icb: QXX, status: closed, successor: AA5}",
        "  - {ods: AA5, name: Five, pillar: pharmacy, icb: QXX, status: closed, successor: AA4}",
        "  - {ods: AA6, name: Six, pillar: pharmacy, icb: QXX, successor: AA1,",
        "     telephone: 0113 496 0006}",
        "services:",
        "  - {code: S1, organisation: ZZ1, name: S, icb: QZZ, postcode_areas: [],",
        "     telephone: 0113 496 0007,",
        "     opening_hours: [{days: [monday], opens: 18:00, closes: 08:00}], offers: [",
        "       {receiver_type: spa, subspecialties: [all], rank: 1},",
        "       {receiver_type: spa, subspecialties: [all], rank: 2},",
        "       {receiver_type: general-practice, subspecialties: [], rank: 1}]}",
        "endpoints:",
        "  - {organisation: ZZ1, channel: inbox, takes: []}",
        "  - {organisation: AA1, service: S1, channel: inbox, url: http://x/, takes: [notice]}",
        "  - {organisation: AA1, channel: webhook, takes: [notice], pathways: []}",
        "contacts:",
        "  - {organisation: ZZ1, about: clinical, name: Nobody}",
        "agreements:",
        "  - {code: D, parties: [ZZ1, ZZ1], pathways: [], purpose: p, valid_from: 2026-01-02,",
        "     valid_to: 2026-01-01, document: D}",
    )
    assert refused(text) == [
        (field, "inconsistent")
        for field in (
            "organisations[1].icb",
            "organisations[1].telephone",
            "organisations[2].successor",
            "organisations[3].successor",
            "organisations[4].successor",
            "organisations[5].successor",
            "services[0].organisation",
            "services[0].icb",
            "services[0].offers",
            "services[0].offers",
            "services[0].offers",
            "services[0].opening_hours",
            "endpoints[0].organisation",
            "endpoints[0].takes",
            "endpoints[1].service",
            "endpoints[1].url",
            "endpoints[2].pathways",
            "endpoints[2].url",
            "contacts[0].organisation",
            "contacts[0].telephone",
            "agreements[0].parties",
            "agreements[0].parties",
            "agreements[0].parties",
            "agreements[0].pathways",
            "agreements[0].valid_to",
        )
    ]


def test_an_entry_that_stands_twice_is_refused() -> None:
    twice = with_more(
        "  - {ods: AA1, name: Other, pillar: pharmacy, icb: QXX, telephone: 0113 496 0009}",
        "endpoints:",
        "  - {organisation: AA1, channel: inbox, takes: [notice]}",
        "  - {organisation: AA1, channel: inbox, takes: [update]}",
    )
    assert refused(twice) == [("organisations[1]", "duplicate"), ("endpoints[1]", "duplicate")]


def test_a_key_that_stands_twice_is_refused_together_with_everything_else() -> None:
    text = MINIMAL.replace("name: One", "name: One, name: Two, colour: red")
    assert refused(text) == [
        ("line 5", "duplicate-key"),
        ("organisations[0].colour", "unknown-field"),
    ]
    assert refused(MINIMAL + "icbs: []\n")[0] == ("line 2", "duplicate-key")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a list",
        "icbs: [",
        "icbs: &here [*here]",
        "icbs: !!python/object/apply:os.getcwd []",
        "icbs: []\n---\nicbs: []",
        "? [a]\n: b",
        "a: \x00",
        "[" * 3000,
    ],
)
def test_what_is_not_a_plain_file_is_refused_with_a_reason(text: str) -> None:
    assert len(refused(text)) == 1


def test_a_text_stays_the_text_it_is() -> None:
    text = MINIMAL.replace("name: One", "name: No").replace("AA1", "12345")
    organisation = parse(text).organisations["12345"]
    assert organisation.name == "No"
    assert organisation.telephone == "0113 496 0001"


@pytest.mark.parametrize("code", ["aa1", " AA1", "AA-1", "ABCDEFGHIJ", ""])
def test_an_ods_code_that_is_not_canonical_is_refused(code: str) -> None:
    assert refused(MINIMAL.replace("AA1", f'"{code}"')) == [("organisations[0].ods", "invalid")]


@pytest.mark.parametrize(
    ("url", "is_right"),
    [
        ("https://broker.example/inbound", True),
        ("http://127.0.0.1:9902/inbound", True),
        ("ftp://broker.example/", False),
        ("https:///inbound", False),
        ("https://user:word@broker.example/", False),
        ("https://broker.example/?to=x", False),
        ("https://broker.example/#x", False),
        ("https://broker.example:99999/", False),
        ("", False),
    ],
)
def test_a_webhook_has_a_plain_url(url: str, is_right: bool) -> None:
    text = with_more(
        "endpoints:",
        f'  - {{organisation: AA1, channel: webhook, url: "{url}", takes: [notice]}}',
    )
    if is_right:
        assert parse(text).connections[Destination("AA1")].endpoint.url == url
    else:
        assert refused(text) == [("endpoints[0].url", "inconsistent")]


def test_the_difference_between_two_directories_reads_line_by_line() -> None:
    changed = (
        EXAMPLE.replace("name: Hilltop Surgery", "name: Hillfoot Surgery")
        .replace("    status: closed\n    successor: G99001\n", "    telephone: 0113 496 0204\n")
        .replace("rank: 1", "rank: 2", 1)
        .replace("takes: [update]}", "takes: [update, notice]}")
        .replace("name: Duty doctor", "name: Duty team")
        .replace("last_day: 2027-01-03", "last_day: 2027-01-10")
        .replace("    paused: its waiting lists are being reviewed\n", "")
    )
    assert [str(change) for change in difference(DIRECTORY, parse(changed))] == [
        "changed organisation G99002: name Hilltop Surgery → Hillfoot Surgery",
        "changed organisation G99004: status closed → open; successor G99001 → none; "
        "telephone none → 0113 496 0204",
        "changed service RXX01-SPA: offers [spa [all] 1] → [spa [all] 2]",
        "changed service RXZ01-MACULAR: closures "
        "[2026-12-24 2027-01-03 the clinic moves to another building] → "
        "[2026-12-24 2027-01-10 the clinic moves to another building]",
        "changed service RYY01-OUTPATIENTS: paused its waiting lists are being reviewed → none",
        "changed endpoint G99003: takes [update] → [update, notice]",
        "removed contact G99001 clinical Duty doctor",
        "added contact G99001 clinical Duty team",
    ]
    assert difference(DIRECTORY, parse(EXAMPLE)) == []


def test_a_place_is_named_in_a_message_as_the_directory_knows_it() -> None:
    assert DIRECTORY.party(SPA) == Party(
        "RXX01", "Northfield Hospital", "0113 496 0401", "RXX01-SPA"
    )
    assert DIRECTORY.party(Destination("FPH01")) == Party(
        "FPH01", "Riverside Pharmacy", "0113 496 0101"
    )
    assert DIRECTORY.party(Destination("G00000")) == Party("G00000", "")


def test_a_place_without_an_endpoint_has_no_channel() -> None:
    assert DIRECTORY.channel(Destination("G99001")) == "inbox"
    assert DIRECTORY.channel(Destination("G99002")) == "webhook"
    assert DIRECTORY.channel(Destination("G99005")) == ""


# -- BaRS ----------------------------------------------------------------------------------------

PHARMACY_FIRST = Destination("FPH01", "FPH01-PHARMACY-FIRST")
DOS = "https://fhir.nhs.uk/Id/dos-service-id"
BARS = (
    "services:",
    "  - {code: S-1, organisation: AA1, name: One, icb: QXX, postcode_areas: [LS], offers: [],",
    "     opening_hours: [], telephone: 0113 496 0001, dos: '2000099901'}",
    "  - {code: S-2, organisation: AA1, name: Two, icb: QXX, postcode_areas: [LS], offers: [],",
    "     opening_hours: [], telephone: 0113 496 0001}",
    "endpoints:",
)
ENDPOINT = "  - {organisation: AA1, service: S-1, channel: bars, url: 'https://a.example/FHIR/R4',"


def test_bars_names_a_service_by_its_dos_id_else_by_its_code_and_an_organisation_by_its_own() -> (
    None
):
    own = "https://referral-broker.example/fhir/Id/service"
    ods = "https://fhir.nhs.uk/Id/ods-organization-code"
    for destination, target in (
        (PHARMACY_FIRST, (DOS, "2000099901")),
        (SPA, (own, "RXX01-SPA")),
        (Destination("G99001"), (ods, "G99001")),
    ):
        assert DIRECTORY.target(destination) == target
        assert DIRECTORY.by_target(*target) == destination


@pytest.mark.parametrize(
    ("system", "value", "found"),
    [
        ("http://fhir.nhs.uk/Id/dos-service-id", "2000099901", PHARMACY_FIRST),
        ("https://fhir.nhs.uk/id/dos-service-id", "2000099901", PHARMACY_FIRST),
        ("https://fhir.nhs.uk/id/ods-organization-code", "G99001", Destination("G99001")),
        (DOS, "2000099902", None),
        (DOS, "", None),
        (DOS, "RXX01-SPA", None),
        ("https://fhir.nhs.uk/Id/ods-organization-code", "Z99999", None),
        ("https://fhir.nhs.uk/Id/nhs-number", "2000099901", None),
        ("", "2000099901", None),
    ],
)
def test_a_target_is_found_by_its_system_in_any_spelling(
    system: str, value: str, found: Destination | None
) -> None:
    assert DIRECTORY.by_target(system, value) == found


def test_a_bars_endpoint_knows_where_its_token_is_got_and_by_whom() -> None:
    token = "token_url: 'https://a.example/token', client: broker, takes: [referral, notice]}"
    directory = parse(with_more(*BARS, ENDPOINT, f"     {token}"))
    endpoint = directory.connections[Destination("AA1", "S-1")].endpoint
    assert (endpoint.channel, endpoint.url) == ("bars", "https://a.example/FHIR/R4")
    assert (endpoint.token_url, endpoint.client) == ("https://a.example/token", "broker")
    assert from_rows(rows(directory)) == directory


@pytest.mark.parametrize(
    ("rest", "field"),
    [
        ("takes: [update]}", "takes"),
        ("takes: [referral], token_url: 'https://a.example/token'}", "token_url"),
        ("takes: [referral], client: broker}", "token_url"),
        ("takes: [referral], token_url: 'ftp://a.example/', client: broker}", "token_url"),
    ],
)
def test_a_bars_endpoint_takes_no_update_and_has_a_token_url_with_its_client(
    rest: str, field: str
) -> None:
    assert refused(with_more(*BARS, ENDPOINT, f"     {rest}")) == [
        (f"endpoints[0].{field}", "inconsistent")
    ]


@pytest.mark.parametrize("channel", ["inbox", "webhook"])
def test_only_a_bars_endpoint_wants_a_token(channel: str) -> None:
    url = ", url: 'https://a.example/'" if channel == "webhook" else ""
    entry = f"  - {{organisation: AA1, channel: {channel}{url}, takes: [notice], client: broker}}"
    assert ("endpoints[0].token_url", "inconsistent") in refused(with_more("endpoints:", entry))


def test_a_bars_endpoint_needs_a_url() -> None:
    entry = "  - {organisation: AA1, channel: bars, takes: [referral]}"
    assert ("endpoints[0].url", "inconsistent") in refused(with_more("endpoints:", entry))


def test_no_two_services_have_one_dos_id_and_it_is_digits() -> None:
    services = "\n".join(BARS[:-1])
    twice = services.replace("0001}", "0001, dos: '2000099901'}")
    assert refused(with_more(twice)) == [
        ("services[0].dos", "duplicate"),
        ("services[1].dos", "duplicate"),
    ]
    assert refused(with_more(services.replace("'2000099901'", "'20-1'"))) == [
        ("services[0].dos", "invalid")
    ]
