"""The servers that are measured: a database with a real request to copy, the processes, and mail sinks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from sqlalchemy import URL
from sqlalchemy.engine import make_url

from bench.crowd import asks, engineer
from bench.load import Pace
from cli import sample
from cli.sample import Sample
from cli.stack import Processes, StackPlan
from config.settings import Settings
from harness import stage
from harness.stage import Stack, own_stack, servers_of, start_sinks
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


@dataclass
class Bench(Stack):
    """What is measured: a running stack, the sample people in it and the request to copy."""

    sample: Sample
    pattern: UUID
    pace: Pace = field(default_factory=Pace)


@contextmanager
def site() -> Iterator[Site]:
    """Start servers of one's own, seed them and live through one request; remove everything at the end."""
    with own_stack("bench") as plan:
        with as_owner(plan.owner_database_url) as session:
            reviewed, people = (
                sample.seed(session, tenant=tenant, policy=policy, environment="development", services=SERVICES)
                for tenant, policy in (("bench", Policy()), ("loaded", Policy(vendor_review=False)))
            )
        superuser = make_url(servers_of(plan).superuser_url)
        yield Site(plan, superuser, people, reviewed, _live(plan, people), plan.keys.parent)


@contextmanager
def running(site: Site) -> Iterator[Bench]:
    """Start API, worker, notifications worker and the sinks for mails on a site."""
    processes = Processes(site.plan, site.folder / "log", UNLIMITED)
    with stage.running(site.plan, processes, ("api", "worker", "notifications")) as found:
        start_sinks(processes, make_url(site.plan.smtp_url).port)
        yield Bench(**vars(found), sample=site.sample, pattern=site.pattern)


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
