"""Lists, searches and pages beside a year of closed requests, to those of a table that holds a few pages of them."""

import http.client
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from uuid import UUID

from bench.customers import Customers
from bench.figures import quantile
from bench.lockbox_stack import NOWHERE, UNLIMITED, Site
from cli.stack import Processes, StackPlan
from harness.history import HistoryPattern, write_history, write_open
from harness.people import World, sign_in
from harness.ports import own_port
from harness.stage import approval_keys, copied, on_database, running
from lockbox.database import Database, ProcessKeys, make_engine
from lockbox.requests.lifecycle import Action
from lockbox.schedule import Schedule
from lockbox.sql import new_id

DATABASE = "lockbox_lists"
FEW, OPEN = 500, 30
BYTES_EACH = 8_000
"""What a closed request takes on disk with what it left, and what sorting and the write-ahead log take meanwhile."""
WARM_UP, TIMES = 3, 15
COLD_TIMES = 3
SLOW_SECONDS = 2.0
TIME_OUT = 60.0
EVERYBODYS = ("/requests", "/requests/{id}")
PAGES: Mapping[str, tuple[str, ...]] = {
    "ann": (*EVERYBODYS, "/waiting", "/open", "/requests?text=nothing", "/requests?state=denied"),
    "max": (*EVERYBODYS, "/review", "/open"),
    "erin": (*EVERYBODYS, "/mine", "/ask"),
    "aude": ("/requests", "/audit-log"),
}
CALLS: Mapping[str, tuple[str, ...]] = {
    "ann": ("/v1/requests", "/v1/requests?state=pending", "/v1/requests?state=denied", "/v1/requests?text=nothing"),
    "max": ("/v1/requests", "/v1/requests?state=reviewing"),
    "erin": ("/v1/requests", "/v1/requests?state=active"),
}
"""The pages and calls by whose they are: ann approves, max manages, erin asks, aude audits."""

Lists = dict[str, dict[str, float]]


def measure(place: Site, customers: Customers, wanted: int) -> Lists:
    """Return the milliseconds of each list by its name, and those beside a few closed requests.

    There are as many closed requests as are wanted, or fewer where the disk has no room for them; `count` says so.
    """
    count = min(wanted, shutil.disk_usage(place.folder).free // BYTES_EACH)
    few, many = (_beside(place, customers, closed) for closed in (FEW, count))
    return {
        name: {"count": float(count), **figures, **{f"empty_{one}": value for one, value in few[name].items()}}
        for name, figures in many.items()
    }


def _beside(place: Site, customers: Customers, closed: int) -> Lists:
    """Measure on a copy of the database with so many closed requests, and a few open ones."""
    plan = replace(
        place.plan,
        database_url=on_database(place.plan.database_url, DATABASE),
        owner_database_url=on_database(place.plan.owner_database_url, DATABASE),
        api_port=own_port(),
    )
    superuser = on_database(place.superuser.render_as_string(hide_password=False), DATABASE)
    with copied(place.superuser, DATABASE):
        pattern, secrets = _prepare(place, customers, plan)
        write_history(superuser, pattern, closed)
        write_open(superuser, pattern, OPEN)
        with _api(place, plan):
            return _measure_all(plan.api_port, place.world, secrets, pattern.request)


def _prepare(place: Site, customers: Customers, plan: StackPlan) -> tuple[HistoryPattern, dict[str, str]]:
    """End the one request and sign everybody in; return whose history is written, and the secrets."""
    engine = make_engine(plan.database_url, role="bench")
    db = Database(engine, Schedule(NOWHERE), keys=ProcessKeys(approval_keys(plan)))
    world, other, request = place.world, place.reviewed, place.pattern.request
    world.act("ann", Action.REVOKE, request, db, comment="It is over")
    secrets = {name: sign_in(db, world.people[name]) for name in PAGES}
    db.dispose()
    tenants = world.tenant.id, other.tenant.id, customers.tenants[0]
    requesters = world.people["erin"].person_id, other.people["erin"].person_id, customers.engineers[0]
    return HistoryPattern(request, tenants, requesters, new_id()), secrets


@contextmanager
def _api(place: Site, plan: StackPlan) -> Iterator[None]:
    with running(plan, Processes(plan, place.folder / "log", UNLIMITED), ("api",)):
        yield


def _measure_all(port: int, world: World, secrets: Mapping[str, str], shown: UUID) -> Lists:
    found: Lists = {}
    for who, paths in PAGES.items():
        headers = {"cookie": f"lockbox={secrets[who]}", "accept": "text/html"}
        found |= {f"{who} {path}": _measure(port, path.format(id=shown), headers) for path in paths}
    for who, paths in CALLS.items():
        headers = {"authorization": f"Bearer {world.tokens[who]}"}
        found |= {f"{who} {path}": _measure(port, path, headers) for path in paths}
    return found


def _measure(port: int, path: str, headers: Mapping[str, str]) -> dict[str, float]:
    """Return how many milliseconds the answers took after the first few; one that takes seconds is asked less often.

    A list that is answered 503 because it takes too long counts by the time until that answer.

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
