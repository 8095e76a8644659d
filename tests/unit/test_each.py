"""A table of cases in one test: every case runs, failing cases are named, and fixtures still work."""

import inspect

import pytest

from tests.each import each


def test_every_case_of_a_table_test_runs_and_failing_cases_are_named() -> None:
    tried = []

    @each("number", [1, 2, 3])
    def is_odd(number: int) -> None:
        tried.append(number)
        assert number % 2, "even"

    with pytest.raises(ExceptionGroup, match="1 of 3 cases") as off:
        is_odd()

    assert tried == [1, 2, 3]
    assert off.value.exceptions[0].__notes__[-1] == "case: {'number': 2}"


def test_stacked_each_decorators_run_every_combination_and_keep_fixture_parameters() -> None:
    seen = []

    @each("letter", "ab")
    @each(("low", "high"), [(1, 2), (3, 4)])
    def noted(base: int, letter: str, low: int, high: int) -> None:
        seen.append((base, letter, low, high))

    assert list(inspect.signature(noted).parameters) == ["base"]
    noted(base=9)

    assert seen == [(9, "a", 1, 2), (9, "a", 3, 4), (9, "b", 1, 2), (9, "b", 3, 4)]


def test_a_table_test_without_cases_fails() -> None:
    @each("number", [])
    def nothing(number: int) -> None:
        raise AssertionError(number)

    with pytest.raises(AssertionError, match="there is no case"):
        nothing()
