"""Lists, searches and pages beside millions of closed requests, to those of a table that holds a few pages.

Half of the closed requests are of one tenant and one engineer, the others of two hundred more; each is a row of
`requests` with its decisions, spread over the last year: lists read no other table by how much is in it.
"""

import http.client
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from uuid import UUID

from sqlalchemy import Engine, text

from bench.customers import Customers
from bench.figures import quantile
from bench.lockbox_stack import A_DAY, NOWHERE, UNLIMITED, Site
from bench.rows import REQUESTS, Footprint, clock, load
from cli.stack import Processes, StackPlan
from harness.people import sign_in
from harness.ports import own_port
from harness.stage import copied, on_database, running, superuser_at
from lockbox.database import Database, make_engine
from lockbox.schedule import Schedule

DATABASE = "lockbox_lists"
A_PAGE, OPEN = 200, 30
A_LOAD = 100_000
BYTES_EACH = 4_000
"""What a closed request takes on disk, with its indexes, and as much again for the write-ahead log and others."""
WARM_UP, TIMES = 3, 15
COLD_TIMES = 3
SLOW_SECONDS = 2.0
TIME_OUT = 60.0
EVERYBODYS = ("/requests", "/requests/{id}")
PAGES: Mapping[str, tuple[str, ...]] = {
    "ann": (*EVERYBODYS, "/waiting", "/open", "/requests?text=nothing", "/requests?state=denied"),
    "max": (*EVERYBODYS, "/review", "/open"),
    "erin": (*EVERYBODYS, "/mine", "/ask"),
}
CALLS: Mapping[str, tuple[str, ...]] = {
    "ann": ("/v1/requests", "/v1/requests?state=pending", "/v1/requests?state=denied", "/v1/requests?text=nothing"),
    "max": ("/v1/requests", "/v1/requests?state=reviewing"),
    "erin": ("/v1/requests", "/v1/requests?state=active"),
}
"""The pages and calls by whose they are: ann approves, max manages, erin asks."""

# As they lie after a year: old ids are small ones.
AGO = "(1 - n.number / %(count)s::float) * interval '1 year'"
UNCHECKED = text("SET session_replication_role = replica")
TENANTS = text("SELECT id FROM tenants WHERE slug = ANY(:slugs)")
VACUUM = text("VACUUM (ANALYZE)")


def measure(place: Site, customers: Customers, wanted: int) -> dict[str, dict[str, float]]:
    """Return the milliseconds of each list by its name, and those before the closed requests were there.

    There are as many closed requests as are wanted, or fewer where the disk has no room for them; `count` says so.
    """
    count = min(wanted, shutil.disk_usage(place.folder).free // BYTES_EACH)
    plan = replace(
        place.plan,
        database_url=on_database(place.plan.database_url, DATABASE),
        owner_database_url=on_database(place.plan.owner_database_url, DATABASE),
        api_port=own_port(),
    )
    with copied(place.superuser, DATABASE), superuser_at(place.superuser.set(database=DATABASE)) as engine:
        due = clock(engine) + A_DAY
        (shown, *_) = load(engine, None, place.pattern, state="pending", count=OPEN, due=due).ids
        _add_closed(engine, place, customers, A_PAGE)
        secrets = _sign_in(place, plan)
        with _api(place, plan):
            before = _measure_all(plan.api_port, place, secrets, shown)
            seconds = _add_closed(engine, place, customers, count)
            after = _measure_all(plan.api_port, place, secrets, shown)
    return {
        name: {
            "count": float(count),
            "load_seconds": seconds,
            **after[name],
            **{f"empty_{figure}": value for figure, value in before[name].items()},
        }
        for name in after
    }


def _add_closed(engine: Engine, place: Site, customers: Customers, count: int) -> float:
    """Write closed requests; return how many seconds that took, with the VACUUM after it."""
    began = time.monotonic()
    with engine.connect() as connection:
        connection.execute(UNCHECKED)
        tenants = connection.execute(TENANTS, {"slugs": customers.slugs}).scalars().all()
        statement = closed_rows(place.pattern, tenants, customers.engineers)
        for start in range(0, count, A_LOAD):
            connection.exec_driver_sql(
                statement, {"first": start, "last": min(start + A_LOAD, count), "count": count}
            )
        connection.execute(VACUUM)
    return time.monotonic() - began


def closed_rows(pattern: Footprint, tenants: Sequence[UUID], engineers: Sequence[UUID]) -> str:
    """Return the statement that writes closed requests with the numbers from `first` to `last` of a `count`."""
    (own,) = pattern.tables[REQUESTS]
    row = {
        "tenant_id": _half(own["tenant_id"], tenants),
        "requester_id": _half(own["requester_id"], engineers),
        "submitted_by": _half(own["requester_id"], engineers),
        "case_ref": "'CASE-' || lpad(n.number::text, 8, '0')",
        "resources": "ARRAY['mailbox:' || n.number || '@contoso.example']",
        "state": "(ARRAY['expired', 'expired', 'completed', 'denied', 'timed_out'])[1 + n.number %% 5]",
        "version": "3",
        "created_at": f"now() - {AGO}",
        "asked_at": f"now() - {AGO}",
        "opened_at": f"now() - {AGO}",
        "deadline_at": f"now() - {AGO}",
        "wake_at": "NULL::timestamptz",
        "closed_at": f"now() - {AGO}",
    }
    wanted = replace(pattern, tables={name: pattern.tables[name] for name in (REQUESTS, "decisions")})
    inserts = ", ".join(f"{table}_rows AS ({insert})" for table, insert in wanted.inserts({REQUESTS: row}))
    numbers = "generate_series(%(first)s::int + 1, %(last)s) AS number"
    made = f"SELECT uuidv7(-{AGO.replace('n.number', 'number')}) AS request_id, number FROM {numbers}"
    return f"WITH n AS MATERIALIZED ({made}), {inserts} SELECT"


def _half(own: str, others: Sequence[UUID]) -> str:
    """Return an expression that is one value for every second row, and one of the others for the rest."""
    listed = ", ".join(f"'{one}'" for one in others)
    return (
        f"CASE n.number %% 2 WHEN 0 THEN {own} ELSE (ARRAY[{listed}]::uuid[])[1 + n.number / 2 %% {len(others)}] END"
    )


@contextmanager
def _api(place: Site, plan: StackPlan) -> Iterator[None]:
    with running(plan, Processes(plan, place.folder / "log", UNLIMITED), ("api",)):
        yield


def _sign_in(place: Site, plan: StackPlan) -> dict[str, str]:
    """Begin a session for one of each role, and return the secrets."""
    db = Database(make_engine(plan.database_url, role="bench"), Schedule(NOWHERE))
    secrets = {name: sign_in(db, place.world.people[name]) for name in PAGES}
    db.dispose()
    return secrets


def _measure_all(port: int, place: Site, secrets: Mapping[str, str], shown: UUID) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for who, paths in PAGES.items():
        headers = {"cookie": f"lockbox={secrets[who]}", "accept": "text/html"}
        found |= {f"{who} {path}": _measure(port, path.format(id=shown), headers) for path in paths}
    for who, paths in CALLS.items():
        headers = {"authorization": f"Bearer {place.world.tokens[who]}"}
        found |= {f"{who} {path}": _measure(port, path, headers) for path in paths}
    return found


def _measure(port: int, path: str, headers: Mapping[str, str]) -> dict[str, float]:
    """Return how many milliseconds the answers took after the first few; one that takes seconds is asked less often.

    Raises:
        RuntimeError: the answer is another one than the list.
    """
    connection = http.client.HTTPConnection("localhost", port, timeout=TIME_OUT)
    took: list[float] = []
    while len(took) < (WARM_UP + TIMES if sum(took) < 1000 * SLOW_SECONDS else COLD_TIMES):
        began = time.perf_counter()
        connection.request("GET", path, headers=dict(headers))
        answer = connection.getresponse()
        answer.read()
        if answer.status not in {HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE}:
            raise RuntimeError(f"{path} was answered {answer.status}")
        took.append((time.perf_counter() - began) * 1000)
    connection.close()
    counted = took[WARM_UP:] or took
    return {"p50_ms": quantile(counted, 0.5), "p95_ms": quantile(counted, 0.95)}
