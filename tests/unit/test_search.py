"""What a FHIR search asks for: every parameter understood, or refused with all that is wrong."""

from datetime import UTC, datetime

import pytest

from broker.errors import BadRequest
from broker.search import Called, Holds, Is, Reader, Search, Test, When
from fhir_profiles import codes

READER = Reader(lambda number: (f"<{number}>",), lambda system, value: f"<{system}#{value}>")
SR = "ServiceRequest"
PATIENT = f"{codes.NHS_NUMBER}|9990000018"


def read(*given: tuple[str, str], of: str = "ServiceRequest") -> Search:
    search, unknown = READER.read(of, given)
    assert unknown == []
    return search


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("of", "name", "value", "test"),
    [
        (
            SR,
            "status",
            "active,http://x|revoked",
            Is("status", ("active", "revoked")),
        ),
        (SR, "priority", "urgent", Is("priority", ("urgent",))),
        (SR, "code", "s|1,2", Holds("code", ("s|1", "2"))),
        (SR, "category", "a5t1", Holds("category", ("a5t1",))),
        (SR, "requester", "fph01", Is("requester", ("FPH01",))),
        (
            SR,
            "requester:identifier",
            f"{codes.ODS}|FPH01",
            Is("requester", ("FPH01",)),
        ),
        (SR, "performer:identifier", "RXX01", Is("performer", ("RXX01",))),
        (SR, "identifier", "sys|v", Called(("<sys#v>",))),
        (SR, "identifier", r"sys|A\,1,sys|b\|c\\", Called(("<sys#A,1>", "<sys#b|c\\>"))),
        (SR, "status", r"a,\,,,b\x", Is("status", ("a", ",", r"b\x"))),
        (
            SR,
            "patient:identifier",
            PATIENT,
            Is("patient_pseudonym", ("<9990000018>",)),
        ),
        (
            SR,
            "subject:identifier",
            "http://FHIR.nhs.uk/id/nhs-number|999 000 0018",
            Is("patient_pseudonym", ("<9990000018>",)),
        ),
        ("Communication", "sender", "FPH01", Is("requester", ("FPH01",))),
        ("Communication", "recipient:identifier", "G99001", Is("performer", ("G99001",))),
        ("Task", "owner", "G99001", Is("performer", ("G99001",))),
        ("Task", "business-status", "accepted", Holds("category", ("accepted",))),
    ],
)
def test_a_parameter_is_read_as_fhir_and_bars_write_it(
    of: str, name: str, value: str, test: Test
) -> None:
    assert read((name, value), of=of).tests == (test,)


@pytest.mark.parametrize(
    ("text", "prefix", "start", "end"),
    [
        ("2026", "eq", "2026-01-01", "2027-01-01"),
        ("ge2026-12", "ge", "2026-12-01", "2027-01-01"),
        ("lt2026-11-20", "lt", "2026-11-20", "2026-11-21"),
        ("sa2026-06-01", "sa", "2026-05-31T23:00", "2026-06-01T23:00"),  # London's summer
        ("ne2026-11-20T09:30Z", "ne", "2026-11-20T09:30", "2026-11-20T09:31"),
        ("2026-11-20T09:30:15+01:00", "eq", "2026-11-20T08:30:15", "2026-11-20T08:30:16"),
        ("2026-11-20T09:30:15 01:00", "eq", "2026-11-20T08:30:15", "2026-11-20T08:30:16"),
        ("gt2026-11-20T09:30:15.1Z", "gt", "2026-11-20T09:30:15.1", "2026-11-20T09:30:15.2"),
        ("gt2026-11-20T09:30:15.123Z", "gt", "2026-11-20T09:30:15.123", "2026-11-20T09:30:15.124"),
        (
            "eb2026-11-20T09:30:15.1234567Z",
            "eb",
            "2026-11-20T09:30:15.123456",
            "2026-11-20T09:30:15.123457",
        ),
        ("le9999-12-31", "le", "9999-12-31", "9999-12-31T23:59:59.999999"),
        ("lt9999", "lt", "9999-01-01", "9999-12-31T23:59:59.999999"),
    ],
)
def test_a_date_is_as_exact_as_it_is_given(text: str, prefix: str, start: str, end: str) -> None:
    (found,) = read(("authored", text)).tests
    assert found == When("authored_at", ((prefix, utc(start), utc(end)),))  # type: ignore[arg-type]


def test_the_order_size_and_company_of_what_is_found_are_asked_for() -> None:
    assert read().order == "updated_at" and read().descending
    search = read(
        ("_sort", "authored"),
        ("_count", "7"),
        ("_include", "ServiceRequest:patient"),
        ("_include", "ServiceRequest:requester"),
        ("_summary", "true"),
    )
    assert (search.order, search.descending, search.count) == ("authored_at", False, 7)
    assert (search.includes, search.summary) == (("patient", "requester"), "true")
    assert read(("_count", "99999")).count == 200
    assert read(("_count", "0")).is_count and read(("_summary", "count")).is_count


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("_id", "1", "value"),
        ("patient:identifier", "9990000018", "value"),
        ("patient:identifier", f"{codes.NHS_NUMBER}|9990000019", "value"),
        ("patient:identifier", "https://fhir.nhs.uk/Id/nhs-numbr|9990000018", "value"),
        ("patient:identifier", "https://other.example|9990000018", "value"),
        ("patient", "Patient/1", "not-supported"),
        ("subject", "1", "not-supported"),
        ("patient.identifier", PATIENT, "not-supported"),
        ("identifier", "C-1", "value"),
        ("status:not", "active", "not-supported"),
        ("status", "", "value"),
        ("requester", "Organization/1", "value"),
        ("requester:identifier", "https://other.example|FPH01", "value"),
        ("authored", "yesterday", "value"),
        ("authored", "2026-13-01", "value"),
        ("authored", "0000", "value"),
        ("authored", "0001-01-01T00:00:00+14:00", "value"),
        ("authored", "9999-12-31T23:00:00-14:00", "value"),
        ("_id", "{00000000-0000-7000-8000-000000000000}", "value"),
        ("_id", "00000000000070008000000000000000", "value"),
        ("status", "\x00", "value"),
        ("code", "a\nb", "value"),
        ("identifier", "sys|a\x00", "value"),
        ("_lastUpdated", "ap2026", "value"),
        ("_sort", "status", "not-supported"),
        ("_count", "-1", "value"),
        ("_count", "\u00b2", "value"),
        ("_include", "*", "not-supported"),
        ("_include", "Task:owner", "not-supported"),
        ("_summary", "text", "not-supported"),
    ],
)
def test_what_cannot_be_read_is_refused_and_never_said_back(
    name: str, value: str, code: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        READER.read("ServiceRequest", [(name, value)])
    (found,) = caught.value.problems
    assert (found.field, found.code) == (f"http.{name}", code)
    assert not value or len(value) < 4 or value not in f"{found.detail} {found.todo}"


def test_everything_that_is_wrong_is_told_at_once_and_strange_names_are_not_said_back() -> None:
    with pytest.raises(BadRequest) as caught:
        READER.read(
            "Task", [("_count", "x"), ("_count", "y"), ("_id", "1"), ("status:Robin E", "1")]
        )
    fields = {one.field for one in caught.value.problems}
    assert fields == {"http._count", "http._id", "http.parameter"}


def test_names_that_are_not_known_are_left_to_the_caller() -> None:
    search, unknown = READER.read("Task", [("colour", "1"), ("status", "accepted"), ("code", "x")])
    assert unknown == ["colour", "code"]
    assert search.used == (("status", "accepted"),)


@pytest.mark.parametrize(
    "given",
    [
        [("status", "a," * 500)],
        [("authored", "2026")] * 501,
        [(f"colour{number}", "") for number in range(501)],
        [("code", "\u00e9" * 10_000)],
    ],
)
def test_a_search_is_no_longer_than_a_database_and_an_address_take(
    given: list[tuple[str, str]],
) -> None:
    with pytest.raises(BadRequest) as caught:
        READER.read("ServiceRequest", given)
    (found,) = caught.value.problems
    assert (found.field, found.code) == ("http.query", "too-costly")
    assert len(read(("status", "a," * 499)).tests) == 1


def test_a_patient_is_sought_under_every_key_that_was_ever_current() -> None:
    reader = Reader(lambda number: ("old", "new"), lambda system, value: "")
    search, _ = reader.read("Task", [("patient:identifier", PATIENT)])
    assert search.tests == (Is("patient_pseudonym", ("old", "new")),)
