"""How soon notifications leave while one endpoint and one mail domain hang, and how many mails leave in a minute."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from sqlalchemy import Engine, text
from sqlmodel import col, select

from bench.crowd import asks, engineer
from bench.db import Bench
from bench.measure import settle
from cli import sample, stack
from cli.sample import Sample
from config.settings import Settings
from harness.ports import PATIENCE, own_port
from harness.sinks import HANGING_DOMAIN
from harness.stage import SinkPorts, start_sinks
from harness.wait import within
from lockbox.database import as_owner
from lockbox.identity import row_marks
from lockbox.identity.models import Membership
from lockbox.notifications.endpoints import SecretVault
from lockbox.requests import submit
from lockbox.requests.policy_rules import Policy
from lockbox.requests.transition import Origin
from lockbox.schedule import NOTIFICATIONS

APPROVERS = 100
ENDPOINTS = 20
DOMAINS = 20
REQUESTS = 5
SOON_SECONDS = 5
MAILS = 2_000
MANY_DOMAINS = 500
SERVICES = Settings().services

APPROVE = """
WITH new_people AS (
    INSERT INTO people (id, name, email, side, created_at)
    SELECT uuidv7(), 'Approver ' || n, 'a' || n || '@' || CASE n % :domains WHEN 0 THEN CAST(:first AS text)
        ELSE :tenant || '-' || n % :domains || '.example' END, 'customer', now()
    FROM generate_series(1, :number) AS n RETURNING id
)
INSERT INTO memberships (id, person_id, tenant_id, role) SELECT uuidv7(), id, :tenant_id, 'approver' FROM new_people
"""
OTHERS = """
SELECT count(*) AS number, count(*) FILTER (WHERE n.outcome = 'sent') AS sent,
    count(*) FILTER (WHERE n.outcome = 'sent' AND n.closed_at <= e.at + make_interval(secs => :soon)) AS soon,
    extract(epoch FROM max(n.closed_at) - min(e.at)) AS seconds
FROM notifications n JOIN events e ON e.id = n.event_id LEFT JOIN people p ON p.id = n.person_id
LEFT JOIN endpoints h ON h.id = n.endpoint_id
WHERE e.tenant_id = :tenant_id AND e.at >= :since
AND coalesce(p.email, '') NOT LIKE '%@' || :domain AND coalesce(h.url, '') <> :hole
"""


def measure(bench: Bench) -> dict[str, float]:
    """Return the percentage that left in time, the worse of two rounds, and mails a minute to one domain and many."""
    with _sinks(bench) as sinks:
        crowd = _customer(bench, "reach", APPROVERS, DOMAINS, first=HANGING_DOMAIN)
        one = _customer(bench, "one", MAILS, 1, first="one.example")
        many = _customer(bench, "many", MAILS, MANY_DOMAINS, first="many-0.example")
        _endpoints(bench, crowd, sinks)
        # The worker is up once it has sent something.
        _until_sent(bench, bench.sample, 1, sinks)
        shares = [_round(bench, crowd, sinks) for _ in range(2)]
        rates = {who.tenant: _rate(bench, who, sinks) for who in (one, many)}
    return {"in_time_percent": min(shares), "one_domain": rates["one"], "many_domains": rates["many"]}


def _round(bench: Bench, customer: Sample, sinks: SinkPorts) -> float:
    row = _until_sent(bench, customer, REQUESTS, sinks)
    return 100 * float(row["soon"]) / float(row["number"])


def _rate(bench: Bench, customer: Sample, sinks: SinkPorts) -> float:
    row = _until_sent(bench, customer, 1, sinks)
    return 60 * float(row["sent"]) / float(row["seconds"])


def _until_sent(bench: Bench, customer: Sample, requests: int, sinks: SinkPorts) -> dict[str, float]:
    """Submit that many requests; return how the notifications to servers that answer left, once all have."""
    with bench.superuser.connect() as connection:
        since = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        for _ in range(requests):
            with bench.db.transaction() as session:
                submit.submit(session, engineer(customer), Origin("api"), asks(customer.tenant), SERVICES)
        values = {
            "tenant_id": customer.tenant_id,
            "since": since,
            "soon": SOON_SECONDS,
            "domain": HANGING_DOMAIN,
            "hole": sinks.url(sinks.hole),
        }
        until = time.monotonic() + 2 * PATIENCE
        while time.monotonic() < until:
            row = dict(connection.execute(text(OTHERS), values).mappings().one())
            if row["number"] and row["number"] == row["sent"]:
                return row
            time.sleep(0.2)
    raise RuntimeError(f"not sent within {2 * PATIENCE} s: {row}")


def _customer(bench: Bench, tenant: str, number: int, domains: int, *, first: str) -> Sample:
    plan = bench.processes.plan
    with as_owner(plan.owner_database_url) as session:
        policy = Policy(vendor_review=False)
        customer = sample.seed(session, tenant=tenant, policy=policy, environment="development", services=())
    values = {"tenant": tenant, "tenant_id": customer.tenant_id, "number": number, "domains": domains, "first": first}
    _run(bench.superuser, APPROVE, values)
    with as_owner(plan.owner_database_url) as session:
        for one in session.exec(select(Membership).where(col(Membership.mac).is_(None))):
            one.mac = row_marks.mark(session, row_marks.membership(one.id, one.person_id, one.tenant_id, one.role))
    return customer


def _endpoints(bench: Bench, customer: Sample, sinks: SinkPorts) -> None:
    vault = SecretVault([key.get_secret_value() for key in Settings().secret_keys])
    with as_owner(bench.processes.plan.owner_database_url) as session:
        for port in (sinks.hole, *sinks.calls):
            sample.add_endpoint(session, vault, sinks.url(port), customer.tenant_id)


def _run(engine: Engine, statement: str, values: dict[str, object]) -> None:
    with engine.connect() as connection:
        connection.execute(text(statement), values)
        connection.execute(text("ANALYZE people, memberships"))


@contextmanager
def _sinks(bench: Bench) -> Iterator[SinkPorts]:
    """Run the sinks, and a notifications worker that sends to them in the place of the other one."""
    settle(bench)
    _drain(bench)
    bench.processes.kill("notifications")
    mail = own_port()
    plan = replace(bench.processes.plan, smtp_url=f"smtp://127.0.0.1:{mail}")
    processes = stack.Processes(plan, bench.processes.logs)
    try:
        sinks = start_sinks(processes, mail, calls=ENDPOINTS - 1)
        processes.start("notifications")
        yield sinks
    finally:
        processes.stop()


def _drain(bench: Bench) -> None:
    """Wait until the worker has put away what is settled: whoever dies holding leases keeps them for a minute."""
    within(2 * PATIENCE, lambda: not bench.db.schedule.members(NOTIFICATIONS), 0.5)
    time.sleep(2)
