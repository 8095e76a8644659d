"""The figures of the benchmark: quantiles, medians, targets and comparisons are what they are called."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import Comparison, Figure, medians, quantile
from bench.gate_checks import held_mib

VALUES = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1)


def test_a_quantile_is_one_of_the_values_by_nearest_rank() -> None:
    hundred = [float(number) for number in range(100, 0, -1)]

    assert quantile(hundred, 0.5) == 50
    assert quantile(hundred, 0.99) == 99
    assert quantile(hundred, 1) == 100
    assert quantile([7.0], 0.01) == 7


@given(VALUES, st.floats(min_value=0.01, max_value=1))
def test_at_least_the_share_of_the_values_does_not_exceed_its_quantile(values: list[float], share: float) -> None:
    found = quantile(values, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0), ([1.0], 1.1)])
def test_no_values_and_no_share_have_no_quantile(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="quantile"):
        quantile(values, share)


def test_each_figure_of_several_runs_has_a_median_of_its_own() -> None:
    runs = [{"a": 1.0, "b": 30.0}, {"a": 2.0, "b": 10.0}, {"a": 9.0, "b": 20.0}]

    assert medians(runs) == {"a": 2.0, "b": 20.0}


def test_a_target_is_met_at_its_very_figure_whichever_way_is_better() -> None:
    for more in (True, False):
        at = Figure("at", 5, 5, "s", more_is_better=more)
        above, below = (Figure("off", value, 5, "s", more_is_better=more) for value in (6, 4))

        assert at.is_met
        assert above.is_met is more
        assert below.is_met is not more


def test_what_does_nothing_meets_no_target_of_more() -> None:
    nothing = Figure("rate", 0, 10, "/s", more_is_better=True)

    assert nothing.ratio == math.inf
    assert not nothing.is_met


def test_what_is_no_number_meets_no_target() -> None:
    assert not Figure("late", math.nan, 10, "ms").is_met


def test_lockbox_is_held_against_the_best_of_the_others_whichever_way_is_better() -> None:
    rates = Comparison("ended", "/s", 300, 600, {"slow": 10, "fast": 30})
    costs = Comparison("cpu", "ms", 2, None, {"cheap": 4, "dear": 9}, more_is_better=False)

    assert (rates.of_floor, rates.best_peer, rates.times_best_peer) == (0.5, 30, 10)
    assert (costs.of_floor, costs.best_peer, costs.times_best_peer) == (None, 4, 2)


def test_without_others_there_is_no_ratio_to_them() -> None:
    alone = Comparison("ended", "/s", 300, 600)

    assert (alone.best_peer, alone.times_best_peer) == (None, None)


def test_whoever_takes_nothing_is_infinitely_better_than_who_takes_something() -> None:
    assert Comparison("bytes", "", 0, None, {"other": 8}, more_is_better=False).times_best_peer == math.inf


@pytest.mark.far
def test_windows_in_memory_are_measured_as_the_gate_holds_them() -> None:
    assert held_mib(100) < 10
