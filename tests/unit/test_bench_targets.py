"""The targets of the benchmark: each can be met and each can be missed, and the tables say so."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bench.report import beside, everything, held, markdown
from bench.targets import Findings, Peer, comparisons, targets

PEER = Peer(
    storms={10_000: {"a_second": 1_500.0, "last_seconds": 6.7}},
    lives={"cpu_ms": 8.0},
    told={"a_second": 400.0},
    pending={"redis_bytes": 1_200.0, "worker_bytes": 10_000.0, "postgres_bytes": 0.0},
)
GOOD = Findings(
    pending={
        "count": 100_000.0,
        "redis_bytes": 120.0,
        "worker_bytes": 3.0,
        "requests_bytes": 580.0,
        "grown_mib": 1.0,
        "core_percent": 0.4,
    },
    lone={"median_ms": 6.0},
    storms={
        10_000: {"a_second": 20_000.0, "last_seconds": 0.5},
        100_000: {"a_second": 20_000.0, "last_seconds": 5.0},
    },
    storm_behind={"last_seconds": 0.8},
    steady={"late_p99_ms": 20.0},
    intake={clients: {"a_second": 700.0, "p50_ms": 5.0, "p99_ms": 60.0} for clients in (1, 8, 64)},
    bare={clients: {"a_second": 1_000.0, "p50_ms": 3.0, "p99_ms": 30.0} for clients in (1, 8, 64)},
    lives={"cpu_ms": 4.0, "notices": 5.0},
    told={"a_second": 500.0},
    access={"p99_ms": 8.0},
    rebuild={"seconds": 4.0, "count": 100_000.0, "worst_seconds": 3.0},
    floor={10_000: {"a_second": 30_000.0}, 100_000: {"a_second": 30_000.0}},
    sorted_set={"lockbox": {"a_second": 80_000.0}, "floor": {"a_second": 100_000.0}},
    peers={"celery_eta": PEER, "dramatiq_delay": replace(PEER, lives={"cpu_ms": 16.0})},
    crowd={"ratio": 1.01},
    reach={"in_time_percent": 100.0, "one_domain": 5_000.0, "many_domains": 5_000.0},
    trail={
        "events": 1_000_000.0,
        "sealed_a_second": 25_000.0,
        "verify_seconds": 50.0,
        "proof_p99_ms": 5.0,
        "lag_p99_seconds": 1.5,
        "cost_ratio": 1.01,
    },
)


def test_all_targets_are_met_by_good_figures() -> None:
    assert [row.what for row in targets(GOOD) if not row.is_met] == []


MISSED: list[tuple[str, Callable[[Findings], dict[str, Any]]]] = [
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
    ("filed over HTTP by 8: p99", lambda f: {"intake": {**f.intake, 8: {"a_second": 700.0, "p99_ms": 101.0}}}),
    ("CPU of a life", lambda f: {"lives": {**f.lives, "cpu_ms": 5.1}}),
    ("access check", lambda _: {"access": {"p99_ms": 10.1}}),
    ("100,000 pending: each in Redis", lambda f: {"pending": {**f.pending, "redis_bytes": 151.0}}),
    ("100,000 pending: request row", lambda f: {"pending": {**f.pending, "requests_bytes": 601.0}}),
    ("100,000 pending: workers grown", lambda f: {"pending": {**f.pending, "grown_mib": 21.0}}),
    ("100,000 pending: idle", lambda f: {"pending": {**f.pending, "core_percent": 1.1}}),
    ("100,000 waiting, Redis emptied", lambda f: {"rebuild": {**f.rebuild, "seconds": 11.1}}),
    ("what fell due meanwhile", lambda f: {"rebuild": {**f.rebuild, "worst_seconds": 10.1}}),
    ("1,000,000 events sealed", lambda f: {"trail": {**f.trail, "sealed_a_second": 19_000.0}}),
    ("1,000,000 events verified", lambda f: {"trail": {**f.trail, "verify_seconds": 61.0}}),
]


@pytest.mark.parametrize(("what", "change"), MISSED, ids=[what for what, _ in MISSED])
def test_a_worse_figure_misses_its_target(what: str, change: Callable[[Findings], dict[str, Any]]) -> None:
    worse = replace(GOOD, **change(GOOD))

    missed = [row.what for row in targets(worse) if not row.is_met]

    assert any(name.startswith(what) for name in missed)


def test_what_a_size_leaves_out_is_no_target() -> None:
    quick = replace(GOOD, peers={}, crowd={}, reach={}, trail={}, storms={10_000: GOOD.storms[10_000]})

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
    assert life[1:] == ["-", "2 times", "4", "-", "8", "16"]


def test_a_missed_target_says_so_in_its_line() -> None:
    worse = replace(GOOD, lone={"median_ms": 15.0})

    _, *rows = held(targets(worse))

    assert [row for row in rows if row[-1].endswith("missed")] == [
        ["a lone deadline: late by, median", "15 ms", "≤ 10 ms", "150% missed"]
    ]


def test_a_page_holds_every_figure_by_its_path() -> None:
    page = markdown("Lockbox on a machine", [("All figures", everything(GOOD))])

    assert page.startswith("# Lockbox on a machine\n\n## All figures\n\n| figure | value |\n| --- | --- |\n")
    assert "| storms 10000 last_seconds | 0.5 |" in page
    assert "| peers celery_eta pending redis_bytes | 1,200 |" in page
