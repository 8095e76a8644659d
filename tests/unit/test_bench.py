"""The benchmark: its loads, its targets, its figures and its page."""

import asyncio
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import Comparison, Figure, medians, quantile
from bench.http_load import rate, several
from bench.readme import BEGINNING, README, placed, table
from bench.report import RESULTS, everything, held, markdown, read, times
from bench.rows import LEAST_SECONDS, Pace
from bench.targets import BenchResults, comparisons, targets
from harness.load import UnexpectedAnswer, length, perform, written
from tests.each import each
from tests.unit.measured import GOOD

VALUES = st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1)


def test_a_quantile_is_an_actual_value_chosen_by_nearest_rank() -> None:
    hundred = [float(number) for number in range(100, 0, -1)]

    assert quantile(hundred, 0.5) == 50
    assert quantile(hundred, 0.99) == 99
    assert quantile(hundred, 1) == 100
    assert quantile([7.0], 0.01) == 7


@given(VALUES, st.floats(min_value=0.01, max_value=1))
def test_a_quantile_is_the_smallest_value_not_exceeded_by_the_given_fraction_of_values(
    values: list[float], share: float
) -> None:
    found = quantile(values, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)


@pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], 0), ([1.0], 1.1)])
def test_a_quantile_needs_values_and_a_fraction_between_0_and_1(values: list[float], share: float) -> None:
    with pytest.raises(ValueError, match="quantile"):
        quantile(values, share)


def test_the_median_of_several_benchmark_runs_is_computed_for_each_figure() -> None:
    runs = [{"a": 1.0, "b": 30.0}, {"a": 2.0, "b": 10.0}, {"a": 9.0, "b": 20.0}]

    assert medians(runs) == {"a": 2.0, "b": 20.0}


def test_a_benchmark_target_is_met_at_its_exact_figure() -> None:
    for more in (True, False):
        at = Figure("at", 5, 5, "s", more_is_better=more)
        above, below = (Figure("off", value, 5, "s", more_is_better=more) for value in (6, 4))

        assert at.is_met
        assert above.is_met is more
        assert below.is_met is not more


def test_a_figure_of_zero_meets_no_target_if_more_is_better() -> None:
    nothing = Figure("rate", 0, 10, "/s", more_is_better=True)

    assert nothing.ratio == math.inf
    assert not nothing.is_met


def test_a_figure_that_is_not_a_number_meets_no_target() -> None:
    assert not Figure("late", math.nan, 10, "ms").is_met


def test_the_benchmark_compares_lockbox_with_the_best_peer() -> None:
    rates = Comparison("ended", "/s", 300, 600, {"slow": 10, "fast": 30})
    costs = Comparison("cpu", "ms", 2, None, {"cheap": 4, "dear": 9}, more_is_better=False)

    assert (rates.of_floor, rates.best_peer, rates.times_best_peer) == (0.5, 30, 10)
    assert (costs.of_floor, costs.best_peer, costs.times_best_peer) == (None, 4, 2)


def test_without_peers_the_benchmark_has_no_ratio() -> None:
    alone = Comparison("ended", "/s", 300, 600)

    assert (alone.best_peer, alone.times_best_peer) == (None, None)


CALL = {"method": "GET", "path": "/", "status": 200}


def played(seconds: float | None, *statuses: int, rate: float | None = None, pause: float = 0.0) -> dict[str, Any]:
    """Return what a client measures at a server that repeats these answers, each after a pause."""
    turns, ended = cycle(statuses), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(pause)
            writer.write(f"HTTP/1.1 {next(turns)} Said\r\ncontent-length: 0\r\n\r\n".encode())
        writer.close()
        await writer.wait_closed()
        ended.set()

    async def serve() -> dict[str, Any]:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            try:
                return await perform(
                    {"port": port, "clients": 1, "stories": [[CALL]], "seconds": seconds, "rate": rate}
                )
            finally:
                await ended.wait()

    return asyncio.run(serve())


def test_refused_calls_do_not_count_in_benchmark_durations() -> None:
    found = played(0.2, 200, 503, 503)

    accepted = len(found["taken"][0])
    assert accepted > 1
    assert 2 * accepted - 2 <= found["busy"] <= 2 * accepted


def test_a_benchmark_that_runs_each_call_sequence_only_once_fails_on_a_503_answer() -> None:
    with pytest.raises(ExceptionGroup, match="unhandled") as failed:
        played(None, 503)

    assert "GET /: 503" in str(failed.value.exceptions[0])


def test_a_benchmark_call_at_a_fixed_rate_is_timed_from_its_scheduled_start() -> None:
    found = played(0.3, 200, rate=50, pause=0.1)

    assert min(found["taken"][0]) >= 0.1


def test_a_benchmark_rate_counts_only_accepted_calls() -> None:
    found = rate({"taken": [[0.010, 0.020, 0.030]], "busy": 7, "seconds": 2.0})

    assert found == {"a_second": 1.5, "busy": 7.0, "p50_ms": 20.0, "p99_ms": 30.0}


def test_the_benchmark_has_no_duration_if_all_calls_are_refused() -> None:
    found = rate({"taken": [[]], "busy": 7, "seconds": 2.0})

    assert found == {"a_second": 0.0, "busy": 7.0, "p50_ms": math.inf, "p99_ms": math.inf}


def test_several_benchmark_runs_report_the_refused_calls_of_the_worst_run() -> None:
    runs = [{"a_second": 3.0, "busy": 0.0}, {"a_second": 1.0, "busy": 9.0}, {"a_second": 2.0, "busy": 0.0}]

    assert several(runs) == {"a_second": 2.0, "busy": 9.0}


ROOT = Path(__file__).parents[2]
PINNED = re.compile(r"^([a-z0-9-]+)==(\S+)", re.MULTILINE)


def test_a_benchmark_call_is_written_with_token_body_and_id() -> None:
    call = {"method": "POST", "path": "/v1/requests/{id}/approve", "token": "lbx_x", "body": {"a": 1}, "status": 200}

    head, _, body = written(call, "42").partition(b"\r\n\r\n")

    assert head.split(b"\r\n") == [
        b"POST /v1/requests/42/approve HTTP/1.1",
        b"host: 127.0.0.1",
        b"content-length: 8",
        b"content-type: application/json",
        b"authorization: Bearer lbx_x",
    ]
    assert body == b'{"a": 1}'


def test_the_benchmark_reads_a_content_length_header_in_any_case() -> None:
    assert length(b"HTTP/1.1 201 Created\r\nContent-Length: 17\r\n\r\n") == 17
    with pytest.raises(UnexpectedAnswer):
        length(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")


def test_a_benchmark_chooses_deadlines_that_lie_after_the_end_of_loading() -> None:
    pace = Pace(seconds_each=0.001)

    assert pace.ahead(10_000).total_seconds() > 10
    assert pace.ahead(1).total_seconds() == pytest.approx(LEAST_SECONDS, abs=0.01)


def test_benchmark_peers_are_no_product_dependencies_and_use_the_products_package_versions() -> None:
    ours, theirs = (
        dict(PINNED.findall((ROOT / name).read_text())) for name in ("requirements.lock", "requirements-bench.lock")
    )

    assert not {"dramatiq", "dbos", "celery-redbeat", "matplotlib"} & ours.keys()
    assert {"dramatiq", "dbos", "celery-redbeat", "matplotlib"} <= theirs.keys()
    shared = {"celery", "kombu", "psycopg", "psycopg-binary", "redis"}
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}


def test_the_readme_shows_the_recorded_benchmark_run() -> None:
    page = README.read_text()

    assert placed(page, table(read(RESULTS / "bench.json"))) == page


def test_a_recorded_benchmark_run_reads_back_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"measured": asdict(GOOD)}))

    assert read(path) == GOOD


def test_new_benchmark_rows_replace_the_rows_between_the_marker_and_an_empty_line() -> None:
    none, some = (f"before\n\n{BEGINNING}{rows}\nafter\n\nend\n" for rows in ("", "| old |\n| older |\n"))

    for page in (none, some):
        assert placed(page, "| new |\n") == f"before\n\n{BEGINNING}| new |\n\nafter\n\nend\n"
    for broken in ("no marker", some + some):
        with pytest.raises(ValueError, match="unpack"):
            placed(broken, "")


def test_good_benchmark_figures_meet_all_targets() -> None:
    assert [row.what for row in targets(GOOD) if not row.is_met] == []


def of(part: str, key: Any, **figures: float) -> Callable[[BenchResults], dict[str, Any]]:
    """Return a function that changes some figures of one part of a run."""

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
def test_a_worse_benchmark_figure_misses_its_target(
    what: str, change: Callable[[BenchResults], dict[str, Any]]
) -> None:
    worse = replace(GOOD, **change(GOOD))

    missed = [row.what for row in targets(worse) if not row.is_met]

    assert any(name.startswith(what) for name in missed)


def test_the_benchmark_has_no_target_for_figures_that_a_quick_run_omits() -> None:
    quick = replace(GOOD, peers={}, crowd={}, mails={}, lists={}, audit_log={}, storms={10_000: GOOD.storms[10_000]})

    whats = " ".join(row.what for row in targets(quick))

    assert "events" not in whats
    assert "list" not in whats
    assert "100,000 deadlines" not in whats
    assert not targets(BenchResults())
    assert not list(comparisons(BenchResults()))


def test_a_missed_benchmark_target_is_marked_in_its_line() -> None:
    worse = replace(GOOD, flooded={"busy": 0.0, "p99_ms": 150.0})

    _, *rows = held(targets(worse))

    assert [row for row in rows if row[-1].endswith("missed")] == [
        ["access check while 400 connections submit: p99", "150 ms", "≤ 100 ms", "150% missed"]
    ]


def test_benchmark_times_are_listed_longest_first_and_add_up_to_the_total() -> None:
    assert times({"floor": 10.0, "storms": 40.0}, 55.0) == [
        ["part", "s"],
        ["storms", "40.0"],
        ["floor", "10.0"],
        ["all else", "5.0"],
        ["all", "55.0"],
    ]


def test_the_benchmark_page_names_each_figure_by_its_path_of_keys() -> None:
    page = markdown("Lockbox on a machine", [("All figures", everything(GOOD))])

    assert page.startswith("# Lockbox on a machine\n\n## All figures\n\n| figure | value |\n| --- | --- |\n")
    assert "| storms 10000 last_seconds | 0.5 |" in page
    assert "| peers celery_eta pending redis_bytes | 1,200 |" in page
