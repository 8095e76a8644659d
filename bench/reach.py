"""How soon notifications leave while one endpoint and one mail domain hang, and how many mails leave in a minute."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from sqlalchemy import text

from bench.db import A_DAY, Bench, add_world
from bench.measure import settle
from cli import stack
from harness.people import WITHOUT_REVIEW, Enrolment, World, add_endpoint
from harness.ports import PATIENCE, own_port
from harness.sinks import HANGING_DOMAIN
from harness.stage import SinkPorts, run_as_superuser, start_sinks, superuser_url
from harness.wait import within
from lockbox.database import as_owner
from lockbox.identity.roles import Role
from lockbox.schedule import NOTIFICATIONS

APPROVERS = 100
ENDPOINTS = 20
DOMAINS = 20
REQUESTS = 5
SOON_SECONDS = 5
MAILS = 2_000
MANY_DOMAINS = 500

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
        crowd = _customer(bench, APPROVERS, DOMAINS, first=HANGING_DOMAIN)
        one, many = (_customer(bench, MAILS, domains, first="domain-0.example") for domains in (1, MANY_DOMAINS))
        _endpoints(bench, crowd, sinks)
        # The worker is up once it has sent something.
        _until_sent(bench, bench.world, 1, sinks)
        shares = [_round(bench, crowd, sinks) for _ in range(2)]
        one_domain, many_domains = (_rate(bench, who, sinks) for who in (one, many))
    return {"in_time_percent": min(shares), "one_domain": one_domain, "many_domains": many_domains}


def _round(bench: Bench, customer: World, sinks: SinkPorts) -> float:
    row = _until_sent(bench, customer, REQUESTS, sinks)
    return 100 * float(row["soon"]) / float(row["number"])


def _rate(bench: Bench, customer: World, sinks: SinkPorts) -> float:
    row = _until_sent(bench, customer, 1, sinks)
    return 60 * float(row["sent"]) / float(row["seconds"])


def _until_sent(bench: Bench, customer: World, requests: int, sinks: SinkPorts) -> dict[str, float]:
    """Submit that many requests; return how the notifications to servers that answer left, once all have."""
    with bench.superuser.connect() as connection:
        since = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        for _ in range(requests):
            customer.submit(db=bench.db)
        values = {
            "tenant_id": customer.tenant.id,
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


def _customer(bench: Bench, number: int, domains: int, *, first: str) -> World:
    """Add a tenant with so many approvers more, whose addresses are spread over domains."""
    customer = add_world(bench.plan, bench.db, WITHOUT_REVIEW)
    names = [first, *(f"domain-{place}.example" for place in range(1, domains))]
    with as_owner(bench.plan.owner_database_url) as session:
        enrolment = Enrolment(session, A_DAY)
        for place in range(1, number + 1):
            email = f"a{place}-{customer.tenant.slug}@{names[place % domains]}"
            enrolment.enter(f"approver-{place}", Role.APPROVER, customer.tenant.id, email=email)
        enrolment.write()
    run_as_superuser(superuser_url(bench.plan), "ANALYZE people, memberships")
    return customer


def _endpoints(bench: Bench, customer: World, sinks: SinkPorts) -> None:
    with as_owner(bench.plan.owner_database_url) as session:
        for port in (sinks.hole, *sinks.calls):
            add_endpoint(session, sinks.url(port), customer.tenant.id)


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
