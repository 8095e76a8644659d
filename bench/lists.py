"""Lists, searches and pages on a year of closed requests, compared with a table that fills only a few pages."""

import http.client
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from uuid import UUID

from bench.customers import Customers
from bench.figures import quantile
from bench.lockbox_stack import NOWHERE, UNLIMITED, Site
from devstack.stack import Processes, StackPlan
from harness.history import HistoryPattern, write_history, write_open
from harness.people import World, sign_in
from harness.ports import own_port
from harness.stage import approval_keys, copied, on_database, running
from lockbox.database import Database, ProcessKeys, make_engine
from lockbox.requests.lifecycle import Action
from lockbox.schedule import Schedule
from lockbox.sql import new_id

FEW, OPEN = 500, 30
BYTES_EACH = 8_000
"""The disk space for a closed request and all its rows, including the space for sorting and the write-ahead log."""
WARM_UP, TIMES = 3, 25
COLD_TIMES = 3
SLOW_SECONDS = 4.0
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
"""The pages and calls of each person: ann approves, max manages, erin requests access, aude audits."""

Lists = dict[str, dict[str, float]]


def measure(place: Site, customers: Customers, wanted: int) -> Lists:
    """Return the milliseconds of each list by its name, with many closed requests and with few.

    There are `wanted` closed requests, or fewer if the disk has no room for them; `count` says how many. The two
    databases are asked in turns, so that other work of the machine slows both.
    """
    count = min(wanted, shutil.disk_usage(place.folder).free // BYTES_EACH)
    with _beside(place, customers, "many", count) as many, _beside(place, customers, "few", FEW) as few:
        return {
            name: {
                "count": float(count),
                "p50_ms": quantile(taken, 0.5),
                "p95_ms": quantile(taken, 0.95),
                "empty_p50_ms": quantile(empty, 0.5),
                "empty_p95_ms": quantile(empty, 0.95),
            }
            for name in many
            for empty, taken in (_in_turns(few[name], many[name]),)
        }


@contextmanager
def _beside(place: Site, customers: Customers, name: str, closed: int) -> Iterator[dict[str, "ListCall"]]:
    """Yield the lists, by name, of an API on a copy of the database with `closed` closed requests and a few open."""
    database = f"lockbox_{name}"
    plan = replace(
        place.plan,
        database_url=on_database(place.plan.database_url, database),
        owner_database_url=on_database(place.plan.owner_database_url, database),
        api_port=own_port(),
    )
    superuser = on_database(place.superuser.render_as_string(hide_password=False), database)
    with copied(place.superuser, database):
        pattern = _prepare(place, customers, plan)
        write_history(superuser, pattern, closed)
        write_open(superuser, pattern, OPEN)
        with running(plan, Processes(plan, place.folder / f"log-{name}", UNLIMITED), ("api",)) as stack:
            secrets = {name: sign_in(stack.db, place.world.people[name]) for name in PAGES}
            yield _calls(plan.api_port, place.world, secrets, pattern.request)


def _prepare(place: Site, customers: Customers, plan: StackPlan) -> HistoryPattern:
    """End the one request, and return the pattern of the history to write."""
    engine = make_engine(plan.database_url, role="bench")
    db = Database(engine, Schedule(NOWHERE), keys=ProcessKeys(approval_keys(plan)))
    world, other, request = place.world, place.reviewed, place.pattern.request
    world.act("ann", Action.REVOKE, request, db, comment="It is over")
    db.dispose()
    tenants = world.tenant.id, other.tenant.id, customers.tenants[0]
    requesters = world.people["erin"].person_id, other.people["erin"].person_id, customers.engineers[0]
    return HistoryPattern(request, tenants, requesters, new_id())


def _calls(port: int, world: World, secrets: Mapping[str, str], shown: UUID) -> dict[str, "ListCall"]:
    found: dict[str, ListCall] = {}
    for who, paths in PAGES.items():
        headers = {"cookie": f"lockbox={secrets[who]}", "accept": "text/html"}
        found |= {f"{who} {path}": ListCall(port, path.format(id=shown), headers) for path in paths}
    for who, paths in CALLS.items():
        headers = {"authorization": f"Bearer {world.tokens[who]}"}
        found |= {f"{who} {path}": ListCall(port, path, headers) for path in paths}
    return found


@dataclass(frozen=True)
class ListCall:
    """A list for which somebody asks an API."""

    port: int
    path: str
    headers: Mapping[str, str]

    def ask(self, connection: http.client.HTTPConnection) -> float:
        """Return after how many milliseconds the list was answered; a 503 after a time-out is an answer too.

        Raises:
            RuntimeError: the answer is something else.
        """
        began = time.perf_counter()
        connection.request("GET", self.path, headers=dict(self.headers))
        answer = connection.getresponse()
        answer.read()
        if answer.status not in {HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE}:
            raise RuntimeError(f"{self.path} was answered {answer.status}")
        return (time.perf_counter() - began) * 1000


def _in_turns(*lists: ListCall) -> tuple[list[float], ...]:
    """Return the milliseconds of each list without the warm-up; slow lists are asked less often."""
    connections = [http.client.HTTPConnection("localhost", one.port, timeout=TIME_OUT) for one in lists]
    took: tuple[list[float], ...] = tuple([] for _ in lists)
    while len(took[0]) < (WARM_UP + TIMES if sum(map(sum, took)) < 1000 * SLOW_SECONDS else COLD_TIMES):
        for one, connection, taken in zip(lists, connections, took, strict=True):
            taken.append(one.ask(connection))
    for connection in connections:
        connection.close()
    return tuple(taken[WARM_UP:] or taken for taken in took)
