"""Loads over HTTP: intake, whole lives of requests, and access checks."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import RowMapping, text

from bench import costs
from bench.customers import Customers, resource
from bench.db import Bench
from bench.figures import medians, quantile
from harness.load import play
from harness.people import question

CLIENTS = (1, 8, 64)
CHECKING = 16
FLOOD, CHECKING_BESIDE = 400, 4
WINDOWS = 64
WARM_UP_SECONDS = 1.0
LIVING = 8
LIFE_SECONDS = 10
PATIENCE = 120.0
LOOK_SECONDS = 0.25
SHARES = {"p50_ms": 0.5, "p99_ms": 0.99}
STANDS = text("""
SELECT r.expired, n.notifications, n.sent
FROM (SELECT count(*) FILTER (WHERE state = 'expired') AS expired FROM requests WHERE id = ANY(:ids)) AS r,
(SELECT count(n.id) AS notifications, count(*) FILTER (WHERE n.outcome = 'sent') AS sent
    FROM unnest(CAST(:ids AS uuid[])) AS i (id) CROSS JOIN LATERAL (
        SELECT o.id, o.outcome FROM events e JOIN notifications o ON o.event_id = e.id
        WHERE e.request_id = i.id OFFSET 0) AS n) AS n
""")
# By the indexes of what is open alone: who looks is counted in with Postgres.
LEFT = text("""
SELECT (SELECT count(*) FROM requests WHERE wake_at IS NOT NULL AND id = ANY(:ids)) AS open,
    (SELECT count(*) FROM notifications WHERE closed_at IS NULL AND request_id = ANY(:ids)) AS waiting
""")
MOVES = text("SELECT count(*) FROM events WHERE request_id = ANY(:ids) AND seq IS NOT NULL")
SUBMITTED = text("SELECT count(*) FROM requests WHERE id = ANY(:ids)")


def intake(bench: Bench, customers: Customers, seconds: float, rounds: int) -> dict[int, dict[str, float]]:
    """Return what was accepted a second, and how soon, from one client and from more.

    Raises:
        RuntimeError: a request that was accepted is not there.
    """
    port = bench.processes.plan.api_port
    stories = [[call] for call in customers.filings(3600)]
    _accepted(bench, port, stories, max(CLIENTS), WARM_UP_SECONDS)
    return {
        clients: several([_accepted(bench, port, stories, clients, seconds) for _ in range(rounds)])
        for clients in CLIENTS
    }


def lives(bench: Bench, customers: Customers, count: int) -> dict[str, float]:
    """Let requests be filed, approved and ended by the clock; return what each cost all processes, mails included.

    Raises:
        RuntimeError: one did not end, or a row or a mail is missing.
    """
    stories = list(islice(cycle(customers.lives(LIFE_SECONDS)), count))
    port = bench.processes.plan.api_port
    spent, began = costs.each(bench), time.monotonic()
    ids = play(port, [[submission] for submission, _ in stories], LIVING, None)["ids"]
    # An answer that comes before its question has left would make the mail moot.
    _until_told(bench, ids)
    play(port, [_said(approval, one) for (_, approval), one in zip(stories, ids, strict=True)], LIVING, None)
    notifications = _lived(bench, ids)
    of_each = {name: 1000 * (seconds - spent[name]) / count for name, seconds in costs.each(bench).items()}
    return {
        "cpu_ms": sum(of_each.values()),
        **{f"{name}_cpu_ms": each for name, each in of_each.items()},
        "notifications": notifications,
        "seconds": time.monotonic() - began,
    }


def told(bench: Bench, customers: Customers, clients: int, count: int) -> dict[str, float]:
    """Return how many requests a second were accepted and their approver told, mail and all."""
    stories = [[call] for call in islice(cycle(customers.filings(3600)), count)]
    began = time.monotonic()
    ids = play(bench.processes.plan.api_port, stories, clients, None)["ids"]
    _until_told(bench, ids)
    return {"a_second": count / (time.monotonic() - began)}


def access(bench: Bench, customers: Customers, gate: str, seconds: float) -> dict[str, float]:
    """Open windows as people do, and ask about them from many clients; return how soon the answer came, in ms."""
    port = bench.processes.plan.api_port
    opened = list(islice(customers.lives(3600), WINDOWS))
    play(port, opened, 1, None)
    stories = [[_question(customers, number, gate)] for number in range(WINDOWS)]
    play(port, stories, CHECKING, WARM_UP_SECONDS)
    return rate(play(port, stories, CHECKING, seconds))


def flooded(bench: Bench, customers: Customers, gate: str, seconds: float) -> dict[str, float]:
    """Ask about windows while 400 connections submit as fast as they can; return how soon the answer came, in ms."""
    port = bench.processes.plan.api_port
    play(port, list(islice(customers.lives(3600), WINDOWS)), 1, None)
    checks = [[_question(customers, number, gate)] for number in range(WINDOWS)]
    filings = [[call] for call in customers.filings(3600)]
    with ThreadPoolExecutor(1) as beside:
        flood = beside.submit(play, port, filings, FLOOD, seconds + 2 * WARM_UP_SECONDS)
        play(port, checks, CHECKING_BESIDE, WARM_UP_SECONDS)
        found = rate(play(port, checks, CHECKING_BESIDE, seconds))
        accepted = rate(flood.result())
    return {**found, "submitted_a_second": accepted["a_second"], "submits_refused": accepted["busy"]}


def _question(customers: Customers, number: int, gate: str) -> dict[str, object]:
    asked = question(customers.slugs[number], customers.engineers[number], resource(number))
    return {"method": "GET", "path": f"/v1/access?{urlencode(asked)}", "token": gate, "status": 200}


def rate(played: dict[str, Any]) -> dict[str, float]:
    """Return how many stories of one call were accepted a second, how long those took, and how many met a 503."""
    taken = played["taken"][0]
    return {
        "a_second": len(taken) / played["seconds"],
        "busy": float(played["busy"]),
        **{name: 1000 * quantile(taken, share) if taken else math.inf for name, share in SHARES.items()},
    }


def several(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the medians of several rates, and how many were answered 503 in the worst of them."""
    return {**medians(runs), "busy": max(run["busy"] for run in runs)}


def _accepted(
    bench: Bench, port: int, stories: list[list[dict[str, object]]], clients: int, seconds: float
) -> dict[str, float]:
    played = play(port, stories, clients, seconds)
    with bench.superuser.connect() as connection:
        there = connection.execute(SUBMITTED, {"ids": played["ids"]}).scalar_one()
    accepted = len(played["taken"][0])
    if not there == accepted == len(played["ids"]):
        raise RuntimeError(f"{accepted} were accepted and {there} are there")
    return rate(played)


def _lived(bench: Bench, ids: list[str]) -> float:
    """Wait until all have ended and whoever is told was told; return how many notifications each took."""
    _until(bench, ids, lambda row: not row["open"] and not row["waiting"])
    with bench.superuser.connect() as connection:
        found = connection.execute(STANDS, {"ids": ids}).mappings().one()
        moves = connection.execute(MOVES, {"ids": ids}).scalar_one()
    # Filed, approved, expired.
    if found["expired"] != len(ids) or moves != 3 * len(ids) or found["sent"] != found["notifications"]:
        raise RuntimeError(f"of {len(ids)} lives: {dict(found)}, {moves} moves")
    return float(found["notifications"]) / len(ids)


def _until_told(bench: Bench, ids: list[str]) -> None:
    _until(bench, ids, lambda row: not row["waiting"])


def _until(bench: Bench, ids: list[str], met: Callable[[RowMapping], bool]) -> None:
    """Look now and then, on one connection, at what is left."""
    until = time.monotonic() + PATIENCE
    with bench.superuser.connect() as connection:
        while not met(row := connection.execute(LEFT, {"ids": ids}).mappings().one()):
            if time.monotonic() > until:
                raise RuntimeError(f"not done within {PATIENCE} s: {dict(row)}")
            time.sleep(LOOK_SECONDS)


def _said(call: dict[str, object], found: str) -> list[dict[str, object]]:
    return [{**call, "path": str(call["path"]).replace("{id}", found)}]
