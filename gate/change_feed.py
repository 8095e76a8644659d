"""Read from Postgres which windows may have changed since the last read."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from lockbox.database import UnitOfWork, now

CHANGES = text("""
SELECT server, seen, event_id, request_id, ends, tenant_id, person_id FROM window_changes(CAST(:before AS text))
""")
RECOVERY = " in recovery"


@dataclass(frozen=True)
class WindowChange:
    """An event after which windows may be open or closed: of one request, else of a tenant or person, else all.

    What `ends` a request's window ends it for good.
    """

    request_id: UUID | None
    ends: bool
    tenant_id: UUID | None
    person_id: UUID | None


@dataclass(frozen=True)
class ChangeBatch:
    """What one read found, and the time on the database's clock after it.

    `server` changes with each start of Postgres and with each database; snapshots of two servers mean nothing to each
    other. The next read goes on from `seen`.
    """

    server: str
    seen: str
    changes: tuple[WindowChange, ...]
    at: datetime

    @property
    def is_standby(self) -> bool:
        """Whether a standby has answered, which may be behind."""
        return self.server.endswith(RECOVERY)

    def follows(self, earlier: "ChangeBatch | None") -> bool:
        """Whether it tells all that has changed since an earlier batch: of the same server, and no older."""
        return earlier is not None and earlier.server == self.server and _next(earlier) <= _next(self)


def read(session: UnitOfWork, earlier: ChangeBatch | None) -> ChangeBatch:
    """Return what was changed by the transactions whose end the earlier read had not seen; nothing where it is None.

    A sequence would not do: a number is taken before its commit is seen. The transaction must be entered as a system.
    """
    rows = session.execute(CHANGES, {"before": earlier.seen if earlier else None}).all()
    changes = tuple(_change(row) for row in rows if row.event_id is not None)
    return ChangeBatch(rows[0].server, rows[0].seen, changes, now(session))


def _next(batch: ChangeBatch) -> int:
    """Return the first transaction that had not begun, of a snapshot as Postgres writes it: xmin:xmax:running."""
    return int(batch.seen.split(":")[1])


def _change(row: Row[Any]) -> WindowChange:
    return WindowChange(row.request_id, row.ends, row.tenant_id, UUID(row.person_id) if row.person_id else None)
