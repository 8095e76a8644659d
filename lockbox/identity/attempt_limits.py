"""Counts of sign-in attempts by network and account, kept in Postgres, so that flushing Redis resets nothing."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv6Address, ip_address, ip_network
from uuid import UUID

from sqlalchemy import text

from lockbox.database import UnitOfWork, postgres_clock
from lockbox.errors import TooMany
from lockbox.identity.credentials import SignInCount
from lockbox.sql import insert_list

SPAN = timedelta(minutes=10)
IPV6_PREFIX = 64

# Postgres lower-cases an account here as in the look-up of people, so that no spelling gets a count of its own.
COUNT = text(f"""
INSERT INTO {insert_list(SignInCount, of="c")}
SELECT sha256(convert_to(k.kind || ':' || lower(k.value), 'UTF8')) AS key, :at, 1
FROM unnest(CAST(:kinds AS text[]), CAST(:values AS text[])) AS k (kind, value) ORDER BY key
ON CONFLICT (key) DO UPDATE SET
    since = CASE WHEN c.since <= :started THEN excluded.since ELSE c.since END,
    count = CASE WHEN c.since <= :started THEN 1 ELSE least(c.count, 1000000) + 1 END
RETURNING key = sha256(convert_to('address:' || lower(:address), 'UTF8')) AS is_address,
    key = ANY(ARRAY(SELECT sha256(convert_to(k.kind || ':' || lower(k.value), 'UTF8'))
        FROM unnest(CAST(:kinds AS text[]), CAST(:values AS text[])) AS k (kind, value)
        WHERE k.kind = ANY(:here))) AS is_here, since, count AS attempts
""")  # noqa: S608 - ours


HERE = ["account here", "code here"]
"""Kinds of counts for one account from one network."""


@dataclass(frozen=True)
class AttemptLimits:
    """Allowed attempts within ten minutes.

    `per_account` limits one account from all networks, `per_account_here` from one network (None: the same limit).
    """

    per_account: int
    per_address: int
    per_account_here: int | None = None

    def of(self, *, is_address: bool, is_here: bool) -> int:
        if is_address:
            return self.per_address
        here = self.per_account if self.per_account_here is None else self.per_account_here
        return here if is_here else self.per_account


@dataclass(frozen=True)
class AttemptCount:
    """`wait` is None if the attempt may continue. `of_address` is whether the network has to wait."""

    wait: timedelta | None
    of_address: bool = False

    def check(self, to: str = "sign in") -> None:
        """Raise TooMany if a limit was exceeded; call this outside the transaction that counted."""
        if self.wait is not None:
            seconds = max(1, math.ceil(self.wait.total_seconds()))
            raise TooMany(
                f"Too many attempts to {to}; try again in {math.ceil(seconds / 60)} minutes.", retry_after=seconds
            )


def count(
    session: UnitOfWork,
    limits: AttemptLimits,
    *,
    address: str | None = None,
    account: str | None = None,
    code_of: str | None = None,
    tried_from: str | None = None,
    naming: UUID | None = None,
    taking: UUID | None = None,
    verifying: UUID | None = None,
) -> AttemptCount:
    """Count an attempt to sign in, name an address, export data or upload a file; commit before checking the result.

    `address` is the network address of the attempt. `account` names the account, such as the mail address for which a
    code is requested. `code_of` is the mail address whose code is tried. It has its own count, so that requesting
    codes for someone does not block that person's code. `tried_from` is the network address from which the code is
    tried; unlike `address`, it is counted only together with `code_of`. `naming`, `taking` and `verifying` are the
    people who name a mail address, export data or upload a file.
    """
    of = network(address) if address else None
    acting = {"naming": naming, "taking": taking, "verifying": verifying}
    people = {name: str(one) for name, one in acting.items() if one}
    keys = {"address": of, "account": account, "code": code_of} | people
    where = of or (network(tried_from) if tried_from else None)
    here = {f"{kind} here": f"{keys[kind]} {where}" for kind in ("account", "code") if keys[kind] and where}
    keys |= here
    known = {kind: value for kind, value in keys.items() if value}
    if not known:
        return AttemptCount(None)
    at = postgres_clock(session)
    values = {
        "kinds": list(known),
        "values": list(known.values()),
        "address": of or "",
        "here": HERE,
        "at": at,
        "started": at - SPAN,
    }
    rows = session.execute(COUNT, values).all()
    over = [row for row in rows if row.attempts > limits.of(is_address=row.is_address, is_here=row.is_here)]
    wait = _until(max(row.since for row in over), at) if over else None
    return AttemptCount(wait, any(row.is_address for row in over))


def _until(since: datetime, at: datetime) -> timedelta:
    return max(since + SPAN - at, timedelta(0))


def network(address: str) -> str:
    """An IPv6 /64 counts as one network."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ip_network((int(parsed), IPV6_PREFIX), strict=False))
