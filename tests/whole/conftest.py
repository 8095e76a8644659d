"""The stage of the whole distance: real API, workers and Flower as processes over a database of their own."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from redis import Redis
from sqlalchemy import Engine, create_engine, text

from cli.stack import APPROVAL_KEY, Processes, StackPlan, make_keys
from config.embedded import ServerAddresses
from harness.people import World
from harness.ports import own_port
from harness.sinks import CaughtMails
from harness.stage import Urls, fresh_database
from lockbox.audit.log import signing_keys
from lockbox.audit.log.signing_keys import ApprovalKeys
from lockbox.database import Database, make_engine
from lockbox.requests.policy_rules import Policy
from lockbox.schedule import Schedule
from tests.whole.warm import WarmProcesses, warm

PATIENCE = 45.0
# What is not armed in time is found by others later: whoever acts in a test lets a busy machine take its time.
ARM_SECONDS = 2.0
LAST_LINES = 40
CRY_SECONDS = 2.0


@dataclass
class RunningStack:
    """The running processes, the house as the API sees it, and everything a test asks of them."""

    urls: Urls
    plan: StackPlan
    processes: Processes
    db: Database
    superuser: Engine
    servers: ServerAddresses
    caught: CaughtMails

    def world(self, **policy: Any) -> World:
        """Return a new tenant with short windows; 2 s to answer and 2 s of access, unless told otherwise."""
        return World.make(self.db, short(**policy))

    def as_(self, world: World, name: str) -> httpx.Client:
        """Return a client of the API that shows somebody's token."""
        return httpx.Client(
            base_url=self.plan.public_url,
            headers={"authorization": f"Bearer {world.tokens[name]}"},
            timeout=15,
            trust_env=False,
        )

    def state(self, request_id: UUID | str) -> str:
        """Return the state of a request as Postgres has it."""
        return str(self.rows("SELECT state FROM requests WHERE id = :id", id=str(request_id))[0].state)

    def rows(self, query: str, **values: Any) -> list[Any]:
        """Return what a query finds, with every right."""
        with self.superuser.connect() as connection:
            return list(connection.execute(text(query), values).all())

    def redis(self) -> "Redis":
        """Return a client of the stage's Redis."""
        return Redis.from_url(self.urls.redis)

    def python(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script with the settings of a worker."""
        return warm().run(self.plan.variables("worker"), script=script)

    def ends(self, request_id: UUID | str, state: str) -> None:
        """Wait until a request is in a state."""
        wait_until(lambda: self.state(request_id) == state, f"{request_id} is {state}")

    def open_notifications(self, world: World) -> list[Any]:
        """Return the notifications of a tenant that are neither sent nor given up."""
        return self.rows(
            "SELECT id FROM notifications WHERE closed_at IS NULL AND tenant_id = :id", id=str(world.tenant.id)
        )

    def open_requests(self, world: World) -> list[Any]:
        """Return the requests of a tenant whose clock still runs."""
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
    """Return a policy whose windows are seconds, which reminds nobody, and reports nothing a minute later."""
    seconds = {"vendor_review": False, "approval_window": 2, "approval_reminders": (), "review_reminders": ()}
    return Policy(**(seconds | {"report_on_close": False} | changes))


def wait_until(happened: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait for something to happen; the limit is about whether it does at all, not how fast."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if happened():
            return
        time.sleep(0.05)
    pytest.fail(f"did not happen within {patience} s: {what}")


@contextmanager
def stage_of(
    servers: ServerAddresses, logs: Path, *, redis_url: str | None = None, names: tuple[str, ...]
) -> Iterator[RunningStack]:
    """Start some of the processes over a fresh database."""
    with fresh_database(servers) as urls:
        signing = make_keys(logs / "keys")
        approvals = ApprovalKeys(signing_keys.read([signing / APPROVAL_KEY]))
        plan = StackPlan(
            database_url=urls.api,
            worker_database_url=urls.worker,
            notifications_database_url=urls.notifications,
            owner_database_url=urls.owner,
            redis_url=redis_url or urls.redis,
            smtp_url=urls.smtp,
            servers=servers,
            keys=signing,
            api_port=own_port(),
            flower_port=own_port(),
            environment="test",
        )
        processes = WarmProcesses(plan, logs, {"LOCKBOX_SHUTDOWN_SECONDS": "1"})
        schedule = Schedule(plan.redis_url, patience=ARM_SECONDS)
        db = Database(make_engine(urls.api, role="stage"), schedule, approvals=approvals)
        superuser = create_engine(urls.superuser, isolation_level="AUTOCOMMIT", pool_pre_ping=True)
        try:
            for name in names:
                processes.start(name)
            if "api" in names:
                processes.wait_until_ready()
            yield RunningStack(urls, plan, processes, db, superuser, servers, CaughtMails(urls.maildir))
        finally:
            processes.stop()
            db.dispose()
            superuser.dispose()


@pytest.fixture(scope="module")
def stage(
    template: ServerAddresses, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[RunningStack]:
    """The whole stack, for the tests of one file; with Flower where the file says `WATCHED = True`."""
    logs = tmp_path_factory.mktemp("logs")
    watching = ("flower",) if getattr(request.module, "WATCHED", False) else ()
    with stage_of(template, logs, names=("api", "worker", "notifications", *watching)) as found:
        yield found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failure what the processes of its stage logged last, and where each thread of the workers is."""
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
    """Whether what a worker has logged since it was started last says that it is ready."""
    return log.rfind(" ready.") > log.rfind("[tasks]")


def access(world: World, resource: str = "mailbox:anna@contoso.example") -> dict[str, str]:
    """Return the question of a guarded system about erin."""
    return {
        "tenant": world.tenant.slug,
        "service": "exchange-online",
        "resource": resource,
        "action": "read",
        "engineer": str(world.people["erin"].person_id),
    }


def log_lines(path: Path) -> list[dict[str, Any]]:
    """Return the structured lines of a process' log."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
