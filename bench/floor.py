"""The floor: the very rows that Lockbox leaves, written by raw set-based SQL, and raw calls on a sorted set."""

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
from redis import Redis
from sqlalchemy import URL, Engine, text

from bench.db import NOWHERE, Site
from bench.figures import medians
from bench.least import DATABASE
from bench.load import clock, load
from harness.stage import on_database, superuser_at
from lockbox.database import Database, array, make_engine
from lockbox.requests import timers as clock_
from lockbox.schedule import CLOCK, MOST_A_CALL, IndexEntry, Schedule
from lockbox.sql import new_id

CONNECTIONS = (1, 2)
ROUNDS = 3
MEMBERS = 10_000

BARE = text("""
CREATE TABLE bare_requests (LIKE requests INCLUDING DEFAULTS, PRIMARY KEY (id));
GRANT SELECT, INSERT, UPDATE ON bare_requests TO lockbox_api;
""")
MOVE = text("SELECT * FROM events WHERE request_id = :id AND to_state = 'expired'")
NOTIFICATIONS = text("SELECT * FROM notifications WHERE event_id = :id")
REPORTS = text("SELECT * FROM reports_due WHERE event_id = :id")
ROWS = text("""
SELECT (SELECT count(*) FROM requests WHERE state = 'expired') AS requests,
    (SELECT count(*) FROM events WHERE to_state = 'expired') AS events, (SELECT count(*) FROM unsealed) AS unsealed,
    (SELECT count(*) FROM notifications WHERE template = 'expired') AS notifications,
    (SELECT count(*) FROM reports_due) AS reports
""")
WRITE = """
WITH ended AS (
    UPDATE requests r SET state = 'expired', version = %(seq)s, wake_at = NULL, closed_at = %(at)s
    FROM unnest(%(ids)s::uuid[]) AS e (id) WHERE r.id = e.id
), new_events AS (
    INSERT INTO events (id, tenant_id, request_id, seq, at, action, actor_role, from_state, to_state, body)
    SELECT e.id, %(tenant_id)s, e.request_id, %(seq)s, %(at)s, %(action)s, %(actor_role)s, %(from_state)s,
        %(to_state)s, convert_to(e.body, 'UTF8')
    FROM unnest(%(events)s::uuid[], %(ids)s::uuid[], %(bodies)s::text[]) AS e (id, request_id, body)
), new_reports AS (
    INSERT INTO reports_due (event_id, due_at) SELECT id, %(report_at)s FROM unnest(%(reported)s::uuid[]) AS id
)
INSERT INTO notifications (id, tenant_id, request_id, event_id, person_id, endpoint_id, channel, template, run_at,
until_at,
    attempts)
SELECT n.id, %(tenant_id)s, n.request_id, n.event_id, t.person_id, t.endpoint_id, t.channel, t.template, t.run_at,
    t.until_at, 0
FROM unnest(%(notifications)s::uuid[], %(notification_requests)s::uuid[], %(notification_events)s::uuid[],
%(notification_told)s::int[])
    AS n (id, request_id, event_id, told)
JOIN unnest(%(person_id)s::uuid[], %(endpoint_id)s::uuid[], %(channel)s::text[], %(template)s::text[],
    %(run_at)s::timestamptz[], %(until_at)s::timestamptz[])
    WITH ORDINALITY AS t (person_id, endpoint_id, channel, template, run_at, until_at, number) ON t.number = n.told
"""


@dataclass(frozen=True)
class Pattern:
    """The rows that Lockbox's own clock left of one request whose window ended."""

    event: Mapping[str, Any]
    notifications: Sequence[Mapping[str, Any]]
    reports: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class WriteMethod:
    """One way of writing on the copy: how many requests a batch ends, on how many connections at once."""

    engine: Engine
    worker: URL
    like: UUID
    pattern: Pattern
    batch: int
    connections: int

    def run(self, count: int) -> dict[str, float]:
        """Load windows that are over, write what ends them, and return how many a second that was.

        Raises:
            RuntimeError: other rows were written than Lockbox writes.
        """
        ids = load(self.engine, None, self.like, state="active", count=count, due=clock(self.engine)).ids
        batches = [_rows(self.pattern, ids[start : start + self.batch]) for start in range(0, count, self.batch)]
        before = _counted(self.engine)
        seconds = self._seconds(batches)
        made = {name: value - before[name] for name, value in _counted(self.engine).items()}
        once = dict.fromkeys(("requests", "events", "unsealed"), 1)
        each = {**once, "notifications": len(self.pattern.notifications), "reports": len(self.pattern.reports)}
        if made != {name: count * number for name, number in each.items()}:
            raise RuntimeError(f"the floor wrote other rows than Lockbox does: {made} of {count}")
        return {"a_second": count / seconds, "last_seconds": seconds}

    def _seconds(self, batches: Sequence[dict[str, Any]]) -> float:
        shares = [batches[number :: self.connections] for number in range(self.connections)]
        login = self.worker.set(drivername="postgresql").render_as_string(hide_password=False)
        opened = [psycopg.connect(login, autocommit=True, prepare_threshold=0) for _ in shares]
        with ThreadPoolExecutor(self.connections) as pool:
            began = time.perf_counter()
            list(pool.map(_write, opened, shares))
            seconds = time.perf_counter() - began
        for connection in opened:
            connection.close()
        return seconds


def storms(site: Site, counts: Iterable[int], batches: Iterable[int], rounds: int) -> dict[int, dict[str, float]]:
    """Return, for so many ended windows, how many a second the best way of writing their rows took.

    On a copy of the database and by the worker's login; each way is a size of batch and a number of connections.
    The first of the counts is written in every way, and so often in the best one, the others once in that.

    Raises:
        RuntimeError: other rows were written than Lockbox writes.
    """
    with superuser_at(site.superuser.set(database=DATABASE)) as engine:
        pattern = _pattern(site, engine)
        worker = site.copied(site.plan.worker_database_url, DATABASE)
        first, *others = counts
        ways = [
            WriteMethod(engine, worker, site.pattern, pattern, *way)
            for way in itertools.product(batches, CONNECTIONS)
        ]
        best = max(ways, key=lambda way: way.run(first)["a_second"])
        found = {first: medians([best.run(first) for _ in range(rounds)])}
        found |= {count: best.run(count) for count in others}
    return {count: {**one, "batch": best.batch, "connections": best.connections} for count, one in found.items()}


def prepare(site: Site) -> None:
    """Add the table of the bare endpoint to the copy."""
    with superuser_at(site.superuser.set(database=DATABASE)) as engine, engine.connect() as connection:
        connection.execute(BARE)


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


def _pattern(site: Site, engine: Engine) -> Pattern:
    """Let Lockbox's own clock end one request on the copy, and return what it wrote."""
    one = load(engine, None, site.pattern, state="active", count=1, due=clock(engine))
    worker = site.copied(site.plan.worker_database_url, DATABASE)
    db = Database(make_engine(worker.render_as_string(hide_password=False), role="bench"), Schedule(NOWHERE))
    try:
        clock_.run(db, one.ids)
    finally:
        db.dispose()
    with engine.connect() as connection:
        event = dict(connection.execute(MOVE, {"id": one.ids[0]}).mappings().one())
        found = [
            connection.execute(query, {"id": event["id"]}).mappings().all() for query in (NOTIFICATIONS, REPORTS)
        ]
    return Pattern(event, [dict(row) for row in found[0]], [dict(row) for row in found[1]])


def _write(connection: psycopg.Connection, batches: Iterable[dict[str, Any]]) -> None:
    for batch in batches:
        connection.execute(WRITE, batch)


def _counted(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return dict(connection.execute(ROWS).mappings().one())


def _rows(pattern: Pattern, ids: Sequence[UUID]) -> dict[str, Any]:
    """Return the parameters that write one batch: what Python has to do is done before the clock starts."""
    event = pattern.event
    events = [new_id() for _ in ids]
    told = range(1, len(pattern.notifications) + 1)
    pairs = [(request, one, number) for request, one in zip(ids, events, strict=True) for number in told]
    body = bytes(event["body"]).decode()
    bodies = [
        body.replace(str(event["id"]), str(one)).replace(str(event["request_id"]), str(request))
        for request, one in zip(ids, events, strict=True)
    ]
    columns = ("person_id", "endpoint_id", "channel", "template", "run_at", "until_at")
    return {
        **{
            name: event[name] for name in ("tenant_id", "seq", "at", "action", "actor_role", "from_state", "to_state")
        },
        "ids": array(ids),
        "events": array(events),
        "bodies": bodies,
        "reported": array(events if pattern.reports else ()),
        "report_at": pattern.reports[0]["due_at"] if pattern.reports else None,
        "notifications": array(new_id() for _ in pairs),
        "notification_requests": array(request for request, _, _ in pairs),
        "notification_events": array(one for _, one, _ in pairs),
        "notification_told": array(number for _, _, number in pairs),
        **{name: array(notification[name] for notification in pattern.notifications) for name in columns},
    }
