"""What operators see of an installation: how it stands, its last day, and what was found that must never be."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from lockbox.database import Database
from lockbox.people.roles import Caller, Role
from lockbox.tenancy import authority
from lockbox.watch import day, status
from lockbox.watch.day import Day
from lockbox.watch.status import Status

FINDINGS = text("SELECT rule, about, raised_at FROM operating_findings()")


@dataclass(frozen=True)
class Finding:
    """Something that must never be: which invariant, of which request or log, and when it was last said."""

    rule: str
    about: UUID
    raised_at: datetime


@dataclass(frozen=True)
class Operations:
    """Counts and ages alone. `day` and `findings` are None where Postgres does not say."""

    status: Status
    day: Day | None
    findings: Sequence[Finding] | None


def look(database: Database, caller: Caller) -> Operations:
    """Ask whatever answers; what is away is said, and no question takes longer than a few seconds.

    Raises:
        NotYours: the caller is no operator.
    """
    authority.capacity(caller, (Role.OPERATOR,))
    return Operations(status.read(database, with_redis=True), day.read(database), _findings(database))


def _findings(database: Database) -> Sequence[Finding] | None:
    try:
        with database.transaction() as session:
            rows = session.connection().execute(FINDINGS).all()
    except SQLAlchemyError:
        return None
    return [Finding(row.rule, row.about, row.raised_at) for row in rows]
