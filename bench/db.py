"""The servers that are measured: a database with a real request to copy, the processes, and mail sinks."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from sqlalchemy import URL, Engine, text
from sqlalchemy.engine import make_url

from bench.crowd import asks, engineer
from bench.load import Pace, observer
from cli import sample, stack
from cli.sample import Sample
from cli.stack import Processes, StackPlan
from config.settings import Settings
from harness.ports import own_port
from harness.stage import start_sinks
from lockbox.database import Database, as_owner, make_engine
from lockbox.identity.roles import AuthMethod, Caller, Role, RoleGrant, Side
from lockbox.requests import decide, submit
from lockbox.requests.decisions import DecisionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from lockbox.requests.transition import Origin
from lockbox.schedule import Schedule

UNLIMITED = {
    "LOCKBOX_FILINGS_BY_PERSON": "1000000",
    "LOCKBOX_FILINGS_FOR_TENANT": "1000000",
    # All clients are on this machine, as if behind a proxy.
    "LOCKBOX_TRUSTED_PROXIES": '["127.0.0.1/32"]',
}
NOWHERE = "redis://127.0.0.1:1"
SERVICES = Settings().services


@dataclass(frozen=True)
class Site:
    """Where everything is before any process runs: the plan, sample people, a real request, a folder of its own.

    `reviewed` is a tenant whose requests a manager of the vendor reviews first, `sample` one whose are not.
    """

    plan: StackPlan
    superuser: URL
    sample: Sample
    reviewed: Sample
    pattern: UUID
    folder: Path

    def copied(self, url: str, database: str) -> URL:
        """Return an URL of ours for a copy of the database."""
        return make_url(url).set(database=database)


@dataclass(frozen=True)
class Bench:
    """What is measured: a running stack, the house behind it, the sample people and the request to copy."""

    engine: Engine
    db: Database
    sample: Sample
    processes: Processes
    pattern: UUID
    superuser: URL
    pace: Pace = field(default_factory=Pace)


@contextmanager
def site() -> Iterator[Site]:
    """Start servers of one's own, seed them and live through one request; remove everything at the end."""
    folder = Path(tempfile.mkdtemp(prefix="lockbox-bench-"))
    folder.chmod(0o755)
    settings = Settings(smtp_url=f"smtp://127.0.0.1:{own_port()}")
    plan = stack.prepare(settings, folder / "servers", api_port=own_port(), flower_port=own_port())
    try:
        with as_owner(plan.owner_database_url) as session:
            reviewed, people = (
                sample.seed(session, tenant=tenant, policy=policy, environment="development", services=SERVICES)
                for tenant, policy in (("bench", Policy()), ("loaded", Policy(vendor_review=False)))
            )
        pattern = _live(plan, people)
        superuser = make_url(plan.servers.superuser_url if plan.servers else plan.owner_database_url)
        yield Site(plan, superuser, people, reviewed, pattern, folder)
    finally:
        if plan.servers:
            plan.servers.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running(site: Site) -> Iterator[Bench]:
    """Start API, worker, notifications worker and the sinks for mails on a site."""
    with ExitStack() as ends:
        processes = Processes(site.plan, site.folder / "log", UNLIMITED)
        ends.callback(processes.stop)
        db = Database(make_engine(site.plan.database_url, role="bench"), Schedule(site.plan.redis_url))
        ends.callback(db.dispose)
        start_sinks(processes, make_url(site.plan.smtp_url).port)
        for name in ("api", "worker", "notifications"):
            processes.start(name)
        processes.wait_until_ready()
        engine = ends.enter_context(observer(site.superuser.set(database="lockbox")))
        yield Bench(engine, db, site.sample, processes, site.pattern, site.superuser)


@contextmanager
def copy(superuser: URL, name: str) -> Iterator[None]:
    """Copy the database while nobody uses it, and drop the copy at the end."""
    admin(superuser, f"CREATE DATABASE {name} TEMPLATE lockbox OWNER lockbox_owner")
    try:
        yield
    finally:
        admin(superuser, f"DROP DATABASE {name} WITH (FORCE)")


def admin(superuser: URL, statement: str) -> None:
    """Run one statement past every transaction."""
    with observer(superuser) as engine, engine.connect() as connection:
        connection.execute(text(statement))


def approver(people: Sample) -> Caller:
    """Return an approver among the sample people as a caller."""
    standing = frozenset({RoleGrant(Role.APPROVER, people.tenant_id)})
    return Caller(people.people["ann"], "Ann Archer", standing, side=Side.CUSTOMER, means=AuthMethod.SAMPLE)


def _live(plan: StackPlan, people: Sample) -> UUID:
    """File one request and approve it; the schedule hears of it when it is repaired."""
    db = Database(make_engine(plan.database_url, role="bench"), Schedule(NOWHERE))
    try:
        with db.transaction() as session:
            filed = submit.submit(session, engineer(people), Origin("api"), asks(people.tenant), SERVICES)
        with db.transaction() as session:
            decide.act(session, approver(people), Origin("api"), filed.request.id, DecisionInput(Action.APPROVE))
        return filed.request.id
    finally:
        db.dispose()
