"""Slots of clients are counted over all processes of a server, and an ended process holds none."""

from copy import copy

import pytest

from api.client_counts import ClientCounts


@pytest.fixture
def two() -> tuple[ClientCounts, ClientCounts]:
    """The counts as two processes see them after the fork."""
    first = ClientCounts(2)
    second = copy(first)
    first.begin(0)
    second.begin(1)
    return first, second


def test_slots_taken_by_one_process_count_in_the_other_process(two: tuple[ClientCounts, ClientCounts]) -> None:
    first, second = two

    taken = [first.take("a", 3), second.take("a", 3), first.take("a", 3), second.take("a", 3), first.take("a", 3)]

    assert taken == [True, True, True, False, False]
    assert first.held("a") == second.held("a") == 3
    assert second.take("b", 1)


def test_a_slot_released_by_one_process_is_free_in_both_processes(two: tuple[ClientCounts, ClientCounts]) -> None:
    first, second = two
    assert first.take("a", 1)
    assert not second.take("a", 1)

    first.give_back("a")

    assert second.take("a", 1)
    assert first.held("a") == 1


def test_an_ended_process_has_no_slots(two: tuple[ClientCounts, ClientCounts]) -> None:
    first, second = two
    for _ in range(5):
        assert second.take("a", 9)
    assert first.take("a", 9)

    first.forget(1)

    assert first.held("a") == 1


def test_a_replacement_process_begins_without_the_slots_of_the_process_it_replaces(
    two: tuple[ClientCounts, ClientCounts],
) -> None:
    first, second = two
    assert second.take("a", 9)

    second.begin(1)

    assert first.held("a") == 0


def test_the_slots_of_many_clients_are_distinguished() -> None:
    counts = ClientCounts()
    for number in range(2000):
        assert counts.take(f"client {number}", 1)

    assert sum(counts.held(f"client {number}") for number in range(2000)) == 2000
