"""The servers that are measured: a database with a real request to copy, the processes, and mail sinks."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import psutil
from sqlalchemy import URL
from sqlalchemy.engine import make_url

from bench import backlog, costs
from bench.http_load import Subject, counter
from bench.rows import Footprint, Pace
from bench.sinks import SinkPorts, start_sinks
from devstack.stack import Processes, StackPlan
from harness import stage
from harness.people import WITHOUT_REVIEW, World
from harness.stage import Stack, all_rights, own_stack, servers_of, superuser_at, superuser_url
from lockbox.database import Database, make_engine
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from lockbox.schedule import Schedule

UNLIMITED = {
    "LOCKBOX_SUBMISSIONS_PER_PERSON": "1000000",
    "LOCKBOX_SUBMISSIONS_PER_TENANT": "1000000",
    # All clients are on this machine, as if behind a proxy.
    "LOCKBOX_TRUSTED_PROXIES": '["127.0.0.1/32"]',
}
NOWHERE = "redis://127.0.0.1:1"
A_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Site:
    """Where everything is before any process runs: the plan, people, a real request, a folder of its own.

    In the world `reviewed`, a manager of the vendor reviews requests first; in `world`, nobody does. `submitted` is
    what the real request left when it was submitted; `pattern` is what it had left once it was approved and all
    notifications were sent.
    """

    plan: StackPlan
    superuser: URL
    world: World
    reviewed: World
    submitted: Footprint
    pattern: Footprint
    folder: Path

    def copied(self, url: str, database: str) -> URL:
        """Return this URL for a copy of the database."""
        return make_url(url).set(database=database)


@dataclass
class Bench(Stack):
    """What is measured: a running stack, the people in it and the request to copy."""

    world: World
    pattern: Footprint
    sinks: SinkPorts
    pace: Pace = field(default_factory=Pace)

    @property
    def subject(self) -> Subject:
        """The stack as loads over HTTP see it."""

        def parts() -> dict[str, psutil.Process]:
            return costs.ours(self.processes) | costs.servers(self.plan)

        return Subject(self.plan.api_port, parts, self.sinks, counter(self.superuser, "requests"))


@contextmanager
def site() -> Iterator[Site]:
    """Start separate servers, seed them, and submit and approve one request; remove everything at the end."""
    with own_stack("bench") as plan, closing(Schedule(NOWHERE)) as nowhere:
        db = Database(make_engine(plan.database_url, role="bench"), nowhere)
        reviewed, world = (add_world(plan, db, policy) for policy in (Policy(), WITHOUT_REVIEW))
        # This schedule reaches no Redis. A later repair adds the rows to the real schedule.
        sender = Database(make_engine(plan.notifications_database_url, role="bench"), nowhere)
        submitted, pattern = _footprints(plan, world, sender)
        sender.engine.dispose()
        db.engine.dispose()
        superuser = make_url(servers_of(plan).superuser_url)
        yield Site(plan, superuser, world, reviewed, submitted, pattern, plan.keys.parent)


def _footprints(plan: StackPlan, world: World, sender: Database) -> tuple[Footprint, Footprint]:
    request = world.submit().id
    with superuser_at(superuser_url(plan)) as engine, engine.connect() as connection:
        submitted = Footprint.of(connection, request)
        backlog.mark_sent(engine, sender)
        world.act("ann", Action.APPROVE, request)
        backlog.mark_sent(engine, sender)
        return submitted, Footprint.of(connection, request)


@contextmanager
def running(site: Site) -> Iterator[Bench]:
    """Start the API, the worker, the notifications worker and the sinks for mails on a site."""
    processes = Processes(site.plan, site.folder / "log", UNLIMITED)
    with stage.running(site.plan, processes, ("api", "worker", "notifications")) as found:
        sinks = start_sinks(processes, make_url(site.plan.smtp_url).port)
        yield Bench(**vars(found), world=site.world, pattern=site.pattern, sinks=sinks)


def add_world(plan: StackPlan, db: Database, policy: Policy) -> World:
    """Add a tenant with two approvers, and an engineer and a manager of the vendor, for a day.

    There is no operator: one would get alarm mails about what `backlog` gives up.
    """
    with all_rights(superuser_url(plan)):
        return World.make(db, policy, without=("eve", "mia", "abe", "olga"), lifetime=A_DAY)
