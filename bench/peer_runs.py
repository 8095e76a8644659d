"""Putting the other ways to work on the same servers, one after the other, while Lockbox itself is stopped."""

import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from redis import Redis
from sqlalchemy import text

from bench import costs
from bench.db import Site
from bench.figures import medians
from bench.load import clock
from bench.rivals import PYTHON, PeerProcesses, running
from bench.sizes import Size
from bench.storm_monitor import ended_at
from bench.targets import Peer
from cli import stack

LEAST_SECONDS = 4.0
SECONDS_EACH = 0.003
TRIES = 4
PATIENCE = 180.0
LOOK_SECONDS = 0.25
WARM_UP = 50
WARM_UPS = 8
LIFE_SECONDS = 5
REST_SECONDS = 4
MOST = {"dbos_delay": 2_000}
"""More than these a peer is spared: it would take minutes."""

LOAD = text("""
INSERT INTO requests (id, requester, service, resources, actions, justification, state, version, deadline_at,
    created_at)
SELECT uuidv7(), 'erin@vendor.example', 'exchange-online', ARRAY['mailbox:anna@contoso.example'], ARRAY['read'],
    'The mailbox does not open on the phone', 'active', 1, :due, now() FROM generate_series(1, :count) RETURNING id
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
LIVED = text("""
SELECT (SELECT count(*) FROM requests WHERE id = ANY(CAST(:ids AS uuid[])) AND closed_at IS NULL) AS open,
    (SELECT count(*) FROM notifications WHERE request_id = ANY(CAST(:ids AS uuid[]))) AS told
""")


def measure(site: Site, name: str, size: Size) -> Peer:
    """Return what one peer gives and takes."""
    with running(site, name) as peer:
        _warm_up(peer)
        storms = {
            count: medians([_storm(peer, count) for _ in range(rounds)])
            for count, rounds in size.peer_storms
            if count <= MOST.get(name, count)
        }
        lives, told = _lives(peer, size.peer_lives), _told(peer, size.peer_lives)
        return Peer(storms, lives, told, _pending(peer, size.peer_pending))


def _warm_up(peer: PeerProcesses) -> None:
    """Let a few fall due, over and over until the peer is there.

    Raises:
        RuntimeError: it does not come.
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
    """Let many fall due at one instant; what is not done within three minutes is missing."""
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
    """Load requests and have them armed before they are due; return when that is, and how long arming took.

    Raises:
        RuntimeError: arming takes ever longer.
    """
    ahead = LEAST_SECONDS + SECONDS_EACH * count
    for _ in range(TRIES):
        due = clock(peer.engine) + timedelta(seconds=ahead)
        with peer.engine.connect() as connection:
            ids = [str(one) for one in connection.execute(LOAD, {"due": due, "count": count}).scalars()]
        took = peer.drive("arm", ids, 2, due=due.timestamp())["seconds"]
        if clock(peer.engine) < due:
            return due, took
        ahead = 2 * (ahead + took)
        time.sleep(REST_SECONDS)
    raise RuntimeError(f"{peer.name}: arming {count} deadlines takes ever longer")


def _lives(peer: PeerProcesses, count: int) -> dict[str, float]:
    ids = _fresh(peer, count)
    everyone = [*peer.family, *costs.servers(peer.site.plan)]
    spent = costs.cpu_seconds(everyone)
    driven = peer.drive("live", ids, window=LIFE_SECONDS)
    lived = _until(peer, ids, lambda row: row["open"] == 0 and row["told"] >= 2 * count)
    spent = costs.cpu_seconds(everyone) - spent + driven["cpu_seconds"]
    return {"cpu_ms": 1000 * spent / count, "stuck": float(lived["open"]), "notifications": lived["told"] / count}


def _told(peer: PeerProcesses, count: int) -> dict[str, float]:
    ids, began = _fresh(peer, count), time.monotonic()
    peer.drive("tell", ids)
    lived = _until(peer, ids, lambda row: row["told"] >= count)
    return {"a_second": lived["told"] / (time.monotonic() - began)}


def _pending(peer: PeerProcesses, count: int) -> dict[str, float]:
    """Arm what is due in an hour; return the bytes that each takes in Redis, in the workers and in Postgres."""
    time.sleep(REST_SECONDS)
    before = _sizes(peer)
    peer.drive("arm", _fresh(peer, count), 2, due=clock(peer.engine).timestamp() + 3600)
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
        "worker_bytes": float(costs.resident(peer.family)),
        "postgres_bytes": float(postgres),
    }


def _fresh(peer: PeerProcesses, count: int) -> list[str]:
    with peer.engine.connect() as connection:
        return [str(one) for one in connection.execute(FRESH, {"count": count}).scalars()]


def _until(peer: PeerProcesses, ids: list[str], met: Callable[[Mapping[str, int]], bool]) -> Mapping[str, int]:
    """Look until it is met, or three minutes are over; return what was seen last."""
    until = time.monotonic() + PATIENCE
    with peer.engine.connect() as connection:
        while True:
            row = dict(connection.execute(LIVED, {"ids": ids}).mappings().one())
            if met(row) or time.monotonic() > until:
                return row
            time.sleep(LOOK_SECONDS)


def plot(run: Path) -> None:
    """Draw a run that was written down, by the peers' environment: the product has no library for it."""
    subprocess.run([PYTHON, "-m", "bench.plots", str(run)], check=True, cwd=stack.CHECKOUT)
