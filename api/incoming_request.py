"""An incoming request: its budget, whether its credential is known, and the address of its client."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address

from starlette.requests import HTTPConnection

SHORT, LONG = 2.0, 5.0
ENTRY = "lockbox.entry"
Networks = Sequence[IPv4Network | IPv6Network]
READING = frozenset({"GET", "HEAD", "OPTIONS"})
HEALTH_PATHS = frozenset({"/readyz", "/metrics"})
CLOSES = re.compile(
    r"/v1/requests/[^/]+/(?:revoke|deny|cancel|complete)"
    r"|/(?:requests|mine|review)/[^/]+/(?:revoke|deny|cancel|complete)"
    r"|(?:/v1)?/tenants/[^/]+/emergency-stop"
    r"|/v1/tenants/[^/]+/suspend"
    r"|/v1/vendor/members/[^/]+/disable"
)
"""Calls that only take access away: by the API, and what the portal's forms post for them."""


@dataclass(frozen=True)
class Budget:
    """How many requests of one kind are worked on at once, and how many seconds another one queues.

    A `vital` request has a database connection of a pool of its own. Requests that run in groups on the event loop
    have no thread and no connection each: `alone` is how many of those at once may leave their group for one.
    """

    name: str
    most: int
    seconds: float = SHORT
    vital: bool = False
    alone: int = 0

    @property
    def connections(self) -> int:
        """How many database connections of a pool it takes at most, and threads."""
        return self.alone or self.most


CHECKS = Budget("checks", 32, LONG, vital=True, alone=4)
CLOSINGS = Budget("closings", 4, LONG, vital=True)
HEALTH = Budget("health", 2, LONG, vital=True)
READS = Budget("reads", 10)
WRITES = Budget("writes", 4)
UPLOADS = Budget("uploads", 8)
KNOWN = (CHECKS, CLOSINGS, HEALTH, READS, WRITES, UPLOADS)
STRANGERS = Budget("strangers", 6)
VITAL_STRANGERS = Budget("vital strangers", 4, LONG, vital=True)
"""Strangers show no credential, or one that this process has not seen to be good: they take no other places."""
MOST_VITAL = sum(budget.connections for budget in (*KNOWN, VITAL_STRANGERS) if budget.vital)
MOST_COMMON = sum(budget.connections for budget in (*KNOWN, STRANGERS) if not budget.vital)


@dataclass
class IncomingRequest:
    """What is known of a request on its way in; the code that authenticates it sets `is_known`."""

    budget: Budget
    is_known: bool = False


def budget_of(method: str, path: str) -> Budget:
    """Return the budget of a request."""
    if path == "/v1/access":
        return CHECKS
    if path in HEALTH_PATHS:
        return HEALTH
    if method in READING:
        return READS
    if path == "/audit-log/verify":
        return UPLOADS
    return CLOSINGS if method == "POST" and CLOSES.fullmatch(path) else WRITES


def vouch(connection: HTTPConnection) -> None:
    """Note that the credential of this request is good."""
    entry: IncomingRequest | None = connection.scope.get(ENTRY)
    if entry is not None:
        entry.is_known = True


def is_vital(connection: HTTPConnection) -> bool:
    """Whether this request uses the database connections that are kept for access checks and closing moves."""
    entry: IncomingRequest | None = connection.scope.get(ENTRY)
    return entry is not None and entry.budget.vital


def client_address(connection: HTTPConnection, trusted: Networks) -> str | None:
    """Return where a request came from; only trusted proxies are believed when they name another address."""
    found = connection.client.host if connection.client else None
    lines = connection.headers.getlist("x-forwarded-for") if trusted else []
    hops = [hop.strip() for line in lines for hop in line.split(",")]
    while found and trusted and hops:
        try:
            if not any(ip_address(found) in network for network in trusted):
                break
            found = str(ip_address(hops.pop()))
        except ValueError:
            break
    return found.partition("%")[0] if found else None
