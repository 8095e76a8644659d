"""A run of the benchmark that meets every target."""

from dataclasses import replace

from bench.targets import BenchResults, Peer

PEER = Peer(
    storms={10_000: {"a_second": 1_500.0, "last_seconds": 6.7}},
    lives={"cpu_ms": 8.0},
    told={"a_second": 400.0},
    pending={"redis_bytes": 1_200.0, "worker_bytes": 10_000.0, "postgres_bytes": 0.0},
)
GOOD = BenchResults(
    pending={
        "count": 100_000.0,
        "redis_bytes": 120.0,
        "worker_bytes": 3.0,
        "postgres_bytes": 22.0,
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
    intake={clients: {"a_second": 700.0, "busy": 0.0, "p50_ms": 5.0, "p99_ms": 60.0} for clients in (1, 8, 64)},
    bare={clients: {"a_second": 1_000.0, "busy": 0.0, "p50_ms": 3.0, "p99_ms": 30.0} for clients in (1, 8, 64)},
    lives={"cpu_ms": 4.0, "notifications": 5.0},
    told={"a_second": 500.0},
    bare_lives={"cpu_ms": 2.0},
    bare_told={"a_second": 1_000.0},
    access={"busy": 0.0, "p99_ms": 8.0},
    flooded={"busy": 0.0, "p99_ms": 200.0},
    rebuild={"seconds": 4.0, "count": 100_000.0, "worst_seconds": 3.0},
    floor={
        10_000: {"a_second": 30_000.0, "last_seconds": 1 / 3},
        100_000: {"a_second": 30_000.0, "last_seconds": 10 / 3},
    },
    sorted_set={"lockbox": {"a_second": 80_000.0}, "floor": {"a_second": 100_000.0}},
    peers={"celery_eta": PEER, "dramatiq_delay": replace(PEER, lives={"cpu_ms": 16.0})},
    crowd={"ratio": 1.01},
    reach={"in_time_percent": 100.0, "one_domain": 5_000.0, "many_domains": 5_000.0},
    audit_log={
        "events": 1_000_000.0,
        "sealed_a_second": 25_000.0,
        "verify_seconds": 50.0,
        "proof_p99_ms": 5.0,
        "lag_p99_seconds": 1.5,
        "cost_ratio": 1.01,
    },
)
