"""The table of sentinel values, and the ledgers that partners keep."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adapters.pharmacy import ADAPTER as PHARMACY
from adapters.pillars.optometry.door import REFERRALS as OPTOMETRY
from broker.move_content import REJECTION_REASONS, check
from broker.ports import Adapter
from broker.referral import MOVES
from fhir_profiles import codes, strict_json
from sandbox import sentinels
from sandbox.ledger import Ledger, until
from sandbox.sentinels import DEFAULT, TABLE, Answer, Behaviour, behaviour

EVERY = list(TABLE.values())


def test_there_is_a_value_for_each_way_to_answer() -> None:
    assert {one.answer for one in EVERY} == set(Answer)


@pytest.mark.parametrize("reason", codes.system("rejection-reason").displays)
def test_an_update_can_be_rejected_for_each_reason(reason: str) -> None:
    assert behaviour(f"XXTEST-REJECT-{reason}").update == ("rejected", reason)


@pytest.mark.parametrize("reason", REJECTION_REASONS)
def test_a_referral_can_be_rejected_for_each_reason(reason: str) -> None:
    ((move, content),) = behaviour(f"XXTEST-REJECT-{reason}").moves
    assert (move, content["reason"], bool(content["advice"])) == ("reject", reason, True)


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.name)
def test_what_a_partner_decides_is_what_the_broker_takes(one: Behaviour) -> None:
    for name, content in one.moves:
        assert not check(MOVES[name].carries, content)


@pytest.mark.parametrize("family", TABLE)
@pytest.mark.parametrize("adapter", [PHARMACY, OPTOMETRY], ids=lambda one: one.name)
def test_every_value_is_a_name_that_the_doors_take(adapter: Adapter, family: str) -> None:
    example = next(iter(adapter.examples.values()))
    patient = {**example["patient"], "name": {"family": family, "given": "Test"}}
    body = strict_json.loads(json.dumps({**example, "patient": patient}).encode())
    now = datetime(2026, 11, 22, tzinfo=UTC)
    taken: Any = adapter.accepts.model_validate(body, context={"now": now})
    assert getattr(taken, "root", taken).patient.name.family == family


@pytest.mark.parametrize("family", ["Okafor", "", "XXTEST-SLIENT", "XXTESTPATIENT"])
def test_whoever_is_not_in_the_table_is_filed_or_accepted(family: str) -> None:
    assert behaviour(family) is DEFAULT
    assert DEFAULT.update == ("filed", None)
    assert [move for move, _ in DEFAULT.moves] == ["accept"]


def test_case_and_spaces_do_not_matter() -> None:
    assert behaviour(" xxtest-Silent ") is TABLE["XXTEST-SILENT"]


def test_nobody_decides_without_a_true_receipt() -> None:
    assert not any(one.decides for one in EVERY if not one.answer.gives_receipt)
    assert not behaviour("XXTEST-UNDECIDED").decides


def test_the_table_prints_every_value_once_with_what_happens() -> None:
    (head, *rows) = sentinels.as_table()
    assert len(head) == 2
    assert [family for family, _ in rows] == list(TABLE)
    assert all(words for _, words in rows)


# -- ledgers -------------------------------------------------------------------------------------


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[], Ledger]]:
    """Opens one and the same ledger, as often as it is called."""
    made: list[Ledger] = []

    def open_it() -> Ledger:
        made.append(Ledger(tmp_path / "ledger.jsonl", "G99001"))
        return made[-1]

    yield open_it
    for ledger in made:
        ledger.close()


Opened = Callable[[], Ledger]


def test_what_was_written_is_there_after_a_crash(opened: Opened) -> None:
    ledger = opened()
    ledger.write("received", delivery="1", digest="a")
    ledger.write("received", delivery="2", digest="b")
    lines = ledger.path.read_text().splitlines()  # it was not closed
    found = [json.loads(line) for line in lines]
    assert [(one["seq"], one["what"], one["delivery"]) for one in found] == [
        (1, "received", "1"),
        (2, "received", "2"),
    ]
    assert found == opened().entries()


def test_a_line_torn_by_a_crash_was_never_answered_for(opened: Opened) -> None:
    path = opened().path
    opened().write("received", delivery="1")
    path.write_bytes(path.read_bytes() + b'{"seq":2,"what":"rec')
    again = opened()
    assert len(again.entries()) == 1
    assert again.write("received", delivery="2")["seq"] == 2
    assert [json.loads(line)["delivery"] for line in path.read_text().splitlines()] == ["1", "2"]


def test_entries_are_found_by_what_they_say(opened: Opened) -> None:
    ledger = opened()
    ledger.write("received", delivery="1", kind="update")
    ledger.write("decided", delivery="1", outcome="filed")
    assert ledger.first("decided", delivery="1", outcome="filed")
    assert ledger.first("decided", delivery="2") is None
    assert [one["what"] for one in ledger.entries(delivery="1")] == ["received", "decided"]


async def test_until_waits_for_what_comes_and_not_for_what_does_not() -> None:
    looks = iter([None, 0, "there"])
    assert await until(lambda: next(looks)) == "there"
    assert await until(lambda: 0, 0.05) is None
