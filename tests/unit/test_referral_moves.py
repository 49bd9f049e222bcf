"""The referral's state machine, row by row."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from broker.errors import Conflict, Refused
from broker.move_content import MAX_TEXT, REJECTION_REASONS, check
from broker.referral import (
    MOVES,
    OPEN,
    STAGES,
    Audience,
    Context,
    Door,
    Relation,
    State,
    allowed,
    apply,
    as_table,
    check_diagnosis,
    needs_receivers_eye,
    told,
)
from fhir_profiles import codes

NOW = datetime(2026, 11, 23, 15, 0, tzinfo=UTC)
PLAIN = Context(now=NOW, organisation="RXX01", pathway="cataract")
FHIR_TASK_STATUSES = {
    "draft",
    "requested",
    "received",
    "accepted",
    "rejected",
    "ready",
    "cancelled",
    "in-progress",
    "on-hold",
    "failed",
    "completed",
    "entered-in-error",
}
SAID_BY_EITHER = ["decline", "deceased"]


def names(state: State, relation: Relation, context: Context = PLAIN) -> list[str]:
    return [move.name for move in allowed(state, relation, context)]


def rejected(before: State | None, *, by: str = "RXX01", at: datetime = NOW) -> Context:
    return Context(now=NOW, organisation="RXX01", moved_by=by, moved_at=at, before=before)


def test_every_state_has_a_stage_with_a_status_that_fhir_knows() -> None:
    assert set(STAGES) == set(State)
    assert {stage.task_status for stage in STAGES.values()} <= FHIR_TASK_STATUSES


def test_the_terminal_states_are_those_that_nobody_can_still_see_through() -> None:
    assert set(State) - OPEN == {
        State.COMPLETED,
        State.REJECTED,
        State.CANCELLED,
        State.DECLINED_BY_PATIENT,
        State.DECEASED,
        State.EXPIRED,
        State.RESOLVED,
    }


def test_from_a_terminal_state_leads_only_what_nobody_took_on() -> None:
    leaving = {
        (state, move.name)
        for move in MOVES.values()
        for state in move.sources
        if STAGES[state].is_terminal
    }
    assert leaving == {
        (State.REJECTED, "reinstate"),
        (State.REJECTED, "resolve"),
        (State.EXPIRED, "resolve"),
        (State.EXPIRED, "complete"),
    }


def test_every_state_can_be_reached_and_every_open_one_can_be_left() -> None:
    reached = {State.REQUESTED} | {move.to for move in MOVES.values() if move.to}
    assert reached == set(State)
    for state in OPEN:
        assert any(state in move.sources and move.to for move in MOVES.values())


def test_every_open_state_waits_for_somebody() -> None:
    assert all(STAGES[state].waits_for is not None for state in OPEN)


def test_a_rejected_referral_waits_for_its_sender() -> None:
    assert STAGES[State.REJECTED].waits_for is Relation.SENDER


def test_the_doors_open_now_are_exactly_these() -> None:
    assert MOVES["expire"].door is Door.TIME
    assert MOVES["receive"].door is Door.RECEIPT
    assert MOVES["amend"].door is Door.CORRECTION
    assert sum(move.door is Door.MOVE for move in MOVES.values()) == len(MOVES) - 3


def test_the_acting_receivers_receipt_makes_requested_received() -> None:
    assert apply(State.REQUESTED, MOVES["receive"], Relation.ACTING, PLAIN) is State.RECEIVED
    assert names(State.REQUESTED, Relation.ACTING) == ["receive", *SAID_BY_EITHER]
    with pytest.raises(Conflict, match=r"Only the receiver may receive"):
        apply(State.REQUESTED, MOVES["receive"], Relation.COPY, PLAIN)


def test_a_decision_before_the_receipt_is_refused_and_told_what_comes_first() -> None:
    with pytest.raises(Conflict) as caught:
        apply(State.REQUESTED, MOVES["accept"], Relation.ACTING, PLAIN)
    assert caught.value.detail == (
        "This referral is requested: accept is not possible. "
        "Allowed now: receive (PUT /inbox/{delivery}/receipt), decline, deceased."
    )


def test_a_received_referral_may_be_accepted_or_rejected_by_its_receiver_only() -> None:
    assert names(State.RECEIVED, Relation.ACTING) == [
        *("accept", "reject", "request-information", "redirect", "upgrade", "downgrade"),
        *("no-contact", *SAID_BY_EITHER),
    ]
    assert names(State.RECEIVED, Relation.SENDER) == ["cancel", "amend", *SAID_BY_EITHER]
    for nobody in (Relation.COPY, Relation.NOTICE, Relation.NONE):
        assert names(State.RECEIVED, nobody) == []
    assert names(State.RECEIVED, Relation.BROKER) == ["expire"]


def test_accepted_may_still_become_rejected_or_be_completed() -> None:
    assert names(State.ACCEPTED, Relation.ACTING) == [
        *("reject", "complete", "redirect", "upgrade", "downgrade", "book", "start"),
        *("no-contact", *SAID_BY_EITHER),
    ]
    assert apply(State.ACCEPTED, MOVES["reject"], Relation.ACTING, PLAIN) is State.REJECTED


def test_no_contact_may_become_completed() -> None:
    assert apply(State.NO_CONTACT, MOVES["complete"], Relation.ACTING, PLAIN) is State.COMPLETED


def test_a_completed_referral_allows_nothing_and_says_so() -> None:
    for relation in Relation:
        assert names(State.COMPLETED, relation) == []
    with pytest.raises(Conflict) as caught:
        apply(State.COMPLETED, MOVES["cancel"], Relation.SENDER, PLAIN)
    assert caught.value.detail == (
        "This referral is completed: cancel is not possible. Allowed now: nothing more by you."
    )


@pytest.mark.parametrize("state", sorted(OPEN))
def test_the_sender_may_cancel_and_amend_until_it_is_over(state: State) -> None:
    assert apply(state, MOVES["cancel"], Relation.SENDER, PLAIN) is State.CANCELLED
    assert apply(state, MOVES["amend"], Relation.SENDER, PLAIN) is state


@pytest.mark.parametrize("state", sorted(set(State) - OPEN))
def test_what_is_over_is_neither_cancelled_nor_amended(state: State) -> None:
    for name in ("cancel", "amend"):
        with pytest.raises(Conflict):
            apply(state, MOVES[name], Relation.SENDER, PLAIN)


def test_an_amendment_needs_the_receivers_eye_once_somebody_has_taken_it_on() -> None:
    assert {state for state in State if needs_receivers_eye(state)} == {
        State.ACCEPTED,
        State.BOOKED,
        State.IN_PROGRESS,
        State.DID_NOT_ATTEND,
        State.NO_CONTACT,
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (State.RECEIVED, State.RECEIVED),
        (State.INFORMATION_REQUESTED, State.INFORMATION_REQUESTED),
        (State.ACCEPTED, State.ACCEPTED),
        (State.BOOKED, State.ACCEPTED),
        (State.DID_NOT_ATTEND, State.ACCEPTED),
        (State.NO_CONTACT, State.RECEIVED),
        (None, State.RECEIVED),
    ],
)
def test_reinstating_claims_no_more_than_was_so_before(before: State | None, after: State) -> None:
    context = rejected(before)
    assert apply(State.REJECTED, MOVES["reinstate"], Relation.ACTING, context) is after
    assert names(State.REJECTED, Relation.ACTING, context) == ["reinstate"]


def test_only_the_organisation_that_rejected_may_reinstate() -> None:
    other = rejected(State.RECEIVED, by="RYY01")
    with pytest.raises(Conflict, match="Only the organisation that made the decision"):
        apply(State.REJECTED, MOVES["reinstate"], Relation.ACTING, other)
    assert names(State.REJECTED, Relation.ACTING, other) == []
    with pytest.raises(Conflict, match="Only the organisation"):
        apply(State.REJECTED, MOVES["reinstate"], Relation.ACTING, Context(now=NOW))


def test_reinstating_ends_at_midnight_in_london_not_in_utc() -> None:
    # 1 July 2026, 23:30 UTC is 2 July in London.
    at = datetime(2026, 7, 1, 22, 30, tzinfo=UTC)
    same = Context(at + timedelta(minutes=20), "RXX01", "RXX01", at, State.RECEIVED)
    late = Context(at + timedelta(hours=1), "RXX01", "RXX01", at, State.RECEIVED)
    assert apply(State.REJECTED, MOVES["reinstate"], Relation.ACTING, same) is State.RECEIVED
    with pytest.raises(Conflict, match="same London day only"):
        apply(State.REJECTED, MOVES["reinstate"], Relation.ACTING, late)
    unknown = Context(at, "RXX01", "RXX01", None, State.RECEIVED)
    with pytest.raises(Conflict, match="same London day only"):
        apply(State.REJECTED, MOVES["reinstate"], Relation.ACTING, unknown)


def test_only_the_broker_itself_lets_a_referral_expire_and_never_one_that_was_taken_on() -> None:
    expire = MOVES["expire"]
    assert expire.by == {Relation.BROKER}
    assert not any(STAGES[state].taken_on for state in expire.sources)


def test_either_party_may_say_that_the_patient_declined_or_died() -> None:
    for name, after in (("decline", State.DECLINED_BY_PATIENT), ("deceased", State.DECEASED)):
        for party in (Relation.SENDER, Relation.ACTING):
            assert apply(State.ACCEPTED, MOVES[name], party, PLAIN) is after
        with pytest.raises(Conflict, match=f"Only the sender or the receiver may {name}"):
            apply(State.ACCEPTED, MOVES[name], Relation.COPY, PLAIN)


def test_an_answer_brings_the_referral_back_to_its_receiver() -> None:
    state = apply(State.RECEIVED, MOVES["request-information"], Relation.ACTING, PLAIN)
    assert STAGES[state].waits_for is Relation.SENDER
    assert apply(state, MOVES["answer"], Relation.SENDER, PLAIN) is State.RECEIVED


def test_what_no_pathway_says_the_services_of_cannot_be_sent_on() -> None:
    unknown = Context(now=NOW, organisation="RXX01", pathway="something-by-bars")
    with pytest.raises(Conflict, match="Nothing says who else takes"):
        apply(State.RECEIVED, MOVES["redirect"], Relation.ACTING, unknown)
    assert "redirect" not in {m.name for m in allowed(State.RECEIVED, Relation.ACTING, unknown)}


def test_a_sender_agrees_to_what_is_proposed_and_may_object_to_that_and_to_what_was_set() -> None:
    proposed = replace(PLAIN, is_proposed=True)
    lowered = replace(PLAIN, is_lowered=True)
    for state in OPEN:
        assert {"agree", "object"} & set(names(state, Relation.SENDER)) == set()
        assert {"agree", "object"} <= set(names(state, Relation.SENDER, proposed))
        assert {"agree", "object"} & set(names(state, Relation.SENDER, lowered)) == {"object"}
        assert {"agree", "object"} & set(names(state, Relation.ACTING, proposed)) == set()
    with pytest.raises(Conflict, match="No lower priority is proposed: agree is not possible"):
        apply(State.RECEIVED, MOVES["agree"], Relation.SENDER, lowered)
    with pytest.raises(Conflict, match="No lower priority is proposed or was set"):
        apply(State.RECEIVED, MOVES["object"], Relation.SENDER, PLAIN)


@pytest.mark.parametrize("name", ["upgrade", "downgrade"])
def test_a_priority_is_changed_before_the_patient_is_seen_and_by_the_receiver_only(
    name: str,
) -> None:
    changeable = {state for state in State if name in names(state, Relation.ACTING)}
    assert changeable == OPEN - {State.REQUESTED, State.REDIRECTED, State.IN_PROGRESS}
    assert apply(State.BOOKED, MOVES[name], Relation.ACTING, PLAIN) is State.BOOKED
    with pytest.raises(Conflict, match="Only the receiver may"):
        apply(State.RECEIVED, MOVES[name], Relation.SENDER, PLAIN)


def test_a_diagnosis_is_said_of_a_suspected_cancer_only() -> None:
    suspected = replace(PLAIN, pathway="suspected-oral-cancer")
    assert "diagnosed" in names(State.IN_PROGRESS, Relation.ACTING, suspected)
    assert "diagnosed" not in names(State.IN_PROGRESS, Relation.ACTING)
    with pytest.raises(Conflict, match="not referred as a suspected cancer"):
        apply(State.ACCEPTED, MOVES["diagnosed"], Relation.ACTING, PLAIN)


def test_a_suspected_cancer_ends_only_with_what_the_patient_was_told() -> None:
    complete, suspected = MOVES["complete"], replace(PLAIN, pathway="urgent-suspected-cancer")
    check_diagnosis(complete, {"outcome": "x", "diagnosis": "cancer-excluded"}, suspected)
    check_diagnosis(complete, {"outcome": "x"}, replace(suspected, is_diagnosed=True))
    check_diagnosis(complete, {"outcome": "x"}, PLAIN)
    check_diagnosis(MOVES["reject"], {"reason": "other", "advice": "x"}, suspected)
    for content, context, code in (
        ({"outcome": "x"}, suspected, "missing"),
        ({"outcome": "x", "diagnosis": "cancer-excluded"}, PLAIN, "not-suspected"),
    ):
        with pytest.raises(Refused) as caught:
            check_diagnosis(complete, content, context)
        (problem,) = caught.value.problems
        assert (problem.field, problem.code) == ("diagnosis", code)


def test_a_redirected_referral_waits_for_the_new_receivers_receipt() -> None:
    state = apply(State.ACCEPTED, MOVES["redirect"], Relation.ACTING, PLAIN)
    assert state is State.REDIRECTED
    assert apply(state, MOVES["receive"], Relation.ACTING, PLAIN) is State.RECEIVED


def test_sender_and_practice_hear_of_every_outcome() -> None:
    for move in MOVES.values():
        if move.name != "resolve" and move.to is not None and STAGES[move.to].is_terminal:
            hears = told(move, Relation.BROKER, "")
            assert Audience.PRACTICE in hears, move.name
            assert Audience.SENDER in hears or move.by == {Relation.SENDER}, move.name


def test_nobody_is_told_of_its_own_decision() -> None:
    for move in MOVES.values():
        for relation in move.by:
            own = {Relation.SENDER: Audience.SENDER, Relation.ACTING: Audience.RECEIVER}
            assert own.get(relation) not in told(move, relation, "")
    assert told(MOVES["decline"], Relation.SENDER, "") == {Audience.RECEIVER, Audience.PRACTICE}
    assert told(MOVES["expire"], Relation.BROKER, "") == set(Audience)


def test_a_rejection_must_carry_a_coded_reason_and_advice() -> None:
    reject = MOVES["reject"].carries
    assert check(reject, {"reason": "out-of-area", "advice": "Refer to Southmoor."}) == []
    missing = check(reject, {})
    assert [(p.field, p.code) for p in missing] == [("reason", "missing"), ("advice", "missing")]
    assert all(code in missing[0].todo for code in REJECTION_REASONS)


def test_everything_wrong_with_a_move_is_said_at_once() -> None:
    wrong = {"reason": "because", "advice": "  ", "practice_actions": 7, "state": "completed"}
    problems = check(MOVES["reject"].carries, wrong)
    assert [(p.field, p.code) for p in problems] == [
        ("state", "unknown-field"),
        ("reason", "unknown-code"),
        ("advice", "invalid"),
        ("practice_actions", "invalid"),
    ]


def test_a_move_that_carries_nothing_says_so_and_a_long_text_is_refused() -> None:
    assert check(MOVES["accept"].carries, {}) == []
    assert check(MOVES["receive"].carries, {"note": "x"})[0].todo == "It carries nothing."
    assert check(MOVES["complete"].carries, {"outcome": "x" * MAX_TEXT}) == []
    assert check(MOVES["complete"].carries, {"outcome": "x" * (MAX_TEXT + 1)})[0].code == "too-long"


def test_every_coded_reason_has_words_that_a_person_reads() -> None:
    for move in MOVES.values():
        for item in move.carries:
            assert item.words
            assert all((item.codes or {"": "-"}).values())


def test_whatever_a_move_carries_has_a_name_in_fhir() -> None:
    carried = {item.name for move in MOVES.values() for item in move.carries}
    assert carried == set(codes.system("move-item").displays)


def test_the_table_can_be_drawn_whole() -> None:
    heading, *rows = as_table()
    assert len(rows) == len(MOVES)
    assert all(len(row) == len(heading) for row in rows)
    assert rows[1][:4] == ("accept", "received, information-requested", "accepted", "receiver")
    assert rows[2][4:] == (
        "reason, advice, practice_actions?",
        "",
        "sender, practice",
        "POST /referrals/{id}/{move}",
    )
    assert rows[6] == (
        "reinstate",
        "rejected",
        "what it was before",
        "receiver",
        "note?",
        "only the organisation that decided, on the same London day",
        "sender, practice",
        "POST /referrals/{id}/{move}",
    )
