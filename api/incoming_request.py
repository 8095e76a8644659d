"""An incoming request: its budget, credential and client."""

import hashlib
import os
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address

from starlette.requests import HTTPConnection

SHORT, LONG = 2.0, 5.0
ENTRY = "lockbox.entry"
MOST_KNOWN, KNOWN_SECONDS = 20_000, 900.0
Networks = Sequence[IPv4Network | IPv6Network]
READING = frozenset({"GET", "HEAD", "OPTIONS"})
ACCESS_PATHS = frozenset({"/v1/access", "/access/v1/evaluation", "/access/v1/evaluations"})
HEALTH_PATHS = frozenset({"/readyz", "/metrics"})
MOVES = re.compile(r"/v1/requests/[^/]+/(?:(?P<opens>approve|endorse|break-glass)|revoke|deny|cancel|complete)")
"""The paths of the API's calls that move a request."""
CLOSES = re.compile(
    r"/(?:requests|mine|review)/[^/]+/(?:revoke|deny|cancel|complete)"
    r"|(?:/v1)?/tenants/[^/]+/emergency-stop"
    r"|/v1/tenants/[^/]+/suspend"
    r"|/v1/vendor/members/[^/]+/disable"
    r"|/v1/cases/[^/]+/[^/]+/closed"
)
"""The paths of other calls that only end access, in the API and in the portal's forms."""


@dataclass(frozen=True)
class Budget:
    """At most `most` requests of one kind are handled at once. A further request queues for `seconds`.

    A `vital` request uses a separate pool of database connections. Each request has a thread and a connection of its
    own, unless `alone` is set. Then only `alone` requests at once do: calls in a group share one thread and one
    connection, and uploads need both only for moments.
    """

    name: str
    most: int
    seconds: float = SHORT
    vital: bool = False
    alone: int = 0

    @property
    def connections(self) -> int:
        """How many threads and pooled database connections the budget uses at most."""
        return self.alone or self.most


CHECKS = Budget("checks", 32, LONG, vital=True, alone=3)
CLOSING_MOVES = Budget("closing moves", 16, LONG, vital=True, alone=2)
CLOSINGS = Budget("closings", 2, LONG, vital=True)
HEALTH = Budget("health", 2, LONG, vital=True)
OPENING_MOVES = Budget("opening moves", 16, alone=2)
READS = Budget("reads", 10)
SUBMITS = Budget("submits", 24, alone=2)
WRITES = Budget("writes", 3)
UPLOADS = Budget("uploads", 8, alone=4)
KNOWN = (CHECKS, CLOSING_MOVES, CLOSINGS, HEALTH, OPENING_MOVES, READS, SUBMITS, WRITES, UPLOADS)
POSTED = {"/v1/requests": SUBMITS, "/ask": SUBMITS, "/audit-log/verify": UPLOADS}
STRANGERS = Budget("strangers", 6)
VITAL_STRANGERS = Budget("vital strangers", 4, LONG, vital=True)
"""The only budgets for requests without a credential, or with one that this process has not found to be valid."""
MOST_VITAL = sum(budget.connections for budget in (*KNOWN, VITAL_STRANGERS) if budget.vital)
MOST_COMMON = sum(budget.connections for budget in (*KNOWN, STRANGERS) if not budget.vital)


@dataclass
class IncomingRequest:
    """`vouch` calls `found_valid`, from any thread, once the request's credential is known to be valid."""

    budget: Budget
    is_known: bool = False
    found_valid: Callable[[], object] = lambda: None


def budget_of(method: str, path: str) -> Budget:
    if path in ACCESS_PATHS:
        return CHECKS
    if path in HEALTH_PATHS:
        return HEALTH
    if method in READING:
        return READS
    return _budget_of_post(path) if method == "POST" else WRITES


def _budget_of_post(path: str) -> Budget:
    if path in POSTED:
        return POSTED[path]
    if move := MOVES.fullmatch(path):
        return OPENING_MOVES if move["opens"] else CLOSING_MOVES
    return CLOSINGS if CLOSES.fullmatch(path) else WRITES


def vouch(connection: HTTPConnection) -> None:
    entry: IncomingRequest | None = connection.scope.get(ENTRY)
    if entry is not None and not entry.is_known:
        entry.is_known = True
        entry.found_valid()


def is_vital(connection: HTTPConnection) -> bool:
    entry: IncomingRequest | None = connection.scope.get(ENTRY)
    return entry is not None and entry.budget.vital


class KnownCredentials:
    """Digests, under a key of this process, of credentials that were valid within the last quarter of an hour."""

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def __contains__(self, shown: bytes | None) -> bool:
        return shown is not None and self._until.get(shown, 0.0) > time.monotonic()

    def digest(self, credential: str | None) -> bytes | None:
        if credential is None:
            return None
        return hashlib.blake2b(credential.encode(), key=self._key, digest_size=16).digest()

    def note(self, shown: bytes | None, *, is_good: bool, is_bad: bool) -> None:
        if shown is None:
            return
        if is_good:
            self._until[shown] = time.monotonic() + KNOWN_SECONDS
            self._until.move_to_end(shown)
            if len(self._until) > MOST_KNOWN:
                self._until.popitem(last=False)
        elif is_bad:
            self._until.pop(shown, None)


def client_address(connection: HTTPConnection, trusted: Networks) -> str | None:
    """Return the client's address, from X-Forwarded-For only if a trusted proxy sent it."""
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
