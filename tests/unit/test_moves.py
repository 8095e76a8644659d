"""The moves of requests in a log: which are missing, there twice or behind the end, and where that is said."""

from collections.abc import Sequence

import pytest

from lockbox.audit.verifier.export_format import Finding, FindingKind, Findings
from lockbox.audit.verifier.move_checks import MoveChecker
from tests.each import each

Move = tuple[int, str]
MOST = 2**53 - 1
"""The highest number that an event can hold: nobody has the time or the memory to count that far."""


def taken(moves: Sequence[Move], *, removed_before: bool = False, asked_by: int = 1) -> list[Finding]:
    """Return what is found in the moves of request A, the first of which stands in line 10 as event 100.

    The customer was asked by the move with the number `asked_by`.
    """
    requests = MoveChecker(Findings(), removed_before)
    for place, (seq, state) in enumerate(moves):
        where = {"line": 10 + place, "number": 100 + place, "event": f"e{place}"}
        requests.take("A", seq, state, where, begins=seq == asked_by)
    requests.finish()
    return requests.findings.first


def at(place: int, message: str) -> Finding:
    """Return the finding that stands at a move, counted from 0."""
    return Finding(FindingKind.GAP_IN_MOVES, message, 10 + place, 100 + place, f"e{place}")


@pytest.mark.parametrize(
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
def test_moves_that_are_all_there_are_no_finding_in_whatever_order_they_came(moves: list[Move]) -> None:
    assert taken(moves) == []


@each(
    ("moves", "place", "message"),
    [
        ([(1, "pending"), (1, "pending")], 1, "request A has its move 1 twice"),
        ([(1, "pending"), (2, "active"), (1, "pending")], 2, "request A has its move 1 twice"),
        ([(1, "pending"), (2, "active"), (2, "active")], 2, "request A has its move 2 twice"),
        ([(2, "active"), (2, "active"), (1, "pending")], 1, "request A has its move 2 twice"),
        ([(1, "denied"), (1, "denied")], 1, "request A has its move 1 after its final state, or twice"),
        (
            [(2, "denied"), (1, "pending"), (3, "active")],
            2,
            "request A has its move 3 after its final state, or twice",
        ),
        (
            [(1, "pending"), (3, "active"), (2, "denied")],
            2,
            "request A has events after its final state, move 2",
        ),
        (
            [(2, "denied"), (3, "revoked"), (1, "pending")],
            1,
            "request A has events after its final state, move 2",
        ),
    ],
)
def test_a_move_too_many_is_named_where_it_stands(moves: list[Move], place: int, message: str) -> None:
    assert taken(moves)[0] == at(place, message)


@pytest.mark.parametrize(
    ("moves", "message"),
    [
        ([(2, "active")], "request A lacks its move 1; others up to 2 are there"),
        ([(1, "pending"), (3, "active")], "request A lacks its move 2; others up to 3 are there"),
        ([(1, "pending"), (4, "revoked"), (3, "active")], "request A lacks its move 2; others up to 4 are there"),
        ([(1, "pending"), (2, "active"), (5, "active")], "request A lacks its move 3; others up to 5 are there"),
        (
            [(1, "pending"), (MOST, "active")],
            f"request A lacks its move 2; others up to {MOST} are there",
        ),
    ],
)
def test_the_first_move_that_never_came_is_named_for_the_whole(moves: list[Move], message: str) -> None:
    assert taken(moves) == [Finding(FindingKind.GAP_IN_MOVES, message)]


@pytest.mark.parametrize(
    "moves",
    [
        [(4, "active"), (5, "completed")],
        [(5, "completed"), (4, "active")],
        [(5, "completed"), (3, "active"), (4, "active")],
        [(2, "denied"), (1, "pending")],
    ],
)
def test_where_something_was_removed_a_request_may_begin_later(moves: list[Move]) -> None:
    assert taken(moves, removed_before=True) == []


@pytest.mark.parametrize(
    ("moves", "found"),
    [
        (
            [(MOST, "completed"), (1, "active"), (2, "active")],
            [Finding(FindingKind.GAP_IN_MOVES, f"request A lacks its move 3; others up to {MOST} are there")],
        ),
        (
            [(5, "completed"), (3, "active")],
            [Finding(FindingKind.GAP_IN_MOVES, "request A lacks its move 4; others up to 5 are there")],
        ),
        (
            [(5, "active"), (3, "active"), (3, "active"), (4, "active")],
            [at(2, "request A has its move 3 twice")],
        ),
        (
            [(4, "active"), (5, "completed"), (6, "active")],
            [at(2, "request A has events after its final state, move 5")],
        ),
        (
            [(2, "denied"), (3, "active")],
            [at(1, "request A has events after its final state, move 2")],
        ),
    ],
)
def test_a_request_that_begins_later_has_no_gap_and_no_move_twice(moves: list[Move], found: list[Finding]) -> None:
    assert taken(moves, removed_before=True) == found


@pytest.mark.parametrize(
    "moves",
    [
        [(2, "pending")],
        [(2, "pending"), (3, "active"), (4, "completed")],
        [(4, "completed"), (3, "active"), (2, "pending")],
    ],
)
@pytest.mark.parametrize("removed_before", [True, False])
def test_the_moves_of_a_request_begin_with_the_one_that_asked_the_customer(
    moves: list[Move], *, removed_before: bool
) -> None:
    assert taken(moves, asked_by=2, removed_before=removed_before) == []
    assert taken([(2, "denied"), *moves], asked_by=2)[0].kind is FindingKind.GAP_IN_MOVES


@pytest.mark.parametrize("moves", [[(2, "pending"), (1, "reviewing")], [(1, "reviewing"), (2, "pending")]])
def test_a_move_before_the_one_that_asked_the_customer_is_found(moves: list[Move]) -> None:
    assert taken(moves, asked_by=2) == [at(1, "request A has its move 1 before the one with which it begins")]


def test_a_request_that_asks_the_customer_twice_is_found() -> None:
    requests = MoveChecker(Findings())

    for seq in (2, 3):
        requests.take("A", seq, "pending", {}, begins=True)

    (only,) = requests.findings.first
    assert only.message == "request A begins twice: with its move 2, and with 3"


def test_each_request_has_moves_of_its_own() -> None:
    requests = MoveChecker(Findings())

    for request, seq in (("A", 1), ("B", 1), ("B", 2), ("C", 2)):
        requests.take(request, seq, "active", {}, begins=seq == 1)
    requests.finish()

    (only,) = requests.findings.first
    assert only.message == "request C lacks its move 1; others up to 2 are there"
