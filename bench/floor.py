"""The floor: raw set-based SQL that writes the same rows as Lockbox, and raw calls on a sorted set."""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
from redis import Redis
from sqlalchemy import URL, Engine, text

from bench.bare_stack import DATABASE
from bench.figures import medians
from bench.lockbox_stack import NOWHERE, Site
from bench.rows import Footprint, clock, load
from harness.stage import on_database, superuser_at
from lockbox.database import Database, array, make_engine
from lockbox.requests import timers
from lockbox.schedule import CLOCK, MOST_A_CALL, IndexEntry, Schedule
from lockbox.sql import new_id

CONNECTIONS = (1, 2)
ROUNDS = 3
MEMBERS = 10_000


@dataclass(frozen=True)
class WriteMethod:
    """One way to write on the copy: how many requests a batch ends, and on how many connections at once.

    `rows` says how many rows of each table the SQL statement adds for one request.
    """

    engine: Engine
    worker: URL
    like: Footprint
    statement: str
    rows: Mapping[str, int]
    batch: int
    connections: int

    def run(self, count: int) -> dict[str, float]:
        """Load windows that are over, write the rows that end them, and return how many windows ended per second.

        Raises:
            RuntimeError: the rows differ from those that Lockbox writes.
        """
        ids = load(self.engine, None, self.like, state="active", count=count, due=clock(self.engine)).ids
        batches = [array(ids[start : start + self.batch]) for start in range(0, count, self.batch)]
        before = _counted(self.engine, self.rows)
        seconds = self._seconds(batches)
        made = {name: value - before[name] for name, value in _counted(self.engine, self.rows).items()}
        if made != {name: count * number for name, number in self.rows.items()}:
            raise RuntimeError(f"the floor wrote other rows than Lockbox does: {made} of {count}")
        return {"a_second": count / seconds, "last_seconds": seconds}

    def _seconds(self, batches: Sequence[str]) -> float:
        shares = [batches[number :: self.connections] for number in range(self.connections)]
        login = self.worker.set(drivername="postgresql").render_as_string(hide_password=False)
        opened = [psycopg.connect(login, autocommit=True, prepare_threshold=0) for _ in shares]
        with ThreadPoolExecutor(self.connections) as pool:
            began = time.perf_counter()
            list(pool.map(self._write, opened, shares))
            seconds = time.perf_counter() - began
        for connection in opened:
            connection.close()
        return seconds

    def _write(self, connection: psycopg.Connection, batches: Iterable[str]) -> None:
        for ids in batches:
            connection.execute(self.statement, {"ids": ids})


def storms(site: Site, counts: Iterable[int], batches: Iterable[int], rounds: int) -> dict[int, dict[str, float]]:
    """Return, for each count of ended windows, how many a second the best way ended by writing their rows.

    The rows are written on a copy of the database with the worker's login. A way is a batch size and a number of
    connections. The first count is run once in every way and then `rounds` times in the best way; each other count is
    run once in the best way.

    Raises:
        RuntimeError: the rows differ from those that Lockbox writes.
    """
    with superuser_at(site.superuser.set(database=DATABASE)) as engine:
        worker = site.copied(site.plan.worker_database_url, DATABASE)
        statement, rows = _of_lockbox(site, engine, worker)
        first, *others = counts
        ways = [
            WriteMethod(engine, worker, site.pattern, statement, rows, *way)
            for way in itertools.product(batches, CONNECTIONS)
        ]
        best = max(ways, key=lambda way: way.run(first)["a_second"])
        found = {first: medians([best.run(first) for _ in range(rounds)])}
        found |= {count: best.run(count) for count in others}
    return {count: {**one, "batch": best.batch, "connections": best.connections} for count, one in found.items()}


def sorted_set(redis_url: str) -> dict[str, dict[str, float]]:
    """Return how many members a second are added, claimed and dropped, by Lockbox's schedule and by raw calls."""
    url = on_database(redis_url, "1")
    with Redis.from_url(url) as raw:
        ways: dict[str, Callable[[], None]] = {"lockbox": lambda: _by_schedule(url), "floor": lambda: _by_calls(raw)}
        found = {}
        for name, way in ways.items():
            taken = []
            for _ in range(ROUNDS):
                raw.flushdb()
                began = time.perf_counter()
                way()
                taken.append({"a_second": MEMBERS / (time.perf_counter() - began)})
            found[name] = medians(taken)
        raw.flushdb()
    return found


def _by_schedule(url: str) -> None:
    schedule = Schedule(url)
    ids = [str(new_id()) for _ in range(MEMBERS)]
    schedule.arm(CLOCK, [IndexEntry(one, "expire", timedelta(0)) for one in ids])
    while found := schedule.claim(CLOCK).ids:
        schedule.arm(CLOCK, [IndexEntry(one, "expire", None) for one in found["expire"]])
    schedule.close()


def _by_calls(raw: Redis) -> None:
    ids = [f"expire:{new_id()}" for _ in range(MEMBERS)]
    for start in range(0, MEMBERS, MOST_A_CALL):
        raw.zadd("index", dict.fromkeys(ids[start : start + MOST_A_CALL], 1.0))
    while found := _due(raw):
        with raw.pipeline() as pipeline:
            pipeline.zrem("index", *found)
            pipeline.zadd("leases", dict.fromkeys(found, 2.0))
            pipeline.execute()
        raw.zrem("leases", *found)


def _due(raw: Redis) -> list[bytes]:
    found: Any = raw.zrangebyscore("index", "-inf", 2, start=0, num=MOST_A_CALL)
    return list(found)


def _of_lockbox(site: Site, engine: Engine, worker: URL) -> tuple[str, Mapping[str, int]]:
    """Let Lockbox's clock end one request on the copy; return SQL that writes the same rows, and their counts."""
    (one,) = load(engine, None, site.pattern, state="active", count=1, due=clock(engine)).ids
    db = Database(make_engine(worker.render_as_string(hide_password=False), role="bench"), Schedule(NOWHERE))
    with engine.connect() as connection:
        before = Footprint.of(connection, one)
        try:
            timers.run(db, [one])
        finally:
            db.dispose()
        return rows_of_end(before, Footprint.of(connection, one))


def rows_of_end(before: Footprint, after: Footprint) -> tuple[str, Mapping[str, int]]:
    """Return the SQL statement that ends some `ids` as one request ended, and how many rows it adds to each table."""
    added = after.since(before)
    changed = ", ".join(f"{name} = {value}" for name, value in after.changed(before).items())
    n = f"SELECT id AS request_id, {added.fresh()} FROM unnest(%(ids)s::uuid[]) AS id"
    update = f"UPDATE requests r SET {changed} FROM n WHERE r.id = n.request_id"
    inserts = ", ".join(f"{table}_rows AS ({insert})" for table, insert in added.inserts({}))
    statement = f"WITH n AS MATERIALIZED ({n}), ended AS ({update}), {inserts} SELECT"
    return statement, {table: len(rows) for table, rows in added.tables.items()}


def _counted(engine: Engine, tables: Iterable[str]) -> dict[str, int]:
    counts = ", ".join(f"(SELECT count(*) FROM {table}) AS {table}" for table in tables)
    with engine.connect() as connection:
        return dict(connection.execute(text(f"SELECT {counts}")).mappings().one())
