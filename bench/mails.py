"""How soon notifications leave while one endpoint and one mail domain hang, and how many mails leave in a second."""

import smtplib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from bench import backlog
from bench.bare_api import MAIL
from bench.lockbox_stack import A_DAY, Bench, add_world
from bench.sinks import HANGING_DOMAIN, SinkPorts, start_sinks
from devstack import stack
from harness.network import HOST
from harness.people import WITHOUT_REVIEW, Enrolment, World, add_endpoint
from harness.ports import PATIENCE, own_port
from harness.stage import run_as_superuser, superuser_url
from harness.wait import within
from lockbox.identity.roles import Role
from lockbox.owner_transaction import as_owner
from lockbox.schedule import NOTIFICATIONS

APPROVERS = 100
ENDPOINTS = 20
DOMAINS = 20
REQUESTS = 5
SOON_SECONDS = 5
MAILS = 2_000
MANY_DOMAINS = 500
COMMON = 2
"""The number of approvers at every customer of `harness.people` in this benchmark."""
LOOK_SECONDS = 0.05


def measure(bench: Bench) -> dict[str, float]:
    """Return the percentage that left in time, the worse of two rounds, and mails a second to one domain and to many.

    `plain` is how many mails a second one thread hands to the same relay on one kept connection.
    """
    with _sinks(bench) as sinks:
        crowd = _customer(bench, APPROVERS, DOMAINS, first=HANGING_DOMAIN)
        one, many = (_customer(bench, MAILS, domains, first="domain-0.example") for domains in (1, MANY_DOMAINS))
        _endpoints(bench, crowd, sinks)
        # The worker is up once it has sent something.
        _sent(bench, bench.world, sinks, COMMON)
        shares = [_in_time(bench, crowd, sinks) for _ in range(2)]
        one_domain, many_domains = (_rate(bench, who, sinks) for who in (one, many))
        plain = _plain(sinks)
    return {"in_time_percent": min(shares), "one_domain": one_domain, "many_domains": many_domains, "plain": plain}


def _in_time(bench: Bench, customer: World, sinks: SinkPorts) -> float:
    """Submit some requests; return the percentage of mails and calls that came in time, except those that hang."""
    expected = (REQUESTS * (COMMON + APPROVERS - APPROVERS // DOMAINS), REQUESTS * (ENDPOINTS - 1))
    before = sinks.taken()

    def come() -> int:
        # A call may come twice. The limit keeps it from counting as a mail that has not come.
        return sum(min(now - then, most) for now, then, most in zip(sinks.taken(), before, expected, strict=True))

    for _ in range(REQUESTS):
        customer.submit(db=bench.db)
    until = time.monotonic() + SOON_SECONDS
    while (taken := come()) < sum(expected) and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)
    within(2 * PATIENCE, lambda: come() == sum(expected), LOOK_SECONDS)
    return 100 * taken / sum(expected)


def _rate(bench: Bench, customer: World, sinks: SinkPorts) -> float:
    return (MAILS + COMMON) / _sent(bench, customer, sinks, MAILS + COMMON)


def _sent(bench: Bench, customer: World, sinks: SinkPorts, mails: int) -> float:
    """Submit a request; return how many seconds later all mails were taken."""
    before, began = sinks.mails, time.monotonic()
    customer.submit(db=bench.db)
    sinks.wait_for(before + mails, look=LOOK_SECONDS)
    return time.monotonic() - began


def _plain(sinks: SinkPorts) -> float:
    began = time.monotonic()
    with smtplib.SMTP(HOST, sinks.mail, timeout=10) as relay:
        for number in range(MAILS):
            relay.sendmail("lockbox@vendor.example", ["ann@customer.example"], MAIL.format(id=number))
    return MAILS / (time.monotonic() - began)


def _customer(bench: Bench, number: int, domains: int, *, first: str) -> World:
    """Add a tenant with this many further approvers, whose addresses are spread over domains."""
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
    """Run the sinks, and a notifications worker that sends to them in place of the usual one."""
    backlog.give_up(bench.superuser)
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
    """Wait until the worker has removed what is settled: a worker that dies with leases keeps them for a minute."""
    within(2 * PATIENCE, lambda: not bench.db.schedule.members(NOTIFICATIONS), 0.5)
    time.sleep(2)
