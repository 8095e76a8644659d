"""The table of moves: every state, action and party, against a table written out once more by hand."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cli.request_table import COLOURS, WORDS
from lockbox.audit.verifier.export_format import Finding, FindingKind, Findings
from lockbox.audit.verifier.move_checks import MoveChecker
from lockbox.errors import InvalidMove, NotYours
from lockbox.facts.enumerations import State
from lockbox.identity.roles import Side
from lockbox.notifications.mail_text import (
    NOBODY_NOTIFIED,
    OUTLIVED,
    REQUEST_SUBJECTS,
    STATE_WORDINGS,
    Tone,
    approved,
)
from lockbox.requests.deadlines import REMIND, clock_task
from lockbox.requests.lifecycle import (
    CLOCK_ACTIONS,
    DECISIONS,
    FINAL_STATES,
    OPEN_STATES,
    PEOPLES_ACTIONS,
    Action,
    Party,
)
from lockbox.requests.permitted_moves import move
from lockbox.schedule import CLOCK
from tests.each import each

# from, action, by -> to, or what follows where the policy says otherwise
TABLE = {
    (None, "submit", "engineer"): ("reviewing", "pending"),
    (None, "submit", "system"): ("reviewing", "pending"),
    ("reviewing", "endorse", "manager"): ("pending", "active"),
    ("reviewing", "break_glass", "manager"): ("active", None),
    ("reviewing", "deny", "manager"): ("denied", None),
    ("reviewing", "deny", "tenant_admin"): ("denied", None),
    ("reviewing", "cancel", "requester"): ("cancelled", None),
    ("reviewing", "cancel", "operator"): ("cancelled", None),
    ("reviewing", "cancel", "system"): ("cancelled", None),
    ("reviewing", "time_out", "clock"): ("timed_out", None),
    ("reviewing", "time_out", "owner"): ("timed_out", None),
    ("pending", "approve", "approver"): ("active", "pending"),
    ("pending", "deny", "approver"): ("denied", None),
    ("pending", "deny", "tenant_admin"): ("denied", None),
    ("pending", "cancel", "requester"): ("cancelled", None),
    ("pending", "cancel", "operator"): ("cancelled", None),
    ("pending", "cancel", "system"): ("cancelled", None),
    ("pending", "time_out", "clock"): ("timed_out", None),
    ("pending", "time_out", "owner"): ("timed_out", None),
    ("active", "complete", "requester"): ("completed", None),
    ("active", "revoke", "approver"): ("revoked", None),
    ("active", "revoke", "tenant_admin"): ("revoked", None),
    ("active", "revoke", "manager"): ("revoked", None),
    ("active", "revoke", "operator"): ("revoked", None),
    ("active", "revoke", "owner"): ("revoked", None),
    ("active", "revoke", "system"): ("revoked", None),
    ("active", "expire", "clock"): ("expired", None),
}
STARTS: dict[str, set[str | None]] = {
    "submit": {None},
    "endorse": {"reviewing"},
    "break_glass": {"reviewing"},
    "approve": {"pending"},
    "deny": {"reviewing", "pending"},
    "cancel": {"reviewing", "pending"},
    "time_out": {"reviewing", "pending"},
    "complete": {"active"},
    "revoke": {"active"},
    "expire": {"active"},
}
EVER_DOES = {
    "engineer": {"submit"},
    "system": {"submit", "cancel", "revoke"},
    "requester": {"cancel", "complete"},
    "manager": {"endorse", "break_glass", "deny", "revoke"},
    "approver": {"approve", "deny", "revoke"},
    "tenant_admin": {"deny", "revoke"},
    "operator": {"cancel", "revoke"},
    "clock": {"time_out", "expire"},
    "owner": {"time_out", "revoke"},
}
EVERYTHING = list(itertools.product([None, *State], Action, Party))
CELLS = [cell for cell in EVERYTHING if cell in TABLE]
PAIRS = list(itertools.product([None, *State], Action))


def test_the_lifecycle_has_exactly_the_states_and_actions_of_the_table() -> None:
    words = {(state, action) for action, states in STARTS.items() for state in states}

    assert {(state, action) for state, action, _ in TABLE} == words
    assert set(Party) == set(EVER_DOES)
    assert set(Action) == set(STARTS)
    assert len(EVERYTHING) == 10 * 10 * 9
    assert len(CELLS) == len(TABLE)


@each(("state", "action", "party"), CELLS)
def test_each_move_leads_to_the_state_in_the_table(state: State | None, action: Action, party: Party) -> None:
    row, taken_as = move(state, action, {party})

    assert (row.to, row.instead) == TABLE[state, action, party]
    assert taken_as is party


@each(("state", "action"), PAIRS)
def test_every_move_outside_the_table_is_refused_to_every_party(state: State | None, action: Action) -> None:
    for party in [party for party in Party if (state, action, party) not in TABLE]:
        wrong_state = action in EVER_DOES[party] and state not in STARTS[action]

        with pytest.raises(InvalidMove if wrong_state else NotYours) as refused:
            move(state, action, {party})

        assert refused.value.facts == ({"current_state": state} if wrong_state else {})


@each("action", Action)
def test_no_move_is_possible_without_a_role(action: Action) -> None:
    for state in (None, *State):
        with pytest.raises(NotYours):
            move(state, action, set())


@pytest.mark.parametrize(
    ("state", "action", "parties", "taken_as"),
    [
        (State.ACTIVE, Action.REVOKE, {Party.APPROVER, Party.TENANT_ADMIN}, Party.APPROVER),
        (State.ACTIVE, Action.REVOKE, {Party.MANAGER, Party.TENANT_ADMIN}, Party.MANAGER),
        (State.PENDING, Action.DENY, {Party.MANAGER, Party.APPROVER}, Party.APPROVER),
        (State.PENDING, Action.DENY, {Party.TENANT_ADMIN, Party.APPROVER}, Party.APPROVER),
        (State.PENDING, Action.APPROVE, {Party.TENANT_ADMIN, Party.APPROVER}, Party.APPROVER),
        (State.REVIEWING, Action.DENY, {Party.MANAGER, Party.APPROVER}, Party.MANAGER),
        (None, Action.SUBMIT, {Party.SYSTEM, Party.ENGINEER}, Party.ENGINEER),
    ],
)
def test_a_person_with_two_roles_acts_in_the_role_that_permits_the_move(
    state: State | None, action: Action, parties: set[Party], taken_as: Party
) -> None:
    _, party = move(state, action, parties)

    assert party is taken_as


def test_six_request_states_are_final() -> None:
    final = {"denied", "cancelled", "timed_out", "completed", "revoked", "expired"}

    assert final == FINAL_STATES
    assert {"reviewing", "pending", "active"} == OPEN_STATES
    for state, action in itertools.product(FINAL_STATES, Action):
        with pytest.raises(InvalidMove):
            move(state, action, set(Party))


def test_only_the_timer_times_out_or_expires_requests_and_only_people_make_other_moves() -> None:
    assert CLOCK_ACTIONS == {"reviewing": "time_out", "pending": "time_out", "active": "expire"}
    assert {"endorse", "break_glass", "approve", "deny"} == DECISIONS
    assert {*DECISIONS, "cancel", "complete", "revoke"} == PEOPLES_ACTIONS


@pytest.mark.parametrize(
    ("state", "action", "parties", "refusal", "said"),
    [
        (None, Action.SUBMIT, {Party.CLOCK}, NotYours, "Only engineer or system may submit a request."),
        (State.ACTIVE, Action.EXPIRE, set(Party) - {Party.CLOCK}, NotYours, "Only clock may expire a request."),
        (
            State.DENIED,
            Action.REVOKE,
            set(Party),
            InvalidMove,
            "A request that is denied cannot be changed by revoke.",
        ),
        (
            State.PENDING,
            Action.DENY,
            {Party.MANAGER},
            NotYours,
            "Only approver or tenant_admin may deny a request that is pending.",
        ),
    ],
)
def test_a_refused_move_names_the_roles_and_the_final_states(
    state: State | None, action: Action, parties: set[Party], refusal: type[NotYours | InvalidMove], said: str
) -> None:
    with pytest.raises(refusal) as refused:
        move(state, action, parties)

    assert refused.value.detail == said


@each("state", sorted(OPEN_STATES))
def test_the_timer_reminds_before_the_deadline_and_ends_the_request_at_the_deadline(state: State) -> None:
    deadline_at = datetime(2026, 3, 1, tzinfo=UTC)
    moment = timedelta(microseconds=1)

    assert clock_task(state, deadline_at - moment, deadline_at) == "remind"
    assert clock_task(state, deadline_at, deadline_at) == CLOCK_ACTIONS[state]


def test_the_schedule_covers_everything_the_timer_does() -> None:
    assert set(CLOCK.kinds) == {*CLOCK_ACTIONS.values(), REMIND}


Move = tuple[int, str]
REMOVED = {"removed_before": True}
MOST = 2**53 - 1
"""The highest number that an event can hold, too high to count up to in time or memory."""


def taken(moves: Sequence[Move], *, removed_before: bool = False, asked_by: int = 1) -> list[Finding]:
    """Return the findings about the moves of request A, whose first row is event 100 in line 10.

    The move with the number `asked_by` asked the customer.
    """
    requests = MoveChecker(Findings(), removed_before)
    for place, (seq, state) in enumerate(moves):
        where = {"line": 10 + place, "number": 100 + place, "event": f"e{place}"}
        requests.take("A", seq, state, where, begins=seq == asked_by)
    requests.finish()
    return requests.findings.first


def at(place: int, message: str) -> Finding:
    """Return the finding about a move; places are counted from 0."""
    return Finding(FindingKind.GAP_IN_MOVES, message, 10 + place, 100 + place, f"e{place}")


def lacking(seq: int, highest: int) -> Finding:
    return Finding(FindingKind.GAP_IN_MOVES, f"request A lacks its move {seq}; others up to {highest} are there")


def twice(place: int, seq: int) -> Finding:
    return at(place, f"request A has its move {seq} twice")


def ended(place: int, seq: int) -> Finding:
    return at(place, f"request A has events after its final state, move {seq}")


def after_the_end(place: int, seq: int) -> Finding:
    return at(place, f"request A has its move {seq} after its final state, or twice")


@each(
    "moves",
    [
        [],
        [(1, "reviewing")],
        [(1, "pending"), (2, "active"), (3, "completed")],
        [(2, "active"), (1, "pending")],
        [(3, "revoked"), (2, "active"), (1, "pending")],
        [(4, "revoked"), (2, "active"), (3, "active"), (1, "pending")],
    ],
)
def test_the_verifier_accepts_the_moves_of_a_request_in_any_order_if_none_is_missing(moves: list[Move]) -> None:
    assert taken(moves) == []


@each(
    ("moves", "finding"),
    [
        ([(1, "pending"), (1, "pending")], twice(1, 1)),
        ([(1, "pending"), (2, "active"), (1, "pending")], twice(2, 1)),
        ([(1, "pending"), (2, "active"), (2, "active")], twice(2, 2)),
        ([(2, "active"), (2, "active"), (1, "pending")], twice(1, 2)),
        ([(1, "denied"), (1, "denied")], after_the_end(1, 1)),
        ([(2, "denied"), (1, "pending"), (3, "active")], after_the_end(2, 3)),
        ([(1, "pending"), (3, "active"), (2, "denied")], ended(2, 2)),
        ([(2, "denied"), (3, "revoked"), (1, "pending")], ended(1, 2)),
    ],
)
def test_the_verifier_detects_a_surplus_move_at_its_place(moves: list[Move], finding: Finding) -> None:
    assert taken(moves)[0] == finding


@each(
    ("moves", "options", "findings"),
    [
        # The first missing move is reported, without an event's number.
        ([(2, "active")], {}, [lacking(1, 2)]),
        ([(1, "pending"), (3, "active")], {}, [lacking(2, 3)]),
        ([(1, "pending"), (4, "revoked"), (3, "active")], {}, [lacking(2, 4)]),
        ([(1, "pending"), (2, "active"), (5, "active")], {}, [lacking(3, 5)]),
        ([(1, "pending"), (MOST, "active")], {}, [lacking(2, MOST)]),
        # A request may begin later where events were removed.
        ([(4, "active"), (5, "completed")], REMOVED, []),
        ([(5, "completed"), (4, "active")], REMOVED, []),
        ([(5, "completed"), (3, "active"), (4, "active")], REMOVED, []),
        ([(2, "denied"), (1, "pending")], REMOVED, []),
        # There, gaps and repeats in later moves are still reported.
        ([(MOST, "completed"), (1, "active"), (2, "active")], REMOVED, [lacking(3, MOST)]),
        ([(5, "completed"), (3, "active")], REMOVED, [lacking(4, 5)]),
        ([(5, "active"), (3, "active"), (3, "active"), (4, "active")], REMOVED, [twice(2, 3)]),
        ([(4, "active"), (5, "completed"), (6, "active")], REMOVED, [ended(2, 5)]),
        ([(2, "denied"), (3, "active")], REMOVED, [ended(1, 2)]),
        # In a customer's log no move stands before the one that asked the customer.
        *(
            (moves, {"asked_by": 2}, [at(1, "request A has its move 1 before the one with which it begins")])
            for moves in ([(2, "pending"), (1, "reviewing")], [(1, "reviewing"), (2, "pending")])
        ),
    ],
)
def test_the_verifier_reports_missing_repeated_and_early_moves_of_a_request(
    moves: list[Move], options: dict[str, Any], findings: list[Finding]
) -> None:
    assert taken(moves, **options) == findings


@pytest.mark.parametrize(
    "moves",
    [
        [(2, "pending")],
        [(2, "pending"), (3, "active"), (4, "completed")],
        [(4, "completed"), (3, "active"), (2, "pending")],
    ],
)
@pytest.mark.parametrize("removed_before", [True, False])
def test_in_a_customers_log_a_requests_moves_begin_with_asking_the_customer(
    moves: list[Move], *, removed_before: bool
) -> None:
    assert taken(moves, asked_by=2, removed_before=removed_before) == []
    assert taken([(2, "denied"), *moves], asked_by=2)[0].kind is FindingKind.GAP_IN_MOVES


def test_the_verifier_reports_that_the_customer_was_asked_twice() -> None:
    requests = MoveChecker(Findings())

    for seq in (2, 3):
        requests.take("A", seq, "pending", {}, begins=True)

    (only,) = requests.findings.first
    assert only.message == "request A begins twice: with its move 2, and with 3"


def test_the_verifier_checks_the_moves_of_each_request_separately() -> None:
    requests = MoveChecker(Findings())

    for request, seq in (("A", 1), ("B", 1), ("B", 2), ("C", 2)):
        requests.take(request, seq, "active", {}, begins=seq == 1)
    requests.finish()

    (only,) = requests.findings.first
    assert only.message == "request C lacks its move 1; others up to 2 are there"


PRODUCT = {
    "reviewing": "In vendor review",
    "pending": "Waiting for your approval",
    "active": "Open",
    "denied": "Denied",
    "cancelled": "Cancelled by vendor",
    "timed_out": "Timed out",
    "completed": "Completed",
    "revoked": "Revoked",
    "expired": "Expired",
}


def test_every_request_state_has_words_and_a_tone() -> None:
    assert STATE_WORDINGS.keys() == {*State, NOBODY_NOTIFIED, OUTLIVED}
    assert {name: STATE_WORDINGS[name].to(Side.CUSTOMER) for name in PRODUCT} == PRODUCT
    assert {saying.tone for saying in STATE_WORDINGS.values()} == set(Tone) == set(COLOURS)


def test_words_for_vendor_people_do_not_address_them_as_the_customer() -> None:
    for saying in STATE_WORDINGS.values():
        words = saying.to(Side.VENDOR)
        assert "you" not in words.lower().split()
        assert "your" not in words.lower().split()


def test_a_terminal_and_the_pages_have_the_same_words_for_request_states() -> None:
    assert {name: WORDS[name][0] for name in PRODUCT} == PRODUCT | {"pending": "Waiting for the customer's approval"}


@pytest.mark.parametrize("name", ["denied", "cancelled", "timed_out", "completed", "revoked", "expired"])
def test_the_subject_of_an_outcome_mail_begins_with_the_words_for_the_final_state(name: str) -> None:
    assert REQUEST_SUBJECTS[name].startswith(f"{STATE_WORDINGS[name].others}: ")


def test_the_words_for_a_pending_request_are_followed_by_the_vote_count() -> None:
    assert approved(1, 2) == "(1 of 2 approved)"
