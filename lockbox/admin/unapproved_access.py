"""The ways to open access at a tenant without its approval, their limits, and the windows recently opened."""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlmodel import col, select

from lockbox.admin import delegates, permissions, pre_approval_status
from lockbox.admin.delegates import DelegationSummary
from lockbox.admin.pre_approval_status import PreApprovalStatus, PreApprovalSummary
from lockbox.admin.vendor_consent import ActiveConsent
from lockbox.audit.canonical import Value
from lockbox.audit.events import THE_CLOCK, AuditEvent
from lockbox.database import Database, UnitOfWork, now
from lockbox.facts.enumerations import Mode
from lockbox.identity.models import Tenant
from lockbox.identity.roles import Caller
from lockbox.notifications import announcements
from lockbox.requests.policy import customer_decides, effective_mode
from lockbox.requests.policy_parts import OverdueFinding
from lockbox.requests.policy_rules import Policy

log = structlog.get_logger(__name__)

LATELY = timedelta(days=90)
LONGEST_WAY = timedelta(days=60)
"""The longest time from an approval to the opening of its window. Missing approvals, questions that stop the approval
clock, and a later start delay the opening."""
GATES, PEOPLE, RECORD, OPENED = "gate", "person", "record", "opened"
# Each part of `opened` reads an index made for it. For a gate, the statement counts the same as report_consents.
FOUND = text("""
WITH opened AS (
    SELECT CASE WHEN r.break_glass THEN 'break_glass' WHEN r.pre_approval_id IS NOT NULL THEN 'pre_approval'
        WHEN r.consent_until IS NOT NULL THEN 'consent' ELSE 'mode' END AS way, r.id, r.opened_at,
        r.state = 'active' AND r.deadline_at > :at AS is_open FROM requests r
    WHERE r.tenant_id = :tenant AND r.opened_at >= :since
        AND (r.break_glass OR r.pre_approval_id IS NOT NULL OR r.mode <> 'enforce')
    UNION ALL
    SELECT DISTINCT 'delegate', r.id, r.opened_at, false FROM decisions d JOIN requests r ON r.id = d.request_id
    WHERE d.decision = 'approve' AND cardinality(d.principals) > 0 AND d.decided_at >= :decided_since
        AND r.tenant_id = :tenant AND r.opened_at >= :since
)
SELECT 'opened' AS kind, way AS name, (array_agg(id ORDER BY opened_at DESC, id DESC))[1] AS id,
    count(*) AS number, max(opened_at) AS at, count(*) FILTER (WHERE is_open) AS still_open FROM opened GROUP BY way
UNION ALL
SELECT 'gate', e.service, NULL, NULL, coalesce(c.created_at, e.changed_at), NULL FROM enforcements e
LEFT JOIN report_consents c ON c.enforcement_id = e.id AND c.tenant_id = :tenant AND c.revision = e.revision
WHERE e.wanted = 'report' AND (e.enforced_at IS NULL OR c.created_at IS NOT NULL)
UNION ALL
SELECT 'person', p.name, p.id, NULL, NULL, NULL FROM people p WHERE p.id = ANY (CAST(:people AS uuid[]))
UNION ALL
SELECT 'record', CASE WHEN a.finding IS NULL AND a.due_at <= :at THEN 'overdue' ELSE 'given' END, NULL,
    count(*) FILTER (WHERE a.opened_at > CAST(:at AS timestamptz) - interval '30 days'), NULL, NULL
FROM after_reviews a WHERE a.tenant_id = :tenant
    AND (a.finding IS NULL OR a.opened_at > CAST(:at AS timestamptz) - interval '30 days') GROUP BY 2
UNION ALL
SELECT 'record', 'stopped', NULL, NULL, s.stopped_at, NULL FROM emergency_stops s
WHERE s.tenant_id = :tenant AND s.ended_at IS NULL
ORDER BY 1, 2, 3
""")
STATED = "unapproved_access_stated"
AT_ONCE = 20
# A tenant's log row is made when its first events are sealed. Each of two workers skips the rows that the other has
# locked, and Postgres checks the conditions again on the newest version of a row.
DUE = text("""
SELECT l.id FROM logs l JOIN tenants t ON t.id = l.tenant_id
WHERE (l.stated_for IS NULL OR l.stated_for < CAST(:month AS date)) AND t.created_at < CAST(:begins AS timestamptz)
    AND NOT is_erased(t.id) AND (l.unstated_at IS NULL OR l.unstated_at < CAST(:failed_before AS timestamptz))
ORDER BY l.id LIMIT :most FOR NO KEY UPDATE OF l SKIP LOCKED
""")
HAS_STATED = text("UPDATE logs SET stated_for = CAST(:month AS date), unstated_at = NULL WHERE id = :id")
HAS_FAILED = text("UPDATE logs SET unstated_at = :at WHERE id = :id")
TRIED_AGAIN = timedelta(hours=1)
"""A failed monthly statement is retried after this time; until it succeeds, there is an alarm (`unstated`)."""


class UnapprovedWay(StrEnum):
    """A way to open access without asking the customer's approvers; with `delegate`, their delegates are asked."""

    MODE = "mode"
    CONSENT = "consent"
    GATE_REPORT = "gate_report"
    PRE_APPROVAL = "pre_approval"
    BREAK_GLASS = "break_glass"
    DELEGATE = "delegate"


OF_THE_VENDOR = frozenset({UnapprovedWay.MODE, UnapprovedWay.CONSENT})
"""The ways that end once the customer decides again."""


@dataclass(frozen=True)
class OpenedLately:
    """Windows recently opened in one `UnapprovedWay`. `still_open` never counts windows that a delegate approved."""

    count: int = 0
    newest: UUID | None = None
    at: datetime | None = None
    still_open: int = 0


@dataclass(frozen=True)
class ReportingGate:
    service: str
    since: datetime


@dataclass(frozen=True)
class BreakGlassAllowance:
    """`people` maps ids to names; None means every engineer and manager.

    `lately` counts windows opened within 30 days. `overdue` is whether the customer's finding on a window is overdue;
    `overdue_finding` is what that does to further break-glass. `stopped_since` is when an emergency stop began to bar
    break-glass.
    """

    services: Sequence[str]
    people: Mapping[UUID, str] | None
    ceiling: int
    monthly: int
    overdue_finding: OverdueFinding
    lately: int = 0
    overdue: bool = False
    stopped_since: datetime | None = None

    @property
    def is_barred(self) -> bool:
        waits = self.overdue and self.overdue_finding is OverdueFinding.BLOCK
        return waits or self.stopped_since is not None or self.lately >= self.monthly


@dataclass(frozen=True)
class UnapprovedAccess:
    """The ways to open access without approval at `at`, and the windows opened in these ways since `since`.

    If the policy has no valid MAC (`is_verified` is False), it opens nothing. `pre_approvals` are in force;
    `delegations` are in force or begin later.
    """

    tenant: Tenant
    at: datetime
    since: datetime
    mode: Mode
    consent: ActiveConsent | None
    is_verified: bool
    gates: Sequence[ReportingGate] = ()
    pre_approvals: Sequence[PreApprovalSummary] = ()
    break_glass: BreakGlassAllowance | None = None
    delegations: Sequence[DelegationSummary] = ()
    opened: Mapping[UnapprovedWay, OpenedLately] = field(default_factory=dict)

    @property
    def ways(self) -> AbstractSet[UnapprovedWay]:
        """Includes the ways that a stop or an overdue finding bars for now."""
        leaves = UnapprovedWay.CONSENT if self.consent else UnapprovedWay.MODE
        can = {
            leaves: not customer_decides(self.mode),
            UnapprovedWay.GATE_REPORT: bool(self.gates),
            UnapprovedWay.PRE_APPROVAL: bool(self.pre_approvals),
            UnapprovedWay.BREAK_GLASS: self.break_glass is not None,
        }
        return frozenset(way for way, is_so in can.items() if is_so)

    @property
    def still_open(self) -> int:
        """The number of open windows that the customer was not asked about."""
        return sum(one.still_open for one in self.opened.values())

    @property
    def ways_if_enforced(self) -> AbstractSet[UnapprovedWay]:
        return self.ways - OF_THE_VENDOR


def of_tenant(session: UnitOfWork, caller: Caller, slug: str) -> UnapprovedAccess:
    """For the tenant's admins, approvers and auditors."""
    return read(session, permissions.readable(session, caller, slug), now(session))


def read(session: UnitOfWork, tenant: Tenant, at: datetime) -> UnapprovedAccess:
    """The transaction must belong to a caller (`authentication.enter`) or to a worker."""
    judged = pre_approval_status.judged_by(session, tenant, at)
    policy, since = judged.policy, at - LATELY
    values = {
        "tenant": tenant.id,
        "since": since,
        "decided_since": since - LONGEST_WAY,
        "at": at,
        "people": list(policy.break_glass_people or ()) if policy else [],
    }
    rows = session.execute(FOUND, values).all()
    pre_approvals = pre_approval_status.summaries(session, tenant, judged)
    consent = _consent(tenant, policy, at)
    return UnapprovedAccess(
        tenant,
        at,
        since,
        consent.mode if consent else tenant.mode if policy else Mode.ENFORCE,
        consent,
        is_verified=policy is not None,
        gates=[ReportingGate(row.name, row.at) for row in rows if row.kind == GATES],
        pre_approvals=[given for given in pre_approvals if given.status is PreApprovalStatus.IN_FORCE],
        break_glass=_break_glass(policy, rows) if policy else None,
        delegations=delegates.lasting(session, tenant.id, judged.known, at),
        opened={way: OpenedLately() for way in UnapprovedWay}
        | {
            UnapprovedWay(row.name): OpenedLately(row.number, row.id, row.at, row.still_open)
            for row in _of(rows, OPENED)
        },
    )


def state(database: Database) -> Iterator[int]:
    """Write the month's statement of unapproved access to each log; yield the number of tenants per step.

    A failed statement is retried after an hour; the others continue.
    """
    while True:
        with database.transaction() as session:
            count = _state_some(session)
        if count:
            yield count
        if count < AT_ONCE:
            return


def _state_some(session: UnitOfWork) -> int:
    at = now(session).astimezone(UTC)
    begins = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    values = {"month": begins.date(), "begins": begins, "failed_before": at - TRIED_AGAIN, "most": AT_ONCE}
    due = session.execute(DUE, values).scalars().all()
    for one in due:
        try:
            with session.orm.begin_nested():
                _state_one(session, one, at)
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:  # noqa: BLE001 - an error at one tenant stops no other
            _failed(one, error)
            session.execute(HAS_FAILED, {"at": at, "id": one})
    return len(due)


def _failed(tenant_id: UUID, error: Exception) -> None:
    # The error itself is not logged, because it quotes the policy.
    log.error("unapproved_access.not_stated", tenant_id=str(tenant_id), error=type(error).__name__)


def _state_one(session: UnitOfWork, tenant_id: UUID, at: datetime) -> None:
    tenant = session.orm.exec(select(Tenant).where(col(Tenant.id) == tenant_id)).one()
    announcements.record(session, _statement(read(session, tenant, at)))
    session.execute(HAS_STATED, {"month": at.date().replace(day=1), "id": tenant_id})


def _statement(found: UnapprovedAccess) -> AuditEvent:
    glass = found.break_glass
    facts: dict[str, Value] = {
        "month": f"{found.at:%Y-%m}",
        "since": found.since,
        "mode": found.mode.value,
        "consent_until": found.consent.until if found.consent else None,
        "gates": [gate.service for gate in found.gates],
        "pre_approvals": len(found.pre_approvals),
        "break_glass": list(glass.services) if glass else [],
        "delegates": sum(delegation.counts for delegation in found.delegations),
        "opened": {way.value: one.count for way, one in found.opened.items()},
    }
    if glass:
        people = {} if glass.people is None else {"break_glass_people": len(glass.people)}
        facts |= {"break_glass_ceiling": glass.ceiling, "break_glass_monthly": glass.monthly, **people}
    return AuditEvent(at=found.at, action=STATED, actor=THE_CLOCK, tenant_id=found.tenant.id, facts=facts)


def _consent(tenant: Tenant, policy: Policy | None, at: datetime) -> ActiveConsent | None:
    given = policy.consent if policy else None
    is_active = given is not None and effective_mode(tenant.mode, given, at) is not tenant.mode
    return ActiveConsent(given.mode, given.until) if given and is_active else None


def _break_glass(policy: Policy, rows: Sequence[Row[Any]]) -> BreakGlassAllowance | None:
    named = policy.break_glass_people
    if not policy.break_glass_services or (named is not None and len(named) < 2):  # noqa: PLR2004 - it needs two people
        return None
    names = {row.id: row.name for row in _of(rows, PEOPLE)}
    record = {row.name: row for row in _of(rows, RECORD)}
    return BreakGlassAllowance(
        policy.break_glass_services,
        None if named is None else {one: names.get(one, pre_approval_status.FORMER) for one in named},
        policy.break_glass_ceiling,
        policy.break_glass_monthly,
        policy.overdue_finding,
        lately=sum(row.number or 0 for row in record.values()),
        overdue="overdue" in record,
        stopped_since=record["stopped"].at if "stopped" in record else None,
    )


def _of(rows: Sequence[Row[Any]], kind: str) -> list[Row[Any]]:
    return [row for row in rows if row.kind == kind]
