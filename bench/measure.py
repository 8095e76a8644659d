"""The measurements: each looks from outside, by Postgres' clock, at what is committed."""

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import psutil
from sqlalchemy import Engine, text

from bench.load import Loaded, load
from cli.sample import Sample
from cli.stack import Processes
from lockbox.database import Database

PATIENCE = 60.0
LOOK_SECONDS = 0.002
LEFT = text("""
SELECT NOT EXISTS (SELECT FROM requests WHERE wake_at <= :due) AS ended, clock_timestamp() AS at
""")
STATE = text("SELECT wake_at IS NULL AS ended, clock_timestamp() AS at FROM requests WHERE id = :id")
ROWS = text("""
SELECT (SELECT count(*) FROM events WHERE to_state = 'expired') AS events,
    (SELECT count(*) FROM notices WHERE template = 'expired') AS notices,
    (SELECT count(*) FROM requests WHERE state = 'expired') AS requests
""")


@dataclass(frozen=True)
class Bench:
    """What is measured: a running stack, the house behind it, and the sample people."""

    engine: Engine
    house: Database
    sample: Sample
    processes: Processes


def storm(bench: Bench, count: int, tick: Callable[[], object]) -> dict[str, float]:
    """Let many requests fall due at one instant; return by how many seconds the last was seen late."""
    before = _rows(bench.engine)
    loaded = load(
        bench.engine,
        bench.house,
        bench.sample,
        state="active",
        count=count,
        due_in=timedelta(seconds=4 + count / 5000),
    )
    tick()
    last = _all_ended(bench.engine, loaded)
    tick()
    made = {name: value - before[name] for name, value in _rows(bench.engine).items()}
    if made["events"] != count or made["requests"] != count or made["notices"] < count:
        raise RuntimeError(f"rows are missing: {made}")
    return {"last_seconds": (last - loaded.due).total_seconds(), "notices": made["notices"]}


def settle(bench: Bench) -> None:
    """Give up what is still to be sent, so that the next measurement begins on an idle system."""
    with bench.engine.connect() as connection:
        connection.execute(text("UPDATE notices SET closed_at = now(), outcome = 'moot' WHERE closed_at IS NULL"))
    time.sleep(3)


def lone(bench: Bench, rounds: int, tick: Callable[[], object]) -> dict[str, float]:
    """Let one request at a time fall due on an idle system; return how late its end was seen, in milliseconds."""
    late = []
    for number in range(rounds):
        loaded = load(
            bench.engine,
            bench.house,
            bench.sample,
            state="active",
            count=1,
            due_in=timedelta(milliseconds=700 + 37 * number % 300),
        )
        late.append((_one_ended(bench.engine, loaded) - loaded.due).total_seconds() * 1000)
        tick()
    late.sort()
    return {"median_ms": statistics.median(late), "p90_ms": late[int(rounds * 0.9)], "worst_ms": late[-1]}


def idle(bench: Bench, count: int, seconds: float, tick: Callable[[], object]) -> dict[str, float]:
    """Load requests that are due tomorrow; return the workers' share of a core and how much they grew."""
    time.sleep(2)
    family = list(_family(bench.processes, ("worker", "notices")))
    memory = sum(one.memory_info().rss for one in family)
    load(bench.engine, bench.house, bench.sample, state="pending", count=count, due_in=timedelta(days=1))
    time.sleep(6)
    tick()
    spent, began = _cpu(family), time.monotonic()
    time.sleep(seconds)
    tick()
    share = (_cpu(family) - spent) / (time.monotonic() - began)
    grown = sum(one.memory_info().rss for one in family) - memory
    return {"core_percent": share * 100, "grown_mib": grown / 2**20, "processes": len(family)}


def _all_ended(engine: Engine, loaded: Loaded) -> datetime:
    with engine.connect() as connection:
        return _seen(lambda: _ended(connection.execute(LEFT, {"due": loaded.due}).one()))


def _one_ended(engine: Engine, loaded: Loaded) -> datetime:
    with engine.connect() as connection:
        ask = {"id": loaded.ids[0]}
        return _seen(lambda: _ended(connection.execute(STATE, ask).one()))


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


def _rows(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        return dict(connection.execute(ROWS).mappings().one())


def _family(processes: Processes, names: Iterable[str]) -> Iterable[psutil.Process]:
    for name in names:
        parent = psutil.Process(processes.running[name].pid)
        yield parent
        yield from parent.children(recursive=True)


def _cpu(family: Iterable[psutil.Process]) -> float:
    return sum(sum(one.cpu_times()[:2]) for one in family)
