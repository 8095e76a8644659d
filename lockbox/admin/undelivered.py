"""Dead notices as the vendor's operators read them: which did not arrive and why, and nothing of what they said."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from lockbox.admin import permissions
from lockbox.identity import row_security
from lockbox.identity.roles import Caller, Role
from lockbox.notifications.outcome_events import TOO_LATE

MOST_A_PAGE = 200

READ = text("SELECT * FROM dead_notices(:before, :most)")


@dataclass(frozen=True)
class DeadNotice:
    """A notice that did not arrive; `error` is a word.

    `delivery_id` is its last try where an endpoint of the vendor was called, which operators may have repeated.
    """

    id: UUID
    request_id: UUID | None
    tenant: str | None
    template: str
    channel: str
    died_at: datetime
    attempts: int
    error: str
    delivery_id: UUID | None


@dataclass(frozen=True)
class Page:
    """Some dead notices, those that were promised last first, and the cursor of those that follow."""

    notices: Sequence[DeadNotice]
    next_cursor: UUID | None


def page(session: Session, caller: Caller, *, cursor: UUID | None, most: int) -> Page:
    """Return dead notices of all tenants and of the vendor's own, from the cursor on.

    Raises:
        NotYours: the caller is no operator.
    """
    row_security.enter(session, caller)
    permissions.capacity(caller, (Role.OPERATOR,))
    rows = session.connection().execute(READ, {"before": cursor, "most": most + 1}).all()
    found = [
        DeadNotice(
            id=row.id,
            request_id=row.request_id,
            tenant=row.tenant,
            template=row.template,
            channel=row.channel,
            died_at=row.died_at,
            attempts=row.attempts,
            error=row.error or TOO_LATE,
            delivery_id=row.delivery_id,
        )
        for row in rows[:most]
    ]
    return Page(found, found[-1].id if len(rows) > most else None)
