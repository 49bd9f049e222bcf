"""Who may do what, cell by cell: what is not listed here must be refused."""

import itertools
from datetime import UTC, date, datetime

import pytest

from broker.access import (
    OPEN_ROUTES,
    TABLE,
    Action,
    Caller,
    Decision,
    as_table,
    decide,
    scopes,
)
from broker.directory_entries import Agreement
from broker.referral import MOVES, Door, Relation

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
EVERYTHING = frozenset(scopes(("optometry", "pharmacy")))
R = Relation

# By hand, not derived from the code: action, scope, relations at label N, at label R.
SENDER = {R.SENDER}
PARTIES = {R.SENDER, R.ACTING}
DELIVERED = {R.ACTING, R.COPY, R.NOTICE}
CELLS: dict[Action, tuple[str, set[Relation], set[Relation]]] = {
    Action.CORRECT: ("pharmacy:submit", SENDER, SENDER),
    Action.WITHDRAW: ("messages:write", SENDER, SENDER),
    Action.CLOSE: ("messages:write", SENDER, SENDER),
    Action.RECORD_CALL: ("messages:write", SENDER, SENDER),
    Action.TRACK: ("messages:read", PARTIES | DELIVERED, PARTIES),
    Action.COLLECT: ("inbox:read", DELIVERED, DELIVERED),
    Action.FETCH: ("attachments:read", DELIVERED, DELIVERED),
    Action.GIVE_RECEIPT: ("inbox:write", DELIVERED, DELIVERED),
    Action.ACKNOWLEDGE: ("inbox:write", {R.ACTING, R.COPY}, {R.ACTING, R.COPY}),
    Action.READ_REFERRAL: ("referrals:read", PARTIES | DELIVERED, PARTIES),
    Action.MOVE_REFERRAL: ("referrals:write", PARTIES, PARTIES),
    Action.CONVERT_REFERRAL: ("referrals:write", PARTIES, PARTIES),
    Action.UPDATE_TASK: ("fhir:write", PARTIES, PARTIES),
    Action.READ_THREAD: ("messages:read", PARTIES | DELIVERED, PARTIES),
    Action.READ_RESOURCE: ("fhir:read", PARTIES | DELIVERED, PARTIES),
}
OWN = {
    Action.SUBMIT: "pharmacy:submit",
    Action.UPLOAD: "attachments:write",
    Action.LIST_MESSAGES: "messages:read",
    Action.LIST_OVERDUE: "messages:read",
    Action.LIST_INBOX: "inbox:read",
    Action.READ_ORGANISATION: "directory:read",
    Action.READ_PATHWAYS: "directory:read",
    Action.LIST_SERVICES: "directory:read",
    Action.SEARCH_RESOURCES: "fhir:read",
    Action.CREATE_RESOURCE: "fhir:write",
    Action.PROCESS_MESSAGE: "bars:process-message",
}


def ask(
    action: Action,
    relation: Relation = R.NONE,
    *,
    scopes: frozenset[str] = EVERYTHING,
    label: str = "N",
    purpose: str = "direct-care",
    agreement: Agreement | None = None,
) -> Decision:
    return decide(
        Caller("client-1", "FPH01", scopes, "Pharmacy system"),
        action,
        relation=relation,
        agreement=agreement,
        purpose=purpose,
        label=label,
        now=NOW,
        door="pharmacy",
    )


def signed(**changes: object) -> Agreement:
    values: dict[str, object] = {
        "code": "DSA",
        "parties": ("FPH01", "G99001"),
        "pathways": ("all",),
        "purpose": "direct-care",
        "valid_from": date(2026, 1, 1),
        "valid_to": None,
        "document": "Agreement",
    }
    return Agreement(**(values | changes))  # type: ignore[arg-type]


def test_the_table_has_a_row_for_every_action_and_this_test_a_line_for_every_row() -> None:
    assert set(TABLE) == set(Action) == {*CELLS, *OWN}


@pytest.mark.parametrize(
    ("action", "relation", "label"),
    list(itertools.product(CELLS, R, ("U", "L", "M", "N", "R", "V", "", "unheard-of"))),
)
def test_an_object_is_open_to_exactly_the_relations_listed(
    action: Action, relation: Relation, label: str
) -> None:
    scope, ordinary, restricted = CELLS[action]
    permitted = ordinary if label in {"U", "L", "M", "N"} else restricted
    decision = ask(action, relation, label=label, scopes=frozenset({scope}))
    assert decision.allowed is (relation in permitted)
    assert decision.reason


@pytest.mark.parametrize("action", [*CELLS, *OWN])
def test_without_its_own_scope_nothing_is_allowed_and_nothing_is_given_away(
    action: Action,
) -> None:
    scope = CELLS[action][0] if action in CELLS else OWN[action]
    for relation in R:
        refused = ask(action, relation, scopes=EVERYTHING - {scope})
        assert not refused.allowed
        assert not refused.as_not_found
        # The same words whatever the object is to the caller, and whether it is there at all.
        assert refused == ask(action, R.NONE, scopes=EVERYTHING - {scope}, label="V")


@pytest.mark.parametrize("action", OWN)
def test_what_is_about_the_callers_own_organisation_needs_the_scope_only(action: Action) -> None:
    assert ask(action, scopes=frozenset({OWN[action]})).allowed


@pytest.mark.parametrize("action", CELLS)
def test_what_is_not_the_callers_is_not_there(action: Action) -> None:
    refused = ask(action, R.NONE)
    assert refused == Decision(False, "There is nothing here for this caller.", as_not_found=True)
    assert ask(action, R.BROKER).as_not_found


def test_a_party_that_may_read_but_not_act_is_told_so() -> None:
    refused = ask(Action.MOVE_REFERRAL, R.COPY)
    assert refused == Decision(False, "Only the sender or the receiver may move this referral.")
    assert ask(Action.WITHDRAW, R.ACTING).reason == "Only the sender may withdraw this message."
    assert all(TABLE[action].does for action in CELLS)


def test_a_restricted_label_hides_the_thing_from_whoever_is_no_named_party() -> None:
    for label in ("R", "V", "unheard-of"):
        for relation in (R.COPY, R.NOTICE):
            assert ask(Action.READ_REFERRAL, relation, label=label).as_not_found
            assert ask(Action.TRACK, relation, label=label).as_not_found
            assert ask(Action.MOVE_REFERRAL, relation, label=label).as_not_found


def test_what_was_delivered_can_be_collected_whatever_its_label() -> None:
    assert ask(Action.COLLECT, R.COPY, label="R").allowed
    assert ask(Action.GIVE_RECEIPT, R.NOTICE, label="V").allowed


def test_every_move_with_an_open_door_has_a_mover_who_passes() -> None:
    for move in MOVES.values():
        if move.door is Door.MOVE:
            assert all(ask(Action.MOVE_REFERRAL, relation).allowed for relation in move.by)


def test_the_broker_serves_direct_care_only() -> None:
    refused = ask(Action.TRACK, R.SENDER, purpose="research")
    assert not refused.allowed
    assert "research" in refused.reason
    # Asked after the object, so that a stranger does not learn what an object is for.
    assert ask(Action.TRACK, R.NONE, purpose="research").as_not_found


@pytest.mark.parametrize(
    ("agreement", "holds"),
    [
        (None, True),
        (signed(), True),
        (signed(valid_to=date(2026, 11, 23)), True),
        (signed(valid_to=date(2026, 11, 22)), False),
        (signed(valid_from=date(2026, 11, 24)), False),
        (signed(parties=("TPX01", "G99001")), False),
    ],
)
def test_an_agreement_that_is_out_of_force_starts_nothing_new(
    agreement: Agreement | None, holds: bool
) -> None:
    for action, relation in (
        (Action.SUBMIT, R.NONE),
        (Action.SUBMIT, R.NONE),
        (Action.CORRECT, R.SENDER),
        (Action.CORRECT, R.SENDER),
    ):
        assert ask(action, relation, agreement=agreement).allowed is holds
    # What was sent under it can be seen through to its end.
    for action, relation in (
        (Action.COLLECT, R.ACTING),
        (Action.MOVE_REFERRAL, R.ACTING),
        (Action.WITHDRAW, R.SENDER),
        (Action.TRACK, R.SENDER),
    ):
        assert ask(action, relation, agreement=agreement).allowed


def test_without_a_caller_nothing_is_allowed() -> None:
    for action in Action:
        decision = decide(
            None,
            action,
            relation=R.SENDER,
            agreement=None,
            purpose="direct-care",
            label="N",
            now=NOW,
        )
        assert not decision.allowed
        assert not decision.as_not_found


def test_the_open_routes_are_these_and_no_others() -> None:
    assert set(OPEN_ROUTES) == {
        "/health/live",
        "/health/ready",
        "/oauth2/token",
        "/docs",
        "/openapi.json",
        "/FHIR/R4/metadata",
        "/FHIR/R4/{definition}",
        "/FHIR/R4/{definition}/{id}",
    }


def test_the_table_can_be_printed_whole() -> None:
    heading, *rows = as_table()
    assert len(rows) == len(TABLE)
    assert all(len(row) == len(heading) for row in rows)
    assert ("message.withdraw", "messages:write", "sender", "sender", "") in rows
    assert ("inbox.list", "inbox:read", "own organisation", "own organisation", "") in rows


def test_each_door_asks_for_its_own_scope() -> None:
    caller = Caller("client-1", "TPX01", frozenset({"pharmacy:submit"}))
    asked = {"relation": R.NONE, "agreement": None, "purpose": "direct-care", "label": "N"}
    for door, allowed in (("pharmacy", True), ("optometry", False), ("", False)):
        decision = decide(caller, Action.SUBMIT, now=NOW, door=door, **asked)  # type: ignore[arg-type]
        assert decision.allowed is allowed
