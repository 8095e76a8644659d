"""A run of the benchmark that meets every target."""

from dataclasses import replace

from bench.targets import BenchResults, Peer

PEER = Peer(
    storms={10_000: {"a_second": 1_500.0, "last_seconds": 6.7}},
    lives={"cpu_ms": 8.0},
    notified={"a_second": 400.0},
    pending={"redis_bytes": 1_200.0, "worker_bytes": 10_000.0, "postgres_bytes": 0.0},
)
CHECK = {"postgres_cpu_ms": 0.3, "a_second": 700.0, "busy": 0.0, "p50_ms": 1.5, "p99_ms": 4.0}
GOOD = BenchResults(
    storms={
        10_000: {"a_second": 20_000.0, "last_seconds": 0.5},
        100_000: {"a_second": 20_000.0, "last_seconds": 5.0},
    },
    floor_storms={
        10_000: {"a_second": 25_000.0, "last_seconds": 0.4},
        100_000: {"a_second": 25_000.0, "last_seconds": 4.0},
    },
    storm_behind={"last_seconds": 0.8},
    lone={"median_ms": 6.0},
    steady={"late_p99_ms": 15.0},
    submits={clients: {"a_second": 600.0, "busy": 0.0, "p50_ms": 5.0, "p99_ms": 60.0} for clients in (1, 8, 64)},
    floor_submits={
        clients: {"a_second": 1_000.0, "busy": 0.0, "p50_ms": 3.0, "p99_ms": 30.0} for clients in (1, 8, 64)
    },
    floor_rows={clients: {"a_second": 800.0, "busy": 0.0, "p50_ms": 4.0, "p99_ms": 40.0} for clients in (1, 8, 64)},
    paced_submits={"a_second": 40.0, "busy": 0.0, "p50_ms": 3.0, "p99_ms": 9.0},
    floor_paced_submits={"a_second": 40.0, "busy": 0.0, "p50_ms": 1.0, "p99_ms": 3.0},
    notified={"a_second": 500.0},
    floor_notified={"a_second": 1_000.0},
    lives={"cpu_ms": 10.0, "mails": 5.0},
    floor_lives={"cpu_ms": 2.0},
    checks={"open": CHECK, "closed": CHECK, "open_paced": CHECK, "closed_paced": CHECK},
    floor_checks={"open": {**CHECK, "a_second": 1_000.0}, "open_paced": {**CHECK, "p99_ms": 2.0}},
    flooded={"busy": 0.0, "p99_ms": 90.0},
    gate={
        "nothing_callable": {"a_second": 18_000.0, "cpu_us": 30.0},
        "nothing_route": {"a_second": 7_000.0, "cpu_us": 120.0},
        "checks": {
            "a_second": 9_000.0,
            "a_core_second": 11_000.0,
            "cpu_us": 90.0,
            "p99_ms": 6.0,
            "paced_p99_ms": 2.5,
        },
        "first_calls": {"a_second": 2_000.0, "a_core_second": 2_500.0, "cpu_us": 400.0},
        "guard": {"check_us": 8.0},
        "postgres_stopped": {"last_yes_s": 1.0, "slowest_s": 1.1, "back_s": 0.2},
        "postgres_killed": {"last_yes_s": 1.0, "slowest_s": 0.1, "back_s": 0.2},
        "revoke": {"gate_p99_ms": 20.0, "stream_p99_ms": 20.0},
        "revoke_without_redis": {"gate_p99_ms": 600.0, "stream_p99_ms": 600.0},
        "memory": {"mib": 55.0},
    },
    lists={"an approver's list": {"count": 1_000_000.0, "p50_ms": 11.0, "empty_p50_ms": 10.0}},
    mails={"in_time_percent": 100.0, "one_domain": 700.0, "many_domains": 900.0, "plain": 2_000.0},
    pending={
        "count": 100_000.0,
        "redis_bytes": 105.0,
        "worker_bytes": 3.0,
        "postgres_bytes": 22.0,
        "grown_mib": 1.0,
        "core_percent": 0.4,
        "core_percent_of_all": 1.6,
    },
    rebuild={"seconds": 4.0, "count": 100_000.0, "worst_seconds": 3.0},
    sorted_set={"lockbox": {"a_second": 80_000.0}, "floor": {"a_second": 100_000.0}},
    peers={"celery_eta": PEER, "dramatiq_delay": replace(PEER, lives={"cpu_ms": 16.0})},
    crowd={"ratio": 1.01},
    audit_log={
        "events": 1_000_000.0,
        "sealed_a_second": 25_000.0,
        "verify_seconds": 50.0,
        "proof_p99_ms": 5.0,
        "lag_p99_seconds": 1.5,
        "cost_ratio": 1.01,
    },
)
