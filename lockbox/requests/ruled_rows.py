"""The part of a statement that reads with a request what rules it: tenant, both policies, and the votes so far."""

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from lockbox.database import UnitOfWork
from lockbox.identity import row_macs
from lockbox.identity.row_macs import MarkedRowKind
from lockbox.notifications.recipients import RecipientDirectory
from lockbox.requests import decision_context, policy_store
from lockbox.requests.decision_context import VOTE_COLUMNS
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_store import EffectivePolicy
from lockbox.requests.quorum import Vote
from lockbox.sql import columns

TENANTS, VOTES = "t_", "d_"
TENANT_COLUMNS = (*row_macs.COVERED[MarkedRowKind.TENANT], "mac")
# A tenant's policies are long, and the same for many of its requests: each is sent once.
ONCE = "CASE WHEN row_number() OVER (PARTITION BY {of}.tenant_id, {of}.version) = 1 THEN {of}.body::text END AS {of}"
RULED_COLUMNS = f"""{ONCE.format(of="own")}, own.mac AS own_mac,
{ONCE.format(of="today")}, today.mac AS todays_mac,
{", ".join(f"tenants.{name} AS {TENANTS}{name}" for name in TENANT_COLUMNS)},
(SELECT e.state FROM requests e WHERE e.id = requests.extends) AS extended,
{", ".join(f"d.{name} AS {VOTES}{name}" for name in VOTE_COLUMNS)}"""  # noqa: S608 - ours
"""What such a statement selects: a row for each vote, or one."""
RULED_JOINS = """JOIN tenants ON tenants.id = requests.tenant_id JOIN people ON people.id = requests.requester_id
LEFT JOIN policies own ON own.tenant_id = requests.tenant_id AND own.version = requests.policy_version AND {which}
LEFT JOIN policies today ON today.tenant_id = own.tenant_id AND today.version = tenants.policy_version
LEFT JOIN decisions d ON d.request_id = requests.id AND own.version IS NOT NULL
AND requests.state IN ('reviewing', 'pending')"""
"""The joins of such a statement to `requests`; policies and votes are read of those in `which` alone."""
NAMED_COLUMNS = f"""{columns(AccessRequest, "requests")},
tenants.slug AS tenant, people.name AS requester, tenants.name AS tenant_name"""


def short(statement: str) -> str:
    """Return a statement without what its layout adds: the driver parses a long one each time that it is sent."""
    return " ".join(statement.split()).replace(", ", ",")


class RuledRows:
    """Rows of such a statement: by request what it meets now, and the votes on it."""

    def __init__(self, rows: Sequence[Row[Any]]) -> None:
        self._bodies = {(row.tenant_id, row.policy_version): row.own for row in rows if row.own is not None}
        self._bodies |= {(row.tenant_id, row.t_policy_version): row.today for row in rows if row.today is not None}

    def effective(self, session: UnitOfWork, row: Row[Any], request: AccessRequest | Row[Any]) -> EffectivePolicy:
        """Return what the request of a row meets now; the reader may read its tenant's policies."""
        found = row._mapping  # noqa: SLF001 - its public name
        ruled = SimpleNamespace(
            own=self._bodies[row.tenant_id, row.policy_version],
            own_mac=row.own_mac,
            today=self._bodies[row.tenant_id, row.t_policy_version],
            todays_mac=row.todays_mac,
            extended=row.extended,
            **{name: found[f"{TENANTS}{name}"] for name in TENANT_COLUMNS},
        )
        return policy_store.effective_policy_in(session, ruled, request)


def votes_of(
    session: UnitOfWork,
    request: AccessRequest | Row[Any],
    rows: Iterable[Row[Any]],
    known: RecipientDirectory,
    effective: EffectivePolicy,
) -> tuple[Vote, ...]:
    """Return the votes in the rows of one request, as `decision_context.votes_of` does."""
    mappings = [row._mapping for row in rows if row.d_id is not None]  # noqa: SLF001 - its public name
    given = [SimpleNamespace(**{name: one[f"{VOTES}{name}"] for name in VOTE_COLUMNS}) for one in mappings]
    return decision_context.votes_in(session, [request], known, {request.id: effective.terms}, given)[request.id]


def by_request(rows: Iterable[Row[Any]]) -> dict[UUID, list[Row[Any]]]:
    """Return the rows of each request, in order."""
    found: dict[UUID, list[Row[Any]]] = {}
    for row in rows:
        found.setdefault(row.id, []).append(row)
    return found
