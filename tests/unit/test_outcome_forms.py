"""The forms of outcomes and letters: how soon an action is, what ends a referral, what is read."""

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import pytest

from adapters.pillars.outcomes.actions import Action, glanced
from adapters.pillars.outcomes.form import CARERS, Outcome
from adapters.pillars.tasks import Task, want
from broker import registry
from broker.events import Priority, Role
from broker.ports import Adapter, Seek
from fhir_profiles import codes
from fhir_profiles.blocks import ChangedMedicine
from fhir_profiles.pathways.catalogue import OUTCOMES, catalogue
from fhir_profiles.strict_json import loads

NOW: Final = datetime(2026, 11, 24, 12, tzinfo=UTC)
TODAY: Final = NOW.date()
ADAPTERS: Final[list[Adapter]] = [
    one
    for name, one in registry.load().adapters.items()
    if name.endswith((".outcomes", ".letters"))
]
every_form = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda one: one.name)


def action(**said: Any) -> Action:
    return Action.model_validate({"what": "Please call.", **said}, context={"now": NOW})


def outcome(adapter: Adapter, name: str, **changes: Any) -> Outcome:
    body = loads(json.dumps(dict(adapter.examples[name]) | changes).encode())
    read = adapter.accepts.model_validate(body, context={"now": NOW})
    assert isinstance(read, Outcome)
    return read


@pytest.mark.parametrize(
    ("days", "urgency", "priority"),
    [
        (-3, None, "stat"),
        (0, None, "stat"),
        (1, None, "urgent"),
        (2, None, "asap"),
        (7, None, "asap"),
        (8, None, "routine"),
        (8, "urgent", "urgent"),
        (0, "routine", "stat"),
        (None, "within-7-days", "asap"),
    ],
)
def test_the_sooner_of_day_and_urgency_counts(
    days: int | None, urgency: str | None, priority: str
) -> None:
    said: dict[str, Any] = {"urgency": urgency} if urgency else {}
    if days is not None:
        said["by"] = (TODAY + timedelta(days=days)).isoformat()
    assert action(**said).priority(TODAY) == priority


def test_an_action_is_known_by_its_own_name_else_by_its_words() -> None:
    named = action(id="x", urgency="routine")
    assert named.key == action(id="x", what="Otherwise.", urgency="urgent").key
    plain = action(urgency="routine")
    assert plain.key == action(urgency="urgent").key
    assert len({named.key, plain.key, action(what="Otherwise.", urgency="routine").key}) == 3
    assert "call" not in plain.key


def test_what_is_seen_in_the_evening_and_is_for_that_day_is_for_the_next_one() -> None:
    seek = Seek(Role.ACTING, "general-practice", practice="G99001")
    evening = datetime(2026, 11, 24, 19, tzinfo=UTC)
    for seen, day in ((NOW, 24), (evening, 25), (date(2026, 11, 24), 24)):
        made = want(Task("x", Priority.STAT, TODAY), "cataract", "1", seek, seen)
        (clock,) = made.clocks
        assert (clock.kind, clock.due) == ("done", datetime(2026, 11, day, 18, 30, tzinfo=UTC))
    assert want(Task("x", Priority.ROUTINE, None), "cataract", "1", seek, NOW).clocks == ()


def test_of_a_body_that_cannot_be_read_a_near_day_is_urgent_and_nothing_raises() -> None:
    seen = {"seen_at": "2026-11-24"}
    for said, priority in (
        ({}, None),
        ({"actions": []}, None),
        ({"actions": 7}, "routine"),
        ({"actions": {"urgency": "Same day"}}, "stat"),
        ({"actions": [None, {"by": "2026-11-26"}], **seen}, "urgent"),
        ({"actions": [{"by": "2027-01-26"}], **seen}, "routine"),
        ({"actions": [{"by": "2027-01-26"}], "seen_at": "yesterday"}, "urgent"),
        ({"actions": [{"by": 3}], **seen}, "urgent"),
    ):
        assert glanced(said) == priority, said


@every_form
def test_a_body_of_which_nothing_can_be_read_is_looked_at_and_nothing_raises(
    adapter: Adapter,
) -> None:
    for body in ({}, {"actions": 1, "blood_pressure": "x"}, {"practice": [], "referral": 1}):
        assert (adapter.danger(body), adapter.sought(body), adapter.withheld(body)) == (None,) * 3


@every_form
def test_every_reader_that_the_catalogue_knows_has_a_field_in_every_form(
    adapter: Adapter,
) -> None:
    readers = {who for one in catalogue().entries for who in catalogue().outcome_to(one)}
    assert readers - {"referrer", "practice"} == {field for field, _ in CARERS}
    assert readers <= adapter.accepts.model_fields.keys()


@pytest.mark.parametrize("code", codes.system(OUTCOMES).displays)
def test_an_outcome_ends_a_referral_unless_the_patient_stays_in_care(code: str) -> None:
    adapter = next(one for one in ADAPTERS if one.name == "community.outcomes")
    pathway = next(one for one in catalogue().entries.values() if code in one.outcomes)
    said = outcome(adapter, "wound-care", pathway=pathway.id, outcome=code)
    stays = {
        *("under-follow-up", "listed-for-surgery", "programme-started"),
        *("admitted-at-home", "cancer-confirmed"),
    }
    assert said.ends == (code not in stays)


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ("started", {"dose"}),
        ("changed", {"dose", "why"}),
        ("stopped", {"why"}),
        ("unchanged", set()),
    ],
)
def test_a_change_of_a_medicine_says_what_the_next_prescriber_must_know(
    change: str, missing: set[str]
) -> None:
    with_all = {"name": "Aspirin", "change": change, "dose": "One daily", "why": "Bleeding"}
    for field in ("dose", "why"):
        body = {name: said for name, said in with_all.items() if name != field}
        try:
            ChangedMedicine.model_validate(body, context={"now": NOW})
            refused = False
        except ValueError:
            refused = True
        assert refused == (field in missing)


@every_form
def test_an_outcome_holds_no_words_of_the_sender_in_what_is_kept_in_the_clear(
    adapter: Adapter,
) -> None:
    for name in adapter.examples:
        needs = adapter.needs(outcome(adapter, name), NOW)
        for one in needs.wants:
            kinds = set(codes.system("outcome-kind").displays)
            asks = one.key.startswith(("action", "measured"))
            assert one.pathway in (kinds if asks else kinds | catalogue().entries.keys())
            assert one.key.partition(" ")[0] in {"outcome", "action", "measured", "medicines"}
