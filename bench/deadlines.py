"""Deadlines: alone, steady and in a storm. What is committed is seen from outside, and timed by Postgres' clock."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import Engine, TextClause, text

from bench.figures import quantile
from bench.lockbox_stack import Bench
from bench.rows import LoadedRows, clock, load_ahead

PATIENCE = 300.0
LOOK_SECONDS = 0.002
LAST_LOOK_SECONDS = 0.01
AT_ONCE = timedelta(0)
LEFT = text("""
SELECT NOT EXISTS (SELECT FROM requests WHERE wake_at <= :due) AS ended, clock_timestamp() AS at
""")
WAITING = text("SELECT id FROM requests WHERE wake_at <= :last")
STATE = text("SELECT wake_at IS NULL AS ended, clock_timestamp() AS at FROM requests WHERE id = :id")
ROWS = text("""
SELECT (SELECT count(*) FROM events WHERE to_state = 'expired' AND request_id = ANY(:ids)) AS events,
    (SELECT count(*) FROM requests WHERE state = 'expired' AND id = ANY(:ids)) AS requests
""")
LATE = text("""
SELECT percentile_disc(ARRAY[0.5, 0.99]) WITHIN GROUP (ORDER BY extract(epoch FROM closed_at - deadline_at) * 1000)
FROM requests WHERE deadline_at = :due AND closed_at IS NOT NULL
""")


def storm(bench: Bench, count: int) -> dict[str, float]:
    """Let many requests fall due at one instant; return after how many seconds the last was seen to have ended.

    The p50 and p99 of the lateness come from `closed_at`, which is read under the locks of a batch, some milliseconds
    before the batch is committed.

    Raises:
        RuntimeError: some requests never ended, or rows are missing or doubled.
    """
    loaded = load_ahead(
        bench.superuser, bench.db.schedule, bench.pattern, bench.pace, state="active", count=count, step=AT_ONCE
    )
    has_ended, last = ended_at(bench.superuser, LEFT, loaded.due, PATIENCE)
    if not has_ended:
        raise RuntimeError(f"some of {count} requests never ended")
    _check(bench, loaded)
    seconds = (last - loaded.due).total_seconds()
    with bench.superuser.connect() as connection:
        half, most = connection.execute(LATE, {"due": loaded.due}).scalar_one()
    return {
        "last_seconds": seconds,
        "a_second": count / seconds,
        "late_p50_ms": float(half),
        "late_p99_ms": float(most),
    }


def ended_at(engine: Engine, left: TextClause, due: datetime, patience: float) -> tuple[bool, datetime]:
    """Wait until all that was due at one instant has ended; return whether it has, and when that was seen.

    It looks rarely, and not before `due`: each look takes CPU from what is measured.

    Args:
        engine: has every right.
        left: an SQL query with `due` that returns whether all has `ended`, and the database's time `at`.
        due: when it all falls due.
        patience: how many seconds after `due` to give up.
    """
    time.sleep(max(0.0, (due - clock(engine)).total_seconds()))
    until = time.monotonic() + patience
    with engine.connect() as connection:
        while not (row := connection.execute(left, {"due": due}).one()).ended and time.monotonic() < until:
            time.sleep(LAST_LOOK_SECONDS)
    return row.ended, row.at


def lone(bench: Bench, rounds: int) -> dict[str, float]:
    """Let one request at a time fall due on an idle system; return how late its end was seen, in milliseconds."""
    late = []
    for _ in range(rounds):
        loaded = load_ahead(
            bench.superuser, bench.db.schedule, bench.pattern, bench.pace, state="active", count=1, step=AT_ONCE
        )
        ask = {"id": loaded.ids[0]}
        with bench.superuser.connect() as connection:
            seen = _seen(lambda: _ended(connection.execute(STATE, ask).one()))  # noqa: B023 - called at once
        late.append((seen - loaded.due).total_seconds() * 1000)
    return {"median_ms": quantile(late, 0.5), "p90_ms": quantile(late, 0.9), "worst_ms": max(late)}


def steady(bench: Bench, a_second: int, seconds: int) -> dict[str, float]:
    """Let requests fall due one after the other, `a_second` of them; return how late each was seen to have ended.

    Raises:
        RuntimeError: some requests never ended, or rows are missing.
    """
    count = a_second * seconds
    loaded = load_ahead(
        bench.superuser,
        bench.db.schedule,
        bench.pattern,
        bench.pace,
        state="active",
        count=count,
        step=timedelta(seconds=1 / a_second),
    )
    late = _watch(bench.superuser, loaded)
    _check(bench, loaded)
    return {"late_p50_ms": quantile(late, 0.5), "late_p99_ms": quantile(late, 0.99), "worst_ms": max(late)}


def _watch(engine: Engine, loaded: LoadedRows) -> list[float]:
    """Return how many milliseconds late each request ended: it has ended once it is past due and no longer waits."""
    open_: dict[UUID, datetime] = {}
    late: list[float] = []
    reached = 0
    until = time.monotonic() + PATIENCE + (loaded.dues[-1] - loaded.due).total_seconds()
    at = clock(engine)
    with engine.connect() as connection:
        while reached < len(loaded.ids) or open_:
            if time.monotonic() > until:
                raise RuntimeError(f"{len(open_) + len(loaded.ids) - reached} requests never ended")
            asked = at
            while reached < len(loaded.ids) and loaded.dues[reached] <= asked:
                open_[loaded.ids[reached]] = loaded.dues[reached]
                reached += 1
            waiting = set(connection.execute(WAITING, {"last": asked}).scalars())
            at = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
            late += [(at - open_.pop(one)).total_seconds() * 1000 for one in open_.keys() - waiting]
            time.sleep(LOOK_SECONDS)
    return late


def _check(bench: Bench, loaded: LoadedRows) -> None:
    """Check that each request has ended exactly once."""
    with bench.superuser.connect() as connection:
        made = dict(connection.execute(ROWS, {"ids": loaded.ids}).mappings().one())
    count = len(loaded.ids)
    if made != {"events": count, "requests": count}:
        raise RuntimeError(f"rows of {count} requests are missing or doubled: {made}")


def _ended(row: object) -> tuple[bool, datetime]:
    return getattr(row, "ended"), getattr(row, "at")  # noqa: B009 - a row's columns are not known to types


def _seen(look: Callable[[], tuple[bool, datetime]]) -> datetime:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        done, at = look()
        if done:
            return at
        time.sleep(LOOK_SECONDS)
    raise RuntimeError(f"not done within {PATIENCE} s")
