"""The catalogue of pathways: strict, sourced, whole, and where alone a pathway is named."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_args

import pytest
from pydantic import ValidationError

from broker.referral import MOVES
from fhir_profiles import codes, identifiers
from fhir_profiles.pathways import documents
from fhir_profiles.pathways.catalogue import catalogue, service_words
from fhir_profiles.pathways.entry import Entry
from fhir_profiles.pathways.parts import LEVELS, Clock, Pillar

ROOT = Path(__file__).parents[2]
CATALOGUE = catalogue()
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)  # a Monday
IN_TURN: Final[tuple[Clock, ...]] = (
    "received",
    "contacted",
    "decided",
    "seen",
    "diagnosed",
    "treated",
)
OFFERED = {
    "pharmacy": {
        *("uncomplicated-uti", "shingles", "impetigo", "infected-insect-bite", "acute-sinusitis"),
        *("acute-sore-throat", "acute-otitis-media", "minor-illness", "urgent-medicine-supply"),
        *("blood-pressure-check", "ambulatory-blood-pressure", "contraception-initiation"),
        *("contraception-ongoing", "contraception-emergency", "discharge-medicines"),
    },
    "eye": {
        *("minor-and-urgent-eye-care", "eye-casualty", "suspected-wet-amd", "glaucoma"),
        *("cataract", "diabetic-eye-disease", "other-ophthalmology"),
    },
    "dental": {
        *("suspected-oral-cancer", "oral-surgery-level-1", "oral-surgery-level-2"),
        *("oral-surgery-level-3", "orthodontics", "paediatric-dentistry"),
        *("special-care-dentistry", "community-dentistry", "urgent-dental"),
    },
    "hospital": {
        *("urgent-suspected-cancer", "specialty-referral", "advice-and-guidance"),
        *("hospital-at-home", "same-day-emergency-care"),
    },
    "community": {
        *("musculoskeletal", "audiology", "podiatry", "weight-management"),
        *("diabetes-prevention", "stop-smoking", "wound-care", "social-prescribing"),
        "neighbourhood-team",
    },
}
every_entry = pytest.mark.parametrize("entry", CATALOGUE.entries.values(), ids=lambda one: one.id)


def test_every_pathway_that_is_offered_has_an_entry() -> None:
    found = {group: set[str]() for group in OFFERED}
    for entry in CATALOGUE.entries.values():
        found[entry.group].add(entry.id)
    assert found == OFFERED


@every_entry
def test_an_entry_says_what_is_only_local_and_whom_it_is_for(entry: Entry) -> None:
    assert set(entry.senders) <= set(get_args(Pillar))
    assert entry.receivers[0] not in {"general-practice"}
    assert all(service_words(one) for one in entry.receivers)
    assert "reason" in entry.minimum
    for part in (entry, *entry.reasons, *entry.red_flags):
        assert part.source.strip()
    assert set(entry.told) <= set(MOVES)


@every_entry
def test_what_must_happen_first_is_due_first_at_every_level(entry: Entry) -> None:
    for level in LEVELS:
        for reason in entry.reasons:
            starts = dict.fromkeys(IN_TURN, NOON)
            clocks = CATALOGUE.due(entry.id, level, reason.code, starts)
            due = [clocks[clock].at for clock in IN_TURN if clock in clocks]
            assert due[0] == min(due), (level, reason.code)
            assert due[-1] == max(due), (level, reason.code)


@every_entry
def test_a_suspected_cancer_is_diagnosed_or_excluded_in_28_days(entry: Entry) -> None:
    if entry.suspected_cancer:
        assert entry.urgency == "urgent"
        for level in ("stat", "urgent"):
            clocks = CATALOGUE.clocks(entry.id, level)
            assert level not in entry.clocks or clocks["diagnosed"].days == 28


def test_a_practice_hears_of_outcomes_and_not_of_what_lies_between() -> None:
    hears = {move for move, parties in CATALOGUE.defaults.told.items() if "practice" in parties}
    assert hears == {
        *("reject", "complete", "cancel", "reinstate", "did-not-attend", "no-contact"),
        *("diagnosed", "decline", "deceased", "expire"),
    }


def test_what_is_not_of_this_catalogue_has_the_usual_clocks_and_parties() -> None:
    assert CATALOGUE.clocks("a5t1", "routine") == CATALOGUE.defaults.clocks["routine"]
    assert CATALOGUE.told("a5t1", "accept") == ("sender",)
    assert CATALOGUE.told("cataract", "accept") == ("sender", "practice")


def broken() -> list[Any]:
    whole = dict(documents.entries()["suspected-oral-cancer"])
    return [
        pytest.param({**whole, "colour": "red"}, "colour", id="an unknown field"),
        pytest.param({**whole, "senders": ["dentist"]}, "senders", id="an unknown pillar"),
        pytest.param({**whole, "senders": []}, "senders", id="no sender"),
        pytest.param(
            {**whole, "local-senders": ["optometry"], "senders": ["dentistry"]},
            "no sender",
            id="a local sender that is none",
        ),
        pytest.param(
            {**whole, "window": {"working-days": 3}}, "looked back", id="a window of working days"
        ),
        pytest.param({**whole, "urgency": "soon"}, "urgency", id="an unknown level"),
        pytest.param({**whole, "source": ""}, "source", id="no source"),
        pytest.param({**whole, "version": "1"}, "version", id="a version that is none"),
        pytest.param({**whole, "reasons": []}, "reasons", id="no reason"),
        pytest.param(
            {**whole, "reasons": [*whole["reasons"], whole["reasons"][0]]},
            "stands twice",
            id="a reason twice",
        ),
        pytest.param(
            {**whole, "reasons": [{**whole["reasons"][0], "receiver": "spa"}]},
            "none of the pathway's",
            id="a receiver that the pathway does not have",
        ),
        pytest.param(
            {**whole, "clocks": {"urgent": {"seen": {"days": 1, "hours": 2}}}},
            "either",
            id="a clock with two measures",
        ),
        pytest.param(
            {**whole, "clocks": {"urgent": {"cured": {"days": 1}}}}, "cured", id="an unknown clock"
        ),
    ]


@pytest.mark.parametrize(("document", "named"), broken())
def test_a_fault_in_an_entry_is_refused_and_named(document: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        Entry.model_validate(document)


def test_the_code_systems_hold_what_the_entries_say() -> None:
    assert list(codes.system("pathway").displays) == list(CATALOGUE.entries)
    reasons = {
        **codes.system("eye-condition").displays,
        **codes.system("referral-reason").displays,
    }
    assert reasons == {code: one.words for code, one in CATALOGUE.reasons.items()}
    for one in CATALOGUE.reasons.values():
        if one.snomed is not None:
            assert identifiers.snomed_concept(one.snomed) == one.snomed


def test_no_name_of_a_pathway_stands_in_the_broker() -> None:
    names = re.compile(rf"\b({'|'.join(map(re.escape, CATALOGUE.entries))})\b")
    for path in sorted((ROOT / "broker").rglob("*.py")):
        assert not names.search(path.read_text()), path


def test_a_pathway_has_its_own_window_else_that_of_all_and_a_topic_of_updates_has_none() -> None:
    known = catalogue()
    own = known.window("urgent-medicine-supply")
    assert own is not None and own != known.defaults.window
    assert known.window("podiatry") == known.window("a5t1") == known.defaults.window
    assert known.window("") is None
    assert known.window(next(iter(codes.system("update-topic").displays))) is None
