"""The rules of the eye conditions: every row, every boundary from both sides, nothing lowered."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from fhir_profiles import codes, eye, identifiers
from fhir_profiles.eye import EyeRules, Judgement, Reading, Tonometer, judge
from fhir_profiles.pathways import documents
from fhir_profiles.pathways.parts import Level, at_least_as_urgent

ZOSTER_SNOMED = "4740000"
SNOMED_WITHOUT_ROW = "9826008"


def of(
    sender: Level,
    code: str | None = "raised-pressure",
    *readings: Reading,
    why_not_gp: str | None = None,
) -> Judgement:
    return judge(sender, code=code, readings=readings, why_not_gp=why_not_gp)


def measured(
    pressure: str, method: Tonometer | None = "non-contact", *, repeated: bool = False
) -> Reading:
    return Reading("right.pressures[0]", Decimal(pressure), method, repeated)


def remarks(judgement: Judgement) -> list[str]:
    return [remark.code for remark in judgement.remarks]


# -- the data ------------------------------------------------------------------------------------


def test_every_condition_is_a_reason_of_a_pathway_of_the_eye() -> None:
    assert list(eye.conditions()) == list(codes.system("eye-condition").displays)
    assert {eye.row(code).entry.group for code in eye.conditions()} == {"eye"}


def test_the_emergencies_of_the_college_are_same_day() -> None:
    emergencies = [code for code in eye.conditions() if eye.row(code).urgency == "stat"]
    assert len(emergencies) == 26
    assert {eye.row(code).receiver for code in emergencies} == {"eye-casualty", "general-practice"}


def test_zoster_with_skin_lesions_and_chlamydia_go_to_the_gp() -> None:
    to_gp = {code for code in eye.conditions() if eye.row(code).receiver == "general-practice"}
    assert to_gp == {
        "herpes-zoster",
        "herpes-zoster-acute-skin-lesions",
        "chlamydial-conjunctivitis",
    }


def test_only_suspected_wet_amd_goes_to_the_macular_service() -> None:
    to_macular = [code for code in eye.conditions() if eye.row(code).receiver == "macular"]
    assert to_macular == ["suspected-wet-amd"]


def test_a_row_with_emergency_department_words_is_marked_local() -> None:
    rows = [eye.row(code).reason for code in eye.conditions()]
    assert all(reason.local for reason in rows if reason.emergency)


def test_a_snomed_code_beside_a_condition_is_valid_and_leads_back_to_it() -> None:
    beside = {code: eye.snomed_of(code) for code in eye.conditions() if eye.snomed_of(code)}
    assert beside == {"herpes-zoster": ZOSTER_SNOMED}
    for code, snomed in beside.items():
        assert snomed is not None
        assert identifiers.snomed_concept(snomed) == snomed
        assert eye.of_snomed(snomed) == code
    assert eye.of_snomed(SNOMED_WITHOUT_ROW) is None


def broken() -> Iterator[Any]:
    line = {"code": "pressure-above-35", "when": {"above": 35}}
    yield pytest.param({**line, "code": "very-high"}, "very-high", id="without a condition")
    yield pytest.param({**line, "when": {}}, "bound", id="without a bound")


@pytest.mark.parametrize(("line", "named"), list(broken()))
def test_a_pressure_line_that_is_wrong_is_refused_and_named(
    line: dict[str, Any], named: str
) -> None:
    table = {**documents.read("eye.yaml"), "pressure-lines": [line]}
    with pytest.raises(ValidationError, match=named):
        EyeRules.model_validate(table)


# -- urgency -------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", eye.conditions())
@pytest.mark.parametrize("sender", ["stat", "urgent", "asap", "routine"])
def test_the_senders_urgency_is_never_lowered_and_the_tables_always_counts(
    code: str, sender: Level
) -> None:
    judgement = of(sender, code)
    table = eye.row(code).urgency
    assert judgement.asked == sender
    assert judgement.table == table
    assert judgement.urgency in {sender, table}
    assert at_least_as_urgent(judgement.urgency, sender)
    assert at_least_as_urgent(judgement.urgency, table)


def test_the_table_raises_the_senders_urgency_and_says_by_which_rule() -> None:
    judgement = of("routine", "retinal-detachment")
    assert judgement.urgency == "stat"
    assert judgement.raised
    assert "retinal-detachment" in judgement.rule
    assert "C205" in judgement.rule
    [remark] = judgement.remarks
    assert (remark.path, remark.code) == ("urgency", "urgency-raised")
    assert "routine" in remark.detail
    assert "same day" in remark.detail


def test_the_senders_higher_urgency_stands_and_the_answer_says_what_the_table_has() -> None:
    judgement = of("urgent", "cataract")
    assert (judgement.urgency, judgement.table) == ("urgent", "routine")
    assert not judgement.raised
    assert judgement.remarks == ()
    assert judgement.rule.startswith("the sender's own urgency, urgent")
    assert "cataract" in judgement.rule


def test_where_both_agree_the_rule_is_the_tables() -> None:
    judgement = of("routine", "cataract")
    assert not judgement.raised
    assert "cataract (C205 routine otherwise), routine" in judgement.rule


def test_a_snomed_code_without_a_row_is_warned_of_and_the_senders_urgency_stands() -> None:
    for sender in ("stat", "routine"):
        judgement = of(sender, None)
        assert judgement.urgency == sender
        assert judgement.table is None
        assert remarks(judgement) == ["condition-without-a-rule"]
        assert judgement.receiver == "spa"
        assert "has no row" in judgement.rule


def test_a_pressure_still_raises_a_condition_that_has_no_row() -> None:
    judgement = of("routine", None, measured("41"))
    assert (judgement.urgency, judgement.receiver) == ("stat", "eye-casualty")


def test_emergency_department_words_come_only_from_the_data() -> None:
    assert of("stat", "orbital-cellulitis").emergency
    assert not of("stat", "retinal-detachment").emergency
    assert not of("stat", "cataract").emergency


# -- receivers -----------------------------------------------------------------------------------


def test_a_gp_condition_goes_to_the_practice_that_is_known() -> None:
    judgement = of("stat", "herpes-zoster-acute-skin-lesions")
    assert judgement.receiver == "general-practice"
    assert judgement.remarks == ()


def test_a_gp_condition_without_a_practice_goes_to_the_urgent_eye_service_with_a_warning() -> None:
    judgement = of(
        "stat", "herpes-zoster-acute-skin-lesions", why_not_gp="the practice is not known"
    )
    assert judgement.receiver == "urgent-eye"
    assert remarks(judgement) == ["urgent-eye-service-for-gp"]


def test_a_missing_practice_is_no_matter_where_the_gp_is_not_the_receiver() -> None:
    judgement = of("routine", "cataract", why_not_gp="the practice is not known")
    assert judgement.receiver == "spa"
    assert judgement.remarks == ()


# -- pressures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pressure", "urgency", "receiver"),
    [
        ("35", "routine", "spa"),
        ("35.0", "routine", "spa"),
        ("35.1", "asap", "spa"),
        ("39.9", "asap", "spa"),
        ("40", "stat", "eye-casualty"),
        ("40.0", "stat", "eye-casualty"),
        ("62", "stat", "eye-casualty"),
    ],
)
def test_the_lines_above_35_and_at_40_raise_any_condition(
    pressure: str, urgency: Level, receiver: str
) -> None:
    judgement = of("routine", "cataract", measured(pressure))
    assert (judgement.urgency, judgement.receiver) == (urgency, receiver)


def test_the_higher_eye_decides() -> None:
    judgement = of("routine", "raised-pressure", measured("22"), measured("40"))
    assert judgement.urgency == "stat"
    assert "pressure-40-or-more" in judgement.rule


def test_a_condition_that_is_as_urgent_as_its_pressure_keeps_its_own_receiver() -> None:
    judgement = of("routine", "suspected-wet-amd", measured("37"))
    assert (judgement.urgency, judgement.receiver) == ("asap", "macular")


@pytest.mark.parametrize(
    ("pressure", "warned"),
    [("23.9", False), ("24", True), ("24.0", True), ("35", True), ("35.1", False)],
)
def test_a_pressure_from_24_to_35_is_warned_of_unless_it_was_confirmed(
    pressure: str, warned: bool
) -> None:
    assert ("pressure-not-confirmed" in remarks(of("routine", "cataract", measured(pressure)))) == (
        warned
    )


@pytest.mark.parametrize(
    ("method", "repeated", "warned"),
    [
        ("goldmann", True, False),
        ("perkins", True, False),
        ("goldmann", False, True),
        ("non-contact", True, True),
        ("rebound", True, True),
        ("other", True, True),
        (None, True, True),
        ("non-contact", False, True),
    ],
)
def test_only_goldmann_type_tonometry_that_was_repeated_confirms_a_pressure(
    method: Tonometer | None, repeated: bool, warned: bool
) -> None:
    judgement = of("routine", "raised-pressure", measured("26", method, repeated=repeated))
    assert (remarks(judgement) == ["pressure-not-confirmed"]) == warned


def test_every_unconfirmed_pressure_is_named_with_its_own_field() -> None:
    left = Reading("left.pressures[1]", Decimal("25"), "non-contact", repeated=False)
    fine = Reading("left.pressures[0]", Decimal("25"), "goldmann", repeated=True)
    judgement = of("routine", "raised-pressure", measured("26"), fine, left)
    assert [remark.path for remark in judgement.remarks] == [
        "right.pressures[0]",
        "left.pressures[1]",
    ]


@pytest.mark.parametrize(
    ("sender", "warned"), [("stat", False), ("urgent", False), ("asap", True), ("routine", True)]
)
def test_no_repeat_is_asked_of_a_referral_that_is_urgent_or_higher(
    sender: Level, warned: bool
) -> None:
    judgement = of(sender, "raised-pressure", measured("26"))
    assert ("pressure-not-confirmed" in remarks(judgement)) == warned


def test_no_repeat_is_asked_when_the_table_makes_it_urgent() -> None:
    judgement = of("routine", "acute-angle-closure", measured("26"))
    assert remarks(judgement) == ["urgency-raised"]


def test_no_repeat_is_asked_of_one_eye_when_the_other_is_above_35() -> None:
    judgement = of("routine", "raised-pressure", measured("26"), measured("36"))
    assert remarks(judgement) == ["urgency-raised"]


# -- clocks --------------------------------------------------------------------------------------


def test_wet_amd_is_sent_in_a_working_day_seen_in_7_days_and_treated_in_14() -> None:
    # A Friday: the next working day is Monday. The clocks go back on 25 October.
    friday = date(2026, 10, 16)
    due = of("asap", "suspected-wet-amd").due(friday)
    assert {clock: one.at for clock, one in due.items()} == {
        "sent": datetime(2026, 10, 19, 17, 30, tzinfo=UTC),
        "seen": datetime(2026, 10, 23, 17, 30, tzinfo=UTC),
        "treated": datetime(2026, 10, 30, 18, 30, tzinfo=UTC),
    }


def test_no_other_condition_carries_clocks() -> None:
    carrying = [code for code in eye.conditions() if eye.row(code).reason.clocks]
    assert carrying == ["suspected-wet-amd"]


def test_a_same_day_referral_is_seen_on_the_day_and_a_7_day_one_within_7() -> None:
    day = date(2026, 10, 1)
    assert of("stat", "uveitis").seen_by(day) == datetime(2026, 10, 1, 17, 30, tzinfo=UTC)
    assert of("asap", "cataract").seen_by(day) == datetime(2026, 10, 8, 17, 30, tzinfo=UTC)
    assert of("urgent", "cataract").seen_by(day) is None
    assert of("routine", "cataract").seen_by(day) is None


def test_the_earlier_of_two_seen_lines_counts() -> None:
    day = date(2026, 10, 1)
    assert of("stat", "suspected-wet-amd").seen_by(day) == datetime(2026, 10, 1, 17, 30, tzinfo=UTC)


def test_a_same_day_referral_after_hours_is_seen_by_the_next_evening() -> None:
    before = datetime(2026, 10, 1, 17, 29, tzinfo=UTC)
    after = datetime(2026, 10, 1, 17, 30, tzinfo=UTC)
    assert of("stat", "uveitis").seen_by(before) == datetime(2026, 10, 1, 17, 30, tzinfo=UTC)
    assert of("stat", "uveitis").seen_by(after) == datetime(2026, 10, 2, 17, 30, tzinfo=UTC)
