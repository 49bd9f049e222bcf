"""Blocks: one pass reports every problem on its own path, in sentences that say what to do."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, Field, ValidationError

from fhir_profiles import codes, strict_json
from fhir_profiles.blocks import (
    AnyPatient,
    Block,
    Coded,
    Fault,
    Finding,
    Observation,
    Organisation,
    Pharmacist,
    TracedPatient,
    rule,
    to_problems,
)
from fhir_profiles.values import Flagged, Line, Number, Text, When

NOW = datetime(2026, 10, 1, 12, tzinfo=UTC)
NAME = {"family": "Okafor", "given": "Adaeze"}
TRACED: dict[str, Any] = {
    "name": NAME,
    "birth_date": "1984-02-29",
    "nhs_number": "999 000 0018",
    "nhs_number_status": "01",
}
SOMEBODY: dict[str, Any] = {
    "name": NAME,
    "birth_date": "1984-02-29",
    "sex": "female",
    "address": {"lines": ["12 Canal Row"], "postcode": "LS1 4AP"},
    "telephone": "07700 900123",
}


def read(model: type[BaseModel], value: Any) -> Any:
    return model.model_validate(value, context={"now": NOW})


def wrong(model: type[BaseModel], value: Any) -> list[Fault]:
    with pytest.raises(ValidationError) as caught:
        read(model, value)
    return to_problems(caught.value, model)


def places(model: type[BaseModel], value: Any) -> list[tuple[str, str]]:
    return [(fault.field, fault.code) for fault in wrong(model, value)]


class Times(Block):
    at: When


class Numbers(Block):
    value: Number = Field(gt=0)
    """How much."""


class Words(Block):
    line: Line | None = None
    text: Text | None = None
    sure: Flagged | None = None


# -- all at once ---------------------------------------------------------------------------------


class Pair(Block):
    left: Number
    right: Number
    note: Line | None = None

    @rule
    def _in_order(self, _: datetime) -> Iterator[Finding]:
        if self.left > self.right:
            yield Finding(("left",), "out-of-order", "`left` is over `right`.", "Swap them.")

    @rule
    def _said(self, _: datetime) -> Iterator[Finding]:
        if self.note is None:
            yield Finding(("note",), "unsaid", "There is no note {really}.", "Write one.")


class Deeper(Pair):
    depth: Number = Decimal(0)

    @rule
    def _shallow(self, _: datetime) -> Iterator[Finding]:
        if self.depth > 5:
            yield Finding(("depth",), "too-deep", "Too deep.", "Rise.")


class Holder(Block):
    pairs: tuple[Pair, ...]
    deep: Deeper
    name: Line


def test_findings_of_rules_come_together_with_those_of_fields_wherever_they_stand() -> None:
    found = places(
        Holder,
        {
            "pairs": [{"left": 2, "right": 1}, {"left": "x", "right": 1}],
            "deep": {"left": 3, "right": 2, "depth": 6, "note": "n"},
            "extra": 1,
        },
    )
    assert found == [
        ("pairs[0].left", "out-of-order"),
        ("pairs[0].note", "unsaid"),
        ("pairs[1].left", "not-a-number"),
        ("pairs[1].note", "unsaid"),
        ("deep.left", "out-of-order"),
        ("deep.depth", "too-deep"),
        ("name", "missing"),
        ("extra", "unknown-field"),
    ]


def test_a_rule_that_reads_a_wrong_field_says_nothing_and_the_others_go_on() -> None:
    assert places(Pair, {"left": "x", "right": 1}) == [
        ("left", "not-a-number"),
        ("note", "unsaid"),
    ]


def test_a_rule_is_inherited_and_braces_in_its_sentences_stay() -> None:
    found = wrong(Deeper, {"left": 1, "right": 1, "depth": 6})
    assert [fault.code for fault in found] == ["unsaid", "too-deep"]
    assert found[0].detail == "There is no note {really}."


def test_a_block_that_is_right_is_frozen() -> None:
    pair = read(Pair, {"left": 1, "right": 1, "note": "n"})
    with pytest.raises(ValidationError, match="frozen"):
        pair.left = Decimal(3)


def test_an_unknown_field_is_refused_by_name_with_the_nearest_one() -> None:
    [fault] = wrong(TracedPatient, TRACED | {"birthdate": "1984-02-29"})
    assert (fault.field, fault.code) == ("birthdate", "unknown-field")
    assert fault.todo == "Did you mean `birth_date`?"


def test_what_is_missing_is_asked_for_in_the_words_of_its_field() -> None:
    [fault] = wrong(Numbers, {})
    assert fault == Fault("value", "missing", "`value` is missing.", "Send it: How much.")
    assert wrong(Numbers, {"value": None})[0].code == "missing"


def test_a_body_that_is_no_object_is_said_to_be_none() -> None:
    [fault] = wrong(Pair, ["x"])
    assert (fault.field, fault.code) == ("", "wrong-type")
    [fault] = wrong(TracedPatient, TRACED | {"name": "Okafor"})
    assert fault.todo == "Send { … } with the fields of this block."


def test_what_may_be_left_out_is_not_called_missing_where_it_is_null() -> None:
    empty = {"flags": None, "sensitive": None, "needs": [None]}
    for fault in wrong(TracedPatient, TRACED | empty):
        assert (fault.code, fault.todo) == ("null", "Send one, or leave it out.")


def test_an_element_of_a_list_is_told_by_the_name_of_the_list() -> None:
    [fault] = wrong(TracedPatient, TRACED | {"needs": ["x" * 20_001]})
    assert (fault.field, fault.detail) == ("needs[0]", "`needs`: this text is too long.")


def test_everything_that_is_refused_says_what_to_do() -> None:
    body = TRACED | {"language": "Polish, some English", "telephone": "0113\n496"}
    for fault in wrong(TracedPatient, body):
        assert fault.todo.startswith("Send ")


def test_without_the_time_nothing_is_judged() -> None:
    with pytest.raises(RuntimeError, match="now"):
        Times.model_validate({"at": "2026-10-01"})


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ({"line": ""}, "empty"),
        ({"line": "   "}, "empty"),
        ({"line": "a\nb"}, "line-break"),
        ({"line": "x" * 256}, "too-long"),
        ({"line": "bell \x07"}, "control-character"),
        ({"text": 5}, "wrong-type"),
        ({"sure": 1}, "wrong-type"),
        ({"sure": "true"}, "wrong-type"),
    ],
)
def test_texts_and_answers_are_what_they_claim_to_be(value: Any, code: str) -> None:
    [fault] = wrong(Words, value)
    assert fault.code == code
    assert fault.detail.endswith(".")


class Named(Block):
    name: Line
    nickname: Line | None = None


def test_what_is_empty_may_be_left_out_only_where_it_may_be_missing() -> None:
    required, optional = wrong(Named, {"name": " ", "nickname": ""})
    assert required.todo == "Send it; it is required."
    assert optional.todo == "Send it, or leave the field out."


# -- times and numbers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-10-01", date(2026, 10, 1)),
        ("2026-10-01T11:59:59Z", datetime(2026, 10, 1, 11, 59, 59, tzinfo=UTC)),
        ("2026-10-01T12:05:00+00:00", datetime(2026, 10, 1, 12, 5, tzinfo=UTC)),
        ("2026-10-01T12:15+01:00", datetime(2026, 10, 1, 11, 15, tzinfo=UTC)),
        ("2026-10-01T11:59:59.5Z", datetime(2026, 10, 1, 11, 59, 59, 500000, tzinfo=UTC)),
        # As .NET writes it, and as finer clocks do: what is finer than a microsecond is cut off.
        (
            "2026-10-01T12:59:59.1234567+01:00",
            datetime(2026, 10, 1, 11, 59, 59, 123456, tzinfo=UTC),
        ),
        ("2026-10-01T11:59:59.123456789Z", datetime(2026, 10, 1, 11, 59, 59, 123456, tzinfo=UTC)),
    ],
)
def test_a_date_or_a_time_with_its_offset_is_read(text: str, value: date) -> None:
    assert read(Times, {"at": text}).at == value


def test_a_time_keeps_the_offset_that_it_came_with() -> None:
    assert read(Times, {"at": "2026-10-01T12:15:00+01:00"}).at.isoformat().endswith("+01:00")


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("2026-10-01T12:05:01Z", "in-the-future"),
        ("2026-10-02", "in-the-future"),
        ("2026-10-01T12:00:00", "no-offset"),
        ("2026-02-30", "not-a-time"),
        ("2026-10-01T25:00:00Z", "not-a-time"),
        ("01/10/2026", "not-a-time"),
        ("20261001", "not-a-time"),
        ("2026-10-01T11:59:59.1234567890Z", "not-a-time"),
        (1790000000, "not-a-time"),
    ],
)
def test_any_other_time_is_refused(value: Any, code: str) -> None:
    [fault] = wrong(Times, {"at": value})
    assert (fault.field, fault.code) == ("at", code)
    assert fault.todo


@pytest.mark.parametrize(
    ("born", "code"), [("2027-01-01", "in-the-future"), ("1884-02-29", "too-long-ago")]
)
def test_a_date_of_birth_that_cannot_be_is_not_blamed_on_a_clock(born: str, code: str) -> None:
    [fault] = wrong(TracedPatient, TRACED | {"birth_date": born})
    assert (fault.code, fault.todo) == (code, "Check the date of birth.")


@pytest.mark.parametrize("born", ["1984-02-29T10:00:00Z", "1984-02-30", 1984])
def test_a_date_of_birth_is_a_date(born: Any) -> None:
    assert places(TracedPatient, TRACED | {"birth_date": born}) == [("birth_date", "not-a-date")]


def test_the_date_in_london_may_be_a_day_ahead_of_utc() -> None:
    late = datetime(2026, 7, 1, 23, 30, tzinfo=UTC)
    assert Times.model_validate({"at": "2026-07-02"}, context={"now": late}).at


def test_a_number_keeps_its_digits() -> None:
    body = strict_json.loads(b'{"value": 1.50}')
    assert str(read(Numbers, body).value) == "1.50"


@pytest.mark.parametrize("value", ["1.5", True])
def test_what_looks_like_a_number_is_none(value: Any) -> None:
    assert places(Numbers, {"value": value}) == [("value", "not-a-number")]


def test_a_float_has_lost_its_digits_before_it_came_here() -> None:
    with pytest.raises(TypeError, match="strict_json"):
        read(Numbers, {"value": 1.5})


def test_a_number_out_of_bounds_is_told_the_bound() -> None:
    [fault] = wrong(Numbers, {"value": 0})
    assert fault.todo == "It must be more than 0."


# -- the patient ---------------------------------------------------------------------------------


def test_a_traced_patient_needs_no_more_than_name_birth_date_and_number() -> None:
    patient = read(TracedPatient, TRACED)
    assert patient.nhs_number == "9990000018"
    assert patient.verified
    assert list(patient.warnings()) == []


@pytest.mark.parametrize("status", ["03", "04", "05", "06", "07", "08"])
def test_a_number_that_was_not_traced_is_refused(status: str) -> None:
    [fault] = wrong(TracedPatient, TRACED | {"nhs_number_status": status})
    assert (fault.field, fault.code) == ("nhs_number_status", "not-traced")
    assert fault.todo.startswith("Trace the patient first")


def test_of_the_statuses_that_a_traced_number_may_have_only_two_are_named() -> None:
    [fault] = wrong(TracedPatient, TRACED | {"nhs_number_status": "1"})
    assert (fault.field, fault.code) == ("nhs_number_status", "not-in-list")
    assert fault.todo == "Send '01' or '02'."


def test_status_02_is_taken_with_a_warning() -> None:
    patient = read(TracedPatient, TRACED | {"nhs_number_status": "02"})
    assert not patient.verified
    [fault] = patient.warnings()
    assert (fault.field, fault.code) == ("patient.nhs_number_status", "nhs-number-not-traced")
    assert fault.code in codes.system("warning")


@pytest.mark.parametrize("name", ["nhs_number", "nhs_number_status", "name", "birth_date"])
def test_a_traced_patient_without_one_of_the_four_is_refused_on_its_path(name: str) -> None:
    body = {key: value for key, value in TRACED.items() if key != name}
    [fault] = wrong(TracedPatient, body)
    assert (fault.field, fault.code) == (name, "missing")


def test_a_missing_or_invalid_number_says_trace_first() -> None:
    for body in (TRACED | {"nhs_number": "9990000017"}, TRACED | {"nhs_number": None}):
        [fault] = wrong(TracedPatient, body)
        assert fault.field == "nhs_number"
        assert "Trace the patient first" in fault.todo


def test_the_number_itself_is_never_said_back() -> None:
    assert "9990000017" not in str(wrong(TracedPatient, TRACED | {"nhs_number": "9990000017"}))


def test_a_patient_without_a_number_is_somebody_by_all_the_rest() -> None:
    patient = read(AnyPatient, SOMEBODY)
    assert not patient.verified
    assert patient.postcode == "LS1 4AP"
    assert [fault.code for fault in patient.warnings()] == ["identity-not-verified"]


def test_without_a_number_each_missing_part_is_reported_on_its_own_path() -> None:
    assert places(AnyPatient, {}) == [
        ("name", "missing"),
        ("birth_date", "missing"),
        ("sex", "needed-without-nhs-number"),
        ("address.lines", "needed-without-nhs-number"),
        ("address.postcode", "needed-without-nhs-number"),
        ("telephone", "needed-without-nhs-number"),
    ]


def test_without_a_number_a_postcode_must_be_one() -> None:
    body = SOMEBODY | {"address": {"lines": ["1 Rue de Paris"], "postcode": "75008"}}
    assert places(AnyPatient, body) == [("address.postcode", "needed-without-nhs-number")]


def test_with_a_number_the_rest_may_be_missing() -> None:
    body = {"name": NAME, "birth_date": "1984-02-29", "nhs_number": "9990000018"}
    assert read(AnyPatient, body).nhs_number == "9990000018"


def test_a_wrong_number_does_not_ask_for_everything_else_too() -> None:
    body = {"name": NAME, "birth_date": "1984-02-29", "nhs_number": "123"}
    assert places(AnyPatient, body) == [("nhs_number", "nhs-number-invalid")]


def test_a_postcode_that_is_not_british_is_kept_and_warned_about() -> None:
    patient = read(TracedPatient, TRACED | {"address": {"postcode": "75008"}})
    assert patient.address.postcode == "75008"
    assert [fault.code for fault in patient.warnings()] == ["postcode-not-recognised"]


def test_clinicians_and_organisations_are_canonical() -> None:
    assert read(Organisation, {"ods": " fph01"}).ods == "FPH01"
    assert places(Organisation, {"ods": "not a code"}) == [("ods", "ods-code-invalid")]
    assert places(Pharmacist, {"name": NAME, "gphc_number": "12"}) == [
        ("gphc_number", "gphc-number-invalid")
    ]


# -- observations --------------------------------------------------------------------------------


def test_a_number_without_its_unit_is_refused() -> None:
    assert places(Observation, {"kind": "temperature", "value": 37}) == [("unit", "unit-missing")]


def test_the_usual_spelling_of_a_unit_becomes_ucum() -> None:
    assert read(Observation, {"kind": "temperature", "value": 37, "unit": "°C"}).unit == "Cel"
    assert read(Observation, {"kind": "pulse-rate", "value": 70, "unit": "bpm"}).unit == (
        "{beats}/min"
    )


def test_a_kind_is_measured_in_its_own_units_only() -> None:
    [fault] = wrong(Observation, {"kind": "temperature", "value": 37, "unit": "kg"})
    assert (fault.field, fault.code) == ("unit", "unit-unfit")
    assert fault.todo == "Send it in Cel."


def test_another_kind_needs_a_name_and_may_have_any_unit() -> None:
    [fault] = wrong(Observation, {"kind": "other", "finding": "x"})
    assert (fault.field, fault.code, fault.todo) == ("name", "missing", "Say what was observed.")
    peak = {"kind": "other", "name": {"text": "Peak flow"}, "value": 400, "unit": "L/min"}
    assert read(Observation, peak).unit == "L/min"


def test_an_observation_has_one_result() -> None:
    both = {"kind": "bmi", "value": 20, "unit": "kg/m2", "finding": "normal"}
    assert places(Observation, both) == [("value", "no-one-result")]
    assert places(Observation, {"kind": "bmi"}) == [("value", "no-one-result")]


def test_a_rounded_snomed_code_is_refused_with_the_likely_cause() -> None:
    [fault] = wrong(Coded, {"text": "Diastolic pressure", "code": "1091811000000100"})
    assert (fault.field, fault.code) == ("code", "snomed-code-invalid")
    assert "rounds" in fault.todo


def test_the_schema_of_a_patient_is_a_page_that_can_be_read() -> None:
    schema = TracedPatient.model_json_schema()
    assert {"name", "birth_date", "nhs_number", "nhs_number_status"} <= set(schema["required"])
    assert all("description" in entry for entry in schema["properties"].values())
    assert json.dumps(schema)


def test_grace_is_five_minutes() -> None:
    just = (NOW + timedelta(minutes=5)).isoformat()
    assert read(Times, {"at": just})


def test_a_block_that_is_made_of_several_keeps_the_rules_of_each() -> None:
    class Left(Block):
        left: int = 0

        @rule
        def _of_left(self, _: datetime) -> Iterator[Finding]:
            yield Finding(("left",), "left", "Left.")

    class Right(Block):
        right: int = 0

        @rule
        def _of_right(self, _: datetime) -> Iterator[Finding]:
            yield Finding(("right",), "right", "Right.")

    class Both(Left, Right):
        both: int = 0

    with pytest.raises(ValidationError) as raised:
        Both.model_validate({}, context={"now": datetime.now(UTC)})
    assert {fault.code for fault in to_problems(raised.value, Both)} == {"left", "right"}
