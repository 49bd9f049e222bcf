"""The pillars' forms of a referral: what their pathways ask for can be said, and comes across."""

from datetime import UTC, datetime
from typing import Any, Final

import pytest

from adapters.pillars.optometry.door import OptometryPathwayReferral
from adapters.pillars.referrals.form import FIELDS, Referral
from broker import registry
from broker.ports import Adapter
from fhir_profiles.eye import conditions, row
from fhir_profiles.pathways.catalogue import catalogue
from fhir_profiles.pathways.judgement import judge

NOW: Final = datetime(2026, 11, 23, 12, tzinfo=UTC)
PLUGGED: Final = registry.load().adapters
ADAPTERS: Final[list[Adapter]] = [
    one for name, one in PLUGGED.items() if name.endswith(".referrals") or name == "optometry"
]
every_form = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda one: one.name)


def test_every_pillar_of_the_catalogue_has_a_form() -> None:
    pillars = {sender for one in catalogue().entries.values() for sender in one.senders}
    assert {form(adapter).pillar for adapter in ADAPTERS} == pillars | {"patients"}


def form(adapter: Adapter) -> type[Referral]:
    """Return the form that all pillars share; optometry has one of its own beside it."""
    found = OptometryPathwayReferral if adapter.name == "optometry" else adapter.accepts
    assert issubclass(found, Referral)
    return found


def on_pathways(adapter: Adapter) -> list[str]:
    """Return the examples that name a pathway: not those of a sight test."""
    return [name for name, body in adapter.examples.items() if "pathway" in body]


@every_form
def test_what_a_pathway_must_hold_has_a_field_in_every_form_that_may_send_it(
    adapter: Adapter,
) -> None:
    for pathway in on_pathways(adapter):
        for item in catalogue().entries[pathway].minimum:
            first = FIELDS[item].partition(".")[0]
            assert first in form(adapter).model_fields, (pathway, item)


@every_form
def test_there_is_an_example_of_every_pathway_that_may_be_sent(adapter: Adapter) -> None:
    entries = catalogue().entries.values()
    assert on_pathways(adapter) == [one.id for one in entries if form(adapter).may_send(one)]


@every_form
def test_a_body_of_which_nothing_can_be_read_is_looked_at_and_nothing_raises(
    adapter: Adapter,
) -> None:
    bodies: list[dict[str, Any]] = [
        *({}, {"pathway": 1}, {"pathway": "podiatry", "red_flags": 7, "reason": "x"}),
        {"pathway": "podiatry", "red_flags": [None, "limb-in-danger"], "practice": []},
        {"urgency": "Same day", "patient": [1]},
    ]
    said = [adapter.danger(body) for body in bodies]
    assert [one is not None for one in said] == [False, False, False, True, True]
    sought = [adapter.sought(body) for body in bodies]
    # What names no pathway is a sight test at the optometrists' door: some eye service would act.
    no_pathway = adapter.name == "optometry"
    assert [one is not None for one in sought] == [no_pathway, False, True, True, no_pathway]


def test_the_more_urgent_of_the_sender_and_the_catalogue_counts_and_the_rule_says_which() -> None:
    entry = catalogue().entries["podiatry"]
    by_sender = judge(entry, reason="foot-problem", asked="urgent")
    assert (by_sender.urgency, by_sender.table) == ("urgent", entry.urgency)
    assert by_sender.rule.startswith("the sender's own urgency, urgent; podiatry")
    by_flag = judge(entry, reason="foot-problem", asked="routine", red_flags=["limb-in-danger"])
    assert (by_flag.urgency, by_flag.emergency, by_flag.calls_999) == ("stat", True, False)
    assert entry.red_flags[0].words in by_flag.rule


def test_the_practice_does_not_get_its_own_referral_back() -> None:
    entry = next(
        one
        for one in catalogue().entries.values()
        if any(reason.receiver == "general-practice" for reason in one.reasons)
    )
    reason = next(one for one in entry.reasons if one.receiver == "general-practice")
    sent = {
        may: judge(entry, reason=reason.code, asked="routine", practice_may_act=may).receiver
        for may in (True, False)
    }
    assert sent[True] == "general-practice"
    assert sent[False] in set(entry.receivers) - {"general-practice"}


def test_every_reason_of_a_pathway_that_goes_by_reason_is_a_clinic_of_its_own() -> None:
    entry = catalogue().entries["specialty-referral"]
    assert judge(entry, reason="cardiology", asked="routine").subspecialty == "cardiology"
    other = catalogue().entries["podiatry"]
    assert judge(other, reason="foot-problem", asked="routine").subspecialty == ""


def test_an_optometrist_refers_for_the_eyes_by_condition_and_for_the_rest_by_pathway() -> None:
    sends = [one for one in catalogue().entries.values() if "optometry" in one.senders]
    others = [one.id for one in sends if one.group != "eye"]
    assert others == on_pathways(PLUGGED["optometry"])
    assert {one.id for one in sends} - set(others) == {row(code).entry.id for code in conditions()}


def test_a_practice_that_refers_is_never_told_to_telephone_itself() -> None:
    adapter = next(one for one in ADAPTERS if one.name == "general-practice.referrals")
    for entry in catalogue().entries.values():
        for reason in entry.reasons:
            body = {
                "pathway": entry.id,
                "reason": {"code": reason.code},
                "practice": {"ods": "G99001"},
            }
            sought = adapter.sought(body)
            assert sought is not None and sought.receiver_type != "general-practice", body
