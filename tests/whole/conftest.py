"""Fixtures of the whole-stack tests: real API, workers and Flower as processes on a fresh database."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

import httpx
import pytest

from devstack.embedded import ServerAddresses
from devstack.stack import Processes
from harness.mail_relay import CaughtMails
from harness.people import World, client_of
from harness.stage import Stack, Urls, fresh_database, plan_for, running
from harness.wait import within
from lockbox.requests.policy_rules import Policy
from tests.whole.warm import WarmProcesses, warm

PATIENCE = 45.0
LAST_LINES = 40
CRY_SECONDS = 2.0
WORKERS = {"core", "notifications"}


@dataclass
class RunningStack(Stack):
    """A stack on its own database, with everything that a test needs from it."""

    urls: Urls
    servers: ServerAddresses
    caught: CaughtMails

    def world(self, **policy: Any) -> World:
        """Return a new tenant with short windows; 2 s to answer and 2 s of access, unless told otherwise."""
        return World.make(self.db, short(**policy))

    def as_(self, world: World, name: str) -> httpx.Client:
        """Return a client of the API that sends a person's token."""
        return client_of(self.plan, world.tokens[name])

    def state(self, request_id: UUID | str) -> str:
        """Return the state of a request as Postgres has it."""
        return str(self.rows("SELECT state FROM requests WHERE id = :id", id=str(request_id))[0].state)

    def python(self, script: str) -> subprocess.CompletedProcess[str]:
        return warm().run(self.plan.variables("worker"), script=script)

    def ends(self, request_id: UUID | str, state: str) -> None:
        """Wait until a request is in a state."""
        wait_until(lambda: self.state(request_id) == state, f"{request_id} is {state}")

    def workers_run(self) -> None:
        """Wait until the core worker and the notifications worker have each sent a heartbeat."""
        wait_until(lambda: {row.role for row in self.rows("SELECT role FROM heartbeats")} >= WORKERS, "workers run")

    def open_notifications(self, world: World) -> list[Any]:
        """Return what is still to be sent for a tenant: open notifications, and events in the outbox."""
        return self.rows(
            """
            SELECT id FROM notifications WHERE closed_at IS NULL AND tenant_id = :id
            UNION ALL SELECT event_id FROM outbox WHERE tenant_id = :id
            """,
            id=str(world.tenant.id),
        )

    def open_requests(self, world: World) -> list[Any]:
        """Return the requests of a tenant whose timer still runs."""
        return self.rows(
            "SELECT id FROM requests WHERE wake_at IS NOT NULL AND tenant_id = :id", id=str(world.tenant.id)
        )

    def events_are_whole(self) -> None:
        """Check that every request has exactly one event a move, numbered without a gap."""
        broken = self.rows("""
            SELECT r.id FROM requests r LEFT JOIN events e ON e.request_id = r.id AND e.seq IS NOT NULL
            GROUP BY r.id, r.version HAVING count(e.id) <> r.version OR max(e.seq) <> r.version OR min(e.seq) <> 1
        """)
        assert broken == []


def short(**changes: Any) -> Policy:
    """Return a policy with windows of seconds, without reminders and without window reports."""
    seconds = {"vendor_review": False, "approval_window": 2, "approval_reminders": (), "review_reminders": ()}
    return Policy(**(seconds | {"report_on_close": False} | changes))


def wait_until(happened: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait for something to happen; the limit only decides that it never does, not how fast it must be."""
    if not within(patience, happened, pause=0.05):
        pytest.fail(f"did not happen within {patience} s: {what}")


@contextmanager
def stage_of(
    servers: ServerAddresses,
    logs: Path,
    *,
    redis_url: str | None = None,
    names: tuple[str, ...],
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[RunningStack]:
    """Start some of the processes on a fresh database, with further settings for all of them."""
    with fresh_database(servers) as urls:
        plan = plan_for(replace(urls, redis=redis_url or urls.redis), servers, logs / "keys")
        processes = WarmProcesses(plan, logs, {"LOCKBOX_SHUTDOWN_SECONDS": "1", **settings})
        with running(plan, processes, names) as found:
            yield RunningStack(**vars(found), urls=urls, servers=servers, caught=CaughtMails(urls.maildir))


@pytest.fixture(scope="session")
def api_stage(template: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The API alone, shared by several files: their tests use separate worlds, and leave the API running."""
    with stage_of(template, tmp_path_factory.mktemp("logs"), names=("api",)) as found:
        yield found


@pytest.fixture(scope="module")
def stage(
    template: ServerAddresses, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[RunningStack]:
    """The API and the workers, or the processes that the file names in `PROCESSES`, for the tests of one file."""
    names = getattr(request.module, "PROCESSES", ("api", "worker", "notifications"))
    if names == ("api",):
        yield request.getfixturevalue("api_stage")
        return
    with stage_of(template, tmp_path_factory.mktemp("logs"), names=names) as found:
        yield found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure the last log lines of the stage's processes, and where each worker thread is."""
    report = yield
    stage = getattr(item, "funcargs", {}).get("stage")
    if report.failed and isinstance(stage, RunningStack):
        report.sections += _said_last(stage.processes)
    return report


def _said_last(processes: Processes) -> list[tuple[str, str]]:
    logs = {path: max(0, len(path.read_text().splitlines()) - LAST_LINES) for path in processes.logs.glob("*.log")}
    for name in ("worker", "notifications"):
        child = processes.running.get(name)
        if child and child.poll() is None and _is_ready((processes.logs / f"{name}.log").read_text()):
            # Celery writes the stack of each thread into its log; before it is ready the signal would end it.
            child.send_signal(signal.SIGUSR1)
    time.sleep(CRY_SECONDS)
    return [(path.name, "\n".join(path.read_text().splitlines()[first:])) for path, first in logs.items()]


def _is_ready(log: str) -> bool:
    """Return whether a worker has logged since its last start that it is ready."""
    return log.rfind(" ready.") > log.rfind("[tasks]")


def log_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
