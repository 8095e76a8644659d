"""The plan of faults: a function of the seed, in which nothing is struck twice at once and nothing is left out."""

import itertools

from chaos import plan
from chaos.plan import KINDS, Fault
from chaos.strikes import STRIKES
from tests.each import each

SEEDS = range(1, 21)
SECONDS = 40


def all_faults() -> list[Fault]:
    return [fault for seed in SEEDS for fault in plan.make(seed, SECONDS).faults]


def test_the_same_seed_makes_the_same_plan_and_another_seed_another() -> None:
    assert plan.make(7, SECONDS) == plan.make(7, SECONDS)
    assert len({plan.make(seed, SECONDS).faults for seed in SEEDS}) == len(SEEDS)


def test_over_twenty_seeds_every_kind_of_fault_strikes_each_of_its_targets() -> None:
    wanted = {(kind.name, target) for kind in KINDS for target in kind.targets}

    assert {(fault.kind, fault.target) for fault in all_faults()} == wanted


def test_over_twenty_seeds_both_core_workers_have_a_clock_that_is_fast_or_slow() -> None:
    plans = [plan.make(seed, SECONDS) for seed in SEEDS]

    assert {(one.shifted, one.shift) for one in plans} == {
        (worker, shift) for worker in plan.CORE for shift in (-300, 300)
    }


def test_every_kind_of_fault_has_a_strike_and_no_strike_is_never_planned() -> None:
    assert {kind.name for kind in KINDS} == set(STRIKES)


@each("seed", SEEDS)
def test_nothing_is_struck_by_two_faults_at_once_nor_after_the_end(seed: int) -> None:
    faults = plan.make(seed, SECONDS).faults

    assert list(faults) == sorted(faults, key=lambda one: one.at)
    assert all(0 < fault.at <= fault.ends <= SECONDS for fault in faults)
    for first, second in itertools.combinations(faults, 2):
        assert first.target != second.target or first.ends < second.at


def test_a_longer_plan_begins_as_the_shorter_one_does() -> None:
    short, long = plan.make(5, 20).faults, plan.make(5, 60).faults

    assert [(one.at, one.kind, one.target) for one in short] == [
        (one.at, one.kind, one.target) for one in long[: len(short)]
    ]


def test_a_plan_can_be_read() -> None:
    lines = list(plan.make(5, 20).lines())

    assert lines[0] == f"seed 5, 20 s of load, {len(lines) - 2} faults"
    assert lines[1].endswith("s off all along")
