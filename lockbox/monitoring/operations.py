"""The content of the operators' page: status, the last day, failing webhooks, and violations of invariants."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from lockbox.admin import permissions
from lockbox.database import Database
from lockbox.identity import authentication
from lockbox.identity.roles import Caller, Role
from lockbox.monitoring import metrics
from lockbox.monitoring.metrics import HourlyCounts, MetricName
from lockbox.monitoring.status import Status, read

MOST_FAILING = 50
FAILING = text("SELECT id, tenant, leads_to, failing_since, unsent, error FROM failing_webhooks(:most, :skipped)")
FINDINGS = text("SELECT rule, about, raised_at FROM operating_findings()")


@dataclass(frozen=True)
class InvariantFinding:
    rule: str
    about: UUID
    raised_at: datetime


@dataclass(frozen=True)
class FailingWebhook:
    """A webhook whose last call failed; `tenant` is None for the vendor's own.

    `leads_to` is only the scheme, host and port, because a path may hold a secret. `unsent` counts waiting calls.
    `error` is the code of the last try.
    """

    id: UUID
    tenant: str | None
    leads_to: str
    failing_since: datetime
    unsent: int
    error: str | None


@dataclass(frozen=True)
class FailingWebhooks:
    """A page of failing webhooks, the longest failing first; `first` is the number of its first webhook, from 1."""

    webhooks: Sequence[FailingWebhook]
    first: int
    in_all: int

    @property
    def last(self) -> int:
        return self.first + len(self.webhooks) - 1


@dataclass(frozen=True)
class OperationsStatus:
    """The content of the page; all members but `status` are None if Postgres does not answer."""

    status: Status
    day: HourlyCounts | None
    findings: Sequence[InvariantFinding] | None
    failing: FailingWebhooks | None


def read_operations(database: Database, caller: Caller, *, failing_page: int = 1) -> OperationsStatus:
    """Each query takes a few seconds at most."""
    permissions.capacity(caller, (Role.OPERATOR,))
    stands = read(database, with_redis=True)
    failing = _failing(database, caller, failing_page, int(stands.figures.one(MetricName.WEBHOOKS_FAILING) or 0))
    return OperationsStatus(stands, metrics.read_day(database), _findings(database), failing)


def _findings(database: Database) -> Sequence[InvariantFinding] | None:
    try:
        with database.transaction() as session:
            rows = session.execute(FINDINGS).all()
    except SQLAlchemyError:
        return None
    return [InvariantFinding(row.rule, row.about, row.raised_at) for row in rows]


def _failing(database: Database, caller: Caller, number: int, in_all: int) -> FailingWebhooks | None:
    skipped = (number - 1) * MOST_FAILING
    try:
        with database.transaction() as session:
            authentication.enter(session, caller)
            rows = session.execute(FAILING, {"most": MOST_FAILING, "skipped": skipped}).all()
    except SQLAlchemyError:
        return None
    found = [
        FailingWebhook(row.id, row.tenant, row.leads_to, row.failing_since, row.unsent, row.error) for row in rows
    ]
    return FailingWebhooks(found, skipped + 1, in_all)
