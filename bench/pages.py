"""`python -m bench.pages`: how long the server takes for each page when a tenant has ten thousand requests."""

import argparse
import http.client
import logging
import time
from datetime import timedelta
from uuid import UUID

import structlog
from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, text

from bench.db import Site, site
from bench.figures import quantile
from bench.load import clock, load
from cli.signals import end_on_signals
from cli.stack import Processes
from harness.people import sign_in
from harness.stage import running, superuser_at
from lockbox.database import Database, make_engine
from lockbox.schedule import Schedule

MOST_MS = 100.0
WARM = 3
EVERYBODYS = ("/", "/requests", "/requests/{id}", "/account")
PAGES = {
    "ann": (*EVERYBODYS, "/waiting", "/open", "/requests?text=mailbox", "/requests?state=denied"),
    "max": (*EVERYBODYS, "/review", "/open"),
    "erin": (*EVERYBODYS, "/mine", "/ask"),
    "another": ("/requests", "/waiting", "/open"),
}
"""The pages by whose they are; `another` approves for a tenant that has no request at all."""
TABLE, TABLES = "/requests.csv", 5
"""What is written while it is read: its time is that to the first byte, and how many rows a second follow."""

# Nine of ten are over, as in a tenant that has used its lockbox for a year.
OVER = text("""
UPDATE requests SET state = 'denied', closed_at = now(), wake_at = NULL, version = version + 1
WHERE id = ANY(:ids)
""")
BEHIND_TRIGGERS = text("SET session_replication_role = replica")
ANALYZE = text("VACUUM ANALYZE requests")


def main() -> int:
    """Measure and print; 0 if every page keeps to its time, else 1."""
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=30)
    asked = parser.parse_args()
    end_on_signals()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    table = Table("page", "who", "answer", "p50 ms", "p95 ms", "bytes", title=f"{asked.requests} requests")
    worst = 0.0
    with site() as place, running(place.plan, Processes(place.plan, place.folder / "log"), ("api",)):
        port = place.plan.api_port
        shown, secrets = _fill(place, asked.requests), _sign_in(place)
        for who, path in ((who, path) for who, paths in PAGES.items() for path in paths):
            status, size, times = _measure(port, path.format(id=shown), secrets[who], asked.times)
            worst = max(worst, quantile(times, 0.95))
            table.add_row(path, who, str(status), *_figures(times), str(size))
        first, rows = _stream(port, secrets["ann"])
    Console().print(table)
    p50, p95 = _figures(first)
    Console().print(f"{TABLE}: first byte after {p50} ms, p95 {p95} ms; {rows:,.0f} rows a second")
    return 0 if max(worst, quantile(first, 0.95)) <= MOST_MS else 1


def _figures(times: list[float]) -> tuple[str, str]:
    return f"{quantile(times, 0.5):.1f}", f"{quantile(times, 0.95):.1f}"


def _fill(place: Site, count: int) -> UUID:
    """Load the requests, let nine of ten be over, and return one that waits."""
    with superuser_at(place.superuser.set(database="lockbox")) as engine:
        due = clock(engine) + timedelta(hours=6)
        loaded = load(engine, None, place.pattern, state="pending", count=count, due=due)
        _end(engine, [one for number, one in enumerate(loaded.ids) if number % 10])
    return loaded.ids[0]


def _end(engine: Engine, ids: list[UUID]) -> None:
    with engine.connect() as connection:
        connection.execute(BEHIND_TRIGGERS)
        connection.execute(OVER, {"ids": ids})
        connection.execute(ANALYZE)


def _sign_in(place: Site) -> dict[str, str]:
    """Begin a session for one of each role, and return the secrets."""
    callers = {name: place.world.people[name] for name in ("ann", "max", "erin")}
    callers["another"] = place.reviewed.people["ann"]
    db = Database(make_engine(place.plan.database_url, role="bench"), Schedule(place.plan.redis_url))
    secrets = {name: sign_in(db, caller) for name, caller in callers.items()}
    db.dispose()
    return secrets


def _measure(port: int, path: str, secret: str, times: int) -> tuple[int, int, list[float]]:
    """Return the status, the bytes, and how many milliseconds each answer took after the first few.

    Raises:
        RuntimeError: nobody is signed in there.
    """
    connection = http.client.HTTPConnection("localhost", port, timeout=30)
    took, body, status = [], b"", 0
    for _ in range(WARM + times):
        began = time.perf_counter()
        connection.request("GET", path, headers={"cookie": f"lockbox={secret}", "accept": "text/html"})
        answer = connection.getresponse()
        body, status = answer.read(), answer.status
        if (answer.getheader("location") or "").startswith("/sign-in"):
            raise RuntimeError(f"{path} asks to sign in: another server answers at port {port}")
        took.append((time.perf_counter() - began) * 1000)
    connection.close()
    return status, len(body), took[WARM:]


def _stream(port: int, secret: str) -> tuple[list[float], float]:
    """Return how many milliseconds the first byte of the table took each time, and the rows a second in all."""
    first, rows, seconds = [], 0, 0.0
    for _ in range(TABLES):
        connection = http.client.HTTPConnection("localhost", port, timeout=30)
        began = time.perf_counter()
        connection.request("GET", TABLE, headers={"cookie": f"lockbox={secret}"})
        answer = connection.getresponse()
        head = answer.read(1)
        first.append((time.perf_counter() - began) * 1000)
        rows += (head + answer.read()).count(b"\n") - 1
        seconds += time.perf_counter() - began
        connection.close()
    return first, rows / seconds


if __name__ == "__main__":
    raise SystemExit(main())
