"""The targets of the benchmark: each can be met and each can be missed, and the tables say so."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bench.report import beside, everything, held, markdown, times
from bench.targets import BenchResults, comparisons, targets
from tests.each import each
from tests.unit.measured import GOOD


def test_all_targets_are_met_by_good_figures() -> None:
    assert [row.what for row in targets(GOOD) if not row.is_met] == []


def of(part: str, key: Any, **figures: float) -> Callable[[BenchResults], dict[str, Any]]:
    """Return what changes some figures of a part of a run."""

    def change(found: BenchResults) -> dict[str, Any]:
        runs = getattr(found, part)
        return {part: {**runs, key: {**runs[key], **figures}} if key else {**runs, **figures}}

    return change


MISSED: list[tuple[str, Callable[[BenchResults], dict[str, Any]]]] = [
    ("10,000 deadlines at once: last", of("storms", 10_000, last_seconds=0.57)),
    ("10,000 deadlines at once: last", of("floor_storms", 10_000, last_seconds=0.35)),
    ("one of 100,000", of("storms", 100_000, last_seconds=6.5)),
    ("200 deadlines", of("steady", None, late_p99_ms=18.1)),
    ("200 deadlines", of("lone", None, median_ms=4.9)),
    ("submitted by 1 client:", of("submits", 1, a_second=249.0)),
    ("submitted by 8 clients", of("submits", 8, a_second=399.0)),
    ("submitted by 64 clients", of("floor_submits", 64, a_second=1_201.0)),
    ("submitted by 1 client:", of("submits", 1, busy=1.0)),
    ("submitted and notified", of("notified", None, a_second=449.0)),
    ("CPU of a life", of("lives", None, cpu_ms=13.1)),
    ("200 access checks a second, open", of("checks", "open_paced", p99_ms=10.1)),
    ("200 access checks a second, closed", of("checks", "closed_paced", p99_ms=10.1)),
    ("200 access checks a second, closed", of("checks", "closed_paced", busy=1.0)),
    ("access checks by 16", of("checks", "open", a_second=599.0)),
    ("a closed door", of("checks", "closed", postgres_cpu_ms=0.34)),
    ("access checks by 16", of("floor_checks", "open", a_second=1_200.0)),
    ("access check while 400", of("flooded", None, p99_ms=100.1)),
    ("access check while 400", of("flooded", None, busy=1.0)),
    ("the gate, 16 clients, remembered tokens: a core", of("gate", "checks", a_core_second=4_999.0)),
    ("the gate, 16 clients, remembered tokens: p99", of("gate", "checks", p99_ms=10.1)),
    ("the gate, 200 a second", of("gate", "checks", paced_p99_ms=3.1)),
    ("a check that the guard", of("gate", "guard", check_us=20.1)),
    ("Postgres stopped: the gate's last", of("gate", "postgres_stopped", last_yes_s=2.1)),
    ("Postgres stopped: the gate's slowest", of("gate", "postgres_stopped", slowest_s=2.1)),
    ("Postgres back, once killed", of("gate", "postgres_killed", back_s=5.1)),
    ("100,000 open windows", of("gate", "memory", mib=101.0)),
    ("revoke: the gate's", of("gate", "revoke", gate_p99_ms=1_001.0)),
    ("revoke: guards", of("gate", "revoke", stream_p99_ms=1_001.0)),
    ("revoke, without Redis: the gate's", of("gate", "revoke_without_redis", gate_p99_ms=1_001.0)),
    ("revoke, without Redis: guards", of("gate", "revoke_without_redis", stream_p99_ms=1_001.0)),
    ("the slowest of lists", of("lists", "an approver's list", p50_ms=15.1)),
    ("100,000 pending: each in Redis", of("pending", None, redis_bytes=111.0)),
    ("100,000 pending: workers grown", of("pending", None, grown_mib=21.0)),
    ("100,000 pending: idle", of("pending", None, core_percent_of_all=2.1)),
    ("100,000 pending, Redis emptied", of("rebuild", None, seconds=5.6)),
    ("what fell due meanwhile", of("rebuild", None, worst_seconds=10.1)),
    ("mails a second, one notifications worker, to one", of("mails", None, one_domain=599.0)),
    ("mails a second, one notifications worker, to 500", of("mails", None, many_domains=599.0)),
    ("one domain and one endpoint hang", of("mails", None, in_time_percent=98.0)),
    ("a submit among", of("crowd", None, ratio=1.11)),
    ("1,000,000 events sealed", of("audit_log", None, sealed_a_second=19_000.0)),
    ("1,000,000 events verified", of("audit_log", None, verify_seconds=61.0)),
]


@each(("what", "change"), MISSED)
def test_a_worse_figure_misses_its_target(what: str, change: Callable[[BenchResults], dict[str, Any]]) -> None:
    worse = replace(GOOD, **change(GOOD))

    missed = [row.what for row in targets(worse) if not row.is_met]

    assert any(name.startswith(what) for name in missed)


def test_what_a_run_leaves_out_is_no_target() -> None:
    quick = replace(GOOD, peers={}, crowd={}, mails={}, lists={}, audit_log={}, storms={10_000: GOOD.storms[10_000]})

    whats = " ".join(row.what for row in targets(quick))

    assert "events" not in whats
    assert "list" not in whats
    assert "100,000 deadlines" not in whats
    assert not targets(BenchResults())
    assert not list(comparisons(BenchResults()))


def test_ratios_come_before_the_figures_and_each_peer_has_a_column() -> None:
    head, *rows = beside(comparisons(GOOD))

    assert head == ["load", "of the floor", "times the best peer", "Lockbox", "floor", "celery_eta", "dramatiq_delay"]
    ended = next(row for row in rows if row[0].startswith("10,000 deadlines"))
    assert ended[1:] == ["80%", "13.4 times", "0.5", "0.4", "6.7", "6.7"]
    life = next(row for row in rows if row[0].startswith("CPU"))
    assert life[1:] == ["20%", "0.8 times", "10", "2", "8", "16"]


def test_the_gate_is_held_against_doing_nothing_for_remembered_and_for_new_tokens() -> None:
    shares = {row.what: row.of_floor for row in comparisons(GOOD) if row.what.startswith("the gate")}

    assert len(shares) == 6
    assert shares["the gate, 16 clients, remembered tokens, to a route that does nothing"] == 9 / 7
    assert shares["the gate, 16 clients, remembered tokens: CPU, to a bare callable"] == 30 / 90
    assert shares["the gate, 16 clients, new tokens: CPU, to a route that does nothing"] == 120 / 400


def test_a_submit_is_held_against_one_row_and_against_all_rows_that_it_writes() -> None:
    shares = {row.what: row.of_floor for row in comparisons(GOOD) if row.what.startswith("submitted by 8 clients, ")}

    assert shares == {
        "submitted by 8 clients, to a bare endpoint with one row": 0.6,
        "submitted by 8 clients, to a bare endpoint with the same rows": 0.75,
    }


def test_a_deadline_that_waits_takes_its_place_in_the_index_of_postgres_too() -> None:
    _, *rows = beside(comparisons(GOOD))

    waits = next(row for row in rows if row[0].startswith("a pending deadline"))
    assert waits[1:] == ["-", "86.2 times", "130", "-", "11,200", "11,200"]


def test_a_missed_target_says_so_in_its_line() -> None:
    worse = replace(GOOD, flooded={"busy": 0.0, "p99_ms": 150.0})

    _, *rows = held(targets(worse))

    assert [row for row in rows if row[-1].endswith("missed")] == [
        ["access check while 400 connections submit: p99", "150 ms", "≤ 100 ms", "150% missed"]
    ]


def test_a_target_that_is_missed_by_turning_calls_away_says_how_many() -> None:
    worse = replace(GOOD, flooded={"busy": 3.0, "p99_ms": 80.0})

    _, *rows = held(targets(worse))

    assert [row for row in rows if row[-1].endswith("missed")] == [
        ["access check while 400 connections submit: p99", "80 ms", "≤ 100 ms", "80%, 3 turned away: missed"]
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
