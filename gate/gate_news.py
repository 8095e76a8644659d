"""Announce rows about gates in all logs and by mail: in order, and once in each log."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, TextClause, text
from sqlalchemy.exc import InterfaceError, OperationalError

from lockbox.database import Database, UnitOfWork

log = structlog.get_logger(__name__)

NOBODY = UUID(int=0)
SETTLED = timedelta(minutes=1)
"""The age of a tenant from which its log is written: from then on, the order of ids is the order of commits."""
AT_ONCE = 20
HOLD = text("SELECT pg_advisory_xact_lock(hashtextextended('lockbox enforcement of gates', 0))")
"""Only one process at a time records the gates of a catalogue."""


@dataclass(frozen=True)
class GateNews:
    """The SQL statements of a table whose rows store how far they were announced.

    `waiting` locks the first due row of a service that has not `failed`. Other workers wait for this lock, because
    skipping the row would break the order.
    """

    waiting: TextClause
    tenants: TextClause
    told: TextClause
    tell: Callable[[UnitOfWork, Row[Any], Row[Any] | None], None]


def announce(database: Database, news: GateNews, *, settled: timedelta = SETTLED) -> Iterator[int]:
    """Write each row into the vendor's log and then into the tenants' logs. Yield the number of entries of each step.

    Safe to run concurrently. Raises OperationalError if Postgres is away.
    """
    failed: list[str] = []
    while True:
        found: Row[Any] | None = None
        try:
            with database.transaction() as session:
                found = session.execute(news.waiting, {"failed": failed, "settled": settled}).one_or_none()
                if found is None:
                    return
                count = _announce_some(session, news, found, settled)
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            if found is None:
                raise
            log.exception("gate.not_announced", service=found.service)
            failed.append(found.service)
        else:
            yield count


def _announce_some(session: UnitOfWork, news: GateNews, row: Row[Any], settled: timedelta) -> int:
    if row.announced_to is None:
        news.tell(session, row, None)
        session.execute(news.told, {"id": row.id, "to": NOBODY})
        return 1
    tenants = session.execute(news.tenants, {**row._asdict(), "settled": settled, "most": AT_ONCE}).all()
    for tenant in tenants:
        news.tell(session, row, tenant)
    session.execute(news.told, {"id": row.id, "to": tenants[-1].id if tenants else row.announced_to})
    return len(tenants)
