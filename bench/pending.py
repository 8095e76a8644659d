"""Many waiting requests: their bytes in Postgres, Redis and workers, the cost of idling, and a lost schedule."""

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from redis import Redis
from sqlalchemy import text

from bench import costs
from bench.figures import quantile
from bench.lockbox_stack import Bench
from bench.rows import clock, load
from harness.wait import wait_for
from lockbox.schedule import CLOCK

REST_SECONDS = 6
APART = timedelta(milliseconds=10)
PATIENCE = 300.0
OVERDUE = 200
INDEX = "ix_requests_wake_at"
SIZE = text("SELECT pg_total_relation_size(CAST(:name AS regclass))")
VACUUM = text("VACUUM ANALYZE")
OPEN = text("SELECT count(*) FROM requests WHERE wake_at IS NOT NULL")
LATE = text("SELECT extract(epoch FROM closed_at - deadline_at) FROM requests WHERE id = ANY(:ids)")


def wait(bench: Bench, count: int, seconds: float) -> dict[str, float]:
    """Load requests that are due from tomorrow on; return the space of each, and what workers use while none is due.

    `postgres_bytes` is what a deadline takes in Postgres besides its request's row: its place in the index.
    """
    time.sleep(2)
    workers = list(costs.ours(bench.processes, "worker", "notifications").values())
    memory, before = costs.resident(workers), _bytes(bench)
    due = clock(bench.superuser) + timedelta(days=1)
    # Each request is due at its own instant, as in real use: an index stores equal values only once.
    load(bench.superuser, bench.db.schedule, bench.pattern, state="pending", count=count, due=due, step=APART)
    after = _bytes(bench)
    with bench.superuser.connect() as connection:
        # Otherwise autovacuum would run while the cost of idling is measured.
        connection.execute(VACUUM)
    time.sleep(REST_SECONDS)
    everyone = bench.subject.processes().values()
    spent, of_all, began = costs.cpu_seconds(workers), costs.cpu_seconds(everyone), time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    each = {f"{name}_bytes": (after[name] - before[name]) / count for name in before}
    return {
        "count": float(count),
        **each,
        "grown_mib": (costs.resident(workers) - memory) / 2**20,
        "worker_bytes": (costs.resident(workers) - memory) / count,
        "core_percent": 100 * (costs.cpu_seconds(workers) - spent) / took,
        "core_percent_of_all": 100 * (costs.cpu_seconds(everyone) - of_all) / took,
    }


def rebuild(bench: Bench) -> dict[str, float]:
    """Empty Redis while many wait and some fall due; return the seconds until all is back, and how late those ended.

    Raises:
        RuntimeError: the schedule did not come back whole, or something that fell due meanwhile was not done.
    """
    due = clock(bench.superuser) + timedelta(seconds=3)
    step = timedelta(seconds=1 / OVERDUE)
    meanwhile = load(bench.superuser, None, bench.pattern, state="active", count=OVERDUE, due=due, step=step)
    with Redis.from_url(bench.processes.plan.redis_url) as redis:
        redis.flushall()
    began = time.monotonic()
    wait_for("the schedule is whole again", lambda: bench.db.schedule.rebuild(CLOCK).is_whole(), PATIENCE)
    seconds = time.monotonic() - began
    late = _late(bench, meanwhile.ids)
    with bench.superuser.connect() as connection:
        waiting = connection.execute(OPEN).scalar_one()
    held = len(bench.db.schedule.members(CLOCK))
    if held != waiting:
        raise RuntimeError(f"{waiting} requests wait and the schedule holds {held}")
    return {"seconds": seconds, "count": held, "late_p50_seconds": quantile(late, 0.5), "worst_seconds": max(late)}


def _late(bench: Bench, ids: Sequence[UUID]) -> list[float]:
    def ended() -> bool:
        with bench.superuser.connect() as connection:
            return None not in connection.execute(LATE, {"ids": ids}).scalars().all()

    wait_for("what fell due while the schedule was lost is done", ended, PATIENCE)
    with bench.superuser.connect() as connection:
        return [float(one) for one in connection.execute(LATE, {"ids": ids}).scalars()]


def _bytes(bench: Bench) -> Mapping[str, float]:
    relations = {name: name for name in bench.pattern.tables} | {"postgres": INDEX}
    with bench.superuser.connect() as connection:
        sizes = {
            name: float(connection.execute(SIZE, {"name": relation}).scalar_one())
            for name, relation in relations.items()
        }
    with Redis.from_url(bench.processes.plan.redis_url) as redis:
        return {**sizes, "redis": float(redis.info("memory")["used_memory"])}
