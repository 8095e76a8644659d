"""The targets of the benchmark: each can be met and each can be missed, and the tables say so."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bench.report import beside, everything, held, markdown, times
from bench.targets import BenchResults, comparisons, targets
from tests.each import each
from tests.unit.measured import GOOD, PEER


def test_all_targets_are_met_by_good_figures() -> None:
    assert [row.what for row in targets(GOOD) if not row.is_met] == []


MISSED: list[tuple[str, Callable[[BenchResults], dict[str, Any]]]] = [
    (
        "10,000 due at one instant: last",
        lambda f: {"storms": {**f.storms, 10_000: {**f.storms[10_000], "last_seconds": 0.7}}},
    ),
    (
        "100,000 due at one instant: last",
        lambda f: {"storms": {**f.storms, 100_000: {**f.storms[100_000], "last_seconds": 7}}},
    ),
    ("one of 100,000", lambda f: {"storms": {**f.storms, 100_000: {**f.storms[100_000], "last_seconds": 9}}}),
    ("10,000 at one instant: of the floor", lambda f: {"floor": {**f.floor, 10_000: {"a_second": 41_000.0}}}),
    ("100,000 at one instant: of the floor", lambda f: {"floor": {**f.floor, 100_000: {"a_second": 41_000.0}}}),
    (
        "10,000 at one instant: times",
        lambda _: {"peers": {"x": replace(PEER, storms={10_000: {"a_second": 2_001.0}})}},
    ),
    ("10,000 again", lambda _: {"storm_behind": {"last_seconds": 1.3}}),
    ("a lone deadline", lambda _: {"lone": {"median_ms": 11.0}}),
    ("200 deadlines", lambda _: {"steady": {"late_p99_ms": 51.0}}),
    ("filed over HTTP by 64: of", lambda f: {"bare": {**f.bare, 64: {"a_second": 1_200.0}}}),
    ("filed over HTTP by 8: p99", lambda f: {"intake": {**f.intake, 8: {**f.intake[8], "p99_ms": 101.0}}}),
    ("filed over HTTP by 1: of", lambda f: {"intake": {**f.intake, 1: {**f.intake[1], "busy": 1.0}}}),
    ("filed over HTTP by 8: p99", lambda f: {"intake": {**f.intake, 8: {**f.intake[8], "busy": 1.0}}}),
    ("CPU of a life", lambda f: {"lives": {**f.lives, "cpu_ms": 5.1}}),
    ("access check", lambda f: {"access": {**f.access, "p99_ms": 10.1}}),
    ("access check", lambda f: {"access": {**f.access, "busy": 1.0}}),
    ("access check while 400", lambda f: {"flooded": {**f.flooded, "p99_ms": 250.1}}),
    ("access check while 400", lambda f: {"flooded": {**f.flooded, "busy": 1.0}}),
    ("100,000 pending: each in Redis", lambda f: {"pending": {**f.pending, "redis_bytes": 151.0}}),
    ("100,000 pending: request row", lambda f: {"pending": {**f.pending, "requests_bytes": 601.0}}),
    ("100,000 pending: workers grown", lambda f: {"pending": {**f.pending, "grown_mib": 21.0}}),
    ("100,000 pending: idle", lambda f: {"pending": {**f.pending, "core_percent": 1.1}}),
    ("100,000 waiting, Redis emptied", lambda f: {"rebuild": {**f.rebuild, "seconds": 11.1}}),
    ("what fell due meanwhile", lambda f: {"rebuild": {**f.rebuild, "worst_seconds": 10.1}}),
    ("1,000,000 events sealed", lambda f: {"audit_log": {**f.audit_log, "sealed_a_second": 19_000.0}}),
    ("1,000,000 events verified", lambda f: {"audit_log": {**f.audit_log, "verify_seconds": 61.0}}),
]


@each(("what", "change"), MISSED)
def test_a_worse_figure_misses_its_target(what: str, change: Callable[[BenchResults], dict[str, Any]]) -> None:
    worse = replace(GOOD, **change(GOOD))

    missed = [row.what for row in targets(worse) if not row.is_met]

    assert any(name.startswith(what) for name in missed)


def test_what_a_size_leaves_out_is_no_target() -> None:
    quick = replace(GOOD, peers={}, crowd={}, reach={}, audit_log={}, storms={10_000: GOOD.storms[10_000]})

    whats = " ".join(row.what for row in targets(quick))

    assert "peer" not in whats
    assert "events" not in whats
    assert "100,000 due" not in whats


def test_ratios_come_before_the_figures_and_each_peer_has_a_column() -> None:
    head, *rows = beside(comparisons(GOOD))

    assert head == ["load", "of the floor", "times the best peer", "Lockbox", "floor", "celery_eta", "dramatiq_delay"]
    ended = next(row for row in rows if row[0].startswith("10,000 due"))
    assert ended[1:] == ["67%", "13.3 times", "20,000", "30,000", "1,500", "1,500"]
    life = next(row for row in rows if row[0].startswith("CPU"))
    assert life[1:] == ["50%", "2 times", "4", "2", "8", "16"]


def test_a_deadline_that_waits_takes_its_place_in_the_index_of_postgres_too() -> None:
    _, *rows = beside(comparisons(GOOD))

    waits = next(row for row in rows if row[0].startswith("a deadline that waits"))
    assert waits[1:] == ["-", "77.2 times", "145", "-", "11,200", "11,200"]


def test_a_missed_target_says_so_in_its_line() -> None:
    worse = replace(GOOD, lone={"median_ms": 15.0})

    _, *rows = held(targets(worse))

    assert [row for row in rows if row[-1].endswith("missed")] == [
        ["a lone deadline: late by, median", "15 ms", "≤ 10 ms", "150% missed"]
    ]


def test_a_target_that_is_missed_by_turning_calls_away_says_how_many() -> None:
    worse = replace(GOOD, access={"busy": 3.0, "p99_ms": 8.0})

    _, *rows = held(targets(worse))

    assert [row for row in rows if row[-1].endswith("missed")] == [
        ["access check from 16 clients: p99", "8 ms", "≤ 10 ms", "80%, 3 turned away: missed"]
    ]


def test_times_tell_the_longest_first_and_leave_nothing_out() -> None:
    assert times({"floor": 10.0, "storms": 40.0}, 55.0) == [
        ["part", "s"],
        ["storms", "40.0"],
        ["floor", "10.0"],
        ["all else", "5.0"],
        ["all", "55.0"],
    ]


def test_a_page_holds_every_figure_by_its_path() -> None:
    page = markdown("Lockbox on a machine", [("All figures", everything(GOOD))])

    assert page.startswith("# Lockbox on a machine\n\n## All figures\n\n| figure | value |\n| --- | --- |\n")
    assert "| storms 10000 last_seconds | 0.5 |" in page
    assert "| peers celery_eta pending redis_bytes | 1,200 |" in page
