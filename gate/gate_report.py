"""Report to operators which admitted calls a gate would deny if it enforced."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from gate import enforcement
from gate.answers import GateReason
from gate.enforcement import NO_GATE, READERS, EnforcementOverview
from lockbox.admin import permissions
from lockbox.database import UnitOfWork
from lockbox.errors import NotFound
from lockbox.identity import authentication
from lockbox.identity.roles import Caller
from lockbox.text_rules import UUID_FORM

MOST_DAYS = 30
"""For how many days reported calls are kept, counted from the last call of the kind."""
CALLS = text("""
SELECT r.reason, r.path, r.tenant, r.caller, p.name AS engineer, r.count AS number, r.first_at, r.last_at
FROM reported_calls r LEFT JOIN people p
    ON p.id = CASE WHEN r.caller ~ :form THEN CAST(r.caller AS uuid) END
WHERE r.service = :service AND r.count > 0 AND r.last_at > (SELECT clock_timestamp()) - CAST(:since AS interval)
ORDER BY r.reason, r.path = '', r.count DESC, r.path, r.tenant, r.caller
""")
TOTALS = text("""
SELECT a.reason, sum(a.count) AS number FROM gate_answers a
WHERE a.service = :service AND a.decision = 'would-deny' AND a.span = 'hour'
    AND a.at > (SELECT clock_timestamp()) - CAST(:since AS interval)
GROUP BY a.reason ORDER BY number DESC, a.reason
""")
REMEDIES: Mapping[GateReason, str] = {
    GateReason.UNMAPPED: "Add these paths and parameters to the service's mapping in the catalogue. Where a content "
    "type is named, the gate cannot judge the call: check access in the service's code, with lockbox-guard.",
    GateReason.MALFORMED: "Have clients write these paths and parameters as docs/catalogue.md says, each in one way.",
    GateReason.UNKNOWN_ENGINEER: "Map these identities to engineers: lockbox gate identity add.",
    GateReason.NO_WINDOW: "These engineers have to request access before they call; so does a batch job.",
    GateReason.NARROWED: "These engineers have to request access to more than they did.",
    GateReason.USED_UP: "These engineers have to request more uses, or access again.",
    GateReason.SUSPENDED: "These tenants are suspended. Nobody works for them, or they are resumed.",
    GateReason.NO_TOKEN: "Have the callers sign in, or the gateway say whose calls these are.",
    GateReason.BAD_TOKEN: "Compare the tokens with the issuers of the catalogue: audience, keys and times.",
}
"""What to do about each reason before the gate is switched to enforce."""


@dataclass(frozen=True)
class WouldDenyCall:
    """`path` is None for the sum of all calls that are not listed separately; `identity` is mapped to no engineer."""

    path: str | None
    tenant: str | None
    engineer: str | None
    engineer_id: UUID | None
    identity: str | None
    calls: int
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True)
class WouldDenyReason:
    """`calls` counts the calls of the period. Each of `kinds` is counted since it was first seen."""

    reason: GateReason
    remedy: str
    calls: int
    kinds: Sequence[WouldDenyCall]


@dataclass(frozen=True)
class GateReport:
    gate: EnforcementOverview
    reasons: Sequence[WouldDenyReason]


def of_service(session: UnitOfWork, caller: Caller, service: str, *, days: int = MOST_DAYS) -> GateReport:
    authentication.enter(session, caller)
    permissions.capacity(caller, READERS)
    gate = next((one for one in enforcement.overviews(session, caller) if one.service == service), None)
    if gate is None:
        raise NotFound(NO_GATE)
    within = {"service": service, "since": timedelta(days=days)}
    kinds = defaultdict[str, list[WouldDenyCall]](list)
    for row in session.execute(CALLS, {**within, "form": f"^{UUID_FORM.pattern}$"}):
        kinds[row.reason].append(_kind(row))
    totals = {row.reason: int(row.number) for row in session.execute(TOTALS, within)}
    reasons = [GateReason(key) for key in dict.fromkeys((*totals, *kinds))]
    return GateReport(
        gate,
        [
            WouldDenyReason(reason, REMEDIES[reason], totals.get(reason, 0), kinds.get(reason, ()))
            for reason in reasons
        ],
    )


def _kind(row: Row[Any]) -> WouldDenyCall:
    engineer_id = UUID(row.caller) if UUID_FORM.fullmatch(row.caller) else None
    return WouldDenyCall(
        path=row.path or None,
        tenant=row.tenant or None,
        engineer=row.engineer,
        engineer_id=engineer_id,
        identity=None if engineer_id else row.caller or None,
        calls=row.number,
        first_at=row.first_at,
        last_at=row.last_at,
    )
