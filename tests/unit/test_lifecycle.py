"""The table of moves: every state, action and party, against a table written out once more by hand."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from lockbox.errors import InvalidMove, NotYours
from lockbox.facts.enumerations import State
from lockbox.requests.available_moves import move
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


def test_the_words_are_those_of_the_table() -> None:
    words = {(state, action) for action, states in STARTS.items() for state in states}

    assert {(state, action) for state, action, _ in TABLE} == words
    assert set(Party) == set(EVER_DOES)
    assert set(Action) == set(STARTS)
    assert len(EVERYTHING) == 10 * 10 * 9
    assert len(CELLS) == len(TABLE)


@each(("state", "action", "party"), CELLS)
def test_a_move_of_the_table_leads_where_it_says(state: State | None, action: Action, party: Party) -> None:
    row, taken_as = move(state, action, {party})

    assert (row.to, row.instead) == TABLE[state, action, party]
    assert taken_as is party


@each(("state", "action"), PAIRS)
def test_every_other_move_is_refused_to_every_party(state: State | None, action: Action) -> None:
    for party in [party for party in Party if (state, action, party) not in TABLE]:
        wrong_state = action in EVER_DOES[party] and state not in STARTS[action]

        with pytest.raises(InvalidMove if wrong_state else NotYours) as refused:
            move(state, action, {party})

        assert refused.value.facts == ({"current_state": state} if wrong_state else {})


@each("action", Action)
def test_nobody_may_do_anything_without_a_capacity(action: Action) -> None:
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
def test_who_stands_in_two_capacities_acts_in_the_one_that_the_row_is_open_to(
    state: State | None, action: Action, parties: set[Party], taken_as: Party
) -> None:
    _, party = move(state, action, parties)

    assert party is taken_as


def test_six_states_are_final_and_nothing_leads_out_of_them() -> None:
    final = {"denied", "cancelled", "timed_out", "completed", "revoked", "expired"}

    assert final == FINAL_STATES
    assert {"reviewing", "pending", "active"} == OPEN_STATES
    for state, action in itertools.product(FINAL_STATES, Action):
        with pytest.raises(InvalidMove):
            move(state, action, set(Party))


def test_the_clock_ends_what_is_open_and_people_do_the_rest() -> None:
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
def test_a_refusal_says_who_may_and_from_which_state_nothing_leads(
    state: State | None, action: Action, parties: set[Party], refusal: type[NotYours | InvalidMove], said: str
) -> None:
    with pytest.raises(refusal) as refused:
        move(state, action, parties)

    assert refused.value.detail == said


@each("state", sorted(OPEN_STATES))
def test_the_clock_reminds_before_the_deadline_and_ends_the_request_at_it(state: State) -> None:
    deadline_at = datetime(2026, 3, 1, tzinfo=UTC)
    moment = timedelta(microseconds=1)

    assert clock_task(state, deadline_at - moment, deadline_at) == "remind"
    assert clock_task(state, deadline_at, deadline_at) == CLOCK_ACTIONS[state]


def test_the_schedule_knows_all_that_the_clock_does() -> None:
    assert set(CLOCK.kinds) == {*CLOCK_ACTIONS.values(), REMIND}
