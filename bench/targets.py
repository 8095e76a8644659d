"""Compare the measurements with the targets, the floor and the peers; pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bench.figures import Comparison, Figure

Measured = Mapping[str, float]
Runs = Mapping[int, Measured]

COMPARED = 10_000
OF_FLOOR_SECONDS = 1.4
STEADY_OF_LONE = 3
LINEAR = 1.25
LIFE_OF_FLOOR = 6.5
NOTIFIED_PERCENT = 45
SUBMIT_PERCENT = {1: 25, 8: 40, 64: 50}
CHECK_P99_MS = 10
CHECK_PERCENT = 60
CLOSED_OF_OPEN = 1.1
FLOODED_P99_MS = 100
GATE_A_CORE_SECOND = 5_000
"""Calls in a second of the API process' CPU time, so that other load on the machine matters little."""
GATE_P99_MS = 10
GATE_PACED_P99_MS = 3
GATE_MIB = 100
REVOKE_P99_MS = 1_000
GUARD_CHECK_US = 20
REFUSED_SECONDS, BACK_SECONDS = 2, 5
LISTS_OF_EMPTY = 1.5
MAILS_A_SECOND = 600
IN_TIME_PERCENT = 99
REDIS_BYTES = 110
REBUILD_SECONDS_A_MILLION = 5
ROUND_SECONDS = 5
LATE_SECONDS = 10
IDLE_PERCENT = 2
GROWN_MIB = 20
CROWD_RATIO = 1.1
SEALED_A_SECOND = 20_000
VERIFY_SECONDS_A_MILLION = 60
PROOF_MS = 20
LAG_SECONDS = 3
SEALING_RATIO = 1.05
MILLION = 1_000_000


@dataclass(frozen=True)
class Peer:
    """The measurements of a peer; those that were not made are empty."""

    storms: Runs = field(default_factory=dict)
    lives: Measured = field(default_factory=dict)
    notified: Measured = field(default_factory=dict)
    pending: Measured = field(default_factory=dict)


@dataclass(frozen=True)
class BenchResults:
    """All that one run measured; parts that it left out are empty.

    A name with `floor` is about the floor: `floor_submits` with one row, `floor_rows` with all rows that a submission
    writes.
    """

    storms: Runs = field(default_factory=dict)
    floor_storms: Runs = field(default_factory=dict)
    storm_behind: Measured = field(default_factory=dict)
    lone: Measured = field(default_factory=dict)
    steady: Measured = field(default_factory=dict)
    submits: Runs = field(default_factory=dict)
    floor_submits: Runs = field(default_factory=dict)
    floor_rows: Runs = field(default_factory=dict)
    paced_submits: Measured = field(default_factory=dict)
    floor_paced_submits: Measured = field(default_factory=dict)
    notified: Measured = field(default_factory=dict)
    floor_notified: Measured = field(default_factory=dict)
    lives: Measured = field(default_factory=dict)
    floor_lives: Measured = field(default_factory=dict)
    checks: Mapping[str, Measured] = field(default_factory=dict)
    floor_checks: Mapping[str, Measured] = field(default_factory=dict)
    flooded: Measured = field(default_factory=dict)
    gate: Mapping[str, Measured] = field(default_factory=dict)
    lists: Mapping[str, Measured] = field(default_factory=dict)
    mails: Measured = field(default_factory=dict)
    pending: Measured = field(default_factory=dict)
    rebuild: Measured = field(default_factory=dict)
    sorted_set: Mapping[str, Measured] = field(default_factory=dict)
    crowd: Measured = field(default_factory=dict)
    audit_log: Measured = field(default_factory=dict)
    peers: Mapping[str, Peer] = field(default_factory=dict)


def comparisons(found: BenchResults) -> Iterator[Comparison]:
    """Yield each load that the floor or a peer was put under too."""
    for count, storm in found.storms.items():
        floor = found.floor_storms.get(count, {}).get("last_seconds")
        peers = {
            name: peer.storms[count]["last_seconds"] for name, peer in found.peers.items() if count in peer.storms
        }
        if floor or peers:
            what = f"{count:,} deadlines at once: last one ended after"
            yield Comparison(what, "s", storm["last_seconds"], floor, peers, more_is_better=False)
    yield from _of_submits(found)
    yield from _of_peers(
        found, "submitted by 8 clients and approver notified", "/s", "notified", "a_second", more=True
    )
    yield from _of_peers(found, _life(found), "ms", "lives", "cpu_ms")
    for clients, share in (("", "16 clients: access checks"), ("_paced", "200 access checks a second: p99")):
        yield from _of_checks(found, clients, share)
    if found.gate:
        yield from _of_gate(found.gate)
    if found.mails:
        one, plain = found.mails["one_domain"], found.mails["plain"]
        yield Comparison("mails of one notifications worker to one domain", "/s", one, plain)
    for name, listed in found.lists.items():
        what = f"{name} beside {listed['count']:,.0f} closed requests, to an empty table: p50"
        yield Comparison(what, "ms", listed["p50_ms"], listed["empty_p50_ms"], more_is_better=False)
    if found.pending and (
        peers := {name: _waits(peer.pending) for name, peer in found.peers.items() if peer.pending}
    ):
        what = "a pending deadline beside its row: Redis, workers and Postgres"
        yield Comparison(what, "bytes", _waits(found.pending), None, peers, more_is_better=False)
    if found.sorted_set:
        set_, raw = (found.sorted_set[name]["a_second"] for name in ("lockbox", "floor"))
        yield Comparison("members of a sorted set added, claimed and dropped", "/s", set_, raw)


def _of_submits(found: BenchResults) -> Iterator[Comparison]:
    for clients, run in found.submits.items():
        for floor, name in ((found.floor_submits, "one row"), (found.floor_rows, "the same rows")):
            if clients in floor:
                what = f"submitted by {_clients(clients)}, to a bare endpoint with {name}"
                yield Comparison(what, "/s", run["a_second"], floor[clients]["a_second"])
    if found.paced_submits and found.floor_paced_submits:
        ours, floor_p99 = found.paced_submits["p99_ms"], found.floor_paced_submits["p99_ms"]
        yield Comparison("40 submits a second: p99", "ms", ours, floor_p99, more_is_better=False)


def _clients(count: int) -> str:
    return "1 client" if count == 1 else f"{count} clients"


def _of_checks(found: BenchResults, clients: str, what: str) -> Iterator[Comparison]:
    name, unit = ("p99_ms", "ms") if clients else ("a_second", "/s")
    floor = found.floor_checks.get(f"open{clients}", {}).get(name)
    for door in ("open", "closed"):
        if f"{door}{clients}" in found.checks and floor is not None:
            ours = found.checks[f"{door}{clients}"][name]
            yield Comparison(
                f"{what}, {door}, to a route that does nothing", unit, ours, floor, more_is_better=not clients
            )


def _of_gate(found: Mapping[str, Measured]) -> Iterator[Comparison]:
    """Yield the gate's answers to 16 clients, compared with a FastAPI route and a callable that do nothing."""
    for name, tokens in (("checks", "remembered tokens"), ("first_calls", "new tokens")):
        ours, route, bare = (found[one] for one in (name, "nothing_route", "nothing_callable"))
        what = f"the gate, 16 clients, {tokens}"
        yield Comparison(f"{what}, to a route that does nothing", "/s", ours["a_second"], route["a_second"])
        for floor, kind in ((route, "a route that does nothing"), (bare, "a bare callable")):
            cpu = f"{what}: CPU, to {kind}"
            yield Comparison(cpu, "µs", ours["cpu_us"], floor["cpu_us"], more_is_better=False)


def slowest_list(found: BenchResults) -> str:
    """Return the list that closed requests slow most."""
    return max(found.lists, key=lambda name: found.lists[name]["p50_ms"] / found.lists[name]["empty_p50_ms"])


def _life(found: BenchResults) -> str:
    return f"CPU of a life over HTTP with {found.lives.get('mails', 0):.0f} mails"


def _waits(pending: Measured) -> float:
    """Return the bytes of a waiting deadline; in Postgres, those besides its request's row."""
    return sum(max(0.0, pending[f"{where}_bytes"]) for where in ("redis", "worker", "postgres"))


def _of_peers(
    found: BenchResults, what: str, unit: str, part: str, name: str, *, more: bool = False
) -> Iterator[Comparison]:
    ours, floor = getattr(found, part).get(name), getattr(found, f"floor_{part}").get(name)
    peers = {key: getattr(peer, part)[name] for key, peer in found.peers.items() if name in getattr(peer, part)}
    if ours is not None and (peers or floor):
        yield Comparison(what, unit, ours, floor, peers, more_is_better=more)


def targets(found: BenchResults) -> list[Figure]:
    """Return each target with its measurement."""
    return [*_deadlines(found), *_over_http(found), *_waiting(found), *_history(found)]


def _deadlines(found: BenchResults) -> Iterator[Figure]:
    if COMPARED in found.storms and COMPARED in found.floor_storms:
        times = found.storms[COMPARED]["last_seconds"] / found.floor_storms[COMPARED]["last_seconds"]
        yield Figure(f"{COMPARED:,} deadlines at once: last one", times, OF_FLOOR_SECONDS, "times the floor")
    if growth := _growth(found):
        yield growth
    if found.steady and found.lone:
        times = found.steady["late_p99_ms"] / found.lone["median_ms"]
        yield Figure("200 deadlines a second: p99", times, STEADY_OF_LONE, "times a lone one")


def _growth(found: BenchResults) -> Figure | None:
    """Compare the cost of a deadline in the largest storm and in one of ten thousand; None if none is larger."""
    largest = max(found.storms, default=0)
    if largest <= COMPARED:
        return None
    each = {count: found.storms[count]["last_seconds"] / count for count in (COMPARED, largest)}
    what = f"one of {largest:,} deadlines at once, to one of {COMPARED:,}"
    return Figure(what, each[largest] / each[COMPARED], LINEAR, "times")


def _over_http(found: BenchResults) -> Iterator[Figure]:
    for clients, run in found.submits.items():
        if clients in found.floor_submits:
            share = 100 * run["a_second"] / found.floor_submits[clients]["a_second"]
            what = f"submitted by {_clients(clients)}: of a bare endpoint"
            yield Figure(what, share, SUBMIT_PERCENT[clients], "%", more_is_better=True, refused=run["busy"])
    if found.notified and found.floor_notified:
        share = 100 * found.notified["a_second"] / found.floor_notified["a_second"]
        yield Figure(
            "submitted and notified, 8 clients: of the floor", share, NOTIFIED_PERCENT, "%", more_is_better=True
        )
    if found.lives and found.floor_lives:
        times = found.lives["cpu_ms"] / found.floor_lives["cpu_ms"]
        yield Figure(_life(found), times, LIFE_OF_FLOOR, "times the floor")
    yield from _checks(found)
    if found.gate:
        yield from _gate(found.gate)


def _gate(found: Mapping[str, Measured]) -> Iterator[Figure]:
    checks = found["checks"]
    what = "the gate, 16 clients, remembered tokens"
    yield Figure(f"{what}: a core", checks["a_core_second"], GATE_A_CORE_SECOND, "/s", more_is_better=True)
    yield Figure(f"{what}: p99", checks["p99_ms"], GATE_P99_MS, "ms")
    yield Figure("the gate, 200 a second, remembered tokens: p99", checks["paced_p99_ms"], GATE_PACED_P99_MS, "ms")
    yield Figure("100,000 open windows in the gate's memory", found["memory"]["mib"], GATE_MIB, "MiB")
    yield Figure("a check that the guard answers itself: CPU", found["guard"]["check_us"], GUARD_CHECK_US, "µs")
    for part, where in (("revoke", ""), ("revoke_without_redis", ", without Redis")):
        for name, who in (("gate", "the gate's last yes"), ("stream", "guards are told")):
            yield Figure(f"revoke{where}: {who}, p99", found[part][f"{name}_p99_ms"], REVOKE_P99_MS, "ms")
    for part in ("stopped", "killed"):
        lost = found[f"postgres_{part}"]
        yield Figure(f"Postgres {part}: the gate's last yes", lost["last_yes_s"], REFUSED_SECONDS, "s")
        yield Figure(f"Postgres {part}: the gate's slowest answer", lost["slowest_s"], REFUSED_SECONDS, "s")
        yield Figure(f"Postgres back, once {part}: let in again after", lost["back_s"], BACK_SECONDS, "s")


def _checks(found: BenchResults) -> Iterator[Figure]:
    for door in ("open", "closed"):
        if paced := found.checks.get(f"{door}_paced"):
            what = f"200 access checks a second, {door}: p99"
            yield Figure(what, paced["p99_ms"], CHECK_P99_MS, "ms", refused=paced["busy"])
    if found.checks:
        of_open = found.checks["closed"]["postgres_cpu_ms"] / found.checks["open"]["postgres_cpu_ms"]
        yield Figure("a closed door: Postgres' CPU", of_open, CLOSED_OF_OPEN, "times an open one")
    if found.checks and found.floor_checks:
        ours = found.checks["open"]
        share = 100 * ours["a_second"] / found.floor_checks["open"]["a_second"]
        what = "access checks by 16 clients: of a route that does nothing"
        yield Figure(what, share, CHECK_PERCENT, "%", more_is_better=True, refused=ours["busy"])
    if flooded := found.flooded:
        what = "access check while 400 connections submit: p99"
        yield Figure(what, flooded["p99_ms"], FLOODED_P99_MS, "ms", refused=flooded["busy"])


def _waiting(found: BenchResults) -> Iterator[Figure]:
    if found.lists:
        one = found.lists[slowest_list(found)]
        what = f"the slowest of lists and pages beside {one['count']:,.0f} closed requests"
        yield Figure(what, one["p50_ms"] / one["empty_p50_ms"], LISTS_OF_EMPTY, "times an empty table")
    if waiting := found.pending:
        many = f"{waiting['count']:,.0f} pending"
        yield Figure(f"{many}: each in Redis", waiting["redis_bytes"], REDIS_BYTES, "bytes")
        yield Figure(f"{many}: workers grown by", waiting["grown_mib"], GROWN_MIB, "MiB")
        yield Figure(f"{many}: idle, all processes", waiting["core_percent_of_all"], IDLE_PERCENT, "% of a core")
    if again := found.rebuild:
        limit = ROUND_SECONDS + REBUILD_SECONDS_A_MILLION * again["count"] / MILLION
        yield Figure(f"{again['count']:,.0f} pending, Redis emptied: whole again after", again["seconds"], limit, "s")
        yield Figure("what fell due meanwhile: worst late by", again["worst_seconds"], LATE_SECONDS, "s")


def _history(found: BenchResults) -> Iterator[Figure]:
    if crowd := found.crowd:
        what = "a submit among 10,000 tenants, 1,000 members, to one alone"
        yield Figure(what, crowd["ratio"], CROWD_RATIO, "times")
    if mails := found.mails:
        hanging = "one domain and one endpoint hang: of the others' notifications left within 5 s"
        yield Figure(hanging, mails["in_time_percent"], IN_TIME_PERCENT, "%", more_is_better=True)
        for where, name in (("one domain", "one_domain"), ("500 domains", "many_domains")):
            what = f"mails a second, one notifications worker, to {where}"
            yield Figure(what, mails[name], MAILS_A_SECOND, "", more_is_better=True)
    if audit_log := found.audit_log:
        yield from _audit_log(audit_log)


def _audit_log(found: Measured) -> Iterator[Figure]:
    events = f"{found['events']:,.0f} events"
    limit = VERIFY_SECONDS_A_MILLION * found["events"] / MILLION
    yield Figure(f"{events} sealed a second", found["sealed_a_second"], SEALED_A_SECOND, "", more_is_better=True)
    yield Figure(f"{events} verified offline", found["verify_seconds"], limit, "s")
    yield Figure(f"an inclusion proof among {events}, p99", found["proof_p99_ms"], PROOF_MS, "ms")
    yield Figure("500 events a second: sealed after, p99", found["lag_p99_seconds"], LAG_SECONDS, "s")
    beside = "submit, endorse, approve while a sealer runs, to without"
    yield Figure(beside, found["cost_ratio"], SEALING_RATIO, "times")
