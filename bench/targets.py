"""What was measured, held against the targets, the floor and the others; pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bench.figures import Comparison, Figure

Measured = Mapping[str, float]

STORM_SECONDS = {10_000: 0.6, 100_000: 6.0, 1_000_000: 60.0}
COMPARED = 10_000
LONE_MS = 10
STEADY_P99_MS = 50
TIMES_BEST_PEER = 10
OF_FLOOR_PERCENT = 50
OF_BARE_PERCENT = 60
INTAKE_CLIENTS = 8
INTAKE_P99_MS = 100
LIFE_CPU_MS = 5
ACCESS_P99_MS = 10
FLOODED_P99_MS = 250
REDIS_BYTES = 150
REQUEST_BYTES = 600
GROWN_MIB = 20
IDLE_PERCENT = 1
REBUILD_SECONDS_A_MILLION = 60
ROUND_SECONDS = 5
LATE_SECONDS = 10
LINEAR = 1.25
CROWD_RATIO = 1.1
IN_TIME_PERCENT = 99
MAILS_A_MINUTE = 1_000
SEALED_A_SECOND = 20_000
VERIFY_SECONDS_A_MILLION = 60
PROOF_MS = 20
LAG_SECONDS = 3
SEALING_RATIO = 1.05
MILLION = 1_000_000


@dataclass(frozen=True)
class Peer:
    """What was measured of another way of doing it; what was not is empty."""

    storms: Mapping[int, Measured] = field(default_factory=dict)
    lives: Measured = field(default_factory=dict)
    told: Measured = field(default_factory=dict)
    pending: Measured = field(default_factory=dict)


@dataclass(frozen=True)
class BenchResults:
    """All that one run measured; what its size leaves out is empty."""

    pending: Measured
    lone: Measured
    storms: Mapping[int, Measured]
    storm_behind: Measured
    steady: Measured
    intake: Mapping[int, Measured]
    bare: Mapping[int, Measured]
    lives: Measured
    told: Measured
    access: Measured
    rebuild: Measured
    floor: Mapping[int, Measured]
    sorted_set: Mapping[str, Measured]
    peers: Mapping[str, Peer] = field(default_factory=dict)
    crowd: Measured = field(default_factory=dict)
    reach: Measured = field(default_factory=dict)
    bare_lives: Measured = field(default_factory=dict)
    bare_told: Measured = field(default_factory=dict)
    audit_log: Measured = field(default_factory=dict)
    flooded: Measured = field(default_factory=dict)


def comparisons(found: BenchResults) -> Iterator[Comparison]:
    """Yield each load that somebody else was put to as well."""
    for count, storm in found.storms.items():
        floor = found.floor.get(count, {}).get("a_second")
        peers = {name: peer.storms[count]["a_second"] for name, peer in found.peers.items() if count in peer.storms}
        if floor or peers:
            yield Comparison(f"{count:,} due at one instant: ended", "/s", storm["a_second"], floor, peers)
    for clients, intake in found.intake.items():
        floor = found.bare[clients]["a_second"]
        yield Comparison(f"filed over HTTP by {clients}", "/s", intake["a_second"], floor)
    yield from _of_peers(found, "filed and told of", "/s", "told", "a_second", more_is_better=True)
    yield from _of_peers(found, "CPU of a life", "ms", "lives", "cpu_ms")
    if peers := {name: _waits(peer.pending) for name, peer in found.peers.items() if peer.pending}:
        ours = _waits(found.pending)
        what = "a deadline that waits, beside its row: Redis, workers and Postgres"
        yield Comparison(what, "bytes", ours, None, peers, more_is_better=False)
    set_, raw = (found.sorted_set[name]["a_second"] for name in ("lockbox", "floor"))
    yield Comparison("members of a sorted set added, claimed and dropped", "/s", set_, raw)


def _waits(pending: Measured) -> float:
    """Return the bytes that a deadline takes which waits; in Postgres those beside the row of its request."""
    return sum(max(0.0, pending[f"{where}_bytes"]) for where in ("redis", "worker", "postgres"))


def _of_peers(
    found: BenchResults, what: str, unit: str, part: str, name: str, *, more_is_better: bool = False
) -> Iterator[Comparison]:
    ours, floor = getattr(found, part)[name], getattr(found, f"bare_{part}").get(name)
    peers = {key: getattr(peer, part)[name] for key, peer in found.peers.items() if name in getattr(peer, part)}
    if peers or floor:
        yield Comparison(what, unit, max(0.0, ours), floor, peers, more_is_better)


def targets(found: BenchResults) -> list[Figure]:
    """Return each target with what was measured."""
    return [
        *_deadlines(found),
        *_doors(found),
        *_waiting(found),
        *(_history(found) if found.audit_log else ()),
    ]


def _deadlines(found: BenchResults) -> Iterator[Figure]:
    for count, seconds in STORM_SECONDS.items():
        if count in found.storms:
            storm = found.storms[count]
            yield Figure(f"{count:,} due at one instant: last one late by", storm["last_seconds"], seconds, "s")
            if count in found.floor:
                share = 100 * storm["a_second"] / found.floor[count]["a_second"]
                what = f"{count:,} at one instant: of the floor's rate for the same rows"
                yield Figure(what, share, OF_FLOOR_PERCENT, "%", more_is_better=True)
    for one in comparisons(found):
        if one.what.startswith(f"{COMPARED:,} due") and one.times_best_peer is not None:
            what = f"{COMPARED:,} at one instant: times the best peer's rate"
            yield Figure(what, one.times_best_peer, TIMES_BEST_PEER, "times", more_is_better=True)
    behind = found.storm_behind["last_seconds"]
    limit = 2 * STORM_SECONDS[COMPARED]
    yield Figure("10,000 again at once, notifications of those before unsent: last one", behind, limit, "s")
    if growth := _growth(found):
        yield growth
    yield Figure("a lone deadline: late by, median", found.lone["median_ms"], LONE_MS, "ms")
    yield Figure("200 deadlines a second: late by, p99", found.steady["late_p99_ms"], STEADY_P99_MS, "ms")


def _growth(found: BenchResults) -> Figure | None:
    """Return what one of the largest storm costs to one of ten thousand; None where none is larger."""
    largest = max(found.storms)
    if largest <= COMPARED:
        return None
    each = {count: found.storms[count]["last_seconds"] / count for count in (COMPARED, largest)}
    return Figure(
        f"one of {largest:,} at one instant, to one of {COMPARED:,}", each[largest] / each[COMPARED], LINEAR, "times"
    )


def _doors(found: BenchResults) -> Iterator[Figure]:
    for clients, intake in found.intake.items():
        share = 100 * intake["a_second"] / found.bare[clients]["a_second"]
        what = f"filed over HTTP by {clients}: of a bare endpoint's rate"
        yield Figure(what, share, OF_BARE_PERCENT, "%", more_is_better=True, refused=intake["busy"])
    some = found.intake[INTAKE_CLIENTS]
    what = f"filed over HTTP by {INTAKE_CLIENTS}: p99"
    yield Figure(what, some["p99_ms"], INTAKE_P99_MS, "ms", refused=some["busy"])
    told = f"CPU of a life, HTTP and {found.lives['notifications']:.0f} notifications included"
    yield Figure(told, found.lives["cpu_ms"], LIFE_CPU_MS, "ms")
    what, checks = "access check from 16 clients: p99", found.access
    yield Figure(what, checks["p99_ms"], ACCESS_P99_MS, "ms", refused=checks["busy"])
    if flooded := found.flooded:
        what = "access check while 400 connections submit: p99"
        yield Figure(what, flooded["p99_ms"], FLOODED_P99_MS, "ms", refused=flooded["busy"])


def _waiting(found: BenchResults) -> Iterator[Figure]:
    waiting, count = found.pending, found.pending["count"]
    many = f"{count:,.0f} pending"
    yield Figure(f"{many}: each in Redis", waiting["redis_bytes"], REDIS_BYTES, "bytes")
    yield Figure(f"{many}: request row and its indexes", waiting["requests_bytes"], REQUEST_BYTES, "bytes")
    yield Figure(f"{many}: workers grown by", waiting["grown_mib"], GROWN_MIB, "MiB")
    yield Figure(f"{many}: idle workers", waiting["core_percent"], IDLE_PERCENT, "% of a core")
    again = found.rebuild
    limit = ROUND_SECONDS + REBUILD_SECONDS_A_MILLION * again["count"] / MILLION
    yield Figure(f"{again['count']:,.0f} waiting, Redis emptied: whole again after", again["seconds"], limit, "s")
    yield Figure("what fell due meanwhile: worst late by", again["worst_seconds"], LATE_SECONDS, "s")


def _history(found: BenchResults) -> Iterator[Figure]:
    crowd, reach, audit_log = found.crowd, found.reach, found.audit_log
    yield Figure("a submit among 10,000 tenants, 1,000 members, to one alone", crowd["ratio"], CROWD_RATIO, "times")
    hanging = "one domain and one endpoint hang: of the others' notifications left within 5 s"
    yield Figure(hanging, reach["in_time_percent"], IN_TIME_PERCENT, "%", more_is_better=True)
    for where, name in (("one domain", "one_domain"), ("500 domains", "many_domains")):
        what = f"mails a minute through one notifications worker, to {where}"
        yield Figure(what, reach[name], MAILS_A_MINUTE, "", more_is_better=True)
    events = f"{audit_log['events']:,.0f} events"
    limit = VERIFY_SECONDS_A_MILLION * audit_log["events"] / MILLION
    yield Figure(f"{events} sealed a second", audit_log["sealed_a_second"], SEALED_A_SECOND, "", more_is_better=True)
    yield Figure(f"{events} verified offline", audit_log["verify_seconds"], limit, "s")
    yield Figure(f"an inclusion proof among {events}, p99", audit_log["proof_p99_ms"], PROOF_MS, "ms")
    yield Figure("500 events a second: sealed after, p99", audit_log["lag_p99_seconds"], LAG_SECONDS, "s")
    beside = "submit, endorse, approve while a sealer runs, to without"
    yield Figure(beside, audit_log["cost_ratio"], SEALING_RATIO, "times")
