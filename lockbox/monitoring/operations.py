"""What operators see of an installation: how it stands, its last day, and what was found that must never be."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from lockbox.admin import permissions
from lockbox.database import Database
from lockbox.identity import row_security
from lockbox.identity.roles import Caller, Role
from lockbox.monitoring import day, status
from lockbox.monitoring.day import Day
from lockbox.monitoring.status import Status

MOST_FAILING = 50
FAILING = text("SELECT * FROM failing_webhooks(:most, :skipped)")
FINDINGS = text("SELECT rule, about, raised_at FROM operating_findings()")


@dataclass(frozen=True)
class Finding:
    """Something that must never be: which invariant, of which request or log, and when it was last said."""

    rule: str
    about: UUID
    raised_at: datetime


@dataclass(frozen=True)
class FailingWebhook:
    """A webhook whose last call failed: the tenant's name, None for the vendor's own, and where it leads.

    `leads_to` is scheme, host and port, for a path may hold a secret. `unsent` is how many
    calls wait, `error` the word of the last try.
    """

    id: UUID
    tenant: str | None
    leads_to: str
    failing_since: datetime
    unsent: int
    error: str | None


@dataclass(frozen=True)
class FailingWebhooks:
    """A page of the failing webhooks, those first that have failed for longest.

    `first` is the place of the first of them, from 1 on; `in_all` is how many there are, 0 also on a page behind the
    last.
    """

    webhooks: Sequence[FailingWebhook]
    first: int
    in_all: int

    @property
    def last(self) -> int:
        """The place of the last one on the page."""
        return self.first + len(self.webhooks) - 1


@dataclass(frozen=True)
class Operations:
    """Counts, ages and failing webhooks; all but `status` are None where Postgres does not say."""

    status: Status
    day: Day | None
    findings: Sequence[Finding] | None
    failing: FailingWebhooks | None


def look(database: Database, caller: Caller, *, failing_page: int = 1) -> Operations:
    """Ask whatever answers; what is away is said, and no question takes longer than a few seconds.

    `failing_page` is which page of the failing webhooks, from 1 on.

    Raises:
        NotYours: the caller is no operator.
    """
    permissions.capacity(caller, (Role.OPERATOR,))
    stands = status.read(database, with_redis=True)
    return Operations(stands, day.read(database), _findings(database), _failing(database, caller, failing_page))


def _findings(database: Database) -> Sequence[Finding] | None:
    try:
        with database.transaction() as session:
            rows = session.connection().execute(FINDINGS).all()
    except SQLAlchemyError:
        return None
    return [Finding(row.rule, row.about, row.raised_at) for row in rows]


def _failing(database: Database, caller: Caller, number: int) -> FailingWebhooks | None:
    skipped = (number - 1) * MOST_FAILING
    try:
        with database.transaction() as session:
            row_security.enter(session, caller)
            rows = session.connection().execute(FAILING, {"most": MOST_FAILING, "skipped": skipped}).all()
    except SQLAlchemyError:
        return None
    found = [
        FailingWebhook(row.id, row.tenant, row.leads_to, row.failing_since, row.unsent, row.error) for row in rows
    ]
    return FailingWebhooks(found, skipped + 1, rows[0].in_all if rows else 0)
