"""How urgent a referral is taken: what its sender asked for, and what its receiver makes of it."""

from types import SimpleNamespace
from typing import Any

import pytest

from broker import triage
from broker.errors import Refused
from broker.events import Priority
from broker.triage import Triage

STAT, URGENT, ASAP, ROUTINE = Priority


def row(
    priority: Priority,
    asked: Priority | None = None,
    proposed: Priority | None = None,
    pathway: str = "cataract",
) -> Any:
    return SimpleNamespace(
        priority=priority.value,
        priority_asked=asked and asked.value,
        priority_proposed=proposed and proposed.value,
        pathway=pathway,
    )


def after(move: str, named: Priority | None = None, **before: Any) -> Triage:
    return triage.after(row(**before), move, {"priority": named} if named else {})


def test_what_was_never_triaged_is_as_urgent_as_it_was_sent() -> None:
    found = triage.of(row(URGENT))
    assert (found.priority, found.asked, found.proposed) == (URGENT, URGENT, None)
    assert found.kept == {"priority_asked": None, "priority_proposed": None}


def test_a_receiver_takes_it_for_more_urgent_at_once_and_the_senders_word_is_kept() -> None:
    found = after("upgrade", URGENT, priority=ROUTINE)
    assert (found.priority, found.asked) == (URGENT, ROUTINE)
    assert not found.is_lowered
    assert found.kept["priority_asked"] == "routine"
    again = after("upgrade", STAT, priority=URGENT, asked=ROUTINE)
    assert (again.priority, again.asked) == (STAT, ROUTINE)


def test_a_receiver_takes_it_for_less_urgent_and_its_sender_may_object() -> None:
    found = after("downgrade", ROUTINE, priority=URGENT)
    assert (found.priority, found.asked, found.is_lowered) == (ROUTINE, URGENT, True)
    back = after("object", priority=ROUTINE, asked=URGENT)
    assert (back.priority, back.asked) == (URGENT, URGENT)


@pytest.mark.parametrize(
    ("pathway", "asked"),
    [
        ("cataract", STAT),
        ("suspected-wet-amd", ASAP),
        ("urgent-suspected-cancer", URGENT),
        ("suspected-oral-cancer", URGENT),
        ("something-by-bars", URGENT),
    ],
)
def test_where_too_much_hangs_on_it_a_lower_priority_is_but_proposed(
    pathway: str, asked: Priority
) -> None:
    found = after("downgrade", ROUTINE, priority=asked, pathway=pathway)
    assert found == Triage(asked, asked, ROUTINE)
    said = {"priority": asked, "proposed": ROUTINE, "pathway": pathway}
    assert after("agree", **said) == Triage(ROUTINE, asked)
    assert after("object", **said) == Triage(asked, asked)
    assert after("upgrade", STAT, **said).proposed is None if asked is not STAT else True
    assert after("redirect", **said) == Triage(asked, asked)
    assert after("accept", **said) == Triage(asked, asked, ROUTINE)


def test_a_receiver_takes_back_what_it_raised_itself_without_asking() -> None:
    found = after("downgrade", ASAP, priority=STAT, asked=ASAP, pathway="suspected-wet-amd")
    assert found == Triage(ASAP, ASAP)
    lower = after("downgrade", ROUTINE, priority=STAT, asked=ASAP, pathway="suspected-wet-amd")
    assert lower == Triage(STAT, ASAP, ROUTINE)


@pytest.mark.parametrize(
    ("move", "named", "now", "code", "others"),
    [
        ("upgrade", URGENT, URGENT, "not-more-urgent", "stat"),
        ("upgrade", ROUTINE, ASAP, "not-more-urgent", "stat, urgent"),
        ("upgrade", URGENT, STAT, "not-more-urgent", "none"),
        ("downgrade", URGENT, ASAP, "not-less-urgent", "routine"),
        ("downgrade", ROUTINE, ROUTINE, "not-less-urgent", "none"),
    ],
)
def test_what_a_move_names_must_be_more_or_less_urgent(
    move: str, named: Priority, now: Priority, code: str, others: str
) -> None:
    with pytest.raises(Refused) as caught:
        after(move, named, priority=now)
    (problem,) = caught.value.problems
    assert (problem.field, problem.code) == ("priority", code)
    assert f"urgent: {others}" in problem.todo


@pytest.mark.parametrize(
    ("before", "word", "expected"),
    [
        # The sender repeats itself: its receiver's word stands.
        (row(URGENT, ROUTINE), ROUTINE, Triage(URGENT, ROUTINE)),
        (row(ROUTINE, URGENT), URGENT, Triage(ROUTINE, URGENT)),
        (row(URGENT, None, ROUTINE), URGENT, Triage(URGENT, URGENT, ROUTINE)),
        # The sender says something new of what nobody triaged.
        (row(URGENT), ROUTINE, Triage(ROUTINE, ROUTINE)),
        (row(URGENT, None, ROUTINE), STAT, Triage(STAT, STAT)),
        # It says something new of what its receiver raised: that is never lowered.
        (row(URGENT, ROUTINE), STAT, Triage(STAT, STAT)),
        (row(URGENT, ROUTINE), ASAP, Triage(URGENT, ASAP)),
        # And of what its receiver lowered: it is heard.
        (row(ROUTINE, URGENT), STAT, Triage(STAT, STAT)),
        (row(ROUTINE, URGENT), ASAP, Triage(ASAP, ASAP)),
    ],
)
def test_an_amendment_undoes_no_triage_and_a_new_word_is_heard(
    before: Any, word: Priority, expected: Triage
) -> None:
    assert triage.amended(before, word) == expected


def test_those_who_are_told_read_what_it_is_now_and_what_it_was() -> None:
    was = Triage(URGENT, URGENT)
    assert triage.words(was, Triage(STAT, URGENT)) == "It is now same day; it was urgent."
    assert triage.words(was, Triage(ROUTINE, URGENT)) == (
        "It is now routine; it was urgent. The sender may object."
    )
    assert triage.words(was, Triage(URGENT, URGENT, ROUTINE)).startswith(
        "Proposed: routine instead of urgent. Until the sender agrees it stays as it is"
    )
    assert triage.words(was, was) == "It stays urgent, with its deadlines."
