"""Put loads on the peers, one after the other, on the same servers, while Lockbox itself is stopped."""

import subprocess
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from redis import Redis
from sqlalchemy import text

from bench import costs, http_load
from bench.bench_size import Size
from bench.customers import Customers
from bench.deadlines import ended_at
from bench.figures import medians
from bench.lockbox_stack import Site
from bench.peer_stack import PYTHON, PeerProcesses, running
from bench.rows import clock
from bench.targets import Peer
from devstack import stack

LEAST_SECONDS = 4.0
SECONDS_EACH = 0.0015
TRIES = 4
PATIENCE = 180.0
WARM_UP = 50
WARM_UPS = 8
REST_SECONDS = 4
MOST = {"dbos_delay": 1_000}
"""The most deadlines for a peer that would take minutes for more."""

LOAD = text("""
INSERT INTO requests (id, requester, service, resources, actions, justification, access_window, state, version,
    deadline_at, created_at)
SELECT uuidv7(), 'erin@vendor.example', 'exchange-online', ARRAY['mailbox:anna@contoso.example'], ARRAY['read'],
    'The mailbox does not open on the phone', 3600, 'active', 1, :due, now()
FROM generate_series(1, :count) RETURNING id
""")
FRESH = text("SELECT uuidv7() FROM generate_series(1, :count)")
LEFT = text("""
SELECT NOT EXISTS (SELECT FROM requests WHERE closed_at IS NULL AND deadline_at = :due) AS ended,
    clock_timestamp() AS at
""")
STORM = text("""
SELECT count(closed_at) AS ended, count(*) - count(closed_at) AS missing,
    coalesce((SELECT count(*) FROM audit a JOIN requests r ON r.id = a.request_id WHERE r.deadline_at = :due), 0)
        AS audited,
    percentile_disc(ARRAY[0.5, 0.99])
        WITHIN GROUP (ORDER BY extract(epoch FROM closed_at - deadline_at) * 1000) AS late
FROM requests WHERE deadline_at = :due
""")


def measure(site: Site, customers: Customers, name: str, size: Size) -> Peer:
    """Return the figures of one peer."""
    with running(site, name) as peer:
        _warm_up(peer)
        storms = {
            count: medians([_storm(peer, count) for _ in range(rounds)])
            for count, rounds in size.peer_storms
            if count <= MOST.get(name, count)
        }
        lives = http_load.lives(peer.subject, customers, size.peer_lives)
        notified = http_load.notified(peer.subject, customers, size.peer_lives)
        return Peer(storms, lives, notified, _pending(peer, size.peer_pending))


def _warm_up(peer: PeerProcesses) -> None:
    """Let a few deadlines fall due, again and again until the peer works.

    Raises:
        RuntimeError: it does not start to work.
    """
    for left in reversed(range(WARM_UPS)):
        try:
            if not _storm(peer, WARM_UP)["missing"]:
                return
        except RuntimeError:
            if not left:
                raise
        time.sleep(REST_SECONDS)


def _storm(peer: PeerProcesses, count: int) -> dict[str, float]:
    """Let many fall due at one instant; those that are not done within three minutes are missing."""
    due, arming = _armed(peer, count)
    _, last = ended_at(peer.engine, LEFT, due, PATIENCE)
    with peer.engine.connect() as connection:
        found = connection.execute(STORM, {"due": due}).one()
    seconds = (last - due).total_seconds()
    return {
        "last_seconds": seconds,
        "a_second": found.ended / seconds,
        "late_p50_ms": float(found.late[0]),
        "late_p99_ms": float(found.late[1]),
        "missing": float(found.missing),
        "doubled": float(found.audited - found.ended),
        "arming_seconds": arming,
    }


def _armed(peer: PeerProcesses, count: int) -> tuple[datetime, float]:
    """Load requests and arm them before they are due; return when that is, and how long arming took.

    Raises:
        RuntimeError: arming takes longer each time.
    """
    ahead = LEAST_SECONDS + SECONDS_EACH * count
    for _ in range(TRIES):
        due = clock(peer.engine) + timedelta(seconds=ahead)
        with peer.engine.connect() as connection:
            ids = [str(one) for one in connection.execute(LOAD, {"due": due, "count": count}).scalars()]
        took = peer.arm(ids, due.timestamp())
        if clock(peer.engine) < due:
            return due, took
        ahead = 2 * (ahead + took)
        time.sleep(REST_SECONDS)
    raise RuntimeError(f"{peer.name}: arming {count} deadlines takes ever longer")


def _pending(peer: PeerProcesses, count: int) -> dict[str, float]:
    """Arm deadlines that are due in an hour; return the bytes of each in Redis, in the workers and in Postgres."""
    time.sleep(REST_SECONDS)
    before = _sizes(peer)
    peer.arm(_fresh(peer, count), clock(peer.engine).timestamp() + 3600)
    time.sleep(REST_SECONDS)
    after = _sizes(peer)
    return {name: max(0.0, after[name] - before[name]) / count for name in before}


def _sizes(peer: PeerProcesses) -> dict[str, float]:
    with Redis.from_url(peer.variables["BENCH_REDIS_URL"]) as redis:
        memory: Any = redis.info("memory")
    with peer.engine.connect() as connection:
        postgres = connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
    return {
        "redis_bytes": float(memory["used_memory"]),
        "worker_bytes": float(costs.resident(peer.workers)),
        "postgres_bytes": float(postgres),
    }


def _fresh(peer: PeerProcesses, count: int) -> list[str]:
    with peer.engine.connect() as connection:
        return [str(one) for one in connection.execute(FRESH, {"count": count}).scalars()]


def draw(run: Path) -> None:
    """Draw the charts of a stored run in the peers' environment, because the product has no library for this."""
    subprocess.run([PYTHON, "-m", "bench.charts", str(run)], check=True, cwd=stack.CHECKOUT)
